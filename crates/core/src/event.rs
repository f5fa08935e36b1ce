//! The event: what a publisher sends and every subscriber gets.
//!
//! All text of an event shares its bytes with the buffer it was parsed from, be that a request body
//! or a read from disk; an event is therefore cheap to make and cheap to clone, and its payload is
//! never copied.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::attributes::Attributes;
use crate::wire::trace::Trace;

/// UTF-8 text that shares its bytes with the buffer it was parsed from.
pub type Text = bytestring::ByteString;

/// One business event. Immutable once made; the payload is the publisher's bytes, unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who it comes from.
    pub source: Source,
    /// Its type, such as `order.created`.
    pub event_type: Text,
    /// The version of its type, such as `v1`. A CloudEvent may have none: empty.
    pub event_type_version: Text,
    /// Its id: the publisher's spelling, or a version 4 UUID made on arrival.
    pub id: Text,
    /// Did the publisher give it its id? Only then can a repeat be told from another event.
    pub id_given: bool,
    /// When it happened, in the publisher's spelling (RFC 3339). A CloudEvent may have none.
    pub time: Text,
    /// Media type of the payload; goes out as the delivery's `Content-Type`. Empty: none was given.
    pub content_type: Text,
    /// What else the publisher says of it.
    pub attributes: Attributes,
    /// The version of CloudEvents in which it is passed on.
    pub spec_version: SpecVersion,
    /// The publisher's tracing context, carried through to the subscriber.
    pub trace: Trace,
    /// The business payload, byte for byte.
    pub payload: Bytes,
    /// Is there a payload at all? A CloudEvent may have none, which is not an empty one.
    pub has_payload: bool,
}

/// A version of CloudEvents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SpecVersion {
    /// 1.0
    #[default]
    V1,
    /// 0.3, of 2019
    V03,
}

impl SpecVersion {
    /// How it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V03 => "0.3",
        }
    }

    /// Reads [`SpecVersion::as_str`] back.
    pub fn of(text: &str) -> Option<Self> {
        [Self::V1, Self::V03].into_iter().find(|version| version.as_str() == text)
    }
}

impl Event {
    /// What a Subscription must ask for to get this event.
    pub fn interest(&self) -> Interest {
        Interest {
            source: self.source.clone(),
            event_type: self.event_type.clone(),
            event_type_version: self.event_type_version.clone(),
        }
    }

    /// The hash under which the log files this event.
    pub fn topic_hash(&self) -> TopicHash {
        TopicHash::of(&self.source, &self.event_type, &self.event_type_version)
    }

    /// Does this event have exactly that source, type and version?
    pub fn is_of(&self, interest: &Interest) -> bool {
        self.event_type == interest.event_type
            && self.event_type_version == interest.event_type_version
            && self.source == interest.source
    }

    /// Identity of the event for deduplication: 128 bits of BLAKE3 over source and id, and 0 where
    /// the publisher gave no id.
    ///
    /// A cryptographic hash, because a publisher who could craft a collision could make another
    /// publisher's event disappear.
    pub fn deduplication_hash(&self) -> u128 {
        if !self.id_given {
            return 0;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.source.as_str().len() as u64).to_le_bytes());
        hasher.update(self.source.as_str().as_bytes());
        hasher.update(self.id.as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_le_bytes(first)
    }
}

/// Where events come from: one canonical text, compared exactly and case-sensitively.
///
/// The three-part form of the 2018 contract (environment, namespace, type) is written
/// `/environment/namespace/type`; a `source-id` is itself. So both forms, and the `source` of a
/// CloudEvent, are one thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(Text);

/// The parts of a three-part [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceParts<'a> {
    /// The environment, such as `stage`.
    pub environment: &'a str,
    /// The namespace: the organisation that publishes, such as `com.github`.
    pub namespace: &'a str,
    /// The type of the source, such as `commerce`.
    pub source_type: &'a str,
}

impl Source {
    /// A source known by one id, or by a URI reference.
    pub fn from_id(id: Text) -> Self {
        Self(id)
    }

    /// A source of three parts.
    pub fn from_parts(parts: SourceParts<'_>) -> Self {
        let SourceParts { environment, namespace, source_type } = parts;
        Self(format!("/{environment}/{namespace}/{source_type}").into())
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical text, sharing its bytes.
    pub fn text(&self) -> &Text {
        &self.0
    }

    /// The three parts, when the source has that form: `/` and three names of the contract's
    /// pattern.
    pub fn parts(&self) -> Option<SourceParts<'_>> {
        let mut names = self.0.strip_prefix('/')?.split('/');
        let (environment, namespace, source_type) = (names.next()?, names.next()?, names.next()?);
        let all_names = [environment, namespace, source_type].iter().all(|n| is_name(n));
        (all_names && names.next().is_none()).then_some(SourceParts {
            environment,
            namespace,
            source_type,
        })
    }
}

/// Does `text` follow the contract's name pattern `^[a-zA-Z]+([_\-\.]?[a-zA-Z0-9]+)*$`?
///
/// In words: a letter first, a letter or digit last, and no two of `_ - .` side by side.
pub fn is_name(text: &str) -> bool {
    let mut previous = b'.';
    for (at, byte) in text.bytes().enumerate() {
        let fits = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => true,
            b'0'..=b'9' => at > 0,
            b'_' | b'-' | b'.' => at > 0 && previous.is_ascii_alphanumeric(),
            _ => false,
        };
        if !fits {
            return false;
        }
        previous = byte;
    }
    previous.is_ascii_alphanumeric()
}

/// What a Subscription asks for: an exact source, type and version. The coarse part of matching,
/// which a broker may do near its storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interest {
    /// The source wanted.
    pub source: Source,
    /// The type wanted.
    pub event_type: Text,
    /// The version wanted.
    pub event_type_version: Text,
}

impl Interest {
    /// The hash under which the log files the events of this interest.
    pub fn topic_hash(&self) -> TopicHash {
        TopicHash::of(&self.source, &self.event_type, &self.event_type_version)
    }
}

/// 64-bit XXH3 of source, type and version, each preceded by its length. Stable: it is on disk.
///
/// Two interests may share a hash; that costs a comparison, never correctness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicHash(pub u64);

impl TopicHash {
    fn of(source: &Source, event_type: &str, event_type_version: &str) -> Self {
        let mut joined: SmallVec<[u8; 256]> = SmallVec::new();
        for part in [source.as_str(), event_type, event_type_version] {
            joined.extend_from_slice(&(part.len() as u32).to_le_bytes());
            joined.extend_from_slice(part.as_bytes());
        }
        Self(xxhash_rust::xxh3::xxh3_64(&joined))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern_of_the_contract() {
        for good in ["a", "order.created", "order_created", "A-1.b", "ec", "local.kyma.commerce"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1a", ".a", "a.", "a..b", "a.-b", "a b", "ä", "a\n", "a/b", "-"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_three_part_source_is_read_back_and_an_id_has_no_parts() {
        let parts =
            SourceParts { environment: "stage", namespace: "com.github", source_type: "commerce" };
        assert_eq!(Source::from_parts(parts).as_str(), "/stage/com.github/commerce");
        assert_eq!(Source::from_parts(parts).parts(), Some(parts));
        for id in ["stage.commerce", "/a/b", "/a/b/c/d", "//b/c", "/a/b/1", "https://a/b/c"] {
            assert_eq!(Source::from_id(id.into()).parts(), None, "{id}");
        }
    }

    #[test]
    fn the_hash_tells_apart_what_plain_joining_would_not() {
        let interest = |event_type: &str, version: &str| Interest {
            source: Source::from_id("shop".into()),
            event_type: event_type.into(),
            event_type_version: version.into(),
        };
        assert_ne!(interest("ab", "c").topic_hash(), interest("a", "bc").topic_hash());
        // On disk: this value may never change.
        assert_eq!(interest("order.created", "v1").topic_hash().0, 10_067_350_847_365_087_673);
    }
}
