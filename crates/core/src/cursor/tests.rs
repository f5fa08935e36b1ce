//! The machine against a model that keeps every event by name.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::delivery::{DeadLetterReason, Outcome};

#[derive(Clone, Debug)]
enum Operation {
    Publish(u8),
    Lease(u8),
    /// Settle the n-th lease that is out so.
    Settle(Vec<(u8, Choice)>),
    /// The same, but the entry cannot be written, and until that is known the rest goes on.
    SettleInVain(Vec<(u8, Choice)>, Vec<Between>),
    Advance(u16),
    Crash,
    /// A snapshot, between whose entries the rest goes on.
    Compact(Vec<Between>),
    /// A snapshot of which its beginning and so many entries are left when the process ends.
    CrashInSnapshot(u8),
    DropOldest(u8),
}

/// What may happen between two entries of a snapshot, and while a turn is written.
#[derive(Clone, Copy, Debug)]
enum Between {
    Lease(u8),
    DropOldest(u8),
    Advance(u16),
}

/// What was written, as a broker keeps it.
#[derive(Clone, Debug)]
enum Written {
    /// Where the place begins.
    Open(Position),
    Turn(Entry),
    Drop(Position),
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Ack,
    Retry(u16),
    Release,
}

fn operation() -> impl Strategy<Value = Operation> {
    let choice =
        prop_oneof![Just(Choice::Ack), (0u16..2000).prop_map(Choice::Retry), Just(Choice::Release)];
    let turn = proptest::collection::vec((any::<u8>(), choice), 0..6);
    let between = prop_oneof![
        (0u8..4).prop_map(Between::Lease),
        (0u8..3).prop_map(Between::DropOldest),
        (0u16..1500).prop_map(Between::Advance),
    ];
    let between = proptest::collection::vec(between, 0..4);
    prop_oneof![
        3 => (1u8..8).prop_map(Operation::Publish),
        4 => (1u8..6).prop_map(Operation::Lease),
        4 => turn.clone().prop_map(Operation::Settle),
        1 => (turn, between.clone()).prop_map(in_vain),
        2 => (0u16..1500).prop_map(Operation::Advance),
        1 => Just(Operation::Crash),
        1 => between.prop_map(Operation::Compact),
        1 => (0u8..4).prop_map(Operation::CrashInSnapshot),
        1 => (1u8..4).prop_map(Operation::DropOldest),
    ]
}

fn in_vain((turn, between): (Vec<(u8, Choice)>, Vec<Between>)) -> Operation {
    Operation::SettleInVain(turn, between)
}

/// What the model knows of an unsettled event.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    attempts: u32,
    due_ms: u64,
    leased: bool,
}

const WAITING_MAX: usize = 5;

struct Bench {
    machine: Progress,
    fresh: VecDeque<Spot>,
    written: Vec<Written>,
    model: BTreeMap<Position, Known>,
    next: u64,
    now_ms: u64,
}

impl Bench {
    fn new() -> Self {
        Self {
            machine: Progress::new(Position(0), WAITING_MAX),
            fresh: VecDeque::new(),
            written: vec![Written::Open(Position(0))],
            model: BTreeMap::new(),
            next: 1,
            now_ms: 1_000_000,
        }
    }

    fn run(&mut self, operation: Operation) {
        match operation {
            Operation::Publish(count) => {
                for _ in 0..count {
                    let position = Position(self.next);
                    self.next += 1;
                    self.fresh.push_back(Spot { position, place: position.0 * 10 });
                    self.model.insert(position, Known::default());
                }
            }
            Operation::Lease(limit) => self.lease(limit as usize),
            Operation::Settle(turn) => self.settle_and_write(&turn),
            Operation::SettleInVain(turn, between) => self.settle_in_vain(&turn, &between),
            Operation::Advance(by_ms) => self.now_ms += u64::from(by_ms),
            Operation::Crash => self.crash(),
            Operation::Compact(between) => self.compact(&between),
            Operation::CrashInSnapshot(left) => self.crash_in_snapshot(left as usize),
            Operation::DropOldest(count) => self.drop_oldest(count as usize),
        }
        let leased = self.model.values().filter(|known| known.leased).count();
        assert_eq!(self.machine.counts().leased, leased);
        assert_eq!(self.machine.counts().unsettled + self.fresh.len(), self.model.len());
    }

    fn lease(&mut self, limit: usize) {
        // A turn that was taken back may have left too many.
        let before = self.machine.counts().unsettled;
        let fresh = &mut self.fresh;
        for leased in self.machine.lease(limit, self.now_ms, || fresh.pop_front()) {
            let known = self.model.get_mut(&leased.spot.position).expect("unsettled");
            assert!(!known.leased, "leased twice");
            assert!(known.due_ms <= self.now_ms, "before it is due");
            assert_eq!(known.attempts, leased.attempts);
            assert_eq!(leased.spot.place, leased.spot.position.0 * 10);
            known.leased = true;
        }
        assert!(self.machine.counts().unsettled <= WAITING_MAX.max(before));
    }

    fn settle_and_write(&mut self, turn: &[(u8, Choice)]) {
        let (turn, _) = self.settle(turn);
        self.written.extend(turn.entry.map(Written::Turn));
    }

    fn settle_in_vain(&mut self, turn: &[(u8, Choice)], between: &[Between]) {
        let (turn, before) = self.settle(turn);
        between.iter().for_each(|between| self.go_on(*between));
        self.machine.undo(turn);
        for (position, before) in before {
            if position > self.machine.floor() {
                let leased = self.model.get(&position).is_some_and(|known| known.leased);
                self.model.insert(position, Known { leased, due_ms: 0, ..before });
            }
        }
    }

    /// Says what was known before of those that changed.
    fn settle(&mut self, turn: &[(u8, Choice)]) -> (Turn, Vec<(Position, Known)>) {
        let out: Vec<Position> =
            self.model.iter().filter(|(_, k)| k.leased).map(|(position, _)| *position).collect();
        let now_ms = self.now_ms;
        let (mut all, mut before) = (Vec::new(), Vec::new());
        for (which, choice) in turn.iter().filter(|_| !out.is_empty()) {
            let position = out[*which as usize % out.len()];
            let (attempt, verdict) = match choice {
                Choice::Ack => (Some(200), Verdict::Ack),
                Choice::Retry(ms) => {
                    (Some(500), Verdict::Retry { due_ms: now_ms + u64::from(*ms) })
                }
                Choice::Release => (None, Verdict::Release),
            };
            let attempt = attempt.map(|code| Attempt::new(now_ms, 1, Outcome::Status(code)));
            all.push(Ended { position, attempt, verdict });
            let Some(known) = self.model.get_mut(&position).filter(|known| known.leased) else {
                continue;
            };
            match verdict {
                Verdict::Release => (known.leased, known.due_ms) = (false, 0),
                Verdict::Retry { due_ms } => {
                    before.push((position, known.clone()));
                    *known = Known { attempts: known.attempts + 1, due_ms, leased: false };
                }
                _ => before.extend(self.model.remove_entry(&position)),
            }
        }
        (self.machine.settle(&all), before)
    }

    fn go_on(&mut self, between: Between) {
        match between {
            Between::Lease(limit) => self.lease(limit as usize),
            Between::DropOldest(count) => self.drop_oldest(count as usize),
            Between::Advance(by_ms) => self.now_ms += u64::from(by_ms),
        }
    }

    fn crash(&mut self) {
        let Some(Written::Open(frontier)) = self.written.first() else { panic!("never opened") };
        self.machine = Progress::new(*frontier, WAITING_MAX);
        for written in self.written.iter().flat_map(|written| [written; 2]) {
            match written {
                Written::Open(_) => {}
                Written::Turn(entry) => self.machine.replay(entry),
                Written::Drop(upto) => _ = self.machine.drop_upto(*upto),
            }
        }
        let frontier = self.machine.frontier();
        self.fresh = (frontier.0 + 1..self.next)
            .map(|position| Spot { position: Position(position), place: position * 10 })
            .collect();
        for known in self.model.values_mut() {
            known.leased = false;
        }
    }

    fn drop_oldest(&mut self, count: usize) {
        let Some(upto) = self.model.keys().take(count).next_back().copied() else { return };
        let fresh_before = self.fresh.len();
        self.fresh.retain(|spot| spot.position > upto);
        let dropped_fresh = (fresh_before - self.fresh.len()) as u64;
        let gone = self.model.keys().filter(|position| **position <= upto).count() as u64;
        assert_eq!(self.machine.drop_upto(upto) + dropped_fresh, gone);
        self.model = self.model.split_off(&upto.next());
        self.written.push(Written::Drop(upto));
    }

    /// Two waiting events in each entry.
    fn compact(&mut self, between: &[Between]) {
        let mut between = between.iter();
        let mut said = vec![Written::Open(self.machine.settled_upto())];
        let mut after = Some(Position(0));
        while let Some(from) = after {
            let entry = self.machine.snapshot(from, 2);
            assert!(entry.waiting.len() <= 2, "more than asked for");
            after = (entry.waiting.len() == 2).then_some(entry.frontier);
            said.push(Written::Turn(entry));
            if let Some(between) = between.next().filter(|_| after.is_some()) {
                self.go_on(*between);
            }
        }
        said.push(Written::Drop(self.machine.floor()));
        self.written = said;
    }

    /// What lies above the frontier of the entries that are left is fresh again, settled or not.
    fn crash_in_snapshot(&mut self, left: usize) {
        let floor = Written::Drop(self.machine.floor());
        self.compact(&[]);
        self.written.truncate(1 + left);
        self.written.push(floor);
        self.crash();
        self.model.extend(self.fresh.iter().map(|spot| (spot.position, Known::default())));
    }

    /// Whatever happened, every event that is not settled can be had.
    fn drain(&mut self) {
        self.crash();
        self.now_ms += 1_000_000;
        while !self.model.is_empty() {
            let before = self.model.len();
            self.lease(100);
            let turn: Vec<_> = (0..100).map(|which| (which, Choice::Ack)).collect();
            self.settle_and_write(&turn);
            assert!(self.model.len() < before, "stuck");
        }
    }
}

proptest! {
    #[test]
    fn no_event_is_lost_or_given_out_twice(
        operations in proptest::collection::vec(operation(), 1..80),
    ) {
        let mut bench = Bench::new();
        for operation in operations {
            bench.run(operation);
        }
        bench.drain();
    }
}

fn whole(machine: &Progress) -> Entry {
    machine.snapshot(Position(0), usize::MAX)
}

fn spot(position: u64) -> Spot {
    Spot { position: Position(position), place: 0 }
}

fn leased(machine: &mut Progress, now_ms: u64, fresh: &mut dyn Iterator<Item = Spot>) -> Vec<u64> {
    machine.lease(100, now_ms, || fresh.next()).iter().map(|l| l.spot.position.0).collect()
}

fn ended(position: u64, verdict: Verdict) -> Ended {
    let attempt = Some(Attempt::new(0, 1, Outcome::Timeout));
    Ended { position: Position(position), attempt, verdict }
}

#[test]
fn what_was_given_back_comes_first_then_due_retries_then_fresh() {
    let mut machine = Progress::new(Position(0), 100);
    assert_eq!(leased(&mut machine, 0, &mut (1..=3).map(spot)), [1, 2, 3]);
    let _ = machine.settle(&[ended(1, Verdict::Retry { due_ms: 50 })]);
    machine.release(Position(3));
    assert_eq!(leased(&mut machine, 60, &mut (4..=4).map(spot)), [3, 1, 4]);
}

#[test]
fn a_million_settled_above_one_waiting_cost_nothing() {
    const TURN: u64 = 100;
    let mut machine = Progress::new(Position(0), 1_000);
    assert_eq!(leased(&mut machine, 0, &mut (1..=1).map(spot)), [1]);
    let _ = machine.settle(&[ended(1, Verdict::Retry { due_ms: u64::MAX })]);
    let alone = whole(&machine);
    for first in (2..=1_000_001).step_by(TURN as usize) {
        let turn = first..first + TURN;
        assert_eq!(leased(&mut machine, 0, &mut turn.clone().map(spot)).len() as u64, TURN);
        let acks: Vec<Ended> = turn.map(|position| ended(position, Verdict::Ack)).collect();
        let entry = machine.settle(&acks).entry.expect("something changed");
        assert_eq!((entry.taken.len(), entry.waiting.len(), entry.gone.len()), (0, 0, 0));
    }
    assert_eq!(machine.counts(), Counts { leased: 0, waiting: 1, unsettled: 1 });
    // What is kept is what was kept before all of them; only the frontier moved.
    assert_eq!(whole(&machine), Entry { frontier: Position(1_000_001), ..alone });
}

#[test]
fn nothing_fresh_is_leased_while_too_many_wait() {
    let mut machine = Progress::new(Position(0), 3);
    assert_eq!(leased(&mut machine, 0, &mut (1..).map(spot)), [1, 2, 3]);
    let retry = Verdict::Retry { due_ms: 10 };
    let _ = machine.settle(&[ended(1, retry), ended(2, retry), ended(3, Verdict::Ack)]);
    assert_eq!(leased(&mut machine, 0, &mut (4..).map(spot)), [4]);
    assert_eq!(leased(&mut machine, 10, &mut (5..).map(spot)), [1, 2]);
}

#[test]
fn ten_attempts_are_remembered_and_all_are_counted() {
    let mut machine = Progress::new(Position(0), 3);
    assert_eq!(leased(&mut machine, 0, &mut (1..2).map(spot)), [1]);
    for round in 0..25 {
        let _ = machine.settle(&[ended(1, Verdict::Retry { due_ms: round })]);
        assert_eq!(leased(&mut machine, round, &mut (9..9).map(spot)), [1]);
    }
    let snapshot = whole(&machine);
    assert_eq!(snapshot.waiting[0].tried.attempts, 25);
    assert_eq!(snapshot.waiting[0].tried.last.len(), limits::ATTEMPTS_REMEMBERED);
    let dead = Verdict::DeadLetter { reason: DeadLetterReason::Exhausted };
    let attempt = Some(Attempt::new(7_000, 2, Outcome::Status(503)));
    let last = Ended { attempt, ..ended(1, dead) };
    let tried = machine.tried(&last).expect("it is leased");
    assert_eq!((tried.attempts, tried.last.len()), (26, limits::ATTEMPTS_REMEMBERED));
    assert_eq!(tried.last.last().copied(), attempt);
    let without = machine.tried(&Ended { attempt: None, ..last }).expect("it is leased");
    assert_eq!((without.attempts, &*without.last), (25, &*snapshot.waiting[0].tried.last));
    let _ = machine.settle(&[last]);
    assert_eq!(machine.tried(&last), None, "it is not leased any more");
}

#[test]
fn due_times_are_pulled_back_when_the_clock_was() {
    let mut machine = Progress::new(Position(0), 3);
    assert_eq!(leased(&mut machine, 0, &mut (1..3).map(spot)), [1, 2]);
    let day_ms = 86_400_000;
    let _ = machine.settle(&[
        ended(1, Verdict::Retry { due_ms: day_ms }),
        ended(2, Verdict::Retry { due_ms: 1_000 }),
    ]);
    machine.clamp_due(0);
    assert_eq!(machine.next_due_ms(), Some(1_000));
    assert_eq!(leased(&mut machine, 1_000, &mut (9..9).map(spot)), [2]);
    assert_eq!(machine.next_due_ms(), Some(limits::PAUSE_MAX_MS));
}

#[test]
fn what_was_leased_again_is_not_given_out_twice_when_its_turn_is_taken_back() {
    let mut machine = Progress::new(Position(0), 3);
    assert_eq!(leased(&mut machine, 0, &mut (1..=2).map(spot)), [1, 2]);
    let again = Verdict::Retry { due_ms: 0 };
    let turn = machine.settle(&[ended(1, again), ended(2, again)]);
    assert_eq!(machine.lease(1, 0, || None).len(), 1);
    machine.undo(turn);
    assert_eq!(leased(&mut machine, 0, &mut (9..9).map(spot)), [2]);
    assert_eq!(machine.settle(&[ended(1, Verdict::Ack), ended(2, Verdict::Ack)]).settled, 2);
}
