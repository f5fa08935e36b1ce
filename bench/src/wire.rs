//! Bytes to event, and event to bytes.

use std::hint::black_box;

use bytes::Bytes;
use eventbus_core::manifest::DeliveryFormat;
use eventbus_core::wire::cloudevents;
use eventbus_core::wire::error::Refusal;
use eventbus_core::wire::lines::Lines;
use eventbus_core::wire::submission::{BatchLimits, RequestHead, Submission};
use eventbus_core::wire::trace::Trace;
use eventbus_core::wire::{contract, delivery, stored};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::Work;
use crate::events;
use crate::still::Still;

const BATCH: u64 = 100;

pub(crate) fn contract() -> Work {
    let body = Bytes::from(events::contract(0, 1));
    let (headers, entropy) = (headers(&[("content-type", "application/json")]), Still::default());
    Box::new(move || {
        let head = RequestHead::read(&headers, Trace::from_headers(&headers), &entropy).unwrap();
        black_box(contract::decode(black_box(body.clone()), &head).unwrap());
    })
}

pub(crate) fn batch() -> Work {
    let all: Vec<_> = (0..BATCH).map(|id| events::contract(0, id)).collect();
    let body = Bytes::from(format!("[{}]", all.join(",")));
    let (headers, entropy) = (headers(&[("content-type", "application/json")]), Still::default());
    let limits = BatchLimits { event_bytes: 1 << 20, events: 10_000 };
    Box::new(move || {
        let head = RequestHead::read(&headers, Trace::from_headers(&headers), &entropy).unwrap();
        let read = contract::decode_batch(black_box(body.clone()), &head, limits).unwrap();
        assert!(read.len() == BATCH as usize && black_box(read).iter().all(Result::is_ok));
    })
}

pub(crate) fn binary() -> Work {
    let headers = headers(&[
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "31109198-4d69-4ae0-972d-76117f3748c8"),
        ("ce-source", "shop"),
        ("ce-type", "order.created.t00000"),
        ("ce-time", "2026-01-01T00:00:00Z"),
        ("ce-eventtypeversion", "v1"),
    ]);
    cloud_event(cloudevents::decode_binary, headers, events::payload())
}

pub(crate) fn structured() -> Work {
    let attributes = [
        r#"{"specversion":"1.0","id":"31109198-4d69-4ae0-972d-76117f3748c8","source":"shop""#,
        r#""type":"order.created.t00000","time":"2026-01-01T00:00:00Z","eventtypeversion":"v1""#,
        r#""datacontenttype":"application/json""#,
    ];
    let document = format!(r#"{},"data":{}}}"#, attributes.join(","), events::payload());
    let headers = headers(&[("content-type", "application/cloudevents+json")]);
    cloud_event(cloudevents::decode_structured, headers, document)
}

/// Reads a CloudEvent.
type Decode = fn(&HeaderMap, Bytes, &RequestHead<'_>) -> Result<Submission, Refusal>;

fn cloud_event(decode: Decode, headers: HeaderMap, body: String) -> Work {
    let (body, entropy) = (Bytes::from(body), Still::default());
    Box::new(move || {
        let head = RequestHead::read(&headers, Trace::from_headers(&headers), &entropy).unwrap();
        black_box(decode(&headers, black_box(body.clone()), &head).unwrap());
    })
}

pub(crate) fn encode_stored() -> Work {
    let event = events::event(0, 1);
    let mut room = Vec::with_capacity(stored_bytes(&event));
    Box::new(move || {
        room.clear();
        stored::encode_head(black_box(&event), &mut room);
        black_box(&room);
    })
}

pub(crate) fn decode_stored() -> Work {
    let event = events::event(0, 1);
    let mut bytes = Vec::with_capacity(stored_bytes(&event));
    stored::encode_head(&event, &mut bytes);
    bytes.extend_from_slice(&event.payload);
    let bytes = Bytes::from(bytes);
    Box::new(move || {
        black_box(stored::decode(black_box(&bytes)).unwrap());
    })
}

fn stored_bytes(event: &eventbus_core::Event) -> usize {
    stored::head_bytes(event) + event.payload.len()
}

pub(crate) fn delivery_kyma() -> Work {
    delivery(DeliveryFormat::Kyma)
}

pub(crate) fn delivery_structured() -> Work {
    delivery(DeliveryFormat::CloudEventsStructured)
}

fn delivery(format: DeliveryFormat) -> Work {
    let (event, mut lines) = (events::event(0, 1), Lines::default());
    Box::new(move || {
        lines.clear();
        let event = black_box(&event);
        let (trace, subscription_name) = (&event.trace, None);
        let form = delivery::Form { trace, format, subscription_name, request_id: 7 };
        black_box(delivery::request(event, &form, &mut lines));
    })
}

fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
    let named = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    all.iter().map(named).collect()
}
