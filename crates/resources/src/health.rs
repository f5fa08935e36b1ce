//! How deliveries go, from push to the sub-validator.
//!
//! A board, not a queue: only the latest state of each subscription counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eventbus_core::Text;
use eventbus_core::reconcile::DeliveryHealth;
use tokio::sync::Notify;

/// The health of every subscription's deliveries.
#[derive(Debug, Default)]
pub struct HealthBoard {
    told: Mutex<HashMap<Text, DeliveryHealth>>,
    changed: Notify,
}

impl HealthBoard {
    /// Says how the deliveries of the Subscription with this uid go.
    pub fn report(&self, uid: &Text, health: DeliveryHealth) {
        let before = match health {
            DeliveryHealth::Untried => self.told().remove(uid),
            _ => self.told().insert(uid.clone(), health),
        };
        if before.unwrap_or_default() != health {
            self.changed.notify_one();
        }
    }

    /// How the deliveries of the Subscription with this uid go.
    pub fn of(&self, uid: &Text) -> DeliveryHealth {
        self.told().get(uid).copied().unwrap_or_default()
    }

    /// Ends when something changed since the last call. For one listener.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn told(&self) -> MutexGuard<'_, HashMap<Text, DeliveryHealth>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
