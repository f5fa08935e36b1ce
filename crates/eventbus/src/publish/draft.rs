//! Completing an event: what a line says stays byte for byte, what it leaves out comes from the
//! command's arguments.
//!
//! Nothing is validated here beyond being a JSON object: the bus is the judge of its own contract,
//! and its error body says more than a second opinion would.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::value::{RawValue, to_raw_value};

/// The members an event gets where it does not have them.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    members: Vec<(&'static str, Box<RawValue>)>,
}

type Members = BTreeMap<String, Box<RawValue>>;

impl Defaults {
    /// Adds a member with a text value, if there is one.
    pub(super) fn text(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.json(name, quoted(value));
        }
    }

    /// Adds the source in its three parts.
    pub(super) fn source(&mut self, namespace: &str, kind: &str, environment: &str) {
        let parts = BTreeMap::from([
            ("source-namespace", namespace),
            ("source-type", kind),
            ("source-environment", environment),
        ]);
        if let Ok(source) = to_raw_value(&parts) {
            self.json("source", source);
        }
    }

    /// Adds a member with a value that is JSON already.
    pub(super) fn json(&mut self, name: &'static str, value: Box<RawValue>) {
        self.members.push((name, value));
    }

    /// The event that `line` (a JSON object) says together with the defaults. An event without a
    /// time happened at `now_ms`.
    pub(super) fn complete(&self, line: &str, now_ms: u64) -> Result<String, String> {
        let mut event: Members =
            serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
        event.retain(|_, value| value.get() != "null");
        let has_source = event.contains_key("source") || event.contains_key("source-id");
        for (name, value) in &self.members {
            if !(has_source && name.starts_with("source")) {
                event.entry((*name).to_owned()).or_insert_with(|| value.clone());
            }
        }
        event.entry("event-time".to_owned()).or_insert_with(|| quoted(&rfc3339(now_ms)));
        serde_json::to_string(&event).map_err(|error| error.to_string())
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
fn rfc3339(now_ms: u64) -> String {
    Timestamp::from_millisecond(now_ms as i64).unwrap_or_default().to_string()
}

fn quoted(text: &str) -> Box<RawValue> {
    // Text always has a JSON form.
    to_raw_value(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        let mut defaults = Defaults::default();
        defaults.text("event-type", Some("order.created"));
        defaults.text("source-id", Some("shop"));
        defaults.text("event-id", None);
        defaults
    }

    #[test]
    fn an_empty_line_takes_everything_from_the_arguments() {
        let event = defaults().complete("{}", 1_500).unwrap();
        assert_eq!(
            event,
            concat!(
                r#"{"event-time":"1970-01-01T00:00:01.5Z","#,
                r#""event-type":"order.created","source-id":"shop"}"#
            )
        );
    }

    #[test]
    fn what_a_line_says_stays_byte_for_byte() {
        let line = r#"{"event-type":"a","event-time":"t","data":{"z": 1.00,  "a":"\u00e9"},"x":1}"#;
        let event = defaults().complete(line, 0).unwrap();
        assert_eq!(
            event,
            concat!(
                r#"{"data":{"z": 1.00,  "a":"\u00e9"},"event-time":"t","#,
                r#""event-type":"a","source-id":"shop","x":1}"#
            )
        );
    }

    #[test]
    fn a_line_with_a_source_keeps_it_in_either_form() {
        let event = defaults().complete(r#"{"source":{"source-type":"t"},"event-time":"t"}"#, 0);
        assert!(!event.unwrap().contains("source-id"));
        let mut three = Defaults::default();
        three.source("com.github", "commerce", "stage");
        let event = three.complete(r#"{"source-id":"shop","event-time":"t"}"#, 0).unwrap();
        assert_eq!(event, r#"{"event-time":"t","source-id":"shop"}"#);
        let event = three.complete(r#"{"source-id":null,"event-time":"t"}"#, 0).unwrap();
        assert!(event.contains(r#""source-namespace":"com.github""#), "{event}");
    }

    #[test]
    fn only_objects_are_events() {
        for line in ["", "1", "[]", "null", "{} {}", "{\"a\":}"] {
            assert!(defaults().complete(line, 0).is_err(), "{line}");
        }
    }
}
