//! Writes statuses: the latest wanted one of each Subscription, so many at a time. What a status
//! that was written says anew is told in Events.
//!
//! A write that fails is not repeated by itself. Whoever wants the status looks at the world again
//! and wants it again; so a conflict, a deletion and an API that is away need no code of their own.

use std::collections::HashMap;
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
use tracing::{debug, warn};

use crate::definitions::DEFINITIONS;
use crate::notices::NoticeWriter;

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

#[derive(Default)]
struct Queue {
    waiting: HashMap<Text, Write>,
    /// What was last asked for, by the version it was asked against: while the watch has not shown
    /// the write, the same wish is not queued again.
    asked: HashMap<Text, (u64, Arc<SubscriptionStatus>)>,
}

impl Queue {
    /// After a storm of changes the maps keep no room for the next one.
    fn give_room_back(&mut self) {
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        if self.asked.is_empty() {
            self.asked.shrink_to_fit();
        }
    }
}

struct Write {
    subscription: Arc<Subscription>,
    status: Arc<SubscriptionStatus>,
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
        let identity = &subscription.identity;
        let mut queue = self.queue();
        let version = identity.resource_version;
        let same = |(at, asked): &(u64, Arc<SubscriptionStatus>)| {
            *at == version && asked.says_the_same(&status)
        };
        if queue.asked.get(&identity.uid).is_some_and(same) {
            return;
        }
        let status = Arc::new(status);
        queue.asked.insert(identity.uid.clone(), (version, status.clone()));
        let write = Write { subscription: subscription.clone(), status };
        queue.waiting.insert(identity.uid.clone(), write);
        drop(queue);
        self.wanted.notify_one();
    }

    /// Takes back what was asked for a Subscription that now is as it should be, or is gone.
    pub fn settled(&self, uid: &Text) {
        let mut queue = self.queue();
        queue.asked.remove(uid);
        queue.waiting.remove(uid);
        queue.give_room_back();
    }

    /// Ends when a write failed since the last call: look again and ask again.
    pub async fn failed(&self) {
        self.failed.notified().await;
        tokio::time::sleep(PAUSE).await;
    }

    /// The task: writes what is wanted, for ever.
    pub async fn run(&self) {
        tokio::join!(self.write_statuses(), self.notices.run());
    }

    async fn write_statuses(&self) {
        let mut writes = FuturesUnordered::new();
        loop {
            while writes.len() < AT_ONCE {
                let Some(write) = self.next() else { break };
                writes.push(self.write(write));
            }
            tokio::select! {
                Some(()) = writes.next() => {}
                () = self.wanted.notified(), if writes.len() < AT_ONCE => {}
            }
        }
    }

    fn next(&self) -> Option<Write> {
        let mut queue = self.queue();
        let uid = queue.waiting.keys().next()?.clone();
        let write = queue.waiting.remove(&uid);
        queue.give_room_back();
        write
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
        self.queue().asked.remove(&identity.uid);
        self.failed.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
