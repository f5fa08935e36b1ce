//! The statuses that wait to be written: at most one a Subscription, the latest wanted. A step
//! machine; time is an argument.
//!
//! What is declared is answered at once: that a Subscription is active gates its deliveries, and
//! who declares it waits. What only deliveries cause is bounded: an endpoint that fails and
//! recovers all the time has one write a second, and costs the API no more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::manifest::{ConditionType, SubscriptionStatus};
use eventbus_core::{Subscription, Text};
use tokio::time::Instant;

/// After a write that only deliveries caused, how long the next such one of the same Subscription
/// waits. A person sees no more in a second, and a thousand that flap are a thousand writes a
/// second, which an API bears.
const REST: Duration = Duration::from_secs(1);

/// A status that is to be written.
pub(super) struct Write {
    /// As it was seen, with the status it has.
    pub(super) subscription: Arc<Subscription>,
    /// The status that it is to have.
    pub(super) status: Arc<SubscriptionStatus>,
}

impl Write {
    /// Does it tell anything of what was declared, and not of deliveries alone?
    fn is_declared(&self) -> bool {
        let (before, after) = (&self.subscription.status, &self.status);
        let kind = ConditionType::EventsActivated;
        before.observed_generation != after.observed_generation
            || before.is_true(&kind) != after.is_true(&kind)
    }
}

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    /// Those that may be written.
    waiting: HashMap<Text, Write>,
    /// The Subscriptions that rest, with what was asked for since.
    resting: HashMap<Text, Option<Write>>,
    /// When each rest ends, in that order.
    rests: VecDeque<(Instant, Text)>,
    /// What was last asked for, by the version it was asked against: while the watch has not shown
    /// the write, the same wish is not queued again.
    asked: HashMap<Text, (u64, Arc<SubscriptionStatus>)>,
}

impl Queue {
    /// Asks for `status`, in place of what was asked for before; false when it is the same.
    pub(super) fn want(
        &mut self,
        subscription: &Arc<Subscription>,
        status: SubscriptionStatus,
    ) -> bool {
        let identity = &subscription.identity;
        let version = identity.resource_version;
        let same = |(at, asked): &(u64, Arc<SubscriptionStatus>)| {
            *at == version && asked.says_the_same(&status)
        };
        if self.asked.get(&identity.uid).is_some_and(same) {
            return false;
        }
        let status = Arc::new(status);
        self.asked.insert(identity.uid.clone(), (version, status.clone()));
        let write = Write { subscription: subscription.clone(), status };
        self.take_back(&identity.uid);
        match self.resting.get_mut(&identity.uid) {
            Some(rest) if !write.is_declared() => *rest = Some(write),
            _ => drop(self.waiting.insert(identity.uid.clone(), write)),
        }
        true
    }

    /// What is to be written now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Write> {
        self.end_rests(now);
        let uid = self.waiting.keys().next()?.clone();
        let write = self.waiting.remove(&uid)?;
        if !write.is_declared() {
            self.rests.push_back((now + REST, uid.clone()));
            self.resting.insert(uid, None);
        }
        self.give_room_back();
        Some(write)
    }

    /// When there may be more to write without another wish.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.rests.front().map(|(due, _)| *due)
    }

    /// Takes back what was asked for a Subscription that now is as it should be, or is gone.
    pub(super) fn settled(&mut self, uid: &Text) {
        self.asked.remove(uid);
        self.take_back(uid);
        self.give_room_back();
    }

    /// The status was not written: the same wish is heard again.
    pub(super) fn failed(&mut self, uid: &Text) {
        self.asked.remove(uid);
    }

    fn take_back(&mut self, uid: &Text) {
        self.waiting.remove(uid);
        if let Some(rest) = self.resting.get_mut(uid) {
            *rest = None;
        }
    }

    fn end_rests(&mut self, now: Instant) {
        while let Some((_, uid)) = self.rests.pop_front_if(|(due, _)| *due <= now) {
            if let Some(Some(write)) = self.resting.remove(&uid) {
                self.waiting.insert(uid, write);
            }
        }
    }

    /// After a storm of changes nothing keeps room for the next one.
    fn give_room_back(&mut self) {
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
        }
        if self.rests.is_empty() {
            self.rests.shrink_to_fit();
            self.resting.shrink_to_fit();
        }
        if self.asked.is_empty() {
            self.asked.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use eventbus_core::delivery::Outcome;
    use eventbus_core::reconcile::{DeliveryHealth, Health, World, reconcile};
    use eventbus_core::testing::subscription;

    use super::*;

    const STEP: Duration = Duration::from_millis(125);

    /// A queue whose writes are seen by the next wish, as if the watch took no time.
    struct Story {
        queue: Queue,
        subscription: Arc<Subscription>,
        now: Instant,
        writes: usize,
    }

    impl Story {
        fn new() -> Self {
            let subscription = Arc::new(subscription("orders"));
            Self { queue: Queue::default(), subscription, now: Instant::now(), writes: 0 }
        }

        /// The world is so; tells whether the status says it now.
        fn is(&mut self, is_activated: bool, delivery: DeliveryHealth) -> bool {
            let world = World { is_activated, health: Health { delivery, backlog: None } };
            let status = reconcile(&self.subscription, world, 1_541_196_521_000);
            if status == self.subscription.status {
                self.queue.settled(&self.subscription.identity.uid);
            } else {
                self.queue.want(&self.subscription, status.clone());
            }
            self.write();
            self.subscription.status == status
        }

        fn write(&mut self) {
            while let Some(write) = self.queue.next(self.now) {
                let mut written = Subscription::clone(&self.subscription);
                assert!(Arc::ptr_eq(&write.subscription, &self.subscription), "a stale wish");
                written.status = SubscriptionStatus::clone(&write.status);
                written.identity.resource_version += 1;
                self.subscription = Arc::new(written);
                self.writes += 1;
            }
        }
    }

    const DELIVERING: DeliveryHealth = DeliveryHealth::Delivering;
    const FAILING: DeliveryHealth = DeliveryHealth::Failing(Outcome::Timeout);

    #[test]
    fn an_endpoint_that_flaps_is_told_at_once_and_then_once_a_second() {
        let mut story = Story::new();
        assert!(story.is(true, DELIVERING), "a new one is answered");
        assert!(story.is(true, FAILING), "and its first trouble told, at once");
        let began = story.writes;
        // Eight changes a second.
        for step in 0..80 {
            story.now += STEP;
            story.is(true, if step % 2 == 0 { DELIVERING } else { FAILING });
        }
        let writes = story.writes - began;
        assert!((1..=10).contains(&writes), "{writes} in ten seconds");
        // The latest is told in the end, without another wish.
        story.is(true, FAILING);
        story.now += REST;
        story.write();
        story.is(true, DELIVERING);
        assert!(story.queue.next_due() <= Some(story.now + REST));
        story.now += REST;
        story.write();
        assert!(story.subscription.status.is_true(&ConditionType::Ready));
    }

    #[test]
    fn the_latest_wish_of_one_that_rests_is_written() {
        let mut story = Story::new();
        story.is(true, DELIVERING);
        story.is(true, FAILING);
        assert!(!story.is(true, DeliveryHealth::WaitingFull));
        assert!(!story.is(true, DeliveryHealth::BrokerUnavailable));
        story.now += REST - Duration::from_millis(1);
        story.write();
        assert_eq!(story.writes, 2);
        story.now += Duration::from_millis(1);
        story.write();
        assert_eq!(story.writes, 3);
        let ready = story.subscription.status.condition(&ConditionType::Ready).unwrap();
        assert_eq!(ready.reason, "BrokerUnavailable");
        // What became as it was said to be is not written.
        story.is(true, DELIVERING);
        assert!(story.is(true, DeliveryHealth::BrokerUnavailable));
        story.now += REST;
        story.write();
        assert_eq!((story.writes, story.queue.next_due()), (3, None));
    }

    #[test]
    fn what_is_declared_is_answered_at_once() {
        let mut story = Story::new();
        story.is(true, DELIVERING);
        story.is(true, FAILING);
        assert!(!story.is(true, DELIVERING), "it rests");
        for is_activated in [false, true, false] {
            assert!(story.is(is_activated, FAILING), "deliveries wait for it");
        }
        let mut changed = Subscription::clone(&story.subscription);
        changed.identity.generation = 2;
        changed.identity.resource_version += 1;
        story.subscription = Arc::new(changed);
        assert!(story.is(false, FAILING), "who changes it is answered");
        story.now += REST;
        story.write();
        assert_eq!((story.writes, story.queue.waiting.len()), (6, 0));
        assert_eq!((story.queue.resting.len(), story.queue.rests.len()), (0, 0));
    }

    #[test]
    fn one_that_rests_holds_up_no_other() {
        let now = Instant::now();
        let mut queue = Queue::default();
        for turn in 0..2 {
            for number in 0..10_000 {
                let mut one = subscription(&number.to_string());
                one.identity.resource_version += turn;
                one.status.observed_generation = Some(1);
                let status = SubscriptionStatus {
                    observed_generation: Some(1),
                    conditions: vec![eventbus_core::manifest::Condition {
                        kind: ConditionType::Ready,
                        status: eventbus_core::manifest::ConditionStatus::False,
                        last_transition_time: String::new(),
                        reason: format!("{turn}"),
                        message: String::new(),
                    }],
                };
                assert!(queue.want(&Arc::new(one), status));
            }
            let now = now + REST * turn as u32;
            let mut written = 0;
            while queue.next(now).is_some() {
                written += 1;
            }
            assert_eq!(written, 10_000);
            assert!(queue.next(now).is_none());
        }
    }
}
