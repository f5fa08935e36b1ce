//! What a publish request asks for, whichever form it has.

use http::{HeaderMap, HeaderName};

use crate::attributes::{Attributes, DELAY_S, DELIVER_AT, Value};
use crate::event::{Event, Text};
use crate::limits;
use crate::seams::Entropy;
use crate::wire::error::Refusal;
use crate::wire::json::{self, Documents};
use crate::wire::percent;
use crate::wire::trace::Trace;

/// Says how long an event is to be delayed, in whole seconds.
pub const DELAY_S_HEADER: HeaderName = HeaderName::from_static("eventbus-delay-s");

/// Says when an event is to be delivered (RFC 3339).
pub const DELIVER_AT_HEADER: HeaderName = HeaderName::from_static("eventbus-deliver-at");

const ATTRIBUTE_HEADERS: &str = "eventbus-attribute-";

/// One event to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The event to be stored.
    pub event: Event,
    /// The durability asked for beside the headers, as it was written.
    pub durability: Option<Text>,
}

/// An event of a batch that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its id, where it could be read.
    pub id: Option<Text>,
    /// Why.
    pub refusal: Refusal,
}

impl Rejected {
    /// Of an event with this id, as far as it can be repeated.
    pub(crate) fn of(id: Option<&str>, refusal: Refusal) -> Self {
        let id = id.filter(|id| id.len() <= limits::REPEATED_CHARS);
        Self { id: id.map(Text::from), refusal }
    }
}

impl From<Refusal> for Rejected {
    /// Of an event of which nothing could be read.
    fn from(refusal: Refusal) -> Self {
        Self { id: None, refusal }
    }
}

/// The events of a batch in its order, each as it was understood.
pub type Submissions = Vec<Result<Submission, Rejected>>;

/// What a publish request says beside its body, and what reading it takes.
#[derive(Clone)]
pub struct RequestHead<'a> {
    /// The header `Source-Id`: used where the body names no source.
    pub source_id: Option<&'a str>,
    /// Attributes said in headers: what the body says of the same name counts.
    pub attributes: Attributes,
    /// The tracing context.
    pub trace: Trace,
    /// Where ids of events without one come from.
    pub entropy: &'a dyn Entropy,
}

/// How large a batch may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of one event's part of the body.
    pub event_bytes: usize,
    /// Events.
    pub events: usize,
}

impl<'a> RequestHead<'a> {
    /// Takes what concerns the event out of a request's headers. `trace` is what it carries: the
    /// publisher's tracing headers, or those of a span of ours.
    pub fn read(
        headers: &'a HeaderMap,
        trace: Trace,
        entropy: &'a dyn Entropy,
    ) -> Result<Self, Refusal> {
        // A value that is not text counts as one that may not be, not as none at all.
        let unreadable = "\u{fffd}";
        let source_id = headers.get("source-id").map(|id| id.to_str().unwrap_or(unreadable));
        let mut attributes = Attributes::default();
        for (name, value) in headers {
            let wrong = |why: &str| Refusal::wrong(name.as_str(), why.to_owned());
            let value = || percent::decode(value.as_bytes()).ok_or_else(|| wrong("not UTF-8"));
            let set = if let Some(name) = name.as_str().strip_prefix(ATTRIBUTE_HEADERS) {
                attributes.set_by_contract(name.into(), value()?)
            } else if name == DELAY_S_HEADER {
                attributes.set_by_contract(DELAY_S.into(), value()?)
            } else if name == DELIVER_AT_HEADER {
                attributes.set_by_contract(DELIVER_AT.into(), value()?)
            } else {
                Ok(())
            };
            set.map_err(|error| wrong(&error.to_string()))?;
        }
        if let Some(seconds) = attributes.text(DELAY_S).and_then(|text| text.parse().ok()) {
            attributes.set(Text::from_static(DELAY_S), Value::Integer(seconds));
        }
        Ok(Self { source_id, attributes, trace, entropy })
    }
}

/// Takes the events of a batch, each by `decode`, which gets its part of the body.
pub(crate) fn batch<'b>(
    documents: Documents<'b>,
    head: &RequestHead<'_>,
    limits: BatchLimits,
    decode: impl Fn(&'b str) -> Result<Submission, Rejected>,
) -> Result<Submissions, Refusal> {
    let Documents::These(documents) = documents else {
        return Err(Refusal::TooManyEvents(limits.events));
    };
    let repeated = head.attributes.bytes() + head.trace.bytes();
    if repeated.saturating_mul(documents.len()) > limits::BATCH_HEAD_BYTES {
        let why = "attributes and tracing context, times the events, have at most 4 MiB";
        return Err(Refusal::wrong("headers", why));
    }
    let each = documents.into_iter().map(|document| {
        if document.len() > limits.event_bytes {
            return Err(Refusal::TooLarge.into());
        }
        decode(document)
    });
    Ok(each.collect())
}

/// The text of a body; anything else is refused.
pub(crate) fn text(body: bytes::Bytes) -> Result<Text, Refusal> {
    Text::try_from(body).map_err(|_| Refusal::BadPayload)
}

/// The parts of an array, at most `limits.events`.
pub(crate) fn array(body: &Text, limits: BatchLimits) -> Result<Documents<'_>, Refusal> {
    json::elements(body, limits.events).map_err(|error| Refusal::malformed(&error))
}
