//! Snapshots that do not end.

use eventbus_core::broker::CursorId;
use eventbus_core::testing::{SeededEntropy, interest};

use super::*;
use crate::disk::{Fault, FaultyDisk};

/// More bytes than many pieces have.
const MANY: u64 = 40;

const NEW: LedgerHead = LedgerHead { log: LogId(1), generation: 0, epoch: 1 };

fn open_of(cursor: u64) -> Change {
    let id = CursorId(format!("cursor-{cursor}").into());
    let (interest, frontier) = (interest("a"), Position(0));
    Change::Open(Opened { cursor, id, interest, waiting_max: 1, frontier, dropped: 6 })
}

fn begun(disk: &FaultyDisk, head: LedgerHead, seed: u64) -> LedgerFiles {
    LedgerFiles::open(disk, head, &SeededEntropy::new(seed)).unwrap()
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
fn holds(disk: &FaultyDisk, cursors: &[u64]) -> LedgerHead {
    let replayed = replayed(disk);
    assert!(replayed.cursors.keys().eq(cursors));
    assert_eq!(replayed.damaged_at, None);
    replayed.head
}

#[test]
fn a_snapshot_that_did_not_end_leaves_nothing_in_the_next_one() {
    for is_killed in [false, true] {
        let disk = FaultyDisk::new(1 << 20);
        let mut files = begun(&disk, NEW, 1);
        end(say(&mut files, 7..=7));
        let head = holds(&disk, &[7]);
        drop(say(&mut files, 1..=MANY));
        if is_killed {
            assert_eq!(holds(&disk, &[7]), head);
            files = begun(&disk, head, 2);
        }
        end(say(&mut files, 8..=9));
        let after = holds(&disk, &[8, 9]);
        assert!(after.generation > head.generation);
        end(say(&mut files, 3..=3));
        holds(&disk, &[3]);
    }
}

/// The next process goes over what it did not choose, and then the power is cut.
#[test]
fn what_was_chosen_at_a_start_is_durable_before_the_other_file_is_written() {
    let faults = [Fault::Kill, Fault::Error, Fault::Full];
    // The frames, the two heads, the sync.
    let cases = faults.into_iter().flat_map(|fault| (1..=4).map(move |at| (fault, at)));
    for (fault, operation) in cases {
        for seed in 0..30 {
            let disk = FaultyDisk::new(1 << 20);
            let mut files = begun(&disk, NEW, 1);
            end(say(&mut files, 7..=7));
            let mut snapshot = say(&mut files, 7..=8);
            snapshot.put(&Change::SnapshotEnd).unwrap();
            disk.fail_at(disk.operations() + operation, fault);
            assert!(snapshot.end().is_err());
            let disk = disk.after_kill();
            let mut files = begun(&disk, replayed(&disk).head, 2);
            drop(say(&mut files, 1..=MANY));
            let after = replayed(&disk.after_power_cut(&SeededEntropy::new(seed)));
            let case = format!("{fault:?} at {operation}, seed {seed}");
            assert!(after.snapshot_is_whole, "{case}");
            assert_eq!(after.cursors.keys().next(), Some(&7), "{case}");
        }
    }
}

#[test]
fn the_count_of_what_was_lost_never_goes_back() {
    let disk = FaultyDisk::new(1 << 20);
    let mut files = begun(&disk, NEW, 1);
    let mut snapshot = say(&mut files, 7..=7);
    let (cursor, upto) = (7, Position(3));
    snapshot.put(&Change::Drop { cursor, upto, dropped: 5 }).unwrap();
    end(snapshot);
    assert_eq!(replayed(&disk).cursors[&7].opened.dropped, 6);
}
