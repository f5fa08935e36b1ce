//! What the status of a Subscription should say: a pure function of what is declared and of how the
//! world is. Level-triggered: how the world came to be so does not matter.

use serde::{Deserialize, Serialize};

use crate::delivery::Outcome;
use crate::manifest::{Condition, ConditionStatus, ConditionType, SubscriptionStatus};
use crate::subscription::Subscription;

/// How the world is for one Subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// Does an EventActivation with an equal source exist in the namespace?
    pub is_activated: bool,
    /// What push knows of it.
    pub health: Health,
}

/// What push knows of one Subscription. By default it knows nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How its deliveries go.
    #[serde(default)]
    pub delivery: DeliveryHealth,
    /// How its backlog is. `None`: nobody has looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
}

impl Health {
    /// What is known together with `other`, which is known of the same Subscription elsewhere: of
    /// each the worse. In whatever order any number are taken together, the same comes out.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        let backlog = match (self.backlog, other.backlog) {
            (Some(one), Some(other)) => Some(one.larger(other)),
            (one, other) => one.or(other),
        };
        Self { delivery: self.delivery.max(other.delivery), backlog }
    }
}

/// What a Subscription has lost, and how near it is to losing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    /// Events lost to retention since the Subscription was made.
    pub lost_events: u64,
    /// Set while it holds back much of what it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
}

impl Backlog {
    fn larger(self, other: Self) -> Self {
        Self {
            lost_events: self.lost_events.max(other.lost_events),
            fill: self.fill.max(other.fill),
        }
    }
}

/// How much of what it may a Subscription holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fill {
    /// Bytes held back.
    pub bytes: u64,
    /// Bytes that may be; beyond them the oldest events are lost.
    pub max_bytes: u64,
}

impl Fill {
    /// The share in percent, rounded down; 0 of nothing.
    pub fn percent(self) -> u64 {
        self.bytes.saturating_mul(100).checked_div(self.max_bytes).unwrap_or(0)
    }
}

/// How the deliveries of a Subscription go, as push sees it. In the order of what is worse: why
/// nothing is delivered comes before what was lost because of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryHealth {
    /// Nothing was delivered since push began, and nothing showed that it cannot be: what was said
    /// before still holds.
    #[default]
    Untried,
    /// Attempts succeed, or there is nothing to deliver.
    Delivering,
    /// Nothing else is wrong, but events were lost to retention a short while ago.
    BacklogTruncated,
    /// The last attempts in a row failed; the last one like this.
    Failing(Outcome),
    /// So many events wait for their retry that nothing fresh is delivered.
    WaitingFull,
    /// The endpoint is no URL that can be requested.
    EndpointInvalid,
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
    let Health { delivery, backlog } = world.health;
    let mut finding = ready_but_for_backlog(subscription, world);
    if world.is_activated && delivery == DeliveryHealth::Untried {
        // Whoever said so may be gone, and that mends nothing.
        if let Some(said) = said_before(subscription, &FAILURES) {
            return said;
        }
    }
    match backlog {
        Some(backlog) => finding.text += &beside(backlog),
        None if !world.is_activated || delivery == DeliveryHealth::Untried => {
            // What was said of its backlog stands in there.
            finding = said_before(subscription, &[finding.reason]).unwrap_or(finding);
        }
        None => {}
    }
    finding
}

fn ready_but_for_backlog(subscription: &Subscription, world: World) -> Finding {
    let finding =
        |is_true, reason, text| Finding { kind: ConditionType::Ready, is_true, reason, text };
    if !world.is_activated {
        let text = "nothing is delivered: the events are not activated".to_owned();
        return finding(false, NOT_ACTIVATED, text);
    }
    let endpoint = without_secrets(&subscription.endpoint);
    match world.health.delivery {
        DeliveryHealth::Untried | DeliveryHealth::Delivering => {
            finding(true, DELIVERING, format!("events are delivered to {endpoint}"))
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
            format!("the oldest of the events that waited for {endpoint} were lost just now"),
        ),
        DeliveryHealth::BrokerUnavailable => {
            finding(false, "BrokerUnavailable", "the broker does not answer".to_owned())
        }
    }
}

const NOT_ACTIVATED: &str = "NotActivated";
const DELIVERING: &str = "Delivering";

/// The reasons of what only push disproves.
const FAILURES: [&str; 5] =
    ["BacklogTruncated", "EndpointFailing", "WaitingFull", "EndpointInvalid", "BrokerUnavailable"];

/// What the present status says of deliveries by the present spec, if it gives one of `reasons`.
fn said_before(subscription: &Subscription, reasons: &[&'static str]) -> Option<Finding> {
    let status = &subscription.status;
    if status.observed_generation != Some(subscription.identity.generation) {
        return None;
    }
    let said = status.condition(&ConditionType::Ready)?;
    let reason = reasons.iter().find(|reason| **reason == said.reason)?;
    let is_true = *reason == DELIVERING;
    Some(Finding { kind: ConditionType::Ready, is_true, reason, text: said.message.clone() })
}

/// What is said of a backlog beside how deliveries go, for as long as it is so.
fn beside(backlog: Backlog) -> String {
    let mut text = match backlog.lost_events {
        0 => String::new(),
        1 => "; 1 event was lost to retention since the Subscription was made".to_owned(),
        lost => {
            format!("; {lost} events were lost to retention since the Subscription was made")
        }
    };
    if let Some(fill) = backlog.fill {
        let (Fill { bytes, max_bytes }, percent) = (fill, fill.percent());
        text += &format!(
            "; its backlog has reached {bytes} of {max_bytes} bytes ({percent} %), and at 100 % it \
             loses its oldest events"
        );
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(status: SubscriptionStatus) -> Subscription {
        let mut subscription = crate::testing::subscription("orders");
        subscription.identity.generation = 3;
        let endpoint = "http://user:pass@shop.local/x@y?token=secret".into();
        Subscription { endpoint, status, ..subscription }
    }

    fn world(is_activated: bool, delivery: DeliveryHealth) -> World {
        World { is_activated, health: Health { delivery, backlog: None } }
    }

    fn with_backlog(world: World, backlog: Backlog) -> World {
        World { health: Health { backlog: Some(backlog), ..world.health }, ..world }
    }

    fn ready_of(status: &SubscriptionStatus) -> (&str, &str) {
        let ready = status.condition(&ConditionType::Ready).unwrap();
        (&ready.reason, &ready.message)
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
    fn whatever_is_wrong_holds_until_something_is_tried() {
        let untried = world(true, DeliveryHealth::Untried);
        let new = subscription(SubscriptionStatus::default());
        for (is_activated, delivery, reason) in TROUBLES {
            let said = reconcile(&new, world(is_activated, delivery), NOW_MS);
            let now = reconcile(&subscription(said.clone()), untried, NOW_MS + 60_000);
            let is_wrong = !["NotActivated", "Delivering"].contains(&reason);
            assert_eq!(now.is_true(&ConditionType::Ready), !is_wrong, "{reason}");
            assert_eq!(ready_of(&now) == ready_of(&said), is_activated, "{reason}");
        }
    }

    /// All there is, from nothing to the worst.
    const ORDER: [DeliveryHealth; 8] = [
        DeliveryHealth::Untried,
        DeliveryHealth::Delivering,
        DeliveryHealth::BacklogTruncated,
        DeliveryHealth::Failing(Outcome::Status(500)),
        DeliveryHealth::Failing(Outcome::Timeout),
        DeliveryHealth::WaitingFull,
        DeliveryHealth::EndpointInvalid,
        DeliveryHealth::BrokerUnavailable,
    ];

    #[test]
    fn of_two_processes_the_worst_counts_in_whatever_order_they_are_heard() {
        let fill = |bytes| Some(Fill { bytes, max_bytes: 1_000 });
        let backlog = |lost_events, fill| Some(Backlog { lost_events, fill });
        let (few, many) = (backlog(3, fill(519)), backlog(4, fill(600)));
        let backlogs = [
            (None, None, None),
            (None, few, few),
            (few, many, many),
            (backlog(9, None), few, backlog(9, fill(519))),
            (few, backlog(0, fill(900)), backlog(3, fill(900))),
        ];
        for (better, worse) in ORDER
            .iter()
            .enumerate()
            .flat_map(|(at, worse)| ORDER[..=at].iter().map(move |better| (*better, *worse)))
        {
            for (one, other, together) in backlogs {
                let one = Health { delivery: better, backlog: one };
                let other = Health { delivery: worse, backlog: other };
                let worst = Health { delivery: worse, backlog: together };
                assert_eq!((one.worst(other), other.worst(one)), (worst, worst));
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

    const TROUBLES: [(bool, DeliveryHealth, &str); 8] = [
        (false, DeliveryHealth::Untried, "NotActivated"),
        (true, DeliveryHealth::Untried, "Delivering"),
        (true, DeliveryHealth::Delivering, "Delivering"),
        (true, DeliveryHealth::EndpointInvalid, "EndpointInvalid"),
        (true, DeliveryHealth::Failing(Outcome::Status(500)), "EndpointFailing"),
        (true, DeliveryHealth::WaitingFull, "WaitingFull"),
        (true, DeliveryHealth::BacklogTruncated, "BacklogTruncated"),
        (true, DeliveryHealth::BrokerUnavailable, "BrokerUnavailable"),
    ];

    #[test]
    fn what_was_lost_is_counted_beside_whatever_else_there_is_to_say() {
        for (is_activated, delivery, reason) in TROUBLES {
            for (lost_events, words) in [(1, "1 event was lost"), (220, "220 events were lost")] {
                let world = world(is_activated, delivery);
                let none = with_backlog(world, Backlog::default());
                let lost = with_backlog(world, Backlog { lost_events, fill: None });
                let new = subscription(SubscriptionStatus::default());
                let without = reconcile(&new, none, NOW_MS);
                let status = reconcile(&new, lost, NOW_MS);
                let ((reason_then, text), (_, before)) = (ready_of(&status), ready_of(&without));
                assert_eq!(reason_then, reason);
                assert!(text.starts_with(before) && text.contains(words), "{text}");
                let again = reconcile(&subscription(status.clone()), lost, NOW_MS + 60_000);
                assert_eq!(again, status);
            }
        }
    }

    #[test]
    fn a_backlog_that_fills_is_told_with_its_limit() {
        for (is_activated, delivery, reason) in TROUBLES {
            let fill = Some(Fill { bytes: 519, max_bytes: 1_000 });
            let full =
                with_backlog(world(is_activated, delivery), Backlog { lost_events: 7, fill });
            let status = reconcile(&subscription(SubscriptionStatus::default()), full, NOW_MS);
            let (reason_then, text) = ready_of(&status);
            assert_eq!(reason_then, reason);
            let filled = "reached 519 of 1000 bytes (51 %), and at 100 % it loses its oldest";
            assert!(text.contains("7 events were lost") && text.contains(filled), "{text}");
        }
    }

    #[test]
    fn what_was_lost_is_not_forgotten_before_anybody_has_looked() {
        let new = subscription(SubscriptionStatus::default());
        let lost = Backlog { lost_events: 220, fill: None };
        for is_activated in [true, false] {
            let before = world(is_activated, DeliveryHealth::Delivering);
            let said = reconcile(&new, with_backlog(before, lost), NOW_MS);
            let unknown = world(is_activated, DeliveryHealth::Untried);
            assert_eq!(reconcile(&subscription(said.clone()), unknown, NOW_MS), said);
            // A look finds another log, in which nothing is lost.
            let looked = with_backlog(unknown, Backlog::default());
            let now = reconcile(&subscription(said), looked, NOW_MS);
            assert!(!ready_of(&now).1.contains("lost"), "{now:?}");
        }
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
