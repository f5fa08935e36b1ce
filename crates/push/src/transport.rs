//! The seam to subscribers: one attempt in, one outcome out.

use eventbus_core::Event;
use eventbus_core::delivery::Outcome;
use eventbus_core::wire::delivery::Form;
use tokio::time::Instant;

use crate::endpoint::Endpoint;

/// Makes attempts.
pub trait Transport: Send + Sync + 'static {
    /// Makes one attempt. The future is dropped at the deadline: then nothing of the attempt may be
    /// used again.
    fn attempt(&self, delivery: &Delivery<'_>) -> impl Future<Output = Outcome> + Send;

    /// Lets go of what has idled too long. Called every few seconds.
    fn tidy(&self) {}
}

/// What one attempt is to deliver.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Where to.
    pub endpoint: &'a Endpoint,
    /// What.
    pub event: &'a Event,
    /// In which form.
    pub form: Form<'a>,
    /// When the attempt is over, whatever it has reached.
    pub deadline: Instant,
}
