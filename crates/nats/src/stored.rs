//! The event as it lies in the stream, and the reference to one that waits for its retry.
//!
//! The payload is the message's body, byte for byte as published: it is never copied, and whoever
//! looks at the stream with other tools can read it. Everything else about the event stands in one
//! header.

use std::sync::Arc;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, HeaderName};
use base64::Engine;
use base64::alphabet::{self, Alphabet};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use bytes::Bytes;
use eventbus_core::Event;
use eventbus_core::delivery::Tried;
use eventbus_core::wire::stored;
use serde::{Deserialize, Serialize};

/// The header that holds the head of an event (`core::wire::stored`), in base64.
pub(crate) static HEAD: HeaderName = HeaderName::from_static("Eventbus-Head");

/// The server's header by which it knows a repeat.
pub(crate) const MESSAGE_ID: HeaderName = NATS_MESSAGE_ID;

/// Base64 with a dot in place of `N`. The server looks through an event's headers for each of its
/// own, some twenty, whose names all begin with that letter: it would stop at every one of ours.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &match Alphabet::new("ABCDEFGHIJKLM.OPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
        Ok(without) => without,
        Err(_) => alphabet::STANDARD,
    },
    NO_PAD,
);

/// The headers of an event that is stored.
pub(crate) fn headers(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEAD.clone(), head(event));
    if event.id_given {
        headers.insert(MESSAGE_ID, message_id(event));
    }
    headers
}

/// The value of [`HEAD`].
pub(crate) fn head(event: &Event) -> String {
    let mut head = Vec::with_capacity(256);
    stored::encode_head(event, &mut head);
    BASE64.encode(head)
}

/// By what the server knows an event again whose publisher gave it an id.
pub(crate) fn message_id(event: &Event) -> String {
    BASE64.encode(event.deduplication_hash().to_be_bytes())
}

/// What the server counts of an event that is stored, at most: its payload, its head in base64, and
/// the names of all headers that may go with it.
pub(crate) fn message_bytes(event: &Event) -> usize {
    event.payload.len() + stored::head_bytes(event).div_ceil(3) * 4 + HEADER_NAMES_BYTES
}

/// Names, message id, and what an atomic batch or a schedule adds.
const HEADER_NAMES_BYTES: usize = 512;

/// Reads an event back; says why that cannot be done.
pub(crate) fn event(headers: Option<&HeaderMap>, payload: Bytes) -> Result<Arc<Event>, String> {
    let head = headers.and_then(|headers| headers.get(HEAD.clone()));
    let head = head.ok_or_else(|| format!("it has no header {HEAD}"))?;
    let head = BASE64.decode(head.as_str()).map_err(|error| format!("{HEAD}: {error}"))?;
    let mut event = stored::decode(&head.into()).map_err(|error| error.to_string())?;
    event.payload = payload;
    Ok(Arc::new(event))
}

/// An event that waits for its retry: where it is, and what was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// Its position.
    pub(crate) position: u64,
    /// When it was stored: milliseconds since 1970.
    pub(crate) committed_ms: u64,
    /// The attempts made.
    #[serde(flatten)]
    pub(crate) tried: Tried,
}

#[cfg(test)]
mod tests {
    use eventbus_core::delivery::{Attempt, Outcome};
    use eventbus_core::{limits, testing};

    use super::*;

    #[test]
    fn an_event_is_read_back_and_its_payload_is_not_touched() {
        for id_given in [true, false] {
            let before = Event { id_given, ..testing::event("order.created", "{\"a\": 1}") };
            let headers = headers(&before);
            assert_eq!(headers.get(MESSAGE_ID).is_some(), id_given);
            for (_, values) in headers.iter() {
                assert!(values.iter().all(|value| !value.as_str().contains('N')), "{headers:?}");
            }
            let after = event(Some(&headers), before.payload.clone()).unwrap();
            assert_eq!(*after, before);
            assert_eq!(after.payload.as_ptr(), before.payload.as_ptr());
        }
        assert!(event(None, Bytes::new()).unwrap_err().contains("Eventbus-Head"));
    }

    #[test]
    fn a_reference_remembers_the_last_attempts() {
        let mut tried = Tried::default();
        for number in 0..12 {
            tried = tried.and(Some(Attempt::new(number * 1000, 5, Outcome::Timeout)));
        }
        tried = tried.and(None);
        assert_eq!((tried.attempts, tried.last.len()), (12, limits::ATTEMPTS_REMEMBERED));
        assert_eq!(tried.last[0].at_s, 2);
        let reference = Reference { position: 7, committed_ms: 9, tried };
        let text = serde_json::to_string(&reference).unwrap();
        assert!(text.starts_with(r#"{"position":7,"committed_ms":9,"attempts":12,"last":[[2,5,"#));
        assert_eq!(serde_json::from_str::<Reference>(&text).unwrap(), reference);
    }
}
