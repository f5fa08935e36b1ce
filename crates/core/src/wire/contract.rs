//! The contract's event: the JSON of `POST /v1/events`, in both source forms.
//!
//! The checks and their order are those of the original; the first one that fails is the answer.
//! The body is parsed around the payload: `data` is a slice of the body, never rebuilt.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::attributes::{
    AttributeError, Attributes, DELAY_S, DELIVER_AT, DURABILITY, EXPIRY_TIME, Value,
};
use crate::event::{Event, Source, SourceParts, SpecVersion, Text, is_name};
use crate::limits;
use crate::seams::Entropy;
use crate::wire::error::Refusal;
use crate::wire::json::{self, DEPTH_MAX, Word, is_too_deep, shared, worth_keeping};
use crate::wire::submission::{self, BatchLimits, Rejected, RequestHead, Submission, Submissions};
use crate::wire::time::is_rfc3339;
use crate::wire::timing;

/// The media type of the contract's payloads.
pub const CONTENT_TYPE: &str = "application/json";

/// Reads an event out of a publish request.
pub fn decode(body: Bytes, head: &RequestHead<'_>) -> Result<Submission, Refusal> {
    let body = submission::text(body)?;
    decode_document(&body, &body, head).map_err(|rejected| rejected.refusal)
}

/// Reads the events out of a batch: a JSON array of them, or one a line.
pub fn decode_batch(
    body: Bytes,
    head: &RequestHead<'_>,
    limits: BatchLimits,
) -> Result<Submissions, Refusal> {
    let body = submission::text(body)?;
    let documents = if body.trim_ascii_start().starts_with('[') {
        submission::array(&body, limits)?
    } else {
        json::lines(&body, limits.events)
    };
    submission::batch(documents, head, limits, |document| decode_document(&body, document, head))
}

fn decode_document(
    body: &Text,
    document: &str,
    head: &RequestHead<'_>,
) -> Result<Submission, Rejected> {
    let unread = |_| Rejected { id: None, refusal: Refusal::BadPayload };
    let members = Members::parse(document).map_err(unread)?;
    let submission = members.parts().and_then(|parts| {
        let source = members.source(parts.as_ref(), head.source_id)?;
        into_event(Parsed { body, document, members: &members }, source, head)
    });
    submission.map_err(|refusal| Rejected::of(members.event_id.as_deref(), refusal))
}

/// An event's part of a body, and what it says.
pub(crate) struct Parsed<'b> {
    pub(crate) body: &'b Text,
    pub(crate) document: &'b str,
    pub(crate) members: &'b Members<'b>,
}

/// The checks after the source's presence, and the event.
pub(crate) fn into_event(
    parsed: Parsed<'_>,
    source: Claimed<'_>,
    head: &RequestHead<'_>,
) -> Result<Submission, Refusal> {
    let Parsed { body, document, members } = parsed;
    let event_type = required(&members.event_type, "event-type")?;
    let version = required(&members.event_type_version, "event-type-version")?;
    let time = required(&members.event_time, "event-time")?;
    let payload = members.data().ok_or(Refusal::Missing("data"))?;
    source.check_length()?;
    check_length("event-type", event_type, limits::NAME_CHARS)?;
    check_length("event-type-version", version, limits::VERSION_CHARS)?;
    source.check_pattern()?;
    check("event-type", is_name(event_type))?;
    check("event-type-version", is_version(version))?;
    check("event-time", is_rfc3339(time))?;
    let id = match members.event_id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => {
            check("event-id", is_uuid(id))?;
            Some(id)
        }
        None => None,
    };
    let body = worth_keeping(body, document, payload.len());
    let event = Event {
        source: source.into_source(body),
        event_type: shared(body, event_type),
        event_type_version: shared(body, version),
        id_given: id.is_some(),
        id: id.map_or_else(|| new_id(head.entropy), |id| shared(body, id)),
        time: shared(body, time),
        content_type: Text::from_static(CONTENT_TYPE),
        attributes: members.attributes(&head.attributes)?,
        spec_version: SpecVersion::V1,
        trace: head.trace.clone(),
        payload: match body {
            Some(body) => body.as_bytes().slice_ref(payload.as_bytes()),
            None => Bytes::copy_from_slice(payload.as_bytes()),
        },
        has_payload: true,
    };
    let member = members.durability.as_deref().map(Text::from);
    let durability = member.or_else(|| event.attributes.text(DURABILITY).cloned());
    Ok(Submission { event, durability })
}

/// The members of the request that count. `null` is absent, the last duplicate wins.
#[derive(Default)]
pub(crate) struct Members<'a> {
    /// Read when it is asked for: the front does not look at it.
    source: Option<&'a RawValue>,
    source_id: Option<Cow<'a, str>>,
    pub(crate) event_type: Option<Cow<'a, str>>,
    pub(crate) event_type_version: Option<Cow<'a, str>>,
    pub(crate) event_id: Option<Cow<'a, str>>,
    pub(crate) event_time: Option<Cow<'a, str>>,
    data: Option<&'a RawValue>,
    durability: Option<Cow<'a, str>>,
    /// In the order of the request; checked when they are asked for.
    attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    delay_s: Option<Number>,
    deliver_at: Option<Cow<'a, str>>,
}

#[derive(Default)]
struct SourceMembers<'a> {
    environment: Option<Cow<'a, str>>,
    namespace: Option<Cow<'a, str>>,
    source_type: Option<Cow<'a, str>>,
}

impl<'a> Members<'a> {
    /// Parses `body`: one JSON object (or `null`, an object without members) and nothing after.
    pub(crate) fn parse(body: &'a str) -> Result<Self, serde_json::Error> {
        let members: Option<Self> = serde_json::from_str(body)?;
        if is_too_deep(body) {
            return Err(serde::de::Error::custom(format_args!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(members.unwrap_or_default())
    }

    /// The payload: anything but missing, `null` and `""`.
    pub(crate) fn data(&self) -> Option<&'a str> {
        self.data.map(RawValue::get).filter(|data| !matches!(*data, "null" | "\"\""))
    }

    /// The source in three parts.
    fn parts(&self) -> Result<Option<SourceMembers<'a>>, Refusal> {
        let parts = self.source.map(|source| serde_json::from_str(source.get()));
        parts.transpose().map_err(|_| Refusal::BadPayload)
    }

    /// What the request says of the event beside the contract's fields, and what its headers add.
    fn attributes(&self, from_headers: &Attributes) -> Result<Attributes, Refusal> {
        let mut attributes = Attributes::default();
        for (name, value) in &self.attributes {
            let set = attributes.set_by_contract((&**name).into(), (&**value).into());
            set.map_err(|error| Refusal::attribute(name, error))?;
        }
        if let Some(at) = self.deliver_at.as_deref() {
            attributes.set(Text::from_static(DELIVER_AT), at.into());
        }
        if let Some(delay) = &self.delay_s {
            // What is no such number is text that is refused.
            let seconds = delay.as_i64().and_then(|seconds| i32::try_from(seconds).ok());
            let delay = seconds.map_or_else(|| delay.to_string().as_str().into(), Value::Integer);
            attributes.set(Text::from_static(DELAY_S), delay);
        }
        attributes.add_missing(from_headers);
        if attributes.len() > limits::ATTRIBUTES {
            return Err(Refusal::attribute("", AttributeError::TooMany));
        }
        timing::check(&attributes).map_err(in_the_contracts_names)?;
        Ok(attributes)
    }

    fn source<'b>(
        &'b self,
        parts: Option<&'b SourceMembers<'a>>,
        header: Option<&'b str>,
    ) -> Result<Claimed<'b>, Refusal> {
        let id = self.source_id.as_deref().filter(|id| !id.is_empty());
        let Some(source) = parts else {
            let from_header = || header.filter(|id| !id.is_empty()).map(Claimed::Header);
            return id.map(Claimed::Id).or_else(from_header).ok_or(Refusal::NoSource);
        };
        if id.is_some() {
            return Err(Refusal::Invalid("source-id"));
        }
        let source_type = required(&source.source_type, "source.source-type")?;
        let namespace = required(&source.namespace, "source.source-namespace")?;
        let environment = required(&source.environment, "source.source-environment")?;
        Ok(Claimed::Parts(SourceParts { environment, namespace, source_type }))
    }
}

/// The source a request claims, before its checks.
pub(crate) enum Claimed<'a> {
    Parts(SourceParts<'a>),
    Id(&'a str),
    Header(&'a str),
    /// The settings of an application say it: checked when they were read.
    Settled(&'a Source),
}

impl Claimed<'_> {
    fn check_length(&self) -> Result<(), Refusal> {
        let max = limits::NAME_CHARS;
        match self {
            Self::Parts(parts) => {
                check_length("source.source-environment", parts.environment, max)?;
                check_length("source.source-namespace", parts.namespace, max)?;
                check_length("source.source-type", parts.source_type, max)
            }
            Self::Id(id) => check_length("source-id", id, max),
            Self::Header(id) => check_length("Source-Id", id, max),
            Self::Settled(_) => Ok(()),
        }
    }

    fn check_pattern(&self) -> Result<(), Refusal> {
        match self {
            Self::Parts(parts) => {
                check("source.source-environment", is_name(parts.environment))?;
                check("source.source-namespace", is_name(parts.namespace))?;
                check("source.source-type", is_name(parts.source_type))
            }
            Self::Id(id) => check("source-id", is_name(id)),
            Self::Header(id) if is_name(id) => Ok(()),
            Self::Header(_) => Err(Refusal::InvalidSourceHeader),
            Self::Settled(_) => Ok(()),
        }
    }

    fn into_source(self, body: Option<&Text>) -> Source {
        match self {
            Self::Parts(parts) => Source::from_parts(parts),
            Self::Id(id) => Source::from_id(shared(body, id)),
            Self::Header(id) => Source::from_id(id.into()),
            Self::Settled(source) => source.clone(),
        }
    }
}

/// The same refusal under the names that the contract's event has for the fields.
fn in_the_contracts_names(refusal: Refusal) -> Refusal {
    let Refusal::Wrong { field, why } = refusal else { return refusal };
    let field = match &*field {
        DELAY_S => "delay_s".into(),
        DELIVER_AT => "deliver_at".into(),
        EXPIRY_TIME => "attributes.expirytime".into(),
        _ => field,
    };
    Refusal::Wrong { field, why }
}

fn required<'a>(value: &'a Option<Cow<'_, str>>, field: &'static str) -> Result<&'a str, Refusal> {
    value.as_deref().filter(|text| !text.is_empty()).ok_or(Refusal::Missing(field))
}

fn check(field: &'static str, fits: bool) -> Result<(), Refusal> {
    if fits { Ok(()) } else { Err(Refusal::Invalid(field)) }
}

fn check_length(field: &'static str, text: &str, max_chars: usize) -> Result<(), Refusal> {
    // Everything that passes the patterns is ASCII, so bytes are characters.
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(Refusal::TooLong { field, max_chars });
    }
    Ok(())
}

fn new_id(entropy: &dyn Entropy) -> Text {
    let (high, low) = (u128::from(entropy.next_u64()), u128::from(entropy.next_u64()));
    let bytes = (high << 64 | low).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string().into()
}

/// `^[a-zA-Z0-9]+$`
pub(crate) fn is_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// 8-4-4-4-12 hexadecimal digits; which version of UUID does not matter.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(key) = map.next_key::<Word<'de>>()? {
            match key.0.as_deref().unwrap_or_default() {
                "source" => members.source = map.next_value()?,
                "source-id" => members.source_id = map.next_value::<Word<'de>>()?.0,
                "event-type" => members.event_type = map.next_value::<Word<'de>>()?.0,
                "event-type-version" => {
                    members.event_type_version = map.next_value::<Word<'de>>()?.0;
                }
                "event-id" => members.event_id = map.next_value::<Word<'de>>()?.0,
                "event-time" => members.event_time = map.next_value::<Word<'de>>()?.0,
                "durability" => members.durability = map.next_value::<Word<'de>>()?.0,
                "data" => members.data = Some(map.next_value()?),
                "attributes" => {
                    let said: Option<Said<'de>> = map.next_value()?;
                    members.attributes = said.map(|said| said.0).unwrap_or_default();
                }
                "delay_s" => members.delay_s = map.next_value()?,
                "deliver_at" => members.deliver_at = map.next_value::<Word<'de>>()?.0,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}

/// The member `attributes`: an object of strings; a member of it that is `null` is absent.
struct Said<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> Deserialize<'de> for Said<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SaidVisitor)
    }
}

struct SaidVisitor;

impl<'de> Visitor<'de> for SaidVisitor {
    type Value = Said<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes: a JSON object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut said = Vec::new();
        while let Some(name) = map.next_key::<Word<'de>>()? {
            let (name, value) = (name.0.unwrap_or_default(), map.next_value::<Word<'de>>()?.0);
            // One that is given again replaces the first, so there may be more here than count.
            if said.len() >= 2 * limits::ATTRIBUTES {
                return Err(serde::de::Error::custom("too many attributes"));
            }
            said.extend(value.map(|value| (name, value)));
        }
        Ok(Said(said))
    }
}

impl<'de> Deserialize<'de> for SourceMembers<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = SourceMembers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source: a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut source = SourceMembers::default();
        while let Some(key) = map.next_key::<Word<'de>>()? {
            let member = match key.0.as_deref().unwrap_or_default() {
                "source-environment" => &mut source.environment,
                "source-namespace" => &mut source.namespace,
                "source-type" => &mut source.source_type,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *member = map.next_value::<Word<'de>>()?.0;
        }
        Ok(source)
    }
}

#[cfg(test)]
#[path = "contract_tests.rs"]
mod tests;
