//! Slots for attempts under way: the process's budget of connections, shared out fairly.
//!
//! A subscription may hold as many slots as are still free, and always one. So whoever holds many
//! leaves as many to the others: k greedy ones hold at most 1/(k+1) of the budget each, and what
//! remains is there for whoever comes next. Those without any stand in one line.
//!
//! Slots are taken and given back once a dispatcher's turn, not once an event.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// The process's slots.
#[derive(Clone, Debug)]
pub(crate) struct Slots(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    free: Semaphore,
    /// Held from the look at what is free until it is taken: two who saw the same would take all.
    resizing: Mutex<()>,
}

/// The slots that one subscription holds. They are given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    slots: Slots,
    held: usize,
}

impl Slots {
    /// A budget of `count` slots, at least one.
    pub(crate) fn new(count: usize) -> Self {
        let free = Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS));
        Self(Arc::new(Budget { free, resizing: Mutex::default() }))
    }

    /// A share that holds nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share { slots: self.clone(), held: 0 }
    }
}

impl Share {
    /// Slots held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Holds `wanted` slots, or as many as is fair, but never fewer than the `busy` ones.
    pub(crate) fn resize(&mut self, busy: usize, wanted: usize) {
        let slots = self.slots.clone();
        let budget = &slots.0.free;
        let _resizing = slots.0.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        // The most that leaves as many free as are held then.
        let fair = ((budget.available_permits() + self.held) / 2).max(1);
        let target = wanted.min(fair).max(busy);
        match target.checked_sub(self.held) {
            Some(more) => self.take(more),
            None => {
                budget.add_permits(self.held - target);
                self.held = target;
            }
        }
        if self.held == 0 && wanted > 0 {
            self.take(1);
        }
    }

    /// Waits in line for one slot.
    pub(crate) async fn first(&mut self) {
        if let Ok(slot) = self.slots.0.free.acquire().await {
            slot.forget();
            self.held += 1;
        }
    }

    /// Takes `count` slots, or none when others were quicker.
    fn take(&mut self, count: usize) {
        let taken = u32::try_from(count).map(|count| self.slots.0.free.try_acquire_many(count));
        if let Ok(Ok(slots)) = taken {
            slots.forget();
            self.held += count;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.slots.0.free.add_permits(self.held);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_alone_gets_all_it_wants_up_to_half() {
        let slots = Slots::new(100);
        let mut share = slots.share();
        share.resize(0, 40);
        assert_eq!(share.held(), 40);
        share.resize(0, 80);
        assert_eq!(share.held(), 50);
        share.resize(3, 3);
        assert_eq!((share.held(), slots.0.free.available_permits()), (3, 97));
        drop(share);
        assert_eq!(slots.0.free.available_permits(), 100);
    }

    #[test]
    fn greedy_shares_even_out_and_leave_room() {
        let slots = Slots::new(1_000);
        let mut shares: Vec<_> = (0..9).map(|_| slots.share()).collect();
        for _round in 0..1_000 {
            for share in &mut shares {
                // An attempt ends; then as many as possible begin.
                share.resize(share.held().saturating_sub(1), 400);
            }
        }
        let held: Vec<_> = shares.iter().map(Share::held).collect();
        assert!(held.iter().all(|held| (80..=120).contains(held)), "{held:?}");
        let mut late = slots.share();
        late.resize(0, 400);
        assert!(late.held() >= 40, "{late:?}");
    }

    #[test]
    fn those_who_look_at_the_same_time_leave_room_too() {
        let slots = Slots::new(90);
        let resize = || {
            for _ in 0..200_000 {
                let mut share = slots.share();
                share.resize(0, 400);
                // Half of all, and then half of the rest.
                assert!(slots.0.free.available_permits() >= 90 - 45 - 22);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(resize);
            scope.spawn(resize);
        });
    }

    #[test]
    fn the_last_slot_goes_to_who_has_none_and_then_to_the_line() {
        let slots = Slots::new(2);
        let (mut one, mut two, mut three) = (slots.share(), slots.share(), slots.share());
        one.resize(0, 5);
        two.resize(0, 5);
        one.resize(1, 5);
        assert_eq!((one.held(), two.held()), (1, 1));
        three.resize(0, 1);
        assert_eq!(three.held(), 0);
        let mut waiting = Box::pin(three.first());
        assert!(waiting.as_mut().now_or_never().is_none());
        one.resize(0, 0);
        // The line goes before those who only look.
        one.resize(0, 1);
        assert_eq!(one.held(), 0);
        assert!(waiting.now_or_never().is_some());
        assert_eq!(three.held(), 1);
    }
}
