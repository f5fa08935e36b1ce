//! From an event that was understood to what became of it.

use std::borrow::Cow;

use eventbus_core::wire::error::Refusal;
use eventbus_core::wire::submission::Submission;
use eventbus_core::wire::timing;
use eventbus_core::{Batch, Durability, Event, Receipt, Receipts, Text};
use http::HeaderMap;

use super::Publish;
use super::admit::{Admission, admit};
use super::level::level;
use super::traced::{Load, Traced};
use crate::telemetry::Published;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Its id; empty where none could be read.
    pub(super) id: Text,
    pub(super) status: Status,
    /// The durability that was reached, where the event is stored.
    pub(super) durability: Option<Durability>,
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

/// An event, and how it is to be stored.
pub(super) struct Asked {
    event: Event,
    durability: Durability,
    /// When it is to be delivered, in milliseconds since 1970; `None`: at once.
    due_ms: Option<u64>,
}

impl Publish {
    /// Understands what a request with these headers asks for one event.
    pub(super) fn asked(
        &self,
        submission: Submission,
        headers: &HeaderMap,
        traced: &mut Traced,
    ) -> Result<Asked, Refusal> {
        let Submission { event, durability } = submission;
        traced.brings(&event);
        let durability = self.level(headers, durability.as_ref())?;
        let due_ms = timing::due_ms(&event, self.clock.now_ms())?;
        Ok(Asked { event, durability, due_ms })
    }

    /// Stores one event, if anybody asks for it.
    pub(super) async fn store(&self, asked: Asked, traced: &Traced) -> Result<Stored, Refusal> {
        let Asked { event, durability, due_ms } = asked;
        let (id, payload_bytes) = (event.id.clone(), event.payload.len());
        let (span, load) = (traced.context(), Load { events: 1, payload_bytes, durability });
        let receipts = match due_ms {
            // Who asks for it when it is due is not known yet.
            Some(due_ms) => {
                let delayed = self.broker.delay(event, due_ms, durability);
                self.append_traced(span, load, delayed).await?
            }
            None if admit(&event, &self.catalog, &self.freshness).await == Admission::Ignored => {
                self.telemetry.published(Published::Ignored { events: 1 });
                return Ok(Stored { id, status: Status::Ignored, durability: None });
            }
            None => {
                let appended = self.broker.append(Batch::of_one(event), durability);
                self.append_traced(span, load, appended).await?
            }
        };
        self.stored(id, payload_bytes, &receipts)
    }

    /// What became of the one event of these receipts.
    pub(super) fn stored(
        &self,
        id: Text,
        payload_bytes: usize,
        receipts: &Receipts,
    ) -> Result<Stored, Refusal> {
        let status = Status::from(*receipts.receipts.first().ok_or(Refusal::Internal)?);
        self.telemetry.published(match status {
            Status::Duplicate => Published::Repeated { events: 1 },
            _ => Published::Stored { events: 1, payload_bytes },
        });
        Ok(Stored { id, status, durability: Some(receipts.durability) })
    }

    /// The level to store an event with that says `member` of itself.
    pub(super) fn level(
        &self,
        asked: &HeaderMap,
        member: Option<&Text>,
    ) -> Result<Durability, Refusal> {
        level(asked, member, self.durability, self.broker.capabilities())
    }
}
