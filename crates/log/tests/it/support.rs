//! What the tests share: a clock, events, a log in a directory.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use eventbus_core::broker::{CursorId, CursorSpec, Start};
use eventbus_core::delivery::{Attempt, Outcome, Verdict};
use eventbus_core::testing::{ManualClock, SeededEntropy};
use eventbus_core::wire::trace::Trace;
use eventbus_core::{Broker, Cursor, Event, Interest, Lease, Settled, Source, limits};
use eventbus_log::{Log, LogConfig, LogEvent, Observer, OpenError};

pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// Hears and keeps everything.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<LogEvent>>);

impl Observer for Heard {
    fn observe(&self, event: &LogEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
    }
}

impl Heard {
    pub(crate) fn all(&self) -> Vec<LogEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(START_MS))
}

pub(crate) fn open_with(config: LogConfig, clock: &Arc<ManualClock>) -> Result<Log, OpenError> {
    Log::open(config, clock.clone(), &SeededEntropy::new(7), Arc::new(Heard::default()))
}

pub(crate) fn open(path: &Path, clock: &Arc<ManualClock>) -> Log {
    open_with(LogConfig::in_dir(path), clock).unwrap()
}

pub(crate) fn event(event_type: &str, payload: impl Into<Bytes>) -> Event {
    Event {
        source: Source::from_id("shop".into()),
        event_type: event_type.into(),
        event_type_version: "v1".into(),
        id: "an-id".into(),
        time: "2026-01-01T00:00:00Z".into(),
        content_type: "application/json".into(),
        trace: Trace::default(),
        payload: payload.into(),
    }
}

pub(crate) fn interest(event_type: &str) -> Interest {
    event(event_type, "").interest()
}

pub(crate) fn spec(id: &str, event_type: &str) -> CursorSpec {
    CursorSpec {
        id: CursorId(id.into()),
        interest: interest(event_type),
        start: Start::AtMs(START_MS),
        waiting_max: limits::WAITING_EVENTS,
    }
}

pub(crate) async fn cursor(log: &Log, id: &str, event_type: &str) -> Arc<dyn Cursor> {
    log.open(spec(id, event_type)).await.unwrap()
}

pub(crate) async fn lease(cursor: &Arc<dyn Cursor>, limit: usize) -> Vec<Lease> {
    cursor.lease(NonZeroUsize::new(limit).unwrap()).await.unwrap()
}

pub(crate) fn settled(lease: Lease, verdict: Verdict) -> Settled {
    let attempt = Some(Attempt::new(START_MS, 3, Outcome::Status(200)));
    Settled { lease, attempt, verdict }
}

pub(crate) fn acks(leases: Vec<Lease>) -> Vec<Settled> {
    leases.into_iter().map(|lease| settled(lease, Verdict::Ack)).collect()
}

pub(crate) fn payloads(leases: &[Lease]) -> Vec<String> {
    let text = |lease: &Lease| String::from_utf8_lossy(&lease.event().payload).into_owned();
    leases.iter().map(text).collect()
}
