//! Reading request bodies: JSON and YAML into values, with what strict validation must know.
//!
//! A map that reads into a value forgets that a member came twice; clients that ask for strict
//! validation want to be told, so the reading keeps note.

use std::{cell::RefCell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{limits, status::ApiError};

/// A body, read.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// The paths of members that came more than once; the last value counts.
    pub(crate) duplicates: Vec<String>,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Syntax {
    Json,
    Yaml,
}

/// Reads a body; a fault is a 400 that says where.
pub(crate) fn decode(body: &[u8], syntax: Syntax) -> Result<Decoded, ApiError> {
    let duplicates = RefCell::new(Vec::new());
    let seed = Seed { duplicates: &duplicates, place: None, depth: 0 };
    let value = match syntax {
        Syntax::Json => json(body, seed),
        Syntax::Yaml => yaml(body, seed),
    };
    Ok(Decoded { value: value?, duplicates: duplicates.into_inner() })
}

fn json(body: &[u8], seed: Seed<'_>) -> Result<Value, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = seed.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        ApiError::bad_request(format!("the object provided is unrecognized: json: {error}"))
    })
}

fn yaml(body: &[u8], seed: Seed<'_>) -> Result<Value, ApiError> {
    let unreadable = |error: String| {
        ApiError::bad_request(format!("the object provided is unrecognized: yaml: {error}"))
    };
    let text = std::str::from_utf8(body).map_err(|error| unreadable(error.to_string()))?;
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: limits::JSON_DEPTH,
            max_documents: 1,
            max_nodes: limits::YAML_NODES,
            max_events: limits::YAML_NODES * 2,
            max_total_scalar_bytes: limits::BODY_BYTES,
            max_recorded_anchor_bytes: limits::BODY_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: limits::YAML_NODES,
        },
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        seed.deserialize(deserializer)
    })
    .map_err(|error| unreadable(error.to_string()))
}

/// Where the reading stands: a list from the innermost place outwards, on the stack.
struct Place<'p> {
    outer: Option<&'p Place<'p>>,
    step: Step<'p>,
}

enum Step<'p> {
    Member(&'p str),
    Item(usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            outer.fmt(out)?;
        }
        match self.step {
            Step::Member(name) if self.outer.is_none() => out.write_str(name),
            Step::Member(name) => write!(out, ".{name}"),
            Step::Item(index) => write!(out, "[{index}]"),
        }
    }
}

struct Seed<'p> {
    duplicates: &'p RefCell<Vec<String>>,
    place: Option<&'p Place<'p>>,
    depth: usize,
}

impl<'p> Seed<'p> {
    fn inside<'i>(&self, place: &'i Place<'i>) -> Seed<'i>
    where
        'p: 'i,
    {
        Seed { duplicates: self.duplicates, place: Some(place), depth: self.depth + 1 }
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth < limits::JSON_DEPTH {
            return Ok(());
        }
        Err(E::custom(format_args!("nested deeper than {} levels", limits::JSON_DEPTH)))
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        loop {
            let place = Place { outer: self.place, step: Step::Item(list.len()) };
            match items.next_element_seed(self.inside(&place))? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let place = Place { outer: self.place, step: Step::Member(&name) };
            if object.contains_key(&name) {
                let mut duplicates = self.duplicates.borrow_mut();
                if duplicates.len() < limits::CAUSES {
                    duplicates.push(place.to_string());
                }
            }
            let value = members.next_value_seed(self.inside(&place))?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(body: &str, syntax: Syntax) -> String {
        let status = decode(body.as_bytes(), syntax).unwrap_err().status();
        assert_eq!(status["code"], 400);
        status["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn duplicates_are_noted_and_the_last_counts() {
        let body = br#"{"spec":{"a":1,"a":2,"list":[{"b":1,"b":2}]},"spec2":0,"spec2":1}"#;
        for syntax in [Syntax::Json, Syntax::Yaml] {
            let decoded = decode(body, syntax).unwrap();
            assert_eq!(decoded.duplicates, ["spec.a", "spec.list[0].b", "spec2"], "{syntax:?}");
            assert_eq!(decoded.value["spec"], json!({ "a": 2, "list": [{ "b": 2 }] }));
        }
    }

    #[test]
    fn yaml_reads_like_json() {
        let body = "a: 1\nb: [true, null, 1.5, \"x\"]\nc:\n  d: text\n";
        let value = json!({ "a": 1, "b": [true, null, 1.5, "x"], "c": { "d": "text" } });
        let yaml = decode(body.as_bytes(), Syntax::Yaml).unwrap();
        assert_eq!(yaml.value, value);
        let json = decode(value.to_string().as_bytes(), Syntax::Json).unwrap();
        assert_eq!(json.value, value);
    }

    #[test]
    fn deep_nesting_is_refused_in_words() {
        for syntax in [Syntax::Json, Syntax::Yaml] {
            for deep in [101, 120, 100_000] {
                let body = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
                refused(&body, syntax);
            }
            let body = format!("{}1{}", r#"{"a":"#.repeat(99), "}".repeat(99));
            decode(body.as_bytes(), syntax).unwrap();
        }
        let body = format!("{}{}", "[".repeat(101), "]".repeat(101));
        assert!(refused(&body, Syntax::Json).contains("nested deeper than 100 levels"));
    }

    #[test]
    fn nonsense_is_refused() {
        for body in ["", "{", "[1,]", "{} {}", "nul", "1e999", "\u{0}"] {
            refused(body, Syntax::Json);
        }
        for body in ["a: b: c", "a: .nan", "--- 1\n--- 2\n", "[", "{a: 1", "a: *x"] {
            refused(body, Syntax::Yaml);
        }
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
        }
        refused(&bomb, Syntax::Yaml);
        decode(&[0xff, 0xfe], Syntax::Yaml).unwrap_err();
    }
}
