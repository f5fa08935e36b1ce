//! Manifests: our Kubernetes resources as users write them.
//!
//! The field docs here are what `kubectl explain` shows; the schema of the definitions is generated
//! from these types. Both API groups of a kind have the same fields.

mod event_activation;
mod status;
mod subscription;

pub use event_activation::{ActivationSource, EventActivationSpec};
pub use status::{Condition, ConditionStatus, ConditionType, SubscriptionStatus};
pub use subscription::{
    DeliveryFormat, SubscriptionDelivery, SubscriptionSource, SubscriptionSpec,
};

/// The pattern of a source part: see [`crate::event::is_name`].
const NAME_PATTERN: &str = r"^[a-zA-Z]+([_\-\.]?[a-zA-Z0-9]+)*$";

/// The pattern of a source id on a resource: any URI reference, so no spaces and no controls.
const URI_PATTERN: &str = r"^[^\x00-\x20\x7F]+$";
