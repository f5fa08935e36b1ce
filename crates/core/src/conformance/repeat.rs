//! Repeats: an event whose publisher gave it an id is stored once, for as long as ids are kept.

use std::time::Duration;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{Batch, Receipt};
use crate::event::{Event, Source};
use crate::testing::event;

/// An event with that id, given by its publisher.
fn known(id: &str, payload: &str) -> Event {
    Event { id: id.to_owned().into(), id_given: true, ..event("a", payload.to_owned()) }
}

/// Says of each event whether it was stored.
fn stored(receipts: &[Receipt]) -> Vec<bool> {
    let is_new = |receipt: &Receipt| match receipt {
        Receipt::Stored(_) => true,
        Receipt::Duplicate => false,
        Receipt::Accepted | Receipt::Delayed => panic!("this is no answer: {receipt:?}"),
    };
    receipts.iter().map(is_new).collect()
}

/// A repeat is not stored, in one batch or another; only an id that a publisher gave makes one, and
/// only the same source's.
pub async fn an_event_with_an_id_is_stored_once(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let first = append(&broker, vec![known("1", "x")]).await;
    assert_eq!(stored(&first.receipts), [true]);
    let unknown = event("a", "no id");
    let other_source = Event { source: Source::from_id("mall".into()), ..known("1", "other's") };
    let batch = vec![
        known("1", "again"),
        known("2", "y"),
        known("2", "again"),
        unknown.clone(),
        unknown,
        other_source.clone(),
        other_source,
        Event { event_type: "b".into(), ..known("2", "of another type") },
        known("1 ", "z"),
    ];
    let level = broker.capabilities().default_durability;
    let second = broker.append(Batch { events: batch, atomic: true }, level).await;
    let second = second.expect("it is stored");
    let expected = [false, true, false, true, true, true, false, false, true];
    assert_eq!(stored(&second.receipts), expected);
    assert!(second.durability >= level);
    let third = append(&broker, vec![known("2", "again")]).await;
    assert_eq!(stored(&third.receipts), [false]);
    takes(harness, &orders, &["x", "y", "no id", "no id", "z"]).await;
    let settled = append(&broker, vec![known("1", "again")]).await;
    assert_eq!(stored(&settled.receipts), [false], "it is settled, and known all the same");
    assert!(is_silent(harness, &orders).await);
}

/// Ids are remembered over a stop and a kill.
pub async fn ids_are_remembered_by_the_next_process(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    open(harness, &broker, "orders", "a").await;
    append(&broker, vec![known("1", "x"), known("2", "y")]).await;
    for end in [End::Stop, End::Kill] {
        broker = restart(harness, broker, end, Limits::default()).await;
        let id = format!("{end:?}");
        let batch = vec![known("1", "again"), known(&id, &id), known("2", "again")];
        let receipts = append(&broker, batch).await;
        assert_eq!(stored(&receipts.receipts), [false, true, false], "after a {end:?}");
    }
    let orders = open(harness, &broker, "orders", "a").await;
    takes(harness, &orders, &["x", "y", "Stop", "Kill"]).await;
}

/// When its time is over an id is forgotten, and new again.
pub async fn an_id_is_forgotten_in_time(harness: &dyn Harness) {
    let limits = Limits { deduplication_time: Duration::from_secs(2), ..Limits::default() };
    let broker = harness.start(limits).await;
    let orders = open(harness, &broker, "orders", "a").await;
    for payload in ["x", "y"] {
        let receipts = append(&broker, vec![known("1", payload), known("1", "again")]).await;
        assert_eq!(stored(&receipts.receipts), [true, false]);
        harness.pass(Duration::from_secs(5)).await;
    }
    takes(harness, &orders, &["x", "y"]).await;
}
