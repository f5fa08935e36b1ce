//! The order of vault and ledger, and what a fault between them leaves.

use eventbus_core::broker::CursorError;
use eventbus_core::delivery::{Attempt, Outcome, Verdict};
use eventbus_core::testing::event;
use eventbus_core::{Lease, Settled};

use super::*;
use crate::cursor::LogCursor;
use crate::disk::{Fault, FaultyDisk};
use crate::log::Machines;
use crate::stepped::machines;
use crate::telemetry::load;

/// A log without threads that holds these events, and the cursor that gets them.
fn with_events(disk: &FaultyDisk, payloads: &[&str]) -> (Machines, Arc<LogCursor>) {
    let mut machines = machines(disk);
    let cursor = machines.orders();
    machines.publish(payloads.iter().map(|payload| event("a", payload.to_string())));
    (machines, cursor)
}

fn given_up(lease: Lease, reason: DeadLetterReason) -> Settled {
    let attempt = Some(Attempt::new(1_000, 3, Outcome::Status(400)));
    Settled { lease, attempt, verdict: Verdict::DeadLetter { reason } }
}

fn reasons(machines: &Machines) -> Vec<DeadLetterReason> {
    let limit = NonZeroUsize::new(100).unwrap();
    let id = CursorId("orders".into());
    let page = machines.shared.vault.page_now(&id, Position(0), limit).unwrap();
    page.into_iter().map(|letter| letter.reason).collect()
}

/// The end of the process, as the log sees it: cursors and log know each other.
fn end(machines: Machines) {
    machines.shared.table.clear();
}

#[test]
fn a_kill_between_vault_and_ledger_leaves_one_dead_letter() {
    let disk = FaultyDisk::new(1 << 30);
    let (mut machines, cursor) = with_events(&disk, &["x"]);
    let leased = cursor.lease_now(1).unwrap().remove(0);
    let position = leased.position();
    disk.fail_at(disk.operations() + 2, Fault::Kill);
    let turn = vec![given_up(leased, DeadLetterReason::Refused)];
    let mut answer = cursor.give_up_and_end(turn).unwrap();
    machines.settle();
    assert!(matches!(answer.try_recv(), Ok(Err(CursorError::Unavailable(_)))));
    assert!(disk.is_dead(), "the ledger comes right behind the vault");
    end(machines);

    let disk = disk.after_kill();
    let mut machines = self::machines(&disk);
    assert_eq!(reasons(&machines), [DeadLetterReason::Refused]);
    let cursor = machines.orders();
    let again = cursor.lease_now(9).unwrap().remove(0);
    assert_eq!(again.position(), position);
    let turn = vec![given_up(again, DeadLetterReason::Expired)];
    let mut answer = cursor.give_up_and_end(turn).unwrap();
    machines.settle();
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert_eq!(reasons(&machines), [DeadLetterReason::Refused], "the first one stays");
    assert_eq!(load(&machines.shared.telemetry.dead_letters), 0, "counted when it was stored");
    assert_eq!(cursor.stats().lag_events, 0);
}

#[test]
fn a_vault_that_fails_fails_the_turn_and_its_events_come_again() {
    let disk = FaultyDisk::new(1 << 30);
    let (mut machines, cursor) = with_events(&disk, &["acked", "dead"]);
    for fault in [Fault::Full, Fault::Error] {
        let mut leases = cursor.lease_now(9).unwrap();
        assert_eq!((leases.len(), leases[1].attempts()), (2, 0));
        let dead = given_up(leases.remove(1), DeadLetterReason::Refused);
        let acked = Settled { lease: leases.remove(0), attempt: None, verdict: Verdict::Ack };
        disk.fail_at(disk.operations() + 1, fault);
        let refused = cursor.give_up_and_end(vec![acked, dead]).map(drop);
        assert!(matches!(refused, Err(CursorError::Unavailable(_))), "{refused:?}");
        machines.settle();
        assert_eq!((reasons(&machines).len(), cursor.stats().lag_events), (0, 2));
    }
    let leases = cursor.lease_now(9).unwrap().into_iter();
    let turn = leases.map(|lease| given_up(lease, DeadLetterReason::Refused)).collect();
    drop(cursor.give_up_and_end(turn).unwrap());
    machines.settle();
    assert_eq!((reasons(&machines).len(), cursor.stats().lag_events), (2, 0));
    end(machines);
}

#[test]
fn a_process_that_is_dead_writes_no_dead_letter() {
    let disk = FaultyDisk::new(1 << 30);
    let (machines, cursor) = with_events(&disk, &["x"]);
    let leased = cursor.lease_now(1).unwrap().remove(0);
    let alive = disk.after_kill();
    let turn = vec![given_up(leased, DeadLetterReason::Refused)];
    assert!(disk.is_dead() && cursor.give_up_and_end(turn).is_err());
    end(machines);
    assert_eq!(reasons(&self::machines(&alive)), []);
}

#[test]
fn a_dead_letter_that_is_damaged_says_which_one_it_is() {
    let disk = FaultyDisk::new(1 << 30);
    let (machines, cursor) = with_events(&disk, &["x"]);
    let leased = cursor.lease_now(1).unwrap().remove(0);
    let key = DeadLetterKey { cursor: CursorId("orders".into()), position: leased.position() };
    drop(cursor.give_up_and_end(vec![given_up(leased, DeadLetterReason::Refused)]).unwrap());
    let vault = &machines.shared.vault;
    let database = vault.disk.vault(Access::Write).unwrap();
    database.change(|vault| vault.execute("UPDATE dead_letters SET event = x'07'", [])).unwrap();
    let error = vault.get_now(&key).unwrap_err().to_string();
    assert!(error.contains(&format!("orders at {} is damaged", key.position)), "{error}");
    assert!(vault.remove_now(&key).unwrap());
    end(machines);
}
