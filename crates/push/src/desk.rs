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
    /// The last attempts failed, and how.
    pub(crate) failing: Option<Outcome>,
    waiting_full: bool,
    backlog: Gauge,
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

    /// Takes in how the cursor is at `now`, time since the process began, of a Subscription that
    /// is delivered or rests. Gives how full its backlog is when that is worth a warning.
    pub(crate) fn look(
        &mut self,
        stats: &CursorStats,
        is_delivered: bool,
        now: Duration,
    ) -> Option<Fill> {
        self.tried |= is_delivered && stats.lag_events == 0;
        self.waiting_full = is_delivered && stats.held_events >= limits::WAITING_EVENTS as u64;
        self.backlog.look(stats, now)
    }

    fn health(&self) -> Health {
        Health { delivery: self.delivery(), backlog: self.backlog.told() }
    }

    /// The worst: why nothing is delivered comes before what was lost because of it.
    fn delivery(&self) -> DeliveryHealth {
        match self {
            Self { broker: true, .. } => DeliveryHealth::BrokerUnavailable,
            Self { invalid: true, .. } => DeliveryHealth::EndpointInvalid,
            Self { waiting_full: true, .. } => DeliveryHealth::WaitingFull,
            Self { failing: Some(outcome), .. } => DeliveryHealth::Failing(*outcome),
            Self { backlog, .. } if backlog.has_just_lost() => DeliveryHealth::BacklogTruncated,
            Self { tried: true, .. } => DeliveryHealth::Delivering,
            _ => DeliveryHealth::Untried,
        }
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
