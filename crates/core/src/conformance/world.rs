//! What the cases share: events, specs, and words for what they do.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};

use super::{Harness, Limits};
use crate::broker::{
    Batch, Broker, Cursor, CursorError, CursorId, CursorSpec, Lease, Position, Receipt, Receipts,
    Settled, Start,
};
use crate::delivery::{Attempt, Outcome, Verdict};
use crate::event::Event;
use crate::limits;
use crate::testing::{event, interest};

/// How long a case waits for what must come: far longer than it takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a case waits before it believes that nothing comes.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// How often a case looks again while it waits.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Stop,
    Kill,
}

/// Ends the process of `broker` and starts the next one.
pub(super) async fn restart(
    harness: &dyn Harness,
    broker: Arc<dyn Broker>,
    end: End,
    limits: Limits,
) -> Arc<dyn Broker> {
    match end {
        End::Stop => broker.close().await.expect("it stops cleanly"),
        End::Kill => harness.kill(broker).await,
    }
    harness.start(limits).await
}

pub(super) fn spec(harness: &dyn Harness, id: &str, event_type: &str) -> CursorSpec {
    CursorSpec {
        id: CursorId(id.into()),
        interest: interest(event_type),
        start: Start::AtMs(harness.now_ms()),
        waiting_max: limits::WAITING_EVENTS,
    }
}

/// Opens the cursor `id` on events of `event_type`, which begins now where there is none.
pub(super) async fn open(
    harness: &dyn Harness,
    broker: &Arc<dyn Broker>,
    id: &str,
    event_type: &str,
) -> Arc<dyn Cursor> {
    open_as(broker, spec(harness, id, event_type)).await
}

pub(super) async fn open_as(broker: &Arc<dyn Broker>, spec: CursorSpec) -> Arc<dyn Cursor> {
    broker.open(spec).await.expect("the cursor is opened")
}

pub(super) async fn append(broker: &Arc<dyn Broker>, events: Vec<Event>) -> Receipts {
    let level = broker.capabilities().default_durability;
    broker.append(Batch { events, atomic: false }, level).await.expect("it can be stored")
}

/// Publishes events of `event_type` with these payloads; says where they are.
pub(super) async fn publish(
    broker: &Arc<dyn Broker>,
    event_type: &str,
    payloads: &[&str],
) -> Vec<Position> {
    let events = payloads.iter().map(|payload| event(event_type, payload.to_string()));
    positions(&append(broker, events.collect()).await)
}

/// Publishes `count` events whose payloads are their numbers, padded to `bytes`.
pub(super) async fn publish_many(
    broker: &Arc<dyn Broker>,
    event_type: &str,
    count: usize,
    bytes: usize,
) {
    for from in (0..count).step_by(100) {
        let numbers = from..count.min(from + 100);
        append(broker, numbers.map(|n| event(event_type, format!("{n:bytes$}"))).collect()).await;
    }
}

/// Where the events were stored, each of which is new.
pub(super) fn positions(receipts: &Receipts) -> Vec<Position> {
    let position = |receipt: &Receipt| match receipt {
        Receipt::Stored(position) => *position,
        other => panic!("a new event is stored, and this one is {other:?}"),
    };
    receipts.receipts.iter().map(position).collect()
}

/// Leases up to `limit` events; waits for the first.
pub(super) async fn lease(
    harness: &dyn Harness,
    cursor: &Arc<dyn Cursor>,
    limit: usize,
) -> Vec<Lease> {
    let leased = within(harness, PATIENCE, cursor.lease(at_most(limit))).await;
    let leased = leased.expect("an event to lease").expect("the cursor answers");
    assert!((1..=limit).contains(&leased.len()), "{} leases, at most {limit}", leased.len());
    leased
}

/// Leases until it has `count` events.
pub(super) async fn lease_all(
    harness: &dyn Harness,
    cursor: &Arc<dyn Cursor>,
    count: usize,
) -> Vec<Lease> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(lease(harness, cursor, count - all.len()).await);
    }
    all
}

/// Leases what comes within `time`; waits again where the broker does not answer.
pub(super) async fn lease_within(
    harness: &dyn Harness,
    time: Duration,
    cursor: &Arc<dyn Cursor>,
    limit: usize,
) -> Option<Vec<Lease>> {
    let asking = async {
        loop {
            match cursor.lease(at_most(limit)).await {
                Ok(leases) => return leases,
                Err(CursorError::Unavailable(_)) => harness.sleep(LOOK_AGAIN).await,
                Err(error) => panic!("the cursor is there: {error}"),
            }
        }
    };
    within(harness, time, asking).await
}

/// Is there nothing to lease?
pub(super) async fn is_silent(harness: &dyn Harness, cursor: &Arc<dyn Cursor>) -> bool {
    within(harness, SILENCE, cursor.lease(at_most(1))).await.is_none()
}

/// Settles all of them in one turn; of each an attempt was made.
pub(super) async fn settle(cursor: &Arc<dyn Cursor>, leases: Vec<Lease>, verdict: Verdict) {
    let turn = leases.into_iter().map(|lease| settled(lease, verdict)).collect();
    cursor.settle(turn).await.expect("the turn is settled");
}

/// A verdict after an attempt.
pub(super) fn settled(lease: Lease, verdict: Verdict) -> Settled {
    let attempt = Some(Attempt::new(1_700_000_000_000, 3, Outcome::Status(200)));
    Settled { lease, attempt, verdict }
}

/// Leases and acknowledges exactly these payloads, in this order, and nothing comes after them.
pub(super) async fn takes(harness: &dyn Harness, cursor: &Arc<dyn Cursor>, expected: &[&str]) {
    let leases = lease_all(harness, cursor, expected.len()).await;
    assert_eq!(payloads(&leases), expected);
    settle(cursor, leases, Verdict::Ack).await;
    assert!(is_silent(harness, cursor).await, "something came after {expected:?}");
}

/// Takes `certain` and nothing else but what may come besides.
pub(super) async fn takes_certain(
    harness: &dyn Harness,
    cursor: &Arc<dyn Cursor>,
    certain: &str,
    besides: &[&str],
) {
    let mut came = Vec::new();
    while !came.iter().any(|payload| payload == certain) {
        let leases = lease(harness, cursor, 9).await;
        came.extend(payloads(&leases));
        settle(cursor, leases, Verdict::Ack).await;
    }
    came.retain(|payload| payload != certain && !besides.contains(&payload.as_str()));
    assert!(came.is_empty(), "{came:?} came besides {certain}");
    assert!(is_silent(harness, cursor).await, "something came after {certain}");
}

/// What `work` gives, unless it takes longer than `time`.
pub(super) async fn within<T>(
    harness: &dyn Harness,
    time: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    match select(std::pin::pin!(work), harness.sleep(time).boxed()).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

/// Waits until `holds`.
pub(super) async fn until(harness: &dyn Harness, what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            harness.sleep(LOOK_AGAIN).await;
        }
    };
    assert!(within(harness, PATIENCE, looking).await.is_some(), "it never came: {what}");
}

/// Lets time go by until `ms`, if that is not past.
pub(super) async fn pass_until(harness: &dyn Harness, ms: u64) {
    let time = Duration::from_millis(ms.saturating_sub(harness.now_ms()));
    harness.pass(time).await;
}

pub(super) fn payloads(leases: &[Lease]) -> Vec<String> {
    leases.iter().map(payload).collect()
}

pub(super) fn payload(lease: &Lease) -> String {
    String::from_utf8_lossy(&lease.event().payload).trim().to_owned()
}

pub(super) fn at_most(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).expect("a case leases something")
}
