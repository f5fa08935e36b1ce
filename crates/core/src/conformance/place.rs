//! A cursor's place: where it begins, that it stays, how it changes and how it ends.

use std::time::Duration;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{CursorError, CursorId, CursorSpec, Start};
use crate::delivery::Verdict;
use crate::testing::interest;

/// A cursor may begin in the past: with what was stored since, and not with what is older.
pub async fn a_start_in_the_past_is_where_a_cursor_begins(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    publish(&broker, "a", &["old"]).await;
    harness.pass(Duration::from_secs(4)).await;
    let asked = spec(harness, "orders", "a");
    publish(&broker, "b", &["another's"]).await;
    publish(&broker, "a", &["since", "then"]).await;
    harness.pass(Duration::from_secs(3)).await;
    let orders = open_as(&broker, asked.clone()).await;
    publish(&broker, "a", &["new"]).await;
    takes(harness, &orders, &["since", "then", "new"]).await;
    let all = CursorSpec { id: CursorId("all".into()), start: Start::AtMs(0), ..asked.clone() };
    takes(harness, &open_as(&broker, all).await, &["old", "since", "then", "new"]).await;
    let orders = open_as(&broker, CursorSpec { start: Start::AtMs(0), ..asked }).await;
    assert!(is_silent(harness, &orders).await, "where a cursor began is not changed");
}

/// A cursor that nobody leases from keeps its place, over a stop and a kill too.
pub async fn a_cursor_that_nobody_uses_keeps_its_place(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["settled", "left"]).await;
    settle(&orders, lease(harness, &orders, 1).await, Verdict::Ack).await;
    drop(orders);
    publish(&broker, "a", &["unused"]).await;
    for (end, payload) in [(End::Stop, "stopped"), (End::Kill, "killed")] {
        broker = restart(harness, broker, end, Limits::default()).await;
        assert_eq!(broker.cursors().await, Ok(vec![CursorId("orders".into())]));
        publish(&broker, "a", &[payload]).await;
    }
    let orders = open(harness, &broker, "orders", "a").await;
    takes(harness, &orders, &["left", "unused", "stopped", "killed"]).await;
}

/// A cursor is updated in place: it keeps what it has settled and what waits.
pub async fn an_update_keeps_the_place(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let first = CursorSpec { waiting_max: 1, ..spec(harness, "orders", "a") };
    let orders = open_as(&broker, first.clone()).await;
    publish(&broker, "a", &["settled", "waits", "next", "last"]).await;
    settle(&orders, lease(harness, &orders, 1).await, Verdict::Ack).await;
    let due_ms = harness.now_ms() + 1_200;
    settle(&orders, lease(harness, &orders, 9).await, Verdict::Retry { due_ms }).await;
    let orders = open_as(&broker, CursorSpec { waiting_max: 2, ..first.clone() }).await;
    let next = lease(harness, &orders, 9).await;
    assert_eq!(payloads(&next), ["next"], "one waits, and two may");
    settle(&orders, next, Verdict::Ack).await;
    pass_until(harness, due_ms).await;
    let mut rest = lease_all(harness, &orders, 2).await;
    rest.sort_by_key(|lease| lease.position());
    assert_eq!(payloads(&rest), ["waits", "last"]);
    assert_eq!((rest[0].attempts(), rest[1].attempts()), (1, 0));
    settle(&orders, rest, Verdict::Ack).await;
    let orders = open_as(&broker, first).await;
    assert!(is_silent(harness, &orders).await);
}

/// With another interest a cursor gets what is published from then on, and keeps its place: nothing
/// that is settled comes again, by the new interest or the old one.
pub async fn another_interest_counts_from_then_on(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    let on = |event_type: &str| CursorSpec {
        interest: interest(event_type),
        ..spec(harness, "orders", event_type)
    };
    let orders = open_as(&broker, on("a")).await;
    publish(&broker, "a", &["a1"]).await;
    takes(harness, &orders, &["a1"]).await;
    // What is not settled of the old interest may come or not.
    publish(&broker, "a", &["a2?"]).await;
    let orders = open_as(&broker, on("b")).await;
    publish(&broker, "a", &["a3?"]).await;
    publish(&broker, "b", &["b1"]).await;
    takes_certain(harness, &orders, "b1", &["a2?"]).await;
    broker = restart(harness, broker, End::Kill, Limits::default()).await;
    let orders = open_as(&broker, on("b")).await;
    publish(&broker, "b", &["b2"]).await;
    takes_certain(harness, &orders, "b2", &["a2?"]).await;
    let orders = open_as(&broker, on("a")).await;
    publish(&broker, "a", &["a4"]).await;
    takes_certain(harness, &orders, "a4", &["a2?", "a3?"]).await;
}

/// A forgotten cursor is gone with its place, whoever still uses it; opened again it begins anew.
pub async fn a_forgotten_cursor_is_gone(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    let asked = spec(harness, "orders", "a");
    let id = || asked.id.clone();
    broker.forget(id()).await.expect("nothing is forgotten");
    let orders = open_as(&broker, asked.clone()).await;
    let others = open(harness, &broker, "others", "a").await;
    publish(&broker, "a", &["settled", "leased", "waits"]).await;
    settle(&orders, lease(harness, &orders, 1).await, Verdict::Ack).await;
    let mut leased = lease_all(harness, &orders, 2).await;
    let due_ms = harness.now_ms() + 500;
    settle(&orders, leased.split_off(1), Verdict::Retry { due_ms }).await;
    broker.forget(id()).await.expect("it is forgotten");
    settle(&orders, leased, Verdict::Retry { due_ms }).await;
    let after = within(harness, PATIENCE, orders.lease(at_most(1))).await;
    assert_eq!(after.expect("an answer").map(drop), Err(CursorError::Forgotten));
    assert_eq!(broker.cursors().await, Ok(vec![CursorId("others".into())]));
    takes(harness, &others, &["settled", "leased", "waits"]).await;
    pass_until(harness, due_ms).await;
    broker = restart(harness, broker, End::Kill, Limits::default()).await;
    assert_eq!(broker.cursors().await, Ok(vec![CursorId("others".into())]));
    let orders = open_as(&broker, asked.clone()).await;
    let leases = lease_all(harness, &orders, 3).await;
    assert_eq!(payloads(&leases), ["settled", "leased", "waits"]);
    assert!(leases.iter().all(|lease| lease.attempts() == 0), "a new cursor tried nothing");
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// Whoever waits for an event of a cursor that is forgotten is told.
pub async fn who_waits_hears_that_the_cursor_is_forgotten(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let forgetting = async {
        harness.sleep(SILENCE).await;
        broker.forget(CursorId("orders".into())).await.expect("it is forgotten");
    };
    let waiting = within(harness, PATIENCE, orders.lease(at_most(1)));
    let (told, ()) = futures::join!(waiting, forgetting);
    assert_eq!(told.expect("an answer").map(drop), Err(CursorError::Forgotten));
}
