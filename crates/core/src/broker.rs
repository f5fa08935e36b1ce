//! The seam to pluggable messaging: what a broker is.
//!
//! A broker takes batches of events and keeps them; a [`Cursor`] is one subscription's durable
//! place in what the broker keeps. The words are those of a queue (lease, settle) and not those of
//! a file, so that an event which fails does not block the next one.
//!
//! Futures are boxed, one a batch or a dispatcher's turn, never one an event.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::dead_letters::DeadLetters;
use crate::delivery::{Attempt, Verdict};
use crate::durability::Durability;
use crate::event::{Event, Interest, Text};

/// Where events are kept.
pub trait Broker: Send + Sync {
    /// What this broker can promise.
    fn capabilities(&self) -> Capabilities;

    /// Is the event small enough? What fits is not refused for its size, alone or in a batch that
    /// need not stand together; of a batch it tells which events to leave out.
    fn fits(&self, event: &Event) -> Result<(), AppendError>;

    /// Stores a batch. The future ends when every event of the batch has reached `durability`, or a
    /// better level that comes to the same here; dropping it does not undo the append.
    ///
    /// An event whose publisher gave it an id ([`Event::id_given`]) is not stored again while the
    /// broker remembers one of the same source and id, in this batch or before. Repeats are left
    /// out of an atomic batch too, and the rest of it is stored, all or none.
    fn append(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>>;

    /// Keeps an event that is to be stored when `due_ms` (wall-clock milliseconds since 1970, by
    /// the broker's clock) has come: never before, and about a second later at most; at once when
    /// it is past already. What falls due while the broker is away or full is stored as soon as it
    /// can be. The future ends when the event is kept with `durability` or better; dropping it does
    /// not undo that.
    ///
    /// Until then the event has no position. When it is stored it counts as published at that
    /// moment: a cursor that begins before it gets it.
    ///
    /// An event whose publisher gave it an id ([`Event::id_given`]) is not kept again while one of
    /// the same source and id waits: it is a [`Receipt::Duplicate`]. So it is, too, while one is
    /// remembered as stored; where a broker cannot tell that, it is kept and left out when it is
    /// due. An [`append`](Self::append) of an id that waits is a repeat, too; where a broker does
    /// not look at what waits, it stores the event, and the one that waited is left out when it is
    /// due, for as long as the broker remembers the id.
    ///
    /// One event that waits is stored once, whatever ends the process meanwhile; twice only if the
    /// process ends between storing it and forgetting that it waits, and the broker has forgotten
    /// its id before it is opened again.
    fn delay(
        &self,
        event: Event,
        due_ms: u64,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>>;

    /// Opens a cursor, making it where there is none. Idempotent: the same id with another spec
    /// updates the cursor in place, keeping its position.
    fn open(&self, spec: CursorSpec) -> BoxFuture<'_, Result<Arc<dyn Cursor>, OpenError>>;

    /// Forgets a cursor and its position. Leases still out are settled into nothing. Its dead
    /// letters stay: they are the operator's to remove.
    fn forget(&self, cursor: CursorId) -> BoxFuture<'_, Result<(), CursorError>>;

    /// Every cursor this broker remembers, open or not.
    fn cursors(&self) -> BoxFuture<'_, Result<Vec<CursorId>, CursorError>>;

    /// The events that were given up ([`Verdict::DeadLetter`]), kept whole.
    fn dead_letters(&self) -> &dyn DeadLetters;

    /// How the broker is, now.
    fn stats(&self) -> BrokerStats;

    /// Stops: what was acknowledged as `written` or better is synced, positions too.
    fn close(&self) -> BoxFuture<'_, Result<(), CloseError>>;
}

/// One subscription's durable place.
pub trait Cursor: Send + Sync {
    /// Leases up to `limit` events, retries that are due first. Waits for at least one.
    ///
    /// Cancel-safe: a future dropped before it is ready has leased nothing.
    fn lease(&self, limit: NonZeroUsize) -> BoxFuture<'_, Result<Vec<Lease>, CursorError>>;

    /// Settles what ended in a dispatcher's turn. When it returns `Ok` the verdicts survive the end
    /// of the process; on an error those of them that do not are leased again. What is given up is
    /// a dead letter, durably, before its event is settled.
    fn settle(&self, turn: Vec<Settled>) -> BoxFuture<'_, Result<(), CursorError>>;

    /// How the cursor is, now. Costs the same whatever the backlog.
    fn stats(&self) -> CursorStats;
}

/// What a broker can promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The durabilities that may be asked for by name, weakest first.
    pub durabilities: &'static [Durability],
    /// The durability of a publish that asks for none: the strongest honest one.
    pub default_durability: Durability,
}

/// Events that are stored together, in this order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The events.
    pub events: Vec<Event>,
    /// All or none: after a crash either every event of the batch is there or no one is.
    pub atomic: bool,
}

impl Batch {
    /// A batch of one.
    pub fn of_one(event: Event) -> Self {
        Self { events: vec![event], atomic: false }
    }
}

/// What became of a batch that was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// One receipt an event, in the order of the batch.
    pub receipts: Vec<Receipt>,
    /// The level that all of them have reached: what was asked for, or better.
    pub durability: Durability,
}

/// What became of an event that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It is stored there, at the durability asked for or better.
    Stored(Position),
    /// It is in memory and will be stored, unless its id is known (durability `accepted`).
    Accepted,
    /// It waits, kept at the durability asked for or better, and will be stored when it is due.
    Delayed,
    /// Its id is known: it was stored before and is not stored again. What was stored has reached
    /// the durability asked for.
    Duplicate,
}

/// The place of an event in a broker: 1, 2, 3 and so on. A position is never used twice, not even
/// across crashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// The position after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose cursor: the uid of the Subscription.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorId(pub Text);

impl fmt::Display for CursorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a cursor is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorSpec {
    /// Whose it is.
    pub id: CursorId,
    /// Which events it gets. Changed by opening again: events appended after that `open` returned
    /// are found by the new interest, earlier ones may be.
    pub interest: Interest,
    /// Where a cursor that does not exist yet begins.
    pub start: Start,
    /// How many events may wait for a retry before nothing fresh is leased.
    pub waiting_max: usize,
}

/// Where a new cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first event committed at or after this wall-clock time, in milliseconds since 1970.
    AtMs(u64),
}

/// An event with its place.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The place.
    pub position: Position,
    /// The event.
    pub event: Arc<Event>,
    /// When it was committed: wall-clock milliseconds since 1970, never falling along positions.
    pub committed_ms: u64,
}

/// The right to deliver one event, until it is settled. Dropping it gives the event back without
/// counting an attempt.
#[must_use = "a lease that is dropped gives its event back"]
pub struct Lease {
    stored: Stored,
    attempts: u32,
    home: Option<Arc<dyn LeaseHome>>,
}

/// Where a lease returns to when it is dropped. Implemented by brokers.
pub trait LeaseHome: Send + Sync {
    /// The event at `position` was not settled: lease it again.
    fn release(&self, position: Position);
}

impl Lease {
    /// A lease on `stored`, of which `attempts` were made before.
    pub fn new(stored: Stored, attempts: u32, home: Arc<dyn LeaseHome>) -> Self {
        Self { stored, attempts, home: Some(home) }
    }

    /// The event and its place.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The event.
    pub fn event(&self) -> &Arc<Event> {
        &self.stored.event
    }

    /// The place.
    pub fn position(&self) -> Position {
        self.stored.position
    }

    /// Attempts made before this lease.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Ends the lease because its verdict is recorded. For brokers.
    pub fn end(mut self) {
        self.home = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.release(self.stored.position);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}, attempts {})", self.stored.position, self.attempts)
    }
}

/// A lease with what is to become of its event.
#[derive(Debug)]
#[must_use = "a verdict counts only when it is given to Cursor::settle"]
pub struct Settled {
    /// The lease.
    pub lease: Lease,
    /// The attempt that was made, if one was.
    pub attempt: Option<Attempt>,
    /// What is to become of the event.
    pub verdict: Verdict,
}

/// How a broker is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    /// Is it able to store?
    pub health: BrokerHealth,
    /// Bytes of storage in use.
    pub used_bytes: u64,
    /// Bytes that may still be stored before publishing is refused.
    pub free_bytes: u64,
    /// The first position still kept.
    pub first: Position,
    /// The position the next event will get.
    pub next: Position,
    /// Ranges of the log found damaged and stepped over since it was opened.
    pub corrupt_ranges: u64,
    /// Delayed events that wait until they are due, as last known.
    pub delayed_events: u64,
    /// Bytes of those as stored.
    pub delayed_bytes: u64,
    /// Events that this process took from cursors since it opened the broker, because retention
    /// kept them no longer.
    pub dropped_events: u64,
    /// Events that this process gave up since it opened the broker.
    pub dead_letters: u64,
}

/// Is a broker able to store?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BrokerHealth {
    /// Yes.
    #[default]
    Usable,
    /// No: storage is full. Delivery goes on.
    Full,
    /// No, for this reason.
    Unusable(String),
}

/// How a cursor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorStats {
    /// Events not settled: fresh, leased and waiting.
    pub lag_events: u64,
    /// Events that wait for a retry.
    pub waiting_events: u64,
    /// Events leased.
    pub leased_events: u64,
    /// Events given out and not settled: leased, given back and waiting. Nothing fresh is leased
    /// while they are as many as may wait ([`CursorSpec::waiting_max`]).
    pub held_events: u64,
    /// Commit time of the oldest event not settled, in milliseconds since 1970.
    pub oldest_unsettled_ms: Option<u64>,
    /// Bytes of the log that this cursor holds back from being trimmed.
    pub backlog_bytes: u64,
    /// Bytes that it may hold back before it loses its oldest events; `None` where nothing limits
    /// them.
    pub backlog_max_bytes: Option<u64>,
    /// Events lost to retention since the cursor was made.
    pub dropped_events: u64,
}

/// Why a batch was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Storage is full; delivery goes on and makes room.
    #[error(
        "storage is full ({used_bytes} of {max_bytes} bytes): wait for deliveries, or raise \
         max_bytes"
    )]
    Full {
        /// Bytes in use.
        used_bytes: u64,
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// As many events wait to be due as may.
    #[error("{bytes} bytes of delayed events wait, and no more may: wait until some are due")]
    DelaysFull {
        /// Bytes of those that wait.
        bytes: u64,
    },
    /// The disk has no room for one more delayed event.
    #[error("the disk has no room to keep a delayed event: make room on its volume")]
    NoRoom,
    /// The broker cannot promise this.
    #[error("this broker cannot promise durability {0}")]
    Durability(Durability),
    /// An event, with its description, is larger than the broker can store.
    #[error("an event of {bytes} bytes is larger than the broker's limit of {max_bytes}")]
    TooLarge {
        /// Bytes of the event as stored.
        bytes: u64,
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// A batch that is to be stored whole has more events than the broker takes.
    #[error("a batch of {events} events, all or none, is more than the broker's {max_events}")]
    TooMany {
        /// Events of the batch.
        events: usize,
        /// Events allowed.
        max_events: usize,
    },
    /// The broker does not store now.
    #[error("the broker does not store events now: {0}")]
    Unavailable(String),
}

/// Why a cursor could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The broker does not answer now.
    #[error("the broker cannot open the cursor now: {0}")]
    Unavailable(String),
}

/// Why a cursor did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// The cursor was forgotten: its Subscription is gone.
    #[error("the cursor was forgotten")]
    Forgotten,
    /// The broker is closed.
    #[error("the broker is closed")]
    Closed,
    /// The broker does not answer now.
    #[error("the broker does not answer now: {0}")]
    Unavailable(String),
}

/// Why a broker did not stop cleanly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// The last sync failed.
    #[error("the last sync before the end failed: {0}")]
    Sync(String),
}
