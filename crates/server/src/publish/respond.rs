//! The answers of the publish port.

use std::borrow::Cow;
use std::collections::BTreeSet;

use eventbus_core::limits;
use eventbus_core::wire::error::{ErrorBody, FrontDialect, FrontRefusal, Refusal};
use eventbus_core::wire::percent;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::json;

use super::Answer;
use super::batch::StoredBatch;
use super::level::DURABILITY;
use super::store::{Status, Stored};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Room for the result of one event, and for the headers of its answer: neither has to grow.
const RESULT_BYTES: usize = 160;
const HEADERS: usize = 8;

const EVENT_ID: HeaderName = HeaderName::from_static("eventbus-event-id");
const STATUS: HeaderName = HeaderName::from_static("eventbus-status");

/// The contract's answer for one event.
pub(super) fn stored(stored: &Stored) -> Answer {
    let result = result(stored);
    let mut answer = with_status(200, json_line(&result), JSON);
    describe(&mut answer, stored);
    answer
}

/// The front's answer for one event: the publisher proxy leaves status and reason empty.
pub(super) fn front_stored(stored: &Stored, dialect: FrontDialect) -> Answer {
    let mut answer = self::stored(stored);
    if dialect == FrontDialect::PublisherProxy {
        let result = EventResult { id: &stored.id, status: "", reason: "".into(), error: None };
        *answer.body_mut() = Full::new(json_line(&result).into());
    }
    answer
}

/// The answer for one CloudEvent: the same in headers alone.
pub(super) fn stored_silently(stored: &Stored) -> Answer {
    let mut answer = status(204);
    describe(&mut answer, stored);
    answer
}

/// The answer for a batch: a result for each of its events, in order.
pub(super) fn batch(batch: &StoredBatch) -> Answer {
    #[derive(Serialize)]
    struct Results<'a> {
        results: Vec<EventResult<'a>>,
    }
    let results = Results { results: batch.events.iter().map(result).collect() };
    let code = if batch.refused { 400 } else { 200 };
    let mut answer = with_status(code, json_line(&results), JSON);
    if let Some(level) = batch.durability {
        answer.headers_mut().insert(DURABILITY, HeaderValue::from_static(level.as_str()));
    }
    answer
}

/// What became of one event, as JSON.
#[derive(Serialize)]
struct EventResult<'a> {
    #[serde(rename = "event-id")]
    id: &'a str,
    status: &'static str,
    reason: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
}

fn result(stored: &Stored) -> EventResult<'_> {
    let Stored { id, status, .. } = stored;
    let error = match status {
        Status::Rejected(refusal) => Some(refusal.body()),
        _ => None,
    };
    EventResult { id, status: status.word(), reason: status.reason(), error }
}

fn json_line(result: &impl Serialize) -> Vec<u8> {
    // Serialising these structures cannot fail: their keys are text.
    let mut json = Vec::with_capacity(RESULT_BYTES);
    let _ = serde_json::to_writer(&mut json, result);
    json.push(b'\n');
    json
}

fn describe(answer: &mut Answer, stored: &Stored) {
    let headers = answer.headers_mut();
    headers.reserve(HEADERS - headers.len());
    let id = percent::encode(&stored.id);
    if id.len() <= limits::ANSWERED_ID_BYTES {
        headers.insert(EVENT_ID, id);
    }
    headers.insert(STATUS, HeaderValue::from_static(stored.status.word()));
    if let Some(level) = stored.durability {
        headers.insert(DURABILITY, HeaderValue::from_static(level.as_str()));
    }
}

/// Publish refuses one CloudEvent.
pub(super) fn refusal_text(refusal: &Refusal) -> Answer {
    let why = format!("{}\n", refusal.reason());
    let answer = with_status(refusal.status(), why.into_bytes(), TEXT);
    retry_later(answer, refusal.retry_after_s())
}

/// Only POST will do.
pub(super) fn post_only() -> Answer {
    let mut answer = status(405);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    answer
}

/// Publish refuses.
pub(super) fn refusal(refusal: &Refusal) -> Answer {
    let answer = with_status(refusal.status(), refusal.body().json(), JSON);
    retry_later(answer, refusal.retry_after_s())
}

/// The front refuses.
pub(super) fn front_refusal(refusal: &FrontRefusal, dialect: FrontDialect) -> Answer {
    let (content_type, body) = refusal.answer(dialect);
    let answer = with_status(refusal.status(), body, HeaderValue::from_static(content_type));
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
