//! What the cases share: events, specs, and words for what they do.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};

use super::Harness;
use crate::broker::{Batch, Broker, Cursor, CursorId, CursorSpec, Lease, Receipts, Settled, Start};
use crate::delivery::{Attempt, Outcome, Verdict};
use crate::event::Event;
use crate::limits;
use crate::testing::{event, interest};

/// How long a case waits for what must come: far longer than it takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a case waits before it believes that nothing comes.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

pub(super) fn spec(harness: &dyn Harness, id: &str, event_type: &str) -> CursorSpec {
    CursorSpec {
        id: CursorId(id.into()),
        interest: interest(event_type),
        start: Start::AtMs(harness.now_ms()),
        waiting_max: limits::WAITING_EVENTS,
    }
}

pub(super) async fn append(broker: &Arc<dyn Broker>, events: Vec<Event>) -> Receipts {
    let level = broker.capabilities().default_durability;
    broker.append(Batch { events, atomic: false }, level).await.expect("it can be stored")
}

/// Publishes events of `event_type` with these payloads.
pub(super) async fn publish(broker: &Arc<dyn Broker>, event_type: &str, payloads: &[&str]) {
    let events = payloads.iter().map(|payload| event(event_type, payload.to_string()));
    append(broker, events.collect()).await;
}

/// Leases up to `limit` events; waits for the first.
pub(super) async fn lease(
    harness: &dyn Harness,
    cursor: &Arc<dyn Cursor>,
    limit: usize,
) -> Vec<Lease> {
    let leased = within(harness, PATIENCE, cursor.lease(at_most(limit))).await;
    leased.expect("an event to lease").expect("the cursor answers")
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

/// Is there nothing to lease?
pub(super) async fn is_silent(harness: &dyn Harness, cursor: &Arc<dyn Cursor>) -> bool {
    within(harness, SILENCE, cursor.lease(at_most(1))).await.is_none()
}

pub(super) async fn settle(cursor: &Arc<dyn Cursor>, leases: Vec<Lease>, verdict: Verdict) {
    let attempt = Some(Attempt::new(1_700_000_000_000, 3, Outcome::Status(200)));
    let turn = leases.into_iter().map(|lease| Settled { lease, attempt, verdict });
    cursor.settle(turn.collect()).await.expect("the turn is settled");
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

pub(super) fn payloads(leases: &[Lease]) -> Vec<String> {
    let text = |lease: &Lease| String::from_utf8_lossy(&lease.event().payload).into_owned();
    leases.iter().map(text).collect()
}

fn at_most(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).expect("a case leases something")
}
