//! Writes statuses: the latest wanted one of each Subscription, so many at a time. What a status
//! that was written says anew is told in Events.
//!
//! A write that fails is not repeated by itself. Whoever wants the status looks at the world again
//! and wants it again; so a conflict, a deletion and an API that is away need no code of their own.
//! Nor is anything lost with what still waits when the process ends.

mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventbus_core::manifest::SubscriptionStatus;
use eventbus_core::notice::notices;
use eventbus_core::{Clock, Subscription, Text};
use futures::stream::{FuturesUnordered, StreamExt};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use crate::definitions::DEFINITIONS;
use crate::notices::NoticeWriter;
use queue::{Queue, Write};

/// Whose the statuses are, in `managedFields`.
const FIELD_MANAGER: &str = "eventbus";

/// Writes under way at once.
const AT_ONCE: usize = 32;

/// After a failed write, how long the writer leaves that Subscription alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Who writes statuses, under the name of its field manager.
pub struct StatusWriter {
    client: Client,
    queue: Mutex<Queue>,
    wanted: Notify,
    failed: Notify,
    notices: NoticeWriter,
}

impl StatusWriter {
    /// A writer over `client`. By `clock` Events happen.
    pub fn new(client: Client, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            notices: NoticeWriter::new(client.clone(), clock),
            client,
            queue: Mutex::default(),
            wanted: Notify::new(),
            failed: Notify::new(),
        })
    }

    /// Asks for `status` to be written, in place of what was asked for this Subscription before.
    pub fn want(&self, subscription: &Arc<Subscription>, status: SubscriptionStatus) {
        if self.queue().want(subscription, status) {
            self.wanted.notify_one();
        }
    }

    /// Takes back what was asked for a Subscription that now is as it should be, or is gone.
    pub fn settled(&self, uid: &Text) {
        self.queue().settled(uid);
    }

    /// Ends when a write failed since the last call: look again and ask again.
    pub async fn failed(&self) {
        self.failed.notified().await;
        sleep(PAUSE).await;
    }

    /// The task: writes what is wanted, for ever.
    pub async fn run(&self) {
        tokio::join!(self.write_statuses(), self.notices.run());
    }

    async fn write_statuses(&self) {
        let mut writes = FuturesUnordered::new();
        loop {
            while writes.len() < AT_ONCE {
                let Some(write) = self.queue().next(Instant::now()) else { break };
                writes.push(self.write(write));
            }
            let next_due = self.queue().next_due();
            tokio::select! {
                Some(()) = writes.next() => {}
                () = self.wanted.notified(), if writes.len() < AT_ONCE => {}
                () = until(next_due), if writes.len() < AT_ONCE => {}
            }
        }
    }

    async fn write(&self, Write { subscription, status }: Write) {
        let identity = &subscription.identity;
        let Some(definition) = DEFINITIONS.iter().find(|d| d.group == identity.group) else {
            return;
        };
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.client.clone(),
            &identity.namespace,
            &definition.api_resource(),
        );
        let patch = json!({
            "metadata": { "resourceVersion": identity.resource_version.to_string() },
            "status": *status,
        });
        let field_manager = Some(FIELD_MANAGER.to_owned());
        let parameters = PatchParams { field_manager, ..PatchParams::default() };
        let result = api.patch_status(&identity.name, &parameters, &Patch::Merge(patch)).await;
        let Err(error) = result else {
            // The version was the one seen, so what is told is what the write changed.
            self.notices.tell(identity, notices(&subscription.status, &status));
            return;
        };
        let name = format!("{}/{}", identity.namespace, identity.name);
        match error {
            // Somebody else wrote first, or it is gone: the watch will tell.
            kube::Error::Api(ref status) if matches!(status.code, 404 | 409) => {
                debug!(name, %error, "the status was not written");
            }
            error => warn!(name, %error, "the status was not written, trying again"),
        }
        self.queue().failed(&identity.uid);
        self.failed.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until then; for ever when there is no such time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
