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
    /// One event of the contract.
    Event,
    /// A batch of them.
    Batch,
    /// CloudEvents in this mode.
    CloudEvents(Mode),
}

impl Form {
    /// The form of the request with these headers.
    pub(super) fn of(door: Door, headers: &HeaderMap) -> Self {
        match (door, Mode::of(headers)) {
            (Door::Events, None) => Self::Event,
            (Door::Batch, None) => Self::Batch,
            // What it lacks is told when it is read.
            (Door::CloudEvents, None) => Self::CloudEvents(Mode::Binary),
            (_, Some(mode)) => Self::CloudEvents(mode),
        }
    }

    pub(super) fn is_batch(self) -> bool {
        matches!(self, Self::Batch | Self::CloudEvents(Mode::Batched))
    }

    /// Reads the one event of a request.
    pub(super) fn event(
        self,
        head: &request::Parts,
        body: Bytes,
        request: &RequestHead<'_>,
    ) -> Result<Submission, Refusal> {
        match self {
            Self::Event | Self::Batch => contract::decode(body, request),
            Self::CloudEvents(mode) => cloudevents::decode(mode, &head.headers, body, request),
        }
    }

    /// Reads the events of a batch.
    pub(super) fn batch(
        self,
        head: &request::Parts,
        body: Bytes,
        request: &RequestHead<'_>,
        limits: BatchLimits,
    ) -> Result<Submissions, Refusal> {
        match self {
            Self::Event | Self::Batch => contract::decode_batch(body, request, limits),
            Self::CloudEvents(_) => cloudevents::decode_batch(&head.headers, body, request, limits),
        }
    }

    /// The answer for one event: the contract's, or as the Kyma publisher proxy answers a
    /// CloudEvent, without a body.
    pub(super) fn answer(self, stored: &Stored) -> Answer {
        match self {
            Self::Event | Self::Batch => respond::stored(stored),
            Self::CloudEvents(_) => respond::stored_silently(stored),
        }
    }

    /// The request is refused as a whole: in the contract's words, or for one CloudEvent in a line
    /// of text.
    pub(super) fn refusal(self, refusal: &Refusal) -> Answer {
        match self {
            Self::CloudEvents(Mode::Binary | Mode::Structured) => respond::refusal_text(refusal),
            Self::Event | Self::Batch | Self::CloudEvents(Mode::Batched) => {
                respond::refusal(refusal)
            }
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
        atomic = word
            .parse()
            .map_err(|_| Refusal::Wrong { field: "atomic".into(), why: "true or false".into() })?;
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
        for (door, media_type, form) in [
            (Door::Events, "application/json", Form::Event),
            (Door::Batch, "application/x-ndjson", Form::Batch),
            (Door::CloudEvents, "application/json", Form::CloudEvents(Mode::Binary)),
            (Door::Events, batch, Form::CloudEvents(Mode::Batched)),
            (Door::Batch, batch, Form::CloudEvents(Mode::Batched)),
            (Door::CloudEvents, structured, Form::CloudEvents(Mode::Structured)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static(media_type));
            assert_eq!(Form::of(door, &headers), form, "{door:?} {media_type}");
            headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
            let is_cloud_event = matches!(Form::of(door, &headers), Form::CloudEvents(_));
            assert!(is_cloud_event, "{door:?} {media_type}");
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
