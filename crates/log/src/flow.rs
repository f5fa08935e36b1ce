//! Between writer, syncer and router: how far the log is written, synced and visible.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventbus_core::cursor::Spot;
use eventbus_core::{Event, Position, TopicHash};

use crate::disk::DiskFile;
use crate::queue::{Placed, Reply};
use crate::signal::Signal;

/// Where the log stands.
#[derive(Default)]
pub(crate) struct Flow {
    state: Mutex<FlowState>,
    /// Wakes the syncer.
    pub(crate) sync: Signal,
    /// Wakes the router.
    pub(crate) route: Signal,
}

/// The hand-off. Positions only grow, and `synced` ≤ `written`. Readers see none above `written`
/// but those that were left out before the log was opened.
#[derive(Default)]
pub(crate) struct FlowState {
    /// The operating system has everything up to here.
    pub(crate) written: Position,
    /// The disk has everything up to here.
    pub(crate) synced: Position,
    /// Somebody waits until this is synced.
    pub(crate) wanted: Position,
    /// Since when something is written and not synced.
    pub(crate) unsynced_since: Option<Duration>,
    /// Files with writes that are not synced, the oldest first.
    pub(crate) files: Vec<Arc<dyn DiskFile>>,
    /// Written and not yet given to the router.
    pub(crate) commits: VecDeque<Commit>,
    /// Appends that wait for a sync, by position.
    pub(crate) waiting: VecDeque<Waiting>,
}

/// An append that waits until `last` is synced.
pub(crate) struct Waiting {
    pub(crate) last: Position,
    pub(crate) placed: Placed,
    pub(crate) reply: Reply,
}

/// Events that were written together.
pub(crate) struct Commit {
    pub(crate) last: Position,
    pub(crate) committed_ms: u64,
    /// Was any of its events asked to be synced? Then no reader sees the commit before that.
    pub(crate) needs_sync: bool,
    pub(crate) events: Vec<Committed>,
}

/// An event of a commit.
pub(crate) struct Committed {
    pub(crate) spot: Spot,
    pub(crate) topic_hash: TopicHash,
    pub(crate) event: Arc<Event>,
    /// Bytes of the stored event.
    pub(crate) length: usize,
    /// Does it stay in memory?
    pub(crate) cached: bool,
}

impl Flow {
    pub(crate) fn state(&self) -> MutexGuard<'_, FlowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FlowState {
    /// Takes the commits that every reader may see.
    pub(crate) fn take_visible(&mut self) -> Vec<Commit> {
        let synced = self.synced;
        let visible = |commit: &Commit| !commit.needs_sync || commit.last <= synced;
        let count = self.commits.iter().take_while(|commit| visible(commit)).count();
        self.commits.drain(..count).collect()
    }

    /// Takes the appends that were waiting for what is synced now.
    pub(crate) fn take_synced(&mut self) -> Vec<Waiting> {
        let synced = self.synced;
        let count = self.waiting.iter().take_while(|waiting| waiting.last <= synced).count();
        self.waiting.drain(..count).collect()
    }
}
