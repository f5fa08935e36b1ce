//! The answers of the publish port.

use std::collections::BTreeSet;

use bytes::Bytes;
use eventbus_core::wire::error::{FrontRefusal, Refusal};
use eventbus_core::{Durability, Text};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::Answer;
use super::level::DURABILITY;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const EVENT_ID: HeaderName = HeaderName::from_static("eventbus-event-id");
const STATUS: HeaderName = HeaderName::from_static("eventbus-status");

/// The event is stored.
pub(super) fn published(id: &Text, durability: Durability) -> Answer {
    let mut answer = accepted(id, "published", "stored for delivery");
    let level = HeaderValue::from_static(durability.as_str());
    answer.headers_mut().insert(DURABILITY, level);
    answer
}

/// The event was stored before.
pub(super) fn duplicate(id: &Text, durability: Durability) -> Answer {
    let mut answer = accepted(id, "duplicate", "an event of this source and id is stored");
    let level = HeaderValue::from_static(durability.as_str());
    answer.headers_mut().insert(DURABILITY, level);
    answer
}

/// Nobody asks for the event.
pub(super) fn ignored(id: &Text) -> Answer {
    accepted(id, "ignored", "no Subscription asks for this event")
}

fn accepted(id: &Text, status: &'static str, reason: &str) -> Answer {
    // An id is hexadecimal digits and dashes, so it needs no escapes.
    let members =
        ["{\"event-id\":\"", id, "\",\"status\":\"", status, "\",\"reason\":\"", reason, "\"}\n"];
    let body = members.concat();
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Ok(id) = HeaderValue::from_maybe_shared(id.as_bytes().clone()) {
        headers.insert(EVENT_ID, id);
    }
    headers.insert(STATUS, HeaderValue::from_static(status));
    answer
}

/// Publish refuses.
pub(super) fn refusal(refusal: &Refusal) -> Answer {
    let answer = with_status(refusal.status(), refusal.body().json(), JSON);
    retry_later(answer, refusal.retry_after_s())
}

/// The front refuses.
pub(super) fn front_refusal(refusal: &FrontRefusal) -> Answer {
    let content_type = HeaderValue::from_static(refusal.content_type());
    let answer = with_status(refusal.status(), refusal.json(), content_type);
    let relayed = match refusal {
        FrontRefusal::Relayed(relayed) => relayed.retry_after_s(),
        _ => None,
    };
    retry_later(answer, relayed)
}

fn retry_later(mut answer: Answer, retry_after_s: Option<u64>) -> Answer {
    if let Some(seconds) = retry_after_s {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// The types and versions that anybody asks of an application.
pub(super) fn subscribed(types: &BTreeSet<(&str, &str)>) -> Answer {
    let types: Vec<_> =
        types.iter().map(|(name, version)| json!({ "name": name, "version": version })).collect();
    let body = format!("{}\n", json!({ "eventsInfo": types }));
    with_status(200, body.into_bytes(), JSON)
}

/// The answer to `OPTIONS`: CloudEvents' abuse protection, by which the port agrees to be sent
/// events by whoever asks.
pub(super) fn abuse_protection(asked: &HeaderMap) -> Answer {
    let mut answer = status(200);
    let headers = answer.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    if let Some(origin) = asked.get("webhook-request-origin") {
        headers.insert("webhook-allowed-origin", origin.clone());
        headers.insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    }
    answer
}

/// No such path.
pub(super) fn not_found() -> Answer {
    let mut answer = with_status(404, b"404 page not found\n".to_vec(), TEXT);
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert("x-content-type-options", nosniff);
    answer
}

/// A status and nothing more.
pub(super) fn status(status: u16) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
}

fn with_status(code: u16, body: Vec<u8>, content_type: HeaderValue) -> Answer {
    let mut answer = status(code);
    *answer.body_mut() = Full::new(body.into());
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
