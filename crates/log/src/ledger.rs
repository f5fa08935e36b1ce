//! The ledger: what is settled.
//!
//! One thread writes it, in one write for all the turns that came meanwhile. A second one syncs it
//! every second, or at once when a cursor is opened. Two files take turns: when one has grown, a
//! snapshot of all cursors begins the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventbus_core::Position;
use eventbus_core::broker::CursorError;
use eventbus_core::cursor::{Ended, Turn};
use eventbus_core::limits;
use tokio::sync::oneshot;

use crate::bytes::entry::Change;
use crate::cursor::LogCursor;
use crate::disk::DiskFile;
use crate::ledger_file::{FRAMES_AT, LedgerFiles, Snapshot};
use crate::shared::Shared;
use crate::signal::{Next, Now, Signal};
use crate::telemetry::add;

/// Waiting events that a snapshot says in one turn: more of them at once are more memory. Tests
/// have many turns in a small one.
const TURN_WAITING: usize = if cfg!(test) { 2 } else { 1_024 };

/// Answers a request to the ledger.
pub(crate) type Reply = oneshot::Sender<Result<(), CursorError>>;

/// Something to be written down.
pub(crate) enum Request {
    /// A dispatcher's turn: answered when it is written.
    Turn { cursor: Arc<LogCursor>, ended: Vec<Ended>, reply: Option<Reply> },
    /// What retention took from the cursor: read from its place when it is written.
    Drop { cursor: Arc<LogCursor> },
    /// Anything else: answered when it is synced.
    Change { change: Change, reply: Option<Reply> },
}

/// The bounded queue before the ledger, and the hand-off to its syncer.
#[derive(Default)]
pub(crate) struct LedgerQueue {
    state: Mutex<QueueState>,
    pub(crate) signal: Signal,
    unsynced: Mutex<Unsynced>,
    pub(crate) sync: Signal,
}

#[derive(Default)]
struct QueueState {
    requests: VecDeque<Request>,
    closed: bool,
}

#[derive(Default)]
struct Unsynced {
    file: Option<Arc<dyn DiskFile>>,
    since: Option<Duration>,
    waiting: Vec<Reply>,
}

impl LedgerQueue {
    pub(crate) fn push(&self, request: Request) -> Result<(), CursorError> {
        let mut state = self.state();
        if state.closed {
            return Err(CursorError::Closed);
        }
        if state.requests.len() >= limits::LEDGER_QUEUE {
            let reason = "too many turns wait to be written: the disk does not keep up";
            return Err(CursorError::Unavailable(reason.into()));
        }
        state.requests.push_back(request);
        drop(state);
        self.signal.raise();
        Ok(())
    }

    /// Takes no more requests; what is queued is still written.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }

    /// Forgets what is queued, as a kill does: a queued turn keeps its cursor, and so the log.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        self.state().requests.clear();
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the ledger.
pub(crate) struct Ledger {
    shared: Arc<Shared>,
    files: LedgerFiles,
    at: u64,
    /// Bytes of the last snapshot.
    live_bytes: u64,
    /// A write failed: what is in memory must be said anew before anything else.
    must_snapshot: bool,
    buffer: Vec<u8>,
}

/// Turns that were applied and are not written yet.
#[derive(Default)]
struct Applied {
    turns: Vec<(Arc<LogCursor>, Turn, Option<Reply>)>,
    changes: Vec<Reply>,
}

impl Ledger {
    /// A ledger that goes on in `files`, whose present one must be begun by a snapshot.
    pub(crate) fn new(shared: Arc<Shared>, files: LedgerFiles) -> Self {
        let (at, live_bytes, buffer) = (FRAMES_AT, 0, Vec::new());
        Self { shared, files, at, live_bytes, must_snapshot: true, buffer }
    }

    /// Writes everything that is queued.
    pub(crate) fn step(&mut self, now: Now) -> Next {
        let requests = std::mem::take(&mut self.shared.ledger.state().requests);
        if requests.is_empty() {
            return Next::Sleep;
        }
        self.buffer.clear();
        let mut applied = Applied::default();
        for request in requests {
            self.apply(request, &mut applied);
        }
        let written = self.write(now);
        add(&self.shared.telemetry.turns, applied.turns.len() as u64);
        match written {
            Ok(()) => self.answer(applied, now),
            Err(error) => self.take_back(applied, &error),
        }
        Next::Again
    }

    fn apply(&mut self, request: Request, applied: &mut Applied) {
        match request {
            Request::Turn { cursor, ended, reply } => {
                let mut place = cursor.place();
                let mut turn = place.progress.settle(&ended);
                let (number, forgotten) = (cursor.number, place.forgotten);
                drop(place);
                if let Some(entry) = turn.entry.take()
                    && !forgotten
                {
                    #[cfg(test)]
                    let entry = self.shared.mutation.mutated(entry);
                    self.put(&Change::Turn { cursor: number, entry });
                }
                applied.turns.push((cursor, turn, reply));
            }
            Request::Drop { cursor } => {
                let (upto, dropped) = cursor.dropped();
                self.put(&Change::Drop { cursor: cursor.number, upto, dropped });
            }
            Request::Change { change, reply } => {
                self.put(&change);
                applied.changes.extend(reply);
            }
        }
    }

    fn put(&mut self, change: &Change) {
        let at = self.at + self.buffer.len() as u64;
        change.encode(at, self.files.seed(), &mut self.buffer);
    }

    /// Writes the buffer, or a snapshot that says all of it and more.
    fn write(&mut self, now: Now) -> std::io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let end = self.at + self.buffer.len() as u64;
        let grown = end > limits::LEDGER_BYTES + 2 * self.live_bytes;
        if self.must_snapshot || grown || self.files.reserve(end).is_err() {
            return self.snapshot();
        }
        if let Err(error) = self.files.current().write_at(&self.buffer, self.at) {
            self.must_snapshot = true;
            return Err(error);
        }
        self.at = end;
        let mut unsynced = self.shared.ledger.unsynced();
        unsynced.file = Some(self.files.current());
        let is_first = unsynced.since.is_none();
        unsynced.since.get_or_insert(now.elapsed);
        drop(unsynced);
        if is_first {
            self.shared.ledger.sync.raise();
        }
        Ok(())
    }

    /// Says everything anew in the other file, and goes on in that. Durable when it returns.
    pub(crate) fn snapshot(&mut self) -> std::io::Result<()> {
        self.must_snapshot = true;
        let mut snapshot = self.files.begin(self.shared.epoch);
        say_all(&self.shared, &mut snapshot)?;
        self.at = snapshot.end()?;
        self.live_bytes = self.at - FRAMES_AT;
        self.must_snapshot = false;
        self.shared.ledger.unsynced().file = Some(self.files.current());
        Ok(())
    }

    fn answer(&self, applied: Applied, now: Now) {
        for (cursor, _, reply) in applied.turns {
            let mut place = cursor.place();
            cursor.set_timer(&mut place);
            let awake = place.progress.has_ready(now.ms)
                || (place.progress.takes_fresh() && place.fresh.has_more());
            drop(place);
            if awake {
                cursor.wake();
            }
            if let Some(reply) = reply {
                let _ = reply.send(Ok(()));
            }
        }
        if !applied.changes.is_empty() {
            self.shared.ledger.unsynced().waiting.extend(applied.changes);
            self.shared.ledger.sync.raise();
        }
    }

    /// Gives every event of every turn back.
    fn take_back(&self, applied: Applied, error: &std::io::Error) {
        let error = CursorError::Unavailable(format!("the ledger could not be written: {error}"));
        for (cursor, turn, reply) in applied.turns.into_iter().rev() {
            cursor.place().progress.undo(turn);
            cursor.wake();
            if let Some(reply) = reply {
                let _ = reply.send(Err(error.clone()));
            }
        }
        for reply in applied.changes {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// Where a snapshot is said.
type Put<'a> = dyn FnMut(&Change) -> std::io::Result<()> + 'a;

fn say_all(shared: &Shared, snapshot: &mut Snapshot<'_>) -> std::io::Result<()> {
    snapshot.put(&mark(shared))?;
    for cursor in shared.table.all() {
        say_cursor(&cursor, &mut |change| snapshot.put(change))?;
    }
    snapshot.put(&Change::SnapshotEnd)
}

/// Only this thread settles: between two of its turns a cursor takes more events, or loses some.
fn say_cursor(cursor: &LogCursor, put: &mut Put<'_>) -> std::io::Result<()> {
    let (cursor_number, opened) = (cursor.number, cursor.opened());
    let dropped_before = opened.dropped;
    put(&Change::Open(opened))?;
    let mut after = Some(Position(0));
    while let Some(from) = after {
        let entry = cursor.place().progress.snapshot(from, TURN_WAITING);
        let is_full = entry.waiting.len() == TURN_WAITING;
        after = is_full.then_some(entry.frontier);
        put(&Change::Turn { cursor: cursor_number, entry })?;
    }
    let (upto, dropped) = cursor.dropped();
    if dropped == dropped_before {
        return Ok(());
    }
    put(&Change::Drop { cursor: cursor_number, upto, dropped })
}

/// Syncs the ledger: every second, at once for whoever waits.
pub(crate) fn sync_step(shared: &Arc<Shared>, now: Now) -> Next {
    let (file, waiting) = {
        let mut unsynced = shared.ledger.unsynced();
        let Some(since) = unsynced.since else {
            let waiting = std::mem::take(&mut unsynced.waiting);
            drop(unsynced);
            answer_synced(shared, waiting);
            return Next::Sleep;
        };
        let due = since + limits::LEDGER_SYNC_TIME;
        let stopping = shared.ledger.sync.is_stopped();
        if unsynced.waiting.is_empty() && now.elapsed < due && !stopping {
            return Next::SleepFor(due - now.elapsed);
        }
        unsynced.since = None;
        (unsynced.file.clone(), std::mem::take(&mut unsynced.waiting))
    };
    let result = file.map_or(Ok(()), |file| file.sync());
    shared.telemetry.ledger_syncs.took(shared.clock.elapsed().saturating_sub(now.elapsed));
    if let Err(error) = result {
        shared.poison(format!("a sync of the ledger failed: {error}"));
    }
    answer_synced(shared, waiting);
    Next::Again
}

/// A sync carried what they wait for, unless one failed: perhaps just before they came, and then
/// one that went well since says nothing.
fn answer_synced(shared: &Shared, waiting: Vec<Reply>) {
    let failed = shared.health.failed().map(CursorError::Unavailable);
    for reply in waiting {
        let _ = reply.send(failed.clone().map_or(Ok(()), Err));
    }
}

/// What the ledger says of how far the log is, written now and then so that a power cut finds it.
pub(crate) fn mark(shared: &Shared) -> Change {
    let synced: Position = shared.flow.state().synced;
    Change::Mark { synced, next: shared.next_position(), closed: false }
}

/// The last word of a log that is closed: no position was used after it.
pub(crate) fn last_mark(shared: &Shared) -> Change {
    let synced: Position = shared.flow.state().synced;
    Change::Mark { synced, next: shared.next_position(), closed: true }
}

#[cfg(test)]
mod tests;
