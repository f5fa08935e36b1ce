//! The road of an event: stored, leased, settled.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http::{HeaderMap, HeaderValue};

use super::world::*;
use super::{Harness, Limits};
use crate::attributes::Value;
use crate::broker::{AppendError, Batch, Receipt};
use crate::delivery::Verdict;
use crate::durability::Durability;
use crate::event::{Event, SpecVersion, Text};
use crate::testing::event;
use crate::wire::trace::Trace;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// An event comes to the cursor that asks for it, as it was published, once, and to no other.
pub async fn an_event_is_stored_leased_and_settled_once(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "order.created").await;
    let others = open(harness, &broker, "others", "order.deleted").await;
    let receipts = append(&broker, vec![event("order.created", "one")]).await;
    let leases = lease(harness, &orders, 10).await;
    assert_eq!(leases.len(), 1);
    assert_eq!(receipts.receipts, [Receipt::Stored(leases[0].position())]);
    assert_eq!(**leases[0].event(), event("order.created", "one"));
    assert_eq!(leases[0].attempts(), 0);
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
    assert!(is_silent(harness, &others).await);
}

/// An event that has what the contract's have not, and lacks what those have.
fn cloud_event() -> Event {
    let mut event = event("a", "");
    (event.time, event.content_type) = (Text::new(), Text::new());
    (event.spec_version, event.has_payload) = (SpecVersion::V03, false);
    event.attributes.set("subject".into(), "Ω = 1".into());
    event.attributes.set("empty".into(), "".into());
    event.attributes.set("number".into(), Value::Integer(i32::MIN));
    event.attributes.set("truth".into(), Value::Boolean(true));
    event
}

/// Whatever a broker says it can take, it takes and gives: alone, and beside others.
pub async fn an_event_that_fits_is_stored(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let of = |bytes: usize| event("a", vec![b'x'; bytes]);
    let (mut small, mut large) = (0_usize, 64 << 20);
    while large - small > 1 {
        let bytes = small.midpoint(large);
        *(if broker.fits(&of(bytes)).is_ok() { &mut small } else { &mut large }) = bytes;
    }
    assert!(small >= 512 * 1024, "{small} bytes are too few");
    append(&broker, vec![of(small)]).await;
    append(&broker, vec![of(1), of(small), of(1)]).await;
    let leases = lease_all(harness, &orders, 4).await;
    let mut bytes: Vec<_> = leases.iter().map(|lease| lease.event().payload.len()).collect();
    bytes.sort_unstable();
    assert_eq!(bytes, [1, 1, small, small]);
}

/// Every member of an event comes as it was, whatever bytes it has: empty, odd, large; to the
/// process that took it in and to the next one.
pub async fn an_event_comes_as_it_was_published(harness: &dyn Harness) {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let plain = event("a", "x");
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_static(TRACEPARENT));
    let trace = Trace::from_headers(&headers);
    assert_eq!(trace.iter().count(), 1);
    let events = vec![
        Event { payload: Bytes::new(), ..plain.clone() },
        Event { payload: all_bytes.into(), content_type: "a/b; c=\"d\"".into(), ..plain.clone() },
        Event { payload: vec![b'x'; 512 * 1024].into(), ..plain.clone() },
        Event { id: "Ω/1 2:3".into(), id_given: true, ..plain.clone() },
        Event { time: "2026-01-01T01:02:03.456789+01:00".into(), ..plain.clone() },
        cloud_event(),
        Event { trace, ..plain },
    ];
    let mut broker = harness.start(Limits::default()).await;
    let mut orders = open(harness, &broker, "orders", "a").await;
    append(&broker, events.clone()).await;
    for process in ["the same", "the next"] {
        let mut leases = lease_all(harness, &orders, events.len()).await;
        leases.sort_by_key(|lease| lease.position());
        for (lease, event) in leases.iter().zip(&events) {
            assert_eq!(**lease.event(), *event, "in {process} process");
        }
        drop(leases);
        broker = restart(harness, broker, End::Stop, Limits::default()).await;
        orders = open(harness, &broker, "orders", "a").await;
    }
}

/// A batch has one receipt an event, positions rise within it and from append to append, and so
/// they are leased.
pub async fn receipts_rise_and_events_come_in_their_order(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let mut stored = Vec::new();
    let level = broker.capabilities().default_durability;
    for (count, atomic) in [(5, false), (1, false), (7, true), (30, false), (1, true)] {
        let from = stored.len();
        let events = (from..from + count).map(|n| event("a", n.to_string())).collect();
        let receipts = broker.append(Batch { events, atomic }, level).await.expect("stored");
        assert!(receipts.durability >= level, "{receipts:?}");
        assert_eq!(receipts.receipts.len(), count);
        stored.extend(positions(&receipts));
    }
    assert!(stored.is_sorted_by(|one, next| one < next), "{stored:?}");
    let (mut next, mut first_ms) = (0, 0);
    while next < stored.len() {
        let leases = lease(harness, &orders, 4).await;
        for lease in &leases {
            assert_eq!((lease.position(), payload(lease)), (stored[next], next.to_string()));
            assert!(lease.stored().committed_ms >= first_ms, "the time of commits never falls");
            first_ms = lease.stored().committed_ms;
            next += 1;
        }
        settle(&orders, leases, if next % 2 == 0 { Verdict::Ack } else { Verdict::Skip }).await;
    }
    assert!(is_silent(harness, &orders).await);
}

/// Each level that a broker offers can be asked for by name and is reached; any other is refused.
pub async fn each_durability_is_reached_or_refused(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let offered = broker.capabilities();
    assert!(offered.durabilities.is_sorted(), "{offered:?}");
    assert!(offered.durabilities.contains(&offered.default_durability), "{offered:?}");
    let mut expected = Vec::new();
    for level in Durability::ALL {
        let appended = broker.append(Batch::of_one(event("a", level.as_str())), level).await;
        if !offered.durabilities.contains(&level) {
            assert_eq!(appended, Err(AppendError::Durability(level)));
            continue;
        }
        let receipts = appended.expect("a level that is offered");
        assert!(receipts.durability >= level, "{level} was asked, {receipts:?} reached");
        match receipts.receipts[..] {
            [Receipt::Stored(_)] => {}
            [Receipt::Accepted] => assert_eq!(receipts.durability, Durability::Accepted),
            ref other => panic!("{other:?}"),
        }
        expected.push(level.as_str());
    }
    takes(harness, &orders, &expected).await;
}

/// A lease that is dropped gives its event back, and no attempt is counted.
pub async fn a_dropped_lease_comes_back(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["x"]).await;
    for _ in 0..3 {
        let leases = lease(harness, &orders, 1).await;
        assert_eq!((payloads(&leases), leases[0].attempts()), (vec!["x".to_owned()], 0));
        drop(leases);
    }
    takes(harness, &orders, &["x"]).await;
}

/// Whoever gives up waiting has leased nothing, whatever happens at that moment.
pub async fn a_lease_that_is_given_up_leases_nothing(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let given_up = within(harness, SILENCE, orders.lease(at_most(5))).await;
    assert!(given_up.is_none(), "there is nothing yet");
    let mut expected = Vec::new();
    for n in 0..20 {
        let payload = format!("{n:02}");
        let publishing = async {
            publish(&broker, "a", &[&payload]).await;
            harness.sleep(Duration::from_millis(n % 4)).await;
        };
        let (leasing, publishing) = (orders.lease(at_most(5)), std::pin::pin!(publishing));
        match select(leasing, publishing).await {
            // Given up: it was not ready.
            Either::Right(_) => {}
            // Not settled: given back.
            Either::Left((leased, publishing)) => {
                drop(leased);
                publishing.await;
            }
        }
        expected.push(payload.clone());
    }
    let mut leases = lease_all(harness, &orders, 20).await;
    leases.sort_by_key(|lease| lease.position());
    assert_eq!(payloads(&leases), expected);
    assert!(leases.iter().all(|lease| lease.attempts() == 0));
    settle(&orders, leases, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// Whoever waits is woken by the event that comes, and each event goes to one of those who wait.
pub async fn those_who_wait_are_woken(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let again = open(harness, &broker, "orders", "a").await;
    let publishing = async {
        harness.sleep(SILENCE).await;
        publish(&broker, "a", &["x"]).await;
        harness.sleep(SILENCE).await;
        publish(&broker, "a", &["y"]).await;
    };
    let (one, other) = (lease(harness, &orders, 1), lease(harness, &again, 1));
    let (one, other, ()) = futures::join!(one, other, publishing);
    let mut both = [payload(&one[0]), payload(&other[0])];
    both.sort();
    assert_eq!(both, ["x", "y"]);
    settle(&orders, one, Verdict::Ack).await;
    settle(&again, other, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
}

/// One turn ends leases in every way there is.
pub async fn a_turn_holds_many_verdicts(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    publish(&broker, "a", &["ack", "skip", "retry", "release", "drop", "keep"]).await;
    let mut leases = lease_all(harness, &orders, 6).await.into_iter();
    let mut turn = Vec::new();
    let due_ms = harness.now_ms() + 400;
    for verdict in [Verdict::Ack, Verdict::Skip, Verdict::Retry { due_ms }, Verdict::Release] {
        turn.push(settled(leases.next().expect("a lease"), verdict));
    }
    drop(leases.next());
    let keep: Vec<_> = leases.collect();
    orders.settle(turn).await.expect("the turn is settled");
    orders.settle(Vec::new()).await.expect("an empty turn is settled");
    let mut given_back = lease_all(harness, &orders, 2).await;
    given_back.sort_by_key(|lease| lease.position());
    assert_eq!(payloads(&given_back), ["release", "drop"]);
    pass_until(harness, due_ms).await;
    takes(harness, &orders, &["retry"]).await;
    settle(&orders, keep, Verdict::Ack).await;
    settle(&orders, given_back, Verdict::Ack).await;
    assert!(is_silent(harness, &orders).await);
    until(harness, "nothing is left", || orders.stats().lag_events == 0).await;
}
