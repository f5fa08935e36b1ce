//! From an event that was understood to what became of it.

use std::borrow::Cow;

use eventbus_core::wire::error::Refusal;
use eventbus_core::wire::submission::{Rejected, Submission, Submissions};
use eventbus_core::wire::{stored, timing};
use eventbus_core::{Batch, Durability, Event, Receipt, Receipts, Text};
use futures::{StreamExt, TryStreamExt, stream};
use http::HeaderMap;

use super::Publish;
use super::admit::{Admission, admit};
use super::level::level;
use crate::telemetry::Published;

/// Delayed events of one batch that the broker is given at once: they share its syncs.
const DELAYED_AT_ONCE: usize = 256;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its id; empty where none could be read.
    pub(super) id: Text,
    pub(super) status: Status,
    /// The durability that was reached, where the event is stored.
    pub(super) durability: Option<Durability>,
}

/// What a batch asks for beside its events.
#[derive(Clone, Copy)]
pub(super) struct BatchAsked<'a> {
    pub(super) headers: &'a HeaderMap,
    /// All of them are to be stored, or none.
    pub(super) atomic: bool,
    /// Bytes of the request body, which its events share.
    pub(super) body_bytes: usize,
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

/// The word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It is stored.
    Published,
    /// It is kept until it is due.
    Delayed,
    /// It was stored before.
    Duplicate,
    /// Nobody asks for it.
    Ignored,
    /// It is no event that can be stored.
    Rejected(Refusal),
    /// Another event of its batch is rejected, and the batch is to be stored whole.
    NotStored,
}

impl Status {
    /// The word in answers.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Published | Self::Delayed => "published",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Rejected(_) => "rejected",
            Self::NotStored => "not_stored",
        }
    }

    /// Why, in a sentence.
    pub(super) fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Published => "stored for delivery".into(),
            Self::Delayed => "stored, to be delivered when it is due".into(),
            Self::Duplicate => "an event of this source and id is stored".into(),
            Self::Ignored => "no Subscription asks for this event".into(),
            Self::Rejected(refusal) => refusal.reason().into(),
            Self::NotStored => "the batch is to be stored whole, and an event is rejected".into(),
        }
    }
}

impl From<Receipt> for Status {
    fn from(receipt: Receipt) -> Self {
        match receipt {
            Receipt::Stored(_) | Receipt::Accepted => Self::Published,
            Receipt::Delayed => Self::Delayed,
            Receipt::Duplicate => Self::Duplicate,
        }
    }
}

impl Publish {
    /// Stores one event, if anybody asks for it.
    pub(super) async fn store(
        &self,
        submission: Submission,
        asked: &HeaderMap,
    ) -> Result<Stored, Refusal> {
        let Submission { event, durability } = submission;
        let durability = self.level(asked, durability.as_ref())?;
        let due_ms = timing::due_ms(&event, self.clock.now_ms())?;
        let (id, payload_bytes) = (event.id.clone(), event.payload.len());
        let receipts = match due_ms {
            // Who asks for it when it is due is not known yet.
            Some(due_ms) => self.broker.delay(event, due_ms, durability).await?,
            None if admit(&event, &self.catalog, &self.freshness).await == Admission::Ignored => {
                self.telemetry.published(Published::Ignored);
                return Ok(Stored { id, status: Status::Ignored, durability: None });
            }
            None => self.broker.append(Batch::of_one(event), durability).await?,
        };
        self.stored(id, payload_bytes, &receipts)
    }

    /// What became of the one event of these receipts.
    fn stored(
        &self,
        id: Text,
        payload_bytes: usize,
        receipts: &Receipts,
    ) -> Result<Stored, Refusal> {
        let receipt = *receipts.receipts.first().ok_or(Refusal::Internal)?;
        Ok(Stored {
            id,
            status: self.told(receipt, payload_bytes),
            durability: Some(receipts.durability),
        })
    }

    fn told(&self, receipt: Receipt, payload_bytes: usize) -> Status {
        let status = Status::from(receipt);
        if status != Status::Duplicate {
            self.telemetry.published(Published::Stored { payload_bytes });
        }
        status
    }

    /// Stores the events of a batch that somebody asks for, with one append: at the strongest level
    /// that any of them asks for.
    pub(super) async fn store_batch(
        &self,
        submissions: Submissions,
        asked: BatchAsked<'_>,
    ) -> Result<StoredBatch, Refusal> {
        let BatchAsked { headers, atomic, .. } = asked;
        let mut durability = self.level(headers, None)?;
        let mut road = BatchRoad::default();
        for submission in submissions {
            match submission.and_then(|submission| self.check(submission, atomic, headers)) {
                Ok(checked) => {
                    durability = durability.max(checked.durability);
                    road.take(checked);
                }
                Err(rejected) => road.reject(rejected),
            }
        }
        if atomic && road.rejected > 0 {
            return Ok(road.refused());
        }
        self.append_wanted(&mut road, asked, durability).await?;
        self.delay(&mut road, durability).await?;
        Ok(road.stored())
    }

    /// The checks of an event that need more than itself.
    fn check(
        &self,
        submission: Submission,
        atomic: bool,
        asked: &HeaderMap,
    ) -> Result<Checked, Rejected> {
        let Submission { event, durability } = submission;
        let checked = self.level(asked, durability.as_ref()).and_then(|durability| {
            self.broker.fits(&event)?;
            let due_ms = timing::due_ms(&event, self.clock.now_ms())?;
            if atomic && due_ms.is_some() {
                let why = "a batch that is stored whole has no delayed events";
                return Err(Refusal::Wrong { field: "atomic".into(), why: why.into() });
            }
            Ok((durability, due_ms))
        });
        match checked {
            Ok((durability, due_ms)) => Ok(Checked { event, durability, due_ms }),
            Err(refusal) => Err(Rejected { id: Some(event.id), refusal }),
        }
    }

    /// One append for all that somebody asks for.
    async fn append_wanted(
        &self,
        road: &mut BatchRoad,
        asked: BatchAsked<'_>,
        durability: Durability,
    ) -> Result<(), Refusal> {
        let BatchAsked { atomic, body_bytes, .. } = asked;
        let count = road.waiting.len();
        let (mut places, mut events) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (place, event) in std::mem::take(&mut road.waiting) {
            // The first one that nobody seems to want has the catalog brought up to date for all.
            match admit(&event, &self.catalog, &self.freshness).await {
                Admission::Wanted => {
                    places.push((place, event.payload.len()));
                    events.push(event);
                }
                Admission::Ignored => {
                    self.telemetry.published(Published::Ignored);
                    road.events[place].status = Status::Ignored;
                }
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let kept_bytes: usize = places.iter().map(|(_, payload_bytes)| payload_bytes).sum();
        if kept_bytes < body_bytes / 2 {
            // A few events would keep the memory of the whole body, uncounted.
            for event in &mut events {
                *event = stored::detached(event);
            }
        }
        let Receipts { receipts, durability } =
            self.broker.append(Batch { events, atomic }, durability).await?;
        for ((place, payload_bytes), receipt) in places.into_iter().zip(receipts) {
            let stored = &mut road.events[place];
            stored.status = self.told(receipt, payload_bytes);
            stored.durability = Some(durability);
        }
        Ok(())
    }

    /// Has the broker keep those that are due later.
    async fn delay(&self, road: &mut BatchRoad, durability: Durability) -> Result<(), Refusal> {
        let delayed = std::mem::take(&mut road.delayed);
        let kept = stream::iter(delayed).map(|(place, event, due_ms)| async move {
            let (id, payload_bytes) = (event.id.clone(), event.payload.len());
            let receipts = self.broker.delay(event, due_ms, durability).await?;
            Ok::<_, Refusal>((place, self.stored(id, payload_bytes, &receipts)?))
        });
        let mut kept = kept.buffer_unordered(DELAYED_AT_ONCE);
        while let Some((place, stored)) = kept.try_next().await? {
            road.events[place] = stored;
        }
        Ok(())
    }

    fn level(&self, asked: &HeaderMap, member: Option<&Text>) -> Result<Durability, Refusal> {
        level(asked, member, self.durability, self.broker.capabilities())
    }
}

/// An event of a batch that may be stored.
struct Checked {
    event: Event,
    durability: Durability,
    due_ms: Option<u64>,
}

/// A batch under way.
#[derive(Default)]
struct BatchRoad {
    /// What is known of each event; of those that wait, nothing yet.
    events: Vec<Stored>,
    /// Those to be stored now, with their places in the batch.
    waiting: Vec<(usize, Event)>,
    /// Those to be stored when they are due.
    delayed: Vec<(usize, Event, u64)>,
    rejected: usize,
}

impl BatchRoad {
    fn take(&mut self, Checked { event, due_ms, .. }: Checked) {
        let (place, id) = (self.events.len(), event.id.clone());
        match due_ms {
            Some(due_ms) => self.delayed.push((place, event, due_ms)),
            None => self.waiting.push((place, event)),
        }
        self.events.push(Stored { id, status: Status::NotStored, durability: None });
    }

    fn reject(&mut self, Rejected { id, refusal }: Rejected) {
        self.rejected += 1;
        let (id, status) = (id.unwrap_or_default(), Status::Rejected(refusal));
        self.events.push(Stored { id, status, durability: None });
    }

    fn refused(self) -> StoredBatch {
        StoredBatch { events: self.events, durability: None, refused: true }
    }

    fn stored(self) -> StoredBatch {
        // The weakest of what was reached holds for all.
        let durability = self.events.iter().filter_map(|event| event.durability).min();
        StoredBatch { events: self.events, durability, refused: false }
    }
}
