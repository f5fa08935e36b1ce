//! A dispatcher: one task that delivers the events of one Subscription.
//!
//! It works in turns. What ended is collected, freed slots are filled with leased events, and what
//! ended is settled in one call, while attempts go on: what ends meanwhile is settled together
//! after it. What costs something (a lock, a call of the broker, a wake-up) is paid once a turn;
//! under load, and with a broker that takes its time, turns grow.
//!
//! An event that waits for its retry is with the broker, so it holds no slot here.

use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::broker::CursorError;
use eventbus_core::delivery::{Attempt, Outcome, Verdict, verdict};
use eventbus_core::wire::timing::expires_ms;
use eventbus_core::{Lease, Settled, limits};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::time::{Sleep, sleep};

use crate::attempt::{Ended, Tools, attempt};
use crate::desk::{Desk, Order, Plan, Trouble, Turn};
use crate::slots::Share;
use crate::telemetry::{self, DeliveryAttempted, LeftOut};
use crate::transport::Transport;

/// Delivers the events of one Subscription.
pub(crate) struct Dispatcher<T> {
    tools: Arc<Tools<T>>,
    desk: Arc<Desk>,
    /// The last plan given. Only [`Order::Deliver`] lets attempts begin.
    plan: Arc<Plan>,
    /// Asks for events. Kept over turns: what has begun to read a disk is not given up because an
    /// attempt ended.
    leasing: Option<Leasing>,
    /// Leased, waiting for a slot of the process's budget.
    ready: Vec<Lease>,
    under_way: FuturesUnordered<UnderWay>,
    /// Ended, and not being settled yet.
    ended: Vec<Settled>,
    /// How many of those were not to be delivered.
    left_out: LeftOut,
    /// Ended before, and being settled.
    settling: Option<Settling>,
    share: Share,
    pause: Option<Pause>,
}

/// An attempt under way; `None` when it panicked.
type UnderWay = BoxFuture<'static, Option<Ended>>;

type Leasing = BoxFuture<'static, Result<Vec<Lease>, CursorError>>;

/// Events on their way to be settled.
struct Settling {
    count: usize,
    done: BoxFuture<'static, Result<(), CursorError>>,
}

/// The broker failed: it is not asked for events for a while, and then on probation for as long.
struct Pause {
    over: Pin<Box<Sleep>>,
    length: Duration,
    on_probation: bool,
}

/// What ended a wait.
enum Woken {
    Ordered,
    Slot,
    PauseOver,
    Ended(Option<Ended>),
    Leased(Result<Vec<Lease>, CursorError>),
    Settled(Result<(), CursorError>),
}

/// The cursor was forgotten, or the dispatcher was told to end.
struct End;

impl<T: Transport> Dispatcher<T> {
    pub(crate) fn new(tools: Arc<Tools<T>>, desk: Arc<Desk>, plan: Arc<Plan>) -> Self {
        Self {
            share: tools.slots.share(),
            tools,
            desk,
            plan,
            leasing: None,
            ready: Vec::new(),
            under_way: FuturesUnordered::new(),
            ended: Vec::new(),
            left_out: LeftOut::default(),
            settling: None,
            pause: None,
        }
    }

    /// Works until it is told to end, or its cursor was forgotten. (In a box, because a future
    /// keeps what it is given twice.)
    pub(crate) async fn run(mut self: Box<Self>) {
        self.check_endpoint();
        while let Ok(()) = self.turn().await {}
        self.under_way.clear();
        // Should the broker refuse it, it comes again.
        while self.is_settling() {
            let _ = settled(&mut self.settling).await;
            self.settle();
        }
    }

    async fn turn(&mut self) -> Result<(), End> {
        match &*self.desk.order() {
            Order::Stop => return Err(End),
            Order::Drain if self.under_way.is_empty() && !self.is_settling() => return Err(End),
            _ => {}
        }
        if self.may_begin() {
            self.ask();
        }
        match self.wait().await {
            Woken::Ordered | Woken::Slot => {}
            Woken::PauseOver => self.end_pause(),
            Woken::Leased(leased) => self.take(leased)?,
            Woken::Settled(settled) => self.settled(settled)?,
            Woken::Ended(ended) => {
                self.record(ended);
                // Whatever else can run runs first: attempts that end together settle together.
                tokio::task::yield_now().await;
            }
        }
        while let Some(Some(ended)) = self.under_way.next().now_or_never() {
            self.record(ended);
        }
        if self.may_begin() {
            self.lease_what_is_there()?;
            self.begin();
        } else {
            let under_way = self.under_way.len();
            self.share.resize(under_way, under_way);
        }
        self.settle();
        Ok(())
    }

    /// Takes the latest order in; tells whether it lets attempts begin.
    fn may_begin(&mut self) -> bool {
        if let Order::Deliver(plan) = &*self.desk.order() {
            if !Arc::ptr_eq(plan, &self.plan) {
                let before = std::mem::replace(&mut self.plan, plan.clone());
                self.leasing = None;
                if !before.has_endpoint_of(plan) {
                    self.begin_anew();
                }
            }
            true
        } else {
            self.leasing = None;
            self.ready.clear();
            false
        }
    }

    /// What was found out about another endpoint says nothing about this one.
    fn begin_anew(&mut self) {
        self.desk.tell(Trouble::begin_anew);
        self.check_endpoint();
    }

    fn check_endpoint(&self) {
        let invalid = self.plan.endpoint.is_err();
        self.desk.tell(|trouble| trouble.invalid = invalid);
    }

    async fn wait(&mut self) -> Woken {
        let is_starved = !self.ready.is_empty();
        let is_in_line = is_starved && self.under_way.is_empty();
        let pause = self.pause.as_mut();
        tokio::select! {
            biased;
            () = self.desk.changed() => Woken::Ordered,
            // It goes on only while it is looked at.
            settled = settled(&mut self.settling) => Woken::Settled(settled),
            Some(ended) = self.under_way.next() => Woken::Ended(ended),
            () = stand_in_line(is_in_line, &mut self.share) => Woken::Slot,
            () = look_again(is_starved) => Woken::Slot,
            () = pause_over(pause) => Woken::PauseOver,
            leased = lease(&mut self.leasing) => Woken::Leased(leased),
        }
    }

    /// Asks for events when there is room for them.
    fn ask(&mut self) {
        if self.leasing.is_none()
            && let Some(limit) = self.lease_limit()
        {
            let cursor = self.plan.cursor.clone();
            self.leasing = Some(async move { cursor.lease(limit).await }.boxed());
        }
    }

    /// How many events may be leased now. Of those that ended, as many as have slots may be
    /// unsettled: more would be too many to come again, should the process be killed.
    fn lease_limit(&self) -> Option<NonZeroUsize> {
        if !self.ready.is_empty() || self.pause.as_ref().is_some_and(|pause| !pause.on_probation) {
            return None;
        }
        let slots = self.plan.subscription.max_inflight as usize;
        let settling = self.settling.as_ref().map_or(0, |settling| settling.count);
        let unsettled = (self.ended.len() + settling).saturating_sub(slots);
        NonZeroUsize::new(slots.saturating_sub(self.under_way.len() + unsettled))
    }

    /// Fills what is free with events that can be leased without waiting.
    fn lease_what_is_there(&mut self) -> Result<(), End> {
        self.ask();
        match lease(&mut self.leasing).now_or_never() {
            Some(leased) => self.take(leased),
            None => Ok(()),
        }
    }

    fn take(&mut self, leased: Result<Vec<Lease>, CursorError>) -> Result<(), End> {
        match leased {
            Ok(leased) => {
                self.broker_answered();
                self.ready.extend(leased);
                Ok(())
            }
            Err(error) => self.broker_failed(&error),
        }
    }

    /// Begins attempts, as many as the Subscription and the process's budget allow.
    fn begin(&mut self) {
        self.skip();
        let slots = self.plan.subscription.max_inflight as usize;
        let under_way = self.under_way.len();
        let wanted = slots.min(under_way + self.ready.len()).max(under_way);
        self.share.resize(under_way, wanted);
        let free = self.share.held().saturating_sub(under_way).min(self.ready.len());
        for lease in self.ready.drain(..free) {
            let attempt = attempt(self.tools.clone(), self.plan.clone(), lease);
            self.under_way.push(AssertUnwindSafe(attempt).catch_unwind().map(Result::ok).boxed());
        }
    }

    /// Settles what is not to be delivered: what the Subscription no longer asks for, and what has
    /// expired.
    fn skip(&mut self) {
        let interest = &self.plan.subscription.interest;
        let now_ms = self.tools.clock.now_ms();
        let left_out = &mut self.left_out;
        let skipped = self.ready.extract_if(.., |lease| {
            let is_unwanted = !lease.event().is_of(interest);
            let has_expired = || expires_ms(lease.event()).is_some_and(|at_ms| at_ms <= now_ms);
            let is_expired = !is_unwanted && has_expired();
            left_out.unwanted += u64::from(is_unwanted);
            left_out.expired += u64::from(is_expired);
            is_unwanted || is_expired
        });
        let skip = |lease| Settled { lease, attempt: None, verdict: Verdict::Skip };
        self.ended.extend(skipped.map(skip));
    }

    /// Decides what follows from an attempt.
    fn record(&mut self, ended: Option<Ended>) {
        let Some(Ended { lease, plan, began_ms, took, outcome }) = ended else {
            // Its lease is dropped. The pause keeps a defect from spinning.
            telemetry::attempt_lost(self.desk.uid());
            self.pause(limits::BROKER_PAUSE_MAX, false);
            return;
        };
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let now_ms = began_ms + took_ms;
        self.tools.telemetry.delivery_attempted(&DeliveryAttempted {
            subscription: &self.plan.subscription.identity,
            stored: lease.stored(),
            attempt: lease.attempts() + 1,
            outcome,
            began_ms,
            took,
        });
        if plan.has_endpoint_of(&self.plan) {
            self.judge(outcome);
        }
        self.ended.push(Settled {
            attempt: Some(Attempt::new(began_ms, took_ms, outcome)),
            verdict: verdict(outcome, lease.attempts(), now_ms, &*self.tools.entropy),
            lease,
        });
    }

    /// Takes in how the endpoint is.
    fn judge(&self, outcome: Outcome) {
        let identity = &self.plan.subscription.identity;
        match self.desk.tell(|trouble| trouble.judge(outcome)) {
            Some(Turn::Fails) => telemetry::subscription_failing(identity, outcome),
            Some(Turn::Recovers) => telemetry::subscription_recovered(identity),
            None => {}
        }
    }

    /// Begins to settle what ended, when what ended before is settled.
    fn settle(&mut self) {
        if self.settling.is_none() && !self.ended.is_empty() {
            let (tools, plan) = (self.tools.clone(), self.plan.clone());
            let turn = std::mem::take(&mut self.ended);
            let left_out = std::mem::take(&mut self.left_out);
            let count = turn.len();
            let done = async move {
                plan.cursor.settle(turn).await?;
                // Not before: what is not settled comes again.
                tools.telemetry.events_left_out(&plan.subscription.identity, left_out);
                Ok(())
            };
            self.settling = Some(Settling { count, done: done.boxed() });
        }
    }

    fn is_settling(&self) -> bool {
        self.settling.is_some() || !self.ended.is_empty()
    }

    fn settled(&mut self, settled: Result<(), CursorError>) -> Result<(), End> {
        match settled {
            Ok(()) => {
                self.broker_answered();
                Ok(())
            }
            Err(error) => {
                self.tools.telemetry.turn_not_settled();
                self.broker_failed(&error)
            }
        }
    }

    /// After a pause the broker is asked again; when it has not failed for as long as the pause
    /// was, all is well: a lease that waits for events may wait long before it tells anything.
    fn end_pause(&mut self) {
        match self.pause.take() {
            Some(Pause { length, on_probation: false, .. }) => self.pause(length, true),
            _ => self.desk.tell(|trouble| trouble.broker = false),
        }
    }

    fn broker_answered(&mut self) {
        if self.pause.take_if(|pause| pause.on_probation).is_some() {
            self.desk.tell(|trouble| trouble.broker = false);
        }
    }

    fn broker_failed(&mut self, error: &CursorError) -> Result<(), End> {
        if *error == CursorError::Forgotten {
            return Err(End);
        }
        if self.pause.is_none() {
            telemetry::broker_failed(self.desk.uid(), error);
        }
        self.desk.tell(|trouble| trouble.broker = true);
        let length = self.pause.as_ref().map_or(limits::BROKER_PAUSE_FIRST, |p| p.length * 2);
        self.pause(length.min(limits::BROKER_PAUSE_MAX), false);
        Ok(())
    }

    fn pause(&mut self, length: Duration, on_probation: bool) {
        self.pause = Some(Pause { over: Box::pin(sleep(length)), length, on_probation });
    }
}

/// Waits for events; for ever when none are wanted.
async fn lease(leasing: &mut Option<Leasing>) -> Result<Vec<Lease>, CursorError> {
    match leasing {
        Some(asked) => {
            let leased = asked.await;
            *leasing = None;
            leased
        }
        None => std::future::pending().await,
    }
}

/// Waits until a turn is settled; for ever when none is on its way.
async fn settled(settling: &mut Option<Settling>) -> Result<(), CursorError> {
    match settling {
        Some(Settling { done, .. }) => {
            let settled = done.await;
            *settling = None;
            settled
        }
        None => std::future::pending().await,
    }
}

/// Waits for the first slot. In a box, as hardly any dispatcher ever does.
async fn stand_in_line(is_in_line: bool, share: &mut Share) {
    if is_in_line {
        Box::pin(share.first()).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Waits until a look at the budget may be worth it, for who wants more slots than it has. (Its own
/// attempts that end are a better reason to look; but they may take a minute.)
async fn look_again(is_starved: bool) {
    if is_starved {
        Box::pin(sleep(limits::SLOTS_AGAIN)).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Waits for the end of a pause; for ever when there is none.
async fn pause_over(pause: Option<&mut Pause>) {
    match pause {
        Some(pause) => pause.over.as_mut().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use eventbus_core::Cursor;
    use eventbus_core::broker::CursorStats;
    use eventbus_core::testing::{ManualClock, SeededEntropy, subscription};

    use super::*;
    use crate::slots::Slots;
    use crate::transport::Delivery;

    struct Nowhere;

    impl Transport for Nowhere {
        async fn attempt(&self, _: &Delivery<'_>) -> Outcome {
            Outcome::Connect
        }
    }

    struct Empty;

    impl Cursor for Empty {
        fn lease(&self, _: NonZeroUsize) -> BoxFuture<'_, Result<Vec<Lease>, CursorError>> {
            std::future::pending().boxed()
        }

        fn settle(&self, _: Vec<Settled>) -> BoxFuture<'_, Result<(), CursorError>> {
            std::future::ready(Ok(())).boxed()
        }

        fn stats(&self) -> CursorStats {
            CursorStats::default()
        }
    }

    /// Thousands of Subscriptions are idle most of the time.
    #[test]
    fn an_idle_dispatcher_is_small() {
        let tools = Arc::new(Tools {
            transport: Nowhere,
            clock: Arc::new(ManualClock::at(0)),
            entropy: Arc::new(SeededEntropy::new(1)),
            slots: Slots::new(1),
            telemetry: Arc::default(),
            tracer: None,
        });
        let desk = Arc::new(Desk::new("uid".into(), Arc::default()));
        let plan = Arc::new(Plan::new(Arc::new(subscription("orders")), Arc::new(Empty)));
        let dispatcher = Box::new(Dispatcher::new(tools, desk, plan));
        let bytes = size_of::<Dispatcher<Nowhere>>() + size_of_val(&dispatcher.run());
        assert!(bytes <= 640, "{bytes} bytes");
    }
}
