//! What random operations must lead to: for each cursor the events it is owed, and how.

use std::collections::{BTreeMap, BTreeSet};

use super::Traits;
use crate::broker::{CursorId, CursorSpec, Lease, Position, Start};
use crate::delivery::Verdict;
use crate::event::Event;

/// How much earlier than asked for a cursor may begin.
const SLACK_MS: u64 = 2_000;

/// The cursors of a run.
pub(super) fn ids() -> impl Iterator<Item = CursorId> {
    (0..3).map(|n| CursorId(format!("cursor-{n}").into()))
}

/// Everything that was published, and each cursor's share in it.
#[derive(Debug)]
pub(super) struct Model {
    /// What was on its way to a process that ended comes later than what was not.
    comes_late: bool,
    published: BTreeMap<Position, (u64, Event)>,
    shares: BTreeMap<CursorId, Share>,
    /// What was given up, by whom, and after how many attempts. It stays when a cursor goes.
    dead: BTreeMap<(CursorId, Position), u32>,
}

#[derive(Debug, Default)]
struct Share {
    interest: Option<crate::event::Interest>,
    open: BTreeMap<Position, Open>,
    settled: BTreeSet<Position>,
    /// A process ended: what it had leased may be held, or be as if it had never been leased.
    ended: bool,
}

/// An event that a cursor has not settled.
#[derive(Debug)]
struct Open {
    state: State,
    attempts: u32,
    /// It must come. Else it may: its interest is another one now, or came later.
    certain: bool,
    /// It may have been on its way to a process that ended.
    late: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Leased,
    Back,
    Waiting(u64),
}

impl Open {
    fn fresh(certain: bool) -> Self {
        Self { state: State::Fresh, attempts: 0, certain, late: false }
    }
}

impl Model {
    /// Nothing yet, on a backend with leases that outlive their process or without.
    pub(super) fn of(traits: Traits) -> Self {
        let comes_late = !traits.lease_time.is_zero();
        let (published, shares) = (BTreeMap::new(), BTreeMap::new());
        Self { comes_late, published, shares, dead: BTreeMap::new() }
    }

    /// The last position.
    pub(super) fn last(&self) -> Position {
        self.published.last_key_value().map(|(position, _)| *position).unwrap_or_default()
    }

    /// These events were stored at these positions.
    pub(super) fn published(
        &mut self,
        now_ms: u64,
        events: impl Iterator<Item = (Event, Position)>,
    ) {
        for (event, position) in events {
            assert!(position > self.last(), "{position} does not rise above {}", self.last());
            for share in self.shares.values_mut() {
                if share.interest.as_ref().is_some_and(|interest| event.is_of(interest)) {
                    share.open.insert(position, Open::fresh(true));
                }
            }
            self.published.insert(position, (now_ms, event));
        }
    }

    /// A cursor was made.
    pub(super) fn begun(&mut self, spec: &CursorSpec) {
        let Start::AtMs(start_ms) = spec.start;
        let mut share = Share { interest: Some(spec.interest.clone()), ..Share::default() };
        for (position, (ms, event)) in &self.published {
            if ms + SLACK_MS >= start_ms && event.is_of(&spec.interest) {
                share.open.insert(*position, Open::fresh(false));
            }
        }
        self.shares.insert(spec.id.clone(), share);
    }

    /// A cursor has another spec.
    pub(super) fn changed(&mut self, before: &CursorSpec, after: &CursorSpec) {
        if before.interest == after.interest {
            return;
        }
        let Some(share) = self.shares.get_mut(&after.id) else { return };
        share.interest = Some(after.interest.clone());
        share.open.values_mut().for_each(|open| open.certain = false);
        for (position, (_, event)) in &self.published {
            if event.is_of(&after.interest) && !share.settled.contains(position) {
                share.open.entry(*position).or_insert(Open::fresh(false));
            }
        }
    }

    /// The process ended.
    pub(super) fn ended(&mut self) {
        for share in self.shares.values_mut() {
            share.ended = true;
            for open in share.open.values_mut() {
                open.late = self.comes_late;
                if open.state == State::Leased {
                    open.state = State::Back;
                }
            }
        }
    }

    /// Must something be there to lease?
    pub(super) fn is_ready(&self, spec: &CursorSpec, now_ms: u64) -> bool {
        let share = &self.shares[&spec.id];
        let held = share.open.values().filter(|open| open.state != State::Fresh).count();
        share.open.values().filter(|open| open.certain).any(|open| match open.state {
            State::Fresh => held < spec.waiting_max,
            State::Back => !share.ended || held <= spec.waiting_max,
            State::Waiting(due_ms) => due_ms <= now_ms,
            State::Leased => false,
        })
    }

    /// An event was leased: may it be, and in this way?
    pub(super) fn leased(&mut self, spec: &CursorSpec, lease: &Lease, now_ms: u64) {
        let position = lease.position();
        let Some((_, event)) = self.published.get(&position) else {
            panic!("{position} was never published");
        };
        assert_eq!(**lease.event(), *event, "{position} is another event");
        let Some(share) = self.shares.get_mut(&spec.id) else { panic!("it is no cursor") };
        assert!(!share.settled.contains(&position), "{lease:?} was settled: {share:?}");
        let certain = |open: &&Open| open.certain;
        let held = share.open.values().filter(certain).filter(|open| open.state != State::Fresh);
        let held = held.count();
        let is_fresh = |open: &Open| open.certain && open.state == State::Fresh && !open.late;
        let first = share.open.iter().find(|(_, open)| is_fresh(open)).map(|(first, _)| *first);
        let Some(open) = share.open.get_mut(&position) else {
            panic!("{lease:?} was not asked for: {share:?}");
        };
        assert_eq!(lease.attempts(), open.attempts, "attempts of {lease:?}");
        match open.state {
            State::Leased => panic!("{lease:?} is leased already"),
            State::Waiting(due_ms) => assert!(due_ms <= now_ms, "{lease:?} is due at {due_ms}"),
            State::Fresh if open.certain => {
                let in_order = open.late || first == Some(position);
                assert!(in_order, "{lease:?} is not the first, which is {first:?}");
                assert!(share.ended || held < spec.waiting_max, "{held} are held: {lease:?}");
            }
            State::Fresh | State::Back => {}
        }
        open.state = State::Leased;
    }

    /// A lease ended so.
    pub(super) fn settled(
        &mut self,
        id: &CursorId,
        position: Position,
        tried: bool,
        verdict: Verdict,
    ) {
        let Some(share) = self.shares.get_mut(id) else { panic!("it is no cursor") };
        let Some(open) = share.open.get_mut(&position) else { panic!("it is not open") };
        let attempts = open.attempts + u32::from(tried);
        match verdict {
            Verdict::Ack | Verdict::Skip | Verdict::DeadLetter { .. } => {
                share.open.remove(&position);
                share.settled.insert(position);
                if let Verdict::DeadLetter { .. } = verdict {
                    self.dead.entry((id.clone(), position)).or_insert(attempts);
                }
            }
            Verdict::Retry { due_ms } => {
                open.attempts = attempts;
                open.state = State::Waiting(due_ms);
            }
            Verdict::Release => open.state = State::Back,
        }
    }

    /// What a cursor has given up, with the attempts made.
    pub(super) fn dead(&self, id: &CursorId) -> Vec<(Position, u32)> {
        let of_it = self.dead.iter().filter(|((of, _), _)| of == id);
        of_it.map(|((_, position), attempts)| (*position, *attempts)).collect()
    }

    /// Must anything come?
    pub(super) fn owes(&self, id: &CursorId) -> bool {
        self.shares[id].open.values().any(|open| open.certain)
    }

    /// The time at which nothing waits any more.
    pub(super) fn due_ms(&self, id: &CursorId) -> u64 {
        let due = |open: &Open| match open.state {
            State::Waiting(due_ms) => due_ms,
            _ => 0,
        };
        self.shares[id].open.values().map(due).max().unwrap_or(0)
    }

    /// Everything that a cursor was owed has come.
    pub(super) fn came_to_rest(&mut self, id: &CursorId) {
        if let Some(share) = self.shares.get_mut(id) {
            share.ended = false;
        }
    }
}
