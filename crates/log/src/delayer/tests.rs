//! Delayed events, step by step: what a fault between vault and log leaves.

use std::sync::Mutex;

use eventbus_core::broker::{CursorId, CursorSpec, Start};
use eventbus_core::testing::{ManualClock, SeededEntropy, event, interest};
use eventbus_core::{Clock, Durability, Event};

use super::*;
use crate::config::LogConfig;
use crate::disk::{Access, Disk, Fault, FaultyDisk};
use crate::log::Machines;
use crate::syncer::Syncer;
use crate::table::Router;
use crate::telemetry::Observer;

type Told = oneshot::Receiver<Result<Receipt, AppendError>>;

#[derive(Default)]
struct Heard(Mutex<Vec<LogEvent>>);

impl Observer for Heard {
    fn observe(&self, event: &LogEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// A log without threads, and the clock that it goes by.
struct World {
    disk: FaultyDisk,
    clock: Arc<ManualClock>,
    heard: Arc<Heard>,
    machines: Machines,
}

impl World {
    fn new() -> Self {
        Self::on(FaultyDisk::new(1 << 30), ManualClock::at(1_000).into(), 1 << 30)
    }

    fn on(disk: FaultyDisk, clock: Arc<ManualClock>, max_bytes: u64) -> Self {
        let shared_disk = Arc::new(disk.clone());
        let config = LogConfig { max_bytes: Some(max_bytes), ..LogConfig::on_disk(shared_disk) };
        let heard = Arc::new(Heard::default());
        let opened =
            Machines::open(config, clock.clone(), &SeededEntropy::new(1), heard.clone()).unwrap();
        Self { disk, clock, heard, machines: opened.0 }
    }

    /// The process is killed, and begins again after so long.
    fn killed_for(self, away: Duration) -> Self {
        let Self { disk, clock, machines, .. } = self;
        let disk = disk.after_kill();
        machines.shared.table.clear();
        clock.advance(away);
        Self::on(disk, clock, 1 << 30)
    }

    fn delay(&self, event: &Event, after_ms: u64) -> Told {
        let due_ms = self.clock.now_ms() + after_ms;
        self.machines.shared.begin_delay(event, due_ms, Durability::Synced).unwrap()
    }

    fn append(&mut self, event: &Event) -> Receipt {
        let batch = eventbus_core::Batch::of_one(event.clone());
        let parts = self.machines.shared.begin_append(batch, Durability::Synced).unwrap();
        self.step_others();
        let placed = parts.into_iter().next().unwrap().1.unwrap().try_recv().unwrap().unwrap();
        placed.receipts(1).next().unwrap()
    }

    fn step_delayer(&mut self) -> Next {
        self.machines.delayer.step(self.machines.shared.now())
    }

    /// Steps everything once but the delayer.
    fn step_others(&mut self) {
        let shared = self.machines.shared.clone();
        while self.machines.writer.step(shared.now()) == Next::Again {}
        while Syncer::new(shared.clone()).step(shared.now()) == Next::Again {}
        Router::new(shared.clone()).step(shared.now());
    }

    /// Steps everything until nothing happens any more.
    fn settle_down(&mut self) {
        for _ in 0..10 {
            while self.step_delayer() == Next::Again {}
            self.step_others();
        }
    }

    /// The payloads of everything that is stored.
    fn stored(&self) -> Vec<String> {
        let spec = CursorSpec {
            id: CursorId("all".into()),
            interest: interest("a"),
            start: Start::AtMs(0),
            waiting_max: 1_000,
        };
        let cursor = self.machines.shared.admit(spec).unwrap().cursor;
        let leases = cursor.lease_now(100).unwrap();
        let payload =
            |lease: &eventbus_core::Lease| String::from_utf8_lossy(&lease.event().payload).into();
        leases.iter().map(payload).collect()
    }

    fn waiting(&self) -> u64 {
        self.machines.shared.vault.waiting().unwrap().events
    }
}

fn told(mut told: Told) -> Result<Receipt, AppendError> {
    told.try_recv().unwrap()
}

#[test]
fn all_that_come_meanwhile_are_kept_by_one_transaction_and_stored_by_one_more() {
    let mut world = World::new();
    let all: Vec<_> = (0..100).map(|n| world.delay(&event("a", format!("{n}")), 500)).collect();
    let before = world.disk.operations();
    world.settle_down();
    assert!(all.into_iter().all(|one| told(one) == Ok(Receipt::Delayed)));
    assert_eq!((world.disk.operations() - before, world.waiting()), (1, 100));
    world.clock.advance(Duration::from_millis(499));
    world.settle_down();
    assert_eq!((world.disk.operations() - before, world.waiting()), (1, 100));
    world.clock.advance(Duration::from_millis(1));
    world.settle_down();
    // A write and a sync of the log, and one more transaction.
    assert_eq!((world.disk.operations() - before, world.waiting()), (4, 0));
    assert_eq!(world.stored().len(), 100);
}

/// What is published under the id of an event that waits is a repeat, from when that event is kept
/// until it is forgotten after it was stored; and it is no repeat of what could not be kept.
#[test]
fn what_repeats_one_that_waits_is_not_stored() {
    let known =
        |payload: &str| Event { id: "1".into(), id_given: true, ..event("a", payload.to_owned()) };
    let mut world = World::new();
    world.disk.fail_at(world.disk.operations() + 1, Fault::Full);
    let refused = world.delay(&known("not kept"), 5);
    world.settle_down();
    assert!(told(refused).is_err());
    assert!(matches!(world.append(&known("stored")), Receipt::Stored(_)));
    world.clock.advance(limits::DEDUPLICATION_TIME);

    let kept = world.delay(&known("waits"), 1_000);
    world.settle_down();
    assert_eq!(told(kept), Ok(Receipt::Delayed));
    assert_eq!(world.append(&known("repeat")), Receipt::Duplicate);
    let mut world = world.killed_for(Duration::from_millis(10));
    assert_eq!(world.append(&known("repeat")), Receipt::Duplicate);
    world.clock.advance(Duration::from_secs(1));
    world.settle_down();
    assert_eq!(world.append(&known("repeat")), Receipt::Duplicate);
    assert_eq!(world.stored(), ["stored", "waits"]);
    world.clock.advance(limits::DEDUPLICATION_TIME);
    assert!(matches!(world.append(&known("another")), Receipt::Stored(_)));
}

#[test]
fn a_kill_between_storing_and_removing_stores_once_however_long_it_lasts() {
    for away in [Duration::ZERO, limits::DEDUPLICATION_TIME * 10] {
        let mut world = World::new();
        let known = Event { id: "1".into(), id_given: true, ..event("a", "known") };
        let answers = [world.delay(&event("a", "x"), 1), world.delay(&known, 2)];
        world.settle_down();
        assert!(answers.into_iter().all(|answer| told(answer) == Ok(Receipt::Delayed)));
        world.clock.advance(Duration::from_millis(2));
        while world.step_delayer() == Next::Again {}
        world.step_others();
        assert_eq!(world.waiting(), 2, "they are in both");
        let mut world = world.killed_for(away);
        assert_eq!(world.waiting(), 0, "what is stored is removed at once");
        let answer = world.delay(&event("a", "y"), 0);
        world.settle_down();
        assert_eq!(told(answer), Ok(Receipt::Delayed));
        assert_eq!(world.stored(), ["x", "known", "y"]);
        world = world.killed_for(away);
        world.settle_down();
        assert_eq!(world.stored(), ["x", "known", "y"]);
    }
}

#[test]
fn an_event_is_not_taken_for_one_of_its_id_that_was_stored_long_ago() {
    let mut world = World::new();
    let known =
        |payload: &str| Event { id: "1".into(), id_given: true, ..event("a", payload.to_owned()) };
    world
        .machines
        .shared
        .begin_append(eventbus_core::Batch::of_one(known("old")), Durability::Synced)
        .unwrap();
    world.settle_down();
    // Nothing is committed since, so the log that is opened next knows the id still.
    world.clock.advance(limits::DEDUPLICATION_TIME * 2);
    let due_ms = 0;
    let answer =
        world.machines.shared.begin_delay(&known("new"), due_ms, Durability::Synced).unwrap();
    world.step_delayer();
    world.step_others();
    world.step_delayer();
    assert_eq!((told(answer), world.waiting()), (Ok(Receipt::Delayed), 1));
    let mut world = world.killed_for(Duration::from_millis(1));
    world.settle_down();
    assert_eq!(world.stored(), ["old", "new"]);
}

#[test]
fn a_number_is_not_used_again_for_another_event() {
    let mut world = World::new();
    for payload in ["x", "y", "z"] {
        world.delay(&event("a", payload), 0);
        world.settle_down();
        assert_eq!(world.waiting(), 0);
        world = world.killed_for(Duration::ZERO);
    }
    assert_eq!(world.stored(), ["x", "y", "z"]);
}

#[test]
fn a_vault_that_fails_refuses_and_goes_on_when_it_works_again() {
    let mut world = World::new();
    for fault in [Fault::Error, Fault::Full] {
        world.disk.fail_at(world.disk.operations() + 1, fault);
        let refused = world.delay(&event("a", "refused"), 1);
        world.settle_down();
        match told(refused) {
            Err(AppendError::Unavailable(_)) if fault == Fault::Error => {}
            Err(AppendError::NoRoom) if fault == Fault::Full => {}
            other => panic!("{fault:?}: {other:?}"),
        }
    }
    let kept = world.delay(&event("a", "kept"), 1);
    world.settle_down();
    assert_eq!(told(kept), Ok(Receipt::Delayed));
    // Now it fails to remove what is stored: that is not stored again, and tried again in time.
    world.clock.advance(Duration::from_millis(1));
    world.disk.fail_at(world.disk.operations() + 3, Fault::Error);
    world.settle_down();
    assert_eq!((world.stored(), world.waiting()), (vec!["kept".to_owned()], 1));
    world.clock.advance(limits::DUE_AGAIN);
    world.settle_down();
    assert_eq!((world.stored(), world.waiting()), (vec!["kept".to_owned()], 0));
}

#[test]
fn what_cannot_be_removed_holds_up_no_publisher_and_is_not_stored_again() {
    let mut world = World::new();
    world.delay(&event("a", "stored"), 1);
    world.settle_down();
    world.clock.advance(Duration::from_millis(1));
    world.disk.fail_at(world.disk.operations() + 3, Fault::Full);
    world.settle_down();
    assert_eq!((world.stored(), world.waiting()), (vec!["stored".to_owned()], 1));
    // The clock stands still, so it is not tried again.
    world.disk.fail_at(world.disk.operations() + 1, Fault::Full);
    let refused = world.delay(&event("a", "refused"), 1);
    world.settle_down();
    assert_eq!(told(refused), Err(AppendError::NoRoom));
    let kept = world.delay(&event("a", "kept"), 1);
    world.settle_down();
    assert_eq!((told(kept), world.waiting()), (Ok(Receipt::Delayed), 2));
    let heard = world.heard.0.lock().unwrap().clone();
    assert!(matches!(heard[1..], [LogEvent::VaultFails { .. }, LogEvent::VaultWorks]), "{heard:?}");
    // Ids are long forgotten when it is killed.
    for _ in 0..3 {
        world.clock.advance(limits::DEDUPLICATION_TIME);
        world.append(&event("a", "later"));
    }
    let mut world = world.killed_for(Duration::ZERO);
    assert_eq!(world.waiting(), 1, "what is stored is removed at once");
    world.settle_down();
    assert_eq!(world.stored(), ["stored", "later", "later", "later", "kept"]);
}

/// Of two events of one id that were stored and delayed within the second that the index tells, the
/// one that waits is not taken for the other.
#[test]
fn what_waits_is_not_taken_for_one_of_its_id_that_was_stored_just_before() {
    let mut world = World::new();
    let known =
        |payload: &str| Event { id: "1".into(), id_given: true, ..event("a", payload.to_owned()) };
    let kept = world.delay(&known("delayed"), 10);
    world.step_delayer();
    world.step_others();
    // Stored between the question and the keeping: the race that is not closed.
    world.append(&known("at once"));
    world.settle_down();
    assert_eq!(told(kept), Ok(Receipt::Delayed));
    world.clock.advance(Duration::from_millis(20));
    world.append(&event("a", "later"));
    let mut world = world.killed_for(limits::DEDUPLICATION_TIME);
    assert_eq!(world.waiting(), 1);
    world.clock.advance(limits::DEDUPLICATION_TIME);
    world.append(&event("a", "much later"));
    world.settle_down();
    assert_eq!(world.stored(), ["at once", "later", "much later", "delayed"]);
}

/// The clock ran ahead while an event was stored, and is right again: what waits under the same id
/// is not taken for that event, whose id is forgotten.
#[test]
fn what_waits_is_not_taken_for_one_of_its_id_that_was_stored_by_a_clock_ahead() {
    let mut world = World::new();
    let known =
        |payload: &str| Event { id: "1".into(), id_given: true, ..event("a", payload.to_owned()) };
    let ahead = limits::DEDUPLICATION_TIME * 3;
    world.clock.advance(limits::DEDUPLICATION_TIME * 2);
    world.append(&known("long ago"));
    world.clock.advance(limits::DEDUPLICATION_TIME);
    world.append(&event("a", "later"));
    world.clock.set_back(ahead);
    let kept = world.delay(&known("waits"), 10);
    world.settle_down();
    assert_eq!(told(kept), Ok(Receipt::Delayed));
    let mut world = world.killed_for(Duration::from_secs(1));
    assert_eq!(world.waiting(), 1);
    world.clock.advance(ahead);
    world.settle_down();
    assert_eq!(world.stored(), ["long ago", "later", "waits"]);
}

#[test]
fn what_falls_due_while_the_log_is_full_waits_and_costs_nothing() {
    let mut world = World::new();
    let answer = world.delay(&event("a", "x"), 1);
    world.settle_down();
    assert_eq!(told(answer), Ok(Receipt::Delayed));
    world.machines.shared.set_full(true);
    world.clock.advance(Duration::from_millis(1));
    let before = world.disk.operations();
    for _ in 0..5 {
        assert_eq!(world.step_delayer(), Next::SleepFor(limits::DUE_AGAIN));
        assert_eq!(world.step_delayer(), Next::SleepFor(limits::DUE_AGAIN), "and not at once");
        world.clock.advance(limits::DUE_AGAIN);
    }
    assert_eq!(world.disk.operations(), before);
    // Others are kept meanwhile.
    let answer = world.delay(&event("a", "y"), 0);
    world.settle_down();
    assert_eq!(told(answer), Ok(Receipt::Delayed));
    assert_eq!(world.waiting(), 2);
    world.machines.shared.set_full(false);
    world.clock.advance(limits::DUE_AGAIN);
    world.settle_down();
    assert_eq!((world.stored().len(), world.waiting()), (2, 0));
}

#[test]
fn an_event_that_cannot_be_stored_is_told_of_and_holds_up_nobody() {
    let mut world = World::new();
    let large = "x".repeat(100 * 1024);
    for payload in ["damaged", &large, "good"] {
        world.delay(&event("a", payload.to_owned()), 1);
    }
    world.settle_down();
    let database = world.disk.vault(Access::Write).unwrap();
    let damage = "UPDATE delayed_events SET event = x'07' WHERE number = 1";
    database.change(|vault| vault.execute(damage, [])).unwrap();
    world.clock.advance(Duration::from_millis(1));
    // A log of small segments, which has no room for the large one.
    let mut world = World::on(world.disk.after_kill(), world.clock, 1 << 20);
    world.settle_down();
    assert_eq!((world.stored(), world.waiting()), (vec!["good".to_owned()], 2));
    let aside = |world: &World| {
        let heard = world.heard.0.lock().unwrap();
        heard.iter().filter(|event| matches!(event, LogEvent::SetAside { .. })).count()
    };
    assert_eq!(aside(&world), 2);
    world.clock.advance(limits::DUE_SET_ASIDE);
    world.settle_down();
    assert_eq!((aside(&world), world.waiting()), (4, 2));
    // Where there is room again it is stored.
    let mut world = world.killed_for(limits::DUE_SET_ASIDE);
    world.settle_down();
    assert_eq!((world.stored().len(), world.waiting()), (2, 1));
}

#[test]
fn no_more_wait_than_may() {
    let mut world = World::new();
    world.settle_down();
    let most = Waiting { events: limits::DELAYED_EVENTS - 1, bytes: 0, next_due_ms: None };
    world.machines.delayer.waiting = Some(most);
    let known = Event { id: "1".into(), id_given: true, ..event("a", "x") };
    let [last, over] = [&known, &event("a", "y")].map(|event| world.delay(event, 1));
    world.settle_down();
    assert_eq!(told(last), Ok(Receipt::Delayed));
    assert!(matches!(told(over), Err(AppendError::DelaysFull { .. })));
    let repeat = world.delay(&known, 1);
    world.settle_down();
    assert_eq!(told(repeat), Ok(Receipt::Duplicate), "it needs no room");
    let most = Waiting { events: 1, bytes: limits::DELAYED_BYTES - 1_000, next_due_ms: None };
    world.machines.delayer.waiting = Some(most);
    let payloads = ["x".repeat(2_000), "y".repeat(100)];
    let [over, last] = payloads.map(|payload| world.delay(&event("a", payload), 1));
    world.settle_down();
    assert!(matches!(told(over), Err(AppendError::DelaysFull { .. })));
    assert_eq!(told(last), Ok(Receipt::Delayed));
}
