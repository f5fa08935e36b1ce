//! What is told of a backlog: what it has lost, and how full it is. A step machine; time is an
//! argument.
//!
//! What is told ends in a status, and statuses cost writes. So a backlog is told in coarse steps:
//! one that fills evenly, or loses events all the time, causes a few writes and no storm of them.

use std::time::Duration;

use eventbus_core::broker::CursorStats;
use eventbus_core::limits;
use eventbus_core::reconcile::{Backlog, Fill};

/// What is told of one backlog.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauge {
    told: Option<Backlog>,
    /// When the losses were counted that are told.
    counted_at: Duration,
    /// The step that it is told to have reached, in percent; 0: none.
    step_percent: u64,
    /// Events lost when last looked.
    dropped_events: Option<u64>,
    /// When a look found the last loss, unless that is long ago.
    lost_at: Option<Duration>,
}

impl Gauge {
    /// Takes in how the cursor was when it was opened: what it had lost by then is counted, and no
    /// news; what it loses before the first look is.
    pub(crate) fn begin(&mut self, stats: &CursorStats) {
        self.dropped_events.get_or_insert(stats.dropped_events);
    }

    /// Takes in how the cursor is at `now`, time since the process began. Gives what it reached
    /// when that is a higher step than before.
    pub(crate) fn look(&mut self, stats: &CursorStats, now: Duration) -> Option<Fill> {
        let before = self.dropped_events.replace(stats.dropped_events);
        if before.is_some_and(|before| stats.dropped_events > before) {
            self.lost_at = Some(now);
        }
        self.lost_at.take_if(|at| now.saturating_sub(*at) >= limits::LOSS_SHOWN);
        let lost_events = self.count(stats.dropped_events, now);
        let step_percent = self.step(stats);
        let before_percent = std::mem::replace(&mut self.step_percent, step_percent);
        let fill = match step_percent {
            0 => None,
            _ if step_percent == before_percent => self.told.and_then(|told| told.fill),
            _ => fill(stats),
        };
        self.told = Some(Backlog { lost_events, fill });
        fill.filter(|_| step_percent > before_percent)
    }

    /// What is told; `None` before the first look.
    pub(crate) fn told(&self) -> Option<Backlog> {
        self.told
    }

    /// Did the last look find losses, or is it not long since one did?
    pub(crate) fn has_just_lost(&self) -> bool {
        self.lost_at.is_some()
    }

    fn count(&mut self, dropped_events: u64, now: Duration) -> u64 {
        if let Some(Backlog { lost_events, .. }) = self.told {
            let more = lost_events.saturating_add(lost_events / limits::LOSS_TOLD_PART);
            let is_near = (lost_events..=more).contains(&dropped_events);
            let is_fresh = now.saturating_sub(self.counted_at) < limits::LOSS_TOLD_WITHIN;
            if dropped_events == lost_events || is_near && is_fresh {
                return lost_events;
            }
        }
        self.counted_at = now;
        dropped_events
    }

    fn step(&self, stats: &CursorStats) -> u64 {
        let percent = fill(stats).map_or(0, Fill::percent);
        let is_reached = |step: &u64| {
            let slack = if *step <= self.step_percent { limits::BACKLOG_SLACK_PERCENT } else { 0 };
            percent >= step - slack
        };
        limits::BACKLOG_STEPS_PERCENT.into_iter().rev().find(is_reached).unwrap_or(0)
    }
}

fn fill(stats: &CursorStats) -> Option<Fill> {
    stats.backlog_max_bytes.map(|max_bytes| Fill { bytes: stats.backlog_bytes, max_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gauge that is read every second.
    #[derive(Default)]
    struct Looks {
        gauge: Gauge,
        now: Duration,
    }

    impl Looks {
        fn look(&mut self, stats: CursorStats) -> (Backlog, Option<Fill>) {
            self.now += Duration::from_secs(1);
            let risen = self.gauge.look(&stats, self.now);
            (self.gauge.told().unwrap(), risen)
        }

        fn lost(&mut self, dropped_events: u64) -> u64 {
            self.look(CursorStats { dropped_events, ..CursorStats::default() }).0.lost_events
        }

        /// What is told of the fill, and whether it has risen.
        fn filled(&mut self, backlog_bytes: u64) -> (Option<u64>, bool) {
            let backlog_max_bytes = Some(1_000);
            let stats = CursorStats { backlog_bytes, backlog_max_bytes, ..CursorStats::default() };
            let (told, risen) = self.look(stats);
            assert!(risen.is_none_or(|risen| Some(risen) == told.fill));
            (told.fill.map(|fill| fill.bytes), risen.is_some())
        }
    }

    #[test]
    fn a_loss_is_counted_for_ever_and_shown_for_a_while() {
        let mut looks = Looks::default();
        assert_eq!(looks.lost(5), 5, "lost before this process began");
        assert!(!looks.gauge.has_just_lost());
        assert_eq!(looks.lost(225), 225);
        let shown = limits::LOSS_SHOWN.as_secs();
        for _ in 0..shown {
            assert!(looks.gauge.has_just_lost());
            assert_eq!(looks.lost(225), 225);
        }
        assert!(!looks.gauge.has_just_lost());
        assert_eq!(looks.lost(226), 226, "the count is old");
        assert!(looks.gauge.has_just_lost());
    }

    #[test]
    fn what_is_lost_before_the_first_look_is_news() {
        let mut looks = Looks::default();
        looks.gauge.begin(&CursorStats::default());
        assert_eq!(looks.gauge.told(), None);
        assert_eq!(looks.lost(220), 220);
        assert!(looks.gauge.has_just_lost());
    }

    #[test]
    fn the_while_begins_anew_with_each_loss() {
        let mut looks = Looks::default();
        for lost in 0..10 {
            looks.lost(lost);
            for _ in 2..limits::LOSS_SHOWN.as_secs() {
                looks.lost(lost);
            }
            assert_eq!(looks.gauge.has_just_lost(), lost > 0);
        }
    }

    #[test]
    fn who_loses_all_the_time_is_told_seldom_and_near_the_truth() {
        let mut looks = Looks::default();
        let (mut told, mut times) = (looks.lost(0), 0);
        for lost in 1..=10_000 {
            let now = looks.lost(lost);
            times += u32::from(now != told);
            told = now;
            assert!(told <= lost && lost - told <= lost / 10, "{told} told of {lost}");
            assert!(lost - told < limits::LOSS_TOLD_WITHIN.as_secs());
        }
        assert!(times < 220, "{times} times");
        for _ in 0..limits::LOSS_TOLD_WITHIN.as_secs() {
            told = looks.lost(10_000);
        }
        assert_eq!(told, 10_000);
        assert_eq!(looks.lost(3), 3, "another log");
    }

    #[test]
    fn a_backlog_that_fills_is_told_three_times_and_warned_of_as_often() {
        let mut looks = Looks::default();
        let mut told = Vec::new();
        for bytes in 0..=1_100 {
            if let (Some(at), true) = looks.filled(bytes) {
                told.push(at);
            }
        }
        assert_eq!(told, [500, 750, 900]);
        assert_eq!(looks.filled(1_100).0, Some(900), "as it was when it reached the step");
    }

    #[test]
    fn who_hovers_at_a_step_is_no_news() {
        let mut looks = Looks::default();
        assert_eq!(looks.filled(499), (None, false));
        assert_eq!(looks.filled(500), (Some(500), true));
        for bytes in [450, 501, 499, 749] {
            assert_eq!(looks.filled(bytes), (Some(500), false));
        }
        assert_eq!(looks.filled(950), (Some(950), true), "two steps at once");
        assert_eq!(looks.filled(850), (Some(950), false));
        assert_eq!(looks.filled(849), (Some(849), false), "fallen, and told, but no warning");
        assert_eq!(looks.filled(440), (None, false));
        assert_eq!(looks.filled(500), (Some(500), true));
    }

    #[test]
    fn where_nothing_limits_a_backlog_it_is_never_full() {
        let mut looks = Looks::default();
        for backlog_max_bytes in [None, Some(0), Some(u64::MAX)] {
            let stats =
                CursorStats { backlog_bytes: 1 << 40, backlog_max_bytes, ..CursorStats::default() };
            assert_eq!(looks.look(stats), (Backlog::default(), None));
        }
    }
}
