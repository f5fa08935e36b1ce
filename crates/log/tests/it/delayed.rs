//! Delayed events in a running log.

use std::path::Path;
use std::time::Duration;

use eventbus_core::broker::{AppendError, CursorId};
use eventbus_core::{Batch, Broker, Clock, Durability, Event, Position, Receipt};
use eventbus_log::disk::FaultyDisk;
use eventbus_log::{Log, LogConfig};
use futures::future::join_all;

use crate::support::*;

fn given(id: &str) -> Event {
    Event { id: id.to_owned().into(), id_given: true, ..event("a", id.to_owned()) }
}

async fn delay(log: &Log, event: Event, due_ms: u64) -> Receipt {
    let receipts = log.delay(event, due_ms, Durability::Written).await.unwrap();
    assert_eq!(receipts.durability, Durability::Synced, "the vault knows no weaker level");
    receipts.receipts[0]
}

#[tokio::test]
async fn an_id_that_is_stored_is_known_to_a_delay_until_it_is_forgotten() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let mut log = open_with(small(&disk), &clock).unwrap();
    let batch = Batch { events: vec![given("1"), given("2")], atomic: false };
    log.append(batch, Durability::Synced).await.unwrap();
    let due_ms = clock.now_ms() + 1_000_000;
    for round in 0..2 {
        // Of several that are asked for together each gets its own answer.
        let events = ["1", &format!("new {round}"), "2", "1"].map(given);
        let unknown = Event { id_given: false, ..given("1") };
        let events = [unknown].into_iter().chain(events);
        let answers = join_all(events.map(|event| delay(&log, event, due_ms))).await;
        let (new, known) = (Receipt::Delayed, Receipt::Duplicate);
        assert_eq!(answers, [new, known, new, known, known], "round {round}");
        drop(log);
        log = open_with(small(&disk.after_kill()), &clock).unwrap();
    }
    clock.advance(Duration::from_secs(120));
    assert_eq!(delay(&log, given("1"), due_ms).await, Receipt::Delayed);
    let too_much = log.delay(event("a", "x"), due_ms, Durability::Replicated).await;
    assert_eq!(too_much, Err(AppendError::Durability(Durability::Replicated)));
    let too_large = log.delay(event("a", "x".repeat(64 * 1024)), due_ms, Durability::Synced).await;
    assert!(matches!(too_large, Err(AppendError::TooLarge { .. })), "{too_large:?}");
}

#[tokio::test]
async fn a_log_without_delayed_events_makes_no_vault_and_one_that_waits_touches_no_disk() {
    let dir = tempfile::tempdir().unwrap();
    let vault = dir.path().join("vault.db");
    let log = open(dir.path(), &clock());
    log.append(Batch::of_one(given("1")), Durability::Synced).await.unwrap();
    assert_eq!(delay(&log, given("1"), 0).await, Receipt::Duplicate);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!vault.exists());
    assert_eq!(delay(&log, given("2"), u64::MAX).await, Receipt::Delayed);
    assert!(vault.exists());

    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    delay(&log, given("1"), clock.now_ms() + 1_000).await;
    let before = disk.operations();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(disk.operations(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_that_was_begun_before_the_end_is_kept_or_refused_and_no_third() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let log = open(dir.path(), &clock);
    let due_ms = clock.now_ms() + 1_000;
    let delays = join_all((0..200).map(|n| {
        let delayed = if n % 2 == 0 { event("a", "x") } else { given(&n.to_string()) };
        log.delay(delayed, due_ms, Durability::Synced)
    }));
    let (answers, closed) = futures::join!(delays, log.close());
    closed.unwrap();
    let kept = answers.iter().filter(|answer| match answer {
        Ok(receipts) => receipts.receipts == [Receipt::Delayed],
        Err(AppendError::Unavailable(_)) => false,
        Err(error) => panic!("{error}"),
    });
    let kept = kept.count();
    println!("{kept} of 200 were kept");
    assert!(kept > 0);
    let log = open(dir.path(), &clock);
    let orders = cursor(&log, "orders", "a").await;
    clock.advance(Duration::from_secs(1));
    lag(&orders, kept).await;
}

#[tokio::test]
async fn what_falls_due_while_the_log_is_full_is_stored_when_there_is_room() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let config = LogConfig { max_bytes: Some(1024 * 1024), history_bytes: 0, ..small(&disk) };
    let config = LogConfig { backlog_max_bytes: Some(u64::MAX), ..config };
    let log = open_with(config, &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    let mut stored = 0;
    let full = loop {
        let batch = Batch::of_one(event("a", format!("{stored:1000}")));
        match log.append(batch, Durability::Synced).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, AppendError::Full { .. }), "{full}");
    for payload in ["x", "y"] {
        delay(&log, event("a", payload), clock.now_ms() + 500).await;
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    lag(&orders, stored).await;
    for _ in (0..stored).step_by(50) {
        let leases = lease(&orders, 50).await;
        orders.settle(acks(leases)).await.unwrap();
    }
    for payload in ["x", "y"] {
        until("it is stored", || {
            clock.advance(Duration::from_millis(100));
            orders.stats().lag_events > 0
        })
        .await;
        let leases = lease(&orders, 1).await;
        assert_eq!(payloads(&leases), [payload]);
        orders.settle(acks(leases)).await.unwrap();
    }
}

/// A directory that holds nothing but a vault of that version.
fn with_vault(version: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let vault = fixtures.join(format!("vault-{version}/vault.db"));
    std::fs::copy(vault, dir.path().join("vault.db")).unwrap();
    dir
}

#[tokio::test]
async fn the_vaults_of_all_versions_open_and_take_delayed_events() {
    for version in [1, 2] {
        let dir = with_vault(version);
        let clock = clock();
        for round in 0..2 {
            let log = open(dir.path(), &clock);
            let dead = log.dead_letters();
            let limit = std::num::NonZeroUsize::MIN;
            let page = dead.page(CursorId("orders".into()), Position(0), limit).await.unwrap();
            assert_eq!(page[0].event.payload, "two", "version {version}");
            let due_ms = clock.now_ms() + 30_000;
            let receipt = delay(&log, given("1"), due_ms).await;
            let new = if round == 0 { Receipt::Delayed } else { Receipt::Duplicate };
            assert_eq!(receipt, new, "version {version}");
            log.close().await.unwrap();
        }
        let log = open(dir.path(), &clock);
        let orders = cursor(&log, "orders", "order.created").await;
        let others = cursor(&log, "others", "a").await;
        clock.advance(Duration::from_secs(30));
        lag(&others, 1).await;
        let delayed: &[&str] = if version == 1 { &[] } else { &["three"] };
        lag(&orders, delayed.len()).await;
        if !delayed.is_empty() {
            assert_eq!(payloads(&lease(&orders, 9).await), delayed);
        }
    }
}
