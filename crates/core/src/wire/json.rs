//! What the JSON forms of an event have in common.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::Text;

/// JSON that is nested deeper than this is refused: parsers of subscribers have such limits.
pub(crate) const DEPTH_MAX: usize = 128;

/// A document up to this size is kept whole beside its event. A larger one is kept when half of it
/// is payload.
const SMALL_BYTES: usize = 1024;

/// The request body, when what is parsed out of it may share its bytes.
///
/// It may when most of `document`, the event's part of the body, is payload, or when that is small.
/// Otherwise members that do not count would be kept as well, uncounted, as long as the event is.
pub(crate) fn worth_keeping<'b>(
    body: &'b Text,
    document: &str,
    payload_bytes: usize,
) -> Option<&'b Text> {
    (document.len() <= SMALL_BYTES || payload_bytes >= document.len() / 2).then_some(body)
}

/// `text` as a slice of `body` where it lies inside it, else (it had escapes) a copy.
pub(crate) fn shared(body: Option<&Text>, text: &str) -> Text {
    let Some(body) = body else { return text.into() };
    let (body_at, text_at) = (body.as_ptr() as usize, text.as_ptr() as usize);
    if text_at >= body_at && text_at + text.len() <= body_at + body.len() {
        body.slice_ref(text)
    } else {
        text.into()
    }
}

/// Is the JSON nested deeper than [`DEPTH_MAX`]? Counts first, since few documents have so many
/// brackets at all.
pub(crate) fn is_too_deep(json: &str) -> bool {
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

/// A string member: borrowed from the body where it has no escapes. `null` is absent.
pub(crate) struct Word<'a>(pub(crate) Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Word<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
        let word: Option<Borrowed<'de>> = Deserialize::deserialize(deserializer)?;
        Ok(Self(word.map(|word| word.0)))
    }
}

/// The documents of a batch.
pub(crate) enum Documents<'a> {
    /// Each as it lies in the body; what is in it was only skipped.
    These(Vec<&'a str>),
    /// More than were allowed.
    TooMany,
}

/// The elements of a JSON array, at most `max`.
pub(crate) fn elements(json: &str, max: usize) -> Result<Documents<'_>, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let (mut elements, mut overflows) = (Vec::new(), false);
    let seed = Elements { max, elements: &mut elements, overflows: &mut overflows };
    let parsed = seed.deserialize(&mut parser).and_then(|()| parser.end());
    if overflows {
        return Ok(Documents::TooMany);
    }
    parsed.map(|()| Documents::These(elements))
}

/// The lines of JSON lines that are not empty, at most `max`.
pub(crate) fn lines(text: &str, max: usize) -> Documents<'_> {
    let mut documents = Vec::new();
    for line in text.split('\n').map(str::trim_ascii).filter(|line| !line.is_empty()) {
        if documents.len() == max {
            return Documents::TooMany;
        }
        documents.push(line);
    }
    Documents::These(documents)
}

struct Elements<'s, 'de> {
    max: usize,
    elements: &'s mut Vec<&'de str>,
    overflows: &'s mut bool,
}

impl<'de> DeserializeSeed<'de> for Elements<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch: a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&'de RawValue>()? {
            if self.elements.len() == self.max {
                *self.overflows = true;
                return Err(serde::de::Error::custom("too many elements"));
            }
            self.elements.push(element.get());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these(documents: Documents<'_>) -> Option<Vec<&str>> {
        match documents {
            Documents::These(these) => Some(these),
            Documents::TooMany => None,
        }
    }

    #[test]
    fn a_batch_is_taken_apart_and_what_is_in_it_is_not_looked_at() {
        let array = " [ {\"a\":[1,2]} ,\"x\",null,7 ] ";
        let parts = these(elements(array, 4).unwrap());
        assert_eq!(parts.unwrap(), ["{\"a\":[1,2]}", "\"x\"", "null", "7"]);
        assert!(these(elements(array, 3).unwrap()).is_none());
        assert_eq!(these(elements("[]", 0).unwrap()).unwrap(), [""; 0]);
        for bad in ["", "{}", "[1", "[1,]", "[1] 2", "[01]"] {
            assert!(elements(bad, 9).is_err(), "{bad}");
        }
        let parts = these(lines("{\"a\":1}\r\n\n  {broken\n7", 3));
        assert_eq!(parts.unwrap(), ["{\"a\":1}", "{broken", "7"]);
        assert!(these(lines("1\n2\n3\n", 2)).is_none());
    }
}
