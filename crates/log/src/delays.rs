//! Delayed events on their way to the vault: prepared by the publisher's thread, taken by the
//! delayer's.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use eventbus_core::broker::AppendError;
use eventbus_core::{Durability, Event, Receipt, limits};
use tokio::sync::oneshot;

use crate::shared::Shared;
use crate::signal::Signal;
use crate::vault::{self, Waiting};

/// An event to be kept until it is due.
pub(crate) struct Delay {
    pub(crate) due_ms: u64,
    /// [`Event::deduplication_hash`] where its publisher gave it an id.
    pub(crate) id: Option<u128>,
    /// The event as the log stores it.
    pub(crate) event: Vec<u8>,
    pub(crate) reply: oneshot::Sender<Result<Receipt, AppendError>>,
}

/// The bounded queue before the delayer.
#[derive(Default)]
pub(crate) struct Delays {
    state: Mutex<State>,
    ids: Mutex<HashSet<u128>>,
    pub(crate) signal: Signal,
}

#[derive(Default)]
struct State {
    queued: Vec<Delay>,
    bytes: usize,
    closed: Option<String>,
    /// What the vault holds, as the delayer told last.
    kept: Waiting,
}

impl Delays {
    fn push(&self, delay: Delay) -> Result<(), AppendError> {
        let mut state = self.state();
        if let Some(reason) = &state.closed {
            return Err(AppendError::Unavailable(reason.clone()));
        }
        let bytes = state.bytes + delay.event.len();
        let crowded = state.queued.len() >= limits::DELAY_QUEUE_EVENTS
            || bytes > limits::DELAY_QUEUE_BYTES && !state.queued.is_empty();
        if crowded {
            let reason = "too many delayed events wait to be kept: the disk does not keep up";
            return Err(AppendError::Unavailable(reason.into()));
        }
        state.bytes = bytes;
        state.queued.push(delay);
        drop(state);
        self.signal.raise();
        Ok(())
    }

    /// Takes all of them: they are kept by one sync.
    pub(crate) fn take(&self) -> Vec<Delay> {
        let mut state = self.state();
        state.bytes = 0;
        std::mem::take(&mut state.queued)
    }

    /// Takes note of what the vault holds, for who asks.
    pub(crate) fn note(&self, kept: Waiting) {
        self.state().kept = kept;
    }

    /// What the vault holds, as last known.
    pub(crate) fn kept(&self) -> Waiting {
        self.state().kept
    }

    /// Refuses everything from now on, for this reason; what is queued stays.
    pub(crate) fn close(&self, reason: &str) {
        self.state().closed.get_or_insert_with(|| reason.to_owned());
        self.signal.raise();
    }

    /// The ids of those that the vault holds: what is published under one of them is a repeat. One
    /// is here from when it is durable there until it is stored.
    pub(crate) fn ids(&self) -> MutexGuard<'_, HashSet<u128>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These ids wait no more. What a burst needed is not kept for ever.
    pub(crate) fn forget(&self, stored: impl Iterator<Item = u128>) {
        let mut ids = self.ids();
        for id in stored {
            ids.remove(&id);
        }
        if ids.len() < ids.capacity() / 4 {
            let room = ids.len() * 2;
            ids.shrink_to(room);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that the delayer waits for has come.
impl Wake for Delays {
    fn wake(self: Arc<Self>) {
        self.signal.raise();
    }
}

impl Shared {
    /// Queues an event for the delayer. Encoded here, on the publisher's thread.
    pub(crate) fn begin_delay(
        &self,
        event: &Event,
        due_ms: u64,
        durability: Durability,
    ) -> Result<oneshot::Receiver<Result<Receipt, AppendError>>, AppendError> {
        if durability > Durability::Synced {
            return Err(AppendError::Durability(durability));
        }
        let id = event.id_given.then(|| event.deduplication_hash());
        let event = vault::whole(event);
        self.fits(event.len())?;
        let (reply, answer) = oneshot::channel();
        self.delays.push(Delay { due_ms, id, event, reply })?;
        Ok(answer)
    }
}
