//! The sub-validator: keeps every Subscription's status true.
//!
//! Level-triggered. It looks at the catalog and at how deliveries go, computes what each status
//! should be, and has those written that differ. Nothing is remembered from one look to the next,
//! so nothing can be missed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::reconcile::{World, reconcile};
use eventbus_core::{Catalog, Clock, Text};
use eventbus_resources::{HealthBoard, StatusWriter};
use tokio::sync::watch;

/// Looks in a row are at least this far apart, so that a storm of changes costs little.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The sub-validator's parts.
pub struct Control {
    /// What is declared.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// How deliveries go.
    pub health: Arc<HealthBoard>,
    /// Who writes statuses.
    pub writer: Arc<StatusWriter>,
    /// When conditions change.
    pub clock: Arc<dyn Clock>,
}

impl Control {
    /// The task: runs until it is dropped.
    pub async fn run(&mut self) {
        let writer = self.writer.clone();
        tokio::join!(writer.run(), self.look_again_and_again());
    }

    async fn look_again_and_again(&mut self) {
        let mut known = HashSet::new();
        loop {
            tokio::select! {
                changed = self.catalog.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.health.changed() => {}
                () = self.writer.failed() => {}
            }
            let catalog = self.catalog.borrow_and_update().clone();
            self.look(&catalog);
            known = self.forget_the_gone(known, &catalog);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn look(&self, catalog: &Catalog) {
        let now_ms = self.clock.now_ms();
        for subscription in catalog.subscriptions() {
            let identity = &subscription.identity;
            let source = &subscription.interest.source;
            let world = World {
                is_activated: catalog.is_activated(&identity.namespace, source),
                health: self.health.of(&identity.uid),
            };
            let status = reconcile(subscription, world, now_ms);
            if status == subscription.status {
                self.writer.settled(&identity.uid);
            } else {
                self.writer.want(subscription, status);
            }
        }
    }

    fn forget_the_gone(&self, known: HashSet<Text>, catalog: &Catalog) -> HashSet<Text> {
        for uid in known.iter().filter(|uid| catalog.subscription(uid).is_none()) {
            self.writer.settled(uid);
        }
        catalog.subscriptions().map(|subscription| subscription.identity.uid.clone()).collect()
    }
}
