//! The second stage of a commit: the only sync on the road of an event.
//!
//! While one sync runs the writer waits, unless there is much to write: so a sync carries all that
//! was published while the one before it ran. Where there are many publishers it waits a little
//! longer still.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::limits;

use crate::shared::Shared;
use crate::signal::{Next, Now};

/// Syncs what is written.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    hold: Hold,
}

/// For how long the writer is held after a sync.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// Not at all.
    No,
    /// For so long, from the next step on.
    For(Duration),
    /// Until the next step: the pause is over, or something was written all the same.
    Over,
}

impl Syncer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, hold: Hold::No }
    }

    /// Syncs, when somebody waits for it or something has waited long enough.
    pub(crate) fn step(&mut self, now: Now) -> Next {
        match std::mem::replace(&mut self.hold, Hold::No) {
            Hold::For(pause) if !self.is_last() => {
                self.hold = Hold::Over;
                return Next::SleepFor(pause);
            }
            Hold::For(_) | Hold::Over => self.shared.queue.hold(false),
            Hold::No => {}
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
        let took = self.shared.clock.elapsed().saturating_sub(now.elapsed);
        self.shared.telemetry.syncs.took(took);
        let synced = {
            let mut state = self.shared.flow.state();
            state.synced = target;
            state.unsynced_since = (state.written > target).then_some(now.elapsed);
            // All but the last are full: nothing more is written into them.
            let full = files.len().saturating_sub(1);
            state.files.drain(..full);
            state.take_synced()
        };
        let pause = limits::SYNC_PACE.saturating_sub(took);
        if synced.len() >= limits::PACED_APPENDS && !pause.is_zero() {
            self.hold = Hold::For(pause);
        } else {
            self.shared.queue.hold(false);
        }
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
