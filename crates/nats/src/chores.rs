//! What is left to be said to the server by nobody in particular: events that are given back,
//! events that are not there any more.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use eventbus_core::Position;
use tokio::sync::Notify;

use crate::cursor::Origin;

/// The server's words for the end of a delivery, and for one that goes on.
pub(crate) const ACK: &str = "+ACK";
pub(crate) const NAK: &str = "-NAK";
pub(crate) const IN_PROGRESS: &str = "+WPI";

/// Something to be said.
#[derive(Debug)]
pub(crate) enum Chore {
    /// An event is to be leased again, by whomever.
    GiveBack(Origin),
    /// An event whose retry is due is not stored any more: it is counted as lost, and settled.
    Lost {
        /// The consumers of the cursor that lost it.
        consumer: String,
        /// Where it was.
        position: Position,
        /// Where its retry came from.
        origin: Origin,
    },
    /// The server knows nothing of a cursor's consumer: is it there?
    Examine {
        /// The number of the cursor.
        cursor: u64,
    },
}

/// What waits to be said. As much as was leased, at most.
#[derive(Default)]
pub(crate) struct Chores {
    waiting: Mutex<VecDeque<Chore>>,
    pub(crate) notify: Notify,
}

impl Chores {
    pub(crate) fn push(&self, chore: Chore) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(chore);
        self.notify.notify_one();
    }

    pub(crate) fn take(&self) -> VecDeque<Chore> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
