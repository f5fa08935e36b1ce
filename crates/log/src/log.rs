//! The log as a broker.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use eventbus_core::broker::{
    AppendError, BrokerStats, Capabilities, CloseError, Cursor, CursorError, CursorId, CursorSpec,
    OpenError as CursorOpenError, Receipts,
};
use eventbus_core::wire::stored;
use eventbus_core::{
    Batch, Broker, Clock, DeadLetters, Durability, Entropy, Event, Position, Receipt, limits,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::collector::Collector;
use tokio::sync::oneshot;

use crate::bytes::{batch, record};
use crate::config::{LogConfig, OpenError, Storage};
use crate::cursor::{LogCursor, OpenCursor, Place};
use crate::delayer::{self, Delayer};
use crate::disk::{DirLock, Disk, FileDisk};
use crate::flow::Flow;
use crate::ledger::{Ledger, LedgerQueue};
use crate::ledger_file::LedgerFiles;
use crate::queue::{Pending, Placed, Queue};
use crate::reader::Reader;
use crate::recovery::{self, Recovered};
use crate::shared::{Health, Limits, Shared};
use crate::signal::Signal;
use crate::table::Table;
use crate::tail::Tail;
use crate::telemetry::{Exported, LogEvent, Observer, Telemetry, add, load};
use crate::threads::Threads;
use crate::timer::Timer;
use crate::vault::Vault;
use crate::writer::Writer;

/// The embedded log.
pub struct Log {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Option<Threads>>,
}

/// The parts that must be stepped for a log to go on: by threads, or by a simulation.
pub(crate) struct Machines {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) ledger: Ledger,
    pub(crate) delayer: Delayer,
}

impl Log {
    /// Opens the log, making it where there is none. Blocks: for a moment, or for as long as it
    /// takes to read one segment after a crash.
    ///
    /// `observer` hears what happens to the log; [`crate::TraceObserver`] writes it to `tracing`.
    pub fn open(
        config: LogConfig,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, OpenError> {
        let (machines, lock, path) = Machines::open(config, clock, entropy, observer)?;
        let shared = machines.shared.clone();
        let threads = Threads::start(machines, lock);
        let threads = threads.map_err(|error| OpenError::Io { path, error })?;
        Ok(Self { shared, threads: Mutex::new(Some(threads)) })
    }

    /// What happened since the log was opened.
    pub fn telemetry(&self) -> Arc<Telemetry> {
        self.shared.telemetry.clone()
    }

    /// The same for whoever scrapes metrics, for as long as the log is there.
    pub fn exported(&self) -> impl Collector {
        Exported(Arc::downgrade(&self.shared))
    }
}

impl Machines {
    pub(crate) fn open(
        config: LogConfig,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
        observer: Arc<dyn Observer>,
    ) -> Result<(Self, Option<DirLock>, PathBuf), OpenError> {
        let (disk, lock, path) = disk_of(&config.storage)?;
        let failed = |error| OpenError::Io { path: path.clone(), error };
        let began = clock.elapsed();
        let (limits, segment_bytes) = limits_of(&config, disk.as_ref(), &path)?;
        let vault = Vault::of(disk.clone(), &path)?;
        let place = recovery::Place {
            disk: disk.clone(),
            path: path.clone(),
            segment_bytes,
            max_bytes: limits.max_bytes,
            dead: vault.highest(&path)?,
            deduplication_time: config.deduplication_time,
        };
        let (recovered, remembered) = recovery::recover(&place, entropy)?;
        let committed_ms = recovered.resume.committed_ms;
        let delayed = delayer::stored_already(&vault, &recovered.segments, committed_ms);
        let delayed = delayed.map_err(failed)?;
        let ledger = LedgerFiles::open(disk.as_ref(), recovered.ledger, entropy).map_err(failed)?;
        let opened = LogEvent::Opened {
            next: recovered.resume.next,
            segments: recovered.segments.all().len(),
            cursors: recovered.cursors.len(),
            torn_ranges: recovered.torn_ranges,
            took: clock.elapsed().saturating_sub(began),
        };
        let (active, resume) = (recovered.active.clone(), recovered.resume);
        let tail = Tail::new(config.tail_cache_bytes);
        let shared = share(recovered, (limits, tail, vault), (clock, observer));
        shared.observer.observe(&opened);
        let writer = Writer::new(shared.clone(), active, resume, remembered);
        let delayer = Delayer::new(shared.clone(), delayed).map_err(failed)?;
        let mut ledger = Ledger::new(shared.clone(), ledger);
        ledger.snapshot().map_err(failed)?;
        Ok((Self { shared, writer, ledger, delayer }, lock, path))
    }
}

/// A disk, what keeps others from it, and its name in errors.
type DiskOpened = (Arc<dyn Disk>, Option<DirLock>, PathBuf);

fn disk_of(storage: &Storage) -> Result<DiskOpened, OpenError> {
    Ok(match storage {
        Storage::Dir(path) => {
            let disk = FileDisk::open(path)?;
            // Not even a lock is left in what is somebody else's.
            recovery::check_names(&disk, path)?;
            let lock = disk.lock()?;
            (Arc::new(disk), Some(lock), path.clone())
        }
        Storage::Disk(disk) => (disk.clone(), None, PathBuf::from("(a disk of the caller)")),
    })
}

/// The limits as numbers, and the size of segments: an eighth of what may be used at most, so that
/// a small volume still trims in steps.
fn limits_of(
    config: &LogConfig,
    disk: &dyn Disk,
    path: &std::path::Path,
) -> Result<(Limits, u64), OpenError> {
    let least = |setting, value, (least, reason)| {
        if value >= least {
            return Ok(());
        }
        Err(OpenError::Setting { setting, value, least, reason })
    };
    let max_bytes = match config.max_bytes {
        Some(max_bytes) => max_bytes,
        None => {
            let volume = disk.volume_bytes();
            let failed = |error| OpenError::Io { path: path.to_owned(), error };
            volume.map_err(failed)? / 100 * limits::VOLUME_PERCENT
        }
    };
    let smallest = limits::SEGMENT_LEAST_BYTES;
    least("max_bytes", max_bytes, (8 * smallest, "eight of the smallest segments"))?;
    least("segment_bytes", config.segment_bytes, (smallest, "the smallest segment"))?;
    let segment_bytes = config.segment_bytes.min(max_bytes / 8).min(limits::SEGMENT_MAX_BYTES);
    let segment_bytes = segment_bytes / 4096 * 4096;
    // A backlog is shortened by whole segments: below one, nothing would be kept for a subscriber.
    let backlog_max_bytes = config.backlog_max_bytes.unwrap_or(max_bytes / 4);
    least("backlog_max_bytes", backlog_max_bytes, (segment_bytes, "the size of a segment"))?;
    let limits = Limits {
        history_bytes: config.history_bytes,
        max_bytes,
        backlog_max_bytes,
        age_ms: u64::try_from(config.age.as_millis()).unwrap_or(u64::MAX),
        batch_bytes: limits::STORED_BATCH_BYTES.min(segment_bytes as usize / 3),
    };
    Ok((limits, segment_bytes))
}

fn share(
    recovered: Recovered,
    (limits, tail, vault): (Limits, Tail, Vault),
    seams: (Arc<dyn Clock>, Arc<dyn Observer>),
) -> Arc<Shared> {
    let (clock, observer) = seams;
    let Recovered { segments, resume, cursors, corrupt, ledger_lost, .. } = recovered;
    let visible = Position(resume.next.0 - 1);
    let room = limits.max_bytes.saturating_sub(segments.used_bytes());
    let shared = Arc::new(Shared {
        clock,
        observer,
        telemetry: Arc::default(),
        limits,
        log: segments.log,
        epoch: recovered.epoch,
        segments,
        queue: Queue::default(),
        delays: Arc::default(),
        flow: Flow::default(),
        tail,
        reader: Reader::default(),
        table: Table::default(),
        ledger: LedgerQueue::default(),
        vault,
        timer: Timer::default(),
        upkeep: Signal::default(),
        health: Health::default(),
        room: room.into(),
        next: AtomicU64::new(resume.next.0),
        committed_ms: AtomicU64::new(resume.committed_ms),
        closed: false.into(),
        #[cfg(test)]
        mutation: crate::simulation::Mutation::of_this_thread(),
    });
    {
        let mut flow = shared.flow.state();
        let synced = resume.synced;
        (flow.written, flow.synced, flow.wanted) = (synced, synced, synced);
    }
    let mut table = shared.table.state();
    (table.visible, table.last_number) = (visible, recovered.last_number);
    let now_ms = shared.clock.now_ms();
    for (known, fresh) in cursors {
        let mut progress = known.progress;
        progress.clamp_due(now_ms);
        progress.set_waiting_max(known.opened.waiting_max);
        let place = Place::new(&known.opened, progress, fresh);
        let (number, id) = (known.opened.cursor, known.opened.id);
        table.insert(LogCursor::new(shared.clone(), number, id, place));
    }
    drop(table);
    report(&shared, &corrupt);
    let damaged = recovered.ledger_damaged_at.map(|at| LogEvent::LedgerDamaged { at });
    let lost = ledger_lost.then_some(LogEvent::LedgerLost);
    let restored = recovered.restored.into_iter().map(|number| LogEvent::Restored { number });
    let unknown = recovered.unknown.into_iter().map(|file| LogEvent::Unknown { file });
    restored.chain(unknown).for_each(|event| shared.observer.observe(&event));
    for event in damaged.into_iter().chain(lost) {
        add(&shared.telemetry.ledger_damages, 1);
        shared.observer.observe(&event);
    }
    shared
}

fn report(shared: &Shared, corrupt: &[crate::scan::BadRange]) {
    add(&shared.telemetry.corrupt_ranges, corrupt.len() as u64);
    for range in corrupt {
        let (first, count) = (range.first, range.count);
        let reason = "a part of a segment is not what was written";
        shared.observer.observe(&LogEvent::Corrupt { first, count, reason });
    }
}

/// An append on its way: for each part its number of events, and the answer where one will come.
type Parts = Vec<(usize, Option<oneshot::Receiver<Result<Placed, AppendError>>>)>;

impl Shared {
    /// Queues a batch for the writer.
    pub(crate) fn begin_append(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> Result<Parts, AppendError> {
        if durability > Durability::Synced {
            return Err(AppendError::Durability(durability));
        }
        if self.health.is_full() {
            let used_bytes = self.segments.used_bytes();
            return Err(AppendError::Full { used_bytes, max_bytes: self.limits.max_bytes });
        }
        let mut pending = self.prepare(batch, durability)?;
        let mut parts = Parts::new();
        for part in &mut pending {
            let mut answer = None;
            if durability > Durability::Accepted {
                let (reply, answered) = oneshot::channel();
                part.reply = Some(reply);
                answer = Some(answered);
            }
            parts.push((part.events.len(), answer));
        }
        self.queue.push(pending)?;
        Ok(parts)
    }

    /// Encodes and hashes; a batch that need not stand together is cut where it is too large.
    fn prepare(&self, batch: Batch, durability: Durability) -> Result<Vec<Pending>, AppendError> {
        let max_bytes = self.limits.batch_bytes as u64;
        // One that is held would hold the request body of all.
        let is_small = batch.events.len() == 1
            || batch.events.iter().map(|event| event.payload.len()).sum::<usize>()
                <= limits::TAIL_BATCH_BYTES;
        let mut done = Vec::new();
        let mut current = Pending::new(batch.atomic, durability);
        for event in batch.events {
            let length = stored::head_bytes(&event) + event.payload.len();
            let whole = current.bytes + record::size(length);
            if !batch.atomic && whole > self.limits.batch_bytes && !current.events.is_empty() {
                let full = std::mem::replace(&mut current, Pending::new(false, durability));
                done.push(full);
            }
            current.add(event, is_small);
            if current.bytes as u64 > max_bytes {
                return Err(AppendError::TooLarge { bytes: current.bytes as u64, max_bytes });
            }
        }
        done.push(current);
        done.retain(|pending| !pending.events.is_empty());
        Ok(done)
    }

    /// Is an event of `length` bytes, as stored, small enough?
    pub(crate) fn fits(&self, length: usize) -> Result<(), AppendError> {
        let (bytes, max_bytes) = (batch::BYTES + record::size(length), self.limits.batch_bytes);
        if bytes > max_bytes {
            let (bytes, max_bytes) = (bytes as u64, max_bytes as u64);
            return Err(AppendError::TooLarge { bytes, max_bytes });
        }
        Ok(())
    }

    /// What an append that was dropped unanswered gets to hear.
    pub(crate) fn unanswered(&self) -> AppendError {
        let reason = self.health.failed().unwrap_or_else(|| "the log is closed".into());
        AppendError::Unavailable(reason)
    }
}

impl Log {
    /// The largest batch it takes, and so the largest event: bytes as stored.
    pub fn batch_bytes(&self) -> usize {
        self.shared.limits.batch_bytes
    }
}

impl Broker for Log {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durabilities: &[Durability::Accepted, Durability::Written, Durability::Synced],
            default_durability: Durability::Synced,
        }
    }

    fn fits(&self, event: &Event) -> Result<(), AppendError> {
        self.shared.fits(stored::head_bytes(event) + event.payload.len())
    }

    fn append(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        async move {
            let mut receipts = Vec::with_capacity(batch.events.len());
            for (count, answer) in self.shared.begin_append(batch, durability)? {
                let Some(answer) = answer else {
                    receipts.extend(std::iter::repeat_n(Receipt::Accepted, count));
                    continue;
                };
                let placed = answer.await.map_err(|_| self.shared.unanswered())??;
                receipts.extend(placed.receipts(count));
            }
            Ok(Receipts { receipts, durability })
        }
        .boxed()
    }

    fn delay(
        &self,
        event: Event,
        due_ms: u64,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        async move {
            let answer = self.shared.begin_delay(&event, due_ms, durability)?;
            let receipt = answer.await.map_err(|_| self.shared.unanswered())??;
            // The vault knows no weaker level.
            Ok(Receipts { receipts: vec![receipt], durability: Durability::Synced })
        }
        .boxed()
    }

    fn open(&self, spec: CursorSpec) -> BoxFuture<'_, Result<Arc<dyn Cursor>, CursorOpenError>> {
        async move {
            let shared = self.shared.clone();
            let opened = async {
                let admitted = if shared.admits_at_once(&spec) {
                    shared.admit(spec)?
                } else {
                    crate::cursor::blocking(move || shared.admit(spec)).await?
                };
                admitted.answer.await.map_err(|_| CursorError::Closed)??;
                Ok::<_, CursorError>(admitted.cursor)
            };
            match opened.await {
                Ok(cursor) => Ok(Arc::new(OpenCursor(cursor)) as Arc<dyn Cursor>),
                Err(error) => Err(CursorOpenError::Unavailable(error.to_string())),
            }
        }
        .boxed()
    }

    fn forget(&self, id: CursorId) -> BoxFuture<'_, Result<(), CursorError>> {
        async move {
            let answer = self.shared.forget(&id)?;
            answer.await.map_err(|_| CursorError::Closed)?
        }
        .boxed()
    }

    fn cursors(&self) -> BoxFuture<'_, Result<Vec<CursorId>, CursorError>> {
        let ids = self.shared.table.state().by_id.keys().cloned().collect();
        std::future::ready(Ok(ids)).boxed()
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        &self.shared.vault
    }

    fn stats(&self) -> BrokerStats {
        let telemetry = &self.shared.telemetry;
        let delayed = self.shared.delays.kept();
        BrokerStats {
            health: self.shared.health.now(),
            used_bytes: self.shared.segments.used_bytes(),
            free_bytes: load(&self.shared.room),
            first: self.shared.segments.first(),
            next: self.shared.next_position(),
            corrupt_ranges: load(&telemetry.corrupt_ranges),
            delayed_events: delayed.events,
            delayed_bytes: delayed.bytes,
            dropped_events: load(&telemetry.dropped_events),
            dead_letters: load(&telemetry.dead_letters),
        }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CloseError>> {
        async move {
            let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(threads) = threads {
                let stopped = tokio::task::spawn_blocking(move || threads.stop()).await;
                stopped.map_err(|error| CloseError::Sync(error.to_string()))?;
            }
            self.shared.health.failed().map_or(Ok(()), |reason| Err(CloseError::Sync(reason)))
        }
        .boxed()
    }
}
