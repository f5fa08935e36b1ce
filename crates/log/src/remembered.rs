//! The ids that were stored of late: an event that repeats one of them is not stored again.
//!
//! They are the writer's alone, so no lock guards them, and they are what the segments say: made
//! anew from those whenever the log is opened. Time is commit time alone, which never falls and
//! goes on with the commits: a clock that jumps while nothing is stored makes nothing forgotten.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Ids by their hash: about 30 bytes each. Publishers choose them, so they are hashed once more,
/// with keys of this process.
pub(crate) struct Remembered {
    window_ms: u64,
    most: usize,
    known: HashTable<Number>,
    keys: RandomState,
    order: Order,
    /// How many of them came when.
    times: VecDeque<Came>,
}

/// Ids are numbered as they come; after the highest number comes 0.
type Number = u32;

/// The ids in the order in which they came.
#[derive(Default)]
struct Order {
    ids: VecDeque<u128>,
    /// The number of the first one.
    first: Number,
}

impl Order {
    fn get(&self, number: Number) -> Option<u128> {
        self.ids.get(number.wrapping_sub(self.first) as usize).copied()
    }

    /// The number of the one that comes next. There are fewer than there are numbers.
    fn next(&self) -> Number {
        self.first.wrapping_add(self.ids.len() as Number)
    }

    fn pop_first(&mut self) -> Option<(Number, u128)> {
        let id = self.ids.pop_front()?;
        let number = self.first;
        self.first = number.wrapping_add(1);
        Some((number, id))
    }

    fn pop_last(&mut self) -> Option<(Number, u128)> {
        let id = self.ids.pop_back()?;
        Some((self.next(), id))
    }
}

#[derive(Clone, Copy)]
struct Came {
    ms: u64,
    count: usize,
}

impl Remembered {
    /// Ids for so long, and `most` of them; none when the time is zero.
    pub(crate) fn new(time: Duration, most: usize) -> Self {
        let window_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (known, keys) = (HashTable::new(), RandomState::new());
        let (order, times) = (Order::default(), VecDeque::new());
        Self { window_ms, most, known, keys, order, times }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.order.ids.len()
    }

    /// How many there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Makes room for `count` more: so many will be admitted.
    pub(crate) fn expect(&mut self, count: usize) {
        let Self { known, keys, order, .. } = self;
        known.reserve(count, |number| order.get(*number).map_or(0, |id| keys.hash_one(id)));
        order.ids.reserve(count);
    }

    /// Would an id be remembered at `now_ms` that came at `ms`?
    pub(crate) fn reaches(&self, ms: u64, now_ms: u64) -> bool {
        ms.saturating_add(self.window_ms) > now_ms
    }

    /// Takes in the id of an event that is stored at `ms`; false when it repeats one. What has no
    /// id (0) is always new.
    pub(crate) fn admit(&mut self, hash: u128, ms: u64) -> bool {
        if hash == 0 || self.window_ms == 0 {
            return true;
        }
        let Self { known, keys, order, .. } = self;
        let is_it = |number: &Number| order.get(*number) == Some(hash);
        let hashed = |number: &Number| order.get(*number).map_or(0, |id| keys.hash_one(id));
        match known.entry(keys.hash_one(hash), is_it, hashed) {
            Entry::Occupied(_) => return false,
            Entry::Vacant(place) => drop(place.insert(order.next())),
        }
        self.order.ids.push_back(hash);
        match self.times.back_mut() {
            Some(last) if last.ms >= ms => last.count += 1,
            _ => self.times.push_back(Came { ms, count: 1 }),
        }
        true
    }

    /// Is this the id of an event that was stored of late?
    pub(crate) fn knows(&self, hash: u128) -> bool {
        let is_it = |number: &Number| self.order.get(*number) == Some(hash);
        self.known.find(self.keys.hash_one(hash), is_it).is_some()
    }

    /// Forgets the last ones until there are `len`: they were not stored.
    pub(crate) fn take_back(&mut self, len: usize) {
        while self.len() > len
            && let Some((number, id)) = self.order.pop_last()
        {
            self.remove(number, id);
            if let Some(last) = self.times.back_mut() {
                last.count -= 1;
            }
            self.times.pop_back_if(|last| last.count == 0);
        }
    }

    /// Forgets what came too long before `now_ms`, and the oldest beyond the most there may be.
    pub(crate) fn forget(&mut self, now_ms: u64) {
        while let Some(first) = self.times.front().copied() {
            let over = self.len().saturating_sub(self.most);
            let is_old = !self.reaches(first.ms, now_ms);
            let count = if is_old { first.count } else { first.count.min(over) };
            if count == 0 {
                break;
            }
            for _ in 0..count {
                if let Some((number, id)) = self.order.pop_first() {
                    self.remove(number, id);
                }
            }
            if let Some(first) = self.times.front_mut() {
                first.count -= count;
            }
            self.times.pop_front_if(|first| first.count == 0);
        }
        // What a burst needed is not kept for ever.
        let Self { known, keys, order, .. } = self;
        if order.ids.len() < order.ids.capacity() / 4 {
            let hashed = |number: &Number| order.get(*number).map_or(0, |id| keys.hash_one(id));
            known.shrink_to(known.len() * 2, hashed);
            order.ids.shrink_to(order.ids.len() * 2);
            self.times.shrink_to(self.times.len() * 2);
        }
    }

    fn remove(&mut self, number: Number, id: u128) {
        if let Ok(known) = self.known.find_entry(self.keys.hash_one(id), |other| *other == number) {
            known.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_seconds(most: usize) -> Remembered {
        Remembered::new(Duration::from_secs(2), most)
    }

    #[test]
    fn an_id_is_remembered_for_its_time_and_a_repeat_does_not_make_it_longer() {
        let mut ids = two_seconds(100);
        assert!(ids.admit(7, 1_000));
        ids.forget(2_999);
        assert!(!ids.admit(7, 2_999));
        ids.forget(3_000);
        assert_eq!(ids.len(), 0);
        assert!(ids.admit(7, 3_000));
    }

    #[test]
    fn events_without_an_id_are_always_new_and_take_no_room() {
        let mut ids = two_seconds(100);
        assert!(ids.admit(0, 1) && ids.admit(0, 1));
        let mut off = Remembered::new(Duration::ZERO, 100);
        assert!(off.admit(7, 1) && off.admit(7, 1));
        assert_eq!(ids.len() + off.len(), 0);
    }

    #[test]
    fn beyond_the_most_the_oldest_leave_first() {
        let mut ids = two_seconds(3);
        for hash in 1..=5 {
            ids.admit(hash, 10 + u64::from(hash > 4));
        }
        ids.forget(11);
        let known: Vec<u128> = (1..=5).filter(|hash| !ids.admit(*hash, 11)).collect();
        assert_eq!(known, [3, 4, 5]);
    }

    #[test]
    fn what_was_not_stored_is_taken_back() {
        let mut ids = two_seconds(100);
        ids.admit(1, 10);
        let before = ids.len();
        assert!(ids.admit(2, 10) && ids.admit(3, 20) && !ids.admit(1, 20));
        ids.take_back(before);
        assert!(!ids.admit(1, 30) && ids.admit(2, 30) && ids.admit(3, 30));
        ids.forget(2_029);
        assert_eq!(ids.len(), 2);
    }

    #[test]
    fn the_room_of_a_burst_is_given_back() {
        let mut ids = two_seconds(1_000_000);
        for hash in 1..=100_000 {
            ids.admit(hash, hash as u64 / 1_000);
        }
        assert!(ids.order.ids.capacity() >= 100_000);
        ids.forget(2_100);
        assert!(
            ids.order.ids.capacity() < 1_000 && ids.times.capacity() < 100 && ids.known.is_empty()
        );
    }
}
