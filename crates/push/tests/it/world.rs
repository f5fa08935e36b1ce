//! Push with everything around it: a catalog that is changed by hand, a broker in memory, a board.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::broker::{CursorSpec, Start};
use eventbus_core::manifest::{Condition, ConditionStatus, ConditionType};
use eventbus_core::reconcile::{Backlog, DeliveryHealth};
use eventbus_core::testing::{self, SeededEntropy};
use eventbus_core::{
    Catalog, Clock, Event, Interest, Position, Source, Subscription, Text, limits,
};
use eventbus_push::{Parts, Push};
use eventbus_resources::HealthBoard;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::memory::Memory;

/// How long a test waits for what must come. Far longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The time of the machine.
pub(crate) struct SystemClock(std::time::Instant);

impl SystemClock {
    /// A clock whose process begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn start() -> Arc<Self> {
        Arc::new(Self(std::time::Instant::now()))
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_millis() as u64
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Push and what it lives in.
pub(crate) struct World {
    pub(crate) broker: Arc<Memory>,
    pub(crate) board: Arc<HealthBoard>,
    pub(crate) push: Option<Push>,
    catalog: watch::Sender<Arc<Catalog>>,
    declared: HashMap<Text, Arc<Subscription>>,
    broken: HashSet<Text>,
}

impl World {
    /// A world in which nothing is declared.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// The same with other parts.
    pub(crate) fn with(change: impl FnOnce(&mut Parts)) -> Self {
        let clock = SystemClock::start();
        let broker = Memory::new(clock.clone());
        let board = Arc::<HealthBoard>::default();
        let (catalog, catalog_seen) = watch::channel(Arc::default());
        let mut parts = Parts {
            broker: broker.clone(),
            catalog: catalog_seen,
            health: board.clone(),
            clock,
            entropy: Arc::new(SeededEntropy::new(7)),
            connections: 4096,
            told_one_by_one: 1_000,
            trusted: Vec::new(),
            tracer: None,
            failed: CancellationToken::new(),
        };
        change(&mut parts);
        let push = Some(Push::start(parts));
        Self { broker, board, push, catalog, declared: HashMap::new(), broken: HashSet::new() }
    }

    /// Ends the process and begins another one, which has not seen the catalog yet.
    pub(crate) async fn restart(&mut self) {
        self.drain().await;
        let broker = self.broker.clone();
        let next = Self::with(|parts| parts.broker = broker.clone());
        (self.push, self.catalog, self.board) = (next.push, next.catalog, next.board);
    }

    /// Declares a Subscription, or changes it.
    pub(crate) fn declare(&mut self, subscription: Subscription) {
        let uid = &subscription.identity.uid;
        self.broken.remove(uid);
        self.declared.insert(uid.clone(), Arc::new(subscription));
        self.tell();
    }

    /// Declares a Subscription and waits until its cursor is open.
    pub(crate) async fn declare_open(&mut self, subscription: Subscription) {
        let uid = subscription.identity.uid.clone();
        self.declare(subscription);
        eventually("the cursor is open", || self.broker.cursor(&uid).is_some()).await;
    }

    /// Changes a declared Subscription.
    pub(crate) fn change(&mut self, uid: &str, change: impl FnOnce(&mut Subscription)) {
        let mut subscription = Subscription::clone(&self.declared[uid]);
        change(&mut subscription);
        self.declare(subscription);
    }

    /// Makes a Subscription one that exists and cannot be run.
    pub(crate) fn break_it(&mut self, uid: &str) {
        self.declared.remove(uid);
        self.broken.insert(uid.into());
        self.tell();
    }

    /// Deletes a Subscription.
    pub(crate) fn delete(&mut self, uid: &str) {
        self.declared.remove(uid);
        self.broken.remove(uid);
        self.tell();
    }

    /// How deliveries go.
    pub(crate) fn health(&self, uid: &str) -> DeliveryHealth {
        self.board.of(&uid.into()).delivery
    }

    /// How its backlog is; `None` before anybody looked.
    pub(crate) fn backlog(&self, uid: &str) -> Option<Backlog> {
        self.board.of(&uid.into()).backlog
    }

    /// Events that are told to be lost.
    pub(crate) fn lost(&self, uid: &str) -> Option<u64> {
        self.backlog(uid).map(|backlog| backlog.lost_events)
    }

    /// Events that are not settled.
    pub(crate) fn lag(&self, uid: &str) -> usize {
        self.broker.cursor(uid).map_or(usize::MAX, |cursor| cursor.place().lag())
    }

    /// Stores events of the type that [`subscription`] asks for.
    pub(crate) fn publish(
        &self,
        payloads: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Vec<Position> {
        let events = payloads.into_iter().map(|payload| event(payload.as_ref()));
        events.map(|event| self.broker.publish(event)).collect()
    }

    /// Stops push cleanly.
    pub(crate) async fn drain(&mut self) {
        self.push.take().unwrap().drain().await;
    }

    /// Declares many Subscriptions in one snapshot.
    pub(crate) fn declare_all(&mut self, subscriptions: impl Iterator<Item = Subscription>) {
        self.declared.extend(subscriptions.map(|s| (s.identity.uid.clone(), Arc::new(s))));
        self.tell();
    }

    /// The words of the outcomes settled so far, in order.
    pub(crate) fn outcomes(&self, uid: &str) -> Vec<&'static str> {
        let cursor = self.broker.cursor(uid).unwrap();
        let place = cursor.place();
        let attempts = place.settled.iter().filter_map(|(_, attempt, _)| *attempt);
        attempts.map(|attempt| attempt.outcome().word()).collect()
    }

    /// Gives everything that is about to happen time to happen. For what must not happen.
    pub(crate) async fn settle_down(&self) {
        sleep(Duration::from_millis(50)).await;
    }

    /// Sends the catalog again.
    pub(crate) fn tell(&self) {
        let subscriptions = self.declared.values().cloned();
        let catalog = Catalog::new(subscriptions, HashSet::new()).with_broken(self.broken.clone());
        self.catalog.send_replace(Arc::new(catalog));
    }
}

/// An active Subscription whose name is its uid.
pub(crate) fn subscription(uid: &str, endpoint: &str) -> Subscription {
    let mut subscription = Subscription {
        endpoint: endpoint.into(),
        timeout: Duration::from_secs(20),
        ..eventbus_core::testing::subscription(uid)
    };
    set_active(&mut subscription, true);
    subscription
}

/// The cursor of a Subscription.
pub(crate) fn spec(subscription: &Subscription) -> CursorSpec {
    CursorSpec {
        id: subscription.cursor_id(),
        interest: subscription.interest.clone(),
        start: Start::AtMs(subscription.identity.created_ms),
        waiting_max: limits::WAITING_EVENTS,
    }
}

/// The interest in one type of the test's source.
pub(crate) fn interest(event_type: &str) -> Interest {
    Interest {
        source: Source::from_id("shop".into()),
        event_type: event_type.into(),
        event_type_version: "v1".into(),
    }
}

/// Says that the events of a Subscription are activated, or are not.
pub(crate) fn set_active(subscription: &mut Subscription, is_active: bool) {
    let status = if is_active { ConditionStatus::True } else { ConditionStatus::False };
    subscription.status.conditions = vec![Condition {
        kind: ConditionType::EventsActivated,
        status,
        last_transition_time: String::new(),
        reason: String::new(),
        message: String::new(),
    }];
}

/// An event of the type that [`subscription`] asks for; its id is its payload too.
pub(crate) fn event(payload: &str) -> Event {
    let event = testing::event("order.created", Bytes::copy_from_slice(payload.as_bytes()));
    Event { id: payload.into(), ..event }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(PATIENCE, so).await.is_ok(), "it never came to be that {what}");
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, coming).await {
        Ok(came) => came,
        Err(_) => panic!("it never came: {what}"),
    }
}
