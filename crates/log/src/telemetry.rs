//! What happens in the log, as typed events and counters.
//!
//! Counters are read by whoever exports them; events go to an [`Observer`] the program gives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::Position;
use eventbus_core::broker::CursorId;
use tracing::{error, info, warn};

/// Something worth a log line. Rare by nature: never one an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The log was opened.
    Opened {
        /// The position the next event will get.
        next: Position,
        /// Segments found.
        segments: usize,
        /// Cursors found.
        cursors: usize,
        /// Ranges that were torn by a crash; nobody was promised them.
        torn_ranges: usize,
        /// How long it took.
        took: Duration,
    },
    /// Events that were promised are damaged and are stepped over.
    Corrupt {
        /// The first position.
        first: Position,
        /// How many positions; 0 when only the frame around events was hit.
        count: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The head of a segment was damaged, and was made anew from what the segment holds.
    Restored {
        /// The segment's number.
        number: u64,
    },
    /// A file cannot be told to be a segment, nor to be empty: it is left alone.
    Unknown {
        /// Its name.
        file: String,
    },
    /// A part of the ledger is damaged: what was settled after it is delivered again.
    LedgerDamaged {
        /// The byte of the ledger.
        at: u64,
    },
    /// Nothing of the ledger can be read: every cursor is gone, and one that is made again is
    /// delivered everything since its start that is still kept.
    LedgerLost,
    /// A cursor lost its oldest events to retention.
    Dropped {
        /// Whose.
        cursor: CursorId,
        /// How many.
        events: u64,
        /// The last position that it cannot get any more.
        upto: Position,
        /// By which limit.
        limit: DropLimit,
    },
    /// A delayed event cannot be stored: it goes on waiting, and is looked at again a day later.
    SetAside {
        /// Its number in the vault.
        number: i64,
        /// Why not.
        reason: String,
    },
    /// The vault cannot be written: no event is delayed, and what is due waits.
    VaultFails {
        /// What failed.
        reason: String,
    },
    /// The vault can be written again.
    VaultWorks,
    /// Storage is full: publishing is refused.
    Full {
        /// Bytes in use.
        used_bytes: u64,
    },
    /// There is room again.
    RoomAgain,
    /// The disk failed; nothing is acknowledged until the log is opened anew.
    Failed {
        /// What failed.
        reason: String,
    },
}

/// Which limit took events from a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropLimit {
    /// `backlog_max_bytes`.
    Backlog,
    /// The age of events.
    Age,
}

impl DropLimit {
    /// The setting that says how much is kept.
    fn word(self) -> &'static str {
        match self {
            Self::Backlog => "backlog_max_bytes",
            Self::Age => "age_s",
        }
    }
}

/// Hears what happens.
pub trait Observer: Send + Sync + 'static {
    /// Called from the log's threads: must not block.
    fn observe(&self, event: &LogEvent);
}

/// Writes events to `tracing`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceObserver;

impl Observer for TraceObserver {
    fn observe(&self, event: &LogEvent) {
        match event {
            LogEvent::Opened { next, segments, cursors, torn_ranges, took } => {
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                info!(next = next.0, segments, cursors, torn_ranges, took_ms, "the log is open");
            }
            LogEvent::VaultFails { reason } => {
                error!(reason, "delayed events cannot be kept, and those that are due wait");
            }
            LogEvent::VaultWorks => info!("delayed events are kept again"),
            LogEvent::RoomAgain => info!("the log has room again"),
            LogEvent::Full { used_bytes } => {
                warn!(used_bytes, "the log is full: publishing is refused");
            }
            LogEvent::Dropped { cursor, events, upto, limit } => {
                let (cursor, limit) = (&*cursor.0, limit.word());
                let upto = upto.0;
                warn!(cursor, events, upto, limit, "a cursor lost its oldest events to retention");
            }
            LogEvent::Corrupt { first, count, reason } => {
                let from = first.0;
                let to = (first.0 + count).saturating_sub(1).max(from);
                error!(from, to, events = count, reason, "events are damaged and stepped over");
            }
            LogEvent::SetAside { number, reason } => {
                error!(
                    number,
                    reason, "a delayed event cannot be stored: it is set aside for a day"
                );
            }
            LogEvent::Restored { number } => {
                warn!(number, "the head of a segment was damaged and is made anew");
            }
            LogEvent::Unknown { file } => {
                error!(file, "neither a segment nor empty: it is left alone and not used again");
            }
            LogEvent::LedgerDamaged { at } => {
                error!(at, "the ledger is damaged: what was settled since is delivered again");
            }
            LogEvent::LedgerLost => {
                error!("the ledger is lost: every cursor is gone, and what is kept comes again");
            }
            LogEvent::Failed { reason } => error!(reason, "the log failed: it stores nothing more"),
        }
    }
}

/// Counts since the log was opened.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Commits written.
    pub commits: AtomicU64,
    /// Events in them.
    pub events: AtomicU64,
    /// Bytes in them.
    pub bytes: AtomicU64,
    /// How long the log's syncs took.
    pub syncs: Timings,
    /// Turns written to the ledger.
    pub turns: AtomicU64,
    /// Writes to the ledger, each of one or more turns.
    pub ledger_writes: AtomicU64,
    /// How long the ledger's syncs took.
    pub ledger_syncs: Timings,
    /// Times the ledger was replaced by a snapshot.
    pub snapshots: AtomicU64,
    /// Events leased that were still in memory.
    pub cache_hits: AtomicU64,
    /// Events leased that were read from disk.
    pub cache_misses: AtomicU64,
    /// Ranges found damaged.
    pub corrupt_ranges: AtomicU64,
    /// Times the ledger was found damaged, in part or as a whole.
    pub ledger_damages: AtomicU64,
    /// Events lost to retention.
    pub dropped_events: AtomicU64,
}

/// Durations, in buckets that double: bucket *n* counts those below 2ⁿ⁺⁴ microseconds.
#[derive(Debug, Default)]
pub struct Timings {
    /// The buckets; the last one also counts everything longer.
    pub buckets: [AtomicU64; 20],
    /// All of them together, in microseconds.
    pub total_us: AtomicU64,
}

impl Timings {
    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - (us >> 4).leading_zeros()) as usize;
        add(&self.buckets[bucket.min(self.buckets.len() - 1)], 1);
        add(&self.total_us, us);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use eventbus_core::testing::Page;

    use super::*;

    #[test]
    fn a_loss_is_told_in_flat_fields() {
        let page = Page::default();
        let writer = page.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let (cursor, limit) = (CursorId("a-uid".into()), DropLimit::Age);
        let dropped = LogEvent::Dropped { cursor, events: 3, upto: Position(7), limit };
        let corrupt = LogEvent::Corrupt { first: Position(4), count: 2, reason: "torn" };
        tracing::subscriber::with_default(lines.finish(), || {
            TraceObserver.observe(&dropped);
            TraceObserver.observe(&corrupt);
        });
        let page = page.text();
        for field in ["cursor=\"a-uid\"", "events=3", "upto=7", "limit=\"age_s\"", "from=4", "to=5"]
        {
            assert!(page.contains(field), "{field}: {page}");
        }
        assert!(!page.contains("Position(") && !page.contains("CursorId("), "{page}");
    }

    #[test]
    fn durations_fall_into_buckets_that_double() {
        let timings = Timings::default();
        for us in [0, 15, 16, 31, 32, u64::MAX / 2] {
            timings.record(Duration::from_micros(us));
        }
        let counts: Vec<u64> = timings.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[2], counts[19]), (2, 2, 1, 1));
        assert_eq!(timings.count(), 6);
    }
}
