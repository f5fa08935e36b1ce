//! What a snapshot says of a cursor that does not stand still meanwhile.

use eventbus_core::Lease;
use eventbus_core::cursor::Progress;
use eventbus_core::delivery::Verdict;
use eventbus_core::testing::{SeededEntropy, event};

use super::*;
use crate::disk::{Fault, FaultyDisk};
use crate::log::Machines;
use crate::stepped::{machines, orders};

/// Takes the oldest event from a cursor, as retention does.
fn drop_oldest(cursor: &LogCursor) {
    let mut place = cursor.place();
    let Some(oldest) = place.progress.first_unsettled() else { return };
    place.dropped += place.progress.drop_upto(oldest.position);
}

/// What a snapshot said of one cursor, as recovery takes it in.
#[derive(Default)]
struct Said {
    frontiers: Vec<Position>,
    turns: usize,
    replayed: Option<Progress>,
    dropped: u64,
}

impl Said {
    fn take(&mut self, change: &Change) {
        match (change, &mut self.replayed) {
            (Change::Open(opened), replayed) => {
                self.frontiers.push(opened.frontier);
                self.dropped = opened.dropped;
                *replayed = Some(Progress::new(opened.frontier, opened.waiting_max));
            }
            (Change::Turn { entry, .. }, Some(replayed)) => {
                self.turns += 1;
                replayed.replay(entry);
            }
            (Change::Drop { upto, dropped, .. }, Some(replayed)) => {
                replayed.drop_upto(*upto);
                self.dropped = *dropped;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A cursor with five events that wait and one that is leased.
fn busy(machines: &mut Machines) -> (Arc<LogCursor>, Vec<Lease>) {
    let cursor = machines.orders();
    machines.publish((0..6).map(|_| event("a", "x")));
    let leases = cursor.lease_now(6).unwrap();
    let verdict = Verdict::Retry { due_ms: u64::MAX };
    let five = leases.iter().take(5);
    let ended = five.map(|lease| Ended { position: lease.position(), attempt: None, verdict });
    let turn = Request::Turn { cursor: cursor.clone(), ended: ended.collect(), reply: None };
    machines.shared.ledger.push(turn).unwrap();
    machines.settle();
    (cursor, leases)
}

#[test]
fn what_a_cursor_loses_while_it_is_said_is_said_too() {
    for lossless in 0..6 {
        let mut machines = machines(&FaultyDisk::new(1 << 30));
        let (cursor, _leases) = busy(&mut machines);
        let (mut said, mut changes) = (Said::default(), 0);
        let mut put = |change: &Change| {
            said.take(change);
            changes += 1;
            if changes > lossless && !matches!(change, Change::Drop { .. }) {
                drop_oldest(&cursor);
            }
            Ok(())
        };
        say_cursor(&cursor, &mut put).unwrap();
        let place = cursor.place();
        assert_eq!(said.frontiers, [Position(0)], "none is settled");
        assert!(said.turns > 2, "it was not said in several turns");
        assert_eq!(said.dropped, place.dropped, "lossless: {lossless}");
        assert!(said.replayed.unwrap().unsettled().eq(place.progress.unsettled()), "{lossless}");
        drop(place);
        machines.shared.table.clear();
    }
}

/// The sync that is due carries an open away before whoever waits for it is known; one that comes
/// after it, for what was written since, goes well.
#[test]
fn an_open_whose_sync_failed_is_not_answered_as_durable() {
    for writes_more in [false, true] {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = machines(&disk);
        let shared = machines.shared.clone();
        let mut admitted = shared.admit(orders("a")).unwrap();
        let requests = std::mem::take(&mut shared.ledger.state().requests);
        let ledger = &mut machines.ledger;
        let mut applied = Applied::default();
        for request in requests {
            ledger.apply(request, &mut applied);
        }
        let now = shared.now();
        ledger.write(now).unwrap();
        disk.fail_at(disk.operations() + 1, Fault::Error);
        let due = Now { elapsed: now.elapsed + limits::LEDGER_SYNC_TIME, ..now };
        assert_eq!(sync_step(&shared, due), Next::Again);
        assert!(disk.has_struck());
        ledger.answer(applied, now);
        if writes_more {
            let change = mark(&shared);
            shared.ledger.push(Request::Change { change, reply: None }).unwrap();
            assert_eq!(ledger.step(due), Next::Again);
        }
        sync_step(&shared, due);
        assert!(matches!(admitted.answer.try_recv(), Ok(Err(CursorError::Unavailable(_)))));
        shared.table.clear();
    }
}

/// Whoever forgets it a second time, too, hears nothing before it is durable.
#[test]
fn a_cursor_is_forgotten_when_the_disk_has_that() {
    for fault in [None, Some(Fault::Error)] {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = machines(&disk);
        let shared = machines.shared.clone();
        let id = machines.orders().id.clone();
        while sync_step(&shared, shared.now()) == Next::Again {}
        let change = || Request::Change { change: mark(&shared), reply: None };
        while shared.ledger.push(change()).is_ok() {}
        assert!(shared.forget(&id).is_err(), "the ledger took more than it takes");
        assert!(shared.table.state().by_id.contains_key(&id), "it was forgotten all the same");
        machines.settle();
        let mut answers = [shared.forget(&id).unwrap(), shared.forget(&id).unwrap()];
        machines.settle();
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()), "before the sync");
        if let Some(fault) = fault {
            disk.fail_at(disk.operations() + 1, fault);
        }
        while sync_step(&shared, shared.now()) == Next::Again {}
        let are_answered = answers.iter_mut().all(|answer| match fault {
            None => answer.try_recv() == Ok(Ok(())),
            Some(_) => matches!(answer.try_recv(), Ok(Err(CursorError::Unavailable(_)))),
        });
        assert!(are_answered, "{fault:?}");
    }
}

/// The write of what was forgotten fails; a mark after it is a snapshot then, without the cursor.
#[test]
fn what_the_ledger_could_not_forget_the_next_one_to_ask_has_forgotten() {
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = machines(&disk);
    let shared = machines.shared.clone();
    let id = machines.orders().id.clone();
    while sync_step(&shared, shared.now()) == Next::Again {}
    let mut refused = shared.forget(&id).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::Error);
    machines.settle();
    assert!(matches!(refused.try_recv(), Ok(Err(CursorError::Unavailable(_)))));
    let mut repeated = shared.forget(&id).unwrap();
    machines.settle();
    while sync_step(&shared, shared.now()) == Next::Again {}
    assert_eq!(repeated.try_recv(), Ok(Ok(())));
    let disk = disk.after_power_cut(&SeededEntropy::new(1));
    let machines = crate::stepped::machines(&disk);
    assert!(machines.shared.table.state().by_id.is_empty(), "it came back");
}
