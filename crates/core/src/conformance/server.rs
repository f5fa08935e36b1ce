//! Events on a server: several processes share it, and it may be out of reach.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{AppendError, Batch, Broker, BrokerHealth, CursorError};
use crate::delivery::Verdict;
use crate::testing::event;

/// How long a publisher may wait to hear that the server is gone. Two seconds are promised; the
/// rest is for a slow machine.
const REFUSAL: Duration = Duration::from_secs(10);

/// Each event goes to one of the processes, as many to each as it asks for, and what one of them
/// gives back comes to any.
pub async fn each_event_goes_to_one_process(harness: &dyn Harness) {
    assert!(harness.traits().shared);
    let (one, other) =
        (harness.start(Limits::default()).await, harness.start(Limits::default()).await);
    let orders = open(harness, &one, "orders", "a").await;
    let orders_too = open(harness, &other, "orders", "a").await;
    publish_many(&other, "a", 40, 0).await;
    let (mut held, mut held_too, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    while held.len() + held_too.len() < 40 {
        for (cursor, held) in [(&orders, &mut held), (&orders_too, &mut held_too)] {
            for lease in lease_within(harness, SILENCE, cursor, 3).await.into_iter().flatten() {
                assert!(seen.insert(lease.position()), "{lease:?} is leased already");
                held.push(lease);
            }
        }
    }
    assert!(!held.is_empty() && !held_too.is_empty(), "both get events");
    harness.pass(harness.traits().lease_time * 3 / 2).await;
    assert!(is_silent(harness, &orders).await && is_silent(harness, &orders_too).await);
    let given_back = held.pop().map(|lease| lease.position());
    let again = lease(harness, &orders_too, 5).await;
    assert_eq!(again.first().map(|lease| lease.position()), given_back);
    settle(&orders_too, again, Verdict::Ack).await;
    settle(&orders, held, Verdict::Ack).await;
    settle(&orders_too, held_too, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await && is_silent(harness, &orders_too).await);
}

/// What a process leased that was killed comes to another; what it settled does not.
pub async fn another_process_takes_over(harness: &dyn Harness) {
    assert!(harness.traits().shared);
    let (one, other) =
        (harness.start(Limits::default()).await, harness.start(Limits::default()).await);
    let orders = open(harness, &one, "orders", "a").await;
    let orders_too = open(harness, &other, "orders", "a").await;
    publish(&one, "a", &["settled", "waits", "leased", "leased too"]).await;
    let mut leases = lease_all(harness, &orders, 4).await;
    let leased = leases.split_off(2);
    let due_ms = harness.now_ms() + 500;
    settle(&orders, leases.split_off(1), Verdict::Retry { due_ms }).await;
    settle(&orders, leases, Verdict::Ack).await;
    harness.kill(one).await;
    pass_until(harness, due_ms).await;
    let mut come = lease_all(harness, &orders_too, 3).await;
    drop(leased);
    come.sort_by_key(|lease| lease.position());
    assert_eq!(payloads(&come), ["waits", "leased", "leased too"]);
    settle(&orders_too, come, Verdict::Ack).await;
    assert!(is_silent(harness, &orders_too).await);
}

/// While the server is away publishers hear so at once and nothing hangs; when it is back
/// everything goes on in the same process, and nothing that was acknowledged is lost.
pub async fn a_server_goes_and_comes_back(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["settled", "before"]).await;
    settle(&orders, lease(harness, &orders, 1).await, Verdict::Ack).await;
    for round in 0..2 {
        assert!(harness.reach(false).await);
        for _ in 0..3 {
            refuses(harness, &broker, "a").await;
        }
        match within(harness, SILENCE, orders.lease(at_most(1))).await {
            None | Some(Err(CursorError::Unavailable(_))) => {}
            // It may have been on its way.
            Some(Ok(leases)) => assert_eq!(payloads(&leases), ["before"]),
            Some(Err(error)) => panic!("round {round}: {error}"),
        }
        harness.reach(true).await;
        let level = broker.capabilities().default_durability;
        let publishing = async {
            while broker.append(Batch::of_one(event("a", "after")), level).await.is_err() {
                harness.sleep(SILENCE).await;
            }
        };
        within(harness, PATIENCE, publishing).await.expect("it can be published again");
        let mut came = Vec::new();
        while !(came.contains(&"before".to_owned()) && came.contains(&"after".to_owned())) {
            let leases = lease_within(harness, PATIENCE, &orders, 10).await;
            let leases = leases.expect("delivery goes on");
            came.extend(payloads(&leases));
            settle(&orders, leases, Verdict::Ack).await;
        }
        // What was refused may have been stored all the same.
        assert!(came.iter().all(|payload| payload != "settled"), "{came:?}");
        publish(&broker, "a", &["before"]).await;
    }
    takes_certain(harness, &orders, "before", &["refused", "after"]).await;
}

/// What could not be settled comes again.
pub async fn what_could_not_be_settled_comes_again(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["x", "y"]).await;
    let leases = lease_all(harness, &orders, 2).await;
    assert!(harness.reach(false).await);
    // A verdict that is on its way when the server goes may count all the same.
    let is_told = || matches!(broker.stats().health, BrokerHealth::Unusable(_));
    until(harness, "it is told", is_told).await;
    let turn = leases.into_iter().map(|lease| settled(lease, Verdict::Ack)).collect();
    let failed = within(harness, PATIENCE, orders.settle(turn)).await;
    let failed = failed.expect("settling does not hang");
    assert!(matches!(failed, Err(CursorError::Unavailable(_))), "{failed:?}");
    harness.reach(true).await;
    harness.pass(harness.traits().lease_time).await;
    let mut leases = Vec::new();
    while leases.len() < 2 {
        let more = lease_within(harness, PATIENCE, &orders, 2 - leases.len()).await;
        leases.extend(more.expect("they come again"));
    }
    leases.sort_by_key(|lease| lease.position());
    assert_eq!(payloads(&leases), ["x", "y"]);
    assert!(leases.iter().all(|lease| lease.attempts() == 0), "no attempt is known of");
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// An append is refused, and soon.
async fn refuses(harness: &dyn Harness, broker: &Arc<dyn Broker>, event_type: &str) {
    let level = broker.capabilities().default_durability;
    let appending = broker.append(Batch::of_one(event(event_type, "refused")), level);
    let refused = within(harness, REFUSAL, appending).await.expect("an answer in time");
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
}
