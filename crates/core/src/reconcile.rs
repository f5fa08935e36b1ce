//! What the status of a Subscription should say: a pure function of what is declared and of how the
//! world is. Level-triggered: how the world came to be so does not matter.

use crate::delivery::Outcome;
use crate::manifest::{Condition, ConditionStatus, ConditionType, SubscriptionStatus};
use crate::subscription::Subscription;

/// How the world is for one Subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// Does an EventActivation with an equal source exist in the namespace?
    pub is_activated: bool,
    /// How its deliveries go.
    pub delivery: DeliveryHealth,
}

/// How the deliveries of a Subscription go, as push sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryHealth {
    /// Nothing was delivered since push began, and nothing showed that it cannot be: what was said
    /// before still holds.
    #[default]
    Untried,
    /// Attempts succeed, or there is nothing to deliver.
    Delivering,
    /// The endpoint is no URL that can be requested.
    EndpointInvalid,
    /// The last attempts in a row failed; the last one like this.
    Failing(Outcome),
    /// So many events wait for their retry that nothing fresh is delivered.
    WaitingFull,
    /// The oldest events were lost to retention.
    BacklogTruncated,
    /// The broker does not let push lease events.
    BrokerUnavailable,
}

/// The status that `subscription` should have. Equal to the one it has when nothing is to be
/// written.
///
/// `now_ms` is wall-clock time, for conditions whose status changes.
pub fn reconcile(subscription: &Subscription, world: World, now_ms: u64) -> SubscriptionStatus {
    let now = rfc3339(now_ms);
    let current = &subscription.status;
    let mut status = current.clone();
    status.observed_generation = Some(subscription.identity.generation);
    set(&mut status, events_activated(subscription, world), &now);
    set(&mut status, ready(subscription, world), &now);
    status
}

/// Wall-clock time in whole seconds, as Kubernetes writes it.
fn rfc3339(now_ms: u64) -> String {
    let seconds = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

struct Finding {
    kind: ConditionType,
    is_true: bool,
    reason: &'static str,
    text: String,
}

fn events_activated(subscription: &Subscription, world: World) -> Finding {
    let (source, namespace) =
        (subscription.interest.source.as_str(), &subscription.identity.namespace);
    let (reason, text) = if world.is_activated {
        ("Activated", format!("an EventActivation of source {source} exists in {namespace}"))
    } else {
        (
            "NoEventActivation",
            format!(
                "no EventActivation of source {source} exists in namespace {namespace}: create \
                 one there to get these events; until then they are kept"
            ),
        )
    };
    Finding { kind: ConditionType::EventsActivated, is_true: world.is_activated, reason, text }
}

fn ready(subscription: &Subscription, world: World) -> Finding {
    let finding =
        |is_true, reason, text| Finding { kind: ConditionType::Ready, is_true, reason, text };
    if !world.is_activated {
        let mut text = "nothing is delivered: the events are not activated".to_owned();
        if world.delivery == DeliveryHealth::BacklogTruncated {
            text += "; the oldest of those kept were lost to retention";
        }
        return finding(false, NOT_ACTIVATED, text);
    }
    let endpoint = without_secrets(&subscription.endpoint);
    match world.delivery {
        DeliveryHealth::Untried => said_before(subscription).unwrap_or_else(|| {
            finding(true, "Delivering", format!("events are delivered to {endpoint}"))
        }),
        DeliveryHealth::Delivering => {
            finding(true, "Delivering", format!("events are delivered to {endpoint}"))
        }
        DeliveryHealth::EndpointInvalid => finding(
            false,
            "EndpointInvalid",
            format!("{endpoint} cannot be requested: it is no http or https URL with a host"),
        ),
        DeliveryHealth::Failing(outcome) => {
            finding(false, "EndpointFailing", format!("{endpoint} {}", complaint(outcome)))
        }
        DeliveryHealth::WaitingFull => finding(
            false,
            "WaitingFull",
            format!(
                "so many events wait for a retry to {endpoint} that fresh ones are not tried; \
                 they are kept"
            ),
        ),
        DeliveryHealth::BacklogTruncated => finding(
            false,
            "BacklogTruncated",
            format!("{endpoint} takes events so slowly that the oldest were lost to retention"),
        ),
        DeliveryHealth::BrokerUnavailable => {
            finding(false, "BrokerUnavailable", "the broker does not answer".to_owned())
        }
    }
}

const NOT_ACTIVATED: &str = "NotActivated";

/// What the present status says of deliveries by the present spec, if it says anything.
fn said_before(subscription: &Subscription) -> Option<Finding> {
    let status = &subscription.status;
    if status.observed_generation != Some(subscription.identity.generation) {
        return None;
    }
    let kind = ConditionType::Ready;
    let said = status.conditions.iter().find(|condition| condition.kind == kind)?;
    let reason = FAILURES.into_iter().find(|reason| *reason == said.reason)?;
    Some(Finding { kind, is_true: false, reason, text: said.message.clone() })
}

/// The reasons of what only a delivery disproves.
const FAILURES: [&str; 3] = ["EndpointFailing", "WaitingFull", "BacklogTruncated"];

/// The endpoint as it may be shown: user name, password and query may hold secrets.
fn without_secrets(endpoint: &str) -> String {
    let before_query = endpoint.split(['?', '#']).next().unwrap_or_default();
    match before_query.split_once("://") {
        Some((scheme, rest)) => {
            let authority_end = rest.find('/').unwrap_or(rest.len());
            let from = rest[..authority_end].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[from..])
        }
        None => before_query.to_owned(),
    }
}

fn complaint(outcome: Outcome) -> String {
    match outcome {
        Outcome::Status(status @ 300..=399) => {
            format!("answers {status}: redirects are not followed, name the final URL")
        }
        Outcome::Status(status) => format!("answers {status}; only 2xx takes an event"),
        Outcome::Timeout => "does not answer within push_request_timeout_ms".to_owned(),
        Outcome::Connect => "cannot be reached: the connection is refused or lost".to_owned(),
        Outcome::Dns => "cannot be reached: its host name is not found".to_owned(),
        Outcome::Tls => "cannot be reached: the TLS handshake fails".to_owned(),
        Outcome::Broken => "breaks the connection before it has answered".to_owned(),
        Outcome::BadAnswer => "answers with something that is not HTTP".to_owned(),
        Outcome::BadEndpoint => "is not a URL that can be requested".to_owned(),
    }
}

fn set(status: &mut SubscriptionStatus, finding: Finding, now: &str) {
    let as_word = if finding.is_true { ConditionStatus::True } else { ConditionStatus::False };
    let mut condition = Condition {
        kind: finding.kind,
        status: as_word,
        last_transition_time: now.to_owned(),
        reason: finding.reason.to_owned(),
        message: finding.text,
    };
    match status.conditions.iter_mut().find(|present| present.kind == condition.kind) {
        Some(present) => {
            if present.status == condition.status && !present.last_transition_time.is_empty() {
                condition.last_transition_time.clone_from(&present.last_transition_time);
            }
            *present = condition;
        }
        None => status.conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::{Interest, Source};
    use crate::subscription::Identity;

    fn subscription(status: SubscriptionStatus) -> Subscription {
        Subscription {
            identity: Identity {
                uid: "1".into(),
                group: "eventing.kyma.cx",
                namespace: "stage".into(),
                name: "orders".into(),
                generation: 3,
                resource_version: 9,
                created_ms: 0,
            },
            interest: Interest {
                source: Source::from_id("shop".into()),
                event_type: "order.created".into(),
                event_type_version: "v1".into(),
            },
            endpoint: "http://user:pass@shop.local/x@y?token=secret".into(),
            max_inflight: 1,
            timeout: Duration::from_secs(1),
            names_itself: false,
            status,
        }
    }

    fn world(is_activated: bool, delivery: DeliveryHealth) -> World {
        World { is_activated, delivery }
    }

    const NOW_MS: u64 = 1_541_196_521_999;

    #[test]
    fn a_new_subscription_gets_both_conditions_with_reason_and_message() {
        let delivering = world(true, DeliveryHealth::Delivering);
        let status = reconcile(&subscription(SubscriptionStatus::default()), delivering, NOW_MS);
        assert_eq!(status.observed_generation, Some(3));
        assert!(status.is_true(&ConditionType::EventsActivated));
        assert!(status.is_true(&ConditionType::Ready));
        for condition in &status.conditions {
            assert_eq!(condition.last_transition_time, "2018-11-02T22:08:41Z");
            assert!(!condition.reason.is_empty() && !condition.message.is_empty());
        }
    }

    #[test]
    fn a_look_at_an_unchanged_world_changes_nothing() {
        for delivery in [DeliveryHealth::Delivering, DeliveryHealth::Failing(Outcome::Timeout)] {
            for is_activated in [true, false] {
                let world = world(is_activated, delivery);
                let first = reconcile(&subscription(SubscriptionStatus::default()), world, NOW_MS);
                let again = reconcile(&subscription(first.clone()), world, NOW_MS + 60_000);
                assert_eq!(again, first);
            }
        }
    }

    #[test]
    fn what_was_said_of_a_failing_endpoint_holds_until_something_is_tried() {
        let failing = world(true, DeliveryHealth::Failing(Outcome::Timeout));
        let untried = world(true, DeliveryHealth::Untried);
        let new = subscription(SubscriptionStatus::default());
        assert!(reconcile(&new, untried, NOW_MS).is_true(&ConditionType::Ready));
        let said = reconcile(&new, failing, NOW_MS);
        let mut failed = subscription(said.clone());
        assert_eq!(reconcile(&failed, untried, NOW_MS + 60_000), said);
        // Another spec may name another endpoint.
        failed.identity.generation += 1;
        assert!(reconcile(&failed, untried, NOW_MS).is_true(&ConditionType::Ready));
        let inactive = world(false, DeliveryHealth::Untried);
        let inactive = subscription(reconcile(&new, inactive, NOW_MS));
        assert!(reconcile(&inactive, untried, NOW_MS).is_true(&ConditionType::Ready));
    }

    #[test]
    fn an_inactive_subscription_that_loses_events_says_so() {
        let losing = world(false, DeliveryHealth::BacklogTruncated);
        let status = reconcile(&subscription(SubscriptionStatus::default()), losing, NOW_MS);
        let ready = &status.conditions[1];
        assert_eq!(ready.reason, "NotActivated");
        assert!(ready.message.contains("lost to retention"), "{}", ready.message);
    }

    #[test]
    fn an_endpoint_that_cannot_be_requested_is_not_ready() {
        let invalid = world(true, DeliveryHealth::EndpointInvalid);
        let status = reconcile(&subscription(SubscriptionStatus::default()), invalid, NOW_MS);
        assert_eq!(status.conditions[1].reason, "EndpointInvalid");
        assert!(!status.is_true(&ConditionType::Ready));
    }

    #[test]
    fn the_time_moves_only_when_the_status_of_that_condition_changes() {
        let delivering = world(true, DeliveryHealth::Delivering);
        let failing = world(true, DeliveryHealth::Failing(Outcome::Status(503)));
        let worse = world(true, DeliveryHealth::Failing(Outcome::Timeout));
        let first = reconcile(&subscription(SubscriptionStatus::default()), delivering, NOW_MS);
        let second = reconcile(&subscription(first), failing, NOW_MS + 60_000);
        let third = reconcile(&subscription(second.clone()), worse, NOW_MS + 120_000);
        let times: Vec<_> =
            third.conditions.iter().map(|c| c.last_transition_time.as_str()).collect();
        assert_eq!(times, ["2018-11-02T22:08:41Z", "2018-11-02T22:09:41Z"]);
        assert_ne!(second.conditions[1].message, third.conditions[1].message);
    }

    #[test]
    fn conditions_of_others_are_kept_and_secrets_of_the_endpoint_are_not_shown() {
        let other = Condition {
            kind: ConditionType::Other("theirs".into()),
            status: ConditionStatus::Unknown,
            last_transition_time: String::new(),
            reason: String::new(),
            message: String::new(),
        };
        let status =
            SubscriptionStatus { conditions: vec![other.clone()], observed_generation: None };
        let failing = world(true, DeliveryHealth::Failing(Outcome::Dns));
        let status = reconcile(&subscription(status), failing, NOW_MS);
        assert_eq!(status.conditions[0], other);
        assert!(status.conditions[2].message.starts_with("http://shop.local/x@y "));
    }
}
