//! Events: what happened to an object, for whoever describes it. They are kept for an hour, and in
//! each namespace only so many: they explain, nothing depends on them.

use serde_json::Value;

use crate::{
    limits, object,
    status::{ApiError, Cause},
    store::{Key, Transaction},
    verbs::Api,
};

/// Every event says when it happened last: it is shown by it and forgotten by it.
pub(super) fn complete(event: &mut Value, now_ms: u64) {
    let given = [&event["series"]["lastObservedTime"], &event["eventTime"]];
    let given = given.into_iter().find(|time| time.is_string()).cloned();
    if !event["lastTimestamp"].is_string() {
        event["lastTimestamp"] = given.unwrap_or_else(|| object::moment(now_ms));
    }
    if !event["firstTimestamp"].is_string() {
        event["firstTimestamp"] = event["lastTimestamp"].clone();
    }
}

/// An event lies where the object is that it tells of.
pub(super) fn faults(event: &Value) -> Vec<Cause> {
    let mut faults = Vec::new();
    let involved = event["involvedObject"]["namespace"].as_str().unwrap_or_default();
    // Of what has no namespace, the default one tells.
    let wanted = if involved.is_empty() { crate::DEFAULT_NAMESPACE } else { involved };
    if wanted != object::text(event, "namespace") {
        let (field, why) = ("involvedObject.namespace", "does not match event.namespace");
        faults.push(Cause::invalid(field, &involved.into(), why));
    }
    if event.to_string().len() > limits::EVENT_BYTES {
        faults.push(Cause::too_long("", limits::EVENT_BYTES as u64));
    }
    faults
}

/// Removes the oldest events of a namespace, so that another one fits in.
pub(crate) fn make_room(transaction: &mut Transaction<'_>, new: &Key) -> Result<(), ApiError> {
    let surplus = transaction.surplus(new, limits::EVENTS - 1)?;
    forget(transaction, surplus).map(|_| ())
}

/// Removes what is past its time.
pub(crate) async fn expire(api: &Api) -> Result<(), ApiError> {
    let Some(events) = api.registry.resources().iter().find(|resource| resource.is_event()) else {
        return Ok(());
    };
    let (resource, now_ms) = (events.index, api.clock.now_ms());
    loop {
        let expired = move |transaction: &mut Transaction<'_>| {
            let oldest = now_ms.saturating_sub(limits::EVENT_AGE_MS);
            let (oldest, now) = (object::moment(oldest), object::moment(now_ms));
            let bounds = [&oldest, &now].map(|moment| moment.as_str().unwrap_or_default());
            let expired = transaction.expired(resource, bounds, limits::COLLECT_TURN)?;
            forget(transaction, expired)
        };
        if api.store.write(expired).await? == 0 {
            return Ok(());
        }
    }
}

fn forget(transaction: &mut Transaction<'_>, events: Vec<Key>) -> Result<usize, ApiError> {
    let mut forgotten = 0;
    for key in events {
        if let Some(stored) = transaction.get(&key)? {
            transaction.remove(&key, &stored, &mut stored.object()?)?;
            forgotten += 1;
        }
    }
    Ok(forgotten)
}
