//! Events whose publishers give them an id that the log remembers.

use std::time::Duration;

use eventbus_core::testing::SeededEntropy;
use eventbus_core::{Batch, Broker, Durability, Event, Position, Receipt, Source};
use eventbus_log::disk::FaultyDisk;
use eventbus_log::{Disk, Log, LogConfig};

use crate::support::*;

const TIME: Duration = Duration::from_secs(120);

fn given(id: &str) -> Event {
    Event { id: id.to_owned().into(), id_given: true, ..event("a", id.to_owned()) }
}

async fn publish(log: &Log, events: Vec<Event>, atomic: bool) -> Vec<Receipt> {
    log.append(Batch { events, atomic }, Durability::Synced).await.unwrap().receipts
}

fn names(disk: &FaultyDisk) -> Vec<String> {
    disk.names().unwrap()
}

/// Is a repeat of this id stored again?
async fn is_new(log: &Log, id: &str) -> bool {
    match publish(log, vec![given(id)], false).await[..] {
        [Receipt::Stored(_)] => true,
        [Receipt::Duplicate] => false,
        ref other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_id_of_a_source_is_stored_once_and_one_that_the_bus_made_always() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let orders = cursor(&log, "orders", "a").await;
    assert!(is_new(&log, "1").await && !is_new(&log, "1").await && is_new(&log, "2").await);
    let elsewhere = Event { source: Source::from_id("elsewhere".into()), ..given("1") };
    let receipts = publish(&log, vec![elsewhere], false).await;
    assert_eq!(receipts, [Receipt::Stored(Position(3))]);
    let made = || Event { id_given: false, ..given("1") };
    let receipts = publish(&log, vec![made(), made()], false).await;
    assert_eq!(receipts, [Receipt::Stored(Position(4)), Receipt::Stored(Position(5))]);
    let accepted = log.append(Batch::of_one(given("1")), Durability::Accepted).await.unwrap();
    assert_eq!(accepted.receipts, [Receipt::Accepted]);
    assert!(is_new(&log, "last").await);
    lag(&orders, 5).await;
    assert_eq!(payloads(&lease(&orders, 9).await), ["1", "2", "1", "1", "last"]);
}

#[tokio::test]
async fn repeats_are_left_out_of_an_atomic_batch_and_the_rest_is_stored() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    cursor(&log, "orders", "a").await;
    assert!(is_new(&log, "1").await);
    let batch = ["2", "1", "3", "2"].map(given).to_vec();
    let receipts = publish(&log, batch.clone(), true).await;
    let stored = |position| Receipt::Stored(Position(position));
    assert_eq!(receipts, [stored(2), Receipt::Duplicate, stored(3), Receipt::Duplicate]);
    assert_eq!(publish(&log, batch, true).await, [Receipt::Duplicate; 4]);
    drop(log);
    // The batch is whole without them.
    let log = open_with(small(&disk.after_kill()), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    assert_eq!(payloads(&lease(&orders, 9).await), ["1", "2", "3"]);
}

#[tokio::test]
async fn an_id_is_forgotten_after_its_time() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    assert!(is_new(&log, "1").await);
    clock.advance(TIME - Duration::from_millis(1));
    assert!(!is_new(&log, "1").await);
    clock.advance(Duration::from_millis(1));
    assert!(is_new(&log, "1").await && !is_new(&log, "1").await);
}

#[tokio::test]
async fn no_time_is_no_deduplication() {
    let disk = FaultyDisk::new(1 << 30);
    let config = LogConfig { deduplication_time: Duration::ZERO, ..small(&disk) };
    let log = open_with(config, &clock()).unwrap();
    assert!(is_new(&log, "1").await && is_new(&log, "1").await);
}

#[tokio::test]
async fn a_kill_and_a_power_cut_forget_no_id_whatever_segment_it_is_in() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    assert!(is_new(&log, "old").await);
    clock.advance(TIME - Duration::from_secs(10));
    assert!(is_new(&log, "sealed").await);
    // Some segments more, whose indexes are written.
    fill(&log, "a", 300, 1_000).await;
    let indexes = || names(&disk).iter().filter(|name| name.starts_with("index-")).count();
    until("the indexes", || indexes() >= 3).await;
    clock.advance(Duration::from_secs(9));
    assert!(is_new(&log, "active").await);
    drop(log);
    let mut disk = disk.after_kill();
    for round in 0..3 {
        let log = open_with(small(&disk), &clock).unwrap();
        for id in ["old", "sealed", "active"] {
            assert!(!is_new(&log, id).await, "{id} in round {round}");
        }
        drop(log);
        // Then by a power cut, then with indexes that are damaged.
        disk = if round == 0 { disk.after_power_cut(&SeededEntropy::new(3)) } else { disk.copy() };
        for name in names(&disk).iter().filter(|name| round == 1 && name.starts_with("index-")) {
            let bytes = disk.open(name).unwrap().size().unwrap() as usize;
            // There lie the hashes of the ids, most of the file.
            disk.flip(name, bytes / 2 * 8);
        }
    }
    clock.advance(Duration::from_secs(1));
    let log = open_with(small(&disk), &clock).unwrap();
    assert!(is_new(&log, "old").await && !is_new(&log, "sealed").await);
    clock.advance(TIME);
    drop(log);
    let log = open_with(small(&disk), &clock).unwrap();
    assert!(is_new(&log, "sealed").await && is_new(&log, "active").await);
}
