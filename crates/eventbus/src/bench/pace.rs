//! When events are due at a fixed rate, and a clockwork that lets them go.
//!
//! A latency is counted from the moment an event was due, not from the moment it could be sent: a
//! bus that stalls for a second delays all that was due in that second, and a publisher that waits
//! for it politely would not see it (coordinated omission).

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use eventbus_core::Clock;
use tokio::sync::Semaphore;

/// How often the clockwork looks at the clock: fine enough for latencies of a millisecond, at about
/// one hundredth of a core.
const TICK: Duration = Duration::from_micros(500);

/// Events evenly in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start: Duration,
    rate_per_s: f64,
}

/// Lets each event go when it is due. Ends when it is dropped.
pub(super) struct Clockwork {
    gate: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

// === impl Schedule ===

impl Schedule {
    /// `rate_per_s` (above zero) events a second, the first at `start`.
    pub(super) fn new(start: Duration, rate_per_s: f64) -> Self {
        Self { start, rate_per_s }
    }

    /// When the event with this number, from zero, is due.
    pub(super) fn due(&self, number: u64) -> Duration {
        self.start + Duration::from_secs_f64(number as f64 / self.rate_per_s)
    }

    /// How many events are due by `now`.
    pub(super) fn count_by(&self, now: Duration) -> u64 {
        match now.checked_sub(self.start) {
            Some(since) => (since.as_secs_f64() * self.rate_per_s) as u64 + 1,
            None => 0,
        }
    }
}

// === impl Clockwork ===

impl Clockwork {
    /// Starts a thread that adds a permit to `gate` for each event of `schedule` when it is due,
    /// until the gate is closed. A thread of its own: the timers of a runtime tick in milliseconds.
    pub(super) fn start(
        schedule: Schedule,
        gate: Arc<Semaphore>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let given = gate.clone();
        let thread = std::thread::Builder::new().name("pace".to_owned()).spawn(move || {
            let mut released = 0;
            while !given.is_closed() {
                let due = schedule.count_by(clock.elapsed());
                given.add_permits((due - released) as usize);
                released = due;
                let until_next = schedule.due(due).saturating_sub(clock.elapsed());
                std::thread::sleep(until_next.clamp(TICK, 100 * TICK));
            }
        })?;
        Ok(Self { gate, thread: Some(thread) })
    }
}

impl Drop for Clockwork {
    fn drop(&mut self) {
        self.gate.close();
        if let Some(thread) = self.thread.take() {
            // It sleeps in small steps and cannot fail.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::latency::Latency;
    use super::*;
    use crate::system::SystemClock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn events_are_due_evenly_from_the_start() {
        let schedule = Schedule::new(5 * MS, 2_000.0);
        assert_eq!(schedule.due(0), 5 * MS);
        assert_eq!(schedule.due(4), 7 * MS);
        assert_eq!(schedule.count_by(4 * MS), 0);
        assert_eq!(schedule.count_by(5 * MS), 1);
        assert_eq!(schedule.count_by(7 * MS), 5);
    }

    /// One connection to a bus that needs 1 ms an event and once stalls for a second: counted from
    /// when it was sent, a single event of a thousand is late; counted from when they were due, all
    /// of that second and of the time to catch up.
    #[test]
    fn a_stall_is_seen_by_every_event_that_was_due_in_it() {
        let schedule = Schedule::new(Duration::ZERO, 500.0);
        let (mut from_due, mut from_sent) = (Latency::new(), Latency::new());
        let mut free_at = Duration::ZERO;
        for number in 0..2_000 {
            let due = schedule.due(number);
            let sent = free_at.max(due);
            free_at = sent + if number == 1_000 { 1_000 * MS } else { MS };
            from_due.record(free_at - due);
            from_sent.record(free_at - sent);
        }
        assert!(from_sent.percentiles().p99_us <= 1_001);
        // 500 events fall due in the stall, and as many again while it catches up: half of all
        // 2,000, spread evenly from 1,000 ms down to none.
        let seen = from_due.percentiles();
        assert!((950_000..=990_000).contains(&seen.p99_us), "{seen:?}");
        assert!((790_000..=810_000).contains(&seen.p90_us), "{seen:?}");
        assert!((1_000..=30_000).contains(&seen.p50_us), "{seen:?}");
    }

    #[tokio::test]
    async fn the_clockwork_lets_events_go_until_it_is_closed() {
        let clock = Arc::new(SystemClock::start());
        let gate = Arc::new(Semaphore::new(0));
        let schedule = Schedule::new(clock.elapsed(), 100_000.0);
        let clockwork = Clockwork::start(schedule, gate.clone(), clock).unwrap();
        gate.acquire_many(100).await.unwrap().forget();
        drop(clockwork);
        assert!(gate.acquire().await.is_err());
    }
}
