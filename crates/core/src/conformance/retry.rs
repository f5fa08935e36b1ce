//! What waits: retries at their time, beside events that are well, and no more than may.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::CursorSpec;
use crate::delivery::Verdict;

/// A retry comes at its time and not before, and tells the attempts that were made: those alone.
pub async fn a_retry_comes_at_its_time_and_counts_attempts(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["x"]).await;
    let mut leases = lease(harness, &orders, 1).await;
    for attempts in 0..3 {
        assert_eq!(leases[0].attempts(), attempts);
        let due_ms = harness.now_ms() + 700;
        settle(&orders, leases, Verdict::Retry { due_ms }).await;
        leases = at_its_time(harness, &orders, due_ms).await;
    }
    assert_eq!(leases[0].attempts(), 3);
    settle(&orders, leases, Verdict::Release).await;
    let mut leases = lease(harness, &orders, 1).await;
    assert_eq!(leases[0].attempts(), 3, "what is given back was not tried");
    drop(leases.pop());
    let mut leases = lease(harness, &orders, 1).await;
    let due_ms = harness.now_ms() + 300;
    let mut untried = settled(leases.remove(0), Verdict::Retry { due_ms });
    untried.attempt = None;
    orders.settle(vec![untried]).await.expect("the turn is settled");
    let leases = at_its_time(harness, &orders, due_ms).await;
    assert_eq!(leases[0].attempts(), 3, "an attempt that was not made does not count");
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// A retry that is due already comes at once, and one due earlier comes before one due later.
pub async fn retries_come_in_the_order_of_their_times(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["late", "early", "past"]).await;
    let now_ms = harness.now_ms();
    let leases = lease_all(harness, &orders, 3).await;
    let dues = [now_ms + 1_500, now_ms + 500, now_ms - 1_000];
    let retries = leases.into_iter().zip(dues);
    let turn = retries.map(|(lease, due_ms)| settled(lease, Verdict::Retry { due_ms }));
    orders.settle(turn.collect()).await.expect("the turn is settled");
    for (name, due_ms) in ["past", "early", "late"].into_iter().zip(dues.into_iter().rev()) {
        pass_until(harness, due_ms).await;
        let leases = lease(harness, &orders, 10).await;
        assert_eq!(payloads(&leases), [name]);
        assert!(harness.now_ms() >= due_ms);
        settle(&orders, leases, Verdict::Ack).await;
    }
    assert!(is_silent(harness, &orders).await);
}

/// Ten thousand events that wait keep nobody from being delivered, and all of them come.
pub async fn ten_thousand_that_wait_hold_up_nobody(harness: &dyn Harness) {
    const WAITING: usize = 10_000;
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let others = open(harness, &broker, "others", "b").await;
    publish_many(&broker, "a", WAITING, 0).await;
    let due_ms = harness.now_ms() + 15_000;
    let mut waiting = 0;
    while waiting < WAITING {
        let leases = lease(harness, &orders, 400).await;
        waiting += leases.len();
        settle(&orders, leases, Verdict::Retry { due_ms }).await;
    }
    publish(&broker, "a", &["healthy"]).await;
    publish(&broker, "b", &["other"]).await;
    takes(harness, &others, &["other"]).await;
    let leases = lease(harness, &orders, 400).await;
    assert_eq!(payloads(&leases), ["healthy"], "at {}, due at {due_ms}", harness.now_ms());
    settle(&orders, leases, Verdict::Ack).await;
    until(harness, "all wait", || orders.stats().waiting_events == WAITING as u64).await;
    pass_until(harness, due_ms).await;
    let mut come = BTreeSet::new();
    while come.len() < WAITING {
        let leases = lease(harness, &orders, 400).await;
        for lease in &leases {
            assert_eq!(lease.attempts(), 1);
            assert!(come.insert(lease.position()), "{lease:?} came twice");
        }
        settle(&orders, leases, Verdict::Ack).await;
    }
    assert!(is_silent(harness, &orders).await);
}

/// Whoever waits already is woken when a retry falls due, when an event is given back, and when
/// room is made for a fresh one.
pub async fn those_who_wait_are_woken_by_what_comes_back(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let asked = CursorSpec { waiting_max: 2, ..spec(harness, "orders", "a") };
    let orders = open_as(&broker, asked).await;
    publish(&broker, "a", &["retry", "drop", "fresh"]).await;
    let mut held = lease_all(harness, &orders, 2).await;
    let due_ms = harness.now_ms() + 900;
    settle(&orders, vec![held.remove(0)], Verdict::Retry { due_ms }).await;
    let later = async {
        harness.sleep(SILENCE).await;
        drop(held);
    };
    let (dropped, ()) = futures::join!(lease(harness, &orders, 1), later);
    assert_eq!((payloads(&dropped), dropped[0].attempts()), (vec!["drop".to_owned()], 0));
    let later = async {
        harness.sleep(SILENCE / 3).await;
        pass_until(harness, due_ms).await;
    };
    let (retry, ()) = futures::join!(lease(harness, &orders, 1), later);
    assert_eq!((payloads(&retry), retry[0].attempts()), (vec!["retry".to_owned()], 1));
    assert!(harness.now_ms() >= due_ms);
    let later = async {
        harness.sleep(SILENCE).await;
        settle(&orders, dropped, Verdict::Ack).await;
    };
    let (fresh, ()) = futures::join!(lease(harness, &orders, 1), later);
    assert_eq!(payloads(&fresh), ["fresh"]);
    settle(&orders, retry, Verdict::Ack).await;
    settle(&orders, fresh, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// Nothing fresh is leased while as many events are held as may wait; one that leaves makes room.
pub async fn no_more_is_held_than_may_wait(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let asked = CursorSpec { waiting_max: 3, ..spec(harness, "orders", "a") };
    let orders = open_as(&broker, asked).await;
    publish(&broker, "a", &["0", "1", "2", "3", "4"]).await;
    let leases = lease_all(harness, &orders, 3).await;
    assert!(is_silent(harness, &orders).await, "three are leased and could have to wait");
    let due_ms = harness.now_ms() + 1_500;
    settle(&orders, leases, Verdict::Retry { due_ms }).await;
    if let Some(early) = lease_within(harness, SILENCE, &orders, 5).await {
        assert!(harness.now_ms() >= due_ms, "three wait, and yet came {early:?}");
    }
    pass_until(harness, due_ms).await;
    let mut leases = lease_all(harness, &orders, 3).await;
    leases.sort_by_key(|lease| lease.position());
    assert_eq!(payloads(&leases), ["0", "1", "2"]);
    settle(&orders, vec![leases.remove(1)], Verdict::Ack).await;
    let next = lease(harness, &orders, 5).await;
    assert_eq!(payloads(&next), ["3"]);
    settle(&orders, next, Verdict::Ack).await;
    let next = lease(harness, &orders, 5).await;
    assert_eq!(payloads(&next), ["4"]);
    settle(&orders, next, Verdict::Ack).await;
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// An event that waits for a retry is not settled: the oldest of them is told as such, whichever
/// was tried last, and holds its part of the log back. Once nothing waits, there is none.
pub async fn what_waits_is_the_oldest_that_is_not_settled(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["oldest"]).await;
    harness.pass(Duration::from_millis(5)).await;
    publish(&broker, "a", &["newer", "newest"]).await;
    let mut leases = lease_all(harness, &orders, 3).await;
    leases.sort_by_key(|lease| Reverse(lease.position()));
    let oldest_ms = leases[2].stored().committed_ms;
    assert!(oldest_ms < leases[1].stored().committed_ms);
    let due_ms = harness.now_ms() + 3_000;
    for lease in leases {
        settle(&orders, vec![lease], Verdict::Retry { due_ms }).await;
    }
    let told = || orders.stats();
    let is_told = || told().waiting_events == 3 && told().oldest_unsettled_ms == Some(oldest_ms);
    until(harness, "the oldest is told", is_told).await;
    assert!(told().backlog_bytes > 0, "{:?}", told());
    pass_until(harness, due_ms).await;
    let leases = lease_all(harness, &orders, 3).await;
    settle(&orders, leases, Verdict::Ack).await;
    until(harness, "there is none", || told().oldest_unsettled_ms.is_none()).await;
    assert_eq!(told().lag_events, 0);
}

/// What one that waits for `due_ms` is leased as.
async fn at_its_time(
    harness: &dyn Harness,
    cursor: &std::sync::Arc<dyn crate::broker::Cursor>,
    due_ms: u64,
) -> Vec<crate::broker::Lease> {
    let mut leases = lease_within(harness, Duration::from_millis(200), cursor, 5).await;
    if leases.is_none() {
        pass_until(harness, due_ms).await;
        leases = Some(lease(harness, cursor, 5).await);
    }
    assert!(harness.now_ms() >= due_ms, "{} ms too early", due_ms - harness.now_ms());
    leases.unwrap_or_default()
}
