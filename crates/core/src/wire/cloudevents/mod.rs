//! CloudEvents 1.0 and 0.3 over HTTP: binary, structured and batched.
//!
//! The rules are those of the CloudEvents specification, its JSON format and its HTTP binding. What
//! an event says becomes the one [`Event`]: `type`, `source`, `id`, `time`, `datacontenttype` and
//! the extension `eventtypeversion` are its fields, everything else is in its attributes.

mod headers;
mod structured;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::attributes::{
    Attribute, Attributes, DURABILITY, EVENT_TYPE_VERSION, Value, is_attribute_name,
};
use crate::event::{Event, Source, SpecVersion, Text};
use crate::limits;
use crate::wire::error::Refusal;
use crate::wire::percent;
use crate::wire::submission::{self, BatchLimits, Rejected, RequestHead, Submission, Submissions};
use crate::wire::time::is_timestamp;
use crate::wire::timing;

pub use headers::encode as binary_headers;
pub use structured::{MEDIA_TYPE, encode as structured_body};

const SPEC_VERSION: &str = "specversion";
const SUBJECT: &str = "subject";
/// The schema of the payload in 1.0.
const DATA_SCHEMA: &str = "dataschema";
/// The schema of the payload in 0.3.
const SCHEMA_URL: &str = "schemaurl";
/// In 0.3: the payload is text in this encoding.
const DATA_CONTENT_ENCODING: &str = "datacontentencoding";

/// Is this the media type of CloudEvents themselves: of one document, or of a batch?
pub(crate) fn is_own(media_type: &[u8]) -> bool {
    begins(media_type, b"application/cloudevents")
}

fn begins(media_type: &[u8], prefix: &[u8]) -> bool {
    media_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// How a request carries CloudEvents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in headers, the payload in the body.
    Binary,
    /// One event as a JSON document.
    Structured,
    /// A JSON array of events.
    Batched,
}

impl Mode {
    /// How the request with these headers carries CloudEvents; `None`: it does not.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let media_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        // The batch's media type begins with that of one event.
        if begins(media_type, b"application/cloudevents-batch") {
            Some(Self::Batched)
        } else if is_own(media_type) {
            Some(Self::Structured)
        } else {
            headers.contains_key("ce-specversion").then_some(Self::Binary)
        }
    }
}

/// Reads one event in binary mode.
pub fn decode_binary(
    headers: &HeaderMap,
    body: Bytes,
    head: &RequestHead<'_>,
) -> Result<Submission, Refusal> {
    into_submission(headers::decode(headers, body)?, head)
}

/// Reads one event in structured mode.
pub fn decode_structured(
    headers: &HeaderMap,
    body: Bytes,
    head: &RequestHead<'_>,
) -> Result<Submission, Refusal> {
    check_format(headers)?;
    let body = text(body)?;
    into_submission(structured::decode(&body, &body)?, head)
}

/// Reads the events of a batch.
pub fn decode_batch(
    headers: &HeaderMap,
    body: Bytes,
    head: &RequestHead<'_>,
    limits: BatchLimits,
) -> Result<Submissions, Refusal> {
    check_format(headers)?;
    let body = text(body)?;
    submission::batch(submission::array(&body, limits)?, head, limits, |document| {
        let said = structured::decode(&body, document)?;
        let id = said.id.clone();
        into_submission(said, head).map_err(|refusal| Rejected::of(id.as_deref(), refusal))
    })
}

fn text(body: Bytes) -> Result<Text, Refusal> {
    Text::try_from(body).map_err(|_| Refusal::Malformed("the body is not UTF-8".to_owned()))
}

/// JSON is the only format; a media type without one means it.
fn check_format(headers: &HeaderMap) -> Result<(), Refusal> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match essence.split_once('+') {
        None => Ok(()),
        Some((_, format)) if format.eq_ignore_ascii_case("json") => Ok(()),
        Some(_) => Err(Refusal::wrong("Content-Type", "the JSON format is understood, no other")),
    }
}

/// What a CloudEvent says, before its checks.
#[derive(Default)]
struct Said {
    spec_version: Option<Text>,
    id: Option<Text>,
    source: Option<Text>,
    event_type: Option<Text>,
    time: Option<Text>,
    content_type: Option<Text>,
    /// All else, in the order in which it was said.
    attributes: Vec<Attribute>,
    payload: Option<Bytes>,
}

impl Said {
    /// Takes one attribute in. One that is said twice has its last value.
    fn say(&mut self, name: &str, value: Value) -> Result<(), Refusal> {
        let place = match name {
            SPEC_VERSION => &mut self.spec_version,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.content_type,
            _ if is_attribute_name(name) && name != "data" => {
                let texts = [SUBJECT, DATA_SCHEMA, SCHEMA_URL, DATA_CONTENT_ENCODING];
                if texts.contains(&name) && !matches!(value, Value::Text(_)) {
                    return Err(Refusal::wrong(name, "a string"));
                }
                self.attributes.push(Attribute { name: name.into(), value });
                return Ok(());
            }
            _ => {
                let shown: String = name.chars().take(40).collect();
                return Err(Refusal::wrong(
                    &shown,
                    "a name has lower-case letters and digits alone",
                ));
            }
        };
        let Value::Text(text) = value else { return Err(Refusal::wrong(name, "a string")) };
        *place = Some(text);
        Ok(())
    }
}

impl Said {
    /// Of 0.3, where the payload may be in base64 in binary mode too: the payload itself.
    fn unwrap_payload(&mut self) -> Result<(), Refusal> {
        let is_encoding = |attribute: &Attribute| &*attribute.name == DATA_CONTENT_ENCODING;
        let Some(encoding) = self.attributes.iter().rfind(|a| is_encoding(a)) else {
            return Ok(());
        };
        if !structured::is_base64(encoding) {
            return Err(Refusal::wrong(DATA_CONTENT_ENCODING, "base64 is understood, no other"));
        }
        self.attributes.retain(|attribute| !is_encoding(attribute));
        if let Some(payload) = &mut self.payload {
            *payload = structured::from_base64(payload)?;
        }
        Ok(())
    }
}

/// The checks of CloudEvents, and the event.
fn into_submission(mut said: Said, head: &RequestHead<'_>) -> Result<Submission, Refusal> {
    let version = required(said.spec_version.take(), SPEC_VERSION)?;
    let spec_version = SpecVersion::of(&version)
        .ok_or_else(|| Refusal::wrong(SPEC_VERSION, "a version that is understood: 1.0 or 0.3"))?;
    if spec_version == SpecVersion::V03 {
        said.unwrap_payload()?;
    }
    let id = required(said.id, "id")?;
    let source = required(said.source, "source")?;
    let event_type = required(said.event_type, "type")?;
    let (time, content_type) =
        (said.time.unwrap_or_default(), said.content_type.unwrap_or_default());
    let mut attributes: Attributes = said.attributes.into_iter().collect();
    attributes.add_missing(&head.attributes);
    for (name, text) in [("id", &id), ("type", &event_type), ("datacontenttype", &content_type)] {
        check_text(name, text)?;
    }
    check_uri("source", &source)?;
    if !time.is_empty() && !is_timestamp(&time) {
        return Err(Refusal::wrong("time", "a timestamp (RFC 3339), such as 2018-04-05T17:31:00Z"));
    }
    if !content_type.is_ascii() {
        return Err(Refusal::wrong("datacontenttype", "a media type"));
    }
    check_attributes(&attributes)?;
    let texts = [&id, &source, &event_type, &time, &content_type];
    let described: usize = texts.iter().map(|text| percent::written_bytes(text)).sum();
    let written = |a: &Attribute| a.name.len() + percent::written_bytes(&a.value.as_text());
    if described + attributes.iter().map(written).sum::<usize>() > limits::DESCRIPTION_BYTES {
        let why = "all attributes together have at most 32768 bytes, percent-encoded";
        return Err(Refusal::wrong("attributes", why));
    }
    let event_type_version = match attributes.remove(EVENT_TYPE_VERSION) {
        Some(Value::Text(text)) => text,
        Some(other) => other.to_string().into(),
        None => Text::new(),
    };
    let durability = attributes.get(DURABILITY).map(|level| Text::from(&*level.as_text()));
    let event = Event {
        source: Source::from_id(source),
        event_type,
        event_type_version,
        id,
        id_given: true,
        time,
        content_type,
        attributes,
        spec_version,
        trace: head.trace.clone(),
        has_payload: said.payload.is_some(),
        payload: said.payload.unwrap_or_default(),
    };
    Ok(Submission { event, durability })
}

fn required(said: Option<Text>, name: &'static str) -> Result<Text, Refusal> {
    said.filter(|text| !text.is_empty()).ok_or(Refusal::Missing(name))
}

fn check_attributes(attributes: &Attributes) -> Result<(), Refusal> {
    if attributes.len() > limits::EXTENSIONS {
        return Err(Refusal::wrong(
            "attributes",
            "an event has at most 64 attributes beside source, type, id and time",
        ));
    }
    for Attribute { name, value } in attributes.iter() {
        let Value::Text(text) = value else { continue };
        match &**name {
            SUBJECT | DATA_SCHEMA | SCHEMA_URL if text.is_empty() => {
                return Err(Refusal::wrong(name, "it may be left out, not be empty"));
            }
            DATA_SCHEMA | SCHEMA_URL => check_uri(name, text)?,
            SUBJECT => check_text(name, text)?,
            _ if text.chars().any(|c| is_unprintable(c) && !matches!(c, '\t' | '\r' | '\n')) => {
                return Err(Refusal::wrong(name, NO_CONTROLS));
            }
            _ => {}
        }
    }
    timing::check(attributes)
}

const NO_CONTROLS: &str = "text without control characters";

fn check_text(name: &str, text: &str) -> Result<(), Refusal> {
    if text.chars().any(is_unprintable) { Err(Refusal::wrong(name, NO_CONTROLS)) } else { Ok(()) }
}

/// What CloudEvents leaves out of its strings: control characters and what is no character. (In
/// extensions ends of lines are let pass: its own conformance samples have them.)
fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// A URI reference as far as its characters tell; those of other alphabets are let pass.
fn check_uri(name: &str, text: &str) -> Result<(), Refusal> {
    let is_foreign = |c: char| is_unprintable(c) || c.is_whitespace() || "\"<>\\^`{|}".contains(c);
    if text.contains(is_foreign) {
        return Err(Refusal::wrong(name, "a URI reference (RFC 3986): it has no such characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
