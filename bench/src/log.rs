//! The embedded log, in a directory that goes with it.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;

use eventbus_core::broker::{CursorId, CursorSpec, Receipt, Start};
use eventbus_core::delivery::Verdict;
use eventbus_core::{Batch, Broker, Cursor, Durability, Event, Lease, Settled};
use eventbus_log::{Log, LogConfig, LogEvent, Observer};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::Work;
use crate::events;
use crate::still::Still;

const BATCH: u64 = 100;

/// After so many events a log is made anew, so that it stays small.
const EVENTS_MAX: u64 = 300_000;

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &LogEvent) {}
}

/// What waits for the log.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// A log that has just been made, and where.
fn open() -> (Log, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig::in_dir(directory.path());
    let world = Arc::new(Still::default());
    (Log::open(config, world.clone(), &*world, Arc::new(Deaf)).unwrap(), directory)
}

pub(crate) fn append() -> Work {
    appending(1)
}

pub(crate) fn append_batch() -> Work {
    appending(BATCH)
}

/// Appends so many events, synced, and waits for the receipts.
fn appending(events: u64) -> Work {
    let (runtime, mut log) = (runtime(), open());
    let mut id = 0;
    let event = events::event(0, 0);
    Box::new(move || {
        if id >= EVENTS_MAX {
            log = open();
            id = 0;
        }
        runtime.block_on(store(&log.0, &event, id, events));
        id += events;
    })
}

async fn store(log: &Log, event: &Event, from: u64, events: u64) {
    let of = |id: u64| {
        // Else it would be a repeat.
        let id = format!("31109198-4d69-4ae0-972d-{id:012x}").as_str().into();
        Event { id, ..event.clone() }
    };
    let batch = Batch { events: (from..from + events).map(of).collect(), atomic: false };
    let stored = log.append(batch, Durability::Synced).await.unwrap();
    assert!(stored.receipts.iter().all(|one| matches!(one, Receipt::Stored(_))));
}

/// Leases what was stored before, and settles it. Now and then it has to be stored, in one turn for
/// many: that is in the times, and not in the counts.
pub(crate) fn deliver() -> Work {
    /// How many turns can be made before more has to be stored.
    const STORED: u64 = 32;
    let event = events::event(0, 0);
    let runtime = runtime();
    let (mut log, mut cursor) = runtime.block_on(subscribed(&event));
    let (mut id, mut left) = (0, 0);
    Box::new(move || {
        if id >= EVENTS_MAX {
            (log, cursor) = runtime.block_on(subscribed(&event));
            (id, left) = (0, 0);
        }
        if left == 0 {
            for _ in 0..STORED {
                runtime.block_on(store(&log.0, &event, id, BATCH));
                id += BATCH;
            }
            left = STORED;
        }
        left -= 1;
        let mut wanted = NonZeroUsize::new(BATCH as usize);
        while let Some(many) = wanted {
            let leases = runtime.block_on(cursor.lease(many)).unwrap();
            wanted = NonZeroUsize::new(many.get() - leases.len());
            let turn: Vec<_> = black_box(leases).into_iter().map(acknowledged).collect();
            runtime.block_on(cursor.settle(turn)).unwrap();
        }
    })
}

/// A log with a cursor that wants `event`.
async fn subscribed(event: &Event) -> ((Log, TempDir), Arc<dyn Cursor>) {
    let log = open();
    let spec = CursorSpec {
        id: CursorId("orders".into()),
        interest: event.interest(),
        start: Start::AtMs(0),
        waiting_max: 1_000,
    };
    let cursor = log.0.open(spec).await.unwrap();
    (log, cursor)
}

fn acknowledged(lease: Lease) -> Settled {
    Settled { lease, attempt: None, verdict: Verdict::Ack }
}
