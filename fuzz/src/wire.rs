//! The wire formats: what publishers send, and what the log keeps.

use bytes::Bytes;
use eventbus_core::wire::trace::Trace;
use eventbus_core::wire::{contract, delivery, front, stored};
use eventbus_core::{Event, Source};

use super::Still;

/// A publish request: the body, and after a byte FF (which is in no text) the header `Source-Id`.
pub fn contract(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0xFF);
    let body = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let header = parts.next().map(|header| String::from_utf8_lossy(header).into_owned());
    match contract::decode(body.clone(), header.as_deref(), trace(), &Still::default()) {
        Ok(submission) => taken(&submission.event, &body),
        Err(refusal) => {
            assert!((400..500).contains(&refusal.status()), "{refusal:?}");
            assert_eq!(refusal.body().status, refusal.status(), "{refusal:?}");
        }
    }
}

/// A request to the Application Connector's front.
pub fn front(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let source = Source::from_id("shop".into());
    match front::decode(body.clone(), &source, trace(), &Still::default()) {
        Ok(submission) => taken(&submission.event, &body),
        Err(refusal) => {
            assert!((400..500).contains(&refusal.status()), "{refusal:?}");
            let told = serde_json::from_slice::<serde_json::Value>(&refusal.json());
            assert!(told.is_ok_and(|told| told.is_object()), "{refusal:?}");
        }
    }
}

/// A stored event.
pub fn stored(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(event) = stored::decode(&bytes) {
        assert!(bytes.ends_with(&event.payload));
        deliverable(&event);
        kept(&event);
    }
}

fn trace() -> Trace {
    Trace::default()
}

/// What holds of every event that is taken.
fn taken(event: &Event, body: &Bytes) {
    assert!(body.windows(event.payload.len()).any(|part| part == event.payload), "{event:?}");
    assert!(!event.id.is_empty() && !event.event_type.is_empty(), "{event:?}");
    deliverable(event);
    kept(event);
}

/// It can be sent: header names and values are legal, and there are not many of them.
fn deliverable(event: &Event) {
    let headers = delivery::headers(event, Some("orders"), 1);
    assert!(headers.len() < 30, "{event:?}");
}

/// What is stored is read back the same.
fn kept(event: &Event) {
    let mut bytes = Vec::new();
    stored::encode_head(event, &mut bytes);
    bytes.extend_from_slice(&event.payload);
    assert_eq!(stored::decode(&bytes.into()).as_ref(), Ok(event));
}
