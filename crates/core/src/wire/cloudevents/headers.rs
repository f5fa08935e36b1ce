//! Binary mode: attributes in `ce-` headers, the payload as the body.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{SPEC_VERSION, Said};
use crate::attributes::{EVENT_TYPE_VERSION, Value};
use crate::event::{Event, Text};
use crate::wire::error::Refusal;
use crate::wire::percent;

const PREFIX: &str = "ce-";

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

/// Adds the headers of `event` in binary mode: its attributes, and its media type.
pub fn encode(event: &Event, headers: &mut HeaderMap) {
    let version = HeaderValue::from_static(event.spec_version.as_str());
    headers.insert(name(SPEC_VERSION), version);
    headers.insert(name("id"), percent::encode(&event.id));
    headers.insert(name("source"), percent::encode(event.source.text()));
    headers.insert(name("type"), percent::encode(&event.event_type));
    let mut put = |attribute: &str, text: &Text| {
        if !text.is_empty() {
            headers.insert(name(attribute), percent::encode(text));
        }
    };
    put("time", &event.time);
    put(EVENT_TYPE_VERSION, &event.event_type_version);
    for attribute in event.attributes.iter() {
        let value = match &attribute.value {
            Value::Text(text) => percent::encode(text),
            value => percent::encode_str(&value.as_text()),
        };
        headers.insert(name(&attribute.name), value);
    }
    if let Ok(media_type) = HeaderValue::from_maybe_shared(event.content_type.as_bytes().clone())
        && !media_type.is_empty()
    {
        headers.insert(CONTENT_TYPE, media_type);
    }
}

fn name(attribute: &str) -> HeaderName {
    // An attribute's name is lower-case letters and digits, and so a header's.
    HeaderName::try_from([PREFIX, attribute].concat())
        .unwrap_or(HeaderName::from_static("ce-unnamed"))
}
