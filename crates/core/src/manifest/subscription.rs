//! The Subscription as its author writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Asks for the events of one source, type and version to be pushed to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionSpec {
    /// The URL to which events are sent, each as one HTTP POST. At most 512 characters, http or
    /// https. Redirects are not followed.
    #[schemars(length(max = limits::ENDPOINT_CHARS), regex(pattern = r"^(https?)://.+$"))]
    pub endpoint: String,

    /// The event type wanted, such as order.created. Compared exactly; at most 253 characters.
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = r"^[^\x00-\x1F\x7F]+$"))]
    pub event_type: String,

    /// The version of the event type wanted, such as v1. Compared exactly; letters and digits, at
    /// most 64. The empty text matches events that have no version.
    #[schemars(length(max = limits::VERSION_CHARS), regex(pattern = r"^[a-zA-Z0-9]*$"))]
    pub event_type_version: String,

    /// Whether each delivery names this Subscription in the header Kyma-Subscription. Default:
    /// false.
    #[serde(default)]
    pub include_subscription_name_header: bool,

    /// How many requests may be under way to the endpoint at once, for each push process. From 1 to
    /// 400; default: 10.
    #[serde(default = "max_inflight")]
    #[schemars(range(min = 1, max = limits::MAX_INFLIGHT_MAX))]
    pub max_inflight: i32,

    /// How long an attempt may take in milliseconds, from connecting to the last byte of the
    /// answer. From 0 to 60000; default, and the meaning of 0: 1000.
    #[serde(default = "push_request_timeout_ms")]
    #[schemars(range(min = 0, max = limits::PUSH_TIMEOUT_MAX_MS))]
    pub push_request_timeout_ms: i32,

    /// How events are delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<SubscriptionDelivery>,

    /// The source wanted, in three parts. Exactly one of source and source_id is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SubscriptionSource>,

    /// The source wanted, as one id: an application's name, or any URI reference of at most 253
    /// characters. Exactly one of source and source_id is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::URI_PATTERN))]
    pub source_id: Option<String>,
}

/// How events are delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionDelivery {
    /// The form of each request. kyma, the default: metadata in Kyma-* headers, the payload as the
    /// body. cloudevents-binary: attributes in ce-* headers, the payload as the body.
    /// cloudevents-structured: one JSON document.
    #[serde(default)]
    pub format: DeliveryFormat,
}

/// The form of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryFormat {
    /// The contract's.
    #[default]
    Kyma,
    /// CloudEvents in binary mode.
    #[serde(rename = "cloudevents-binary")]
    CloudEventsBinary,
    /// CloudEvents in structured mode.
    #[serde(rename = "cloudevents-structured")]
    CloudEventsStructured,
}

/// A source in three parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubscriptionSource {
    /// The environment of the source, such as stage. At most 253 characters.
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::NAME_PATTERN))]
    pub source_environment: String,

    /// The organisation that publishes the events, such as com.github. At most 253 characters.
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::NAME_PATTERN))]
    pub source_namespace: String,

    /// The type of the source, such as commerce. At most 253 characters.
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::NAME_PATTERN))]
    pub source_type: String,
}

fn max_inflight() -> i32 {
    limits::MAX_INFLIGHT_DEFAULT as i32
}

fn push_request_timeout_ms() -> i32 {
    limits::PUSH_TIMEOUT_DEFAULT_MS as i32
}
