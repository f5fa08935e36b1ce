//! What arrives at the subscribers: every delivery is checked, and counted once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::Clock;
use eventbus_core::manifest::DeliveryFormat;

use super::args::Target;
use super::board::Board;
use super::chance::Chance;
use super::event::Shape;
use super::inbox::Delivery;
use super::kill::journal::Journal;
use super::latency::Latency;
use super::plan::{Conduct, Layout};
use super::seen::Seen;

/// How many missing events a complaint names.
const MISSING_SHOWN: usize = 5;

/// Which deliveries fail is the same in every run.
const FAILURES_SEED: u64 = 1;

/// What has arrived.
pub(super) struct Arrivals {
    pub(super) layout: Layout,
    pub(super) shape: Arc<Shape>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
    /// How many Subscriptions, the last of the busy ones, are bad or slow, and not waited for.
    pub(super) troubled: u32,
    /// Whether those are only slow: what they get is checked.
    pub(super) are_slow: bool,
    /// How the others behave.
    pub(super) conduct: Conduct,
    /// Where a delivery tells the id of its event.
    pub(super) ids: Ids,
    /// Where every delivery is written down before it is answered. With one, repeats are legal: the
    /// journal is what is judged.
    pub(super) journal: Option<Journal>,
    pub(super) counts: Mutex<Counts>,
}

/// What is counted of the arrivals.
pub(super) struct Counts {
    /// For each Subscription the events that have arrived.
    seen: Vec<Seen>,
    /// Events that came again.
    pub(super) repeats: u64,
    /// Deliveries that were answered with 500, as they were to be.
    pub(super) failed: u64,
    /// Those (Subscription and sequence) that have not come again yet.
    failing: HashSet<(u32, u64)>,
    /// Events that arrived at slow Subscriptions.
    pub(super) slow: u64,
    /// From due to delivered, of the measured events, at healthy Subscriptions.
    pub(super) latency: Latency,
    /// Decides which deliveries fail.
    chance: Chance,
}

/// A delivery that is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) subscription: u32,
    pub(super) sequence: u64,
    took: Duration,
}

/// Where a delivery tells the id of its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// In the header `Kyma-Event-Id`.
    Kyma,
    /// In the header `ce-id`.
    Binary,
    /// In its document.
    Structured,
    /// As either of the two.
    CloudEvent,
    /// Nowhere.
    Untold,
}

// === impl Arrivals ===

impl Arrivals {
    /// Nothing has arrived yet; no endpoint is bad, none fails, and there is no journal.
    pub(super) fn new(
        layout: Layout,
        ids: Ids,
        shape: Arc<Shape>,
        board: Arc<Board>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let counts = Mutex::new(Counts::new(&layout));
        let conduct = Conduct { latency: Duration::ZERO, failures: 0.0 };
        let (troubled, are_slow, journal) = (0, false, None);
        Self { layout, ids, shape, board, clock, troubled, are_slow, conduct, journal, counts }
    }

    /// Checks a delivery.
    pub(super) fn check(&self, delivery: &Delivery<'_>) -> Result<Arrival, String> {
        let path = delivery.path;
        let known = self.checked() + if self.are_slow { self.troubled } else { 0 };
        let subscription = path.strip_prefix('/').and_then(|number| number.parse().ok());
        let Some(subscription) = subscription.filter(|one| *one < known) else {
            return Err(format!("to {path}, where nothing may come"));
        };
        let Some(stamp) = self.shape.read(delivery.body) else {
            return Err(format!("{} bytes that are no payload of this run", delivery.body.len()));
        };
        let sequence = stamp.sequence;
        if sequence >= self.board.issued()
            || self.shape.type_of(sequence) != self.layout.type_of(subscription)
        {
            return Err(format!("event {sequence} to Subscription {subscription}"));
        }
        let document = &delivery.body[..delivery.body.len() - self.shape.payload().len()];
        if self.ids != Ids::Untold
            && !self.ids.is_told(&self.shape.event_id(sequence), delivery, document)
        {
            return Err(format!("event {sequence} in another form, or with the id of another"));
        }
        let took = self.clock.elapsed().saturating_sub(Duration::from_nanos(stamp.due_ns));
        Ok(Arrival { subscription, sequence, took })
    }

    /// Counts a delivery, unless it is to fail: then false. `failures` is the share of those.
    pub(super) fn count(&self, arrival: &Arrival, failures: f64) -> bool {
        let Arrival { subscription, sequence, took } = *arrival;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if failures > 0.0 && counts.chance.is_within(failures) {
            // It is as if it had not come: it has to come again.
            counts.failed += 1;
            counts.failing.insert((subscription, sequence));
            self.board.set_failing(counts.failing.len());
            return false;
        }
        if counts.failing.remove(&(subscription, sequence)) {
            self.board.set_failing(counts.failing.len());
        }
        if !counts.seen[subscription as usize].insert(self.shape.place_of(sequence)) {
            counts.repeats += 1;
            return true;
        }
        if subscription >= self.checked() {
            counts.slow += 1;
            return true;
        }
        if self.board.is_measured(sequence) {
            counts.latency.record(took);
        }
        drop(counts);
        self.board.count_delivered();
        true
    }

    /// How many Subscriptions are checked: the first of the busy ones, that are neither
    /// bad nor slow.
    pub(super) fn checked(&self) -> u32 {
        self.layout.busy() - self.troubled
    }

    /// How many deliveries the events before `sequence` are, at the checked Subscriptions.
    pub(super) fn owed(&self, sequence: u64) -> u64 {
        let of = |one| self.shape.count_before(sequence, self.layout.type_of(one));
        (0..self.checked()).map(of).sum()
    }

    /// Whether all of `events` have arrived at every Subscription. Only where there is one type.
    pub(super) fn have_all(&self, events: &Seen) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.seen.iter().all(|seen| seen.contains_all(events))
    }

    /// What is wrong once everything should be here: events that are missing, or came again.
    pub(super) fn complaint(&self) -> Option<String> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let issued = self.board.issued();
        for (number, seen) in (0..self.checked()).zip(&counts.seen) {
            let owed = self.shape.count_before(issued, self.layout.type_of(number));
            let lost = owed - seen.count();
            if lost > 0 {
                let first = seen.missing(owed, MISSING_SHOWN);
                return Some(format!(
                    "{lost} of {owed} events did not arrive at Subscription {number}; the first \
                     (counted within its type): {first:?}"
                ));
            }
        }
        let repeats = counts.repeats;
        (repeats > 0).then(|| format!("{repeats} events arrived more than once"))
    }
}

// === impl Counts ===

impl Counts {
    fn new(layout: &Layout) -> Self {
        let seen = (0..layout.busy()).map(|_| Seen::default()).collect();
        let (latency, chance) = (Latency::new(), Chance::new(FAILURES_SEED));
        Self { seen, repeats: 0, failed: 0, failing: HashSet::new(), slow: 0, latency, chance }
    }
}

// === impl Ids ===

impl Ids {
    /// Where `target` tells it in deliveries of `format`.
    pub(super) fn of(target: Target, format: DeliveryFormat) -> Self {
        match (target, format) {
            (Target::Bus, DeliveryFormat::Kyma) => Self::Kyma,
            (Target::Bus, DeliveryFormat::CloudEventsBinary) => Self::Binary,
            (Target::Bus, DeliveryFormat::CloudEventsStructured) => Self::Structured,
            (Target::Knative | Target::KymaProxy, _) => Self::CloudEvent,
            // Svix tells an id of its own; what others post on is their affair.
            (Target::Svix | Target::Post | Target::Bare | Target::Relay, _) => Self::Untold,
        }
    }

    /// Whether a delivery tells `id`. `document` is its body up to the payload.
    fn is_told(self, id: &str, delivery: &Delivery<'_>, document: &[u8]) -> bool {
        let is_header = |header: Option<&[u8]>| header == Some(id.as_bytes());
        let is_member = || {
            // What is written by others may have space between the two.
            let text = std::str::from_utf8(document).unwrap_or_default();
            text.split("\"id\"").skip(1).any(|rest| {
                let value = rest.trim_start_matches([' ', ':']).strip_prefix('"');
                value.is_some_and(|value| value.starts_with(id))
            })
        };
        match self {
            Self::Kyma => is_header(delivery.event_id) && document.is_empty(),
            Self::Binary => is_header(delivery.ce_id) && document.is_empty(),
            Self::Structured => is_member(),
            Self::CloudEvent => is_header(delivery.ce_id) || is_member(),
            Self::Untold => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Stamp;
    use super::super::request::{Envelope, Form, Request};
    use super::*;
    use crate::system::SystemClock;

    fn arrivals(layout: Layout, issued: usize) -> Arrivals {
        let board = Arc::new(Board::new(false, None, 1));
        for _ in 0..issued {
            futures::executor::block_on(board.issue(1)).unwrap();
        }
        let shape = Arc::new(Shape::new(7, layout.event_types, 0));
        Arrivals::new(layout, Ids::Untold, shape, board, Arc::new(SystemClock::start()))
    }

    const TWO: Layout = Layout { event_types: 2, fan_out: 1, subscriptions: 3, max_inflight: 1 };

    fn body(sequence: u64) -> Vec<u8> {
        let [host, path, headers] = ["h", "/", ""].map(str::to_owned);
        let envelope = Envelope { host, path, headers, form: Form::Structured };
        let mut request = Request::new(&Shape::new(7, 2, 0), &envelope, 1);
        let bytes = request.stamp(&[Stamp { sequence, due_ns: 0 }]);
        let from = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        bytes[from + 4..].to_vec()
    }

    fn deliver(to: &Arrivals, path: &str, sequence: u64) -> Result<(u32, u64), String> {
        let body = body(sequence);
        let arrival = to.check(&Delivery { path, event_id: None, ce_id: None, body: &body })?;
        to.count(&arrival, 0.0);
        Ok((arrival.subscription, arrival.sequence))
    }

    #[test]
    fn everything_once_is_right() {
        let arrivals = arrivals(TWO, 3);
        for (path, sequence) in [("/0", 0), ("/0", 2), ("/1", 1)] {
            deliver(&arrivals, path, sequence).unwrap();
        }
        assert_eq!(arrivals.complaint(), None);
        assert_eq!((arrivals.owed(3), arrivals.board.counters().delivered), (3, 3));
    }

    #[test]
    fn a_missing_and_a_repeated_event_are_noticed() {
        let arrivals = arrivals(TWO, 3);
        deliver(&arrivals, "/0", 2).unwrap();
        deliver(&arrivals, "/1", 1).unwrap();
        let complaint = arrivals.complaint().unwrap();
        assert!(
            complaint.contains("1 of 2 events did not arrive at Subscription 0"),
            "{complaint}"
        );
        assert!(complaint.ends_with("[0]"), "{complaint}");
        deliver(&arrivals, "/0", 0).unwrap();
        deliver(&arrivals, "/0", 2).unwrap();
        assert_eq!(arrivals.complaint().unwrap(), "1 events arrived more than once");
    }

    #[test]
    fn what_nobody_published_is_refused() {
        let arrivals = arrivals(TWO, 3);
        for (path, sequence, why) in [
            ("/0", 1, "the type of another Subscription"),
            ("/0", 4, "not published yet"),
            ("/2", 0, "an idle Subscription"),
            ("/3", 0, "no Subscription"),
            ("/x", 0, "no number"),
        ] {
            assert!(deliver(&arrivals, path, sequence).is_err(), "{why}");
        }
        let body = body(0);
        let cut = Delivery { body: &body[..body.len() - 2], ..delivery(&body) };
        assert!(arrivals.check(&cut).is_err());
    }

    fn delivery(body: &[u8]) -> Delivery<'_> {
        Delivery { path: "/0", event_id: None, ce_id: None, body }
    }

    #[test]
    fn an_event_comes_in_the_form_asked_for_under_its_own_id() {
        let document = body(0);
        let alone = &document[document.len() - Shape::new(7, 2, 0).payload().len() - 1..];
        let alone = &alone[..alone.len() - 1];
        let id = Shape::new(7, 2, 0).event_id(0);
        let other = Shape::new(7, 2, 0).event_id(1);
        let kyma = |id| Delivery { event_id: Some(id), ..delivery(alone) };
        let binary = |id| Delivery { ce_id: Some(id), ..delivery(alone) };
        for (ids, good) in [
            (Ids::Kyma, [true, false, false, false, false, false]),
            (Ids::Binary, [false, false, true, false, false, false]),
            (Ids::Structured, [false, false, false, false, true, false]),
            (Ids::CloudEvent, [false, false, true, false, true, false]),
            (Ids::Untold, [true; 6]),
        ] {
            let arrivals = Arrivals { ids, ..arrivals(TWO, 3) };
            let other_document = String::from_utf8(document.clone()).unwrap().replace(&id, &other);
            let told = [
                kyma(id.as_bytes()),
                kyma(other.as_bytes()),
                binary(id.as_bytes()),
                binary(other.as_bytes()),
                delivery(&document),
                delivery(other_document.as_bytes()),
            ];
            let is_good = told.map(|delivery| arrivals.check(&delivery).is_ok());
            assert_eq!(is_good, good, "{ids:?}");
        }
    }

    #[test]
    fn what_is_told_to_fail_has_to_come_again() {
        let arrivals = arrivals(TWO, 1);
        let arrival = arrivals.check(&delivery(&body(0))).unwrap();
        let mut failed = 0;
        while !arrivals.count(&arrival, 0.9) {
            failed += 1;
            assert!(arrivals.complaint().is_some());
            assert_eq!(arrivals.board.counters().failing, 1, "however often it failed");
        }
        assert!(failed > 1, "the chance of the seed makes it fail several times");
        assert_eq!((arrivals.complaint(), arrivals.board.counters().failing), (None, 0));
        assert_eq!(arrivals.counts.lock().unwrap().failed, failed);
        assert!(arrivals.count(&arrival, 0.0));
        assert_eq!(arrivals.complaint().unwrap(), "1 events arrived more than once");
    }

    #[test]
    fn slow_ones_are_checked_and_not_waited_for() {
        let arrivals = Arrivals { troubled: 1, are_slow: true, ..arrivals(TWO, 2) };
        deliver(&arrivals, "/0", 0).unwrap();
        assert_eq!((arrivals.owed(2), arrivals.complaint()), (1, None));
        deliver(&arrivals, "/1", 1).unwrap();
        assert_eq!(arrivals.board.counters().delivered, 1);
        deliver(&arrivals, "/1", 1).unwrap();
        assert!(arrivals.complaint().is_some(), "a repeat counts everywhere");
        let bad = Arrivals { are_slow: false, ..arrivals };
        assert!(deliver(&bad, "/1", 1).is_err());
    }
}
