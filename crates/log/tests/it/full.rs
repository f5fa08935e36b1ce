//! A full disk refuses publishers and nobody else.

use eventbus_core::broker::{AppendError, BrokerHealth};
use eventbus_core::{Batch, Broker, Durability};
use eventbus_log::disk::FaultyDisk;
use eventbus_log::{Log, LogConfig};

use crate::support::*;

/// Appends until it is refused; returns how many were stored.
async fn fill_up(log: &Log) -> usize {
    let mut stored = 0;
    loop {
        let batch = Batch::of_one(event("a", format!("{stored:1000}")));
        match log.append(batch, Durability::Synced).await {
            Ok(_) => stored += 1,
            Err(AppendError::Full { .. }) => return stored,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn empties_and_recovers(log: &Log, stored: usize) {
    let orders = cursor(log, "orders", "a").await;
    assert_eq!(log.stats().health, BrokerHealth::Full);
    lag(&orders, stored).await;
    let mut next = 0;
    while next < stored {
        let leases = lease(&orders, 100).await;
        assert!(leases.iter().enumerate().all(|(n, lease)| number(lease) == next + n));
        next += leases.len();
        orders.settle(acks(leases)).await.unwrap();
    }
    until("there is room", || log.stats().health == BrokerHealth::Usable).await;
    log.append(Batch::of_one(event("a", "1")), Durability::Synced).await.unwrap();
    assert_eq!(payloads(&lease(&orders, 10).await), ["1"]);
}

#[tokio::test]
async fn settling_goes_on_beyond_max_bytes_and_makes_room() {
    let disk = FaultyDisk::new(1 << 30);
    let config = LogConfig {
        max_bytes: Some(1024 * 1024),
        backlog_max_bytes: Some(u64::MAX),
        ..small(&disk)
    };
    let log = open_with(config, &clock()).unwrap();
    cursor(&log, "orders", "a").await;
    let stored = fill_up(&log).await;
    assert!(stored > 500, "{stored}");
    empties_and_recovers(&log, stored).await;
}

#[tokio::test]
async fn settling_goes_on_when_the_volume_is_full() {
    let disk = FaultyDisk::new(2 * 1024 * 1024);
    let config = LogConfig { backlog_max_bytes: Some(u64::MAX), ..small(&disk) };
    let log = open_with(config, &clock()).unwrap();
    cursor(&log, "orders", "a").await;
    let stored = fill_up(&log).await;
    assert!(stored > 500, "{stored}");
    empties_and_recovers(&log, stored).await;
}

#[tokio::test]
async fn room_from_outside_is_noticed() {
    let disk = FaultyDisk::new(2 * 1024 * 1024);
    let log = open_with(small(&disk), &clock()).unwrap();
    cursor(&log, "orders", "a").await;
    fill_up(&log).await;
    disk.resize(1 << 30);
    until("there is room", || log.stats().health == BrokerHealth::Usable).await;
    log.append(Batch::of_one(event("a", "1")), Durability::Synced).await.unwrap();
}

#[tokio::test]
async fn a_restart_of_a_full_log_still_delivers() {
    let disk = FaultyDisk::new(2 * 1024 * 1024);
    let clock = clock();
    let config = LogConfig { backlog_max_bytes: Some(u64::MAX), ..small(&disk) };
    let log = open_with(config.clone(), &clock).unwrap();
    cursor(&log, "orders", "a").await;
    let stored = fill_up(&log).await;
    drop(log);
    let log = open_with(config, &clock).unwrap();
    fill_up(&log).await;
    let orders = cursor(&log, "orders", "a").await;
    let lag = orders.stats().lag_events as usize;
    assert!(lag >= stored);
    empties_and_recovers_from(&log, lag).await;
}

async fn empties_and_recovers_from(log: &Log, lag: usize) {
    let orders = cursor(log, "orders", "a").await;
    let mut got = 0;
    while got < lag {
        let leases = lease(&orders, 100).await;
        got += leases.len();
        orders.settle(acks(leases)).await.unwrap();
    }
    until("there is room", || log.stats().health == BrokerHealth::Usable).await;
}
