//! What publishers, subscribers and the run know of each other while it goes on.
//!
//! Publishers run on one thread, subscribers on another: counters that both read are atomic, and
//! each has one writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Sequences before this one belong to no measurement.
const NEVER: u64 = u64::MAX;

/// The state of one run.
#[derive(Debug)]
pub(super) struct Board {
    next: AtomicU64,
    limit: AtomicU64,
    measured_from: AtomicU64,
    published: AtomicU64,
    delivered: AtomicU64,
    /// Lets an event go when it is due (open loop).
    pub(super) due: Option<Arc<Semaphore>>,
    window: Option<Semaphore>,
    deliveries_per_event: u64,
    complaint: Mutex<Option<String>>,
    stopped: CancellationToken,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters {
    /// Events taken by the bus.
    pub(super) published: u64,
    /// Events that arrived for the first time, once for each Subscription that is checked.
    pub(super) delivered: u64,
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
            due: is_paced.then(|| Arc::new(Semaphore::new(0))),
            window: window.map(|events| Semaphore::new(events as usize)),
            deliveries_per_event: deliveries_per_event.max(1).into(),
            complaint: Mutex::new(None),
            stopped: CancellationToken::new(),
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
        if next >= self.limit.load(Ordering::Relaxed) {
            // Nobody may go on waiting for a turn that will not come.
            self.close_gates();
            return None;
        }
        self.next.store(next + u64::from(events), Ordering::Release);
        Some(next)
    }

    /// How many events were issued: all sequences are below.
    pub(super) fn issued(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Begins to measure: `events` of them (full batches), or until it is stopped.
    pub(super) fn measure(&self, events: Option<u64>) {
        let from = self.issued();
        // The limit first: between the two no event may be issued that is beyond it.
        self.limit.store(events.map_or(NEVER, |events| from + events), Ordering::Relaxed);
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

    /// The counters now.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            published: self.published.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
        }
    }

    /// Lets no more events be published.
    pub(super) fn stop(&self) {
        self.limit.store(0, Ordering::Relaxed);
        self.close_gates();
        self.stopped.cancel();
    }

    fn close_gates(&self) {
        for gate in self.due.as_deref().into_iter().chain(&self.window) {
            gate.close();
        }
    }

    /// Whether no more events are to be published.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.is_cancelled()
    }

    /// Resolves once it is stopped.
    pub(super) async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Says that something is wrong: the run has failed, and stops. The first complaint is kept.
    pub(super) fn complain(&self, what: String) {
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        complaint.get_or_insert(what);
        drop(complaint);
        self.stop();
    }

    /// The first complaint, if there was any.
    pub(super) fn complaint(&self) -> Option<String> {
        self.complaint.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        board.stopped().await;
        assert_eq!(board.complaint().as_deref(), Some("first"));
    }
}
