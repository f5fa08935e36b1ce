//! A subscription's place as a pure state machine.
//!
//! A place is a *frontier* and its exceptions. Every event of the subscription at or below the
//! frontier is settled, except those *taken* (leased for the first time and not settled) and those
//! *waiting* for a retry. So one event that waits costs one entry, however many came after it.
//!
//! The machine neither reads a clock nor writes a byte: time comes in, and what must be remembered
//! goes out as an [`Entry`]. Replaying the entries, any suffix of them twice too, gives the place
//! back. Leases are not remembered: whatever was leased at a crash is leased again.

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

pub use entry::{Entry, Waiting};

use crate::broker::Position;
use crate::delivery::{Attempt, Tried, Verdict};
use crate::limits;

/// An event's position, and where the broker finds its bytes. The machine carries `place` without
/// reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The position.
    pub position: Position,
    /// Where the broker finds the event: its own affair.
    pub place: u64,
}

/// An event given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Which event.
    pub spot: Spot,
    /// Attempts made before.
    pub attempts: u32,
}

/// A lease that ended in a dispatcher's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whose lease.
    pub position: Position,
    /// The attempt that was made, if one was.
    pub attempt: Option<Attempt>,
    /// What is to become of the event.
    pub verdict: Verdict,
}

/// What a turn changed: the entry to write, and the way back should the write fail.
#[derive(Debug)]
#[must_use = "write the entry; when that fails, undo the turn"]
pub struct Turn {
    /// What to remember; `None` when nothing durable changed.
    pub entry: Option<Entry>,
    /// Events of the turn that are settled for good.
    pub settled: u64,
    undo: Vec<(Position, Held)>,
}

/// How many events a place holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Leased now.
    pub leased: usize,
    /// Waiting for a retry and not leased.
    pub waiting: usize,
    /// Unsettled at or below the frontier: leased, given back and waiting.
    pub unsettled: usize,
}

/// A subscription's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    frontier: Position,
    /// Everything up to here was dropped: nothing brings it back.
    floor: Position,
    held: BTreeMap<Position, Held>,
    /// Given back: leased again before everything else.
    released: BTreeSet<Position>,
    /// Waiting and not leased, by the time they fall due.
    due: BTreeSet<(u64, Position)>,
    /// Those of `held` that have no retry: what an entry lists in full.
    taken: BTreeSet<Position>,
    waiting_max: usize,
}

/// An unsettled event at or below the frontier.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    place: u64,
    /// `None`: it was never settled with a retry.
    retry: Option<Box<Retry>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Retry {
    due_ms: u64,
    tried: Tried,
}

impl Progress {
    /// A place at which everything up to `frontier` is settled. At most `waiting_max` events wait.
    pub fn new(frontier: Position, waiting_max: usize) -> Self {
        Self {
            frontier,
            floor: Position(0),
            held: BTreeMap::new(),
            released: BTreeSet::new(),
            due: BTreeSet::new(),
            taken: BTreeSet::new(),
            waiting_max,
        }
    }

    /// The last position of those that were dropped, with everything before it.
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// The last position that was given out; what lies above is fresh.
    pub fn frontier(&self) -> Position {
        self.frontier
    }

    /// Everything up to here is settled: where a place begins of which nothing else is known.
    pub fn settled_upto(&self) -> Position {
        let first = self.first_unsettled();
        first.map_or(self.frontier, |spot| Position(spot.position.0 - 1))
    }

    /// The first unsettled position at or below the frontier.
    pub fn first_unsettled(&self) -> Option<Spot> {
        let (position, held) = self.held.first_key_value()?;
        Some(Spot { position: *position, place: held.place })
    }

    /// Every unsettled event at or below the frontier, by position.
    pub fn unsettled(&self) -> impl Iterator<Item = Spot> {
        self.held.iter().map(|(position, held)| Spot { position: *position, place: held.place })
    }

    /// How many events it holds.
    pub fn counts(&self) -> Counts {
        let idle = self.released.len() + self.due.len();
        Counts {
            leased: self.held.len() - idle,
            waiting: self.due.len(),
            unsettled: self.held.len(),
        }
    }

    /// Changes how many events may wait.
    pub fn set_waiting_max(&mut self, waiting_max: usize) {
        self.waiting_max = waiting_max;
    }

    /// May a fresh event be given out? Not when it could find no room to wait.
    pub fn takes_fresh(&self) -> bool {
        self.held.len() < self.waiting_max
    }

    /// Is an event there to be leased without a fresh one?
    pub fn has_ready(&self, now_ms: u64) -> bool {
        !self.released.is_empty() || self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms)
    }

    /// When the next waiting event falls due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Gives out up to `limit` events: those given back first, then retries that are due at
    /// `now_ms`, then `fresh` ones, which come in the order of their positions.
    pub fn lease(
        &mut self,
        limit: usize,
        now_ms: u64,
        mut fresh: impl FnMut() -> Option<Spot>,
    ) -> Vec<Leased> {
        let mut leased = Vec::new();
        while leased.len() < limit {
            let Some(position) = self.next_ready(now_ms) else { break };
            if let Some(held) = self.held.get(&position) {
                let attempts = held.retry.as_ref().map_or(0, |retry| retry.tried.attempts);
                leased.push(Leased { spot: Spot { position, place: held.place }, attempts });
            }
        }
        while leased.len() < limit && self.takes_fresh() {
            let Some(spot) = fresh() else { break };
            if spot.position > self.frontier {
                self.frontier = spot.position;
                let held = Held { place: spot.place, retry: None };
                self.held.insert(spot.position, held);
                self.taken.insert(spot.position);
                leased.push(Leased { spot, attempts: 0 });
            }
        }
        leased
    }

    /// Gives an event back without counting an attempt. Unknown positions are ignored: retention
    /// may have taken the event meanwhile.
    pub fn release(&mut self, position: Position) {
        if self.leased(position).is_some() {
            self.released.insert(position);
        }
    }

    /// What was tried for an event whose lease ends, the attempt of that lease included; `None`
    /// where it is not leased.
    pub fn tried(&self, ended: &Ended) -> Option<Tried> {
        Some(self.leased(ended.position)?.tried_with(ended.attempt))
    }

    /// Ends leases. Positions that are not leased are ignored.
    pub fn settle(&mut self, ended: &[Ended]) -> Turn {
        let mut turn = Turn { entry: None, settled: 0, undo: Vec::new() };
        let (mut waiting, mut gone) = (Vec::new(), Vec::new());
        for one in ended {
            let position = one.position;
            if self.leased(position).is_none() {
                continue;
            }
            match one.verdict {
                Verdict::Release => self.release(position),
                Verdict::Ack | Verdict::Skip | Verdict::DeadLetter { .. } => {
                    if let Some(held) = self.held.remove(&position) {
                        if !self.taken.remove(&position) {
                            gone.push(position);
                        }
                        turn.undo.push((position, held));
                        turn.settled += 1;
                    }
                }
                Verdict::Retry { due_ms } => {
                    if let Some((before, now)) = self.wait(one, due_ms) {
                        turn.undo.push((position, before));
                        waiting.push(now);
                    }
                }
            }
        }
        if !turn.undo.is_empty() {
            let frontier = self.frontier;
            turn.entry = Some(Entry { frontier, taken: self.taken(), waiting, gone });
        }
        turn
    }

    /// Takes a turn back whose entry could not be written: its events are given back, but those
    /// that somebody leased again meanwhile.
    pub fn undo(&mut self, turn: Turn) {
        for (position, held) in turn.undo.into_iter().rev() {
            if position <= self.floor {
                continue;
            }
            let is_leased_again = self.leased(position).is_some();
            if let Some(retry) = self.held.get(&position).and_then(|now| now.retry.as_ref()) {
                self.due.remove(&(retry.due_ms, position));
            }
            if held.retry.is_none() {
                self.taken.insert(position);
            }
            self.held.insert(position, held);
            if !is_leased_again {
                self.released.insert(position);
            }
        }
    }

    /// Loses every event up to `upto`; returns how many of them were held.
    pub fn drop_upto(&mut self, upto: Position) -> u64 {
        let dropped: Vec<Position> = self.held.range(..=upto).map(|(at, _)| *at).collect();
        for position in &dropped {
            self.lose(*position);
        }
        self.frontier = self.frontier.max(upto);
        self.floor = self.floor.max(upto);
        dropped.len() as u64
    }

    /// Loses one event, which the broker does not have any more.
    pub fn lose(&mut self, position: Position) {
        let Some(held) = self.held.remove(&position) else { return };
        self.released.remove(&position);
        self.taken.remove(&position);
        if let Some(retry) = held.retry {
            self.due.remove(&(retry.due_ms, position));
        }
    }

    /// The place as an entry, with the first `limit` of those that wait behind `after`. When there
    /// are as many, the entry ends at the last of them, and another one goes on behind that.
    ///
    /// Such entries, replayed in order on a new place, give it back. The first few of them do so up
    /// to their frontier, so that where the others are missing events come again.
    pub fn snapshot(&self, after: Position, limit: usize) -> Entry {
        let behind = self.held.range((Bound::Excluded(after), Bound::Unbounded));
        let waiting = behind.filter_map(|(position, held)| {
            let spot = Spot { position: *position, place: held.place };
            held.retry.as_ref().map(|retry| waiting_of(spot, retry))
        });
        let waiting: Vec<Waiting> = waiting.take(limit).collect();
        let last = waiting.last().filter(|_| waiting.len() == limit);
        let frontier = last.map_or(self.frontier, |last| last.spot.position);
        let mut taken = self.taken();
        taken.retain(|spot| spot.position <= frontier);
        Entry { frontier, taken, waiting, gone: Vec::new() }
    }

    /// Takes an entry in, as it was written, on a new place or behind other entries. What it says
    /// is taken counts as given back.
    pub fn replay(&mut self, entry: &Entry) {
        self.frontier = entry.frontier;
        for position in std::mem::take(&mut self.taken) {
            self.held.remove(&position);
        }
        self.released.clear();
        for spot in &entry.taken {
            self.taken.insert(spot.position);
            let held = Held { place: spot.place, retry: None };
            self.held.insert(spot.position, held);
            self.released.insert(spot.position);
        }
        for position in &entry.gone {
            self.forget_waiting(*position);
        }
        for waiting in &entry.waiting {
            let position = waiting.spot.position;
            self.forget_waiting(position);
            self.released.remove(&position);
            let retry = Retry { due_ms: waiting.due_ms, tried: waiting.tried.clone() };
            let place = waiting.spot.place;
            let held = Held { place, retry: Some(Box::new(retry)) };
            self.held.insert(position, held);
            self.due.insert((waiting.due_ms, position));
        }
    }

    /// Pulls every due time back to the longest pause from `now_ms`: a clock that was set back must
    /// not let an event wait for as long as the clock jumped.
    pub fn clamp_due(&mut self, now_ms: u64) {
        let latest_ms = now_ms.saturating_add(limits::PAUSE_MAX_MS);
        let late = self.due.split_off(&(latest_ms + 1, Position(0)));
        for (_, position) in late {
            if let Some(retry) = self.held.get_mut(&position).and_then(|held| held.retry.as_mut()) {
                retry.due_ms = latest_ms;
                self.due.insert((latest_ms, position));
            }
        }
    }

    /// The event, when it is leased: neither given back nor waiting.
    fn leased(&self, position: Position) -> Option<&Held> {
        let held = self.held.get(&position)?;
        let due = held.retry.as_ref().map(|retry| (retry.due_ms, position));
        let waits = due.is_some_and(|due| self.due.contains(&due));
        (!waits && !self.released.contains(&position)).then_some(held)
    }

    fn next_ready(&mut self, now_ms: u64) -> Option<Position> {
        if let Some(position) = self.released.pop_first() {
            return Some(position);
        }
        let (due_ms, _) = *self.due.first()?;
        if due_ms > now_ms {
            return None;
        }
        self.due.pop_first().map(|(_, position)| position)
    }

    fn wait(&mut self, ended: &Ended, due_ms: u64) -> Option<(Held, Waiting)> {
        let held = self.held.get_mut(&ended.position)?;
        self.taken.remove(&ended.position);
        let retry = Retry { due_ms, tried: held.tried_with(ended.attempt) };
        let spot = Spot { position: ended.position, place: held.place };
        let waiting = waiting_of(spot, &retry);
        let now = Held { place: held.place, retry: Some(Box::new(retry)) };
        let before = std::mem::replace(held, now);
        self.due.insert((due_ms, ended.position));
        Some((before, waiting))
    }

    /// Events without a retry entry: those an entry lists in full.
    fn taken(&self) -> Vec<Spot> {
        let spot = |position: &Position| {
            self.held.get(position).map(|held| Spot { position: *position, place: held.place })
        };
        self.taken.iter().filter_map(spot).collect()
    }

    fn forget_waiting(&mut self, position: Position) {
        if let Some(retry) = self.held.get(&position).and_then(|held| held.retry.as_ref()) {
            self.due.remove(&(retry.due_ms, position));
            self.held.remove(&position);
        }
    }
}

impl Held {
    /// What was tried for it, with one more attempt.
    fn tried_with(&self, attempt: Option<Attempt>) -> Tried {
        self.retry.as_ref().map_or_else(Tried::default, |retry| retry.tried.clone()).and(attempt)
    }
}

fn waiting_of(spot: Spot, retry: &Retry) -> Waiting {
    Waiting { spot, due_ms: retry.due_ms, tried: retry.tried.clone() }
}

#[cfg(test)]
mod tests;
