//! How deliveries go, from push to the sub-validator.
//!
//! A board, not a queue: only the latest state of each subscription counts, and one that delivers
//! takes no room.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eventbus_core::Text;
use eventbus_core::reconcile::DeliveryHealth;
use tokio::sync::Notify;

/// The health of every subscription's deliveries.
#[derive(Debug, Default)]
pub struct HealthBoard {
    troubled: Mutex<HashMap<Text, DeliveryHealth>>,
    changed: Notify,
}

impl HealthBoard {
    /// Says how the deliveries of the Subscription with this uid go.
    pub fn report(&self, uid: &Text, health: DeliveryHealth) {
        let before = match health {
            DeliveryHealth::Delivering => self.troubled().remove(uid),
            _ => self.troubled().insert(uid.clone(), health),
        };
        if before.unwrap_or_default() != health {
            self.changed.notify_one();
        }
    }

    /// How the deliveries of the Subscription with this uid go.
    pub fn of(&self, uid: &Text) -> DeliveryHealth {
        self.troubled().get(uid).copied().unwrap_or_default()
    }

    /// Ends when something changed since the last call. For one listener.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn troubled(&self) -> MutexGuard<'_, HashMap<Text, DeliveryHealth>> {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
