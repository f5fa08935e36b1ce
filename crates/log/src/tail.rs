//! The events published last, in memory: what a subscriber who keeps up is given.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eventbus_core::{Position, Stored};

/// What an event costs in memory beside its bytes: its struct, its entry here, its allocations.
const EVENT_OVERHEAD_BYTES: usize = 512;

/// The youngest events, up to a number of bytes.
pub(crate) struct Tail {
    state: Mutex<State>,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    events: VecDeque<(Stored, usize)>,
    bytes: usize,
}

impl Tail {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), max_bytes }
    }

    /// Adds events in the order of their positions, each with the bytes it has on disk.
    pub(crate) fn add(&self, events: impl Iterator<Item = (Stored, usize)>) {
        let mut state = self.state();
        for (stored, bytes) in events {
            let bytes = bytes + EVENT_OVERHEAD_BYTES;
            state.bytes += bytes;
            state.events.push_back((stored, bytes));
        }
        while state.bytes > self.max_bytes
            && let Some((_, bytes)) = state.events.pop_front()
        {
            state.bytes -= bytes;
        }
    }

    /// Looks each position up, in one go.
    pub(crate) fn get(
        &self,
        positions: impl Iterator<Item = Position>,
        mut each: impl FnMut(Position, Option<&Stored>),
    ) {
        let state = self.state();
        for position in positions {
            each(position, state.find(position));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&self, position: Position) -> Option<&Stored> {
        let (first, _) = self.events.front()?;
        // Positions have no holes but after a failed write, so the guess is nearly always right.
        let guess = usize::try_from(position.0.checked_sub(first.position.0)?).ok()?;
        if let Some((stored, _)) = self.events.get(guess)
            && stored.position == position
        {
            return Some(stored);
        }
        let at = self.events.binary_search_by_key(&position, |(stored, _)| stored.position).ok()?;
        self.events.get(at).map(|(stored, _)| stored)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use eventbus_core::testing::event;

    fn found(tail: &Tail, position: u64) -> bool {
        let mut found = false;
        let position = Position(position);
        tail.get(std::iter::once(position), |_, stored| {
            found = stored.is_some_and(|stored| stored.position == position);
        });
        found
    }

    #[test]
    fn the_youngest_are_kept_and_holes_do_no_harm() {
        let tail = Tail::new(4 * (EVENT_OVERHEAD_BYTES + 100));
        let event = Arc::new(event("a", "x"));
        for position in [3, 4, 7, 8, 9] {
            let position = Position(position);
            let stored = Stored { position, event: event.clone(), committed_ms: 1 };
            tail.add(std::iter::once((stored, 100)));
        }
        let there: Vec<u64> = (0..12).filter(|position| found(&tail, *position)).collect();
        assert_eq!(there, [4, 7, 8, 9]);
    }
}
