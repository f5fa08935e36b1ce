//! The delivery request: in the contract's form, the event's metadata as `Kyma-*` headers, or as a
//! CloudEvent.

use bytes::Bytes;

use crate::attributes::Value;
use crate::event::Event;
use crate::manifest::DeliveryFormat;
use crate::wire::cloudevents;
use crate::wire::lines::{Lines, is_value};
use crate::wire::trace::Trace;

/// How the names of headers of attributes begin.
const ATTRIBUTE: &str = "Kyma-Attribute-";
const CONTENT_TYPE: &str = "Content-Type";

/// How an attempt tells of its event.
#[derive(Clone, Copy, Debug)]
pub struct Form<'a> {
    /// The tracing headers: the event's, or those of the attempt's own span.
    pub trace: &'a Trace,
    /// The contract's form, or a CloudEvent's.
    pub format: DeliveryFormat,
    /// The name of the Subscription, when it asks for being named.
    pub subscription_name: Option<&'a str>,
    /// Fresh for each attempt.
    pub request_id: u128,
}

/// Writes the headers of one attempt, and gives its body. Metadata that is empty has no header.
pub fn request(event: &Event, form: &Form<'_>, lines: &mut Lines) -> Bytes {
    let Form { trace, format, subscription_name, request_id } = *form;
    let body = match format_of(event, format) {
        DeliveryFormat::Kyma => {
            kyma(event, lines);
            event.payload.clone()
        }
        DeliveryFormat::CloudEventsBinary => {
            cloudevents::binary_headers(event, lines);
            event.payload.clone()
        }
        DeliveryFormat::CloudEventsStructured => {
            lines.header(CONTENT_TYPE, cloudevents::MEDIA_TYPE.as_bytes());
            cloudevents::structured_body(event).into()
        }
    };
    for (header, text) in trace.iter() {
        plain(header.written(), text, lines);
    }
    if let Some(name) = subscription_name {
        lines.text("Kyma-Subscription", name);
    }
    // A version 4 UUID in its usual spelling.
    let id = uuid::Builder::from_random_bytes(request_id.to_be_bytes()).into_uuid();
    let mut buffer = uuid::Uuid::encode_buffer();
    lines.header("X-Request-Id", id.hyphenated().encode_lower(&mut buffer).as_bytes());
    body
}

/// The format in which the event can be delivered. In binary mode the media type of the payload is
/// that of the request: one that is CloudEvents' own would make another event of it.
fn format_of(event: &Event, format: DeliveryFormat) -> DeliveryFormat {
    match format {
        DeliveryFormat::CloudEventsBinary if cloudevents::is_own(event.content_type.as_bytes()) => {
            DeliveryFormat::CloudEventsStructured
        }
        format => format,
    }
}

fn kyma(event: &Event, lines: &mut Lines) {
    if !event.content_type.is_empty() {
        plain(CONTENT_TYPE, &event.content_type, lines);
    }
    lines.some_text("Kyma-Event-Id", &event.id);
    lines.some_text("Kyma-Event-Time", &event.time);
    lines.some_text("Kyma-Event-Type", &event.event_type);
    lines.some_text("Kyma-Event-Type-Version", &event.event_type_version);
    match event.source.parts() {
        Some(parts) => {
            lines.text("Kyma-Source-Environment", parts.environment);
            lines.text("Kyma-Source-Namespace", parts.namespace);
            lines.text("Kyma-Source-Type", parts.source_type);
        }
        None => lines.text("Kyma-Source-Id", event.source.text()),
    }
    for attribute in event.attributes.iter() {
        match &attribute.value {
            Value::Text(text) => lines.text_of(ATTRIBUTE, &attribute.name, text),
            value => lines.text_of(ATTRIBUTE, &attribute.name, &value.as_text()),
        }
    }
}

/// What was a header of the publisher's, as it was. (Anything else is encoded.)
fn plain(name: &str, text: &str, lines: &mut Lines) {
    if is_value(text) {
        lines.header(name, text.as_bytes());
    } else {
        lines.text(name, text);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Source, SourceParts};
    use crate::testing;
    use crate::wire::trace::TraceHeader;

    fn event(source: Source, event_type: &str) -> Event {
        let mut event = Event {
            source,
            id: "31109198-4d69-4ae0-972d-76117f3748c8".into(),
            time: "2012-11-01T22:08:41+00:00".into(),
            ..testing::event(event_type, "{}")
        };
        event.trace.push(TraceHeader::B3TraceId, "80f198ee56343ba8".into());
        event
    }

    fn of(
        event: &Event,
        format: DeliveryFormat,
        subscription_name: Option<&str>,
        request_id: u128,
    ) -> (HeaderMap, Bytes) {
        let mut lines = Lines::default();
        let form = Form { trace: &event.trace, format, subscription_name, request_id };
        let body = request(event, &form, &mut lines);
        (testing::headers(&lines), body)
    }

    fn headers(event: &Event, subscription_name: Option<&str>, request_id: u128) -> HeaderMap {
        let (headers, body) = of(event, DeliveryFormat::Kyma, subscription_name, request_id);
        assert_eq!(body, event.payload);
        headers
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

    #[test]
    fn a_cloud_event_has_its_attributes_as_metadata() {
        let mut event = event(Source::from_id("https://shop/ü".into()), "com.shop.order 1");
        (event.time, event.event_type_version) = ("".into(), "".into());
        event.attributes.set("subject".into(), "order/7".into());
        event.attributes.set("note".into(), "50% \"off\"".into());
        event.attributes.set("rank".into(), Value::Integer(3));
        let mut expected = vec![
            "content-type: application/json",
            "kyma-attribute-note: 50%25%20%22off%22",
            "kyma-attribute-rank: 3",
            "kyma-attribute-subject: order/7",
            "kyma-event-id: 31109198-4d69-4ae0-972d-76117f3748c8",
            "kyma-event-type: com.shop.order%201",
            "kyma-source-id: https://shop/%C3%BC",
            "x-b3-traceid: 80f198ee56343ba8",
            "x-request-id: 00000000-0000-4000-8000-000000000000",
        ];
        assert_eq!(lines(&headers(&event, None, 0)), expected);
        let (headers, body) = of(&event, DeliveryFormat::CloudEventsBinary, Some("mine"), 0);
        assert_eq!(body, event.payload);
        expected = vec![
            "ce-id: 31109198-4d69-4ae0-972d-76117f3748c8",
            "ce-note: 50%25%20%22off%22",
            "ce-rank: 3",
            "ce-source: https://shop/%C3%BC",
            "ce-specversion: 1.0",
            "ce-subject: order/7",
            "ce-type: com.shop.order%201",
            "content-type: application/json",
            "kyma-subscription: mine",
            "x-b3-traceid: 80f198ee56343ba8",
            "x-request-id: 00000000-0000-4000-8000-000000000000",
        ];
        assert_eq!(lines(&headers), expected);
        let (headers, body) = of(&event, DeliveryFormat::CloudEventsStructured, None, 0);
        assert_eq!(headers["content-type"], cloudevents::MEDIA_TYPE);
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "specversion": "1.0", "id": "31109198-4d69-4ae0-972d-76117f3748c8",
                "source": "https://shop/ü", "type": "com.shop.order 1", "subject": "order/7",
                "note": "50% \"off\"", "rank": 3, "datacontenttype": "application/json",
                "data": {},
            })
        );
    }

    #[test]
    fn no_payload_passes_for_another_event() {
        let mut event = event(Source::from_id("/s/x".into()), "a");
        event.payload =
            r#"{"specversion":"1.0","id":"forged","source":"bank","type":"pay"}"#.into();
        for media_type in ["application/cloudevents+json", "Application/CloudEvents-batch+json"] {
            event.content_type = media_type.into();
            let (headers, body) = of(&event, DeliveryFormat::CloudEventsBinary, None, 0);
            assert_eq!(headers["content-type"], cloudevents::MEDIA_TYPE);
            let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (&document["source"], &document["data"]["source"]),
                (&"/s/x".into(), &"bank".into())
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_forges_a_header(source in "\\PC{0,30}", event_type in "(?s).{0,30}") {
            let event = event(Source::from_id(source.into()), &event_type);
            let headers = headers(&event, None, 1);
            prop_assert!(headers.len() <= 8);
            for value in headers.values() {
                prop_assert!(value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)));
            }
        }
    }
}
