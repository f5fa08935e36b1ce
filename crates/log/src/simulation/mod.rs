//! The whole log under a seed: every step, every fault and every crash is chosen by dice, and a
//! checker that knows nothing of the log's insides compares what was promised with what is kept.

mod bus;
mod checker;
mod tests;

use std::cell::Cell;

use eventbus_core::cursor::Entry;

thread_local! {
    static MUTATION: Cell<Mutation> = const { Cell::new(Mutation::None) };
}

/// A defect put in on purpose, to see that the simulation finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    /// Says that it synced, and did not.
    DropSync,
    /// Acknowledges when written what was asked to be synced.
    AcknowledgeEarly,
    /// Writes a turn as if what is still leased were settled.
    MoveFrontierEarly,
    /// Remembers no id from before a restart.
    ForgetIds,
    /// Stores delayed events before they are due.
    StoreEarly,
    /// Takes a delayed event out of the vault before it is stored.
    RemoveFirst,
}

impl Mutation {
    /// The defect that logs opened on this thread have.
    pub(crate) fn of_this_thread() -> Self {
        MUTATION.get()
    }

    fn set(self) {
        MUTATION.set(self);
    }

    pub(crate) fn mutated(self, mut entry: Entry) -> Entry {
        if self == Self::MoveFrontierEarly {
            entry.taken.clear();
        }
        entry
    }
}
