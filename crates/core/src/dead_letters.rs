//! Dead letters: events that were given up for one subscription, kept whole.
//!
//! A dead letter is a copy with everything that is known of it, so that it outlives the event's own
//! retention. It is put under a key of its own before the event is settled, and put again under the
//! same key after a crash in between: so there is one, and never none.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::broker::{CursorId, Position};
use crate::delivery::{DeadLetterReason, Tried};
use crate::event::Event;

/// The dead letters of a broker.
pub trait DeadLetters: Send + Sync {
    /// Up to `limit` of those of one cursor behind the position `after`, by position.
    fn page(
        &self,
        of: CursorId,
        after: Position,
        limit: NonZeroUsize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>>;

    /// The one under this key.
    fn get(&self, key: DeadLetterKey)
    -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>>;

    /// Removes the one under this key; false when there is none.
    fn remove(&self, key: DeadLetterKey) -> BoxFuture<'_, Result<bool, DeadLetterError>>;
}

/// Which dead letter: there is one at most for an event and a cursor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeadLetterKey {
    /// For whom the event was given up.
    pub cursor: CursorId,
    /// Where the event was stored.
    pub position: Position,
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which one it is.
    pub key: DeadLetterKey,
    /// The event.
    pub event: Arc<Event>,
    /// Why it was given up.
    pub reason: DeadLetterReason,
    /// When: wall-clock milliseconds since 1970.
    pub dead_ms: u64,
    /// What was tried for it.
    pub tried: Tried,
}

/// Why dead letters could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    /// The broker does not answer now.
    #[error("the broker cannot get at its dead letters now: {0}")]
    Unavailable(String),
}
