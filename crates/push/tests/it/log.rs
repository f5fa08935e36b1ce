//! Push and the embedded log together: the two meet only through the seam, and must agree on it.

use std::collections::HashSet;
use std::sync::Arc;

use eventbus_core::broker::{CursorSpec, Start};
use eventbus_core::testing::SeededEntropy;
use eventbus_core::{Batch, Broker, Durability, Subscription};
use eventbus_log::disk::MemoryDisk;
use eventbus_log::{Log, LogConfig, TraceObserver};
use tokio::task::JoinSet;

use crate::subscriber::Subscriber;
use crate::world::{
    SystemClock, World, event, eventually, interest, set_active, soon, subscription,
};

/// A log on a disk in memory that outlives it.
fn open(disk: &MemoryDisk, change: impl FnOnce(&mut LogConfig)) -> Arc<Log> {
    let mut config = LogConfig::on_disk(Arc::new(disk.clone()));
    config.segment_bytes = 256 * 1024;
    change(&mut config);
    let entropy = SeededEntropy::new(1);
    Arc::new(Log::open(config, SystemClock::start(), &entropy, Arc::new(TraceObserver)).unwrap())
}

fn world(log: &Arc<Log>) -> World {
    World::with(|parts| parts.broker = log.clone())
}

/// Declares a Subscription and waits until its cursor is open.
async fn declare(log: &Log, world: &mut World, subscription: Subscription) {
    let id = subscription.cursor_id();
    world.declare(subscription);
    let is_open = async { while !log.cursors().await.unwrap().contains(&id) {} };
    soon("the cursor is open", is_open).await;
}

async fn publish(log: &Log, numbers: std::ops::Range<usize>) {
    let events: Vec<_> = numbers.map(|number| event(&number.to_string())).collect();
    for events in events.chunks(100) {
        let batch = Batch { events: events.to_vec(), atomic: false };
        log.append(batch, Durability::Synced).await.unwrap();
    }
}

/// Waits until nothing of a Subscription is left unsettled but `lag` events.
async fn settled_but(log: &Log, uid: &str, lag: u64) {
    let spec = CursorSpec {
        id: subscription(uid, "").cursor_id(),
        interest: interest("order.created"),
        start: Start::AtMs(0),
        waiting_max: eventbus_core::limits::WAITING_EVENTS,
    };
    let cursor = log.open(spec).await.unwrap();
    let is_settled = async {
        while cursor.stats().lag_events != lag {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    soon("all is settled", is_settled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_the_log_arrives_once() {
    let log = open(&MemoryDisk::new(1 << 30), |_| {});
    let subscriber = Subscriber::start().await;
    let mut world = world(&log);
    declare(&log, &mut world, subscription("a", &subscriber.url())).await;
    publish(&log, 0..3_000).await;
    settled_but(&log, "a", 0).await;
    let payloads: HashSet<_> = subscriber.payloads().into_iter().collect();
    assert_eq!((subscriber.count(), payloads.len()), (3_000, 3_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_on_disk_is_caught_up_with() {
    let log = open(&MemoryDisk::new(1 << 30), |config| config.tail_cache_bytes = 64 * 1024);
    let subscriber = Subscriber::start().await;
    let mut world = world(&log);
    let mut sleeper = subscription("a", &subscriber.url());
    set_active(&mut sleeper, false);
    declare(&log, &mut world, sleeper).await;
    publish(&log, 0..10_000).await;
    world.change("a", |a| set_active(a, true));
    settled_but(&log, "a", 0).await;
    assert_eq!(subscriber.count(), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_restart_repeats_nothing() {
    let disk = MemoryDisk::new(1 << 30);
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    subscriber.open_gate(700);
    for gate in [0, 1_300] {
        let log = open(&disk, |_| {});
        let mut world = world(&log);
        declare(&log, &mut world, subscription("a", &subscriber.url())).await;
        if gate == 0 {
            publish(&log, 0..2_000).await;
            settled_but(&log, "a", 1_300).await;
        }
        subscriber.open_gate(gate);
        if gate > 0 {
            settled_but(&log, "a", 0).await;
        }
        let mut draining = JoinSet::new();
        draining.spawn(world.push.take().unwrap().drain());
        world.settle_down().await;
        // The ten that wait at the gate are answered while push drains.
        subscriber.open_gate(10);
        soon("the end", draining.join_next()).await.unwrap().unwrap();
        log.close().await.unwrap();
    }
    let payloads: HashSet<_> = subscriber.payloads().into_iter().collect();
    assert_eq!((subscriber.count(), payloads.len()), (2_000, 2_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_repeats_no_more_than_was_under_way() {
    let disk = MemoryDisk::new(1 << 30);
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    subscriber.open_gate(500);
    {
        let log = open(&disk, |_| {});
        let mut world = world(&log);
        declare(&log, &mut world, subscription("a", &subscriber.url())).await;
        publish(&log, 0..1_000).await;
        settled_but(&log, "a", 500).await;
        // All is dropped in the middle.
        drop(world);
        eventually("nobody has the log", || Arc::strong_count(&log) == 1).await;
    }
    subscriber.open_gate(1_000);
    let log = open(&disk, |_| {});
    let mut world = world(&log);
    world.declare(subscription("a", &subscriber.url()));
    settled_but(&log, "a", 0).await;
    let payloads: HashSet<_> = subscriber.payloads().into_iter().collect();
    assert_eq!(payloads.len(), 1_000);
    assert!(subscriber.count() <= 1_010, "{} requests", subscriber.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_come_from_the_log_when_they_are_due() {
    let log = open(&MemoryDisk::new(1 << 30), |_| {});
    let subscriber = Subscriber::start().await;
    for number in 0..50 {
        subscriber.answer(&number.to_string(), vec![500]);
    }
    let mut world = world(&log);
    declare(&log, &mut world, subscription("a", &subscriber.url())).await;
    publish(&log, 0..100).await;
    // An event is not lag before the router has seen it.
    soon("all attempts", async {
        while subscriber.count() < 150 {
            tokio::task::yield_now().await
        }
    })
    .await;
    settled_but(&log, "a", 0).await;
    assert_eq!(subscriber.count(), 150);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_forgotten_by_the_log() {
    let log = open(&MemoryDisk::new(1 << 30), |_| {});
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = world(&log);
    declare(&log, &mut world, subscription("a", &subscriber.url())).await;
    publish(&log, 0..100).await;
    let under_way = async {
        while subscriber.in_work() < 10 {
            tokio::task::yield_now().await;
        }
    };
    soon("ten are under way", under_way).await;
    world.delete("a");
    let forgotten = async { while !log.cursors().await.unwrap().is_empty() {} };
    soon("it is forgotten", forgotten).await;
}
