//! Completing an event: what a line says stays byte for byte, what it leaves out comes from the
//! command's arguments.
//!
//! Nothing is validated here beyond being a JSON object: the bus is the judge of its own contract,
//! and its error body says more than a second opinion would.

use std::collections::BTreeMap;

use eventbus_core::Entropy;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::cli::World;

/// The members an event gets where it does not have them.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    members: Vec<(&'static str, Box<RawValue>)>,
    attributes: Members,
    is_cloud_events: bool,
}

type Members = BTreeMap<String, Box<RawValue>>;

/// Members of which an event has one at most: whoever says one of them has said all.
const EITHER: [&[&str]; 2] = [&["source", "source-id"], &["delay_s", "deliver_at"]];

impl Defaults {
    /// The defaults of CloudEvents: an id, and nothing else.
    pub(super) fn of_cloud_events() -> Self {
        Self { is_cloud_events: true, ..Self::default() }
    }

    /// Adds a member with a text value, if there is one.
    pub(super) fn text(&mut self, name: &'static str, value: Option<&str>) {
        self.json(name, value.as_ref());
    }

    /// Adds the source in its three parts.
    pub(super) fn source(&mut self, namespace: &str, kind: &str, environment: &str) {
        let parts = BTreeMap::from([
            ("source-namespace", namespace),
            ("source-type", kind),
            ("source-environment", environment),
        ]);
        self.json("source", Some(&parts));
    }

    /// Adds attributes. Of two with one name the later counts.
    pub(super) fn attributes(&mut self, attributes: &[(String, String)]) {
        self.attributes.extend(attributes.iter().map(|(name, value)| (name.clone(), raw(value))));
    }

    /// Adds a member with any value, if there is one.
    pub(super) fn json(&mut self, name: &'static str, value: Option<&impl Serialize>) {
        self.members.extend(value.map(|value| (name, raw(value))));
    }

    /// The event that `line` (a JSON object) says together with the defaults. An event without an
    /// id gets a random one, so that the bus knows it when it is sent again; one of the contract's
    /// without a time happened now.
    pub(super) fn complete(&self, line: &str, world: &World) -> Result<String, String> {
        let mut event: Members =
            serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
        // Null is absent, except that it is what a CloudEvent may carry.
        event.retain(|name, value| {
            value.get() != "null" || (self.is_cloud_events && name.as_str() == "data")
        });
        let said: Vec<_> = EITHER
            .iter()
            .filter(|names| names.iter().any(|name| event.contains_key(*name)))
            .flat_map(|names| names.iter())
            .collect();
        for (name, value) in self.members.iter().filter(|(name, _)| !said.contains(&name)) {
            event.entry((*name).to_owned()).or_insert_with(|| value.clone());
        }
        self.add_attributes(&mut event);
        let id = if self.is_cloud_events { "id" } else { "event-id" };
        // To the contract an empty id is none.
        if event.get(id).is_none_or(|given| given.get() == r#""""#) {
            event.insert(id.to_owned(), raw(&new_id(&*world.entropy)));
        }
        if !self.is_cloud_events {
            let now = || raw(&rfc3339(world.clock.now_ms()));
            event.entry("event-time".to_owned()).or_insert_with(now);
        }
        serde_json::to_string(&event).map_err(|error| error.to_string())
    }

    /// Adds those attributes that the event does not say itself.
    fn add_attributes(&self, event: &mut Members) {
        if self.attributes.is_empty() {
            return;
        }
        let mut all = self.attributes.clone();
        if let Some(given) = event.get("attributes") {
            // Anything but an object goes as it is: the bus says what is wrong with it.
            let Ok(given) = serde_json::from_str::<Members>(given.get()) else { return };
            all.extend(given);
        }
        event.insert("attributes".to_owned(), raw(&all));
    }
}

/// A random UUID.
fn new_id(entropy: &dyn Entropy) -> String {
    let (high, low) = (u128::from(entropy.next_u64()), u128::from(entropy.next_u64()));
    let bytes = (high << 64 | low).to_be_bytes();
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
fn rfc3339(now_ms: u64) -> String {
    Timestamp::from_millisecond(now_ms as i64).unwrap_or_default().to_string()
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    // Texts, numbers and maps of them always have a JSON form.
    to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eventbus_core::testing::{ManualClock, SeededEntropy};

    use super::*;

    fn defaults() -> Defaults {
        let mut defaults = Defaults::default();
        defaults.text("event-type", Some("order.created"));
        defaults.text("source-id", Some("shop"));
        defaults.text("event-id", None);
        defaults
    }

    /// The event of a line at a time after 1970, with dice that always fall alike.
    fn complete(defaults: &Defaults, line: &str, now_ms: u64) -> Result<String, String> {
        let clock = ManualClock::at(now_ms);
        let world = World { clock: Arc::new(clock), entropy: Arc::new(SeededEntropy::new(7)) };
        defaults.complete(line, &world)
    }

    const ID: &str = "63cbe1e4-5932-4dd7-844c-3cd7f43c661c";

    #[test]
    fn an_empty_line_takes_everything_from_the_arguments() {
        let event = complete(&defaults(), "{}", 1_500).unwrap();
        assert_eq!(
            event,
            format!(
                r#"{{"event-id":"{ID}","event-time":"1970-01-01T00:00:01.5Z",{}"#,
                r#""event-type":"order.created","source-id":"shop"}"#
            )
        );
    }

    #[test]
    fn what_a_line_says_stays_byte_for_byte() {
        let line = concat!(
            r#"{"event-type":"a","event-time":"t","event-id":"i","#,
            r#""data":{"z": 1.00,  "a":"\u00e9"},"x":1}"#
        );
        let event = complete(&defaults(), line, 0).unwrap();
        assert_eq!(
            event,
            concat!(
                r#"{"data":{"z": 1.00,  "a":"\u00e9"},"event-id":"i","event-time":"t","#,
                r#""event-type":"a","source-id":"shop","x":1}"#
            )
        );
    }

    #[test]
    fn an_event_without_an_id_gets_one() {
        for line in ["{}", r#"{"event-id":""}"#, r#"{"event-id":null}"#] {
            let event = complete(&defaults(), line, 0).unwrap();
            assert!(event.contains(&format!(r#""event-id":"{ID}""#)), "{event}");
        }
    }

    #[test]
    fn a_line_with_a_source_keeps_it_in_either_form() {
        let event = complete(&defaults(), r#"{"source":{"source-type":"t"}}"#, 0);
        assert!(!event.unwrap().contains("source-id"));
        let mut three = Defaults::default();
        three.source("com.github", "commerce", "stage");
        let line = r#"{"source-id":"shop","event-time":"t","event-id":"i"}"#;
        let event = complete(&three, line, 0).unwrap();
        assert_eq!(event, r#"{"event-id":"i","event-time":"t","source-id":"shop"}"#);
        let event = complete(&three, r#"{"source-id":null,"event-time":"t"}"#, 0).unwrap();
        assert!(event.contains(r#""source-namespace":"com.github""#), "{event}");
    }

    #[test]
    fn a_line_that_says_when_to_deliver_keeps_it_in_either_form() {
        let mut later = Defaults::default();
        later.json("delay_s", Some(&5));
        let event = complete(&later, "{}", 0).unwrap();
        assert!(event.contains(r#""delay_s":5"#), "{event}");
        let event = complete(&later, r#"{"deliver_at":"t"}"#, 0).unwrap();
        assert!(!event.contains("delay_s"), "{event}");
    }

    #[test]
    fn attributes_of_a_line_and_of_the_arguments_come_together() {
        let mut defaults = Defaults::default();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        defaults.attributes(&[pair("region", "eu"), pair("tier", "gold"), pair("tier", "tin")]);
        for (line, attributes) in [
            ("{}", r#"{"region":"eu","tier":"tin"}"#),
            (
                r#"{"attributes":{"region":"us","a":"b"}}"#,
                r#"{"a":"b","region":"us","tier":"tin"}"#,
            ),
            (r#"{"attributes": [1]}"#, "[1]"),
        ] {
            let event = complete(&defaults, line, 0).unwrap();
            assert!(event.contains(&format!(r#""attributes":{attributes}"#)), "{event}");
        }
        let none = complete(&Defaults::default(), "{}", 0).unwrap();
        assert!(!none.contains("attributes"), "{none}");
    }

    #[test]
    fn a_cloud_event_gets_an_id_and_nothing_else() {
        let cloud_events = Defaults::of_cloud_events();
        let event = complete(&cloud_events, r#"{"type":"a"}"#, 0).unwrap();
        assert_eq!(event, format!(r#"{{"id":"{ID}","type":"a"}}"#));
        let whole = r#"{"id":"1","source":"/s","specversion":"1.0","type":"a"}"#;
        assert_eq!(complete(&cloud_events, whole, 0).unwrap(), whole);
        let null = r#"{"data":null,"id":null,"subject":null,"type":"a"}"#;
        let event = complete(&cloud_events, null, 0).unwrap();
        assert_eq!(event, format!(r#"{{"data":null,"id":"{ID}","type":"a"}}"#));
    }

    #[test]
    fn only_objects_are_events() {
        for line in ["", "1", "[]", "null", "{} {}", "{\"a\":}"] {
            assert!(complete(&defaults(), line, 0).is_err(), "{line}");
        }
    }
}
