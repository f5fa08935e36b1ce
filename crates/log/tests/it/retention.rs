//! The limits: what goes, for whom, and that it is counted.

use std::time::Duration;

use eventbus_core::broker::{BrokerHealth, Position};
use eventbus_core::{Broker, limits};
use eventbus_log::LogConfig;
use eventbus_log::disk::FaultyDisk;

use crate::support::*;

#[tokio::test]
async fn settled_history_goes_and_its_files_are_used_again() {
    let disk = FaultyDisk::new(1 << 30);
    let config = LogConfig { history_bytes: 128 * 1024, ..small(&disk) };
    let log = open_with(config, &clock()).unwrap();
    let mut most = 0;
    for round in 0..10 {
        fill(&log, "a", 500, 100).await;
        until("trimming", || log.stats().first.0 + 300 >= round * 500).await;
        most = most.max(log.stats().used_bytes);
    }
    assert!(most < 1024 * 1024, "{most} bytes for 128 KiB of history");
    assert_eq!(log.stats().health, BrokerHealth::Usable);
    assert_eq!(log.stats().next, Position(5_001));
}

#[tokio::test]
async fn what_settled_history_would_make_room_for_is_free() {
    let disk = FaultyDisk::new(1 << 30);
    let max_bytes = 1024 * 1024;
    let config = LogConfig { max_bytes: Some(max_bytes), ..small(&disk) };
    let log = open_with(config, &clock()).unwrap();
    // Nobody asks for them: they are settled at once.
    while log.stats().used_bytes <= max_bytes / 2 {
        fill(&log, "a", 50, 100).await;
    }
    // What was told before they were stored is told no more by then.
    tokio::time::sleep(2 * limits::UPKEEP_TIME).await;
    until("it is told", || log.stats().free_bytes > max_bytes / 2).await;
    assert!(log.stats().used_bytes > max_bytes / 2, "nothing had to go");
}

#[tokio::test]
async fn what_others_take_of_the_volume_is_not_free() {
    let disk = FaultyDisk::new(1 << 30);
    let log = open_with(small(&disk), &clock()).unwrap();
    until("there is room", || log.stats().free_bytes > 8 * 1024 * 1024).await;
    disk.resize(0);
    until("it is told", || log.stats().free_bytes == 0).await;
}

#[tokio::test]
async fn a_dead_cursor_loses_its_oldest_alone_and_the_loss_is_exact() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let config =
        LogConfig { history_bytes: 64 * 1024, backlog_max_bytes: Some(300 * 1024), ..small(&disk) };
    let log = open_with(config.clone(), &clock).unwrap();
    let dead = cursor(&log, "dead", "a").await;
    assert_eq!(dead.stats().backlog_max_bytes, Some(300 * 1024));
    let sparse = cursor(&log, "sparse", "b").await;
    fill(&log, "b", 1, 100).await;
    let mut got = 0;
    let healthy = cursor(&log, "healthy", "a").await;
    for _ in 0..4 {
        fill(&log, "a", 1_000, 100).await;
        lag(&healthy, 1_000).await;
        while got % 1_000 != 0 || healthy.stats().lag_events > 0 {
            let leases = lease(&healthy, 100).await;
            got += leases.len();
            healthy.settle(acks(leases)).await.unwrap();
        }
    }
    assert_eq!((got, healthy.stats().dropped_events), (4_000, 0));
    until("the backlog is cut", || dead.stats().backlog_bytes <= 300 * 1024).await;
    until("nothing more is cut", || sparse.stats().dropped_events == 1).await;
    let lost = dead.stats().dropped_events;
    assert!(lost > 1_000, "{lost}");
    assert_eq!(dead.stats().lag_events, 4_000 - lost);
    // What it still gets begins right behind what it lost, also after a restart.
    let first = number(&lease(&dead, 1).await[0]);
    assert_eq!(first as u64, lost % 1_000);
    log.close().await.unwrap();
    let log = open_with(config, &clock).unwrap();
    let dead = cursor(&log, "dead", "a").await;
    assert_eq!(dead.stats().dropped_events, lost);
    assert_eq!(dead.stats().lag_events, 4_000 - lost);
    let (mut seen, mut leases) = (0, lease(&dead, 1_000).await);
    while seen + leases.len() < (4_000 - lost) as usize {
        seen += leases.len();
        dead.settle(acks(leases)).await.unwrap();
        leases = lease(&dead, 1_000).await;
    }
    assert_eq!(dead.stats().dropped_events, lost);
}

#[tokio::test]
async fn age_ends_everything() {
    let disk = FaultyDisk::new(1 << 30);
    let clock = clock();
    let log = open_with(small(&disk), &clock).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    fill(&log, "a", 10, 100).await;
    let waiting = lease(&orders, 5).await;
    clock.advance(Duration::from_secs(24 * 3600 - 60));
    fill(&log, "a", 1, 100).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(orders.stats().dropped_events, 0);
    clock.advance(Duration::from_secs(120));
    fill(&log, "a", 1, 100).await;
    until("the old ones are dropped", || orders.stats().dropped_events == 10).await;
    orders.settle(acks(waiting)).await.unwrap();
    let leases = lease(&orders, 100).await;
    assert_eq!(leases.len(), 2);
    orders.settle(acks(leases)).await.unwrap();
    assert_eq!(orders.stats().lag_events, 0);
}
