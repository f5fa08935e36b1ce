//! The contract's event: the JSON of `POST /v1/events`, in both source forms.
//!
//! The checks and their order are those of the original; the first one that fails is the answer.
//! The body is parsed around the payload: `data` is a slice of the body, never rebuilt.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Event, Source, SourceParts, Text, is_name};
use crate::limits;
use crate::seams::Entropy;
use crate::wire::error::Refusal;
use crate::wire::trace::Trace;

/// The media type of the contract's payloads.
pub const CONTENT_TYPE: &str = "application/json";

/// A body up to this size is kept whole beside its event. A larger one is kept when half of it is
/// payload.
const SMALL_BODY_BYTES: usize = 1024;

/// JSON that is nested deeper than this is refused: parsers of subscribers have such limits.
const DEPTH_MAX: usize = 128;

/// What a publish request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The event to be stored.
    pub event: Event,
    /// The member `durability`, as it was written.
    pub durability: Option<Text>,
}

/// Reads an event out of a publish request.
///
/// `source_id_header` is the value of the header `Source-Id`: used where the body names no source.
pub fn decode(
    body: Bytes,
    source_id_header: Option<&str>,
    trace: Trace,
    entropy: &dyn Entropy,
) -> Result<Submission, Refusal> {
    let body = Text::try_from(body).map_err(|_| Refusal::BadPayload)?;
    let members = Members::parse(&body).map_err(|_| Refusal::BadPayload)?;
    let parts = members.parts()?;
    let source = members.source(parts.as_ref(), source_id_header)?;
    into_event(&body, &members, source, trace, entropy)
}

/// The checks after the source's presence, and the event.
pub(crate) fn into_event(
    body: &Text,
    members: &Members<'_>,
    source: Claimed<'_>,
    trace: Trace,
    entropy: &dyn Entropy,
) -> Result<Submission, Refusal> {
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
    let body = body_worth_keeping(body, payload);
    let event = Event {
        source: source.into_source(body),
        event_type: shared(body, event_type),
        event_type_version: shared(body, version),
        id_given: id.is_some(),
        id: id.map_or_else(|| new_id(entropy), |id| shared(body, id)),
        time: shared(body, time),
        content_type: Text::from_static(CONTENT_TYPE),
        trace,
        payload: match body {
            Some(body) => body.as_bytes().slice_ref(payload.as_bytes()),
            None => Bytes::copy_from_slice(payload.as_bytes()),
        },
    };
    Ok(Submission { event, durability: members.durability.as_deref().map(Text::from) })
}

/// The body, when the event may keep all of it in memory: most of it is payload, or it is small.
/// Otherwise members that do not count would be kept as well, uncounted, as long as the event is.
fn body_worth_keeping<'b>(body: &'b Text, payload: &str) -> Option<&'b Text> {
    (body.len() <= SMALL_BODY_BYTES || payload.len() >= body.len() / 2).then_some(body)
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

/// `text` as a slice of `body` where it lies inside it, else (it had escapes) a copy.
fn shared(body: Option<&Text>, text: &str) -> Text {
    let Some(body) = body else { return text.into() };
    let (body_at, text_at) = (body.as_ptr() as usize, text.as_ptr() as usize);
    if text_at >= body_at && text_at + text.len() <= body_at + body.len() {
        body.slice_ref(text)
    } else {
        text.into()
    }
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

/// RFC 3339 as the original read it: upper-case `T` and `Z`, a fraction of any length, a day that
/// exists, no second 60.
pub(crate) fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((head, rest)) = bytes.split_at_checked(19) else { return false };
    let shape = head.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    if !shape {
        return false;
    }
    let (year, month, day) = (number(&head[..4]), number(&head[5..7]), number(&head[8..10]));
    let (hour, minute, second) =
        (number(&head[11..13]), number(&head[14..16]), number(&head[17..]));
    let in_range = (1..=days_in_month(year, month)).contains(&day);
    in_range && hour < 24 && minute < 60 && second < 60 && is_zone(after_fraction(rest))
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

fn after_fraction(rest: &[u8]) -> &[u8] {
    let Some(digits) = rest.strip_prefix(b".") else { return rest };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A point without digits is no fraction: what is returned then is no zone either.
    if count == 0 { rest } else { &digits[count..] }
}

fn is_zone(zone: &[u8]) -> bool {
    match zone {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let digits = [*h1, *h2, *m1, *m2];
            digits.iter().all(u8::is_ascii_digit)
                && number(&digits[..2]) < 24
                && number(&digits[2..]) < 60
        }
        _ => false,
    }
}

/// Is the JSON nested deeper than [`DEPTH_MAX`]? Counts first, since few bodies have so many
/// brackets at all.
fn is_too_deep(json: &str) -> bool {
    if memchr::memchr2_iter(b'[', b'{', json.as_bytes()).nth(DEPTH_MAX).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A string member: borrowed from the body where it has no escapes.
struct Word<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Word<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
        let word: Option<Borrowed<'de>> = Deserialize::deserialize(deserializer)?;
        Ok(Self(word.map(|word| word.0)))
    }
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
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
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
