//! Delayed events on their way in: each is kept whole, under a schedule of the server's, until it
//! is due.
//!
//! The key of its subject is made of the publisher's id where there is one, so that the server
//! itself refuses a second of them while the first waits. What is due: see [`crate::due`].

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use eventbus_core::broker::AppendError;
use eventbus_core::{Event, Receipt, limits};
use serde::Deserialize;
use serde_json::json;

use crate::api::{ApiError, code};
use crate::shared::Shared;
use crate::{stored, streams, subject};

/// Headers by which the server stores only what is the first of its kind.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
const EXPECTED_OF: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// A header with what it cannot be. The server looks whether it knows the id before it refuses
/// this: so it can be asked, and nothing is stored.
const ROLLUP: &str = "Nats-Rollup";
const NO_ROLLUP: &str = "none";

/// How long what was heard of the room for delayed events is believed.
const ROOM_TIME: Duration = Duration::from_secs(1);

/// How much waits, as last heard and counted on since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Room {
    #[serde(rename = "messages")]
    events: u64,
    bytes: u64,
    #[serde(skip)]
    heard_at: Option<Duration>,
}

#[derive(Deserialize)]
struct FoundStream {
    state: Room,
}

impl Room {
    fn is_stale(&self, now: Duration) -> bool {
        self.heard_at.is_none_or(|heard_at| now.saturating_sub(heard_at) >= ROOM_TIME)
    }

    /// Takes room for an event, if there is any.
    fn take(&mut self, bytes: u64) -> Result<(), AppendError> {
        let Self { events, bytes: used_bytes, .. } = *self;
        let max_bytes = limits::DELAYED_BYTES;
        if events >= limits::DELAYED_EVENTS || used_bytes.saturating_add(bytes) > max_bytes {
            return Err(AppendError::DelaysFull { bytes: used_bytes });
        }
        self.events += 1;
        self.bytes += bytes;
        Ok(())
    }
}

impl Shared {
    /// Keeps an event until `due_ms`.
    pub(crate) async fn delay(&self, event: Event, due_ms: u64) -> Result<Receipt, AppendError> {
        let bytes = stored::message_bytes(&event) as u64;
        let failed = |error| self.append_error(error, bytes);
        if event.id_given && self.is_known(&event).await.map_err(failed)? {
            return Ok(Receipt::Duplicate);
        }
        if let Err(refused) = self.take_room(bytes).await {
            // A repeat of what waits needs no room.
            let waits = event.id_given && self.waits(&event).await.map_err(failed)?;
            return if waits { Ok(Receipt::Duplicate) } else { Err(refused) };
        }
        self.put(event, due_ms).await.map_err(failed)
    }

    /// Does an event of this id wait?
    async fn waits(&self, event: &Event) -> Result<bool, ApiError> {
        let wanted = json!({ "last_by_subj": subject::delayed(&self.key(event)) });
        Ok(self.api.get(streams::DELAY, &wanted).await?.is_some())
    }

    async fn put(&self, event: Event, due_ms: u64) -> Result<Receipt, ApiError> {
        let key = self.key(&event);
        let mut headers = HeaderMap::new();
        headers.insert(stored::HEAD.clone(), stored::head(&event));
        headers.insert(EXPECTED, "0");
        headers.insert(EXPECTED_OF, subject::delayed(&key));
        self.schedule(&mut headers, due_ms, subject::delay_due(&key));
        match self.api.publish(subject::delay_scheduled(&key), headers, event.payload).await {
            Err(error) if error.is(code::WRONG_LAST_SEQUENCE) => Ok(Receipt::Duplicate),
            kept => kept.map(|_| Receipt::Delayed),
        }
    }

    /// What tells a delayed event from all others that wait.
    fn key(&self, event: &Event) -> String {
        match event.deduplication_hash() {
            0 => format!("{:016x}{:016x}", self.entropy.next_u64(), self.entropy.next_u64()),
            hash => format!("{hash:032x}"),
        }
    }

    /// Is an event of this id stored, as far as the server remembers?
    async fn is_known(&self, event: &Event) -> Result<bool, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(stored::MESSAGE_ID, stored::message_id(event));
        headers.insert(ROLLUP, NO_ROLLUP);
        let subject = subject::event(&event.interest());
        match self.api.publish(subject, headers, Bytes::new()).await {
            Ok(answer) => Ok(answer.duplicate),
            Err(error) if error.is(code::ROLLUP_FAILED) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The stream itself must not be limited: what falls due has to find a place in it before what
    /// waited leaves.
    async fn take_room(&self, bytes: u64) -> Result<(), AppendError> {
        let mut room = self.delayed.lock().await;
        let now = self.clock.elapsed();
        if room.is_stale(now) {
            let found = self.hear_of_delayed().await;
            let found = found.map_err(|error| AppendError::Unavailable(error.to_string()))?;
            *room = Room { heard_at: Some(now), ..found };
        }
        room.take(bytes)
    }

    /// How much waits to be due.
    pub(crate) async fn hear_of_delayed(&self) -> Result<Room, ApiError> {
        let verb = format!("STREAM.INFO.{}", streams::DELAY);
        let FoundStream { state } = self.api.call(&verb, &json!({})).await?;
        self.telemetry.waits(state.events, state.bytes);
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_has_its_limits() {
        let empty: FoundStream =
            serde_json::from_str(r#"{"state":{"messages":0,"bytes":0,"num_subjects":1}}"#).unwrap();
        let mut room = empty.state;
        assert!(room.is_stale(Duration::ZERO), "nothing was heard yet");
        let most = limits::DELAYED_BYTES;
        assert!(room.take(most + 1).is_err());
        assert_eq!(room.take(most), Ok(()));
        let full = AppendError::DelaysFull { bytes: most };
        assert_eq!(room.take(1), Err(full));
        let mut room = Room { events: limits::DELAYED_EVENTS - 1, ..Room::default() };
        assert_eq!(room.take(1), Ok(()));
        assert!(room.take(1).is_err());
    }

    #[test]
    fn what_was_heard_is_believed_for_some_time() {
        let room = Room { heard_at: Some(ROOM_TIME), ..Room::default() };
        assert!(!room.is_stale(ROOM_TIME) && !room.is_stale(Duration::ZERO));
        assert!(room.is_stale(ROOM_TIME * 2));
    }
}
