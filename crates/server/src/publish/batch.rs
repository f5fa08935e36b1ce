//! A batch: many events, one append, a result for each.

use eventbus_core::wire::error::Refusal;
use eventbus_core::wire::submission::{Rejected, Submission, Submissions};
use eventbus_core::wire::trace::Context;
use eventbus_core::wire::{stored, timing};
use eventbus_core::{Batch, Durability, Event, Receipts, limits};
use futures::{StreamExt, stream};
use http::HeaderMap;
use tokio::sync::SemaphorePermit;

use super::Publish;
use super::admit::{Admission, admit_each};
use super::store::{Status, Stored};
use super::traced::Load;
use crate::telemetry::Published;

/// What a batch asks for beside its events.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) headers: &'a HeaderMap,
    /// All of them are to be stored, or none.
    pub(super) atomic: bool,
    /// Bytes of the request body, which its events share.
    pub(super) body_bytes: usize,
    /// The place of its span, where its trace is recorded.
    pub(super) span: Option<Context>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredBatch {
    /// Its events in order.
    pub(super) events: Vec<Stored>,
    /// The durability that those have reached that are stored.
    pub(super) durability: Option<Durability>,
    /// None is stored, because one is rejected.
    pub(super) refused: bool,
}

/// A batch under way.
struct Road<'a> {
    asked: Asked<'a>,
    /// What an event asks for that asks for nothing.
    base: Durability,
    /// The strongest that any asks for, and what all are stored with. `None`: there are none.
    durability: Option<Durability>,
    now_ms: u64,
    /// What is known of each event; of those that wait, nothing yet.
    events: Vec<Stored>,
    /// Those to be stored now, and their places in the batch.
    waiting: Vec<Event>,
    places: Vec<usize>,
    /// Those to be stored when they are due, with their places.
    delayed: Vec<(usize, Event, u64)>,
    rejected: usize,
}

impl Publish {
    /// Stores the events of a batch that somebody asks for.
    pub(super) async fn store_batch(
        &self,
        submissions: Submissions,
        asked: Asked<'_>,
    ) -> Result<StoredBatch, Refusal> {
        let base = self.level(asked.headers, None)?;
        let mut road = Road::new(asked, base, self.clock.now_ms(), submissions.len());
        for submission in submissions {
            match submission.and_then(|submission| self.check(submission, &road)) {
                Ok(checked) => road.take(checked),
                Err(rejected) => road.reject(rejected),
            }
        }
        let refused = asked.atomic && road.rejected > 0;
        if !refused {
            self.leave_out_unwanted(&mut road).await;
            self.append(&mut road).await?;
            self.delay(&mut road).await;
        }
        for event in &road.events {
            if let Status::Rejected(refusal) = &event.status {
                self.telemetry.published(Published::Rejected { status: refusal.status() });
            }
        }
        // The weakest of what was reached holds for all.
        let durability = road.events.iter().filter_map(|event| event.durability).min();
        Ok(StoredBatch { events: road.events, durability, refused })
    }

    /// The checks of an event that need more than itself.
    fn check(&self, submission: Submission, road: &Road<'_>) -> Result<Checked, Rejected> {
        let Submission { event, durability } = submission;
        let checked = || {
            self.broker.fits(&event)?;
            let due_ms = timing::due_ms(&event, road.now_ms)?;
            if road.asked.atomic && due_ms.is_some() {
                let why = "a batch that is stored whole has no delayed events";
                return Err(Refusal::wrong("atomic", why));
            }
            let level = match &durability {
                Some(member) => self.level(road.asked.headers, Some(member))?,
                None => road.base,
            };
            Ok((level, due_ms))
        };
        match checked() {
            Ok((durability, due_ms)) => Ok(Checked { event, durability, due_ms }),
            Err(refusal) => Err(Rejected { id: Some(event.id), refusal }),
        }
    }

    async fn leave_out_unwanted(&self, road: &mut Road<'_>) {
        let Some(admitted) = admit_each(&road.waiting, &self.catalog, &self.freshness).await else {
            return;
        };
        let is_wanted = |at: usize| admitted[at] == Admission::Wanted;
        let ignored = road.places.iter().enumerate().filter(|(at, _)| !is_wanted(*at));
        for (_, place) in ignored {
            road.events[*place].status = Status::Ignored;
        }
        let before = road.waiting.len();
        let (mut event, mut place) = (0.., 0..);
        road.waiting.retain(|_| event.next().is_some_and(is_wanted));
        road.places.retain(|_| place.next().is_some_and(is_wanted));
        self.telemetry.published(Published::Ignored { events: before - road.waiting.len() });
    }

    /// One append for all that are to be stored now.
    async fn append(&self, road: &mut Road<'_>) -> Result<(), Refusal> {
        let mut events = std::mem::take(&mut road.waiting);
        if events.is_empty() {
            return Ok(());
        }
        let sizes: Vec<usize> = events.iter().map(|event| event.payload.len()).collect();
        let asked_bytes = sizes.iter().sum();
        if asked_bytes < road.asked.body_bytes / 2 {
            // A few events would keep the memory of the whole body, uncounted.
            for event in &mut events {
                *event = stored::detached(event);
            }
        }
        let level = road.level();
        let load = Load { events: events.len(), payload_bytes: asked_bytes, durability: level };
        let appended = self.broker.append(Batch { events, atomic: road.asked.atomic }, level);
        let Receipts { receipts, durability } =
            self.append_traced(road.asked.span, load, appended).await?;
        let (count, mut new, mut payload_bytes) = (sizes.len(), 0, 0);
        for ((place, size), receipt) in road.places.iter().zip(sizes).zip(receipts) {
            let stored = &mut road.events[*place];
            stored.status = receipt.into();
            stored.durability = Some(durability);
            if stored.status != Status::Duplicate {
                new += 1;
                payload_bytes += size;
            }
        }
        self.telemetry.published(Published::Stored { events: new, payload_bytes });
        self.telemetry.published(Published::Repeated { events: count - new });
        Ok(())
    }

    /// Has the broker keep those that are due later.
    async fn delay(&self, road: &mut Road<'_>) {
        let (durability, delayed) = (road.level(), std::mem::take(&mut road.delayed));
        if delayed.is_empty() {
            return;
        }
        let payload_bytes = delayed.iter().map(|(_, event, _)| event.payload.len()).sum();
        let load = Load { events: delayed.len(), payload_bytes, durability };
        let kept = stream::iter(delayed).map(|(place, event, due_ms)| async move {
            let _turn = self.turn_of(&event).await;
            let (id, payload_bytes) = (event.id.clone(), event.payload.len());
            let kept = self.broker.delay(event, due_ms, durability).await;
            let kept = kept.map_err(Refusal::from);
            let stored =
                kept.and_then(|receipts| self.stored(id.clone(), payload_bytes, &receipts));
            // Others are stored by now: this one alone is to be sent again.
            let rejected =
                |refusal| Stored { id, status: Status::Rejected(refusal), durability: None };
            (place, stored.unwrap_or_else(rejected))
        });
        let at_once = limits::BATCH_DELAYS_KIB / limits::BATCH_DELAY_KIB_LEAST;
        let kept = kept.buffer_unordered(at_once).collect::<Vec<_>>();
        let kept = async { Ok::<_, Refusal>(kept.await) };
        for (place, stored) in
            self.append_traced(road.asked.span, load, kept).await.unwrap_or_default()
        {
            road.events[place] = stored;
        }
    }

    /// Waits until there is room for a delayed event among those of all batches; the permit is
    /// given back when it is kept.
    async fn turn_of(&self, event: &Event) -> Option<SemaphorePermit<'_>> {
        let kib = event.payload.len().div_ceil(1024);
        let kib = kib.clamp(limits::BATCH_DELAY_KIB_LEAST, limits::BATCH_DELAYS_KIB);
        // It is never closed.
        self.delaying.acquire_many(u32::try_from(kib).unwrap_or(u32::MAX)).await.ok()
    }
}

/// An event of a batch that may be stored.
struct Checked {
    event: Event,
    durability: Durability,
    due_ms: Option<u64>,
}

impl<'a> Road<'a> {
    fn new(asked: Asked<'a>, base: Durability, now_ms: u64, count: usize) -> Self {
        Self {
            asked,
            base,
            durability: None,
            now_ms,
            events: Vec::with_capacity(count),
            waiting: Vec::with_capacity(count),
            places: Vec::with_capacity(count),
            delayed: Vec::new(),
            rejected: 0,
        }
    }

    fn level(&self) -> Durability {
        self.durability.unwrap_or(self.base)
    }

    fn take(&mut self, Checked { event, durability, due_ms }: Checked) {
        let (place, id) = (self.events.len(), event.id.clone());
        self.durability = self.durability.max(Some(durability));
        self.events.push(Stored { id, status: Status::NotStored, durability: None });
        match due_ms {
            Some(due_ms) => self.delayed.push((place, event, due_ms)),
            None => {
                self.waiting.push(event);
                self.places.push(place);
            }
        }
    }

    fn reject(&mut self, Rejected { id, refusal }: Rejected) {
        self.rejected += 1;
        let (id, status) = (id.unwrap_or_default(), Status::Rejected(refusal));
        self.events.push(Stored { id, status, durability: None });
    }
}
