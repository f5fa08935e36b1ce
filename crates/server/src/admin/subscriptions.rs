//! How many Subscriptions there are in which state, for `/metrics`: counted anew at each scrape.

use std::fmt;
use std::sync::Arc;

use eventbus_core::Catalog;
use eventbus_core::reconcile::DeliveryHealth;
use eventbus_core::telemetry::Families;
use eventbus_resources::HealthBoard;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tokio::sync::watch;

/// Exports the states of Subscriptions.
pub struct SubscriptionStates {
    /// What is declared.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// How deliveries go.
    pub health: Arc<HealthBoard>,
}

impl SubscriptionStates {
    fn count(&self) -> [([&'static str; 1], u64); 4] {
        // Let go of at once: who follows the resources waits for nobody here.
        let catalog = self.catalog.borrow().clone();
        let (mut active, mut failing, mut inactive) = (0, 0, 0);
        for subscription in catalog.subscriptions() {
            let identity = &subscription.identity;
            if !catalog.is_activated(&identity.namespace, &subscription.interest.source) {
                inactive += 1;
            } else if is_well(self.health.of(&identity.uid).delivery) {
                active += 1;
            } else {
                failing += 1;
            }
        }
        let broken = catalog.broken() as u64;
        [
            (["active"], active),
            (["failing"], failing),
            (["inactive"], inactive),
            (["broken"], broken),
        ]
    }
}

fn is_well(delivery: DeliveryHealth) -> bool {
    matches!(delivery, DeliveryHealth::Untried | DeliveryHealth::Delivering)
}

impl Collector for SubscriptionStates {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Families::to(encoder).gauges(
            "eventbus_subscriptions",
            "Subscriptions by state: `active`; `failing` (active, and not delivered as they should \
             be); `inactive` (their events are not activated); `broken` (they cannot be run).",
            ["state"],
            self.count(),
        )
    }
}

impl fmt::Debug for SubscriptionStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionStates").finish_non_exhaustive()
    }
}
