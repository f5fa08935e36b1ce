//! Delay: an event that waits is stored when it is due, once, and not before.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{AppendError, Broker, Cursor, CursorId, Receipt};
use crate::delivery::Verdict;
use crate::durability::Durability;
use crate::event::{Event, Source};
use crate::testing::event;

/// An event with that id, given by its publisher.
fn known(id: &str, payload: &str) -> Event {
    Event { id: id.to_owned().into(), id_given: true, ..event("a", payload.to_owned()) }
}

/// Delays an event until `due_ms`.
async fn delay(broker: &Arc<dyn Broker>, event: Event, due_ms: u64) -> Receipt {
    let level = broker.capabilities().default_durability;
    let receipts = broker.delay(event, due_ms, level).await.expect("it can be kept");
    assert!(receipts.durability >= level, "{level} was asked, {receipts:?} reached");
    assert_eq!(receipts.receipts.len(), 1, "{receipts:?}");
    receipts.receipts[0]
}

/// An event that is delayed is nowhere before it is due, and is then stored once, as it was
/// published. Those with an id of the bus's making are never taken for each other.
pub async fn a_delayed_event_comes_when_it_is_due(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let delayed = [
        Event { payload: all_bytes.into(), content_type: "a/b".into(), ..known("Ω/1", "") },
        event("a", "the same"),
        event("a", "the same"),
    ];
    let due_ms = harness.now_ms() + 2_000;
    for event in &delayed {
        assert_eq!(delay(&broker, event.clone(), due_ms).await, Receipt::Delayed);
    }
    assert!(is_silent(harness, &orders).await, "an event came before it was due");
    assert_eq!(orders.stats().lag_events, 0);
    pass_until(harness, due_ms).await;
    let mut leases = lease_all(harness, &orders, 3).await;
    let now_ms = harness.now_ms();
    leases.sort_by_key(|lease| lease.event().payload != delayed[0].payload);
    for (lease, event) in leases.iter().zip(&delayed) {
        assert_eq!(**lease.event(), *event);
        let committed_ms = lease.stored().committed_ms;
        assert!((due_ms..=now_ms).contains(&committed_ms), "{due_ms}, {committed_ms}, {now_ms}");
    }
    settle(&orders, leases, Verdict::Ack).await;
    harness.pass(Duration::from_secs(2)).await;
    assert!(is_silent(harness, &orders).await, "an event came twice");
}

/// Whoever is due first comes first, whenever it was published.
pub async fn delayed_events_come_in_the_order_of_their_times(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let now_ms = harness.now_ms();
    for (payload, after_ms) in [("third", 4_000), ("first", 1_000), ("second", 2_500)] {
        delay(&broker, event("a", payload), now_ms + after_ms).await;
    }
    publish(&broker, "a", &["at once"]).await;
    takes_first(harness, &orders, "at once").await;
    for (payload, after_ms) in [("first", 1_000), ("second", 2_500), ("third", 4_000)] {
        pass_until(harness, now_ms + after_ms).await;
        takes_first(harness, &orders, payload).await;
    }
    assert!(is_silent(harness, &orders).await);
}

/// Takes one event, which is this one.
async fn takes_first(harness: &dyn Harness, cursor: &Arc<dyn Cursor>, expected: &str) {
    let leases = lease(harness, cursor, 1).await;
    assert_eq!(payloads(&leases), [expected]);
    settle(cursor, leases, Verdict::Ack).await;
}

/// What was due before it was published is stored at once.
pub async fn a_due_time_in_the_past_is_now(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let now_ms = harness.now_ms();
    for (payload, due_ms) in [("now", now_ms), ("past", now_ms - 60_000), ("zero", 0)] {
        let receipt = delay(&broker, event("a", payload), due_ms).await;
        assert_eq!(receipt, Receipt::Delayed, "{payload}");
        takes_first(harness, &orders, payload).await;
    }
    assert!(is_silent(harness, &orders).await);
}

/// What waits outlives its process, stopped or killed, and so does what falls due while no process
/// is there.
pub async fn what_is_delayed_outlives_its_process(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    open(harness, &broker, "orders", "a").await;
    for end in [End::Stop, End::Kill] {
        let due_ms = harness.now_ms() + 3_000;
        delay(&broker, event("a", "waits"), due_ms).await;
        delay(&broker, known(&format!("{end:?}"), "waits, too"), due_ms).await;
        broker = restart(harness, broker, end, Limits::default()).await;
        let orders = open(harness, &broker, "orders", "a").await;
        if harness.now_ms() < due_ms - 1_000 {
            assert!(is_silent(harness, &orders).await, "after a {end:?}: it came before it is due");
        }
        pass_until(harness, due_ms).await;
        takes_both(harness, &orders, ["waits", "waits, too"]).await;

        delay(&broker, event("a", "fell due"), harness.now_ms() + 1_000).await;
        match end {
            End::Stop => broker.close().await.expect("it stops cleanly"),
            End::Kill => harness.kill(broker).await,
        }
        harness.pass(Duration::from_secs(2)).await;
        broker = harness.start(Limits::default()).await;
        let orders = open(harness, &broker, "orders", "a").await;
        takes(harness, &orders, &["fell due"]).await;
    }
}

/// Takes two events in any order, and nothing comes after them.
async fn takes_both(harness: &dyn Harness, cursor: &Arc<dyn Cursor>, expected: [&str; 2]) {
    let leases = lease_all(harness, cursor, 2).await;
    let mut came = payloads(&leases);
    came.sort();
    assert_eq!(came, expected);
    settle(cursor, leases, Verdict::Ack).await;
    assert!(is_silent(harness, cursor).await, "something came after {expected:?}");
}

/// A repeat of what waits, or was delayed and is stored, is not kept again: not by the process that
/// kept it, and not by the next one.
pub async fn a_delayed_event_with_an_id_is_kept_once(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let due_ms = harness.now_ms() + 3_000;
    assert_eq!(delay(&broker, known("1", "x"), due_ms).await, Receipt::Delayed);
    assert_eq!(delay(&broker, known("1", "again"), due_ms + 1).await, Receipt::Duplicate);
    let other_source = Event { source: Source::from_id("mall".into()), ..known("1", "other's") };
    assert_eq!(delay(&broker, other_source, due_ms).await, Receipt::Delayed);
    drop(orders);
    broker = restart(harness, broker, End::Kill, Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    assert_eq!(delay(&broker, known("1", "later"), due_ms).await, Receipt::Duplicate);
    pass_until(harness, due_ms).await;
    takes(harness, &orders, &["x"]).await;
    let appended = append(&broker, vec![known("1", "late")]).await;
    assert_eq!(appended.receipts, [Receipt::Duplicate], "it is stored, and known");
    // Kept or not, by whether the broker can tell: it is not stored.
    delay(&broker, known("1", "too late"), 0).await;
    harness.pass(Duration::from_secs(2)).await;
    assert!(is_silent(harness, &orders).await);
}

/// Of an event that waits and one of its id that is published meanwhile one is stored: the one that
/// waits, where the broker can tell that it is there, or else the other. So it is when another
/// process takes the second one.
pub async fn one_event_of_an_id_that_waits_is_stored(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    open(harness, &broker, "orders", "a").await;
    for (id, end) in [("1", None), ("2", Some(End::Kill))] {
        let due_ms = harness.now_ms() + 2_000;
        assert_eq!(delay(&broker, known(id, "delayed"), due_ms).await, Receipt::Delayed);
        if let Some(end) = end {
            broker = restart(harness, broker, end, Limits::default()).await;
        }
        let receipts = append(&broker, vec![known(id, "at once")]).await.receipts;
        let first = if receipts == [Receipt::Duplicate] { "delayed" } else { "at once" };
        delay(&broker, known(&format!("{id}, other"), "another"), due_ms + 1).await;
        pass_until(harness, due_ms + 1).await;
        let orders = open(harness, &broker, "orders", "a").await;
        takes(harness, &orders, &[first, "another"]).await;
    }
}

/// An event counts as published when it is stored: who begins before it is due gets it, who begins
/// after that does not, and who is forgotten holds nothing up.
pub async fn a_delayed_event_is_for_those_who_are_there_when_it_is_due(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    open(harness, &broker, "gone", "a").await;
    let due_ms = harness.now_ms() + 2_000;
    delay(&broker, event("a", "x"), due_ms).await;
    harness.pass(Duration::from_secs(1)).await;
    let before = open(harness, &broker, "before", "a").await;
    broker.forget(CursorId("gone".into())).await.expect("it is forgotten");
    pass_until(harness, due_ms).await;
    takes(harness, &before, &["x"]).await;
    // A start is right to two seconds where somebody else's clock counts.
    harness.pass(Duration::from_secs(3)).await;
    let after = open(harness, &broker, "after", "a").await;
    assert!(is_silent(harness, &after).await);
}

/// Each durability is reached or refused by its name, and a closed broker keeps nothing.
pub async fn each_durability_of_a_delay_is_reached_or_refused(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let offered = broker.capabilities().durabilities;
    let mut expected = Vec::new();
    for level in Durability::ALL {
        let delayed = broker.delay(event("a", level.as_str()), 0, level).await;
        if !offered.contains(&level) {
            assert_eq!(delayed, Err(AppendError::Durability(level)));
            continue;
        }
        let receipts = delayed.expect("a level that is offered");
        assert!(receipts.durability >= level, "{level} was asked, {receipts:?} reached");
        assert_eq!(receipts.receipts, [Receipt::Delayed]);
        takes_first(harness, &orders, level.as_str()).await;
        expected.push(level);
    }
    assert_eq!(expected, offered);
    broker.close().await.expect("it stops cleanly");
    let refused = broker.delay(event("a", "x"), 0, offered[0]).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
}
