//! Doubles of the seams and other things that tests share.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::attributes::Attributes;
use crate::broker::{CursorId, Position};
use crate::dead_letters::{DeadLetter, DeadLetterError, DeadLetterKey, DeadLetters};
use crate::event::{Event, Interest, Source, SpecVersion};
use crate::manifest::{DeliveryFormat, SubscriptionStatus};
use crate::seams::{Clock, Entropy};
use crate::span::{Span, Spans, Work};
use crate::subscription::{Identity, Subscription};
use crate::wire::lines::Lines;
use crate::wire::trace::Trace;

/// A Subscription of namespace `stage` whose name is its uid, to `order.created` of `shop`; nothing
/// was said of it yet.
pub fn subscription(uid: &str) -> Subscription {
    Subscription {
        identity: Identity {
            uid: uid.into(),
            group: "eventing.kyma.cx",
            namespace: "stage".into(),
            name: uid.into(),
            generation: 1,
            resource_version: 1,
            created_ms: 0,
        },
        interest: interest("order.created"),
        endpoint: "http://localhost/".into(),
        max_inflight: 10,
        timeout: Duration::from_secs(1),
        names_itself: false,
        format: DeliveryFormat::default(),
        status: SubscriptionStatus::default(),
    }
}

/// Header lines as they are read. Panics on any that is not legal.
#[expect(clippy::expect_used, reason = "it is the test that fails")]
pub fn headers(lines: &Lines) -> HeaderMap {
    let text = std::str::from_utf8(lines.as_bytes()).expect("UTF-8");
    let line = |line: &str| {
        let (name, value) =
            line.strip_suffix("\r\n").expect("an end").split_once(": ").expect("a colon");
        let name = HeaderName::try_from(name).expect("a name");
        (name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
    };
    let mut headers = HeaderMap::new();
    for (name, value) in text.split_inclusive('\n').map(line) {
        headers.append(name, value);
    }
    headers
}

/// An event of `event_type` and of the source that [`subscription`] asks for. Its id is one that
/// the bus made, so any number of them are different events.
pub fn event(event_type: &str, payload: impl Into<Bytes>) -> Event {
    Event {
        source: Source::from_id("shop".into()),
        event_type: event_type.into(),
        event_type_version: "v1".into(),
        id: "a45ad3b8-6b4a-4a0d-9a86-2f5c34b6d7a1".into(),
        id_given: false,
        time: "2026-01-01T00:00:00Z".into(),
        content_type: "application/json".into(),
        attributes: Attributes::default(),
        spec_version: SpecVersion::V1,
        trace: Trace::default(),
        payload: payload.into(),
        has_payload: true,
    }
}

/// What asks for the events of [`event`].
pub fn interest(event_type: &str) -> Interest {
    event(event_type, "").interest()
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicU64,
    behind_ms: AtomicU64,
    started_ms: u64,
}

impl ManualClock {
    /// A clock that shows `now_ms`.
    pub fn at(now_ms: u64) -> Self {
        let behind_ms = AtomicU64::default();
        Self { now_ms: AtomicU64::new(now_ms), behind_ms, started_ms: now_ms }
    }

    /// Moves the clock forwards.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Sets the wall clock back, as an operator does; no time passes by that.
    pub fn set_back(&self, by: Duration) {
        self.behind_ms.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst) - self.behind_ms.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst) - self.started_ms)
    }
}

/// The dead letters of a broker that has none.
#[derive(Clone, Copy, Debug)]
pub struct NoDeadLetters;

impl DeadLetters for NoDeadLetters {
    fn page(
        &self,
        _: CursorId,
        _: Position,
        _: NonZeroUsize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn get(&self, _: DeadLetterKey) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>> {
        Box::pin(async { Ok(None) })
    }

    fn remove(&self, _: DeadLetterKey) -> BoxFuture<'_, Result<bool, DeadLetterError>> {
        Box::pin(async { Ok(false) })
    }
}

/// Entropy that a seed decides (SplitMix64).
#[derive(Debug)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn next_u64(&self) -> u64 {
        let step = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(step, Ordering::SeqCst).wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Keeps all spans.
#[derive(Debug, Default)]
pub struct KeptSpans(Mutex<Vec<Span>>);

impl KeptSpans {
    /// The spans of the same kind, in the order in which they ended.
    pub fn of(&self, work: Work) -> Vec<Span> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|span| span.work == work).cloned().collect()
    }
}

impl Spans for KeptSpans {
    fn record(&self, span: Span) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }
}

/// What is written to any copy of it, to be read by a test: a log, for instance.
#[derive(Clone, Debug, Default)]
pub struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    /// What was written so far.
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
