//! Writes the small log that stands for this version's format in `tests/fixtures/`.
//!
//! ```sh
//! cargo run -p eventbus-log --example log_fixture -- crates/log/tests/fixtures/version-N
//! ```
//!
//! Run once when the format changes; directories of earlier versions stay as they are. The vault
//! has versions of its own, and directories `vault-N` for them.
#![expect(clippy::unwrap_used, reason = "run by hand; what fails must be seen")]

use std::num::NonZeroUsize;
use std::sync::Arc;

use eventbus_core::broker::{CursorId, CursorSpec, Start};
use eventbus_core::delivery::{Attempt, DeadLetterReason, Outcome, Verdict};
use eventbus_core::testing::{self, ManualClock, SeededEntropy};
use eventbus_core::{Batch, Broker, Durability, Event, Settled, limits};
use eventbus_log::{Log, LogConfig, TraceObserver};

const START_MS: u64 = 1_700_000_000_000;

#[tokio::main]
async fn main() {
    let path = std::env::args().nth(1).unwrap();
    let clock = Arc::new(ManualClock::at(START_MS));
    let config = LogConfig {
        segment_bytes: limits::SEGMENT_LEAST_BYTES,
        max_bytes: Some(8 * 1024 * 1024),
        ..LogConfig::in_dir(&path)
    };
    let log = Log::open(config, clock, &SeededEntropy::new(7), Arc::new(TraceObserver)).unwrap();
    let spec = CursorSpec {
        id: CursorId("orders".into()),
        interest: event("").interest(),
        start: Start::AtMs(START_MS),
        waiting_max: limits::WAITING_EVENTS,
    };
    let orders = log.open(spec).await.unwrap();
    for payload in ["zero", "one", "two", "three"] {
        log.append(Batch::of_one(event(payload)), Durability::Synced).await.unwrap();
    }
    let leases = orders.lease(NonZeroUsize::new(3).unwrap()).await.unwrap();
    let attempt = Some(Attempt::new(START_MS, 3, Outcome::Status(503)));
    let reason = DeadLetterReason::Refused;
    let verdicts = [
        Verdict::Retry { due_ms: START_MS + 30_000 },
        Verdict::Ack,
        Verdict::DeadLetter { reason },
    ];
    let turn = leases.into_iter().zip(verdicts);
    let turn = turn.map(|(lease, verdict)| Settled { lease, attempt, verdict });
    orders.settle(turn.collect()).await.unwrap();
    log.delay(event("three"), START_MS + 30_000, Durability::Synced).await.unwrap();
    log.close().await.unwrap();
    std::fs::remove_file(std::path::Path::new(&path).join("lock")).unwrap();
}

fn event(payload: &'static str) -> Event {
    Event {
        id: "an-id".into(),
        time: "2026-01-01T00:00:00Z".into(),
        ..testing::event("order.created", payload)
    }
}
