//! What publishers, subscribers and the run know of each other while it goes on.
//!
//! Publishers run on one thread, subscribers on another: counters that both read are atomic, and
//! each has one writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, SetOnce};

/// Sequences before this one belong to no measurement.
const NEVER: u64 = u64::MAX;

/// The state of one run.
#[derive(Debug)]
pub(super) struct Board {
    next: AtomicU64,
    /// No sequence from here on is issued. It only ever falls: what has ended stays so.
    limit: AtomicU64,
    measured_from: AtomicU64,
    published: AtomicU64,
    delivered: AtomicU64,
    failing: AtomicU64,
    /// Lets an event go when it is due (open loop).
    pub(super) due: Option<Arc<Semaphore>>,
    window: Option<Semaphore>,
    deliveries_per_event: u64,
    complaint: SetOnce<String>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    /// Events taken by the bus.
    pub(super) published: u64,
    /// Events that arrived for the first time, once for each Subscription that is checked.
    pub(super) delivered: u64,
    /// Deliveries that were made to fail, and have not come again yet.
    pub(super) failing: u64,
}

impl Board {
    /// A run that has not begun. `window` events may be undelivered at once, each of them delivered
    /// `deliveries_per_event` times.
    pub(super) fn new(is_paced: bool, window: Option<u32>, deliveries_per_event: u32) -> Self {
        Self {
            next: AtomicU64::new(0),
            limit: AtomicU64::new(NEVER),
            measured_from: AtomicU64::new(NEVER),
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            failing: AtomicU64::new(0),
            due: is_paced.then(|| Arc::new(Semaphore::new(0))),
            window: window.map(|events| Semaphore::new(events as usize)),
            deliveries_per_event: deliveries_per_event.max(1).into(),
            complaint: SetOnce::new(),
        }
    }

    /// The sequence of the first of the next `events` events, once they may be published. None when
    /// no more are wanted. Called by the publishers' thread only.
    pub(super) async fn issue(&self, events: u16) -> Option<u64> {
        if let Some(due) = &self.due {
            due.acquire_many(events.into()).await.ok()?.forget();
        }
        if let Some(window) = &self.window {
            window.acquire_many(events.into()).await.ok()?.forget();
        }
        let next = self.next.load(Ordering::Relaxed);
        let is_wanted = next < self.limit.load(Ordering::Relaxed);
        if is_wanted {
            self.next.store(next + u64::from(events), Ordering::SeqCst);
        }
        self.close_gates_at_end();
        is_wanted.then_some(next)
    }

    /// How many events were issued: all sequences are below.
    pub(super) fn issued(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Begins to measure: `events` of them (full batches), or until it is stopped.
    pub(super) fn measure(&self, events: Option<u64>) {
        let from = self.issued();
        // The limit first: between the two no event may be issued that is beyond it.
        self.end_at(events.map_or(NEVER, |events| from + events));
        self.measured_from.store(from, Ordering::Relaxed);
    }

    /// Whether an event belongs to the measurement.
    pub(super) fn is_measured(&self, sequence: u64) -> bool {
        sequence >= self.measured_from.load(Ordering::Relaxed)
    }

    /// Counts events that the bus has taken.
    pub(super) fn count_published(&self, events: u16) {
        self.published.fetch_add(events.into(), Ordering::Relaxed);
    }

    /// Counts an event that arrived at one Subscription for the first time.
    pub(super) fn count_delivered(&self) {
        let delivered = self.delivered.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(window) = &self.window
            && delivered.is_multiple_of(self.deliveries_per_event)
        {
            window.add_permits(1);
        }
    }

    /// Takes down how many deliveries were made to fail, and have not come again yet.
    pub(super) fn set_failing(&self, deliveries: usize) {
        self.failing.store(deliveries as u64, Ordering::Relaxed);
    }

    /// The counters now.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            published: self.published.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            failing: self.failing.load(Ordering::Relaxed),
        }
    }

    /// Lets only the events before `sequence` be published, if not fewer.
    pub(super) fn end_at(&self, sequence: u64) {
        self.limit.fetch_min(sequence, Ordering::SeqCst);
        self.close_gates_at_end();
    }

    /// Lets no more events be published.
    pub(super) fn stop(&self) {
        self.end_at(0);
    }

    /// Nobody may go on waiting for a turn that will not come. Whoever moves one of the two numbers
    /// looks at both afterwards, so that one of them sees the end.
    fn close_gates_at_end(&self) {
        if self.issued() >= self.limit.load(Ordering::SeqCst) {
            for gate in self.due.as_deref().into_iter().chain(&self.window) {
                gate.close();
            }
        }
    }

    /// Whether no more events are to be published.
    pub(super) fn is_stopped(&self) -> bool {
        self.limit.load(Ordering::Relaxed) == 0
    }

    /// Says that something is wrong: the run has failed, and stops. The first complaint is kept.
    pub(super) fn complain(&self, what: String) {
        // A later one follows from the first, most likely.
        let _ = self.complaint.set(what);
        self.stop();
    }

    /// The first complaint, if there was any.
    pub(super) fn complaint(&self) -> Option<String> {
        self.complaint.get().cloned()
    }

    /// Resolves to the first complaint, once there is one.
    pub(super) async fn failure(&self) -> String {
        self.complaint.wait().await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sequences_are_issued_until_the_measured_ones_are_gone() {
        let board = Board::new(false, None, 1);
        assert_eq!(board.issue(1).await, Some(0));
        assert!(!board.is_measured(0));
        board.measure(Some(2));
        assert_eq!((board.issue(1).await, board.issue(1).await), (Some(1), Some(2)));
        assert_eq!(board.issue(1).await, None);
        assert!(!board.is_measured(0) && board.is_measured(1));
        assert_eq!(board.issued(), 3);
    }

    #[tokio::test]
    async fn a_window_opens_when_an_event_has_arrived_everywhere() {
        let board = Board::new(false, Some(1), 2);
        assert_eq!(board.issue(1).await, Some(0));
        let mut next = Box::pin(board.issue(1));
        assert!(futures::poll!(&mut next).is_pending());
        board.count_delivered();
        assert!(futures::poll!(&mut next).is_pending());
        board.count_delivered();
        assert_eq!(next.await, Some(1));
    }

    #[tokio::test]
    async fn a_complaint_stops_the_run_and_the_first_is_kept() {
        let board = Board::new(true, None, 1);
        let waiting = board.issue(1);
        board.complain("first".to_owned());
        board.complain("second".to_owned());
        assert_eq!(waiting.await, None);
        assert_eq!(board.failure().await, "first");
        assert_eq!(board.complaint().as_deref(), Some("first"));
    }

    #[tokio::test]
    async fn what_has_failed_is_not_measured() {
        let board = Board::new(false, None, 1);
        board.complain("while it warmed up".to_owned());
        board.measure(None);
        assert_eq!(board.issue(1).await, None);
    }

    #[tokio::test]
    async fn what_is_due_before_the_end_is_issued_still_and_nobody_waits_for_more() {
        let board = Board::new(true, None, 1);
        board.due.as_ref().unwrap().add_permits(3);
        board.measure(None);
        assert_eq!(board.issue(1).await, Some(0));
        board.end_at(2);
        assert_eq!((board.issue(1).await, board.issue(1).await), (Some(1), None));
        let idle = Board::new(true, None, 1);
        let waiting = idle.issue(1);
        idle.end_at(0);
        assert_eq!(waiting.await, None);
    }
}
