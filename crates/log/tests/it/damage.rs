//! Disks that fail and bits that flip, seen from outside.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eventbus_core::broker::{AppendError, BrokerHealth, Position, Receipt};
use eventbus_core::testing::{ManualClock, SeededEntropy};
use eventbus_core::{Batch, Broker, Durability, limits};
use eventbus_log::disk::{Disk, Fault, FaultyDisk};
use eventbus_log::{Log, LogEvent, Observer};

use crate::support::*;

#[tokio::test]
async fn a_failed_sync_ends_acknowledging_at_every_level() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    log.append(Batch::of_one(event("a", "kept")), Durability::Synced).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The next operations are the write of the event and its sync.
    disk.fail_at(disk.operations() + 2, Fault::Error);
    let failed = log.append(Batch::of_one(event("a", "lost")), Durability::Synced).await;
    assert!(matches!(failed, Err(AppendError::Unavailable(_))), "{failed:?}");
    for level in [Durability::Accepted, Durability::Written, Durability::Synced] {
        let refused = log.append(Batch::of_one(event("a", "x")), level).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{level}: {refused:?}");
    }
    assert!(matches!(log.stats().health, BrokerHealth::Unusable(_)));
    // What was stored before is still delivered.
    assert_eq!(payloads(&lease(&orders, 10).await), ["kept"]);
    drop((log, orders));
    let log = open_with(small(&disk), &clock).unwrap();
    assert_eq!(log.stats().health, BrokerHealth::Usable);
    log.append(Batch::of_one(event("a", "again")), Durability::Synced).await.unwrap();
}

/// Panics, in a thread of the log, when storage is full.
struct Panicking;

impl Observer for Panicking {
    fn observe(&self, event: &LogEvent) {
        assert!(!matches!(event, LogEvent::Full { .. }), "a defect, as ordered");
    }
}

#[tokio::test]
async fn a_thread_that_panics_ends_acknowledging_and_is_told() {
    let disk = FaultyDisk::new(2 * 1024 * 1024);
    let config = small(&disk);
    let log = Log::open(config, clock(), &SeededEntropy::new(7), Arc::new(Panicking)).unwrap();
    cursor(&log, "orders", "a").await;
    let last = loop {
        let batch = Batch::of_one(event("a", format!("{:1000}", 0)));
        let appended = tokio::time::timeout(PATIENCE, log.append(batch, Durability::Synced)).await;
        if let Err(error) = appended.expect("an answer comes") {
            break error;
        }
    };
    assert!(matches!(last, AppendError::Unavailable(_)), "{last}");
    until("it is told", || matches!(log.stats().health, BrokerHealth::Unusable(_))).await;
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_failed_ledger_write_gives_the_events_back() {
    let disk = FaultyDisk::new(1 << 30);
    let log = open_with(small(&disk), &clock()).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    log.append(Batch::of_one(event("a", "x")), Durability::Synced).await.unwrap();
    let leases = lease(&orders, 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    disk.fail_at(disk.operations() + 1, Fault::Error);
    orders.settle(acks(leases)).await.unwrap_err();
    let leases = lease(&orders, 1).await;
    assert_eq!((payloads(&leases), leases[0].attempts()), (vec!["x".to_owned()], 0));
    orders.settle(acks(leases)).await.unwrap();
    assert_eq!(orders.stats().lag_events, 0);
}

#[tokio::test]
async fn damaged_events_are_stepped_over_counted_and_reported() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let heard = Arc::new(Heard::default());
    let log = open_heard(small(&disk), &clock, &heard).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", 2_000, 100).await;
    log.close().await.unwrap();
    drop(orders);
    // Ten bits in the middle of as many full segments' worth of the oldest file.
    for flip in 0..10 {
        disk.flip("segment-000001", (9_000 + flip * 3_000) * 8 + flip % 8);
    }
    let log = open_heard(small(&disk), &clock, &heard).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    let mut got = Vec::new();
    while orders.stats().lag_events > 0 {
        let Ok(leases) = tokio::time::timeout(Duration::from_secs(5), lease(&orders, 100)).await
        else {
            break;
        };
        got.extend(leases.iter().map(number));
        orders.settle(acks(leases)).await.unwrap();
    }
    assert_eq!(orders.stats().lag_events, 0);
    assert!(got.is_sorted(), "in order, none twice");
    let lost = 2_000 - got.len() as u64;
    assert!((1..=10).contains(&lost), "{lost} lost by ten flipped bits");
    assert_eq!(log.stats().corrupt_ranges, lost);
    let reported: u64 = heard
        .all()
        .iter()
        .map(|event| if let LogEvent::Corrupt { count, .. } = event { *count } else { 0 })
        .sum();
    assert_eq!(reported, lost);
}

/// Flips one bit in each of many bytes of a small log, in every file, one at a time.
/// `EVENTBUS_EVERY_BYTE=1` takes every byte there is.
#[tokio::test]
async fn a_flipped_bit_anywhere_costs_at_most_the_event_it_hits() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", 12, 30).await;
    let leases = lease(&orders, 3).await;
    orders.settle(acks(leases)).await.unwrap();
    log.close().await.unwrap();
    drop(orders);
    let step = if std::env::var_os("EVENTBUS_EVERY_BYTE").is_some() { 1 } else { 13 };
    let (mut flips, mut lost) = (0, 0);
    for (name, used) in [("segment-000001", 8192 + 4096), ("ledger-0", 9216), ("ledger-1", 9216)] {
        let heads = (0..128).chain(4096..4224).step_by(step);
        for byte in heads.chain((8192..used).step_by(step)) {
            let disk = disk.copy();
            disk.flip(name, byte * 8 + flips % 8);
            flips += 1;
            lost += flipped(&disk, &clock, (name, byte)).await;
        }
    }
    println!("{flips} flips, {lost} of them cost an event");
    assert!(lost > 0, "no flip hit an event: the test looks elsewhere");
}

/// Everything that was not settled comes, as it was published; returns how many are missing.
async fn flipped(disk: &FaultyDisk, clock: &Arc<ManualClock>, at: (&str, usize)) -> usize {
    let log = open_with(small(disk), clock).unwrap_or_else(|error| panic!("{at:?}: {error}"));
    let orders = cursor(&log, "orders", "a").await;
    // What was settled may come again when the ledger was hit; the mark behind ends the reading.
    log.append(Batch::of_one(event("a", "999")), Durability::Synced).await.unwrap();
    let mut got = Vec::new();
    while got.last() != Some(&999) {
        let leases = lease(&orders, 50).await;
        for lease in &leases {
            got.push(number(lease));
            let payload = format!("{:30}", number(lease));
            assert!(number(lease) == 999 || lease.event().payload == payload, "{at:?}");
        }
        orders.settle(acks(leases)).await.unwrap();
    }
    let missing = (3..12).filter(|n| !got.contains(n)).count();
    assert!(missing <= 1, "{at:?}: {got:?}");
    assert!(missing == 0 || log.stats().corrupt_ranges == 1, "{at:?}: lost in silence");
    missing
}

/// What happens to a segment's file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    HeadsZeroed,
    BeginningZeroed,
    Removed,
}

#[tokio::test]
async fn a_lost_segment_is_told_and_one_that_lost_its_head_loses_nothing() {
    for blow in [Blow::HeadsZeroed, Blow::BeginningZeroed, Blow::Removed] {
        // Two segments, and then the only one.
        for (events, victims) in [(2_000, &[0, 1, 2, usize::MAX][..]), (100, &[0])] {
            for victim in victims {
                struck(blow, events, *victim).await;
            }
        }
    }
}

async fn struck(blow: Blow, events: usize, victim: usize) {
    let at = format!("{blow:?} of segment {victim}, {events} events");
    let disk = FaultyDisk::new(1 << 30);
    let (clock, heard) = (clock(), Arc::new(Heard::default()));
    let log = open_heard(small(&disk), &clock, &heard).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", events, 100).await;
    log.close().await.unwrap();
    drop((log, orders));
    let indexes = disk.names().unwrap().iter().filter(|name| name.starts_with("index")).count();
    let segments = indexes + 1;
    let victim = victim.min(segments - 1);
    let name = format!("segment-{:06}", victim + 1);
    match blow {
        Blow::HeadsZeroed => disk.open(&name).unwrap().write_at(&[0; 8192], 0).unwrap(),
        Blow::BeginningZeroed => disk.open(&name).unwrap().write_at(&[0; 12_288], 0).unwrap(),
        Blow::Removed => disk.remove(&name).unwrap(),
    }
    let log = open_heard(small(&disk), &clock, &heard).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    // The mark behind ends the reading.
    log.append(Batch::of_one(event("a", "9999")), Durability::Synced).await.unwrap();
    let mut got = Vec::new();
    while got.last() != Some(&9999) {
        let leases = lease(&orders, 100).await;
        got.extend(leases.iter().map(number));
        orders.settle(acks(leases)).await.unwrap();
    }
    assert!(got.is_sorted(), "{at}");
    let missing = events + 1 - got.len();
    let (mut told, mut restored, mut unknown) = (0, 0, 0);
    for heard in heard.all() {
        match heard {
            LogEvent::Corrupt { count, .. } => told += count as usize,
            LogEvent::Restored { .. } => restored += 1,
            LogEvent::Unknown { .. } => unknown += 1,
            _ => {}
        }
    }
    let is_oldest_of_several = victim == 0 && segments > 1;
    match blow {
        Blow::HeadsZeroed => assert_eq!((missing, restored, unknown), (0, 1, 0), "{at}"),
        _ => assert!(missing > 0 && restored == 0, "{at}"),
    }
    assert_eq!(unknown, usize::from(blow == Blow::BeginningZeroed), "{at}");
    // Whether the oldest was retired, nobody remembers.
    assert_eq!(told, if is_oldest_of_several { 0 } else { missing }, "{at}");
    if blow == Blow::BeginningZeroed {
        fill(&log, "a", events, 100).await;
        let left = read_whole(&disk, &name);
        assert!(left[..12_288].iter().all(|byte| *byte == 0), "{at}: it is left alone");
    }
}

fn read_whole(disk: &FaultyDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; file.size().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[tokio::test]
async fn a_lost_ledger_is_told_and_everything_comes_again() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let heard = Arc::new(Heard::default());
    let losses = || heard.all().iter().filter(|event| **event == LogEvent::LedgerLost).count();
    let log = open_heard(small(&disk), &clock, &heard).unwrap();
    let others = cursor(&log, "others", "b").await;
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", 12, 30).await;
    orders.settle(acks(lease(&orders, 12).await)).await.unwrap();
    let before = log.stats().next;
    log.close().await.unwrap();
    drop((log, orders, others));
    for name in ["ledger-0", "ledger-1"] {
        disk.open(name).unwrap().write_at(&[0; 8192], 0).unwrap();
    }
    let log = open_heard(small(&disk), &clock, &heard).unwrap();
    assert_eq!((losses(), log.cursors().await.unwrap()), (1, vec![]));
    assert_eq!(log.telemetry().ledger_damages.load(Ordering::Relaxed), 1);
    assert!(log.stats().next.0 >= before.0 + limits::UNSYNCED_POSITIONS);
    // Another cursor has the number now that this one had: nothing of its past must stick to it.
    let orders = cursor(&log, "orders", "a").await;
    lag(&orders, 12).await;
    orders.settle(acks(lease(&orders, 5).await)).await.unwrap();
    log.close().await.unwrap();
    drop((log, orders));
    let log = open_heard(small(&disk), &clock, &heard).unwrap();
    assert_eq!(losses(), 1);
    assert_eq!(log.cursors().await.unwrap().len(), 1);
    let orders = cursor(&log, "orders", "a").await;
    assert_eq!(number(&lease(&orders, 1).await[0]), 5);
}

#[tokio::test]
async fn positions_are_not_reused_when_the_ledger_is_ahead_of_the_log() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    log.append(Batch::of_one(event("a", "x")), Durability::Written).await.unwrap();
    let leases = lease(&orders, 1).await;
    assert_eq!(leases[0].position(), Position(1));
    orders.settle(acks(leases)).await.unwrap();
    // Opening another cursor syncs the ledger; the log is not synced yet.
    cursor(&log, "others", "b").await;
    let cut = disk.after_power_cut(&eventbus_core::testing::SeededEntropy::new(3));
    drop(log);
    let log = open_with(small(&cut), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    match log.append(Batch::of_one(event("a", "y")), Durability::Synced).await.unwrap().receipts[..]
    {
        [Receipt::Stored(position)] => assert!(position > Position(1)),
        ref other => panic!("{other:?}"),
    }
    assert_eq!(payloads(&lease(&orders, 10).await), ["y"]);
}
