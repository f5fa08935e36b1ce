//! The notices that wait to be written: how many, and which of them is next. A step machine; time
//! is an argument.
//!
//! Two bounds keep a storm small. What repeats while it waits is counted and not queued, and each
//! Subscription has an allowance that fills slowly: one that flaps costs itself its promptness and
//! nobody else a write.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use eventbus_core::notice::Notice;
use eventbus_core::subscription::Identity;
use eventbus_core::{Text, limits};

/// A notice that waits, with what was counted while it did.
#[derive(Debug)]
pub(super) struct Told {
    /// Of which Subscription.
    pub(super) identity: Identity,
    /// What it said last.
    pub(super) notice: Notice,
    /// How often.
    pub(super) count: u32,
    /// When first: wall-clock milliseconds since 1970.
    pub(super) first_ms: u64,
    /// When last.
    pub(super) last_ms: u64,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Told>,
    /// When the allowance of a Subscription will be full again; full where nothing stands.
    full_at: HashMap<Text, Duration>,
    /// How many were dropped since that was asked.
    dropped: u64,
}

impl Queue {
    /// Takes in what happened at `now_ms`, wall-clock time.
    pub(super) fn tell(&mut self, identity: &Identity, notice: Notice, now_ms: u64) {
        let is_same = |told: &&mut Told| {
            told.identity.uid == identity.uid && told.notice.reason == notice.reason
        };
        if let Some(told) = self.waiting.iter_mut().find(is_same) {
            told.count = told.count.saturating_add(1);
            told.last_ms = now_ms;
            told.notice = notice;
            return;
        }
        let (identity, first_ms, last_ms) = (identity.clone(), now_ms, now_ms);
        self.waiting.push_back(Told { identity, notice, count: 1, first_ms, last_ms });
        self.drop_what_is_too_much();
    }

    /// The next to be written at `now`, a moment of the process's own clock: the oldest of a
    /// Subscription with an allowance left.
    pub(super) fn next(&mut self, now: Duration) -> Option<Told> {
        self.full_at.retain(|_, full_at| *full_at > now);
        let may = |told: &Told| self.due(told) <= now;
        let at = self.waiting.iter().position(may)?;
        let told = self.waiting.remove(at)?;
        let full_at = self.full_at.entry(told.identity.uid.clone()).or_insert(now);
        *full_at += limits::NOTICE_AGAIN;
        self.give_room_back();
        Some(told)
    }

    /// When there is something to be written, if anything waits: a moment of the same clock.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.waiting.iter().map(|told| self.due(told)).min()
    }

    /// How many were dropped since the last call, once nothing waits.
    pub(super) fn take_dropped(&mut self) -> u64 {
        if self.waiting.is_empty() { std::mem::take(&mut self.dropped) } else { 0 }
    }

    fn due(&self, told: &Told) -> Duration {
        let full_at = self.full_at.get(&told.identity.uid).copied().unwrap_or_default();
        full_at.saturating_sub(limits::NOTICE_AGAIN * (limits::NOTICES_AT_ONCE - 1))
    }

    /// Of the newest one normal notice too many; of anything else the oldest, normal ones first.
    fn drop_what_is_too_much(&mut self) {
        let is_normal = |told: &Told| !told.notice.is_warning;
        let normal = self.waiting.iter().filter(|told| is_normal(told)).count();
        let dropped = if normal > limits::NOTICES_WAITING_NORMAL {
            self.waiting.pop_back()
        } else if self.waiting.len() > limits::NOTICES_WAITING {
            let at = self.waiting.iter().position(is_normal).unwrap_or_default();
            self.waiting.remove(at)
        } else {
            None
        };
        self.dropped += dropped.map_or(0, |told| told.count.into());
    }

    /// After a storm the queue keeps no room for the next one.
    fn give_room_back(&mut self) {
        if self.waiting.is_empty() {
            self.waiting.shrink_to_fit();
            self.full_at.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uid: &str) -> Identity {
        eventbus_core::testing::subscription(uid).identity
    }

    fn notice(is_warning: bool, reason: &str, text: &str) -> Notice {
        Notice { is_warning, reason: reason.to_owned(), text: text.to_owned() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Everything that may be written at `now`.
    fn all(queue: &mut Queue, now: Duration) -> Vec<Told> {
        std::iter::from_fn(|| queue.next(now)).collect()
    }

    #[test]
    fn what_repeats_while_it_waits_is_counted() {
        let mut queue = Queue::default();
        queue.tell(&identity("a"), notice(true, "Failing", "first"), 1_000);
        queue.tell(&identity("b"), notice(true, "Failing", "other"), 2_000);
        queue.tell(&identity("a"), notice(true, "Failing", "last"), 3_000);
        queue.tell(&identity("a"), notice(false, "Delivering", ""), 4_000);
        let told = all(&mut queue, seconds(0));
        let told: Vec<_> = told
            .iter()
            .map(|told| (&*told.identity.uid, &*told.notice.text, told.count, told.last_ms))
            .collect();
        assert_eq!(told, [("a", "last", 2, 3_000), ("b", "other", 1, 2_000), ("a", "", 1, 4_000)]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn one_that_flaps_has_an_allowance_that_fills_slowly_and_holds_up_nobody() {
        let mut queue = Queue::default();
        let mut written = 0;
        for second in 0..600 {
            for reason in ["Failing", "Delivering"] {
                queue.tell(&identity("flaps"), notice(true, reason, ""), second * 1_000);
            }
            written += all(&mut queue, seconds(second)).len();
        }
        assert_eq!(written, 12 + 59, "at once, and one in ten seconds");
        let due = queue.next_due().unwrap();
        assert!(due > seconds(599) && due <= seconds(609), "{due:?}");
        queue.tell(&identity("calm"), notice(true, "Failing", ""), 0);
        assert_eq!(queue.next_due(), Some(seconds(0)));
        let told = all(&mut queue, seconds(599));
        assert_eq!(told.iter().map(|told| &*told.identity.uid).collect::<Vec<_>>(), ["calm"]);
        // What was held back tells of everything between.
        let told = all(&mut queue, seconds(700));
        let counts: u32 = told.iter().map(|told| told.count).sum();
        assert!(told.len() == 2 && counts > 10, "{told:?}");
        // Long at rest: nothing is remembered of it.
        assert!(queue.next(seconds(10_000)).is_none());
        assert_eq!(queue.full_at.len(), 0);
    }

    #[test]
    fn a_storm_of_normal_notices_is_cut_short_and_pushes_out_no_warning() {
        let mut queue = Queue::default();
        queue.tell(&identity("w"), notice(true, "Failing", ""), 0);
        for number in 0..10_000 {
            queue.tell(&identity(&number.to_string()), notice(false, "Activated", ""), 0);
        }
        assert_eq!(queue.take_dropped(), 0, "while something waits it is not said");
        let told = all(&mut queue, seconds(0));
        assert_eq!(told.len(), 1 + limits::NOTICES_WAITING_NORMAL);
        assert!(told[0].notice.is_warning);
        assert_eq!(&*told[1].identity.uid, "0");
        assert_eq!(queue.take_dropped(), 10_000 - limits::NOTICES_WAITING_NORMAL as u64);
        assert_eq!(queue.take_dropped(), 0);
    }

    #[test]
    fn a_storm_of_warnings_drops_what_is_normal_and_then_the_oldest() {
        let mut queue = Queue::default();
        queue.tell(&identity("n"), notice(false, "Activated", ""), 0);
        for number in 0..limits::NOTICES_WAITING + 2 {
            queue.tell(&identity(&number.to_string()), notice(true, "Failing", ""), 0);
        }
        let told = all(&mut queue, seconds(0));
        assert_eq!(told.len(), limits::NOTICES_WAITING);
        assert!(told.iter().all(|told| told.notice.is_warning));
        assert_eq!(&*told[0].identity.uid, "2");
        assert_eq!(queue.take_dropped(), 3);
    }
}
