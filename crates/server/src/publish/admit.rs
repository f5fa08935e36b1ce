//! Does anybody listen? An event that nobody asks for is not stored.

use std::sync::Arc;

use eventbus_core::{Catalog, Event};
use eventbus_resources::Freshness;
use tokio::sync::watch;

/// What admission decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// A Subscription asks for it, or none could be ruled out in time.
    Wanted,
    /// No Subscription asks for it.
    Ignored,
}

/// Decides on an event.
///
/// Before an event is ignored the catalog is brought up to date, so that a Subscription created a
/// moment ago is heard. Where that cannot be had in time the event is stored: better one too many
/// than one lost.
pub(crate) async fn admit(
    event: &Event,
    catalog: &watch::Receiver<Arc<Catalog>>,
    freshness: &Freshness,
) -> Admission {
    let is_wanted = || catalog.borrow().has_listener(event);
    if is_wanted() || !freshness.reached().await || is_wanted() {
        Admission::Wanted
    } else {
        Admission::Ignored
    }
}
