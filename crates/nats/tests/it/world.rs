//! What the tests share: a clock, a broker, and words for what they do with it.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eventbus_core::broker::{AppendError, Batch, BrokerHealth, CursorId, CursorSpec, Start};
use eventbus_core::delivery::Verdict;
use eventbus_core::testing::{SeededEntropy, event, interest};
use eventbus_core::{Broker, Clock, Cursor, Durability, Receipts, Settled, limits};
use eventbus_nats::{Nats, NatsConfig, OpenError};

/// How long a test waits for what must come: far longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(crate) struct MachineClock(Instant);

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn machine_clock() -> Arc<MachineClock> {
    Arc::new(MachineClock(Instant::now()))
}

impl Clock for MachineClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_millis() as u64)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Another seed for each process.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) async fn open(config: NatsConfig) -> Result<Nats, OpenError> {
    Nats::open(config, machine_clock(), Arc::new(SeededEntropy::new(unique()))).await
}

/// A broker that stores.
pub(crate) async fn usable(config: NatsConfig) -> Nats {
    let broker = open(config).await.unwrap();
    is_usable(&broker).await;
    broker
}

/// Waits until it stores.
pub(crate) async fn is_usable(broker: &Nats) {
    let mut last = BrokerHealth::Usable;
    let waiting = async {
        while broker.stats().health != BrokerHealth::Usable {
            last = broker.stats().health;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let usable = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(usable.is_ok(), "it does not become usable: {last:?}");
}

/// Waits until it does not store, for a reason with these words; tells the whole of it.
pub(crate) async fn is_unusable(broker: &Nats, words: &str) -> String {
    let mut last = String::new();
    until(words, || match broker.stats().health {
        BrokerHealth::Unusable(reason) => {
            last = reason;
            last.contains(words)
        }
        _ => false,
    })
    .await;
    last
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Publishes an event, at the level in force.
pub(crate) async fn publish(broker: &Nats, payload: &str) -> Result<Receipts, AppendError> {
    publish_at(broker, payload, broker.capabilities().default_durability).await
}

pub(crate) async fn publish_at(
    broker: &Nats,
    payload: &str,
    level: Durability,
) -> Result<Receipts, AppendError> {
    broker.append(Batch::of_one(event("a", payload.to_owned())), level).await
}

/// The cursor `id` on everything since the beginning.
pub(crate) async fn cursor(broker: &Nats, id: &str) -> Arc<dyn Cursor> {
    let spec = CursorSpec {
        id: CursorId(id.into()),
        interest: interest("a"),
        start: Start::AtMs(0),
        waiting_max: limits::WAITING_EVENTS,
    };
    broker.open(spec).await.unwrap()
}

/// Settles what comes, until all of `expected` came; tells how many came once more.
pub(crate) async fn takes(cursor: &Arc<dyn Cursor>, expected: &[impl AsRef<str>]) -> usize {
    let mut missing: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    let mut repeats = 0;
    let taking = async {
        while !missing.is_empty() {
            let Ok(leases) = cursor.lease(at_most(missing.len())).await else {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            };
            let mut turn = Vec::new();
            for lease in leases {
                let payload = lease.event().payload.clone();
                let at = missing.iter().position(|one| one.as_bytes() == payload);
                match at {
                    Some(at) => drop(missing.swap_remove(at)),
                    None => repeats += 1,
                }
                turn.push(Settled { lease, attempt: None, verdict: Verdict::Ack });
            }
            // What could not be settled comes again.
            let _ = cursor.settle(turn).await;
        }
    };
    let taken = tokio::time::timeout(PATIENCE, taking).await;
    assert!(taken.is_ok(), "these never came: {missing:?}");
    repeats
}

fn at_most(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit.clamp(1, 16)).unwrap()
}
