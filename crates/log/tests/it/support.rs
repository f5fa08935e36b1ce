//! What the tests share: a clock, events, a log in a directory.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::broker::{CursorId, CursorSpec, Start};
use eventbus_core::delivery::{Attempt, DeadLetterReason, Outcome, Verdict};
use eventbus_core::testing::{ManualClock, SeededEntropy};
pub(crate) use eventbus_core::testing::{event, interest};
use eventbus_core::{Batch, Broker, Cursor, Durability, Lease, Position, Settled, limits};
use eventbus_log::disk::FaultyDisk;
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
    open_heard(config, clock, &Arc::new(Heard::default()))
}

pub(crate) fn open_heard(
    config: LogConfig,
    clock: &Arc<ManualClock>,
    heard: &Arc<Heard>,
) -> Result<Log, OpenError> {
    Log::open(config, clock.clone(), &SeededEntropy::new(7), heard.clone())
}

/// A log of small segments, so that a few hundred events fill several.
pub(crate) fn small(disk: &FaultyDisk) -> LogConfig {
    LogConfig {
        segment_bytes: 64 * 1024,
        history_bytes: 1024 * 1024,
        max_bytes: Some(16 * 1024 * 1024),
        tail_cache_bytes: 64 * 1024,
        ..LogConfig::on_disk(Arc::new(disk.clone()))
    }
}

/// Appends `count` events whose payloads are their numbers, padded to `bytes`.
pub(crate) async fn fill(log: &Log, event_type: &str, count: usize, bytes: usize) {
    for from in (0..count).step_by(50) {
        let events = (from..count.min(from + 50)).map(|n| event(event_type, format!("{n:bytes$}")));
        let batch = Batch { events: events.collect(), atomic: false };
        log.append(batch, Durability::Synced).await.unwrap();
    }
}

/// The number in a payload.
pub(crate) fn number(lease: &Lease) -> usize {
    std::str::from_utf8(&lease.event().payload).unwrap().trim().parse().unwrap()
}

/// Waits until the cursor was told of `events` that it has not settled.
pub(crate) async fn lag(cursor: &Arc<dyn Cursor>, events: usize) {
    until("the lag", || cursor.stats().lag_events as usize >= events).await;
    assert_eq!(cursor.stats().lag_events as usize, events);
}

/// Waits until `holds`, for as long as a slow machine may need.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came: {what}");
}

pub(crate) fn open(path: &Path, clock: &Arc<ManualClock>) -> Log {
    open_with(LogConfig::in_dir(path), clock).unwrap()
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

/// Publishes events for a cursor that gives them up at once; returns their positions.
pub(crate) async fn give_up(
    log: &Log,
    id: &str,
    event_type: &str,
    payloads: &[&str],
) -> Vec<Position> {
    let orders = cursor(log, id, event_type).await;
    let mut positions = Vec::new();
    for payload in payloads {
        let batch = Batch::of_one(event(event_type, payload.to_string()));
        log.append(batch, Durability::Synced).await.unwrap();
        let leased = lease(&orders, 1).await.remove(0);
        positions.push(leased.position());
        orders.settle(vec![settled(leased, dead(DeadLetterReason::Refused))]).await.unwrap();
    }
    positions
}

pub(crate) fn dead(reason: DeadLetterReason) -> Verdict {
    Verdict::DeadLetter { reason }
}

pub(crate) fn payloads(leases: &[Lease]) -> Vec<String> {
    let text = |lease: &Lease| String::from_utf8_lossy(&lease.event().payload).into_owned();
    leases.iter().map(text).collect()
}
