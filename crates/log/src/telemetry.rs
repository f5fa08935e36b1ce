//! What happens in the log, as typed events and counters.
//!
//! Counters are read by whoever exports them; events go to an [`Observer`] the program gives.

use std::fmt;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use eventbus_core::Position;
use eventbus_core::broker::CursorId;
use eventbus_core::telemetry::{
    COMMIT_DURATION, COMMIT_EVENTS, Events, Families, Histogram, Times,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tracing::{error, info, warn};

use crate::shared::Shared;

pub(crate) use eventbus_core::telemetry::{add, load};

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
    /// Commits written, by the events in them.
    pub commits: Histogram<Events>,
    /// Bytes in them.
    pub bytes: AtomicU64,
    /// How long the log's syncs took.
    pub syncs: Histogram<Times>,
    /// Turns written to the ledger.
    pub turns: AtomicU64,
    /// How long the ledger's syncs took.
    pub ledger_syncs: Histogram<Times>,
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
    /// Events given up.
    pub dead_letters: AtomicU64,
}

/// What an open log tells whoever scrapes it, beside [`BrokerStats`].
///
/// [`BrokerStats`]: eventbus_core::broker::BrokerStats
pub(crate) struct Exported(pub(crate) Weak<Shared>);

impl Collector for Exported {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(shared) = self.0.upgrade() else { return Ok(()) };
        let mut families = Families::to(encoder);
        let waiting = shared.queue.waiting();
        families.gauge(
            "eventbus_append_queue_events",
            "Events taken from publishers that wait to be written.",
            waiting.events,
        )?;
        families.gauge(
            "eventbus_append_queue_bytes",
            "Bytes of those, as they are stored.",
            waiting.bytes,
        )?;
        shared.telemetry.encode(&mut families)
    }
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported").finish_non_exhaustive()
    }
}

impl Telemetry {
    fn encode(&self, families: &mut Families<'_>) -> fmt::Result {
        families.histogram(COMMIT_EVENTS.0, COMMIT_EVENTS.1, &self.commits)?;
        families.histogram(COMMIT_DURATION.0, COMMIT_DURATION.1, &self.syncs)?;
        families.counter(
            "eventbus_log_written_bytes",
            "Bytes written to the log, what describes the events included.",
            load(&self.bytes),
        )?;
        families.counter(
            "eventbus_settled_turns",
            "Times that a Subscription's dispatcher had the log take in what became of events.",
            load(&self.turns),
        )?;
        families.histogram(
            "eventbus_settle_duration_seconds",
            "How long a sync took that made such turns durable.",
            &self.ledger_syncs,
        )?;
        families.counters(
            "eventbus_log_reads",
            "Events leased, by where they were read from: from disk for who lags.",
            "from",
            [("memory", load(&self.cache_hits)), ("disk", load(&self.cache_misses))],
        )?;
        families.counter(
            "eventbus_log_damages",
            "Parts of the log, or of what was settled, found damaged.",
            load(&self.corrupt_ranges) + load(&self.ledger_damages),
        )
    }
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
}
