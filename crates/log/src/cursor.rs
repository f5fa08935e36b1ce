//! One cursor of the log: its place, the events that wait for it, and the leases that are out.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventbus_core::broker::{CursorError, CursorId, CursorSpec, CursorStats, LeaseHome};
use eventbus_core::cursor::{Ended, Leased, Progress, Spot};
use eventbus_core::dead_letters::{DeadLetter, DeadLetterKey};
use eventbus_core::delivery::Verdict;
use eventbus_core::{Cursor, Interest, Lease, Position, Settled, Stored, TopicHash};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use crate::bytes::entry::{Change, Opened};
use crate::fresh::Fresh;
use crate::index;
use crate::ledger::Request;
use crate::reader::ReadError;
use crate::reading::{Reading, Readings};
use crate::shared::Shared;
use crate::table::TableState;
use crate::telemetry::add;

/// A cursor.
pub(crate) struct LogCursor {
    pub(crate) number: u64,
    pub(crate) id: CursorId,
    place: Mutex<Place>,
    notify: Notify,
    pub(crate) shared: Arc<Shared>,
}

/// Where a cursor is.
pub(crate) struct Place {
    pub(crate) interest: Interest,
    pub(crate) waiting_max: usize,
    pub(crate) progress: Progress,
    pub(crate) fresh: Fresh,
    pub(crate) dropped: u64,
    pub(crate) forgotten: bool,
    pub(crate) readings: Readings,
    /// The time at which the timer wakes it.
    timer_ms: Option<u64>,
}

impl Place {
    pub(crate) fn new(opened: &Opened, progress: Progress, fresh: Fresh) -> Self {
        Self {
            interest: opened.interest.clone(),
            waiting_max: opened.waiting_max,
            progress,
            fresh,
            dropped: opened.dropped,
            forgotten: false,
            readings: Readings::default(),
            timer_ms: None,
        }
    }

    /// The first position this cursor holds back from being trimmed.
    pub(crate) fn holds_from(&self) -> Option<Position> {
        let held = self.progress.first_unsettled().map(|spot| spot.position);
        [held, self.fresh.first_position()].into_iter().flatten().min()
    }
}

/// What a look at the cursor gave.
pub(crate) enum Look {
    /// These, of which some may have to be read from disk.
    Leased(Vec<Leased>),
    /// The index must be read first.
    Lookup(Reading),
    /// Nothing now.
    Nothing,
}

impl LogCursor {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, id: CursorId, place: Place) -> Arc<Self> {
        let (place, notify) = (Mutex::new(place), Notify::new());
        Arc::new(Self { number, id, place, notify, shared })
    }

    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn topic_hash(&self) -> TopicHash {
        self.place().interest.topic_hash()
    }

    /// Up to where it lost events to retention, and how many it ever did.
    pub(crate) fn dropped(&self) -> (Position, u64) {
        let place = self.place();
        (place.progress.floor(), place.dropped)
    }

    /// What the ledger must know to make it again. It is true alone: where the turns behind it are
    /// lost events come again, and none is left out.
    pub(crate) fn opened(&self) -> Opened {
        let place = self.place();
        Opened {
            cursor: self.number,
            id: self.id.clone(),
            interest: place.interest.clone(),
            waiting_max: place.waiting_max,
            frontier: place.progress.settled_upto(),
            dropped: place.dropped,
        }
    }

    /// The same once it has taken `spec` in.
    pub(crate) fn opened_as(&self, spec: &CursorSpec) -> Opened {
        let (interest, waiting_max) = (spec.interest.clone(), spec.waiting_max);
        Opened { interest, waiting_max, ..self.opened() }
    }

    /// Takes another spec in. Where the interest is another one, everything above the frontier is
    /// found anew by it; gives the count that is owed then, or since one that failed. The caller
    /// holds the table.
    pub(crate) fn change(
        self: &Arc<Self>,
        spec: &CursorSpec,
        table: &mut TableState,
    ) -> Option<Reading> {
        let mut place = self.place();
        place.waiting_max = spec.waiting_max;
        place.progress.set_waiting_max(spec.waiting_max);
        if place.interest != spec.interest {
            let before = std::mem::replace(&mut place.interest, spec.interest.clone());
            place.fresh = Fresh::uncounted_from(place.progress.frontier(), table.visible);
            table.unlisten(before.topic_hash(), self.number);
            table.listen(spec.interest.topic_hash(), self.clone());
        }
        (!place.fresh.is_counted()).then(|| place.begin_count(self))
    }

    /// Takes in new events; true when there were any and a dispatcher that sleeps should hear of
    /// them.
    pub(crate) fn offer(&self, spots: &[Spot]) -> bool {
        let mut place = self.place();
        place.fresh.offer(spots) && place.progress.takes_fresh()
    }

    /// Wakes a dispatcher that waits for events.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Gives out nothing any more, once the ledger has taken that; the answer comes when it is
    /// durable.
    pub(crate) fn forget(&self) -> Result<Answer, CursorError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        // Held meanwhile: no turn comes after that.
        let mut place = self.place();
        let change = Change::Forget { cursor: self.number };
        self.shared.ledger.push(Request::Change { change, reply: Some(reply) })?;
        place.forgotten = true;
        self.shared.timer.set(self.number, place.timer_ms.take(), None);
        drop(place);
        self.wake_all();
        Ok(answer)
    }

    /// Wakes every dispatcher that waits, and the next one to come.
    pub(crate) fn wake_all(&self) {
        self.notify.notify_waiters();
        self.notify.notify_one();
    }

    /// A retry's time has come.
    pub(crate) fn fell_due(&self) {
        let mut place = self.place();
        place.timer_ms = None;
        if !place.progress.has_ready(self.shared.clock.now_ms()) {
            self.set_timer(&mut place);
            return;
        }
        drop(place);
        self.wake();
    }

    /// Has the timer wake this cursor when its next retry falls due.
    pub(crate) fn set_timer(&self, place: &mut Place) {
        let due_ms = place.progress.next_due_ms();
        if due_ms != place.timer_ms && !place.forgotten {
            self.shared.timer.set(self.number, place.timer_ms, due_ms);
            place.timer_ms = due_ms;
        }
    }

    /// Gives out up to `limit` events, without waiting and without reading a disk.
    pub(crate) fn look(self: &Arc<Self>, limit: usize) -> Result<Look, CursorError> {
        let now_ms = self.shared.clock.now_ms();
        let mut place = self.place();
        if place.forgotten {
            return Err(CursorError::Forgotten);
        }
        if self.shared.is_closed() {
            return Err(CursorError::Closed);
        }
        let Place { progress, fresh, .. } = &mut *place;
        let leased = progress.lease(limit, now_ms, || fresh.take());
        if leased.is_empty() {
            if place.progress.takes_fresh()
                && !place.readings.are_under_way()
                && let Some(stretch) = place.fresh.missing()
            {
                return Ok(Look::Lookup(place.read(self, stretch)));
            }
            self.set_timer(&mut place);
            return Ok(Look::Nothing);
        }
        let more = leased.len() == limit && place.fresh.has_more();
        drop(place);
        if more {
            // Another dispatcher may sleep on the same cursor.
            self.wake();
        }
        Ok(Look::Leased(leased))
    }

    /// Makes leases of those events that are in memory; the places of the others stay empty.
    fn from_memory(self: &Arc<Self>, leased: &[Leased]) -> Vec<Option<Lease>> {
        let mut leases = Vec::with_capacity(leased.len());
        let mut next = leased.iter();
        self.shared.tail.get(leased.iter().map(|one| one.spot.position), |_, stored| {
            let attempts = next.next().map_or(0, |one| one.attempts);
            leases.push(stored.map(|stored| self.lease_on(stored.clone(), attempts)));
        });
        let hits = leases.iter().flatten().count();
        add(&self.shared.telemetry.cache_hits, hits as u64);
        add(&self.shared.telemetry.cache_misses, (leases.len() - hits) as u64);
        leases
    }

    /// Fills the empty places by reading. Blocks. Damaged events are stepped over.
    fn from_disk(
        self: &Arc<Self>,
        leased: &[Leased],
        mut leases: Vec<Option<Lease>>,
    ) -> Result<Vec<Lease>, CursorError> {
        let mut failed = None;
        let mut missing = leases.iter().filter(|lease| lease.is_none()).count();
        for (one, lease) in leased.iter().zip(&mut leases) {
            if lease.is_some() {
                continue;
            }
            missing -= 1;
            match self.shared.reader.read(&self.shared, one.spot, missing > 1) {
                Ok(stored) => *lease = Some(self.lease_on(stored, one.attempts)),
                // Retention took it, and counted it.
                Err(ReadError::Gone) => self.step_over(one.spot.position),
                Err(ReadError::Damaged(reason)) => {
                    self.shared.reader.report(&self.shared, one.spot.position, reason);
                    self.step_over(one.spot.position);
                }
                Err(ReadError::Io(error)) => {
                    self.release(one.spot.position);
                    failed = Some(format!("reading the log: {error}"));
                }
            }
        }
        let leases: Vec<Lease> = leases.into_iter().flatten().collect();
        match failed {
            Some(reason) if leases.is_empty() => Err(CursorError::Unavailable(reason)),
            _ => Ok(leases),
        }
    }

    /// Leases without waiting: what simulation and tests call. Blocks while it reads.
    #[cfg(test)]
    pub(crate) fn lease_now(self: &Arc<Self>, limit: usize) -> Result<Vec<Lease>, CursorError> {
        loop {
            match self.look(limit)? {
                Look::Leased(leased) => return self.from_disk(&leased, self.from_memory(&leased)),
                Look::Lookup(reading) => look_up(&reading)?,
                Look::Nothing => return Ok(Vec::new()),
            }
        }
    }

    /// Leases, waiting for at least one event.
    async fn lease_soon(self: &Arc<Self>, limit: usize) -> Result<Vec<Lease>, CursorError> {
        loop {
            let woken = self.notify.notified();
            match self.look(limit)? {
                Look::Leased(leased) => {
                    let leases = self.read(leased).await?;
                    if !leases.is_empty() {
                        return Ok(leases);
                    }
                }
                Look::Lookup(reading) => blocking(move || look_up(&reading)).await?,
                Look::Nothing => woken.await,
            }
        }
    }

    /// Turns what was given out into leases, on a blocking thread where a disk must be read.
    async fn read(self: &Arc<Self>, leased: Vec<Leased>) -> Result<Vec<Lease>, CursorError> {
        let leases = self.from_memory(&leased);
        if leases.iter().all(Option::is_some) {
            return Ok(leases.into_iter().flatten().collect());
        }
        // The leases travel with the read, so that a caller who gives up gives all of them back.
        let cursor = self.clone();
        blocking(move || cursor.from_disk(&leased, leases)).await
    }

    fn lease_on(self: &Arc<Self>, stored: Stored, attempts: u32) -> Lease {
        Lease::new(stored, attempts, self.clone())
    }

    fn step_over(self: &Arc<Self>, position: Position) {
        let ended = vec![Ended { position, attempt: None, verdict: Verdict::Skip }];
        let request = Request::Turn { cursor: self.clone(), ended, reply: None };
        if self.shared.ledger.push(request).is_err() {
            self.release(position);
        }
    }

    /// The first event it holds back, or the beginning of the segment that event lies in.
    pub(crate) fn holds(&self) -> Option<Spot> {
        let (position, spot) = {
            let place = self.place();
            let spot = place.progress.first_unsettled().or_else(|| place.fresh.first());
            (place.holds_from()?, spot)
        };
        spot.filter(|spot| spot.position == position).or_else(|| {
            let segments = self.shared.segments.above(Position(position.0 - 1));
            let place = index::place(segments.first()?.number, 0);
            Some(Spot { position, place })
        })
    }

    /// Ends the leases of a turn without dead letters; the answer comes from the ledger.
    pub(crate) fn end(self: &Arc<Self>, turn: Vec<Settled>) -> Result<Answer, CursorError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let (cursor, ended) = (self.clone(), turn.iter().map(ended).collect());
        self.shared.ledger.push(Request::Turn { cursor, ended, reply: Some(reply) })?;
        // From here on the ledger decides: the leases have no say any more, even when nobody waits
        // for the answer.
        for settled in turn {
            settled.lease.end();
        }
        Ok(answer)
    }

    /// Stores what a turn gives up and then ends its leases: so a dead letter is there before its
    /// event is settled, and after a crash in between it is put again under the same key. Blocks.
    pub(crate) fn give_up_and_end(
        self: &Arc<Self>,
        turn: Vec<Settled>,
    ) -> Result<Answer, CursorError> {
        let dead = self.dead_of(&turn);
        let put = self.shared.vault.put(&dead);
        let new = put.map_err(|error| CursorError::Unavailable(format!("the vault: {error}")))?;
        add(&self.shared.telemetry.dead_letters, new as u64);
        self.end(turn)
    }

    /// The dead letters of a turn. What is not leased any more is settled into nothing: retention
    /// took the event and counted it, or the cursor was forgotten.
    fn dead_of(&self, turn: &[Settled]) -> Vec<DeadLetter> {
        let dead_ms = self.shared.clock.now_ms();
        let place = self.place();
        let dead = turn.iter().filter_map(|settled| {
            let Verdict::DeadLetter { reason } = settled.verdict else { return None };
            let tried = place.progress.tried(&ended(settled))?;
            let key = DeadLetterKey { cursor: self.id.clone(), position: settled.lease.position() };
            let event = settled.lease.event().clone();
            Some(DeadLetter { key, event, reason, dead_ms, tried })
        });
        if place.forgotten { Vec::new() } else { dead.collect() }
    }

    /// How the cursor is.
    pub(crate) fn stats(&self) -> CursorStats {
        let (counts, fresh, dropped) = {
            let place = self.place();
            (place.progress.counts(), place.fresh.count(), place.dropped)
        };
        let spot = self.holds();
        let lag_events = fresh + counts.unsettled as u64;
        CursorStats {
            lag_events,
            waiting_events: counts.waiting as u64,
            leased_events: counts.leased as u64,
            held_events: counts.unsettled as u64,
            oldest_unsettled_ms: spot.and_then(|spot| self.shared.time_of(spot)),
            backlog_bytes: spot.map_or(0, |spot| self.shared.segments.bytes_from(spot.place)),
            backlog_max_bytes: Some(self.shared.limits.backlog_max_bytes),
            dropped_events: dropped,
        }
    }
}

impl LeaseHome for LogCursor {
    fn release(&self, position: Position) {
        self.place().progress.release(position);
        self.wake();
    }
}

/// The ledger's answer to a turn.
pub(crate) type Answer = tokio::sync::oneshot::Receiver<Result<(), CursorError>>;

fn ended(settled: &Settled) -> Ended {
    let Settled { lease, attempt, verdict } = settled;
    Ended { position: lease.position(), attempt: *attempt, verdict: *verdict }
}

fn look_up(reading: &Reading) -> Result<(), CursorError> {
    reading.find().map_err(|error| CursorError::Unavailable(format!("an index: {error}")))
}

fn is_dead(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::DeadLetter { .. })
}

/// A cursor as its user has it.
pub(crate) struct OpenCursor(pub(crate) Arc<LogCursor>);

impl Cursor for OpenCursor {
    fn lease(&self, limit: NonZeroUsize) -> BoxFuture<'_, Result<Vec<Lease>, CursorError>> {
        self.0.lease_soon(limit.get()).boxed()
    }

    fn settle(&self, turn: Vec<Settled>) -> BoxFuture<'_, Result<(), CursorError>> {
        async move {
            let answer = if turn.iter().any(|settled| is_dead(settled.verdict)) {
                let cursor = self.0.clone();
                blocking(move || cursor.give_up_and_end(turn)).await?
            } else {
                self.0.end(turn)?
            };
            match answer.await {
                Ok(result) => result,
                Err(_) => Err(CursorError::Closed),
            }
        }
        .boxed()
    }

    fn stats(&self) -> CursorStats {
        self.0.stats()
    }
}

/// Runs `work` where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CursorError> + Send + 'static,
) -> Result<T, CursorError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(CursorError::Closed),
    }
}
