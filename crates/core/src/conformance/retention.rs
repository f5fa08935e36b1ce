//! What may go: what all have settled, what is too old, and the oldest of whom lags too far.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{AppendError, Batch, Broker, BrokerHealth, Cursor, Position};
use crate::delivery::Verdict;
use crate::testing::event;

/// Bytes of a payload.
const BYTES: usize = 16 * 1024;

/// Settled events make room for new ones: more goes through a storage than it holds.
pub async fn settled_events_make_room(harness: &dyn Harness) {
    makes_room(harness, 1 << 20).await;
}

/// History is kept where there is room for it: new events come first.
pub async fn history_gives_way_to_new_events(harness: &dyn Harness) {
    makes_room(harness, u64::MAX).await;
}

async fn makes_room(harness: &dyn Harness, history_bytes: u64) {
    let limits = Limits { history_bytes, max_bytes: 4 << 20, ..Limits::default() };
    let broker = harness.start(limits).await;
    let orders = open(harness, &broker, "orders", "a").await;
    for _ in 0..20 {
        for n in 0..40 {
            append_when_there_is_room(harness, &broker, &format!("{n:BYTES$}")).await;
        }
        let leases = lease_all(harness, &orders, 40).await;
        settle(&orders, leases, Verdict::Ack).await;
    }
    until(harness, "the oldest are gone", || broker.stats().first > Position(1)).await;
    assert_eq!(orders.stats().dropped_events, 0);
    let used_bytes = broker.stats().used_bytes;
    assert!(used_bytes <= limits.max_bytes, "{used_bytes}");
}

/// A cursor that holds back too much loses its own oldest, counted; no other loses anything.
pub async fn who_lags_too_far_loses_its_own_oldest(harness: &dyn Harness) {
    const EVENTS: usize = 400;
    let limits = Limits {
        history_bytes: 512 << 10,
        max_bytes: 16 << 20,
        backlog_max_bytes: 2 << 20,
        ..Limits::default()
    };
    let broker = harness.start(limits).await;
    let dead = open(harness, &broker, "dead", "a").await;
    let live = open(harness, &broker, "live", "a").await;
    let quiet = open(harness, &broker, "quiet", "b").await;
    for n in 0..EVENTS {
        append_when_there_is_room(harness, &broker, &format!("{n:BYTES$}")).await;
        takes_next(harness, &live, n).await;
    }
    publish(&broker, "b", &["x"]).await;
    until(harness, "the dead one lost events", || dead.stats().dropped_events > 0).await;
    let came = takes_rest(harness, &dead, EVENTS).await;
    let kept_bytes = came as u64 * BYTES as u64;
    let allowed = limits.backlog_max_bytes / 4..=limits.backlog_max_bytes * 2;
    assert!(allowed.contains(&kept_bytes), "it kept {kept_bytes} bytes: {limits:?}");
    assert!(is_silent(harness, &dead).await);
    takes(harness, &quiet, &["x"]).await;
    assert_eq!((live.stats().dropped_events, quiet.stats().dropped_events), (0, 0));
}

/// An event ends when it is too old, whether it waits for its first attempt or for another.
pub async fn age_ends_events(harness: &dyn Harness) {
    let limits = Limits { age: Duration::from_secs(3), ..Limits::default() };
    let broker = harness.start(limits).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["waits", "fresh"]).await;
    let due_ms = harness.now_ms() + 1_500;
    settle(&orders, lease(harness, &orders, 1).await, Verdict::Retry { due_ms }).await;
    harness.pass(Duration::from_secs(8)).await;
    until(harness, "both are counted", || orders.stats().dropped_events == 2).await;
    publish(&broker, "a", &["new"]).await;
    takes(harness, &orders, &["new"]).await;
    assert_eq!(orders.stats().dropped_events, 2);
}

/// A full storage refuses publishers and nobody else; settling makes room.
pub async fn a_full_storage_refuses_publishers_alone(harness: &dyn Harness) {
    let limits = Limits {
        history_bytes: 512 << 10,
        max_bytes: 4 << 20,
        backlog_max_bytes: u64::MAX,
        ..Limits::default()
    };
    let broker = harness.start(limits).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let mut stored = 0;
    let level = broker.capabilities().default_durability;
    loop {
        let batch = Batch::of_one(event("a", format!("{stored:BYTES$}")));
        match broker.append(batch, level).await {
            Ok(_) => stored += 1,
            Err(AppendError::Full { max_bytes, .. }) => {
                assert_eq!(max_bytes, limits.max_bytes);
                break;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(stored * BYTES <= limits.max_bytes as usize, "{stored} events of {BYTES} bytes");
    }
    assert!(stored > 20, "it was full after {stored} events of {BYTES} bytes");
    until(harness, "it says so", || broker.stats().health == BrokerHealth::Full).await;
    let mut leases = lease_all(harness, &orders, 2).await;
    let due_ms = harness.now_ms() + 300;
    settle(&orders, leases.split_off(1), Verdict::Retry { due_ms }).await;
    settle(&orders, leases, Verdict::Ack).await;
    pass_until(harness, due_ms).await;
    for _ in 1..stored {
        settle(&orders, lease(harness, &orders, 1).await, Verdict::Ack).await;
    }
    append_when_there_is_room(harness, &broker, "again").await;
    takes(harness, &orders, &["again"]).await;
    until(harness, "it says so", || broker.stats().health == BrokerHealth::Usable).await;
}

/// Publishes an event of type `a`; waits while the storage is full.
async fn append_when_there_is_room(harness: &dyn Harness, broker: &Arc<dyn Broker>, text: &str) {
    let level = broker.capabilities().default_durability;
    let appending = async {
        loop {
            match broker.append(Batch::of_one(event("a", text.to_owned())), level).await {
                Ok(_) => break,
                Err(AppendError::Full { .. }) => harness.sleep(SILENCE / 3).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert!(within(harness, PATIENCE, appending).await.is_some(), "there is never room");
}

/// Leases and acknowledges what there is of `events`, in their order and to the last, until all
/// have come or are counted as lost; says how many came.
async fn takes_rest(harness: &dyn Harness, cursor: &Arc<dyn Cursor>, events: usize) -> usize {
    let (mut came, mut next) = (0, 0);
    let taking = async {
        while came + (cursor.stats().dropped_events as usize) < events {
            let leases = lease_within(harness, SILENCE, cursor, 10).await.unwrap_or_default();
            for lease in &leases {
                let number: usize = payload(lease).parse().expect("a number");
                assert!(next <= number, "{number} came after {next}");
                next = number + 1;
                came += 1;
            }
            settle(cursor, leases, Verdict::Ack).await;
        }
    };
    let all_told = within(harness, PATIENCE, taking).await;
    assert!(all_told.is_some(), "{came} of {events} came: {:?}", cursor.stats());
    assert_eq!((came + cursor.stats().dropped_events as usize, next), (events, events));
    came
}

/// Leases and acknowledges the event of that number.
async fn takes_next(harness: &dyn Harness, cursor: &Arc<dyn Cursor>, number: usize) {
    let leases = lease(harness, cursor, 10).await;
    assert_eq!(payloads(&leases), [number.to_string()]);
    settle(cursor, leases, Verdict::Ack).await;
}
