//! Random operations, whose results a small model foretells.
//!
//! What examples leave out is what lies between them: a kill while retries wait and the interest
//! has just changed. The dice are seeded: `EVENTBUS_SEED` repeats a run, `EVENTBUS_ROUNDS` makes it
//! longer.

use std::sync::Arc;
use std::time::Duration;

use super::model::{Model, ids};
use super::world::*;
use super::{Harness, Limits};
use crate::broker::{
    Batch, Broker, Cursor, CursorId, CursorSpec, Lease, Position, Receipt, Settled, Start,
};
use crate::delivery::{DeadLetterReason, Verdict};
use crate::durability::Durability;
use crate::event::Event;
use crate::seams::Entropy;
use crate::testing::{SeededEntropy, event, interest};

/// Operations of a round, after which everything that is owed must come.
const STEPS: usize = 120;

/// Events are of so few types, so that cursors share them.
const TYPES: usize = 3;

/// How long something may take to come that is not certain to.
const MOMENT: Duration = Duration::from_millis(3);

/// Whatever is done in whatever order: nothing that was acknowledged is lost, nothing comes that
/// was settled, attempts are counted, retries keep their times and first leases their order.
pub async fn random_operations_keep_every_promise(harness: &dyn Harness) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("EVENTBUS_SEED").unwrap_or(1);
    println!("EVENTBUS_SEED={seed}");
    let dice = SeededEntropy::new(seed);
    let broker = harness.start(limits()).await;
    let mut run = Run {
        harness,
        dice,
        broker,
        model: Model::of(harness.traits()),
        seats: Vec::new(),
        ids: 0,
    };
    for id in ids() {
        let asked = run.anything(id);
        run.sit(asked).await;
    }
    for round in 0..number("EVENTBUS_ROUNDS").unwrap_or(1) {
        println!("round {round}");
        let ends = [(run.roll(STEPS), End::Kill), (run.roll(STEPS), End::Stop)];
        for step in 0..STEPS {
            match ends.iter().find(|(at, _)| *at == step) {
                Some((_, end)) => run.end(*end).await,
                None => run.step().await,
            }
        }
        run.settle_everything().await;
    }
}

/// Ids are remembered for as long as events are kept: longer than any run takes.
fn limits() -> Limits {
    Limits { deduplication_time: Limits::default().age, ..Limits::default() }
}

/// The broker under test and what is said to be true of it.
struct Run<'a> {
    harness: &'a dyn Harness,
    dice: SeededEntropy,
    broker: Arc<dyn Broker>,
    model: Model,
    seats: Vec<Seat>,
    /// As many ids were given.
    ids: usize,
}

/// A cursor in use.
struct Seat {
    spec: CursorSpec,
    cursor: Arc<dyn Cursor>,
    held: Vec<Lease>,
}

impl Run<'_> {
    fn roll(&self, sides: usize) -> usize {
        (self.dice.next_u64() % sides as u64) as usize
    }

    async fn step(&mut self) {
        let seat = self.roll(self.seats.len());
        match self.roll(100) {
            0..30 => self.publish().await,
            30..58 => {
                let limit = 1 + self.roll(8);
                self.lease(seat, limit).await;
            }
            58..82 => self.settle(seat).await,
            82..86 => self.give_back(seat),
            86..93 => {
                let time = Duration::from_millis(self.roll(400) as u64);
                println!("pass {time:?}");
                self.harness.pass(time).await;
            }
            93..98 => {
                let asked = self.anything(self.seats[seat].spec.id.clone());
                self.change(seat, asked).await;
            }
            _ => self.forget(seat).await,
        }
    }

    /// A spec by the dice, which begins now.
    fn anything(&self, id: CursorId) -> CursorSpec {
        let interest = interest(&format!("t{}", self.roll(TYPES)));
        let waiting_max = 1 + self.roll(12);
        CursorSpec { id, interest, start: Start::AtMs(self.harness.now_ms()), waiting_max }
    }

    async fn publish(&mut self) {
        let event_type = format!("t{}", self.roll(TYPES));
        let (mut events, mut repeats) = (Vec::new(), Vec::new());
        for n in 0..1 + self.roll(6) {
            let payload = format!("{event_type} {} {n}", self.model.last());
            let (event, repeats_one) = self.identified(event(&event_type, payload));
            events.push(event);
            repeats.push(repeats_one);
        }
        let levels = self.broker.capabilities().durabilities.iter();
        let levels: Vec<_> = levels.filter(|level| **level >= Durability::Written).collect();
        let level = *levels[self.roll(levels.len())];
        let batch = Batch { events: events.clone(), atomic: self.roll(2) == 0 };
        let receipts = self.broker.append(batch, level).await.expect("it is stored").receipts;
        println!("publish {event_type}, {level}: {receipts:?}");
        assert_eq!(receipts.len(), events.len());
        let mut stored = Vec::new();
        for ((event, is_repeat), receipt) in events.into_iter().zip(repeats).zip(receipts) {
            match receipt {
                Receipt::Stored(position) if !is_repeat => stored.push((event, position)),
                Receipt::Duplicate if is_repeat => {}
                other => panic!("{other:?} for {event:?}, a repeat: {is_repeat}"),
            }
        }
        self.model.published(self.harness.now_ms(), stored.into_iter());
    }

    /// The event with an id of its own, or one that was there before, or none; says whether it
    /// repeats another.
    fn identified(&mut self, event: Event) -> (Event, bool) {
        let (id, is_repeat) = match self.roll(6) {
            0 => (self.ids, false),
            1 if self.ids > 0 => (self.roll(self.ids), true),
            _ => return (event, false),
        };
        self.ids = self.ids.max(id + 1);
        (Event { id: format!("id {id}").into(), id_given: true, ..event }, is_repeat)
    }

    async fn lease(&mut self, at: usize, limit: usize) {
        let seat = &mut self.seats[at];
        let owed = self.model.is_ready(&seat.spec, self.harness.now_ms());
        let time = if owed { PATIENCE } else { MOMENT };
        let leases = lease_within(self.harness, time, &seat.cursor, limit).await;
        println!("lease {limit} of {}: {leases:?}", seat.spec.id);
        assert!(!owed || leases.is_some(), "nothing comes: {:?}", self.model);
        let leases = leases.unwrap_or_default();
        assert!(leases.len() <= limit);
        for lease in leases {
            self.model.leased(&seat.spec, &lease, self.harness.now_ms());
            seat.held.push(lease);
        }
    }

    async fn settle(&mut self, at: usize) {
        let now_ms = self.harness.now_ms();
        let count = self.roll(self.seats[at].held.len() + 1);
        let (mut turn, mut ended) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let lease = self.roll(self.seats[at].held.len());
            let lease = self.seats[at].held.swap_remove(lease);
            let verdict = match self.roll(10) {
                0..4 => Verdict::Ack,
                4 => Verdict::Skip,
                5 => Verdict::Release,
                6 => Verdict::DeadLetter { reason: DeadLetterReason::Refused },
                _ => Verdict::Retry { due_ms: now_ms + self.roll(500) as u64 },
            };
            let attempt = settled(lease, verdict);
            let attempt =
                if self.roll(4) == 0 { Settled { attempt: None, ..attempt } } else { attempt };
            ended.push((attempt.lease.position(), attempt.attempt.is_some(), verdict));
            turn.push(attempt);
        }
        let seat = &self.seats[at];
        println!("settle of {}: {ended:?}", seat.spec.id);
        seat.cursor.settle(turn).await.expect("the turn is settled");
        for (position, tried, verdict) in ended {
            self.model.settled(&seat.spec.id, position, tried, verdict);
        }
    }

    fn give_back(&mut self, at: usize) {
        let lease = self.roll(self.seats[at].held.len().max(1));
        let seat = &mut self.seats[at];
        if lease < seat.held.len() {
            let lease = seat.held.swap_remove(lease);
            println!("give back to {}: {lease:?}", seat.spec.id);
            self.model.settled(&seat.spec.id, lease.position(), false, Verdict::Release);
        }
    }

    async fn change(&mut self, at: usize, asked: CursorSpec) {
        println!("change to {asked:?}");
        let cursor = open_as(&self.broker, asked.clone()).await;
        self.model.changed(&self.seats[at].spec, &asked);
        let seat = &mut self.seats[at];
        (seat.spec, seat.cursor) = (asked, cursor);
    }

    /// Takes a cursor that is not there yet.
    async fn sit(&mut self, spec: CursorSpec) {
        let cursor = open_as(&self.broker, spec.clone()).await;
        self.model.begun(&spec);
        self.seats.push(Seat { spec, cursor, held: Vec::new() });
    }

    async fn forget(&mut self, at: usize) {
        let gone = self.seats.swap_remove(at);
        println!("forget {}", gone.spec.id);
        self.broker.forget(gone.spec.id.clone()).await.expect("it is forgotten");
        let asked = self.anything(gone.spec.id);
        let again = self.roll(2) == 0;
        if again {
            self.sit(asked.clone()).await;
        }
        // Leases still out end in nothing.
        settle(&gone.cursor, gone.held, Verdict::Ack).await;
        if !again {
            self.sit(asked).await;
        }
    }

    /// Ends the process and begins the next, before which nothing of the one before is let go.
    async fn end(&mut self, end: End) {
        println!("{end:?}");
        let broker = self.broker.clone();
        self.broker = restart(self.harness, broker, end, limits()).await;
        self.model.ended();
        for seat in &mut self.seats {
            let cursor = open_as(&self.broker, seat.spec.clone()).await;
            drop(std::mem::replace(&mut seat.cursor, cursor));
            seat.held.clear();
        }
    }

    /// Everything that is owed comes, and nothing else.
    async fn settle_everything(&mut self) {
        println!("everything");
        self.finds_dead_letters().await;
        for at in 0..self.seats.len() {
            while !self.seats[at].held.is_empty() {
                self.give_back(at);
            }
            let spec = self.seats[at].spec.clone();
            pass_until(self.harness, self.model.due_ms(&spec.id)).await;
            while self.model.owes(&spec.id) {
                self.take(at, PATIENCE).await;
            }
            // What is not certain to come, but is not settled either, comes late.
            let mut looks = PATIENCE.as_millis() / SILENCE.as_millis();
            while self.take(at, SILENCE).await || self.seats[at].cursor.stats().lag_events > 0 {
                looks -= 1;
                assert!(looks > 0, "something is left: {:?}", self.seats[at].cursor.stats());
            }
            self.model.came_to_rest(&spec.id);
        }
    }

    /// Each event that was given up is a dead letter of its cursor, and no other is.
    async fn finds_dead_letters(&self) {
        for id in ids() {
            let letters = self.broker.dead_letters();
            let dead = letters.page(id.clone(), Position(0), at_most(10_000)).await;
            let dead = dead.expect("the dead letters can be read");
            let found: Vec<_> =
                dead.iter().map(|dead| (dead.key.position, dead.tried.attempts)).collect();
            assert_eq!(found, self.model.dead(&id), "the dead letters of {id}");
        }
    }

    /// Leases and acknowledges what comes; false where nothing did.
    async fn take(&mut self, at: usize, time: Duration) -> bool {
        let seat = &self.seats[at];
        let leases = lease_within(self.harness, time, &seat.cursor, 50).await;
        println!("take of {}: {leases:?}", seat.spec.id);
        assert!(time < PATIENCE || leases.is_some(), "nothing comes: {:?}", self.model);
        let Some(leases) = leases else { return false };
        for lease in &leases {
            self.model.leased(&seat.spec, lease, self.harness.now_ms());
        }
        let ended: Vec<_> = leases.iter().map(Lease::position).collect();
        settle(&seat.cursor, leases, Verdict::Ack).await;
        for position in ended {
            self.model.settled(&seat.spec.id, position, true, Verdict::Ack);
        }
        true
    }
}
