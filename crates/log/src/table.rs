//! The cursors of a log, and the router that tells them of new events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventbus_core::broker::CursorId;
use eventbus_core::cursor::Spot;
use eventbus_core::{Position, Stored, TopicHash};

use crate::cursor::LogCursor;
use crate::flow::Commit;
use crate::shared::Shared;
use crate::signal::{Next, Now};

/// All cursors. Its lock may be held while a cursor's is taken, never the other way round.
#[derive(Default)]
pub(crate) struct Table {
    state: Mutex<TableState>,
}

/// The cursors, by everything they are looked up by.
#[derive(Default)]
pub(crate) struct TableState {
    pub(crate) by_id: BTreeMap<CursorId, Arc<LogCursor>>,
    pub(crate) by_number: BTreeMap<u64, Arc<LogCursor>>,
    by_topic_hash: BTreeMap<TopicHash, Vec<Arc<LogCursor>>>,
    /// Everything up to here was offered to the cursors.
    pub(crate) visible: Position,
    pub(crate) last_number: u64,
}

impl Table {
    pub(crate) fn state(&self) -> MutexGuard<'_, TableState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn numbered(&self, number: u64) -> Option<Arc<LogCursor>> {
        self.state().by_number.get(&number).cloned()
    }

    /// Lets go of every cursor: they and the log know each other.
    pub(crate) fn clear(&self) {
        *self.state() = TableState::default();
    }

    pub(crate) fn all(&self) -> Vec<Arc<LogCursor>> {
        self.state().by_number.values().cloned().collect()
    }
}

impl TableState {
    pub(crate) fn insert(&mut self, cursor: Arc<LogCursor>) {
        self.last_number = self.last_number.max(cursor.number);
        self.listen(cursor.topic_hash(), cursor.clone());
        self.by_number.insert(cursor.number, cursor.clone());
        self.by_id.insert(cursor.id.clone(), cursor);
    }

    pub(crate) fn remove(&mut self, id: &CursorId) -> Option<Arc<LogCursor>> {
        let cursor = self.by_id.remove(id)?;
        self.by_number.remove(&cursor.number);
        self.unlisten(cursor.topic_hash(), cursor.number);
        Some(cursor)
    }

    /// Offers events of `topic_hash` to the cursor from now on.
    pub(crate) fn listen(&mut self, topic_hash: TopicHash, cursor: Arc<LogCursor>) {
        self.by_topic_hash.entry(topic_hash).or_default().push(cursor);
    }

    /// Offers no more events of `topic_hash` to the cursor.
    pub(crate) fn unlisten(&mut self, topic_hash: TopicHash, number: u64) {
        if let Some(cursors) = self.by_topic_hash.get_mut(&topic_hash) {
            cursors.retain(|cursor| cursor.number != number);
            if cursors.is_empty() {
                self.by_topic_hash.remove(&topic_hash);
            }
        }
    }
}

/// Tells the cursors what is visible.
pub(crate) struct Router {
    shared: Arc<Shared>,
    /// What the step has to offer; empty between steps.
    by_topic_hash: BTreeMap<TopicHash, Vec<Spot>>,
    /// Emptied buffers for the next steps.
    spare: Vec<Vec<Spot>>,
}

impl Router {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, by_topic_hash: BTreeMap::new(), spare: Vec::new() }
    }

    /// Offers every commit that became visible, and wakes each cursor that took something once.
    pub(crate) fn step(&mut self, _: Now) -> Next {
        let commits = self.shared.flow.state().take_visible();
        let Some(last) = commits.last().map(|commit| commit.last) else { return Next::Sleep };
        for commit in commits {
            self.take(commit);
        }
        let mut woken = Vec::new();
        let mut table = self.shared.table.state();
        while let Some((topic_hash, mut spots)) = self.by_topic_hash.pop_first() {
            for cursor in table.by_topic_hash.get(&topic_hash).into_iter().flatten() {
                if cursor.offer(&spots) {
                    woken.push(cursor.clone());
                }
            }
            if self.spare.len() < SPARE_BUFFERS && spots.capacity() <= SPARE_SPOTS {
                spots.clear();
                self.spare.push(spots);
            }
        }
        table.visible = last;
        drop(table);
        for cursor in woken {
            cursor.wake();
        }
        Next::Again
    }

    /// Moves a commit's events into the tail cache and sorts their spots by topic hash.
    fn take(&mut self, commit: Commit) {
        let Self { by_topic_hash, spare, .. } = self;
        let committed_ms = commit.committed_ms;
        self.shared.tail.add(commit.events.into_iter().filter_map(|committed| {
            let spots = by_topic_hash.entry(committed.topic_hash);
            spots.or_insert_with(|| spare.pop().unwrap_or_default()).push(committed.spot);
            let (position, event) = (committed.spot.position, committed.event);
            let stored = Stored { position, event, committed_ms };
            committed.cached.then_some((stored, committed.length))
        }));
    }
}

/// Buffers kept from step to step: as many as there are topic hashes in most steps.
const SPARE_BUFFERS: usize = 64;

/// Spots for which a kept buffer has room: what one burst needed is not kept for ever.
const SPARE_SPOTS: usize = 4_096;
