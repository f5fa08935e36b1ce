//! The JSON format: one document an event, in structured mode and in batches.

use std::borrow::Cow;
use std::fmt;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine};
use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{DATA_CONTENT_ENCODING, SPEC_VERSION, Said};
use crate::attributes::{Attribute, EVENT_TYPE_VERSION, Value};
use crate::event::{Event, SpecVersion, Text};
use crate::wire::error::Refusal;
use crate::wire::json::{DEPTH_MAX, Word, is_too_deep, shared, worth_keeping};

/// The media type of one event in structured mode.
pub const MEDIA_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// What a payload is whose type is not said.
const IMPLIED_TYPE: &str = "application/json";

/// Reads what a document says. Its text and payload share the bytes of `body`, in which it lies.
pub(super) fn decode(body: &Text, document: &str) -> Result<Said, Refusal> {
    let members: Members<'_> = serde_json::from_str(document).map_err(malformed)?;
    if is_too_deep(document) {
        return Err(malformed(format_args!("nested deeper than {DEPTH_MAX}")));
    }
    let data = members.data.map(RawValue::get);
    let body = worth_keeping(body, document, data.map_or(0, str::len));
    let mut said = Said::default();
    for (name, value) in members.attributes {
        let value = match value {
            Member::Null => continue,
            Member::Text(text) => Value::Text(shared(body, &text)),
            Member::Integer(number) => Value::Integer(number),
            Member::Boolean(truth) => Value::Boolean(truth),
        };
        said.say(&name, value)?;
    }
    said.payload = match (data, members.data_base64) {
        (Some(_), Some(_)) => {
            return Err(malformed("data and data_base64: an event has one of them"));
        }
        (Some(data), None) => Some(payload(&mut said, data, body)?),
        (None, Some(encoded)) => {
            if is_old(&said) {
                said.attributes.retain(|attribute| !is_base64(attribute));
            }
            Some(from_base64(encoded.as_bytes())?)
        }
        (None, None) => None,
    };
    Ok(said)
}

/// The payload that the member `data` stands for: text where the media type is not JSON's, bytes
/// where 0.3 says that it is base64, and else JSON as it was written.
fn payload(said: &mut Said, data: &str, body: Option<&Text>) -> Result<Bytes, Refusal> {
    let is_text = data.starts_with('"');
    if is_text && is_old(said) && said.attributes.iter().any(is_base64) {
        said.attributes.retain(|attribute| !is_base64(attribute));
        return from_base64(text(data)?.as_bytes());
    }
    let media_type = said.content_type.get_or_insert_with(|| Text::from_static(IMPLIED_TYPE));
    let payload = if is_text && !is_json(media_type) { text(data)? } else { Cow::Borrowed(data) };
    Ok(shared(body, &payload).into_bytes())
}

/// Is it an event of 0.3, where an attribute tells that the payload is base64?
fn is_old(said: &Said) -> bool {
    said.spec_version.as_deref() == Some(SpecVersion::V03.as_str())
}

fn text(json: &str) -> Result<Cow<'_, str>, Refusal> {
    let word: Word<'_> = serde_json::from_str(json).map_err(malformed)?;
    Ok(word.0.unwrap_or_default())
}

/// Does it say, in 0.3, that the payload is written in base64?
pub(super) fn is_base64(attribute: &Attribute) -> bool {
    &*attribute.name == DATA_CONTENT_ENCODING
        && attribute.value.as_text().eq_ignore_ascii_case("base64")
}

pub(super) fn from_base64(text: &[u8]) -> Result<Bytes, Refusal> {
    let decoded = BASE64.decode(text);
    decoded.map(Bytes::from).map_err(|error| malformed(format_args!("base64: {error}")))
}

/// Is this the media type of JSON: `…/json` or `…+json`?
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim_ascii();
    let ending = essence.rsplit(['/', '+']).next().unwrap_or_default();
    ending.eq_ignore_ascii_case("json")
}

fn malformed(why: impl fmt::Display) -> Refusal {
    Refusal::malformed(&why)
}

/// The document of `event`.
pub fn encode(event: &Event) -> Vec<u8> {
    let mut document = Document(Vec::with_capacity(event.payload.len() + 512));
    document.member(SPEC_VERSION, event.spec_version.as_str());
    document.member("id", &event.id);
    document.member("source", event.source.as_str());
    document.member("type", &event.event_type);
    for (name, text) in [
        ("time", &event.time),
        (EVENT_TYPE_VERSION, &event.event_type_version),
        ("datacontenttype", &event.content_type),
    ] {
        if !text.is_empty() {
            document.member(name, text);
        }
    }
    for attribute in event.attributes.iter() {
        match &attribute.value {
            Value::Text(text) => document.member(&attribute.name, text),
            value => document.raw(&attribute.name, value.as_text().as_bytes()),
        }
    }
    if event.has_payload {
        document.payload(event);
    }
    document.0.push(b'}');
    document.0
}

/// A JSON object in the making.
struct Document(Vec<u8>);

impl Document {
    fn member(&mut self, name: &str, text: &str) {
        self.name(name);
        // Text is always written, and so is a buffer.
        let _ = serde_json::to_writer(&mut self.0, text);
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.0.extend_from_slice(json);
    }

    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        let _ = serde_json::to_writer(&mut self.0, name);
        self.0.push(b':');
    }

    fn payload(&mut self, event: &Event) {
        let text = std::str::from_utf8(&event.payload);
        let (is_typed, is_json) = (!event.content_type.is_empty(), is_json(&event.content_type));
        match text {
            Ok(json) if is_json && is_whole_json(json) => self.raw("data", json.as_bytes()),
            Ok(text) if is_typed && !is_json => self.member("data", text),
            _ if event.spec_version == SpecVersion::V03 => {
                self.member(DATA_CONTENT_ENCODING, "base64");
                self.member("data", &BASE64.encode(&event.payload));
            }
            _ => self.member("data_base64", &BASE64.encode(&event.payload)),
        }
    }
}

/// Is it one JSON document that every parser takes? Publishers in binary mode may say what they
/// like of their bytes.
fn is_whole_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok() && !is_too_deep(text)
}

/// The members of a document.
#[derive(Default)]
struct Members<'a> {
    /// All but the payload, in the order of the document.
    attributes: Vec<(Cow<'a, str>, Member<'a>)>,
    data: Option<&'a RawValue>,
    data_base64: Option<Cow<'a, str>>,
}

/// What the member of an attribute may be.
enum Member<'a> {
    Null,
    Text(Cow<'a, str>),
    Integer(i32),
    Boolean(bool),
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
        f.write_str("a CloudEvent: a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key::<Word<'de>>()? {
            let name = name.0.unwrap_or_default();
            match &*name {
                "data" => members.data = Some(map.next_value()?),
                "data_base64" => members.data_base64 = map.next_value::<Word<'de>>()?.0,
                _ => {
                    let member = map.next_value().map_err(|error| {
                        de::Error::custom(format_args!("attribute {name:.40}: {error}"))
                    })?;
                    members.attributes.push((name, member));
                }
            }
        }
        Ok(members)
    }
}

impl<'de> Deserialize<'de> for Member<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a whole number of 32 bits, true, false or null")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Member::Null)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Member::Boolean(truth))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        let unexpected = de::Unexpected::Signed(number);
        let integer = i32::try_from(number);
        integer.map(Member::Integer).map_err(|_| E::invalid_value(unexpected, &self))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        let unexpected = de::Unexpected::Unsigned(number);
        let integer = i32::try_from(number);
        integer.map(Member::Integer).map_err(|_| E::invalid_value(unexpected, &self))
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Member::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Member::Text(Cow::Owned(text.to_owned())))
    }
}
