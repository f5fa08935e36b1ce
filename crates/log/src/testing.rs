//! What the tests of this crate share.

use bytes::Bytes;
use eventbus_core::wire::trace::Trace;
use eventbus_core::{Event, Interest, Source};

/// An event of `event_type` with `payload`.
pub(crate) fn event(event_type: &str, payload: &[u8]) -> Event {
    Event {
        source: Source::from_id("shop".into()),
        event_type: event_type.into(),
        event_type_version: "v1".into(),
        id: "id".into(),
        time: "2026-01-01T00:00:00Z".into(),
        content_type: "application/json".into(),
        trace: Trace::default(),
        payload: Bytes::copy_from_slice(payload),
    }
}

/// The interest in events of `event_type`.
pub(crate) fn interest(event_type: &str) -> Interest {
    event(event_type, b"").interest()
}
