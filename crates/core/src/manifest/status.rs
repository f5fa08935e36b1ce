//! The status of a Subscription, as the bus writes it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the bus says about a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionStatus {
    /// Whether the Subscription's events are activated in its namespace, and whether they are being
    /// delivered. Each condition belongs to whoever wrote it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The generation of the Subscription that these conditions speak of.
    #[serde(rename = "observedGeneration", default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// One thing that is so, is not so, or is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Condition {
    /// What the condition speaks of: events-activated or ready.
    #[serde(rename = "type")]
    pub kind: ConditionType,

    /// True, False or Unknown.
    pub status: ConditionStatus,

    /// When status last changed (RFC 3339).
    #[serde(default)]
    pub last_transition_time: String,

    /// Why, in one word for programs.
    #[serde(default)]
    pub reason: String,

    /// Why, in a sentence for people.
    #[serde(default)]
    pub message: String,
}

/// What a condition speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ConditionType {
    /// An EventActivation with an equal source exists in the namespace. Push delivers when it is
    /// true, and only then.
    EventsActivated,
    /// The Subscription is being delivered.
    Ready,
    /// A condition of somebody else; it is left as it is.
    Other(String),
}

/// Is it so?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It is.
    True,
    /// It is not.
    False,
    /// Nobody knows.
    Unknown,
}

impl SubscriptionStatus {
    /// The condition of that type, if it was ever written.
    pub fn condition(&self, kind: &ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == *kind)
    }

    /// Do the two say the same, whenever they began to?
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.observed_generation == other.observed_generation
            && self.conditions.len() == other.conditions.len()
            && self
                .conditions
                .iter()
                .zip(&other.conditions)
                .all(|(one, two)| one.says_the_same(two))
    }

    /// Is that condition there and true?
    pub fn is_true(&self, kind: &ConditionType) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == ConditionStatus::True)
    }
}

impl Condition {
    /// Do the two say the same, whenever they began to?
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.status == other.status
            && self.reason == other.reason
            && self.message == other.message
    }
}

impl ConditionType {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::EventsActivated => "events-activated",
            Self::Ready => "ready",
            Self::Other(other) => other,
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<String> for ConditionType {
    fn from(text: String) -> Self {
        match text.as_str() {
            "events-activated" => Self::EventsActivated,
            "ready" => Self::Ready,
            _ => Self::Other(text),
        }
    }
}

impl From<ConditionType> for String {
    fn from(kind: ConditionType) -> Self {
        kind.as_str().to_owned()
    }
}

impl JsonSchema for ConditionType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ConditionType".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}
