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

/// Decides on each event of a batch, by one look at the catalog and at most one more; `None`: all
/// of them are wanted.
pub(crate) async fn admit_each(
    events: &[Event],
    catalog: &watch::Receiver<Arc<Catalog>>,
    freshness: &Freshness,
) -> Option<Vec<Admission>> {
    let are_wanted = || {
        let catalog = catalog.borrow().clone();
        events.iter().all(|event| catalog.has_listener(event))
    };
    if are_wanted() || !freshness.reached().await {
        return None;
    }
    let catalog = catalog.borrow().clone();
    let admission = |event| match catalog.has_listener(event) {
        true => Admission::Wanted,
        false => Admission::Ignored,
    };
    Some(events.iter().map(admission).collect())
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
