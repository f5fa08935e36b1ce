//! Writes notices: the Events that `kubectl describe` shows below a Subscription.
//!
//! They explain, and nothing depends on them: one that cannot be written is given up. An Event's
//! name follows from the Subscription and the reason, so what happens again is counted in the Event
//! that is there, whoever wrote it.

mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventbus_core::notice::Notice;
use eventbus_core::subscription::Identity;
use eventbus_core::{Clock, limits};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::definitions::DEFINITIONS;
use queue::{Queue, Told};

/// Who tells it, and whose the Events' fields are.
const COMPONENT: &str = "eventbus";

/// A notice that takes longer than this is given up: others wait behind it.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of an object's name (Kubernetes).
const NAME_BYTES: usize = 253;

/// Who writes notices, one after the other.
pub(crate) struct NoticeWriter {
    client: Client,
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    wanted: Notify,
}

impl NoticeWriter {
    /// A writer over `client`.
    pub(crate) fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock, queue: Mutex::default(), wanted: Notify::new() }
    }

    /// Asks for what happened to a Subscription just now to be written.
    pub(crate) fn tell(&self, identity: &Identity, notices: Vec<Notice>) {
        let now_ms = self.clock.now_ms();
        for notice in notices {
            self.queue().tell(identity, notice, now_ms);
        }
        self.wanted.notify_one();
    }

    /// The task: writes what is told, for ever.
    pub(crate) async fn run(&self) {
        loop {
            let now = self.clock.elapsed();
            if let Some(told) = self.next(now) {
                self.write(&told).await;
                sleep(limits::NOTICE_PAUSE).await;
                continue;
            }
            let due = async {
                match self.next_due() {
                    Some(due) => sleep(due.saturating_sub(now)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    fn next(&self, now: Duration) -> Option<Told> {
        let mut queue = self.queue();
        let dropped = queue.take_dropped();
        if dropped > 0 {
            info!(dropped, "too much happened at once: not all of it has an Event");
        }
        queue.next(now)
    }

    fn next_due(&self) -> Option<Duration> {
        self.queue().next_due()
    }

    async fn write(&self, told: &Told) {
        let Some(event) = event(told) else { return };
        let name = format!("{}/{}", told.identity.namespace, told.identity.name);
        match timeout(WRITTEN_WITHIN, self.create_or_count(told, event)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(name, %error, "an Event was not written"),
            Err(_) => debug!(name, "an Event was not written in time"),
        }
    }

    async fn create_or_count(&self, told: &Told, event: Event) -> Result<(), kube::Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &told.identity.namespace);
        let field_manager = Some(COMPONENT.to_owned());
        let parameters = PostParams { field_manager: field_manager.clone(), dry_run: false };
        match api.create(&parameters, &event).await {
            // It happened before.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            created => return created.map(drop),
        }
        let parameters = PatchParams { field_manager, ..PatchParams::default() };
        let name = event.metadata.name.unwrap_or_default();
        // A patch of nothing writes nothing and answers what is there; to get it would need one
        // more right.
        let before = api.patch(&name, &parameters, &Patch::Merge(json!({}))).await?;
        let count = before.count.unwrap_or(1).max(0).unsigned_abs();
        let again = json!({
            "metadata": { "resourceVersion": before.metadata.resource_version },
            "count": as_i32(count.saturating_add(told.count)),
            "lastTimestamp": event.last_timestamp,
            "message": told.notice.text,
        });
        api.patch(&name, &parameters, &Patch::Merge(again)).await.map(drop)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The Event of what was told; `None` of a resource that is not ours.
fn event(told: &Told) -> Option<Event> {
    let Told { identity, notice, .. } = told;
    let definition = DEFINITIONS.iter().find(|definition| definition.group == identity.group)?;
    let resource = definition.api_resource();
    Some(Event {
        metadata: ObjectMeta {
            name: Some(name(&identity.name, notice.series(&identity.uid))),
            namespace: Some(identity.namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            // Each group has Subscriptions of its own: the one it is read by.
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            name: Some(identity.name.to_string()),
            namespace: Some(identity.namespace.to_string()),
            uid: Some(identity.uid.to_string()),
            ..ObjectReference::default()
        },
        type_: Some(if notice.is_warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.clone()),
        message: Some(notice.text.clone()),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        reporting_component: Some(COMPONENT.to_owned()),
        first_timestamp: moment(told.first_ms),
        last_timestamp: moment(told.last_ms),
        count: Some(as_i32(told.count)),
        ..Event::default()
    })
}

/// What the Events of `series` of the Subscription `subscription` are called.
fn name(subscription: &str, series: u64) -> String {
    let series = format!(".{series:016x}");
    // Names are ASCII; what stands before a point ends in a letter or a digit.
    let begin = subscription.get(..NAME_BYTES - series.len()).unwrap_or(subscription);
    let begin = begin.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
    format!("{begin}{series}")
}

fn moment(ms: u64) -> Option<Time> {
    let seconds = i64::try_from(ms / 1000).ok()?;
    Timestamp::from_second(seconds).ok().map(Time)
}

fn as_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_however_long_the_subscriptions_is() {
        assert_eq!(name("orders", 0xAB), "orders.00000000000000ab");
        let dashes = format!("{}{}", "a".repeat(230), "-.".repeat(11));
        assert_eq!(name(&dashes, 1), format!("{}.0000000000000001", "a".repeat(230)));
        assert_eq!(name(&"a".repeat(253), 1).len(), 253);
    }
}
