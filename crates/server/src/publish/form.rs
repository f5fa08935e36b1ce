//! The form of a publish request: how its events are written, and how it is answered.

use bytes::Bytes;
use eventbus_core::wire::cloudevents::{self, Mode};
use eventbus_core::wire::contract;
use eventbus_core::wire::error::Refusal;
use eventbus_core::wire::submission::{BatchLimits, RequestHead, Submission, Submissions};
use http::HeaderMap;
use http::request;

use super::store::Stored;
use super::{Answer, respond};

/// The path by which a request comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// `/v1/events`: the contract's events, and CloudEvents where the headers say so.
    Events,
    /// `/v1/events/batch`: batches of either.
    Batch,
    /// `/publish`: CloudEvents.
    CloudEvents,
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One event.
    One(One),
    /// A batch of events.
    Batch(Batch),
}

/// How one event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum One {
    /// As the contract's event.
    Contract,
    /// As a CloudEvent in binary mode.
    Binary,
    /// As a CloudEvent in structured mode.
    Structured,
}

/// How the events of a batch are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// As the contract's events.
    Contract,
    /// As CloudEvents.
    CloudEvents,
}

impl Form {
    /// The form of the request with these headers.
    pub(super) fn of(door: Door, headers: &HeaderMap) -> Self {
        match (door, Mode::of(headers)) {
            (Door::Events, None) => Self::One(One::Contract),
            (Door::Batch, None) => Self::Batch(Batch::Contract),
            // What it lacks is told when it is read.
            (Door::CloudEvents, None) | (_, Some(Mode::Binary)) => Self::One(One::Binary),
            (_, Some(Mode::Structured)) => Self::One(One::Structured),
            (_, Some(Mode::Batched)) => Self::Batch(Batch::CloudEvents),
        }
    }

    /// The request is refused as a whole: in the contract's words, or for one CloudEvent in a line
    /// of text.
    pub(super) fn refusal(self, refusal: &Refusal) -> Answer {
        match self {
            Self::One(One::Binary | One::Structured) => respond::refusal_text(refusal),
            Self::One(One::Contract) | Self::Batch(_) => respond::refusal(refusal),
        }
    }
}

impl One {
    /// Reads the event.
    pub(super) fn read(
        self,
        head: &request::Parts,
        body: Bytes,
        request: &RequestHead<'_>,
    ) -> Result<Submission, Refusal> {
        match self {
            Self::Contract => contract::decode(body, request),
            Self::Binary => cloudevents::decode_binary(&head.headers, body, request),
            Self::Structured => cloudevents::decode_structured(&head.headers, body, request),
        }
    }

    /// The answer: the contract's, or as the Kyma publisher proxy answers a CloudEvent, without a
    /// body.
    pub(super) fn answer(self, stored: &Stored) -> Answer {
        match self {
            Self::Contract => respond::stored(stored),
            Self::Binary | Self::Structured => respond::stored_silently(stored),
        }
    }
}

impl Batch {
    /// Reads the events.
    pub(super) fn read(
        self,
        head: &request::Parts,
        body: Bytes,
        request: &RequestHead<'_>,
        limits: BatchLimits,
    ) -> Result<Submissions, Refusal> {
        match self {
            Self::Contract => contract::decode_batch(body, request, limits),
            Self::CloudEvents => cloudevents::decode_batch(&head.headers, body, request, limits),
        }
    }
}

/// Does the query ask for all or none?
pub(super) fn is_atomic(query: Option<&str>) -> Result<bool, Refusal> {
    let mut atomic = false;
    for pair in query.unwrap_or_default().split('&') {
        let (name, word) = pair.split_once('=').unwrap_or((pair, ""));
        if !name.eq_ignore_ascii_case("atomic") {
            continue;
        }
        // Not understood must not mean no: who asks for all or none would get some.
        atomic = word.parse().map_err(|_| Refusal::wrong("atomic", "true or false"))?;
    }
    Ok(atomic)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_form_is_told_by_the_path_and_the_headers() {
        let batch = "application/cloudevents-batch+json";
        let structured = "application/cloudevents+json";
        let (one, many) = (Form::One, Form::Batch);
        for (door, media_type, form, with_header) in [
            (Door::Events, "application/json", one(One::Contract), one(One::Binary)),
            (Door::Batch, "application/x-ndjson", many(Batch::Contract), one(One::Binary)),
            (Door::CloudEvents, "application/json", one(One::Binary), one(One::Binary)),
            (Door::Events, batch, many(Batch::CloudEvents), many(Batch::CloudEvents)),
            (Door::Batch, batch, many(Batch::CloudEvents), many(Batch::CloudEvents)),
            (Door::CloudEvents, structured, one(One::Structured), one(One::Structured)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static(media_type));
            assert_eq!(Form::of(door, &headers), form, "{door:?} {media_type}");
            headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
            assert_eq!(Form::of(door, &headers), with_header, "{door:?} {media_type}");
        }
    }

    #[test]
    fn atomic_is_asked_for_in_the_query() {
        for (query, atomic) in
            [(None, false), (Some("a=b&ATOMIC=true"), true), (Some("atomic=false"), false)]
        {
            assert_eq!(is_atomic(query), Ok(atomic));
        }
        for unclear in ["atomic=yes", "atomic", "a&atomic=&b"] {
            assert!(is_atomic(Some(unclear)).is_err(), "{unclear}");
        }
    }
}
