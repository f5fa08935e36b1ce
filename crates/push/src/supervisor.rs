//! The supervisor: keeps a cursor for each Subscription and a dispatcher for each active one.
//!
//! Level-triggered: each snapshot of the catalog is compared with what there is, and what differs
//! is put right; how the difference came about does not matter. What there is includes the cursors
//! of earlier runs: a Subscription may have been deleted while nobody looked.
//!
//! A snapshot may come every few milliseconds and hold thousands of Subscriptions, so what has not
//! changed costs a look at a pointer.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::broker::{CursorError, CursorId, CursorSpec, OpenError, Start};
use eventbus_core::{Broker, Catalog, Cursor, Subscription, Text, limits};
use eventbus_resources::HealthBoard;
use futures::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::attempt::Tools;
use crate::desk::{Desk, Order, Plan, Trouble};
use crate::dispatcher::Dispatcher;
use crate::telemetry::{self, Look};
use crate::transport::Transport;

/// Runs push.
pub(crate) struct Supervisor<T> {
    pub(crate) tools: Arc<Tools<T>>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) board: Arc<HealthBoard>,
    pub(crate) wards: HashMap<Text, Ward>,
    /// Each tells whether it ended by a panic.
    pub(crate) dispatchers: JoinSet<(Arc<Desk>, bool)>,
    pub(crate) chores: JoinSet<Done>,
    pub(crate) chores_at_once: Arc<Semaphore>,
    /// The latest snapshot.
    pub(crate) catalog: Arc<Catalog>,
    /// Counts the snapshots.
    pub(crate) snapshot: u64,
    /// Subscriptions of which metrics tell one by one.
    pub(crate) told_one_by_one: usize,
}

/// What the supervisor keeps of one Subscription.
pub(crate) struct Ward {
    desk: Arc<Desk>,
    /// As last listed. `None` when nothing but its cursor was ever seen.
    subscription: Option<Arc<Subscription>>,
    /// The snapshot that listed it last.
    listed: u64,
    stage: Stage,
    /// Its cursor, and the Subscription as it was when the cursor was opened.
    cursor: Option<(Arc<Subscription>, Arc<dyn Cursor>)>,
    /// A call of the broker runs. There is never a second one, so they cannot overtake each other.
    is_busy: bool,
    failures: u32,
    is_dispatched: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It exists.
    Living,
    /// It does not exist any more: its cursor is to be forgotten.
    Deleted,
    /// Somebody else forgot its cursor, at this time: its deletion is on its way here. Remembered
    /// until no snapshot lists it; or too long, and it was removed by mistake.
    Forgotten(Duration),
}

/// A call of the broker has ended.
pub(crate) enum Done {
    Opened { subscription: Arc<Subscription>, cursor: Result<Arc<dyn Cursor>, OpenError> },
    Forgot { uid: Text, result: Result<(), CursorError> },
    Learnt(Result<Vec<CursorId>, CursorError>),
}

/// What the supervisor listens to.
pub(crate) struct Inputs {
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) drain: CancellationToken,
}

impl<T: Transport> Supervisor<T> {
    /// Works until it is to drain, and then drains.
    pub(crate) async fn run(mut self, mut inputs: Inputs) {
        let mut look = interval(limits::LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        inputs.catalog.mark_changed();
        self.learn(Duration::ZERO);
        loop {
            tokio::select! {
                biased;
                () = inputs.drain.cancelled() => break,
                Ok(()) = inputs.catalog.changed() => {
                    self.catalog = inputs.catalog.borrow_and_update().clone();
                    self.compare();
                }
                Some(Ok(done)) = self.chores.join_next() => self.chore_done(done),
                Some(Ok((desk, has_panicked))) = self.dispatchers.join_next() => {
                    self.dispatcher_ended(desk.uid(), has_panicked);
                }
                _ = look.tick() => self.look(),
            }
        }
        self.drain().await;
    }

    /// Puts right what differs from the latest snapshot.
    fn compare(&mut self) {
        let catalog = self.catalog.clone();
        self.snapshot += 1;
        let mut changed = Vec::new();
        for subscription in catalog.subscriptions() {
            let uid = &subscription.identity.uid;
            match self.wards.get_mut(uid) {
                Some(ward) => {
                    let was_absent = ward.listed + 1 != self.snapshot;
                    ward.listed = self.snapshot;
                    if ward.take(subscription) || was_absent {
                        changed.push(uid.clone());
                    }
                }
                None => {
                    let mut ward = Ward::new(uid, &self.board);
                    ward.listed = self.snapshot;
                    ward.subscription = Some(subscription.clone());
                    self.wards.insert(uid.clone(), ward);
                    changed.push(uid.clone());
                }
            }
        }
        if self.wards.len() > catalog.subscriptions().len() {
            let snapshot = self.snapshot;
            self.wards
                .retain(|_, ward| ward.listed == snapshot || !ward.is_forgotten() || ward.is_busy);
            let absent = self.wards.iter_mut().filter(|(_, ward)| ward.listed != snapshot);
            for (uid, ward) in absent {
                if ward.ends_by(&catalog) || ward.listed + 1 == snapshot {
                    changed.push(uid.clone());
                }
            }
        }
        for uid in changed {
            self.put_right(&uid);
        }
    }

    /// Takes in the cursors of earlier runs.
    fn learnt(&mut self, cursors: Vec<CursorId>) {
        for CursorId(uid) in cursors {
            if self.wards.contains_key(&uid) {
                continue;
            }
            let mut ward = Ward::new(&uid, &self.board);
            ward.ends_by(&self.catalog);
            self.wards.insert(uid.clone(), ward);
            self.put_right(&uid);
        }
    }

    /// Does the next thing that a Subscription needs. Called whenever something about it changed.
    fn put_right(&mut self, uid: &Text) {
        let Some(ward) = self.wards.get_mut(uid) else { return };
        let order = ward.order(self.snapshot);
        match (&order, ward.is_dispatched) {
            (_, true) => ward.desk.give(order),
            (Order::Deliver(plan), false) => {
                ward.is_dispatched = true;
                let plan = plan.clone();
                ward.desk.give(order);
                let dispatcher = Dispatcher::new(self.tools.clone(), ward.desk.clone(), plan);
                let (dispatcher, desk) = (Box::new(dispatcher), ward.desk.clone());
                self.dispatchers.spawn(async move {
                    let has_panicked = unless_it_panics(dispatcher.run()).await.is_none();
                    if has_panicked {
                        telemetry::dispatcher_lost(desk.uid());
                        Box::pin(pause_after_panic(&desk)).await;
                    }
                    (desk, has_panicked)
                });
            }
            (_, false) => {}
        }
        if ward.is_busy {
            return;
        }
        match (ward.stage, &ward.subscription) {
            (Stage::Living, Some(subscription)) => {
                let opened = ward.cursor.as_ref().map(|(opened, _)| &opened.interest);
                if opened != Some(&subscription.interest) {
                    ward.is_busy = true;
                    let (subscription, pause) = (subscription.clone(), ward.pause());
                    self.open(subscription, pause);
                }
            }
            (Stage::Deleted, _) if !ward.is_dispatched => {
                ward.is_busy = true;
                ward.cursor = None;
                let pause = ward.pause();
                self.forget(uid.clone(), pause);
            }
            _ => {}
        }
    }

    fn open(&mut self, subscription: Arc<Subscription>, pause: Duration) {
        let (broker, at_once) = (self.broker.clone(), self.chores_at_once.clone());
        self.chores.spawn(async move {
            sleep(pause).await;
            let _turn = at_once.acquire().await;
            let cursor = unless_it_panics(broker.open(spec(&subscription))).await;
            let cursor = cursor.unwrap_or_else(|| Err(OpenError::Unavailable(PANICKED.into())));
            Done::Opened { subscription, cursor }
        });
    }

    fn forget(&mut self, uid: Text, pause: Duration) {
        let (broker, at_once) = (self.broker.clone(), self.chores_at_once.clone());
        self.chores.spawn(async move {
            sleep(pause).await;
            let _turn = at_once.acquire().await;
            let result = unless_it_panics(broker.forget(CursorId(uid.clone()))).await;
            let result = result.unwrap_or_else(|| Err(CursorError::Unavailable(PANICKED.into())));
            Done::Forgot { uid, result }
        });
    }

    /// Asks which cursors there are.
    fn learn(&mut self, pause: Duration) {
        let broker = self.broker.clone();
        self.chores.spawn(async move {
            sleep(pause).await;
            let cursors = unless_it_panics(broker.cursors()).await;
            Done::Learnt(cursors.unwrap_or_else(|| Err(CursorError::Unavailable(PANICKED.into()))))
        });
    }

    fn chore_done(&mut self, done: Done) {
        match done {
            Done::Opened { subscription, cursor } => self.opened(subscription, cursor),
            Done::Forgot { uid, result } => self.forgot(&uid, result),
            Done::Learnt(Ok(cursors)) => self.learnt(cursors),
            Done::Learnt(Err(_)) => self.learn(limits::BROKER_PAUSE_MAX),
        }
    }

    fn opened(
        &mut self,
        subscription: Arc<Subscription>,
        cursor: Result<Arc<dyn Cursor>, OpenError>,
    ) {
        let uid = subscription.identity.uid.clone();
        let Some(ward) = self.wards.get_mut(&uid) else { return };
        ward.is_busy = false;
        match cursor {
            Ok(cursor) => {
                ward.succeeded();
                ward.desk.tell(|trouble| trouble.begin(&cursor.stats()));
                ward.cursor = Some((subscription, cursor));
            }
            Err(error) => ward.failed(&error),
        }
        self.put_right(&uid);
    }

    fn forgot(&mut self, uid: &Text, result: Result<(), CursorError>) {
        let Some(ward) = self.wards.get_mut(uid) else { return };
        ward.is_busy = false;
        match result {
            Ok(()) | Err(CursorError::Forgotten) => {
                ward.desk.clear();
                if ward.listed != self.snapshot {
                    self.wards.remove(uid);
                    return;
                }
                // The API went back in time: it exists after all.
                ward.stage = Stage::Living;
            }
            Err(error) => ward.failed(&error),
        }
        self.put_right(uid);
    }

    fn dispatcher_ended(&mut self, uid: &Text, has_panicked: bool) {
        if let Some(ward) = self.wards.get_mut(uid) {
            ward.is_dispatched = false;
            match ward.stage {
                Stage::Deleted => self.put_right(uid),
                // Its leases are given back: another one begins where it ended.
                Stage::Living if has_panicked => self.put_right(uid),
                // Its cursor was forgotten elsewhere: the deletion is on its way here.
                Stage::Living | Stage::Forgotten(_) => {
                    ward.stage = Stage::Forgotten(self.tools.clock.elapsed());
                    ward.desk.clear();
                }
            }
        }
    }

    /// Looks at what changes without a turn of a dispatcher.
    fn look(&mut self) {
        let now = self.tools.clock.elapsed();
        let mut all = Look::at(self.tools.clock.now_ms(), self.told_one_by_one);
        for ward in self.wards.values() {
            if let (Stage::Living, Some((subscription, cursor))) = (ward.stage, &ward.cursor) {
                let stats = cursor.stats();
                all.add(subscription, &stats);
                let is_delivered = matches!(*ward.desk.order(), Order::Deliver(_));
                let look = |trouble: &mut Trouble| trouble.look(&stats, is_delivered, now);
                let found = ward.desk.tell(look);
                if let Some(fill) = found.fill {
                    telemetry::backlog_fills(&subscription.identity, fill);
                }
                if found.recovers {
                    telemetry::subscription_recovered(&subscription.identity);
                }
            }
        }
        self.tools.telemetry.cursors_looked_at(all);
        self.tools.transport.tidy();
        self.reopen(now);
    }

    /// Opens the cursors anew that are gone while their Subscriptions are not.
    fn reopen(&mut self, now: Duration) {
        let mut reopened = Vec::new();
        for (uid, ward) in &mut self.wards {
            let Stage::Forgotten(since) = ward.stage else { continue };
            let is_late = now.saturating_sub(since) > limits::DELETION_TIME;
            if is_late && ward.listed == self.snapshot && !ward.is_busy {
                ward.stage = Stage::Living;
                ward.cursor = None;
                telemetry::cursor_lost(uid);
                reopened.push(uid.clone());
            }
        }
        for uid in reopened {
            self.put_right(&uid);
        }
    }

    async fn drain(mut self) {
        self.chores.shutdown().await;
        self.order_all(&Order::Drain);
        let all_end = async { while self.dispatchers.join_next().await.is_some() {} };
        if timeout(limits::DRAIN_TIME, all_end).await.is_err() {
            telemetry::attempts_abandoned(self.dispatchers.len());
            self.order_all(&Order::Stop);
            let all_end = async { while self.dispatchers.join_next().await.is_some() {} };
            // Who does not end then waits for the broker; dropping it is all that is left.
            let _ = timeout(limits::ABANDON_TIME, all_end).await;
        }
        self.dispatchers.shutdown().await;
    }

    fn order_all(&self, order: &Order) {
        for ward in self.wards.values().filter(|ward| ward.is_dispatched) {
            ward.desk.give(order.clone());
        }
    }
}

impl Ward {
    fn new(uid: &Text, board: &Arc<HealthBoard>) -> Self {
        Self {
            desk: Arc::new(Desk::new(uid.clone(), board.clone())),
            subscription: None,
            listed: 0,
            stage: Stage::Living,
            cursor: None,
            is_busy: false,
            failures: 0,
            is_dispatched: false,
        }
    }

    /// Takes in the Subscription as a snapshot has it; tells whether it runs otherwise than before.
    fn take(&mut self, subscription: &Arc<Subscription>) -> bool {
        let known = self.subscription.as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, subscription)) {
            return false;
        }
        let runs_like = known.is_some_and(|known| known.runs_like(subscription));
        self.subscription = Some(subscription.clone());
        !runs_like
    }

    /// Takes in that it does not exist any more; false when it does, or nobody knows.
    fn ends_by(&mut self, catalog: &Catalog) -> bool {
        let ends = self.stage == Stage::Living && catalog.lacks(self.desk.uid());
        if ends {
            self.stage = Stage::Deleted;
        }
        ends
    }

    fn is_forgotten(&self) -> bool {
        matches!(self.stage, Stage::Forgotten(_))
    }

    /// What its dispatcher is to do.
    fn order(&self, snapshot: u64) -> Order {
        if self.stage != Stage::Living {
            return Order::Stop;
        }
        match (&self.subscription, &self.cursor) {
            (Some(subscription), Some((_, cursor)))
                if subscription.is_active() && self.listed == snapshot =>
            {
                Order::Deliver(Arc::new(Plan::new(subscription.clone(), cursor.clone())))
            }
            _ => Order::Rest,
        }
    }

    fn succeeded(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.desk.tell(|trouble| trouble.broker = false);
        }
    }

    fn failed(&mut self, error: &dyn std::error::Error) {
        if self.failures == 0 {
            telemetry::broker_failed(self.desk.uid(), error);
        }
        self.failures = self.failures.saturating_add(1);
        self.desk.tell(|trouble| trouble.broker = true);
    }

    /// How long the broker is left alone before it is asked again.
    fn pause(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => {
                let doubled = limits::BROKER_PAUSE_FIRST * (1 << (failures - 1).min(16));
                doubled.min(limits::BROKER_PAUSE_MAX)
            }
        }
    }
}

/// What a call of the broker that panicked counts as.
const PANICKED: &str = "a call of it ended by a defect";

/// What `work` gives; `None` when it panics. Without it the part of one Subscription would be dead,
/// and nothing would say so.
async fn unless_it_panics<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}

/// Keeps a defect from spinning, until there is another order.
async fn pause_after_panic(desk: &Desk) {
    if matches!(*desk.order(), Order::Deliver(_)) {
        // Either end will do.
        let _ = timeout(limits::BROKER_PAUSE_MAX, desk.changed()).await;
    }
}

fn spec(subscription: &Subscription) -> CursorSpec {
    CursorSpec {
        id: subscription.cursor_id(),
        interest: subscription.interest.clone(),
        start: Start::AtMs(subscription.identity.created_ms),
        waiting_max: limits::WAITING_EVENTS,
    }
}
