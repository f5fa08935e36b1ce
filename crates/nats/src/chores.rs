//! What is left to be said to the server by nobody in particular: events that are given back,
//! events that are not there any more.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Something that is no event of ours is not to come again.
    StepOver(Origin),
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

/// What waits to be said: as much as came, and one examination of each cursor, at most.
#[derive(Default)]
pub(crate) struct Chores {
    waiting: Mutex<Waiting>,
    pub(crate) notify: Notify,
}

#[derive(Default)]
struct Waiting {
    chores: Vec<Chore>,
    /// The cursors that an examination waits for already.
    examined: HashSet<u64>,
}

impl Chores {
    pub(crate) fn push(&self, chore: Chore) {
        let mut waiting = self.waiting();
        if let Chore::Examine { cursor } = chore
            && !waiting.examined.insert(cursor)
        {
            return;
        }
        waiting.chores.push(chore);
        drop(waiting);
        self.notify.notify_one();
    }

    pub(crate) fn take(&self) -> Vec<Chore> {
        mem::take(&mut *self.waiting()).chores
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_examined_once_however_often_it_is_asked_for() {
        let chores = Chores::default();
        for cursor in [1, 2, 1, 1] {
            chores.push(Chore::Examine { cursor });
        }
        assert_eq!(chores.take().len(), 2);
        chores.push(Chore::Examine { cursor: 1 });
        assert_eq!(chores.take().len(), 1, "and again, once it was");
    }
}
