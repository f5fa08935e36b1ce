//! Snapshots that do not end.

use eventbus_core::broker::CursorId;
use eventbus_core::testing::{SeededEntropy, interest};

use super::*;
use crate::disk::FaultyDisk;

/// More bytes than many pieces have.
const MANY: u64 = 40;

fn open_of(cursor: u64) -> Change {
    let id = CursorId(format!("cursor-{cursor}").into());
    let (interest, frontier) = (interest("a"), Position(0));
    Change::Open(Opened { cursor, id, interest, waiting_max: 1, frontier, dropped: 0 })
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
fn holds(disk: &FaultyDisk, cursors: &[u64]) -> LedgerHead {
    let LedgerRead::Read(replayed) = read(disk).unwrap() else { panic!("there is no ledger") };
    assert!(replayed.cursors.keys().eq(cursors));
    assert_eq!(replayed.damaged_at, None);
    replayed.head
}

#[test]
fn a_snapshot_that_did_not_end_leaves_nothing_in_the_next_one() {
    for is_killed in [false, true] {
        let disk = FaultyDisk::new(1 << 20);
        let mut files = begun(&disk, LedgerHead { log: LogId(1), generation: 0, epoch: 1 }, 1);
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
