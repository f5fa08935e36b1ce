//! Binary mode: attributes in `ce-` headers, the payload as the body.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::Said;
use crate::attributes::{EVENT_TYPE_VERSION, Value};
use crate::event::Event;
use crate::wire::error::Refusal;
use crate::wire::lines::{Lines, is_value};
use crate::wire::percent;

const PREFIX: &str = "ce-";
/// The same as it is written.
const WRITTEN_PREFIX: &str = "Ce-";

/// Reads what a request in binary mode says.
pub(super) fn decode(headers: &HeaderMap, body: Bytes) -> Result<Said, Refusal> {
    let mut said = Said::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else { continue };
        if attribute == "datacontenttype" {
            return Err(Refusal::wrong(name.as_str(), "the media type is the header Content-Type"));
        }
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Refusal::wrong(name.as_str(), "it is given twice"));
        };
        let text = percent::decode(value.as_bytes())
            .ok_or_else(|| Refusal::wrong(name.as_str(), "it is not UTF-8"))?;
        said.say(attribute, Value::Text(text))?;
    }
    if let Some(media_type) = headers.get(CONTENT_TYPE) {
        let text =
            media_type.to_str().map_err(|_| Refusal::wrong("Content-Type", "a media type"))?;
        said.content_type = Some(text.into());
    }
    // Without a media type and without a byte there is no payload; either says that there is one.
    if !body.is_empty() || said.content_type.is_some() {
        said.payload = Some(body);
    }
    Ok(said)
}

/// Writes the headers of `event` in binary mode: its attributes, and its media type.
pub fn encode(event: &Event, lines: &mut Lines) {
    lines.header("Ce-Specversion", event.spec_version.as_str().as_bytes());
    lines.text("Ce-Id", &event.id);
    lines.text("Ce-Source", event.source.text());
    lines.text("Ce-Type", &event.event_type);
    lines.some_text("Ce-Time", &event.time);
    if !event.event_type_version.is_empty() {
        lines.text_of(WRITTEN_PREFIX, EVENT_TYPE_VERSION, &event.event_type_version);
    }
    for attribute in event.attributes.iter() {
        match &attribute.value {
            Value::Text(text) => lines.text_of(WRITTEN_PREFIX, &attribute.name, text),
            value => lines.text_of(WRITTEN_PREFIX, &attribute.name, &value.as_text()),
        }
    }
    if is_value(&event.content_type) {
        lines.header("Content-Type", event.content_type.as_bytes());
    }
}
