//! Events on their way to the writer: prepared by the publisher's thread, taken by the writer's.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventbus_core::broker::AppendError;
use eventbus_core::wire::stored;
use eventbus_core::{Durability, Event, Position, Receipt, TopicHash, limits};
use tokio::sync::oneshot;

use crate::bytes::{batch, record};
use crate::signal::Signal;

/// Answers an append.
pub(crate) type Reply = oneshot::Sender<Result<Placed, AppendError>>;

/// Where the events of an append lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Where the first of those lies that are new; the others lie behind it, side by side.
    pub(crate) first: Position,
    /// Which ones are not stored again, counted from 0.
    pub(crate) repeats: Vec<usize>,
}

impl Placed {
    /// The receipts of its `count` events.
    pub(crate) fn receipts(&self, count: usize) -> impl Iterator<Item = Receipt> {
        let mut repeats = self.repeats.iter().peekable();
        let mut next = self.first;
        (0..count).map(move |event| {
            if repeats.next_if_eq(&&event).is_some() {
                return Receipt::Duplicate;
            }
            let after = next.next();
            Receipt::Stored(std::mem::replace(&mut next, after))
        })
    }
}

/// Events that will stand in one commit, side by side.
pub(crate) struct Pending {
    pub(crate) events: Vec<Prepared>,
    /// Ids of which the writer is to say whether it remembers them; there are no events then.
    pub(crate) asked: Vec<u128>,
    /// Which of its events were left out as repeats, or which of the ids are known, counted from 0.
    pub(crate) repeats: Vec<usize>,
    /// The heads of all its events, one after the other.
    pub(crate) heads: Vec<u8>,
    pub(crate) atomic: bool,
    /// Its events come from the vault, and were due at this time: they are committed no earlier,
    /// and are no repeats of themselves.
    pub(crate) due_ms: Option<u64>,
    pub(crate) durability: Durability,
    /// `None` when nobody waits (`accepted`).
    pub(crate) reply: Option<Reply>,
    /// Bytes it takes in a segment, its batch head included.
    pub(crate) bytes: usize,
}

/// An event with everything about it that does not depend on its position.
pub(crate) struct Prepared {
    pub(crate) event: Arc<Event>,
    pub(crate) head: Range<usize>,
    pub(crate) topic_hash: TopicHash,
    pub(crate) deduplication: u128,
    pub(crate) checksum: u32,
    /// Bytes of the stored event.
    pub(crate) length: usize,
    /// Does it stay in memory once it is stored?
    pub(crate) cached: bool,
}

impl Pending {
    pub(crate) fn new(atomic: bool, durability: Durability) -> Self {
        let (events, repeats, heads) = (Vec::new(), Vec::new(), Vec::new());
        let (asked, reply, bytes) = (Vec::new(), None, batch::BYTES);
        Self { events, asked, repeats, heads, atomic, due_ms: None, durability, reply, bytes }
    }

    /// For events that waited in the vault and were due at that time.
    pub(crate) fn due(ms: u64) -> Self {
        Self { due_ms: Some(ms), ..Self::new(false, Durability::Synced) }
    }

    /// Asks which of these ids are remembered. What they repeat is synced when the answer comes.
    pub(crate) fn asking(ids: Vec<u128>) -> Self {
        Self { asked: ids, ..Self::new(false, Durability::Synced) }
    }

    /// Does its publisher wait for the write and not for the sync?
    fn is_hurried(&self) -> bool {
        self.reply.is_some() && self.durability < Durability::Synced
    }

    /// Keeps those events of which `is_new` says so.
    pub(crate) fn leave_out(&mut self, mut is_new: impl FnMut(&Prepared) -> bool) {
        let Self { events, repeats, bytes, .. } = self;
        let mut at = 0;
        events.retain(|event| {
            let is_new = is_new(event);
            if !is_new {
                repeats.push(at);
                *bytes -= record::size(event.length);
            }
            at += 1;
            is_new
        });
    }

    /// Says which of the ids asked for `is_known`.
    pub(crate) fn find(&mut self, is_known: impl Fn(u128) -> bool) {
        let known = self.asked.iter().enumerate().filter(|(_, id)| is_known(**id));
        self.repeats.extend(known.map(|(at, _)| at));
    }

    /// Prepares an event and adds it, as the one that its publisher says it is.
    /// `cached`: for those that keep up it stays in memory once it is stored.
    pub(crate) fn add(&mut self, event: Event, cached: bool) {
        self.add_as(event.deduplication_hash(), event, cached);
    }

    /// Prepares an event and adds it, as a repeat of any that has this hash. Head and payload are
    /// hashed here, on the publisher's thread, so that the one writer has little left to do.
    pub(crate) fn add_as(&mut self, deduplication: u128, event: Event, cached: bool) {
        let from = self.heads.len();
        self.heads.reserve(stored::head_bytes(&event));
        stored::encode_head(&event, &mut self.heads);
        let head = from..self.heads.len();
        let checksum = crc32c::crc32c(&self.heads[head.clone()]);
        let checksum = crc32c::crc32c_append(checksum, &event.payload);
        let length = head.len() + event.payload.len();
        self.bytes += record::size(length);
        self.events.push(Prepared {
            topic_hash: event.topic_hash(),
            deduplication,
            event: Arc::new(event),
            head,
            checksum,
            length,
            cached,
        });
    }
}

/// The bounded queue before the writer.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    pub(crate) signal: Signal,
}

#[derive(Default)]
struct State {
    pending: VecDeque<Pending>,
    bytes: usize,
    events: usize,
    /// Appends that wait for the write alone, and so cannot be held.
    hurried: usize,
    /// A sync runs, or the pause after it: what comes now had better go into one commit, unless it
    /// is much.
    held: bool,
    closed: Option<String>,
}

impl State {
    /// Is there anything the writer should take now?
    fn is_ready(&self) -> bool {
        let is_urgent = self.hurried > 0 || self.bytes >= HELD_BYTES || self.closed.is_some();
        !self.pending.is_empty() && (is_urgent || !self.held)
    }
}

/// How much is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

/// While the writer is held, less than this waits, so that one write and one sync serve all of it;
/// more is written beside the sync.
const HELD_BYTES: usize = 256 * 1024;

impl Queue {
    /// Queues `parts` side by side. Refuses rather than waits when the disk does not keep up: the
    /// publisher hears of it while its request is young.
    pub(crate) fn push(&self, parts: Vec<Pending>) -> Result<(), AppendError> {
        let bytes: usize = parts.iter().map(|part| part.bytes).sum();
        let events: usize = parts.iter().map(|part| part.events.len()).sum();
        let mut state = self.state();
        if let Some(reason) = &state.closed {
            return Err(AppendError::Unavailable(reason.clone()));
        }
        let crowded = state.bytes + bytes > limits::APPEND_QUEUE_BYTES
            || state.events + events > limits::APPEND_QUEUE_EVENTS;
        if crowded && !state.pending.is_empty() {
            let reason = "too many events wait to be written: the disk does not keep up";
            return Err(AppendError::Unavailable(reason.into()));
        }
        state.bytes += bytes;
        state.events += events;
        state.hurried += parts.iter().filter(|part| part.is_hurried()).count();
        state.pending.extend(parts);
        let is_ready = state.is_ready();
        drop(state);
        if is_ready {
            self.signal.raise();
        }
        Ok(())
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let State { events, bytes, .. } = *self.state();
        Waiting { events, bytes }
    }

    /// A sync begins, or it and the pause after it are over.
    pub(crate) fn hold(&self, held: bool) {
        let mut state = self.state();
        state.held = held;
        let is_ready = !held && state.is_ready();
        drop(state);
        if is_ready {
            self.signal.raise();
        }
    }

    /// Takes what comes next, up to `bytes` but at least one.
    pub(crate) fn take(&self, bytes: usize, taken: &mut Vec<Pending>) {
        let mut state = self.state();
        if !state.is_ready() {
            return;
        }
        let mut room = bytes;
        while let Some(first) = state.pending.front() {
            if first.bytes > room && !taken.is_empty() {
                break;
            }
            room = room.saturating_sub(first.bytes);
            if let Some(first) = state.pending.pop_front() {
                state.bytes -= first.bytes;
                state.events -= first.events.len();
                state.hurried -= usize::from(first.is_hurried());
                taken.push(first);
            }
        }
    }

    /// Refuses everything from now on, for this reason; what is queued stays.
    pub(crate) fn close(&self, reason: &str) {
        self.state().closed.get_or_insert_with(|| reason.to_owned());
        // What is queued is answered, though the writer was held.
        self.signal.raise();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
