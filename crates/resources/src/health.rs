//! How deliveries and backlogs are, from push to the sub-validator.
//!
//! A board, not a queue: only the latest state of each subscription counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use eventbus_core::Text;
use eventbus_core::reconcile::Health;
use tokio::sync::Notify;

/// The health of every subscription.
#[derive(Debug, Default)]
pub struct HealthBoard {
    told: Mutex<HashMap<Text, Health>>,
    changed: Notify,
}

impl HealthBoard {
    /// Says what is known of the Subscription with this uid.
    pub fn report(&self, uid: &Text, health: Health) {
        let before = if health == Health::default() {
            self.told().remove(uid)
        } else {
            self.told().insert(uid.clone(), health)
        };
        if before.unwrap_or_default() != health {
            self.changed.notify_one();
        }
    }

    /// What is known of the Subscription with this uid.
    pub fn of(&self, uid: &Text) -> Health {
        self.told().get(uid).copied().unwrap_or_default()
    }

    /// Ends when something changed since the last call. For one listener.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn told(&self) -> MutexGuard<'_, HashMap<Text, Health>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
