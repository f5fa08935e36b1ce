//! The second stage of a commit: the only sync on the road of an event.
//!
//! While one sync runs the writer waits, unless there is much to write: so a sync carries everything
//! that was published while the one before it ran. Where there are many publishers it waits a little
//! longer still.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::limits;

use crate::shared::Shared;
use crate::signal::{Next, Now};

/// Syncs what is written.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    /// The writer is held, after a sync, until then.
    held_until: Option<Duration>,
}

impl Syncer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, held_until: None }
    }

    /// Syncs, when somebody waits for it or something has waited long enough.
    pub(crate) fn step(&mut self, now: Now) -> Next {
        if let Some(left) = self.is_held(now) {
            return Next::SleepFor(left);
        }
        let (target, files) = {
            let state = self.shared.flow.state();
            if state.written <= state.synced || self.shared.health.failed().is_some() {
                return Next::Sleep;
            }
            let due = state.unsynced_since.map_or(Duration::ZERO, |at| at + limits::SYNC_TIME);
            if state.wanted <= state.synced && now.elapsed < due && !self.is_last() {
                return Next::SleepFor(due - now.elapsed);
            }
            (state.written, state.files.clone())
        };
        self.shared.queue.hold(true);
        let result = files.iter().try_for_each(|file| self.sync(file.as_ref()));
        if let Err(error) = result {
            self.shared.queue.hold(false);
            self.shared.poison(format!("a sync of the log failed: {error}"));
            return Next::Sleep;
        }
        self.shared.telemetry.syncs.took(self.shared.clock.elapsed().saturating_sub(now.elapsed));
        let (events, synced) = {
            let mut state = self.shared.flow.state();
            let events = target.0 - state.synced.0;
            state.synced = target;
            state.unsynced_since = (state.written > target).then_some(now.elapsed);
            // All but the last are full: nothing more is written into them.
            let full = files.len().saturating_sub(1);
            state.files.drain(..full);
            (events, state.take_synced())
        };
        self.held_until = (events >= limits::PACED_EVENTS).then(|| now.elapsed + limits::SYNC_PACE);
        if self.held_until.is_none() {
            self.shared.queue.hold(false);
        }
        for waiting in synced {
            let _ = waiting.reply.send(Ok(waiting.placed));
        }
        self.shared.flow.route.raise();
        Next::Again
    }

    /// How long the writer is still to be held: until the pause is over, or somebody waits for a
    /// sync all the same.
    fn is_held(&mut self, now: Now) -> Option<Duration> {
        let left = self.held_until?.saturating_sub(now.elapsed);
        let is_wanted = {
            let state = self.shared.flow.state();
            state.wanted > state.synced
        };
        if !left.is_zero() && !is_wanted && !self.is_last() {
            return Some(left);
        }
        self.held_until = None;
        self.shared.queue.hold(false);
        None
    }

    /// The log is closing: what is written is synced though nobody asked.
    fn is_last(&self) -> bool {
        self.shared.flow.sync.is_stopped()
    }

    fn sync(&self, file: &dyn crate::disk::DiskFile) -> std::io::Result<()> {
        #[cfg(test)]
        if self.shared.mutation == crate::simulation::Mutation::DropSync {
            return Ok(());
        }
        file.sync()
    }
}
