//! Repeats of ids, step by step.

use eventbus_core::testing::event;
use eventbus_core::{Batch, Event, Receipt};
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::disk::{Fault, FaultyDisk};
use crate::log::Machines;
use crate::stepped::machines;
use crate::syncer::Syncer;

type Answered = tokio::sync::oneshot::Receiver<Result<Placed, AppendError>>;

fn given(id: &str) -> Event {
    Event { id: id.to_owned().into(), id_given: true, ..event("a", "x") }
}

/// Has events written that were published with these ids.
fn write(machines: &mut Machines, ids: &[&str], durability: Durability) -> Answered {
    let batch = Batch { events: ids.iter().map(|id| given(id)).collect(), atomic: false };
    let parts = machines.shared.begin_append(batch, durability).unwrap();
    machines.writer.step(machines.shared.now());
    parts.into_iter().next().unwrap().1.unwrap()
}

fn receipts(mut answer: Answered, count: usize) -> Result<Vec<Receipt>, TryRecvError> {
    Ok(answer.try_recv()?.unwrap().receipts(count).collect())
}

fn stored(position: u64) -> Receipt {
    Receipt::Stored(Position(position))
}

#[test]
fn a_repeat_is_answered_when_the_first_one_is_as_durable_as_was_asked() {
    let mut machines = machines(&FaultyDisk::new(1 << 30));
    let first = write(&mut machines, &["1"], Durability::Written);
    assert_eq!(receipts(first, 1), Ok(vec![stored(1)]));
    let repeat = write(&mut machines, &["1"], Durability::Written);
    assert_eq!(receipts(repeat, 1), Ok(vec![Receipt::Duplicate]));
    let mut repeat = write(&mut machines, &["1"], Durability::Synced);
    assert_eq!(repeat.try_recv(), Err(TryRecvError::Empty), "not synced yet");
    Syncer::new(machines.shared.clone()).step(machines.shared.now());
    assert_eq!(receipts(repeat, 1), Ok(vec![Receipt::Duplicate]));
    let again = write(&mut machines, &["1"], Durability::Synced);
    assert_eq!(receipts(again, 1), Ok(vec![Receipt::Duplicate]), "nothing to wait for");
    assert_eq!(machines.shared.next_position(), Position(2));
}

#[test]
fn within_a_batch_the_first_of_an_id_is_stored_and_the_rest_lies_side_by_side() {
    let mut machines = machines(&FaultyDisk::new(1 << 30));
    drop(write(&mut machines, &["0"], Durability::Written));
    let mixed = write(&mut machines, &["1", "0", "2", "1", "3"], Durability::Written);
    let (repeat, position) = (Receipt::Duplicate, stored);
    assert_eq!(
        receipts(mixed, 5).unwrap(),
        [position(2), repeat, position(3), repeat, position(4)]
    );
}

#[test]
fn what_could_not_be_written_is_not_remembered_and_a_repeat_of_what_was_does_not_wait() {
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = machines(&disk);
    let first = write(&mut machines, &["1"], Durability::Synced);
    Syncer::new(machines.shared.clone()).step(machines.shared.now());
    assert_eq!(receipts(first, 1), Ok(vec![stored(1)]));
    disk.fail_at(disk.operations() + 1, Fault::Full);
    let mut refused = write(&mut machines, &["2", "3"], Durability::Synced);
    assert!(matches!(refused.try_recv(), Ok(Err(AppendError::Full { .. }))));
    machines.shared.set_full(false);
    // The positions of the failed write stay unused: nothing will ever be synced up to them.
    let repeat = write(&mut machines, &["1"], Durability::Synced);
    assert_eq!(receipts(repeat, 1), Ok(vec![Receipt::Duplicate]));
    let again = write(&mut machines, &["2", "3"], Durability::Written);
    assert_eq!(receipts(again, 2), Ok(vec![stored(4), stored(5)]));
}

/// Else the writer would wait in the end for a sync that nothing asks for.
#[test]
fn positions_that_writes_without_room_left_out_are_not_among_the_unsynced() {
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = machines(&disk);
    let shared = machines.shared.clone();
    drop(write(&mut machines, &["1"], Durability::Synced));
    Syncer::new(shared.clone()).step(shared.now());
    // The first time nothing goes before the write; then a segment begins: its file is made, in
    // three operations, and has two heads written and synced.
    for before in [0, 6, 6, 6] {
        disk.fail_at(disk.operations() + before + 1, Fault::Full);
        let mut refused = write(&mut machines, &["2", "3"], Durability::Synced);
        assert!(matches!(refused.try_recv(), Ok(Err(AppendError::Full { .. }))));
        shared.set_full(false);
    }
    let known = shared.flow.state().synced.max(machines.writer.skipped);
    assert_eq!(machines.writer.next.0 - known.0, 3, "more than the last of them left out");
}
