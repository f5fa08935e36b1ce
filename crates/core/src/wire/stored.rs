//! The event as a broker stores it: a head that describes it, then the payload as published.
//!
//! ```text
//! byte 0       form, 1
//! bytes 1–4    length of the fields, u32 little endian
//! fields       each: tag u8, length u32 little endian, bytes
//! payload      the rest
//! ```
//!
//! A field whose tag is 128 or above may be skipped by a program that does not know it; any other
//! unknown tag is an error, because the event would be delivered without something that matters.

use bytes::Bytes;

use crate::attributes::{Attribute, Attributes, Value};
use crate::event::{Event, Source, SpecVersion, Text};
use crate::limits;
use crate::wire::trace::{Trace, TraceHeader};

const FORM: u8 = 1;
const FIXED_BYTES: usize = 5;

const SOURCE: u8 = 1;
const EVENT_TYPE: u8 = 2;
const EVENT_TYPE_VERSION: u8 = 3;
const ID: u8 = 4;
const TIME: u8 = 5;
const CONTENT_TYPE: u8 = 6;
const ID_MADE: u8 = 7;
/// Name, `=`, value.
const ATTRIBUTE_TEXT: u8 = 8;
const ATTRIBUTE_INTEGER: u8 = 9;
const ATTRIBUTE_BOOLEAN: u8 = 10;
/// A version of CloudEvents other than 1.0.
const SPEC_VERSION: u8 = 11;
/// There is no payload, not even an empty one. Its value means nothing.
const NO_PAYLOAD: u8 = 12;
const FIRST_OPTIONAL: u8 = 128;

/// Bytes that are no stored event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// The bytes end too early.
    #[error("the stored event is cut short")]
    Short,
    /// A newer program wrote them.
    #[error("the stored event has form {0}; this program reads form {FORM}")]
    Form(u8),
    /// A newer program wrote them.
    #[error("the stored event has a field {0} that this program does not know")]
    Field(u8),
    /// A field is not text.
    #[error("field {0} of the stored event is not UTF-8")]
    NotText(u8),
    /// A field is text, but not of its kind.
    #[error("field {0} of the stored event says nothing that this program knows")]
    Unknown(u8),
}

/// Appends the head of `event` to `out`. The head and [`Event::payload`] together are the event.
pub fn encode_head(event: &Event, out: &mut Vec<u8>) {
    out.push(FORM);
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    field(out, SOURCE, event.source.as_str());
    field(out, EVENT_TYPE, &event.event_type);
    field(out, EVENT_TYPE_VERSION, &event.event_type_version);
    field(out, if event.id_given { ID } else { ID_MADE }, &event.id);
    field(out, TIME, &event.time);
    field(out, CONTENT_TYPE, &event.content_type);
    for attribute in event.attributes.iter() {
        field_of_attribute(out, attribute);
    }
    if event.spec_version != SpecVersion::V1 {
        field(out, SPEC_VERSION, event.spec_version.as_str());
    }
    if !event.has_payload {
        field(out, NO_PAYLOAD, "-");
    }
    for (header, value) in event.trace.iter() {
        field(out, header as u8, value);
    }
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Bytes that [`encode_head`] appends for `event`.
pub fn head_bytes(event: &Event) -> usize {
    let texts = [
        event.source.text(),
        &event.event_type,
        &event.event_type_version,
        &event.id,
        &event.time,
        &event.content_type,
    ];
    let traced = event.trace.iter().map(|(_, value)| value.len());
    let said = event.attributes.iter().map(|a| a.name.len() + 1 + a.value.as_text().len());
    let fields = texts.into_iter().map(|text| text.len()).filter(|length| *length > 0);
    let fields: usize = fields.chain(traced).chain(said).map(|length| FIXED_BYTES + length).sum();
    let version = if event.spec_version == SpecVersion::V1 { 0 } else { FIXED_BYTES + 3 };
    let no_payload = if event.has_payload { 0 } else { FIXED_BYTES + 1 };
    FIXED_BYTES + fields + version + no_payload
}

fn field(out: &mut Vec<u8>, tag: u8, value: &str) {
    if value.is_empty() {
        return;
    }
    out.push(tag);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn field_of_attribute(out: &mut Vec<u8>, attribute: &Attribute) {
    let Attribute { name, value } = attribute;
    let text = value.as_text();
    out.push(match value {
        Value::Text(_) => ATTRIBUTE_TEXT,
        Value::Integer(_) => ATTRIBUTE_INTEGER,
        Value::Boolean(_) => ATTRIBUTE_BOOLEAN,
    });
    out.extend_from_slice(&((name.len() + 1 + text.len()) as u32).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    out.extend_from_slice(text.as_bytes());
}

/// The same event in bytes of its own: whatever it was parsed from is let go.
pub fn detached(event: &Event) -> Event {
    let mut bytes = Vec::with_capacity(head_bytes(event) + event.payload.len());
    encode_head(event, &mut bytes);
    bytes.extend_from_slice(&event.payload);
    // What was encoded is read back.
    decode(&bytes.into()).unwrap_or_else(|_| event.clone())
}

/// Reads an event back. Its text and payload share the bytes of `stored`.
pub fn decode(stored: &Bytes) -> Result<Event, StoredError> {
    let form = *stored.first().ok_or(StoredError::Short)?;
    if form != FORM {
        return Err(StoredError::Form(form));
    }
    let length = length_at(stored, 1).ok_or(StoredError::Short)?;
    let end = FIXED_BYTES + length;
    if stored.len() < end {
        return Err(StoredError::Short);
    }
    let mut event = empty(stored.slice(end..));
    let mut at = FIXED_BYTES;
    while at < end {
        let tag = stored[at];
        let length = length_at(stored, at + 1).ok_or(StoredError::Short)?;
        let (from, to) = (at + FIXED_BYTES, at + FIXED_BYTES + length);
        if to > end {
            return Err(StoredError::Short);
        }
        if tag < FIRST_OPTIONAL {
            let value = Text::try_from(stored.slice(from..to));
            set(&mut event, tag, value.map_err(|_| StoredError::NotText(tag))?)?;
        }
        at = to;
    }
    Ok(event)
}

fn length_at(stored: &[u8], at: usize) -> Option<usize> {
    let bytes = stored.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}

fn set(event: &mut Event, tag: u8, value: Text) -> Result<(), StoredError> {
    match tag {
        SOURCE => event.source = Source::from_id(value),
        EVENT_TYPE => event.event_type = value,
        EVENT_TYPE_VERSION => event.event_type_version = value,
        ID => event.id = value,
        // What is empty is never written.
        ID_MADE if value.is_empty() => {}
        ID_MADE => (event.id, event.id_given) = (value, false),
        TIME => event.time = value,
        CONTENT_TYPE => event.content_type = value,
        ATTRIBUTE_TEXT | ATTRIBUTE_INTEGER | ATTRIBUTE_BOOLEAN => {
            let (name, value) = attribute(tag, &value).ok_or(StoredError::Unknown(tag))?;
            if event.attributes.len() >= limits::EXTENSIONS {
                return Err(StoredError::Unknown(tag));
            }
            event.attributes.set(name, value);
        }
        SPEC_VERSION => {
            event.spec_version = SpecVersion::of(&value).ok_or(StoredError::Unknown(tag))?;
        }
        NO_PAYLOAD => event.has_payload = false,
        _ => match TraceHeader::from_tag(tag) {
            Some(_) if value.is_empty() => {}
            Some(header) => event.trace.push(header, value),
            None => return Err(StoredError::Field(tag)),
        },
    }
    Ok(())
}

fn attribute(tag: u8, field: &Text) -> Option<(Text, Value)> {
    let (name, value) = field.split_once('=')?;
    let value = match tag {
        ATTRIBUTE_INTEGER => Value::Integer(value.parse().ok()?),
        ATTRIBUTE_BOOLEAN => Value::Boolean(value.parse().ok()?),
        _ => Value::Text(field.slice_ref(value)),
    };
    Some((field.slice_ref(name), value))
}

fn empty(payload: Bytes) -> Event {
    Event {
        source: Source::from_id(Text::new()),
        event_type: Text::new(),
        event_type_version: Text::new(),
        id: Text::new(),
        id_given: true,
        time: Text::new(),
        content_type: Text::new(),
        attributes: Attributes::default(),
        spec_version: SpecVersion::V1,
        trace: Trace::default(),
        payload,
        has_payload: true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(event: &Event) -> Bytes {
        let mut bytes = Vec::new();
        encode_head(event, &mut bytes);
        bytes.extend_from_slice(&event.payload);
        bytes.into()
    }

    prop_compose! {
        fn any_event()(
            texts in proptest::array::uniform6(".{0,40}"),
            traced in proptest::collection::vec((0usize..8, "[!-~]{1,40}"), 0..4),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            attributes in proptest::collection::vec(any_attribute(), 0..4),
            [id_made, is_old, has_payload] in any::<[bool; 3]>(),
        ) -> Event {
            let [source, event_type, event_type_version, id, time, content_type] =
                texts.map(Text::from);
            let mut trace = Trace::default();
            for (header, value) in traced {
                trace.push(TraceHeader::ALL[header], value.into());
            }
            let source = Source::from_id(source);
            let payload = payload.into();
            Event {
                source,
                event_type,
                event_type_version,
                id_given: id.is_empty() || !id_made,
                id,
                time,
                content_type,
                attributes: attributes.into_iter().collect(),
                spec_version: if is_old { SpecVersion::V03 } else { SpecVersion::V1 },
                trace,
                payload,
                has_payload,
            }
        }
    }

    fn any_attribute() -> impl Strategy<Value = Attribute> {
        let value = prop_oneof![
            ".{0,20}".prop_map(|text| Value::Text(text.into())),
            any::<i32>().prop_map(Value::Integer),
            any::<bool>().prop_map(Value::Boolean),
        ];
        ("[a-z0-9]{1,5}", value).prop_map(|(name, value)| Attribute { name: name.into(), value })
    }

    proptest! {
        #[test]
        fn an_event_is_read_back_as_it_was(event in any_event()) {
            let bytes = stored(&event);
            prop_assert_eq!(head_bytes(&event), bytes.len() - event.payload.len());
            prop_assert_eq!(&decode(&bytes).unwrap(), &event);
            prop_assert_eq!(detached(&event), event);
        }

        #[test]
        fn any_bytes_are_an_event_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            event in any_event(),
            cut in any::<prop::sample::Index>(),
        ) {
            let _ = decode(&bytes.into());
            let whole = stored(&event);
            let head = whole.len() - event.payload.len();
            prop_assert!(decode(&whole.slice(..cut.index(head))).is_err());
        }
    }
}
