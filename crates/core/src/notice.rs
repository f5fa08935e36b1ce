//! What is told of a Subscription when one of its conditions changes: what becomes a Kubernetes
//! Event. Pure.
//!
//! A status says how things are; notices say how they came to be so. Nothing depends on them.

use crate::manifest::{Condition, ConditionStatus, ConditionType, SubscriptionStatus};

/// What is told of a Subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Something is not as it should be.
    pub is_warning: bool,
    /// The condition's reason: one word for programs.
    pub reason: String,
    /// Why, in a sentence for people.
    pub text: String,
}

/// What there is to tell of a status that was `before` and is `after`: each condition of the bus
/// that does not say what it said, in the order in which it is written.
pub fn notices(before: &SubscriptionStatus, after: &SubscriptionStatus) -> Vec<Notice> {
    let is_ours = |condition: &&Condition| !matches!(condition.kind, ConditionType::Other(_));
    let is_news = |condition: &&Condition| {
        let said = before.condition(&condition.kind);
        said.is_none_or(|said| !said.says_the_same(condition))
    };
    after.conditions.iter().filter(is_ours).filter(is_news).map(Notice::of).collect()
}

impl Notice {
    fn of(condition: &Condition) -> Self {
        Self {
            is_warning: condition.status != ConditionStatus::True,
            reason: condition.reason.clone(),
            text: condition.message.clone(),
        }
    }

    /// What all notices of the Subscription with this uid share that have this reason: one Event
    /// counts them. So there are only as many of a Subscription as there are reasons. Stable: it is
    /// in the Events' names.
    pub fn series(&self, uid: &str) -> u64 {
        // A uid has no line break.
        xxhash_rust::xxh3::xxh3_64(format!("{uid}\n{}", self.reason).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: ConditionType, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            kind,
            status,
            last_transition_time: String::new(),
            reason: reason.to_owned(),
            message: format!("because {reason}"),
        }
    }

    fn status(conditions: impl IntoIterator<Item = Condition>) -> SubscriptionStatus {
        let conditions = conditions.into_iter().collect();
        SubscriptionStatus { conditions, observed_generation: Some(1) }
    }

    fn inactive() -> [Condition; 2] {
        [
            condition(ConditionType::EventsActivated, ConditionStatus::False, "NoEventActivation"),
            condition(ConditionType::Ready, ConditionStatus::False, "NotActivated"),
        ]
    }

    fn active(ready: ConditionStatus, reason: &str) -> [Condition; 2] {
        [
            condition(ConditionType::EventsActivated, ConditionStatus::True, "Activated"),
            condition(ConditionType::Ready, ready, reason),
        ]
    }

    fn told(before: &SubscriptionStatus, after: &SubscriptionStatus) -> Vec<(bool, String)> {
        let told = notices(before, after).into_iter();
        told.map(|notice| (notice.is_warning, notice.reason)).collect()
    }

    #[test]
    fn each_condition_that_changes_is_told_once() {
        let new = SubscriptionStatus::default();
        let inactive = status(inactive());
        let warnings = [(true, "NoEventActivation".to_owned()), (true, "NotActivated".to_owned())];
        assert_eq!(told(&new, &inactive), warnings);
        let delivering = status(active(ConditionStatus::True, "Delivering"));
        let normal = [(false, "Activated".to_owned()), (false, "Delivering".to_owned())];
        assert_eq!(told(&inactive, &delivering), normal);
        let failing = status(active(ConditionStatus::False, "EndpointFailing"));
        assert_eq!(told(&delivering, &failing), [(true, "EndpointFailing".to_owned())]);
        let full = status(active(ConditionStatus::False, "WaitingFull"));
        assert_eq!(told(&failing, &full), [(true, "WaitingFull".to_owned())]);
        assert_eq!(notices(&full, &delivering)[0].text, "because Delivering");
    }

    #[test]
    fn what_goes_on_saying_the_same_is_not_told() {
        let before = status(inactive());
        let mut after = before.clone();
        after.observed_generation = Some(2);
        after.conditions[0].last_transition_time = "2018-11-02T22:08:41Z".to_owned();
        assert_eq!(notices(&before, &after), []);
        after.conditions[1].message += "; and events were lost";
        assert_eq!(notices(&before, &after).len(), 1);
    }

    #[test]
    fn conditions_of_others_are_not_ours_to_tell() {
        let theirs = ConditionType::Other("theirs".to_owned());
        let theirs = status([condition(theirs, ConditionStatus::False, "Theirs")]);
        assert_eq!(notices(&SubscriptionStatus::default(), &theirs), []);
    }

    #[test]
    fn one_event_counts_what_has_one_reason() {
        let notice = |reason: &str| Notice {
            is_warning: true,
            reason: reason.to_owned(),
            text: String::new(),
        };
        let mut other_text = notice("EndpointFailing");
        other_text.text = "other".to_owned();
        let failing = notice("EndpointFailing").series("1");
        assert_eq!(failing, other_text.series("1"));
        assert_ne!(failing, notice("EndpointFailing").series("2"));
        assert_ne!(failing, notice("WaitingFull").series("1"));
        // In the names of Events that are there after an upgrade.
        assert_eq!(failing, 14_712_931_516_491_310_538);
    }
}
