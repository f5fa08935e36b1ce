//! From objects of the API to what the bus runs.

use eventbus_core::manifest::{EventActivationSpec, SubscriptionSpec, SubscriptionStatus};
use eventbus_core::subscription::{Identity, ManifestError};
use eventbus_core::{Source, Subscription, Text};
use kube::api::{DynamicObject, ObjectMeta};
use serde::de::DeserializeOwned;

use crate::definitions::Definition;

/// Why an object of the API cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    /// A part of it has another shape: written by another program, or before the schema was.
    #[error("{part}: {error}")]
    Shape {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// It contradicts itself.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Reads a Subscription.
pub(crate) fn subscription(
    definition: Definition,
    mut object: DynamicObject,
) -> Result<Subscription, ObjectError> {
    let identity = identity(definition.group, &object.metadata);
    let spec: SubscriptionSpec = part(&mut object, "spec")?;
    // A status that cannot be read is written anew.
    let status: SubscriptionStatus = part(&mut object, "status").unwrap_or_default();
    Ok(Subscription::try_from((identity, spec, status))?)
}

/// Reads an EventActivation: its namespace and source.
pub(crate) fn activation(mut object: DynamicObject) -> Result<(Text, Source), ObjectError> {
    let spec: EventActivationSpec = part(&mut object, "spec")?;
    let namespace = object.metadata.namespace.unwrap_or_default().into();
    Ok((namespace, Source::try_from(&spec)?))
}

/// The version of an object. Versions are opaque but for growing along the writes of one kind,
/// which Kubernetes promises for the numbers they are.
pub(crate) fn version(metadata: &ObjectMeta) -> u64 {
    metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn identity(group: &'static str, metadata: &ObjectMeta) -> Identity {
    let text = |text: &Option<String>| Text::from(text.clone().unwrap_or_default());
    let created = metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond());
    Identity {
        uid: text(&metadata.uid),
        group,
        namespace: text(&metadata.namespace),
        name: text(&metadata.name),
        generation: metadata.generation.unwrap_or_default(),
        resource_version: version(metadata),
        created_ms: created.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default(),
    }
}

fn part<T: DeserializeOwned>(
    object: &mut DynamicObject,
    part: &'static str,
) -> Result<T, ObjectError> {
    let value = object.data.get_mut(part).map(serde_json::Value::take).unwrap_or_default();
    serde_json::from_value(value).map_err(|error| ObjectError::Shape { part, error })
}
