//! Snapshots that do not end.

use eventbus_core::broker::CursorId;
use eventbus_core::testing::{SeededEntropy, interest};

use super::*;
use crate::disk::{Fault, FaultyDisk};

/// More bytes than many pieces have.
const MANY: u64 = 40;

fn open_of(cursor: u64) -> Change {
    let id = CursorId(format!("cursor-{cursor}").into());
    let (interest, frontier) = (interest("a"), Position(0));
    Change::Open(Opened { cursor, id, interest, waiting_max: 1, frontier, dropped: 6 })
}

fn new(disk: &FaultyDisk) -> LedgerFiles {
    begun(disk, Chosen::new(LogId(1), 1), 1)
}

fn begun(disk: &FaultyDisk, chosen: Chosen, seed: u64) -> LedgerFiles {
    LedgerFiles::open(disk, chosen, &SeededEntropy::new(seed)).unwrap()
}

/// Says these cursors in a snapshot; whoever drops what it returns lets it not end.
fn say(files: &mut LedgerFiles, cursors: impl Iterator<Item = u64>) -> Snapshot<'_> {
    let mut snapshot = files.begin(1);
    for cursor in cursors {
        snapshot.put(&open_of(cursor)).unwrap();
    }
    snapshot
}

fn end(mut snapshot: Snapshot<'_>) {
    snapshot.put(&Change::SnapshotEnd).unwrap();
    snapshot.end().unwrap();
}

#[track_caller]
fn replayed(disk: &FaultyDisk) -> Replayed {
    let LedgerRead::Read(replayed) = read(disk).unwrap() else { panic!("there is no ledger") };
    replayed
}

#[track_caller]
fn holds(disk: &FaultyDisk, cursors: &[u64]) -> Chosen {
    let replayed = replayed(disk);
    assert!(replayed.cursors.keys().eq(cursors));
    assert_eq!(replayed.damaged_at, None);
    replayed.chosen
}

#[test]
fn a_snapshot_that_did_not_end_leaves_nothing_in_the_next_one() {
    for is_killed in [false, true] {
        let disk = FaultyDisk::new(1 << 20);
        let mut files = new(&disk);
        end(say(&mut files, 7..=7));
        let before = holds(&disk, &[7]);
        drop(say(&mut files, 1..=MANY));
        if is_killed {
            assert_eq!(holds(&disk, &[7]), before);
            files = begun(&disk, before, 2);
        }
        end(say(&mut files, 8..=9));
        let after = holds(&disk, &[8, 9]);
        assert!(after.head.generation > before.head.generation);
        end(say(&mut files, 3..=3));
        holds(&disk, &[3]);
    }
}

/// The last operation of a snapshot's end: the frames, the two heads, the sync.
const SYNC: u64 = 4;

/// A disk with a ledger of cursor 7, and a snapshot with one more whose end failed.
fn failed_snapshot(fault: Fault, operation: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(1 << 20);
    let mut files = new(&disk);
    end(say(&mut files, 7..=7));
    let mut snapshot = say(&mut files, 7..=8);
    snapshot.put(&Change::SnapshotEnd).unwrap();
    disk.fail_at(disk.operations() + operation, fault);
    assert!(snapshot.end().is_err());
    disk.after_kill()
}

/// The next process goes over what it did not choose, and then the power is cut.
#[test]
fn what_was_chosen_at_a_start_is_durable_before_the_other_file_is_written() {
    let faults = [Fault::Kill, Fault::Error, Fault::Full];
    let cases = faults.into_iter().flat_map(|fault| (1..=SYNC).map(move |at| (fault, at)));
    for (fault, operation) in cases {
        for seed in 0..30 {
            let disk = failed_snapshot(fault, operation);
            let mut files = begun(&disk, replayed(&disk).chosen, 2);
            drop(say(&mut files, 1..=MANY));
            let after = replayed(&disk.after_power_cut(&SeededEntropy::new(seed)));
            let case = format!("{fault:?} at {operation}, seed {seed}");
            assert!(after.snapshot_is_whole, "{case}");
            assert_eq!(after.cursors.keys().next(), Some(&7), "{case}");
        }
    }
}

/// The first start finds it whole in memory, and the sync that should make it durable fails.
#[test]
fn what_was_chosen_is_durable_though_the_start_before_failed() {
    for operation in 1.. {
        let mut failed = false;
        for seed in 0..30 {
            let disk = failed_snapshot(Fault::Kill, SYNC);
            assert_eq!(replayed(&disk).cursors.len(), 2);
            disk.fail_at(disk.operations() + operation, Fault::Error);
            let chosen = replayed(&disk).chosen;
            failed = LedgerFiles::open(&disk, chosen, &SeededEntropy::new(2)).is_err();
            let disk = disk.after_kill();
            let mut files = begun(&disk, replayed(&disk).chosen, 3);
            drop(say(&mut files, 1..=MANY));
            let after = replayed(&disk.after_power_cut(&SeededEntropy::new(seed)));
            assert_eq!(after.cursors.keys().next(), Some(&7), "at {operation}, seed {seed}");
        }
        if !failed {
            assert!(operation > 3, "no operation failed");
            return;
        }
    }
}

#[test]
fn the_count_of_what_was_lost_never_goes_back() {
    let disk = FaultyDisk::new(1 << 20);
    let mut files = new(&disk);
    let mut snapshot = say(&mut files, 7..=7);
    let (cursor, upto) = (7, Position(3));
    snapshot.put(&Change::Drop { cursor, upto, dropped: 5 }).unwrap();
    end(snapshot);
    assert_eq!(replayed(&disk).cursors[&7].opened.dropped, 6);
}
