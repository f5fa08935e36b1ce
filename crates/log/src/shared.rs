//! What the threads of a log share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventbus_core::broker::BrokerHealth;
use eventbus_core::cursor::Spot;
use eventbus_core::{Clock, Position};

use crate::bytes::LogId;
use crate::delays::Delays;
use crate::flow::Flow;
use crate::index::segment_and_byte;
use crate::ledger::LedgerQueue;
use crate::queue::Queue;
use crate::reader::Reader;
use crate::segments::Segments;
use crate::signal::{Now, Signal};
use crate::table::Table;
use crate::tail::Tail;
use crate::telemetry::{LogEvent, Observer, Telemetry};
use crate::timer::Timer;
use crate::vault::Vault;

/// The parts of an open log. Each part has its own lock; no two are held together except where a
/// part's documentation says so.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) limits: Limits,
    pub(crate) log: LogId,
    pub(crate) epoch: u32,
    pub(crate) segments: Segments,
    pub(crate) queue: Queue,
    /// Shared with those who wake the delayer.
    pub(crate) delays: Arc<Delays>,
    pub(crate) flow: Flow,
    pub(crate) tail: Tail,
    pub(crate) reader: Reader,
    pub(crate) table: Table,
    pub(crate) ledger: LedgerQueue,
    pub(crate) vault: Vault,
    pub(crate) timer: Timer,
    /// Wakes the thread that looks after retention, spare files and indexes.
    pub(crate) upkeep: Signal,
    pub(crate) health: Health,
    /// Bytes that may still be stored, as upkeep has found last.
    pub(crate) room: AtomicU64,
    /// The position the next event will get.
    pub(crate) next: AtomicU64,
    /// When the last commit was made, in milliseconds since 1970; never falls, as the clock may.
    pub(crate) committed_ms: AtomicU64,
    pub(crate) closed: AtomicBool,
    #[cfg(test)]
    pub(crate) mutation: crate::simulation::Mutation,
}

/// The limits of a log, as numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) history_bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) backlog_max_bytes: u64,
    pub(crate) age_ms: u64,
    /// Bytes of one pending append: what surely fits a fresh segment.
    pub(crate) batch_bytes: usize,
}

/// Can the log store?
#[derive(Default)]
pub(crate) struct Health {
    full: AtomicBool,
    failed: Mutex<Option<String>>,
}

impl Health {
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Why the disk is not trusted any more, if it is not.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed_locked().clone()
    }

    pub(crate) fn now(&self) -> BrokerHealth {
        match (self.failed(), self.is_full()) {
            (Some(reason), _) => BrokerHealth::Unusable(reason),
            (None, true) => BrokerHealth::Full,
            (None, false) => BrokerHealth::Usable,
        }
    }

    fn failed_locked(&self) -> MutexGuard<'_, Option<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Now {
        Now { ms: self.clock.now_ms(), elapsed: self.clock.elapsed() }
    }

    /// Takes no more events and gives out no more leases.
    pub(crate) fn close(&self) {
        self.queue.close("the log is closed");
        self.closed.store(true, Ordering::Release);
        for cursor in self.table.all() {
            cursor.wake_all();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn next_position(&self) -> Position {
        Position(self.next.load(Ordering::Acquire))
    }

    /// When the event at `spot` was committed: exactly while it is in memory, else to a second.
    pub(crate) fn time_of(&self, spot: Spot) -> Option<u64> {
        let mut committed_ms = None;
        self.tail.get(std::iter::once(spot.position), |_, stored| {
            committed_ms = stored.map(|stored| stored.committed_ms);
        });
        let (number, _) = segment_and_byte(spot.place);
        committed_ms.or_else(|| self.segments.numbered(number)?.time_of(spot.position))
    }

    pub(crate) fn set_full(&self, full: bool) {
        if self.health.full.swap(full, Ordering::AcqRel) == full {
            return;
        }
        let used_bytes = self.segments.used_bytes();
        let event = if full { LogEvent::Full { used_bytes } } else { LogEvent::RoomAgain };
        self.observer.observe(&event);
        if full {
            self.upkeep.raise();
        }
    }

    /// The disk failed: nothing is acknowledged any more, at no durability, until the log is opened
    /// anew. What the disk has of the last writes is unknown, so nothing is tried again.
    pub(crate) fn poison(&self, reason: String) {
        {
            let mut failed = self.health.failed_locked();
            if failed.is_some() {
                return;
            }
            *failed = Some(reason.clone());
        }
        self.queue.close(&reason);
        self.delays.close(&reason);
        // Dropping the replies answers them: see `Log::append`.
        drop(std::mem::take(&mut self.flow.state().waiting));
        self.observer.observe(&LogEvent::Failed { reason });
    }
}
