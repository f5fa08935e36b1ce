//! The events that all steps are about.

use bytes::Bytes;
use eventbus_core::Event;
use eventbus_core::wire::contract;
use eventbus_core::wire::submission::RequestHead;
use eventbus_core::wire::trace::Trace;
use http::HeaderMap;

use crate::still::Still;

/// A payload of 1 KiB, as JSON has it: members, numbers, text with an escape.
pub(crate) fn payload() -> String {
    let head = r#"{"orderCode":"4711","total":129.95,"lines":[{"sku":"a-1","count":2},"#;
    let head = format!(r#"{head}{{"sku":"b-2","count":1}}],"note":"first\nsecond","padding":""#);
    let padding = "x".repeat(1024 - head.len() - 2);
    format!("{head}{padding}\"}}")
}

/// The name of the event type with a number.
pub(crate) fn event_type(number: u32) -> String {
    format!("order.created.t{number:05}")
}

/// The contract's event with a number, which its type and its id tell.
pub(crate) fn contract(event_type: u32, id: u64) -> String {
    let members = [
        r#"{"source-id":"shop""#.to_owned(),
        format!(r#""event-type":"{}""#, self::event_type(event_type)),
        r#""event-type-version":"v1""#.to_owned(),
        format!(r#""event-id":"31109198-4d69-4ae0-972d-{id:012x}""#),
        r#""event-time":"2026-01-01T00:00:00Z""#.to_owned(),
        format!(r#""data":{}}}"#, payload()),
    ];
    members.join(",")
}

/// The same, read.
pub(crate) fn event(event_type: u32, id: u64) -> Event {
    let (headers, entropy) = (HeaderMap::new(), Still::default());
    let head = RequestHead::read(&headers, Trace::default(), &entropy).unwrap();
    contract::decode(Bytes::from(contract(event_type, id)), &head).unwrap().event
}
