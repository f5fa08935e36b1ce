//! The kinds that are always served: Namespace, Event and Secret, Lease, and the reviews by which
//! clients ask what they may do. They are written as definitions, like those that are given; what a
//! definition cannot say of them stands in the files beside this one.

pub(crate) mod events;
pub(crate) mod reviews;
pub(crate) mod secrets;

use serde_json::Value;

use crate::{
    definition::Resource,
    status::{ApiError, Cause},
};

/// The built-in definitions.
pub(crate) struct Definitions {
    /// The core group, served before everything else.
    pub(crate) core: Vec<Value>,
    /// Kubernetes' other groups, served after everything else: Leases, and what is asked and not
    /// kept.
    pub(crate) others: Vec<Value>,
}

impl Definitions {
    /// Reads the files that are compiled in.
    pub(crate) fn read() -> Result<Self, serde_json::Error> {
        let core = [
            include_str!("namespace.json"),
            include_str!("event.json"),
            include_str!("secret.json"),
        ];
        let core = core.into_iter().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let reviews: Vec<Value> = serde_json::from_str(include_str!("reviews.json"))?;
        let lease = serde_json::from_str(include_str!("lease.json"))?;
        Ok(Self { core, others: [vec![lease], reviews].concat() })
    }
}

/// Completes an object as its kind wants it, after the defaults of its definition.
pub(crate) fn complete(resource: &Resource, object: &mut Value, now_ms: u64) {
    if resource.is_event() {
        events::complete(object, now_ms);
    } else if resource.is_secret() {
        secrets::complete(object);
    }
}

/// Completes what is applied, so that what is stored is what has an owner.
pub(crate) fn complete_applied(resource: &Resource, applied: &mut Value) {
    if resource.is_secret() {
        secrets::complete(applied);
    }
}

/// The faults that a definition cannot describe.
pub(crate) fn faults(resource: &Resource, object: &Value) -> Vec<Cause> {
    if resource.is_event() {
        events::faults(object)
    } else if resource.is_secret() {
        secrets::faults(object)
    } else {
        Vec::new()
    }
}

/// Refuses a change that the kind does not allow; for whoever may not read what was there, in a way
/// that does not tell it.
pub(crate) fn check_change(
    resource: &Resource,
    before: &Value,
    after: &Value,
    blind: bool,
) -> Result<(), ApiError> {
    match resource.is_secret() {
        true => secrets::check_change(resource, before, after, blind),
        false => Ok(()),
    }
}
