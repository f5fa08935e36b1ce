//! How deliveries and backlogs are, from push to the sub-validator.
//!
//! A board, not a queue: only the latest state of each subscription counts. The sub-validator may
//! be in another process than push, and push in several: so what is said here can be told to the
//! others ([`Teller`]), and what they say is kept beside it.

mod elsewhere;
mod teller;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventbus_core::reconcile::Health;
use eventbus_core::{ProcessId, Report, Text};
use tokio::sync::Notify;

use elsewhere::Elsewhere;
pub use teller::Teller;

/// The health of every subscription.
#[derive(Debug, Default)]
pub struct HealthBoard {
    said: Mutex<Saying>,
    changed: Notify,
    changed_here: Notify,
}

#[derive(Debug, Default)]
struct Saying {
    /// In this process.
    here: HashMap<Text, Health>,
    /// In the others.
    elsewhere: Elsewhere,
}

impl HealthBoard {
    /// Says what is known here of the Subscription with this uid.
    pub fn report(&self, uid: &Text, health: Health) {
        let before = if health == Health::default() {
            self.said().here.remove(uid)
        } else {
            self.said().here.insert(uid.clone(), health)
        };
        if before.unwrap_or_default() != health {
            self.changed.notify_one();
            self.changed_here.notify_one();
        }
    }

    /// Takes in what another process told at `now`, time since this process began.
    pub fn hear(&self, process: ProcessId, report: Report, now: Duration) {
        if self.said().elsewhere.hear(process, report, now) {
            self.changed.notify_one();
        }
    }

    /// Drops what processes said of which nothing was heard for
    /// [`limits::REPORT_SILENCE`](eventbus_core::limits::REPORT_SILENCE).
    pub fn drop_silent(&self, now: Duration) {
        if self.said().elsewhere.drop_silent(now) {
            self.changed.notify_one();
        }
    }

    /// What is known of the Subscription with this uid, here and elsewhere: the worst.
    pub fn of(&self, uid: &Text) -> Health {
        let said = self.said();
        let here = said.here.get(uid).copied().unwrap_or_default();
        said.elsewhere.of(uid).fold(here, Health::worst)
    }

    /// What is known here of all Subscriptions.
    pub fn here(&self) -> HashMap<Text, Health> {
        self.said().here.clone()
    }

    /// Ends when something changed since the last call. For one listener.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends when something changed here since the last call. For one listener.
    pub async fn changed_here(&self) {
        self.changed_here.notified().await;
    }

    fn said(&self) -> MutexGuard<'_, Saying> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use eventbus_core::delivery::Outcome;
    use eventbus_core::limits;
    use eventbus_core::reconcile::{Backlog, DeliveryHealth};
    use eventbus_core::report::Said;
    use eventbus_core::testing::SeededEntropy;
    use futures::FutureExt;

    use super::*;

    const FAILING: DeliveryHealth = DeliveryHealth::Failing(Outcome::Timeout);
    const DELIVERING: DeliveryHealth = DeliveryHealth::Delivering;
    const UNTRIED: DeliveryHealth = DeliveryHealth::Untried;

    fn health(delivery: DeliveryHealth) -> Health {
        Health { delivery, backlog: None }
    }

    /// A process that pushes, and what it says.
    struct Process {
        id: ProcessId,
        board: HealthBoard,
        teller: Teller,
    }

    impl Process {
        fn new(seed: u64) -> Self {
            let id = ProcessId::draw(&SeededEntropy::new(seed));
            Self { id, board: HealthBoard::default(), teller: Teller::default() }
        }

        fn says(&mut self, uid: &str, delivery: DeliveryHealth) -> Vec<Report> {
            self.board.report(&uid.into(), health(delivery));
            self.changes()
        }

        fn changes(&mut self) -> Vec<Report> {
            self.teller.changes(self.board.here())
        }

        fn everything(&mut self) -> Vec<Report> {
            self.teller.everything(self.board.here())
        }
    }

    /// The process in which the sub-validator is.
    #[derive(Default)]
    struct Listener {
        board: HealthBoard,
        now: Duration,
    }

    impl Listener {
        fn hears(&mut self, process: ProcessId, reports: Vec<Report>) {
            self.now += Duration::from_millis(1);
            for report in reports {
                self.board.hear(process, report, self.now);
            }
        }

        fn of(&self, uid: &str) -> DeliveryHealth {
            self.board.of(&uid.into()).delivery
        }

        fn is_told(&self) -> bool {
            self.board.changed().now_or_never().is_some()
        }
    }

    #[test]
    fn the_worst_of_all_processes_counts_and_each_change_is_told_once() {
        let (mut one, mut other) = (Process::new(1), Process::new(2));
        let mut listener = Listener::default();
        listener.hears(one.id, one.says("a", DELIVERING));
        assert!(listener.is_told());
        listener.hears(other.id, other.says("a", FAILING));
        assert!(listener.is_told());
        assert_eq!((listener.of("a"), listener.of("b")), (FAILING, UNTRIED));
        listener.board.report(&"a".into(), health(DeliveryHealth::BrokerUnavailable));
        assert_eq!(listener.of("a"), DeliveryHealth::BrokerUnavailable);
        listener.board.report(&"a".into(), health(UNTRIED));
        assert_eq!((listener.is_told(), listener.of("a")), (true, FAILING));
        listener.hears(other.id, other.says("a", DELIVERING));
        assert_eq!((listener.is_told(), listener.of("a")), (true, DELIVERING));
        let again = one.everything();
        listener.hears(one.id, again);
        listener.hears(one.id, one.changes());
        assert!(!listener.is_told(), "nothing is new");
        let silent = Report { round: 1, ..Report::default() };
        assert_eq!(one.says("a", DELIVERING), [silent]);
    }

    #[test]
    fn the_larger_backlog_counts() {
        let listener = Listener::default();
        let lost = |lost_events| {
            let backlog = Some(Backlog { lost_events, fill: None });
            let health = Health { delivery: DELIVERING, backlog };
            let subscriptions = vec![Said { uid: "a".into(), health }];
            Report { subscriptions, ..Report::default() }
        };
        for (seed, lost_events) in [(1, 5), (2, 7), (3, 6)] {
            listener.board.hear(Process::new(seed).id, lost(lost_events), Duration::ZERO);
        }
        assert_eq!(listener.board.of(&"a".into()).backlog.unwrap().lost_events, 7);
    }

    #[test]
    fn a_silent_process_is_dropped_and_the_living_count() {
        let (mut one, mut other) = (Process::new(1), Process::new(2));
        let mut listener = Listener::default();
        listener.hears(one.id, one.says("a", FAILING));
        listener.hears(one.id, one.says("b", FAILING));
        listener.hears(other.id, other.says("a", DELIVERING));
        let silent = limits::REPORT_SILENCE;
        listener.now += silent - Duration::from_millis(4);
        listener.board.drop_silent(listener.now);
        assert_eq!((listener.of("a"), listener.of("b")), (FAILING, FAILING));
        listener.hears(other.id, other.changes());
        assert!(listener.is_told());
        listener.now += Duration::from_millis(3);
        listener.board.drop_silent(listener.now);
        // Of the second nobody knows any more: what was said before holds.
        assert_eq!((listener.of("a"), listener.of("b")), (DELIVERING, UNTRIED));
        assert!(listener.is_told());
        listener.hears(one.id, one.everything());
        assert_eq!((listener.of("a"), listener.of("b")), (FAILING, FAILING), "it lives");
    }

    #[test]
    fn a_farewell_ends_at_once_what_was_said() {
        let mut one = Process::new(1);
        let mut listener = Listener::default();
        listener.hears(one.id, one.says("a", FAILING));
        assert!(listener.is_told());
        listener.hears(one.id, vec![one.teller.farewell()]);
        assert_eq!((listener.is_told(), listener.of("a")), (true, UNTRIED));
        listener.hears(one.id, vec![one.teller.farewell()]);
        assert!(!listener.is_told());
    }

    #[test]
    fn who_hears_late_or_not_everything_knows_all_after_a_round() {
        let mut one = Process::new(1);
        let mut listener = Listener::default();
        for uid in ["a", "b", "c"] {
            one.says(uid, FAILING);
        }
        listener.hears(one.id, one.changes());
        assert_eq!(listener.of("a"), UNTRIED, "it was told before");
        let all = one.everything();
        listener.hears(one.id, all);
        assert_eq!([listener.of("a"), listener.of("c")], [FAILING; 2]);
        // Lost: that one recovered, and that nothing is known of another any more.
        one.says("b", DELIVERING);
        one.says("c", UNTRIED);
        for round in 0..3 {
            let all = one.everything();
            listener.hears(one.id, all);
            assert_eq!((listener.of("a"), listener.of("b")), (FAILING, DELIVERING));
            // One lost round takes nothing back; what two do not tell is over.
            let expected = if round < 2 { FAILING } else { UNTRIED };
            assert_eq!(listener.of("c"), expected, "round {round}");
        }
    }

    #[test]
    fn everything_is_told_in_reports_of_bounded_size() {
        let mut one = Process::new(1);
        let count = limits::REPORT_SUBSCRIPTIONS * 2 + 1;
        for uid in 0..count {
            one.board.report(&uid.to_string().into(), health(DELIVERING));
        }
        let mut listener = Listener::default();
        for reports in [one.changes(), one.everything()] {
            let sizes: Vec<_> = reports.iter().map(|report| report.subscriptions.len()).collect();
            assert_eq!(sizes, [limits::REPORT_SUBSCRIPTIONS, limits::REPORT_SUBSCRIPTIONS, 1]);
            listener.hears(one.id, reports);
        }
        assert!((0..count).all(|uid| listener.of(&uid.to_string()) == DELIVERING));
    }

    #[test]
    fn whatever_strangers_say_is_bounded() {
        let listener = Listener::default();
        let report = |round, uids: std::ops::Range<usize>| {
            let said = |uid: usize| Said { uid: uid.to_string().into(), health: health(FAILING) };
            Report { round, farewell: false, subscriptions: uids.map(said).collect() }
        };
        let first = Process::new(0).id;
        let most = limits::REPORT_KEPT;
        listener.board.hear(first, report(u64::MAX, 0..most + 10), Duration::ZERO);
        assert_eq!((listener.of("0"), listener.of(&most.to_string())), (FAILING, UNTRIED));
        // A place that is free is taken.
        let ended = Said { uid: "0".into(), health: Health::default() };
        let ended = Report { round: u64::MAX, farewell: false, subscriptions: vec![ended] };
        listener.board.hear(first, ended, Duration::ZERO);
        listener.board.hear(first, report(0, most..most + 2), Duration::ZERO);
        assert_eq!(listener.of("0"), UNTRIED);
        for seed in 1..=limits::REPORT_PROCESSES as u64 {
            let uid = seed as usize + 2 * most;
            listener.board.hear(Process::new(seed).id, report(1, uid..uid + 1), Duration::ZERO);
        }
        let last = limits::REPORT_PROCESSES + 2 * most;
        assert_eq!(listener.of(&(last - 1).to_string()), FAILING);
        assert_eq!(listener.of(&last.to_string()), UNTRIED, "one process too many");
        listener.board.drop_silent(limits::REPORT_SILENCE);
        let (id, later) = (Process::new(7).id, limits::REPORT_SILENCE);
        listener.board.hear(id, report(1, last..last + 1), later);
        assert_eq!(listener.of(&last.to_string()), FAILING);
    }
}
