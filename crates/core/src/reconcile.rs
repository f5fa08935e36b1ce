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
    /// Attempts succeed, or there was nothing to deliver.
    #[default]
    Delivering,
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
/// `now` is the time in RFC 3339, for conditions whose status changes.
pub fn reconcile(subscription: &Subscription, world: World, now: &str) -> SubscriptionStatus {
    let current = &subscription.status;
    let mut status = current.clone();
    status.observed_generation = Some(subscription.identity.generation);
    set(&mut status, events_activated(subscription, world), now);
    set(&mut status, ready(subscription, world), now);
    status
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
        let text = "nothing is delivered: the events are not activated".to_owned();
        return finding(false, "NotActivated", text);
    }
    let endpoint = without_secrets(&subscription.endpoint);
    match world.delivery {
        DeliveryHealth::Delivering => {
            finding(true, "Delivering", format!("events are delivered to {endpoint}"))
        }
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
