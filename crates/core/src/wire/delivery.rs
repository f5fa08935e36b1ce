//! The delivery request of the contract: the event's metadata as `Kyma-*` headers.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::event::{Event, Text};

const EVENT_ID: HeaderName = HeaderName::from_static("kyma-event-id");
const EVENT_TIME: HeaderName = HeaderName::from_static("kyma-event-time");
const EVENT_TYPE: HeaderName = HeaderName::from_static("kyma-event-type");
const EVENT_TYPE_VERSION: HeaderName = HeaderName::from_static("kyma-event-type-version");
const SOURCE_ENVIRONMENT: HeaderName = HeaderName::from_static("kyma-source-environment");
const SOURCE_ID: HeaderName = HeaderName::from_static("kyma-source-id");
const SOURCE_NAMESPACE: HeaderName = HeaderName::from_static("kyma-source-namespace");
const SOURCE_TYPE: HeaderName = HeaderName::from_static("kyma-source-type");
const SUBSCRIPTION: HeaderName = HeaderName::from_static("kyma-subscription");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The headers of one attempt.
///
/// `subscription_name` is given when the Subscription asks for it; `request_id` is fresh for each
/// attempt. Metadata that is empty has no header.
pub fn headers(event: &Event, subscription_name: Option<&str>, request_id: u128) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    let mut put = |name, text: &Text| {
        if !text.is_empty() {
            headers.insert(name, shared_value(text));
        }
    };
    put(CONTENT_TYPE, &event.content_type);
    put(EVENT_ID, &event.id);
    put(EVENT_TIME, &event.time);
    put(EVENT_TYPE, &event.event_type);
    put(EVENT_TYPE_VERSION, &event.event_type_version);
    for (header, text) in event.trace.iter() {
        put(header.name(), text);
    }
    match event.source.parts() {
        Some(parts) => {
            headers.insert(SOURCE_ENVIRONMENT, value(parts.environment));
            headers.insert(SOURCE_NAMESPACE, value(parts.namespace));
            headers.insert(SOURCE_TYPE, value(parts.source_type));
        }
        None => drop(headers.insert(SOURCE_ID, shared_value(event.source.text()))),
    }
    if let Some(name) = subscription_name {
        headers.insert(SUBSCRIPTION, value(name));
    }
    headers.insert(REQUEST_ID, request_id_value(request_id));
    headers
}

/// A header value that shares the bytes of `text` where they may stand in a header as they are.
fn shared_value(text: &Text) -> HeaderValue {
    if text.bytes().all(is_visible) {
        HeaderValue::from_maybe_shared(text.as_bytes().clone()).unwrap_or_else(|_| value(text))
    } else {
        value(text)
    }
}

/// A header value; every byte that is not printable ASCII, and the percent sign beside such bytes,
/// is percent-encoded, as CloudEvents does it. So no text can forge a header.
fn value(text: &str) -> HeaderValue {
    let mut encoded = String::new();
    let plain = text.bytes().all(is_visible);
    for byte in text.bytes().filter(|_| !plain) {
        match byte {
            b'%' => encoded.push_str("%25"),
            byte if is_visible(byte) => encoded.push(char::from(byte)),
            byte => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    let bytes = if plain { text.to_owned() } else { encoded };
    // Printable ASCII is always a header value.
    HeaderValue::from_maybe_shared(Bytes::from(bytes))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn is_visible(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

/// A version 4 UUID in its usual spelling.
fn request_id_value(random: u128) -> HeaderValue {
    let id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
    value(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Source, SourceParts};
    use crate::wire::trace::{Trace, TraceHeader};

    fn event(source: Source, event_type: &str) -> Event {
        let mut trace = Trace::default();
        trace.push(TraceHeader::B3TraceId, "80f198ee56343ba8".into());
        Event {
            source,
            event_type: event_type.into(),
            event_type_version: "v1".into(),
            id: "31109198-4d69-4ae0-972d-76117f3748c8".into(),
            id_given: true,
            time: "2012-11-01T22:08:41+00:00".into(),
            content_type: "application/json".into(),
            trace,
            payload: Bytes::from_static(b"{}"),
        }
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_three_part_source_has_the_headers_of_the_seed() {
        let parts =
            SourceParts { environment: "stage", namespace: "com.github", source_type: "commerce" };
        let event = event(Source::from_parts(parts), "order.created");
        assert_eq!(
            lines(&headers(&event, Some("my-subscription"), 0)),
            [
                "content-type: application/json",
                "kyma-event-id: 31109198-4d69-4ae0-972d-76117f3748c8",
                "kyma-event-time: 2012-11-01T22:08:41+00:00",
                "kyma-event-type-version: v1",
                "kyma-event-type: order.created",
                "kyma-source-environment: stage",
                "kyma-source-namespace: com.github",
                "kyma-source-type: commerce",
                "kyma-subscription: my-subscription",
                "x-b3-traceid: 80f198ee56343ba8",
                "x-request-id: 00000000-0000-4000-8000-000000000000",
            ]
        );
    }

    #[test]
    fn an_id_source_has_one_header_and_the_subscription_is_named_only_when_asked() {
        let headers = headers(&event(Source::from_id("ec-qa".into()), "a"), None, 7);
        assert_eq!(headers["kyma-source-id"], "ec-qa");
        assert!(!headers.contains_key("kyma-source-type"));
        assert!(!headers.contains_key("kyma-subscription"));
    }

    proptest! {
        #[test]
        fn no_text_forges_a_header(source in "\\PC{0,30}", event_type in "(?s).{0,30}") {
            let event = event(Source::from_id(source.into()), &event_type);
            let headers = headers(&event, None, 1);
            prop_assert!(headers.len() <= 8);
            for value in headers.values() {
                prop_assert!(value.as_bytes().iter().copied().all(is_visible));
            }
        }
    }
}
