//! The second stage of a commit: the only sync on the road of an event.
//!
//! While one sync runs the writer writes the next commit, so a sync carries everything that was
//! written while the one before it ran.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::limits;

use crate::shared::Shared;
use crate::signal::{Next, Now};

/// Syncs what is written.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
}

impl Syncer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Syncs, when somebody waits for it or something has waited long enough.
    pub(crate) fn step(&mut self, now: Now) -> Next {
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
        self.shared.queue.hold(false);
        if let Err(error) = result {
            self.shared.poison(format!("a sync of the log failed: {error}"));
            return Next::Sleep;
        }
        self.shared.telemetry.syncs.took(self.shared.clock.elapsed().saturating_sub(now.elapsed));
        let synced = {
            let mut state = self.shared.flow.state();
            state.synced = target;
            state.unsynced_since = (state.written > target).then_some(now.elapsed);
            // All but the last are full: nothing more is written into them.
            let full = files.len().saturating_sub(1);
            state.files.drain(..full);
            state.take_synced()
        };
        for waiting in synced {
            let _ = waiting.reply.send(Ok(waiting.placed));
        }
        self.shared.flow.route.raise();
        Next::Again
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
