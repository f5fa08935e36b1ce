//! A broker in memory: the seam's promises and nothing else. It can be told to be unavailable.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use eventbus_core::broker::{
    AppendError, BrokerStats, Capabilities, CloseError, CursorError, CursorId, CursorSpec,
    CursorStats, LeaseHome, OpenError, Receipts, Start,
};
use eventbus_core::delivery::{Attempt, Verdict};
use eventbus_core::testing::NoDeadLetters;
use eventbus_core::{
    Batch, Broker, Clock, Cursor, DeadLetters, Durability, Event, Lease, Position, Receipt,
    Settled, Stored,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

/// The broker.
pub(crate) struct Memory {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    out_of_order: Arc<AtomicBool>,
    opens: AtomicUsize,
    panics: AtomicUsize,
    leases: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    stored: Vec<Stored>,
    cursors: HashMap<CursorId, Arc<MemoryCursor>>,
    forgotten: Vec<CursorId>,
}

/// A cursor of it.
pub(crate) struct MemoryCursor {
    clock: Arc<dyn Clock>,
    out_of_order: Arc<AtomicBool>,
    leases: Arc<AtomicUsize>,
    place: Mutex<Place>,
    wake: Notify,
    me: Weak<Self>,
}

/// Where a cursor is.
pub(crate) struct Place {
    spec: CursorSpec,
    is_forgotten: bool,
    fresh: VecDeque<Stored>,
    released: BTreeMap<Position, (Stored, u32)>,
    waiting: BTreeSet<(u64, Position)>,
    waiting_events: HashMap<Position, (Stored, u32)>,
    leased: HashMap<Position, (Stored, u32)>,
    /// What was settled, in order.
    pub(crate) settled: Vec<(Position, Option<Attempt>, Verdict)>,
    /// Calls of settle.
    pub(crate) turns: usize,
    /// Should settlements be written down? A benchmark says no.
    pub(crate) keeps_history: bool,
    /// What `stats` tells beside what is counted.
    pub(crate) dropped_events: u64,
    /// What `stats` tells instead of the events that are held, when set.
    pub(crate) held_told: Option<u64>,
    /// What is told to be held back, and how much may be, where it is not nothing.
    pub(crate) backlog_told: Option<(u64, u64)>,
    /// Should the next lease panic?
    pub(crate) lease_panics: bool,
    /// How long a lease takes, as if it had to read a disk.
    pub(crate) lease_takes: Duration,
    /// Does settling wait until this is false again?
    pub(crate) settling_hangs: bool,
}

impl Memory {
    /// A broker by this clock.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::default(),
            out_of_order: Arc::default(),
            opens: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            leases: Arc::default(),
        })
    }

    /// Makes everything fail, or work again.
    pub(crate) fn set_out_of_order(&self, is_out_of_order: bool) {
        self.out_of_order.store(is_out_of_order, Ordering::SeqCst);
        for cursor in self.state().cursors.values() {
            cursor.wake.notify_one();
        }
    }

    /// Stores an event.
    pub(crate) fn publish(&self, event: Event) -> Position {
        let mut state = self.state();
        let position = Position(state.stored.len() as u64 + 1);
        let committed_ms = self.clock.now_ms();
        let stored = Stored { position, event: Arc::new(event), committed_ms };
        for cursor in state.cursors.values() {
            cursor.offer(&stored);
        }
        state.stored.push(stored);
        position
    }

    /// The cursor of a Subscription, once it is open.
    pub(crate) fn cursor(&self, uid: &str) -> Option<Arc<MemoryCursor>> {
        self.state().cursors.get(&CursorId(uid.into())).cloned()
    }

    /// Has this many next calls of `open` and `forget` panic.
    pub(crate) fn panic_on(&self, calls: usize) {
        self.panics.store(calls, Ordering::SeqCst);
    }

    fn may_panic(&self) {
        let less = |left: usize| left.checked_sub(1);
        if self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            unreachable!("a defect, as ordered");
        }
    }

    /// The cursors forgotten so far.
    pub(crate) fn forgotten(&self) -> Vec<CursorId> {
        self.state().forgotten.clone()
    }

    /// Cursors open now.
    pub(crate) fn cursor_count(&self) -> usize {
        self.state().cursors.len()
    }

    /// How often `open` was called.
    pub(crate) fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }

    /// How often events were asked for.
    pub(crate) fn leases(&self) -> usize {
        self.leases.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn open_now(&self, spec: CursorSpec) -> Result<Arc<dyn Cursor>, OpenError> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        if self.out_of_order.load(Ordering::SeqCst) {
            return Err(OpenError::Unavailable("out of order".to_owned()));
        }
        let mut state = self.state();
        if let Some(cursor) = state.cursors.get(&spec.id) {
            cursor.place().spec = spec;
            return Ok(cursor.clone());
        }
        let cursor = MemoryCursor::new(self, spec.clone());
        let Start::AtMs(start_ms) = spec.start;
        for stored in state.stored.iter().filter(|stored| stored.committed_ms >= start_ms) {
            cursor.offer(stored);
        }
        state.cursors.insert(spec.id, cursor.clone());
        Ok(cursor)
    }
}

impl Broker for Memory {
    fn capabilities(&self) -> Capabilities {
        const ALL: &[Durability] = &[Durability::Accepted];
        Capabilities { durabilities: ALL, default_durability: Durability::Accepted }
    }

    fn fits(&self, _: &Event) -> Result<(), AppendError> {
        Ok(())
    }

    fn append(&self, batch: Batch, _: Durability) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        let stored = batch.events.into_iter().map(|event| Receipt::Stored(self.publish(event)));
        let receipts = stored.collect();
        async { Ok(Receipts { receipts, durability: Durability::Accepted }) }.boxed()
    }

    fn delay(
        &self,
        _: Event,
        _: u64,
        _: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        let refused = AppendError::Unavailable("push delays no event".to_owned());
        std::future::ready(Err(refused)).boxed()
    }

    fn open(&self, spec: CursorSpec) -> BoxFuture<'_, Result<Arc<dyn Cursor>, OpenError>> {
        async {
            self.may_panic();
            self.open_now(spec)
        }
        .boxed()
    }

    fn forget(&self, id: CursorId) -> BoxFuture<'_, Result<(), CursorError>> {
        async move {
            self.may_panic();
            if self.out_of_order.load(Ordering::SeqCst) {
                return Err(CursorError::Unavailable("out of order".to_owned()));
            }
            let mut state = self.state();
            if let Some(cursor) = state.cursors.remove(&id) {
                cursor.place().is_forgotten = true;
                cursor.wake.notify_one();
            }
            state.forgotten.push(id);
            Ok(())
        }
        .boxed()
    }

    fn cursors(&self) -> BoxFuture<'_, Result<Vec<CursorId>, CursorError>> {
        async {
            if self.out_of_order.load(Ordering::SeqCst) {
                return Err(CursorError::Unavailable("out of order".to_owned()));
            }
            Ok(self.state().cursors.keys().cloned().collect())
        }
        .boxed()
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        &NoDeadLetters
    }

    fn stats(&self) -> BrokerStats {
        BrokerStats::default()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CloseError>> {
        async { Ok(()) }.boxed()
    }
}

impl MemoryCursor {
    fn new(broker: &Memory, spec: CursorSpec) -> Arc<Self> {
        let place = Place {
            spec,
            is_forgotten: false,
            fresh: VecDeque::new(),
            released: BTreeMap::new(),
            waiting: BTreeSet::new(),
            waiting_events: HashMap::new(),
            leased: HashMap::new(),
            settled: Vec::new(),
            turns: 0,
            keeps_history: true,
            dropped_events: 0,
            held_told: None,
            backlog_told: None,
            lease_panics: false,
            lease_takes: Duration::ZERO,
            settling_hangs: false,
        };
        Arc::new_cyclic(|me| Self {
            clock: broker.clock.clone(),
            out_of_order: broker.out_of_order.clone(),
            leases: broker.leases.clone(),
            place: Mutex::new(place),
            wake: Notify::new(),
            me: me.clone(),
        })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap()
    }

    /// Makes every waiting event due now.
    pub(crate) fn make_all_due(&self) {
        let mut place = self.place();
        place.waiting = place.waiting.iter().map(|&(_, position)| (0, position)).collect();
        drop(place);
        self.wake.notify_one();
    }

    fn offer(&self, stored: &Stored) {
        let mut place = self.place();
        if stored.event.is_of(&place.spec.interest) {
            place.fresh.push_back(stored.clone());
            if place.fresh.len() == 1 {
                self.wake.notify_one();
            }
        }
    }

    /// Leases what is there; else tells how long the next retry is away.
    fn lease_now(&self, limit: usize) -> Result<Vec<Lease>, Result<Option<Duration>, CursorError>> {
        let mut place = self.place();
        if place.is_forgotten {
            return Err(Err(CursorError::Forgotten));
        }
        if self.out_of_order.load(Ordering::SeqCst) {
            return Err(Err(CursorError::Unavailable("out of order".to_owned())));
        }
        let now_ms = self.clock.now_ms();
        let mut leases = Vec::new();
        while leases.len() < limit {
            let Some((stored, attempts)) = place.next(now_ms) else { break };
            place.leased.insert(stored.position, (stored.clone(), attempts));
            let home: Arc<dyn LeaseHome> = self.me.upgrade().unwrap();
            leases.push(Lease::new(stored, attempts, home));
        }
        if leases.is_empty() {
            let due = place.waiting.first();
            Err(Ok(due.map(|(due_ms, _)| Duration::from_millis(due_ms.saturating_sub(now_ms)))))
        } else {
            Ok(leases)
        }
    }

    async fn lease_when_there(&self, limit: usize) -> Result<Vec<Lease>, CursorError> {
        let lease_takes = self.place().lease_takes;
        self.leases.fetch_add(1, Ordering::Relaxed);
        if !lease_takes.is_zero() {
            tokio::time::sleep(lease_takes).await;
        }
        loop {
            let panics = std::mem::take(&mut self.place().lease_panics);
            assert!(!panics, "a defect, as ordered");
            match self.lease_now(limit) {
                Ok(leases) => return Ok(leases),
                Err(Err(error)) => return Err(error),
                Err(Ok(Some(pause))) => {
                    let _ = tokio::time::timeout(pause, self.wake.notified()).await;
                }
                Err(Ok(None)) => self.wake.notified().await,
            }
        }
    }

    fn settle_now(&self, turn: Vec<Settled>) -> Result<(), CursorError> {
        if self.out_of_order.load(Ordering::SeqCst) {
            return Err(CursorError::Unavailable("out of order".to_owned()));
        }
        let mut place = self.place();
        if place.is_forgotten {
            return Err(CursorError::Forgotten);
        }
        place.turns += 1;
        for Settled { lease, attempt, verdict } in turn {
            let position = lease.position();
            let (stored, attempts) = place.leased.remove(&position).expect("leased from here");
            match verdict {
                Verdict::Ack | Verdict::Skip | Verdict::DeadLetter { .. } => {}
                Verdict::Retry { due_ms } => {
                    place.waiting.insert((due_ms, position));
                    place.waiting_events.insert(position, (stored, attempts + 1));
                }
                Verdict::Release => drop(place.released.insert(position, (stored, attempts))),
            }
            if place.keeps_history {
                place.settled.push((position, attempt, verdict));
            }
            lease.end();
        }
        drop(place);
        // Who waits may have to wait less long now.
        self.wake.notify_one();
        Ok(())
    }
}

impl Place {
    /// Events leased now.
    pub(crate) fn leased(&self) -> usize {
        self.leased.len()
    }

    /// Events given out and not settled.
    fn held(&self) -> usize {
        self.leased.len() + self.waiting.len() + self.released.len()
    }

    /// Events not settled.
    pub(crate) fn lag(&self) -> usize {
        self.leased.len() + self.fresh.len() + self.waiting.len() + self.released.len()
    }

    fn next(&mut self, now_ms: u64) -> Option<(Stored, u32)> {
        if let Some((_, released)) = self.released.pop_first() {
            return Some(released);
        }
        if let Some(&(due_ms, position)) = self.waiting.first()
            && due_ms <= now_ms
        {
            self.waiting.pop_first();
            return self.waiting_events.remove(&position);
        }
        self.fresh.pop_front().map(|stored| (stored, 0))
    }
}

impl Cursor for MemoryCursor {
    fn lease(&self, limit: NonZeroUsize) -> BoxFuture<'_, Result<Vec<Lease>, CursorError>> {
        self.lease_when_there(limit.get()).boxed()
    }

    fn settle(&self, turn: Vec<Settled>) -> BoxFuture<'_, Result<(), CursorError>> {
        // Leases of a turn that fails are dropped, and so released.
        async {
            while self.place().settling_hangs {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.settle_now(turn)
        }
        .boxed()
    }

    fn stats(&self) -> CursorStats {
        let place = self.place();
        let (backlog_bytes, backlog_max_bytes) = place.backlog_told.unzip();
        CursorStats {
            lag_events: place.lag() as u64,
            waiting_events: place.waiting.len() as u64,
            held_events: place.held_told.unwrap_or(place.held() as u64),
            leased_events: place.leased.len() as u64,
            dropped_events: place.dropped_events,
            backlog_bytes: backlog_bytes.unwrap_or_default(),
            backlog_max_bytes,
            ..CursorStats::default()
        }
    }
}

impl LeaseHome for MemoryCursor {
    fn release(&self, position: Position) {
        // A poisoned place means that the test has failed already.
        if let Ok(mut place) = self.place.lock()
            && let Some(event) = place.leased.remove(&position)
        {
            place.released.insert(position, event);
            self.wake.notify_one();
        }
    }
}
