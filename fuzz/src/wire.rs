//! The wire formats: what publishers send, and what the log keeps.

use bytes::Bytes;
use eventbus_core::manifest::DeliveryFormat;
use eventbus_core::testing;
use eventbus_core::wire::cloudevents;
use eventbus_core::wire::error::{FrontDialect, Refusal};
use eventbus_core::wire::lines::Lines;
use eventbus_core::wire::submission::{BatchLimits, RequestHead, Submissions};
use eventbus_core::wire::trace::Trace;
use eventbus_core::wire::{contract, delivery, front, stored};
use eventbus_core::{Attributes, Entropy, Event, Source};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Still;

/// A publish request: the body, and after a byte FF (which is in no text) the header `Source-Id`.
pub fn contract(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == 0xFF);
    let body = Bytes::copy_from_slice(parts.next().unwrap_or_default());
    let header = parts.next().map(|header| String::from_utf8_lossy(header).into_owned());
    match contract::decode(body.clone(), &head(header.as_deref(), &Still::default())) {
        Ok(submission) => taken(&submission.event, &body),
        Err(refusal) => check_refusal(&refusal),
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

/// A batch of the contract's events: an array or lines.
pub fn batch(bytes: &[u8]) {
    let body = Bytes::copy_from_slice(bytes);
    let entropy = Still::default();
    check_batch(contract::decode_batch(body.clone(), &head(None, &entropy), LIMITS), &body);
}

/// A CloudEvents request. The first byte tells the mode; in binary mode lines `name: value` follow,
/// and after a byte FF (which is in no text) the body.
pub fn cloudevents(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let entropy = Still::default();
    let mut headers = HeaderMap::new();
    let (is_binary, body) = match mode % 3 {
        0 => (false, rest),
        1 => {
            let body = Bytes::copy_from_slice(rest);
            let batch = cloudevents::decode_batch(&headers, body, &head(None, &entropy), LIMITS);
            return check_batch(batch, &[]);
        }
        _ => {
            let mut parts = rest.splitn(2, |byte| *byte == 0xFF);
            for line in parts.next().unwrap_or_default().split(|byte| *byte == b'\n') {
                let mut pair = line.splitn(2, |byte| *byte == b':');
                let name = HeaderName::from_bytes(pair.next().unwrap_or_default());
                let value = HeaderValue::from_bytes(pair.next().unwrap_or_default().trim_ascii());
                if let (Ok(name), Ok(value)) = (name, value) {
                    headers.append(name, value);
                }
            }
            (true, parts.next().unwrap_or_default())
        }
    };
    let body = Bytes::copy_from_slice(body);
    let request = match RequestHead::read(&headers, Trace::from_headers(&headers), &entropy) {
        Ok(request) => request,
        Err(refusal) => return check_refusal(&refusal),
    };
    let read = match is_binary {
        true => cloudevents::decode_binary(&headers, body, &request),
        false => cloudevents::decode_structured(&headers, body, &request),
    };
    match read {
        Ok(submission) => {
            described(&submission.event);
            again(&submission.event);
        }
        Err(refusal) => check_refusal(&refusal),
    }
}

const LIMITS: BatchLimits = BatchLimits { event_bytes: 1 << 16, events: 1000 };

fn check_batch(batch: Result<Submissions, Refusal>, body: &[u8]) {
    for event in match batch {
        Ok(events) => events,
        Err(refusal) => return check_refusal(&refusal),
    } {
        match event {
            Ok(submission) if body.is_empty() => described(&submission.event),
            Ok(submission) => taken(&submission.event, body),
            Err(rejected) => check_refusal(&rejected.refusal),
        }
    }
}

fn check_refusal(refusal: &Refusal) {
    assert!((400..500).contains(&refusal.status()), "{refusal:?}");
    assert_eq!(refusal.body().status, refusal.status(), "{refusal:?}");
    assert!(!refusal.reason().is_empty());
}

/// A CloudEvent that is passed on in structured mode is the same event.
fn again(event: &Event) {
    let entropy = Still::default();
    let document = cloudevents::structured_body(event).into();
    let request = head(None, &entropy);
    let read = cloudevents::decode_structured(&HeaderMap::new(), document, &request);
    let mut read = read.map(|submission| submission.event).unwrap();
    // JSON may stand between spaces, which do not count.
    assert_eq!(read.payload.trim_ascii(), event.payload.trim_ascii());
    read.payload.clone_from(&event.payload);
    assert_eq!(read, *event);
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
fn taken(event: &Event, body: &[u8]) {
    assert!(body.windows(event.payload.len()).any(|part| part == event.payload), "{event:?}");
    described(event);
}

fn described(event: &Event) {
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
        let mut lines = Lines::default();
        let (trace, subscription_name) = (&event.trace, Some("orders"));
        let form = delivery::Form { trace, format, subscription_name, request_id: 1 };
        delivery::request(event, &form, &mut lines);
        assert!(testing::headers(&lines).len() < 30 + event.attributes.len(), "{event:?}");
    }
}

/// What is stored is read back the same.
fn kept(event: &Event) {
    let mut bytes = Vec::new();
    stored::encode_head(event, &mut bytes);
    bytes.extend_from_slice(&event.payload);
    assert_eq!(stored::decode(&bytes.into()).as_ref(), Ok(event));
}
