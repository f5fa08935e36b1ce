//! What the supervisor and a dispatcher share about one Subscription: what is to be done, and how
//! it goes. No queue: only the latest order counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use eventbus_core::broker::CursorStats;
use eventbus_core::delivery::Outcome;
use eventbus_core::reconcile::{DeliveryHealth, Fill, Health};
use eventbus_core::{Cursor, Subscription, Text, limits};
use eventbus_resources::HealthBoard;
use tokio::sync::Notify;

use crate::backlog::Gauge;
use crate::endpoint::{BadEndpoint, Endpoint};

/// What a dispatcher is to do.
#[derive(Clone)]
pub(crate) enum Order {
    /// Deliver by this plan.
    Deliver(Arc<Plan>),
    /// Begin no attempt; those under way end and are settled.
    Rest,
    /// The same, and then end.
    Drain,
    /// Abandon what is under way and end.
    Stop,
}

/// How to deliver. A plan never changes; a changed Subscription has a new one.
pub(crate) struct Plan {
    pub(crate) subscription: Arc<Subscription>,
    pub(crate) endpoint: Result<Endpoint, BadEndpoint>,
    pub(crate) cursor: Arc<dyn Cursor>,
}

impl Plan {
    pub(crate) fn new(subscription: Arc<Subscription>, cursor: Arc<dyn Cursor>) -> Self {
        Self { endpoint: Endpoint::parse(&subscription.endpoint), subscription, cursor }
    }

    /// Do both lead to the same endpoint?
    pub(crate) fn has_endpoint_of(&self, other: &Self) -> bool {
        self.subscription.endpoint == other.subscription.endpoint
    }
}

/// One Subscription's desk.
pub(crate) struct Desk {
    uid: Text,
    order: ArcSwap<Order>,
    changed: Notify,
    board: Arc<HealthBoard>,
    trouble: Mutex<Trouble>,
}

/// Everything that is known, above all what is wrong; the worst is what is told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    /// An attempt succeeded, or none was necessary: what was said before this process is over.
    pub(crate) tried: bool,
    /// The endpoint cannot be requested.
    pub(crate) invalid: bool,
    /// The broker does not open, lease or settle.
    pub(crate) broker: bool,
    failed_in_a_row: u32,
    /// So many attempts failed in a row that this is said, and how the last one did.
    failing: Option<Outcome>,
    /// Looks in a row that found nothing waiting.
    idle_looks: u32,
    waiting_full: bool,
    backlog: Gauge,
}

/// What an attempt turned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The Subscription fails from now on.
    Fails,
    /// It does not fail any more.
    Recovers,
}

/// What a look found that is worth a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// How full the backlog is, when that is worth a warning.
    pub(crate) fill: Option<Fill>,
    /// Nothing waits any more of a Subscription that failed.
    pub(crate) recovers: bool,
}

impl Desk {
    pub(crate) fn new(uid: Text, board: Arc<HealthBoard>) -> Self {
        let order = ArcSwap::from_pointee(Order::Rest);
        Self { uid, order, changed: Notify::new(), board, trouble: Mutex::default() }
    }

    /// The uid of the Subscription.
    pub(crate) fn uid(&self) -> &Text {
        &self.uid
    }

    /// What is to be done.
    pub(crate) fn order(&self) -> Arc<Order> {
        self.order.load_full()
    }

    /// Says what is to be done from now on.
    pub(crate) fn give(&self, order: Order) {
        self.order.store(Arc::new(order));
        self.changed.notify_one();
    }

    /// Ends when another order was given since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Changes what is wrong, and tells the board when that changes the worst of it. Gives what
    /// `change` gives.
    pub(crate) fn tell<R>(&self, change: impl FnOnce(&mut Trouble) -> R) -> R {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let before = trouble.health();
        let given = change(&mut trouble);
        let health = trouble.health();
        if !is_same_kind(before.delivery, health.delivery) || before.backlog != health.backlog {
            self.board.report(&self.uid, health);
        }
        given
    }

    /// Says that nothing is wrong: there is no such Subscription any more.
    pub(crate) fn clear(&self) {
        self.tell(|trouble| *trouble = Trouble::default());
    }
}

impl Trouble {
    /// Takes in how the cursor was when it was opened.
    pub(crate) fn begin(&mut self, stats: &CursorStats) {
        self.backlog.begin(stats);
    }

    /// Takes in how an attempt ended.
    pub(crate) fn judge(&mut self, outcome: Outcome) -> Option<Turn> {
        if outcome.is_success() {
            self.tried = true;
            return self.recover().then_some(Turn::Recovers);
        }
        self.idle_looks = 0;
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        if self.failed_in_a_row >= limits::FAILURES_IN_A_ROW {
            self.failing = Some(outcome);
        }
        (self.failed_in_a_row == limits::FAILURES_IN_A_ROW).then_some(Turn::Fails)
    }

    /// Forgets how attempts ended: there is another endpoint.
    pub(crate) fn begin_anew(&mut self) {
        self.tried = true;
        self.recover();
    }

    /// Takes in how the cursor is at `now`, time since the process began, of a Subscription that
    /// is delivered or rests.
    pub(crate) fn look(&mut self, stats: &CursorStats, is_delivered: bool, now: Duration) -> Found {
        let finds_nothing = is_delivered && stats.lag_events == 0;
        self.idle_looks = if finds_nothing { self.idle_looks.saturating_add(1) } else { 0 };
        let is_idle = self.idle_looks >= limits::IDLE_LOOKS;
        self.tried |= is_idle;
        self.waiting_full = is_delivered && stats.held_events >= limits::WAITING_EVENTS as u64;
        // Else who is given no event any more would say for ever that it fails.
        let recovers = is_idle && self.recover();
        Found { fill: self.backlog.look(stats, now), recovers }
    }

    /// Nothing fails; tells whether that is new.
    fn recover(&mut self) -> bool {
        self.failed_in_a_row = 0;
        self.failing.take().is_some()
    }

    fn health(&self) -> Health {
        Health { delivery: self.delivery(), backlog: self.backlog.told() }
    }

    fn delivery(&self) -> DeliveryHealth {
        let told = [
            self.tried.then_some(DeliveryHealth::Delivering),
            self.backlog.has_just_lost().then_some(DeliveryHealth::BacklogTruncated),
            self.failing.map(DeliveryHealth::Failing),
            self.waiting_full.then_some(DeliveryHealth::WaitingFull),
            self.invalid.then_some(DeliveryHealth::EndpointInvalid),
            self.broker.then_some(DeliveryHealth::BrokerUnavailable),
        ];
        told.into_iter().flatten().max().unwrap_or_default()
    }
}

/// Statuses of one class are one kind: a status that flickers between 502 and 503 is no news.
fn is_same_kind(one: DeliveryHealth, other: DeliveryHealth) -> bool {
    match (one, other) {
        (DeliveryHealth::Failing(one), DeliveryHealth::Failing(other)) => {
            one.word() == other.word()
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Outcome = Outcome::Status(503);

    fn with_lag(lag_events: u64) -> CursorStats {
        CursorStats { lag_events, ..CursorStats::default() }
    }

    fn look(trouble: &mut Trouble, lag_events: u64) -> bool {
        trouble.look(&with_lag(lag_events), true, Duration::ZERO).recovers
    }

    fn failing() -> Trouble {
        let mut trouble = Trouble::default();
        assert_eq!((trouble.judge(FAILED), trouble.judge(FAILED)), (None, None));
        assert_eq!(trouble.judge(FAILED), Some(Turn::Fails));
        assert_eq!(trouble.delivery(), DeliveryHealth::Failing(FAILED));
        trouble
    }

    #[test]
    fn a_success_ends_what_failed() {
        let mut trouble = failing();
        assert_eq!(trouble.judge(FAILED), None, "it is said once");
        assert_eq!(trouble.judge(Outcome::Status(204)), Some(Turn::Recovers));
        assert_eq!(trouble.delivery(), DeliveryHealth::Delivering);
        assert_eq!(trouble.judge(Outcome::Status(204)), None);
    }

    #[test]
    fn what_another_process_delivered_fails_no_more() {
        let mut trouble = failing();
        for lag_events in [1, 0, 0, 1, 0, 0] {
            assert!(!look(&mut trouble, lag_events));
        }
        assert_eq!(trouble.judge(FAILED), None);
        assert!(!look(&mut trouble, 0), "what is known of the cursor may be older");
        assert!(!look(&mut trouble, 0));
        assert_eq!((trouble.delivery(), trouble.tried), (DeliveryHealth::Failing(FAILED), false));
        assert!(look(&mut trouble, 0));
        assert_eq!(trouble.delivery(), DeliveryHealth::Delivering);
        assert!(!look(&mut trouble, 0), "it is said once");
        assert_eq!(trouble.judge(FAILED), None, "the count begins anew");
    }

    #[test]
    fn nothing_is_learnt_while_nothing_is_delivered() {
        let mut trouble = failing();
        for _ in 0..10 {
            assert!(!trouble.look(&with_lag(0), false, Duration::ZERO).recovers);
        }
        assert_eq!(trouble.delivery(), DeliveryHealth::Failing(FAILED));
    }
}
