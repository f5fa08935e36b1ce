//! Cursors that do not keep up find their events by the index.

use eventbus_core::broker::Start;
use eventbus_core::delivery::Verdict;
use eventbus_core::{Batch, Broker, Durability};
use eventbus_log::disk::FaultyDisk;

use crate::support::*;

const EVENTS: usize = 3_000;

/// Where what a ledger says begins in its files (docs/format.md).
const LEDGER_FRAMES_AT: usize = 8_192;

/// More than a ledger's entry about one event that waits has; of hundreds of events it would have
/// more.
const ENTRY_BYTES: usize = 128;

#[tokio::test]
async fn a_lagging_cursor_gets_everything_in_order_and_knows_its_lag() {
    let disk = FaultyDisk::new(1 << 30);
    let log = open_with(small(&disk), &clock()).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    let others = cursor(&log, "others", "b").await;
    for round in 0..3 {
        fill(&log, "a", EVENTS / 3, 100).await;
        fill(&log, "b", 10, 100).await;
        lag(&orders, (round + 1) * EVENTS / 3).await;
    }
    let mut got = 0;
    while got < EVENTS {
        let leases = lease(&orders, 70).await;
        for (n, lease) in leases.iter().enumerate() {
            assert_eq!(number(lease), (got + n) % (EVENTS / 3));
        }
        got += leases.len();
        orders.settle(acks(leases)).await.unwrap();
        assert_eq!(orders.stats().lag_events as usize, EVENTS - got);
    }
    assert_eq!(lease(&others, 100).await.len(), 30);
}

#[tokio::test]
async fn the_lag_is_exact_after_a_restart_with_and_without_indexes() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", EVENTS, 100).await;
    let leases = lease(&orders, 700).await;
    orders.settle(acks(leases)).await.unwrap();
    log.close().await.unwrap();
    drop(orders);
    let indexes = |disk: &FaultyDisk| {
        let names = eventbus_log::Disk::names(disk).unwrap();
        names.into_iter().filter(|name| name.starts_with("index")).collect::<Vec<_>>()
    };
    assert!(!indexes(&disk).is_empty(), "full segments have indexes");
    for removed in [false, true] {
        let disk = disk.copy();
        if removed {
            for name in indexes(&disk) {
                eventbus_log::Disk::remove(&disk, &name).unwrap();
            }
        }
        let log = open_with(small(&disk), &clock).unwrap();
        let orders = cursor(&log, "orders", "a").await;
        assert_eq!(orders.stats().lag_events as usize, EVENTS - 700);
        let mut next = 700;
        while next < EVENTS {
            let leases = lease(&orders, 400).await;
            assert!(leases.iter().enumerate().all(|(n, lease)| number(lease) == next + n));
            next += leases.len();
            orders.settle(acks(leases)).await.unwrap();
        }
        assert_eq!(orders.stats().lag_events, 0);
    }
}

/// How many bytes follow the head in each ledger file; what is reserved and not written is zero.
fn ledger_bytes(disk: &FaultyDisk) -> Vec<usize> {
    let names = eventbus_log::Disk::names(disk).unwrap();
    let ledgers = names.iter().filter(|name| name.starts_with("ledger-"));
    let bytes = ledgers.map(|name| {
        let file = eventbus_log::Disk::open(disk, name).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        end.saturating_sub(LEDGER_FRAMES_AT)
    });
    bytes.collect()
}

#[tokio::test]
async fn much_settled_above_one_that_waits_costs_nothing() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", 20_000, 10).await;
    let mut first = lease(&orders, 1).await;
    let retry = Verdict::Retry { due_ms: START_MS + 30_000 };
    orders.settle(vec![settled(first.remove(0), retry)]).await.unwrap();
    let (mut done, mut turns) = (1, 1);
    while done < 20_000 {
        let leases = lease(&orders, 400).await;
        done += leases.len();
        turns += 1;
        orders.settle(acks(leases)).await.unwrap();
    }
    let stats = orders.stats();
    assert_eq!((stats.lag_events, stats.waiting_events), (1, 1));
    log.close().await.unwrap();
    // A turn says how far all is settled and what is not, never what is.
    let written = ledger_bytes(&disk);
    assert!(written.iter().all(|bytes| *bytes < turns * ENTRY_BYTES), "{turns}: {written:?}");
    let log = open_with(small(&disk), &clock).unwrap();
    // Nor does the snapshot with which the ledger goes on, in the other file.
    let snapshot = ledger_bytes(&disk).into_iter().min().unwrap();
    assert!((1..2 * ENTRY_BYTES).contains(&snapshot), "{snapshot}");
    let orders = cursor(&log, "orders", "a").await;
    assert_eq!(orders.stats().lag_events, 1);
    clock.advance(std::time::Duration::from_secs(30));
    assert_eq!(number(&lease(&orders, 5).await[0]), 0);
}

#[tokio::test]
async fn a_new_cursor_starts_with_the_first_event_of_its_time() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    for n in 0..1_000 {
        let batch = Batch::of_one(event("a", format!("{n:100}")));
        log.append(batch, Durability::Written).await.unwrap();
        clock.advance(std::time::Duration::from_millis(7));
    }
    for first in [0, 1, 142, 143, 500, 999, 1_000] {
        let start = Start::AtMs(START_MS + first as u64 * 7);
        let spec = eventbus_core::broker::CursorSpec { start, ..spec(&format!("{first}"), "a") };
        let late = log.open(spec).await.unwrap();
        lag(&late, 1_000 - first).await;
        if first < 1_000 {
            assert_eq!(number(&lease(&late, 1).await[0]), first);
        }
    }
}

#[tokio::test]
async fn another_interest_keeps_the_place() {
    let disk = FaultyDisk::new(1 << 30);
    let log = open_with(small(&disk), &clock()).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", 20, 100).await;
    fill(&log, "b", 20, 100).await;
    let leases = lease(&orders, 5).await;
    let again = cursor(&log, "orders", "b").await;
    // What was leased stays; what was not is looked for anew.
    lag(&orders, 25).await;
    orders.settle(acks(leases)).await.unwrap();
    let leases = lease(&again, 100).await;
    assert!(leases.iter().all(|lease| lease.event().is_of(&interest("b"))));
    assert_eq!(leases.len(), 20);
    again.settle(acks(leases)).await.unwrap();
    fill(&log, "b", 1, 100).await;
    assert_eq!(lease(&again, 100).await.len(), 1);
    assert_eq!(log.cursors().await.unwrap().len(), 1);
}
