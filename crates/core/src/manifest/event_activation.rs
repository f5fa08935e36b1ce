//! The EventActivation as its author, or the application broker, writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Makes the events of one source available in a namespace: Subscriptions of that namespace with an
/// equal source become active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventActivationSpec {
    /// The source's name for people.
    #[serde(rename = "displayName", default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,

    /// The source activated, in three parts. Exactly one of source and sourceId is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ActivationSource>,

    /// The source activated, as one id: an application's name, or any URI reference of at most 253
    /// characters. Exactly one of source and sourceId is required.
    #[serde(rename = "sourceId", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::URI_PATTERN))]
    pub source_id: Option<String>,
}

/// A source in three parts, under the names that EventActivations use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActivationSource {
    /// The environment of the source, such as stage. At most 253 characters.
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::NAME_PATTERN))]
    pub environment: String,

    /// The organisation that publishes the events, such as com.github. At most 253 characters.
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::NAME_PATTERN))]
    pub namespace: String,

    /// The type of the source, such as commerce. At most 253 characters.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = limits::NAME_CHARS), regex(pattern = super::NAME_PATTERN))]
    pub source_type: String,
}
