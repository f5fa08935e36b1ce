//! The wire format: numbered fields, read by a table of what they are.
//!
//! What is empty is left out, because Kubernetes' own encoder writes even empty texts; what a table
//! does not name is passed over, as the format wants it.

use base64::prelude::{BASE64_STANDARD as BASE64, Engine};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::layout::{Form, Layout};

/// The envelope of every body.
pub(super) struct Envelope<'b> {
    pub(super) version: &'b str,
    pub(super) kind: &'b str,
    pub(super) raw: &'b [u8],
}

/// Reads the envelope.
pub(super) fn envelope(bytes: &[u8]) -> Option<Envelope<'_>> {
    let mut envelope = Envelope { version: "", kind: "", raw: &[] };
    for field in (Fields { rest: bytes }) {
        match field? {
            (1, Content::Bytes(names)) => {
                for field in (Fields { rest: names }) {
                    match field? {
                        (1, Content::Bytes(text)) => envelope.version = str(text)?,
                        (2, Content::Bytes(text)) => envelope.kind = str(text)?,
                        _ => {}
                    }
                }
            }
            (2, Content::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Some(envelope)
}

/// Reads an object by its table. As deep as the tables are nested.
pub(super) fn object(bytes: &[u8], layout: Layout) -> Option<Map<String, Value>> {
    let mut members = Map::new();
    for field in (Fields { rest: bytes }) {
        let (number, content) = field?;
        let known = layout.iter().find(|(known, _, _)| *known == number);
        if let Some((_, name, form)) = known {
            read(&mut members, name, form, content)?;
        }
    }
    Some(members)
}

/// Reads an object of texts, numbered in the order of their names.
fn words(bytes: &[u8], names: &[&str]) -> Option<Map<String, Value>> {
    let mut members = Map::new();
    for field in (Fields { rest: bytes }) {
        let (number, content) = field?;
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        if let Some(name) = at.and_then(|at| names.get(at)) {
            read(&mut members, name, &Form::Text, content)?;
        }
    }
    Some(members)
}

/// Reads one field into its member; none if it is not of its form.
fn read(
    members: &mut Map<String, Value>,
    name: &str,
    form: &Form,
    content: Content<'_>,
) -> Option<()> {
    let value = match (form, content) {
        (Form::Text, Content::Bytes([])) | (Form::Time, Content::Bytes([])) => return Some(()),
        (Form::Number, Content::Number(0)) => return Some(()),
        (Form::Text, Content::Bytes(bytes)) => str(bytes)?.into(),
        (Form::Number | Form::OptionalNumber, Content::Number(number)) => {
            number.cast_signed().into()
        }
        (Form::Switch, Content::Number(number)) => (number != 0).into(),
        (Form::Time, Content::Bytes(bytes)) => time(bytes)?,
        (Form::Object(layout), Content::Bytes(bytes)) => object(bytes, layout)?.into(),
        (Form::Words(names), Content::Bytes(bytes)) => words(bytes, names)?.into(),
        (Form::Texts, Content::Bytes(bytes)) => {
            return push(members, name, str(bytes)?.into());
        }
        (Form::Objects(layout), Content::Bytes(bytes)) => {
            return push(members, name, object(bytes, layout)?.into());
        }
        (Form::Map(form), Content::Bytes(bytes)) => {
            let (key, value) = entry(bytes, *form)?;
            let map = members.entry(name).or_insert_with(|| json!({})).as_object_mut()?;
            map.insert(key, value);
            return Some(());
        }
        _ => return None,
    };
    members.insert(name.into(), value);
    Some(())
}

fn push(members: &mut Map<String, Value>, name: &str, value: Value) -> Option<()> {
    members.entry(name).or_insert_with(|| json!([])).as_array_mut()?.push(value);
    Some(())
}

/// What stands in the values of a map.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Text,
    Bytes,
}

fn entry(bytes: &[u8], form: Entry) -> Option<(String, Value)> {
    let (mut key, mut value) = ("", &[][..]);
    for field in (Fields { rest: bytes }) {
        match field? {
            (1, Content::Bytes(bytes)) => key = str(bytes)?,
            (2, Content::Bytes(bytes)) => value = bytes,
            _ => return None,
        }
    }
    let value = match form {
        Entry::Text => str(value)?.into(),
        Entry::Bytes => BASE64.encode(value).into(),
    };
    Some((key.to_owned(), value))
}

/// Seconds since 1970 and nanoseconds; those who wish for seconds only send no others.
fn time(bytes: &[u8]) -> Option<Value> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in (Fields { rest: bytes }) {
        match field? {
            (1, Content::Number(number)) => seconds = number.cast_signed(),
            (2, Content::Number(number)) => nanos = i32::try_from(number).ok()?,
            _ => return None,
        }
    }
    Some(Timestamp::new(seconds, nanos).ok()?.to_string().into())
}

fn str(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What a field holds.
enum Content<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    /// Four or eight bytes, which no kind of ours uses.
    Fixed,
}

/// The fields, one after the other; an inner none is a fault, and the end.
struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Fields<'b> {
    type Item = Option<(u64, Content<'b>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'b> Fields<'b> {
    fn field(&mut self) -> Option<(u64, Content<'b>)> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => Content::Number(self.varint()?),
            1 => self.take(8).map(|_| Content::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Content::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Content::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, content))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}
