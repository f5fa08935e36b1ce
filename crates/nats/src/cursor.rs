//! One cursor: what arrived for it, what is leased, and what it asks of the server.
//!
//! The place itself is with the server: a consumer on the stream of events and, once a retry
//! waited, one on the stream of retries. Here is only what this process holds of it: everything in
//! this file may be lost, and comes again.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_nats::Subject;
use eventbus_core::broker::{CursorError, CursorSpec, CursorStats, LeaseHome};
use eventbus_core::delivery::Tried;
use eventbus_core::{Cursor, Event, Interest, Lease, Position, Settled, Stored};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio::sync::Notify;

use crate::chores::Chore;
use crate::pull::{Asked, Lane};
use crate::shared::Shared;
use crate::stored::Reference;

/// A cursor, as this process has it.
pub(crate) struct NatsCursor {
    /// The name of its consumers.
    pub(crate) consumer: String,
    /// What tells it from others in replies of the server.
    pub(crate) number: u64,
    pub(crate) shared: Weak<Shared>,
    pub(crate) notify: Notify,
    place: Mutex<Place>,
}

/// What this process holds of a cursor.
pub(crate) struct Place {
    pub(crate) interest: Interest,
    pub(crate) waiting_max: usize,
    /// Arrived and not leased.
    pub(crate) ready: VecDeque<Arrival>,
    /// Leased.
    pub(crate) held: HashMap<Position, Held>,
    /// What is asked for on each lane.
    pub(crate) asked: [Asked; 2],
    /// Is there a consumer for its retries?
    pub(crate) has_due_lane: bool,
    /// Who waits for events now, and since when nobody does.
    pub(crate) lessees: usize,
    pub(crate) idle_since: Duration,
    pub(crate) forgotten: bool,
    /// As last heard.
    pub(crate) heard: Heard,
}

/// What the server said of a cursor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// Events that no process was given yet.
    pub(crate) pending: u64,
    /// Events given to some process and not settled.
    pub(crate) leased: u64,
    /// Events that wait for a retry.
    pub(crate) waiting: u64,
    pub(crate) oldest_ms: Option<u64>,
    pub(crate) backlog_bytes: u64,
    pub(crate) dropped: u64,
}

/// An event that arrived.
pub(crate) struct Arrival {
    pub(crate) position: Position,
    pub(crate) committed_ms: u64,
    pub(crate) origin: Origin,
    pub(crate) content: Content,
}

/// What arrived of it.
pub(crate) enum Content {
    /// All of it.
    Event(Arc<Event>),
    /// Where it is.
    Reference(Reference),
}

/// Where an event came from, and so where it is acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) lane: Lane,
    pub(crate) reply: Subject,
}

/// An event that is leased.
pub(crate) struct Held {
    pub(crate) stored: Stored,
    pub(crate) tried: Tried,
    /// One, or two when a process was lost between a retry and its acknowledgement.
    pub(crate) origins: Vec<Origin>,
    /// When the server was last told that we are at it.
    pub(crate) told: Duration,
}

impl NatsCursor {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        number: u64,
        consumer: String,
        spec: &CursorSpec,
    ) -> Self {
        let place = Place {
            interest: spec.interest.clone(),
            waiting_max: spec.waiting_max,
            ready: VecDeque::new(),
            held: HashMap::new(),
            asked: Default::default(),
            has_due_lane: false,
            lessees: 0,
            idle_since: Duration::ZERO,
            forgotten: false,
            heard: Heard::default(),
        };
        let (shared, notify) = (Arc::downgrade(shared), Notify::new());
        Self { consumer, number, shared, notify, place: Mutex::new(place) }
    }

    pub(crate) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its subscription is gone: nothing is leased any more.
    pub(crate) fn forget(&self) {
        let mut place = self.place();
        place.forgotten = true;
        place.ready.clear();
        place.held.clear();
        drop(place);
        self.notify.notify_waiters();
        self.notify.notify_one();
    }

    /// Takes in what arrived. The caller wakes the cursor.
    pub(crate) fn arrived(&self, arrival: Arrival, pending: u64) {
        let mut place = self.place();
        place.asked[arrival.origin.lane as usize].arrived();
        match arrival.origin.lane {
            Lane::Events => place.heard.pending = pending,
            Lane::Due => place.heard.waiting = place.heard.waiting.saturating_sub(1),
        }
        if place.forgotten {
            return;
        }
        if let Some(held) = place.held.get_mut(&arrival.position) {
            held.join(arrival.origin);
            return;
        }
        let known = place.ready.iter_mut().find(|other| other.position == arrival.position);
        match known {
            Some(other) if other.origin.lane == arrival.origin.lane => {
                other.origin = arrival.origin;
            }
            // What is due goes before what is fresh.
            _ if arrival.origin.lane == Lane::Due => {
                let fresh = place.ready.iter().position(|one| one.origin.lane == Lane::Events);
                let at = fresh.unwrap_or(place.ready.len());
                place.ready.insert(at, arrival);
            }
            _ => place.ready.push_back(arrival),
        }
    }

    fn shared(&self) -> Result<Arc<Shared>, CursorError> {
        let shared = self.shared.upgrade().filter(|shared| !shared.is_closed());
        shared.ok_or(CursorError::Closed)
    }

    async fn lease_soon(self: &Arc<Self>, limit: usize) -> Result<Vec<Lease>, CursorError> {
        let shared = self.shared()?;
        let _waiting = Waiting::of(self, &shared);
        loop {
            let mut woken = std::pin::pin!(self.notify.notified());
            woken.as_mut().enable();
            if self.place().forgotten {
                return Err(CursorError::Forgotten);
            }
            if shared.is_closed() {
                return Err(CursorError::Closed);
            }
            let taken = self.take(limit);
            if taken.arrivals.is_empty() {
                if shared.is_ready() {
                    self.pull(&shared, limit).await?;
                }
                woken.await;
            } else {
                let leases = self.lease_on(&shared, taken).await?;
                if !leases.is_empty() {
                    return Ok(leases);
                }
            }
        }
    }

    fn take(self: &Arc<Self>, limit: usize) -> Taken {
        let mut place = self.place();
        let count = limit.min(place.ready.len());
        Taken { cursor: self.clone(), arrivals: place.ready.drain(..count).collect() }
    }

    /// Makes leases of what arrived; what is a reference is got first.
    async fn lease_on(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mut taken: Taken,
    ) -> Result<Vec<Lease>, CursorError> {
        let fetched = join_all(taken.arrivals.iter().map(|arrival| arrival.event(shared))).await;
        let now = shared.clock.elapsed();
        let (mut leases, mut failed) = (Vec::with_capacity(fetched.len()), None);
        let mut place = self.place();
        for (arrival, event) in std::mem::take(&mut taken.arrivals).into_iter().zip(fetched) {
            match event {
                Ok(Some(event)) => leases.extend(self.hold(&mut place, arrival, event, now)),
                Ok(None) => shared.chores.push(Chore::Lost {
                    consumer: self.consumer.clone(),
                    position: arrival.position,
                    origin: arrival.origin,
                }),
                Err(error) => {
                    failed = Some(error);
                    place.ready.push_back(arrival);
                }
            }
        }
        drop(place);
        match failed {
            Some(error) if leases.is_empty() => Err(CursorError::Unavailable(error.to_string())),
            _ => Ok(leases),
        }
    }

    fn hold(
        self: &Arc<Self>,
        place: &mut Place,
        arrival: Arrival,
        event: Arc<Event>,
        now: Duration,
    ) -> Option<Lease> {
        let Arrival { position, committed_ms, origin, content } = arrival;
        if let Some(held) = place.held.get_mut(&position) {
            held.join(origin);
            return None;
        }
        let tried = match content {
            Content::Event(_) => Tried::default(),
            Content::Reference(reference) => reference.tried,
        };
        let stored = Stored { position, event, committed_ms };
        let lease = Lease::new(stored.clone(), tried.attempts, self.clone());
        place.held.insert(position, Held { stored, tried, origins: vec![origin], told: now });
        Some(lease)
    }
}

impl Place {
    /// How many of those leased here came by a retry.
    pub(crate) fn held_of_retries(&self) -> u64 {
        let came_due = |held: &&Held| held.origins.iter().any(|one| one.lane == Lane::Due);
        self.held.values().filter(came_due).count() as u64
    }
}

impl Arrival {
    /// The event; `None` when it is not stored any more.
    async fn event(&self, shared: &Shared) -> Result<Option<Arc<Event>>, crate::api::ApiError> {
        match &self.content {
            Content::Event(event) => Ok(Some(event.clone())),
            Content::Reference(_) => shared.event_at(self.position).await,
        }
    }
}

impl Held {
    /// The same event arrived once more: by the same lane, or by the other.
    fn join(&mut self, origin: Origin) {
        match self.origins.iter_mut().find(|other| other.lane == origin.lane) {
            Some(other) => *other = origin,
            None => self.origins.push(origin),
        }
    }
}

/// Arrivals on their way to be leased. Dropped in between, they are ready again.
struct Taken {
    cursor: Arc<NatsCursor>,
    arrivals: Vec<Arrival>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.arrivals.is_empty() {
            let mut place = self.cursor.place();
            for arrival in self.arrivals.drain(..).rev() {
                place.ready.push_front(arrival);
            }
            drop(place);
            self.cursor.notify.notify_one();
        }
    }
}

/// Somebody waits for events of a cursor. When nobody does, what arrives is given back.
struct Waiting<'a> {
    cursor: &'a NatsCursor,
    shared: &'a Shared,
}

impl<'a> Waiting<'a> {
    fn of(cursor: &'a NatsCursor, shared: &'a Shared) -> Self {
        cursor.place().lessees += 1;
        Self { cursor, shared }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut place = self.cursor.place();
        place.lessees -= 1;
        place.idle_since = self.shared.clock.elapsed();
    }
}

impl LeaseHome for NatsCursor {
    fn release(&self, position: Position) {
        let held = self.place().held.remove(&position);
        if let (Some(held), Some(shared)) = (held, self.shared.upgrade()) {
            for origin in held.origins {
                shared.chores.push(Chore::GiveBack(origin));
            }
        }
    }
}

/// A cursor as its user has it.
pub(crate) struct OpenCursor(pub(crate) Arc<NatsCursor>);

impl Cursor for OpenCursor {
    fn lease(&self, limit: NonZeroUsize) -> BoxFuture<'_, Result<Vec<Lease>, CursorError>> {
        self.0.lease_soon(limit.get()).boxed()
    }

    fn settle(&self, turn: Vec<Settled>) -> BoxFuture<'_, Result<(), CursorError>> {
        async move {
            let shared = self.0.shared()?;
            self.0.settle(&shared, turn).await
        }
        .boxed()
    }

    fn stats(&self) -> CursorStats {
        let backlog_max_bytes =
            self.0.shared.upgrade().map(|shared| shared.config.backlog_max_bytes());
        let place = self.0.place();
        let here = (place.held.len() + place.ready.len()) as u64;
        let leased_events = here.max(place.heard.leased);
        let held_events = leased_events + place.heard.waiting;
        CursorStats {
            lag_events: place.heard.pending + held_events,
            waiting_events: place.heard.waiting,
            leased_events,
            held_events,
            oldest_unsettled_ms: place.heard.oldest_ms,
            backlog_bytes: place.heard.backlog_bytes,
            backlog_max_bytes,
            dropped_events: place.heard.dropped,
        }
    }
}
