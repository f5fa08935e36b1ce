//! Delayed events: they come when they are due, once, whatever ends or is full meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use eventbus_core::broker::AppendError;
use eventbus_core::testing::event;
use eventbus_core::{Batch, Broker, Clock, Durability, Event, Receipt, Receipts, Source};
use eventbus_nats::{Access, Nats, NatsConfig};
use tokio::runtime::Runtime;

use crate::cluster::Cluster;
use crate::server::{NatsServer, Options};
use crate::world::*;

/// An event with an id that its publisher gave.
fn known(id: &str) -> Event {
    Event { id: id.to_owned().into(), id_given: true, ..event("a", id.to_owned()) }
}

async fn delay(broker: &Nats, event: Event, due_ms: u64) -> Result<Receipts, AppendError> {
    broker.delay(event, due_ms, broker.capabilities().default_durability).await
}

/// Delays it; it is kept.
async fn is_kept(broker: &Nats, event: Event, due_ms: u64) {
    assert_eq!(delay(broker, event, due_ms).await.unwrap().receipts, [Receipt::Delayed]);
}

/// Is an event with that id not kept?
async fn repeats(broker: &Nats, id: &str, due_ms: u64) -> bool {
    delay(broker, known(id), due_ms).await.unwrap().receipts == [Receipt::Duplicate]
}

async fn stream_of(server: &NatsServer, name: &str) -> stream::Stream {
    let server = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    server.get_stream(name).await.unwrap()
}

/// How many events a stream holds.
async fn count(server: &NatsServer, stream: &str) -> u64 {
    stream_of(server, stream).await.cached_info().state.messages
}

/// Waits until a stream holds so many.
async fn holds(server: &NatsServer, stream: &str, events: u64) {
    let mut found = count(server, stream).await;
    let waiting = async {
        while found != events {
            tokio::time::sleep(Duration::from_millis(50)).await;
            found = count(server, stream).await;
        }
    };
    let held = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(held.is_ok(), "{stream} holds {found}, and not {events}");
}

#[tokio::test]
async fn what_falls_due_while_the_server_is_gone_comes_when_it_is_back() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let clock = machine_clock();
    let broker = usable(NatsConfig::at(server.url())).await;
    let due_ms = clock.now_ms() + 4_000;
    is_kept(&broker, event("a", "unknown"), due_ms).await;
    is_kept(&broker, event("a", "unknown too"), due_ms).await;
    is_kept(&broker, known("known"), due_ms).await;
    is_kept(&broker, event("a", "later"), due_ms + 4_000).await;
    server.kill();
    let refused = delay(&broker, known("lost"), due_ms).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    drop(broker);
    tokio::time::sleep(Duration::from_millis(due_ms.saturating_sub(clock.now_ms()))).await;
    server.run().await;
    let broker = usable(NatsConfig::at(server.url())).await;
    let orders = cursor(&broker, "orders").await;
    assert_eq!(takes(&orders, &["unknown", "unknown too", "known"]).await, 0);
    assert!(clock.now_ms() < due_ms + 4_000 || count(&server, "EB_EVENTS").await == 4);
    assert_eq!(takes(&orders, &["later"]).await, 0);
    assert!(clock.now_ms() >= due_ms + 4_000, "never before");
    holds(&server, "EB_DELAY", 0).await;
}

#[tokio::test]
async fn what_is_stored_and_not_acknowledged_is_not_stored_again() {
    let settings = "authorization { users: [{ user: bus }, { user: mute, password: x, \
                    permissions: { publish: { deny: \"$JS.ACK.EB_DELAY.>\" } } }] }\n\
                    no_auth_user: bus";
    let options = Options { settings: settings.to_owned(), ..Options::default() };
    let Some(server) = NatsServer::start(options).await else { return };
    // What it does is never acknowledged, as if it ended before.
    let access = Access::User { name: "mute".to_owned(), password: "x".to_owned() };
    let mute = usable(NatsConfig { access, ..NatsConfig::at(server.url()) }).await;
    is_kept(&mute, event("a", "unknown"), 0).await;
    is_kept(&mute, known("known"), 0).await;
    let orders = cursor(&mute, "orders").await;
    assert_eq!(takes(&orders, &["unknown", "known"]).await, 0);
    mute.close().await.unwrap();
    drop((mute, orders));
    assert_eq!(count(&server, "EB_DELAY").await, 2, "they are still there");
    let broker = usable(NatsConfig::at(server.url())).await;
    holds(&server, "EB_DELAY", 0).await;
    assert_eq!(count(&server, "EB_EVENTS").await, 2);
    publish(&broker, "and no other").await.unwrap();
    assert_eq!(takes(&cursor(&broker, "orders").await, &["and no other"]).await, 0);
}

/// A broker that can be killed: it ends with the runtime.
async fn process(server: &NatsServer) -> (Arc<Nats>, Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.spawn(usable(NatsConfig::at(server.url()))).await.unwrap();
    (Arc::new(broker), runtime)
}

#[tokio::test]
async fn a_kill_while_events_are_stored_neither_loses_nor_repeats_any() {
    const EVENTS: usize = 300;
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let clock = machine_clock();
    let (mut broker, mut runtime) = process(&server).await;
    let (mut stored, mut left) = (0, Vec::new());
    for round in 1..=3 {
        let due_ms = clock.now_ms() + 2_000;
        for n in 0..EVENTS {
            let event = Event { id_given: n % 2 == 0, ..known(&format!("{round}/{n}")) };
            is_kept(&broker, event, due_ms).await;
        }
        stored += EVENTS as u64;
        while count(&server, "EB_EVENTS").await <= stored - EVENTS as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        runtime.shutdown_background();
        left.push(count(&server, "EB_DELAY").await);
        (broker, runtime) = process(&server).await;
        holds(&server, "EB_DELAY", 0).await;
        assert_eq!(count(&server, "EB_EVENTS").await, stored, "{left:?} were left by each kill");
    }
    println!("{left:?} were left by each kill");
    drop(broker);
    runtime.shutdown_background();
}

#[tokio::test]
async fn what_cannot_be_stored_when_it_is_due_waits_until_there_is_room() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let config = NatsConfig {
        history_bytes: 0,
        max_bytes: 1024 * 1024,
        backlog_max_bytes: Some(1024 * 1024),
        ..NatsConfig::at(server.url())
    };
    let broker = usable(config).await;
    let orders = cursor(&broker, "orders").await;
    let mut filling = Vec::new();
    loop {
        let payload = format!("{:>60000}", filling.len());
        match publish(&broker, &payload).await {
            Ok(_) => filling.push(payload),
            Err(AppendError::Full { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    let late: Vec<String> = (0..40).map(|n| format!("late {n:>60000}")).collect();
    for payload in &late {
        let id_given = payload.ends_with('7');
        let id = payload[60_000..].into();
        is_kept(&broker, Event { id, id_given, ..event("a", payload.clone()) }, 0).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(count(&server, "EB_DELAY").await, 40, "nothing is lost");
    assert_eq!(count(&server, "EB_EVENTS").await, filling.len() as u64);
    let received = stream_of(&server, "EB_DELAY").await;
    let delivered = received.consumer_info("due").await.unwrap().delivered.consumer_sequence;
    assert!(delivered < 40, "it is no busy loop: {delivered}");
    assert_eq!(takes(&orders, &filling).await, 0);
    assert_eq!(takes(&orders, &late).await, 0);
    holds(&server, "EB_DELAY", 0).await;
}

#[tokio::test]
async fn what_is_due_comes_although_somebody_removed_the_consumer() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let broker = usable(NatsConfig::at(server.url())).await;
    let orders = cursor(&broker, "orders").await;
    is_kept(&broker, known("before"), 0).await;
    assert_eq!(takes(&orders, &["before"]).await, 0);
    stream_of(&server, "EB_DELAY").await.delete_consumer("due").await.unwrap();
    is_kept(&broker, known("after"), 0).await;
    let soon = Duration::from_secs(10);
    tokio::time::timeout(soon, takes(&orders, &["after"])).await.expect("it comes soon");
    let waiting = stream_of(&server, "EB_DELAY").await.consumer_info("due").await.unwrap();
    assert_eq!(waiting.num_waiting, 1, "one request at a time is open");
}

#[tokio::test]
async fn what_is_due_in_a_year_or_never_waits() {
    const YEAR_MS: u64 = 366 * 24 * 3_600_000;
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    // Events end long before; those that are not due do not.
    let config = NatsConfig { age: Duration::from_secs(1), ..NatsConfig::at(server.url()) };
    let broker = usable(config.clone()).await;
    for ms in [machine_clock().now_ms() + YEAR_MS, u64::MAX / 1_000_000, u64::MAX] {
        is_kept(&broker, event("a", ms.to_string()), ms).await;
    }
    drop(broker);
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.kill();
    server.run().await;
    let broker = usable(config).await;
    is_kept(&broker, event("a", "now"), 0).await;
    takes(&cursor(&broker, "orders").await, &["now"]).await;
    holds(&server, "EB_DELAY", 3).await;
}

#[tokio::test]
async fn an_id_that_waits_or_is_known_is_not_kept_again() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let broker = usable(NatsConfig::at(server.url())).await;
    let orders = cursor(&broker, "orders").await;
    let far_ms = machine_clock().now_ms() + 3_600_000;
    is_kept(&broker, known("far"), far_ms).await;
    assert!(repeats(&broker, "far", far_ms).await, "it waits");
    is_kept(&broker, Event { source: Source::from_id("mall".into()), ..known("far") }, far_ms)
        .await;
    is_kept(&broker, known("past"), 0).await;
    takes(&orders, &["past"]).await;
    assert!(repeats(&broker, "past", far_ms).await, "it was stored");
    let at_once = broker.append(Batch::of_one(known("at once")), Durability::Written);
    at_once.await.unwrap();
    assert!(repeats(&broker, "at once", far_ms).await, "it was stored");
    takes(&orders, &["at once"]).await;
    // An id that nobody gave is no id.
    for _ in 0..2 {
        is_kept(&broker, Event { id_given: false, ..known("made") }, 0).await;
    }
    takes(&orders, &["made", "made"]).await;
    // One that is stored while it waits is left out when it is due.
    let soon_ms = machine_clock().now_ms() + 2_000;
    is_kept(&broker, known("both"), soon_ms).await;
    broker.append(Batch::of_one(known("both")), Durability::Written).await.unwrap();
    takes(&orders, &["both"]).await;
    holds(&server, "EB_DELAY", 2).await;
    assert_eq!(count(&server, "EB_EVENTS").await, 5);
}

#[tokio::test]
async fn what_waits_in_a_cluster_is_known_there_and_survives_a_server() {
    let Some(cluster) = Cluster::start(0).await else { return };
    let clock = machine_clock();
    let broker = usable(cluster.config()).await;
    let leader = cluster.leader("EB_DELAY", Some("due")).await;
    drop(broker);
    // The connection stays, so that nothing else tells of the end of who was asked.
    let urls = vec![cluster.0[(leader + 1) % 3].url()];
    let broker = usable(NatsConfig { urls, ..cluster.config() }).await;
    let orders = cursor(&broker, "orders").await;
    let due_ms = clock.now_ms() + 5_000;
    let kept = delay(&broker, known("due"), due_ms).await.unwrap();
    let durability = Durability::Replicated;
    assert_eq!(kept, Receipts { receipts: vec![Receipt::Delayed], durability });
    assert!(repeats(&broker, "due", due_ms).await, "it waits");
    is_kept(&broker, known("past"), 0).await;
    takes(&orders, &["past"]).await;
    assert!(repeats(&broker, "past", due_ms).await, "it was stored");
    cluster.0[leader].kill();
    let soon = Duration::from_secs(25);
    tokio::time::timeout(soon, takes(&orders, &["due"])).await.expect("it comes soon");
    assert!(clock.now_ms() >= due_ms, "and not before");
}
