//! The wire formats: what publishers send, and what the log keeps.

use bytes::Bytes;
use eventbus_core::manifest::DeliveryFormat;
use eventbus_core::wire::error::FrontDialect;
use eventbus_core::wire::submission::RequestHead;
use eventbus_core::wire::trace::Trace;
use eventbus_core::wire::{contract, delivery, front, stored};
use eventbus_core::{Attributes, Entropy, Event, Source};

use super::Still;

/// A publish request: the body, and after a byte FF (which is in no text) the header `Source-Id`.
pub fn contract(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0xFF);
    let body = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let header = parts.next().map(|header| String::from_utf8_lossy(header).into_owned());
    match contract::decode(body.clone(), &head(header.as_deref(), &Still::default())) {
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
    match front::decode(body.clone(), &source, &head(None, &Still::default())) {
        Ok(submission) => taken(&submission.event, &body),
        Err(refusal) => {
            assert!((400..500).contains(&refusal.status()), "{refusal:?}");
            let (_, answer) = refusal.answer(FrontDialect::Connector);
            let told = serde_json::from_slice::<serde_json::Value>(&answer);
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

fn head<'a>(source_id: Option<&'a str>, entropy: &'a dyn Entropy) -> RequestHead<'a> {
    let (attributes, trace) = (Attributes::default(), Trace::default());
    RequestHead { source_id, attributes, trace, entropy }
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
    for format in [
        DeliveryFormat::Kyma,
        DeliveryFormat::CloudEventsBinary,
        DeliveryFormat::CloudEventsStructured,
    ] {
        let (headers, _) = delivery::request(event, format, Some("orders"), 1);
        assert!(headers.len() < 30 + event.attributes.len(), "{event:?}");
    }
}

/// What is stored is read back the same.
fn kept(event: &Event) {
    let mut bytes = Vec::new();
    stored::encode_head(event, &mut bytes);
    bytes.extend_from_slice(&event.payload);
    assert_eq!(stored::decode(&bytes.into()).as_ref(), Ok(event));
}
