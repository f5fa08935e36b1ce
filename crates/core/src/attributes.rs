//! Attributes: what a publisher says of an event beside its source, type and id.
//!
//! CloudEvents' optional attributes without a field of their own (`subject`, `dataschema`), its
//! extensions, and the contract's `attributes` are one thing, so that every form of publishing and
//! of delivery carries all of them.

use std::borrow::Cow;
use std::fmt;

use crate::event::Text;
use crate::limits;

/// When the event is no longer worth delivering: a timestamp (CloudEvents' extension).
pub const EXPIRY_TIME: &str = "expirytime";
/// When the event is to be delivered: a timestamp.
pub const DELIVER_AT: &str = "deliverat";
/// How many seconds after it was published the event is to be delivered.
pub const DELAY_S: &str = "delays";
/// The durability asked for.
pub const DURABILITY: &str = "durability";
/// The version of the event's type: [`crate::Event::event_type_version`] in CloudEvents' form.
pub const EVENT_TYPE_VERSION: &str = "eventtypeversion";

/// Names that CloudEvents gives to something else, and the one that is the version of the type.
const TAKEN: [&str; 12] = [
    "data",
    "datacontentencoding",
    "datacontenttype",
    "dataschema",
    EVENT_TYPE_VERSION,
    "id",
    "schemaurl",
    "source",
    "specversion",
    "subject",
    "time",
    "type",
];

/// The attributes of an event: few, each name once, in the order of their names. None cost nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<Attribute>);

/// A name and what is said under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Lower-case letters and digits.
    pub name: Text,
    /// What is said.
    pub value: Value,
}

/// The value of an attribute, in one of CloudEvents' types. Timestamps, URIs and base64 are text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(Text),
    /// A whole number.
    Integer(i32),
    /// True or false.
    Boolean(bool),
}

/// Why the contract takes no such attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// The name.
    #[error("a name has 1 to 20 lower-case letters and digits")]
    Name,
    /// CloudEvents uses the name.
    #[error("CloudEvents uses this name for something else")]
    Taken,
    /// The value.
    #[error("a value has at most 1024 bytes")]
    TooLong,
    /// A value with control characters.
    #[error("a value has no control characters")]
    Control,
    /// Too many attributes.
    #[error("an event has at most 32 attributes")]
    TooMany,
}

impl Attributes {
    /// What is said under `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.0.binary_search_by(|attribute| (*attribute.name).cmp(name)).ok()?;
        self.0.get(at).map(|attribute| &attribute.value)
    }

    /// The text under `name`.
    pub fn text(&self, name: &str) -> Option<&Text> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            Value::Integer(_) | Value::Boolean(_) => None,
        }
    }

    /// Says `value` under `name`, whatever was said before.
    pub fn set(&mut self, name: Text, value: Value) {
        match self.0.binary_search_by(|attribute| attribute.name.cmp(&name)) {
            Ok(at) => self.0[at].value = value,
            Err(at) => self.0.insert(at, Attribute { name, value }),
        }
    }

    /// Takes what is said under `name` out.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.binary_search_by(|attribute| (*attribute.name).cmp(name)).ok()?;
        Some(self.0.remove(at).value)
    }

    /// Adds those of `others` whose names are not there. What is said here about when the event is
    /// to be delivered counts, and what is said there does not.
    pub fn add_missing(&mut self, others: &Self) {
        let is_timed = [DELIVER_AT, DELAY_S].iter().any(|name| self.get(name).is_some());
        for Attribute { name, value } in &others.0 {
            let is_time = is_timed && [DELIVER_AT, DELAY_S].contains(&&**name);
            if !is_time && self.get(name).is_none() {
                self.set(name.clone(), value.clone());
            }
        }
    }

    /// The attributes in the order of their names.
    pub fn iter(&self) -> std::slice::Iter<'_, Attribute> {
        self.0.iter()
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|said| said.name.len() + said.value.as_text().len()).sum()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one by the contract's rules, which are stricter than CloudEvents'. A name that is there
    /// already has its new value: the last one wins.
    pub fn set_by_contract(&mut self, name: Text, value: Text) -> Result<(), AttributeError> {
        if !(is_attribute_name(&name) && name.len() <= limits::ATTRIBUTE_NAME_CHARS) {
            return Err(AttributeError::Name);
        }
        if TAKEN.contains(&&*name) {
            return Err(AttributeError::Taken);
        }
        if value.len() > limits::ATTRIBUTE_VALUE_BYTES {
            return Err(AttributeError::TooLong);
        }
        if value.chars().any(char::is_control) {
            return Err(AttributeError::Control);
        }
        self.set(name, Value::Text(value));
        if self.len() > limits::ATTRIBUTES {
            return Err(AttributeError::TooMany);
        }
        Ok(())
    }
}

impl FromIterator<Attribute> for Attributes {
    /// Of those with one name the last one counts.
    fn from_iter<I: IntoIterator<Item = Attribute>>(attributes: I) -> Self {
        let mut all: Vec<Attribute> = attributes.into_iter().collect();
        // Stable, so that the last one of a name is the last one still.
        all.sort_by(|one, two| one.name.cmp(&two.name));
        all.reverse();
        all.dedup_by(|later, kept| later.name == kept.name);
        all.reverse();
        Self(all)
    }
}

impl Value {
    /// The value as text: numbers in decimals, `true` or `false`.
    pub fn as_text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Integer(number) => Cow::Owned(number.to_string()),
            Self::Boolean(true) => Cow::Borrowed("true"),
            Self::Boolean(false) => Cow::Borrowed("false"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.as_text())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// Is `name` one that CloudEvents allows: lower-case letters and digits, one at least?
pub fn is_attribute_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pairs: &[(&str, &str)]) -> Attributes {
        let attribute = |(name, value): &(&str, &str)| Attribute {
            name: (*name).into(),
            value: Value::from(*value),
        };
        pairs.iter().map(attribute).collect()
    }

    #[test]
    fn the_last_of_a_name_counts_and_the_order_is_that_of_the_names() {
        let mut attributes = all(&[("b", "1"), ("a", "2"), ("b", "3")]);
        assert_eq!(attributes, all(&[("a", "2"), ("b", "3")]));
        attributes.set("c".into(), Value::Integer(5));
        attributes.set("a".into(), Value::Boolean(true));
        attributes.add_missing(&all(&[("b", "no"), ("d", "yes")]));
        let mut timed = all(&[(DELAY_S, "1")]);
        timed.add_missing(&all(&[(DELIVER_AT, "now"), (DELAY_S, "2")]));
        assert_eq!(timed, all(&[(DELAY_S, "1")]));
        let texts: Vec<_> = attributes.iter().map(|a| format!("{}={}", a.name, a.value)).collect();
        assert_eq!(texts, ["a=true", "b=3", "c=5", "d=yes"]);
        assert_eq!(attributes.text("b").map(|text| &**text), Some("3"));
        assert_eq!(attributes.text("c"), None);
        assert_eq!(attributes.remove("b"), Some(Value::from("3")));
        assert_eq!(attributes.get("b"), None);
    }

    #[test]
    fn the_contract_is_strict() {
        let mut attributes = Attributes::default();
        let mut set =
            |name: &str, value: &str| attributes.set_by_contract(name.into(), value.into());
        for bad in ["", "A", "a-b", "a_b", "ä", "abcdefghijklmnopqrstu"] {
            assert_eq!(set(bad, ""), Err(AttributeError::Name), "{bad}");
        }
        for taken in ["id", "type", "source", "data", "subject", "time", "eventtypeversion"] {
            assert_eq!(set(taken, ""), Err(AttributeError::Taken), "{taken}");
        }
        assert_eq!(set("a", &"ü".repeat(513)), Err(AttributeError::TooLong));
        assert_eq!(set("a", "line\nend"), Err(AttributeError::Control));
        for number in 0..32 {
            assert_eq!(set(&format!("a{number}"), &"ü".repeat(512)), Ok(()));
        }
        assert_eq!(set("a31", "again"), Ok(()));
        assert_eq!(set("a32", ""), Err(AttributeError::TooMany));
    }
}
