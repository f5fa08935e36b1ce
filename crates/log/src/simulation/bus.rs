//! A log without threads, whose every step the dice choose.

mod delays;
mod drain;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbus_core::broker::{AppendError, CursorError, CursorId, CursorSpec, Start};
use eventbus_core::delivery::{Attempt, DeadLetterReason, Outcome, Verdict};
use eventbus_core::testing::SeededEntropy;
use eventbus_core::{Batch, Clock, Durability, Entropy, Event, Lease, Receipt, Settled};
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::checker::{Broken, Checker, Id};
use crate::config::LogConfig;
use crate::cursor::LogCursor;
use crate::delayer::Delayer;
use crate::disk::{Fault, FaultyDisk};
use crate::ledger::{self, Ledger};
use crate::log::Machines;
use crate::queue::Placed;
use crate::shared::Shared;
use crate::signal::Next;
use crate::syncer::Syncer;
use crate::table::Router;
use crate::telemetry::{LogEvent, Observer};
use crate::timer;
use crate::upkeep::Upkeep;
use crate::writer::Writer;
use eventbus_core::testing::{event, interest};

const TYPES: [&str; 3] = ["a", "b", "c"];
const CURSORS: usize = 4;
const START_MS: u64 = 1_700_000_000_000;
const VOLUME_BYTES: u64 = 32 * 1024 * 1024;

/// How long ids are remembered.
const REMEMBERED: Duration = Duration::from_secs(30);

/// What may happen in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) steps: u64,
    pub(crate) power_cuts: bool,
    pub(crate) faults: bool,
    /// A process that met a fault is started anew, and soon after that the power is cut.
    pub(crate) cut_after_fault: bool,
}

pub(crate) struct Bus {
    disk: FaultyDisk,
    clock: Arc<SimulatedClock>,
    dice: SeededEntropy,
    parts: Option<Parts>,
    pub(crate) checker: Checker,
    next: Id,
    /// Ids that publishers gave of late.
    given: VecDeque<Id>,
    /// Those of delayed events, which are others.
    given_delayed: VecDeque<Id>,
    appends: Vec<Appending>,
    delays: Vec<(Id, oneshot::Receiver<Result<Receipt, AppendError>>)>,
    openings: Vec<(String, oneshot::Receiver<Result<(), CursorError>>)>,
    leases: Vec<(String, Arc<LogCursor>, Lease)>,
    settlings: Vec<Settling>,
    trace: DefaultHasher,
    chronicle: Arc<Chronicle>,
    mix: Mix,
    /// After so many steps the power is cut.
    cut_in: Option<u64>,
}

struct Parts {
    shared: Arc<Shared>,
    delayer: Delayer,
    writer: Writer,
    syncer: Syncer,
    router: Router,
    ledger: Ledger,
    upkeep: Upkeep,
}

/// The end of a process frees what its parts keep alive in a ring.
impl Drop for Parts {
    fn drop(&mut self) {
        self.shared.table.clear();
        self.shared.ledger.forget();
    }
}

struct Appending {
    ids: Vec<Id>,
    answer: oneshot::Receiver<Result<Placed, AppendError>>,
}

struct Settling {
    cursor: String,
    ids: Vec<Id>,
    answer: oneshot::Receiver<Result<(), CursorError>>,
}

struct SimulatedClock {
    wall_ms: AtomicU64,
    elapsed_ms: AtomicU64,
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms.load(Ordering::Relaxed))
    }
}

/// Prints the run when `EVENTBUS_TRACE` is set: to be used with one seed.
struct Chronicle(bool);

impl Chronicle {
    fn note(&self, what: impl FnOnce() -> String) {
        if self.0 {
            println!("{}", what());
        }
    }
}

impl Observer for Chronicle {
    fn observe(&self, event: &LogEvent) {
        self.note(|| format!("{event:?}"));
    }
}

impl Bus {
    pub(crate) fn new(seed: u64, mix: Mix) -> Self {
        let clock = SimulatedClock { wall_ms: START_MS.into(), elapsed_ms: 0.into() };
        Self {
            disk: FaultyDisk::new(VOLUME_BYTES),
            clock: Arc::new(clock),
            dice: SeededEntropy::new(seed),
            parts: None,
            checker: Checker::default(),
            next: 1,
            given: VecDeque::new(),
            given_delayed: VecDeque::new(),
            appends: Vec::new(),
            delays: Vec::new(),
            openings: Vec::new(),
            leases: Vec::new(),
            settlings: Vec::new(),
            trace: DefaultHasher::new(),
            chronicle: Arc::new(Chronicle(std::env::var_os("EVENTBUS_TRACE").is_some())),
            mix,
            cut_in: None,
        }
    }

    /// Has the operation of that number fail.
    pub(crate) fn failing_at(self, operation: u64, fault: Fault) -> Self {
        self.disk.fail_at(operation, fault);
        self
    }

    /// How many changing operations the whole run does.
    pub(crate) fn operations(self) -> Result<u64, Broken> {
        let disk = self.disk.clone();
        self.run().map(|_| disk.operations())
    }

    /// Runs to the end; returns the hash of everything that happened.
    pub(crate) fn run(mut self) -> Result<(u64, Checker), Broken> {
        for _ in 0..self.mix.steps {
            self.cut_in = self.cut_in.and_then(|steps| steps.checked_sub(1));
            if self.cut_in == Some(0) {
                self.crash(true)?;
            }
            if self.parts.is_none() {
                if self.roll(3) == 0 {
                    self.maybe_fault();
                }
                self.open()?;
                continue;
            }
            self.any_step()?;
            self.answers()?;
            if self.disk.is_dead() {
                self.crash(false)?;
            }
            if self.mix.cut_after_fault && self.disk.has_struck() {
                self.crash(false)?;
            }
        }
        self.drain()?;
        Ok((self.trace.finish(), self.checker))
    }

    fn roll(&self, sides: u64) -> u64 {
        self.dice.next_u64() % sides
    }

    fn config(&self) -> LogConfig {
        LogConfig {
            history_bytes: 64 * 1024,
            // The clock jumps, and what is dropped would have to be known to the checker.
            age: Duration::from_secs(10_000 * 3600),
            deduplication_time: REMEMBERED,
            max_bytes: Some(VOLUME_BYTES / 2),
            segment_bytes: 64 * 1024,
            tail_cache_bytes: 16 * 1024,
            ..LogConfig::on_disk(Arc::new(self.disk.clone()))
        }
    }

    fn open(&mut self) -> Result<(), Broken> {
        let opened = {
            let (clock, chronicle) = (self.clock.clone(), self.chronicle.clone());
            Machines::open(self.config(), clock, &self.dice, chronicle)
        };
        let machines = match opened {
            Ok((machines, _, _)) => machines,
            Err(_) if self.disk.is_dead() => return self.crash(false),
            // Whoever starts the process tries again.
            Err(_) if self.disk.has_struck() => return self.crash(false),
            Err(error) => return Err(format!("the log does not open: {error}")),
        };
        let Machines { shared, writer, ledger, delayer } = machines;
        for cursor in self.checker.must_exist() {
            if !shared.table.state().by_id.contains_key(&CursorId(cursor.into())) {
                return Err(format!("cursor {cursor} is gone"));
            }
        }
        self.parts = Some(Parts {
            syncer: Syncer::new(shared.clone()),
            router: Router::new(shared.clone()),
            upkeep: Upkeep::new(shared.clone()),
            shared,
            delayer,
            writer,
            ledger,
        });
        self.nothing_is_corrupt()
    }

    /// No bit was flipped, so nothing may be called corrupt.
    fn nothing_is_corrupt(&self) -> Result<(), Broken> {
        let Some(parts) = &self.parts else { return Ok(()) };
        match parts.shared.telemetry.corrupt_ranges.load(Ordering::Relaxed) {
            0 => Ok(()),
            ranges => Err(format!("{ranges} ranges are called corrupt that are not")),
        }
    }

    /// The process ends: by a kill, or with the power.
    fn crash(&mut self, power_cut: bool) -> Result<(), Broken> {
        power_cut.hash(&mut self.trace);
        self.chronicle.note(|| format!("crash, power cut: {power_cut}"));
        if self.mix.cut_after_fault && self.disk.has_struck() && !power_cut {
            self.cut_in = Some(1 + self.roll(30));
        }
        self.disk =
            if power_cut { self.disk.after_power_cut(&self.dice) } else { self.disk.after_kill() };
        self.answers()?;
        // Until it runs again ids may have had their time.
        let away_ms = [0, 0, 40_000][self.roll(3) as usize];
        let wall_ms = self.clock.wall_ms.fetch_add(away_ms, Ordering::Relaxed) + away_ms;
        self.checker.it_is(wall_ms);
        self.parts = None;
        self.appends.clear();
        self.delays.clear();
        self.openings.clear();
        self.leases.clear();
        self.settlings.clear();
        if power_cut {
            self.checker.power_cut()
        } else {
            self.checker.killed()
        }
        Ok(())
    }

    fn any_step(&mut self) -> Result<(), Broken> {
        let choice = self.roll(100);
        choice.hash(&mut self.trace);
        match choice {
            0..=15 => self.append(),
            16..=19 => self.delay(),
            20..=24 => self.open_cursor(),
            25..=39 => self.lease()?,
            40..=51 => self.settle(),
            52..=54 => self.give_back(),
            55..=58 => self.tick(),
            59 => self.maybe_crash()?,
            60..=61 => self.maybe_fault(),
            _ => self.step_one(),
        }
        Ok(())
    }

    /// One step of one part of the log.
    fn step_one(&mut self) {
        let which = self.roll(14);
        let Some(parts) = &mut self.parts else { return };
        let now = parts.shared.now();
        let next = match which {
            0..=2 => parts.writer.step(now),
            3..=4 => parts.syncer.step(now),
            5..=6 => parts.router.step(now),
            7..=8 => parts.ledger.step(now),
            9 => ledger::sync_step(&parts.shared, now),
            10 => timer::step(&parts.shared, now),
            11..=12 => parts.delayer.step(now),
            _ => parts.upkeep.step(now),
        };
        (which, next == Next::Again).hash(&mut self.trace);
    }

    /// The id that the publisher of an event gives it, if it does: often one that it gave before.
    fn give_id(&mut self, event: Id) -> Option<Id> {
        let given = match self.roll(4) {
            0..=1 => return None,
            2 => *self.given.get(self.roll(1 + self.given.len() as u64) as usize)?,
            _ => event,
        };
        self.given.push_back(given);
        if self.given.len() > 20 {
            self.given.pop_front();
        }
        Some(given)
    }

    fn append(&mut self) {
        let event_type = TYPES[self.roll(TYPES.len() as u64) as usize];
        let durability = match self.roll(5) {
            0 => Durability::Accepted,
            1 => Durability::Written,
            _ => Durability::Synced,
        };
        let count = 1 + self.roll(4);
        let atomic = self.roll(3) == 0;
        let ids: Vec<Id> = (self.next..self.next + count).collect();
        self.next += count;
        let given: Vec<Option<Id>> = ids.iter().map(|id| self.give_id(*id)).collect();
        let events = ids.iter().zip(&given).map(|(id, given)| {
            let padding = self.roll(3000) as usize;
            let event = event(event_type, format!("{id}:{:padding$}", ""));
            match given {
                None => event,
                Some(given) => Event { id: given.to_string().into(), id_given: true, ..event },
            }
        });
        let batch = Batch { events: events.collect(), atomic };
        let level = durability.as_str();
        self.chronicle
            .note(|| format!("{ids:?} as {given:?} of {event_type}, {level}, atomic: {atomic}"));
        self.checker.send(&ids, &given, event_type, (durability, atomic));
        let Some(parts) = &self.parts else { return };
        let Ok(answers) = parts.shared.begin_append(batch, durability) else { return };
        let mut ids = ids.into_iter();
        for (count, answer) in answers {
            let ids: Vec<Id> = ids.by_ref().take(count).collect();
            if let Some(answer) = answer {
                self.appends.push(Appending { ids, answer });
            }
        }
    }

    fn open_cursor(&mut self) {
        let Some(parts) = &self.parts else { return };
        let which = self.roll(CURSORS as u64) as usize;
        let (id, event_type) = (format!("cursor-{which}"), TYPES[which % TYPES.len()]);
        self.checker.opening(&id, event_type);
        let spec = CursorSpec {
            id: CursorId(id.clone().into()),
            interest: interest(event_type),
            start: Start::AtMs(self.clock.now_ms()),
            waiting_max: 20,
        };
        if let Ok(admitted) = parts.shared.admit(spec) {
            self.openings.push((id, admitted.answer));
        }
    }

    fn cursor(&self, id: &str) -> Option<Arc<LogCursor>> {
        let table = self.parts.as_ref()?.shared.table.state();
        table.by_id.get(&CursorId(id.into())).cloned()
    }

    fn lease(&mut self) -> Result<(), Broken> {
        let id = format!("cursor-{}", self.roll(CURSORS as u64));
        let limit = 1 + self.roll(6) as usize;
        self.lease_of(&id, limit).map(drop)
    }

    fn lease_of(&mut self, id: &str, limit: usize) -> Result<usize, Broken> {
        let Some(cursor) = self.cursor(id) else { return Ok(0) };
        let leases = match cursor.lease_now(limit) {
            Ok(leases) => leases,
            Err(_) if self.disk.is_dead() => return Ok(0),
            Err(error) => return Err(format!("{id}: {error}")),
        };
        let count = leases.len();
        for lease in leases {
            let event = number(lease.event())?;
            self.chronicle.note(|| format!("{id} leases {event} at {}", lease.position()));
            (id, event, lease.position()).hash(&mut self.trace);
            self.checker.leased(id, event, lease.position())?;
            self.leases.push((id.to_owned(), cursor.clone(), lease));
        }
        Ok(count)
    }

    /// Settles up to half of what one cursor has out.
    fn settle(&mut self) {
        let Some(which) = self.leases.get(self.roll(1 + self.leases.len() as u64) as usize) else {
            return;
        };
        let (id, cursor) = (which.0.clone(), which.1.clone());
        let mut turn = Vec::new();
        let (mut done, mut asked, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, home, lease) in std::mem::take(&mut self.leases) {
            if owner != id || self.roll(2) == 0 {
                self.leases.push((owner, home, lease));
                continue;
            }
            let verdict = match self.roll(5) {
                0 => Verdict::Retry { due_ms: self.clock.now_ms() + self.roll(20_000) },
                1 => Verdict::Skip,
                2 => Verdict::DeadLetter { reason: DeadLetterReason::Refused },
                _ => Verdict::Ack,
            };
            let ends = !matches!(verdict, Verdict::Retry { .. });
            let Ok(event) = number(lease.event()) else { continue };
            if self.checker.asked(&id, event, ends) {
                asked.push(event);
            }
            if matches!(verdict, Verdict::DeadLetter { .. }) {
                self.checker.giving_up(&id, event, lease.position());
                dead.push(event);
            }
            if ends {
                done.push(event);
            }
            let attempt = Some(Attempt::new(self.clock.now_ms(), 1, Outcome::Timeout));
            turn.push(Settled { lease, attempt, verdict });
        }
        match cursor.give_up_and_end(turn) {
            Ok(answer) => {
                self.checker.given_up(&id, &dead);
                self.settlings.push(Settling { cursor: id, ids: done, answer });
            }
            Err(_) => self.checker.refused(&id, &asked),
        }
    }

    fn give_back(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let which = self.roll(self.leases.len() as u64) as usize;
        let (id, _, lease) = self.leases.swap_remove(which);
        if let Ok(event) = number(lease.event()) {
            self.checker.given_back(&id, event);
        }
    }

    fn tick(&mut self) {
        let steps = [1, 20, 150, 1_500, 20_000];
        let by_ms = steps[self.roll(steps.len() as u64) as usize];
        self.clock.elapsed_ms.fetch_add(by_ms, Ordering::Relaxed);
        // The wall clock may jump by an hour, either way.
        let jump_ms = if self.roll(40) == 0 { 3_600_000 } else { 0 };
        let wall_ms = self.clock.now_ms() + by_ms;
        let wall_ms = if self.roll(2) == 0 { wall_ms + jump_ms } else { wall_ms - jump_ms };
        self.clock.wall_ms.store(wall_ms, Ordering::Relaxed);
        self.checker.it_is(wall_ms);
    }

    fn maybe_crash(&mut self) -> Result<(), Broken> {
        let power_cut = self.mix.power_cuts && self.roll(2) == 0;
        self.crash(power_cut)
    }

    /// Some operation soon will fail.
    fn maybe_fault(&mut self) {
        if !self.mix.faults {
            return;
        }
        let fault = match self.roll(6) {
            0 => Fault::Error,
            1..=2 => Fault::Full,
            _ => Fault::Kill,
        };
        let at = self.disk.operations() + 1 + self.roll(12);
        self.chronicle.note(|| format!("operation {at} will fail: {fault:?}"));
        self.disk.fail_at(at, fault);
    }

    /// Takes in every answer that has come.
    fn answers(&mut self) -> Result<(), Broken> {
        for mut append in std::mem::take(&mut self.appends) {
            match append.answer.try_recv() {
                Ok(Ok(placed)) => {
                    for (id, receipt) in append.ids.iter().zip(placed.receipts(append.ids.len())) {
                        self.chronicle.note(|| format!("acknowledged {id}: {receipt:?}"));
                        (*id, format!("{receipt:?}")).hash(&mut self.trace);
                        self.checker.acknowledged(*id, receipt)?;
                    }
                }
                Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                Err(TryRecvError::Empty) => self.appends.push(append),
            }
        }
        self.answers_to_delays()?;
        for (id, mut answer) in std::mem::take(&mut self.openings) {
            match answer.try_recv() {
                Ok(Ok(())) => self.checker.opened(&id, self.next),
                Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                Err(TryRecvError::Empty) => self.openings.push((id, answer)),
            }
        }
        for mut settling in std::mem::take(&mut self.settlings) {
            match settling.answer.try_recv() {
                Ok(Ok(())) => self.checker.settled(&settling.cursor, &settling.ids),
                Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                Err(TryRecvError::Empty) => self.settlings.push(settling),
            }
        }
        Ok(())
    }
}

/// The number of an event, checked against all of its payload.
fn number(event: &Event) -> Result<Id, Broken> {
    let payload = String::from_utf8_lossy(&event.payload).into_owned();
    let (number, padding) = payload.split_once(':').ok_or("not a payload of ours")?;
    if padding.chars().any(|padding| padding != ' ') {
        return Err("a payload was changed".into());
    }
    number.parse().map_err(|_| format!("not a number: {number}"))
}
