//! How many bytes of answers may lie in memory at once: a list is read whole, because it shows one
//! moment, and lies there until its client has taken it.
//!
//! Whoever finds no room is told to come again (429). A list that is alone always finds room, or
//! one that is larger than all of it could never be had. What its client has not taken in time is
//! given up where somebody else needs the room: a client may ask for it and keep its connection
//! open without taking anything.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, Weak},
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::lock;
use crate::limits;

/// What one permit stands for.
const UNIT_BYTES: usize = 1024;

/// The room of all answers.
#[derive(Clone, Debug)]
pub(super) struct Room {
    units: Arc<Semaphore>,
    /// Who has some of it.
    holders: Arc<Mutex<Vec<Weak<Mutex<Kept>>>>>,
}

/// Too much waits to be sent already.
#[derive(Debug)]
pub(super) struct Full;

/// Bodies of objects, with the room they take; it is given back body by body.
#[derive(Debug, Default)]
pub(crate) struct Held(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bodies: VecDeque<Bytes>,
    taken: Option<OwnedSemaphorePermit>,
    /// When they must have been taken, if they take room.
    until: Option<Instant>,
    /// Whether they were not.
    given_up: bool,
}

impl Room {
    pub(super) fn new() -> Self {
        let units = Arc::new(Semaphore::new(limits::LIST_BYTES / UNIT_BYTES));
        Self { units, holders: Arc::default() }
    }

    /// Takes room for `bytes` more of what `held` has.
    pub(super) fn take(&self, held: &mut Held, bytes: usize) -> Result<(), Full> {
        let wanted = units(bytes);
        if let Some(granted) = self.try_take(wanted) {
            self.grant(held, granted);
            return Ok(());
        }
        self.give_up_what_is_late();
        let left = self.units.available_permits();
        let taken = lock(&held.0).taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let is_alone = taken + left == limits::LIST_BYTES / UNIT_BYTES;
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let granted = self.try_take(if is_alone { wanted.min(left) } else { wanted });
        self.grant(held, granted.ok_or(Full)?);
        Ok(())
    }

    fn try_take(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.units).try_acquire_many_owned(units).ok()
    }

    fn grant(&self, held: &Held, granted: OwnedSemaphorePermit) {
        let mut kept = lock(&held.0);
        if kept.until.is_none() {
            kept.until = Some(Instant::now() + limits::LIST_LASTS);
            let mut holders = lock(&self.holders);
            holders.retain(|holder| holder.strong_count() > 0);
            holders.push(Arc::downgrade(&held.0));
        }
        merge(&mut kept.taken, Some(granted));
    }

    fn give_up_what_is_late(&self) {
        let now = Instant::now();
        let holders: Vec<_> = lock(&self.holders).iter().filter_map(Weak::upgrade).collect();
        holders.iter().for_each(|holder| lock(holder).look_at_the_clock(now));
    }
}

impl Kept {
    fn look_at_the_clock(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until < now) && !self.bodies.is_empty() {
            *self = Self { until: self.until, given_up: true, ..Self::default() };
        }
    }
}

impl Held {
    pub(super) fn push(&mut self, body: Bytes) {
        lock(&self.0).bodies.push_back(body);
    }

    /// Takes the first body out.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let mut kept = lock(&self.0);
        kept.look_at_the_clock(Instant::now());
        let body = kept.bodies.pop_front()?;
        if let Some(taken) = &mut kept.taken {
            let units = usize::try_from(units(body.len())).unwrap_or(usize::MAX);
            drop(taken.split(units.min(taken.num_permits())));
        }
        Some(body)
    }

    /// Whether it was too late to take the rest.
    pub(crate) fn is_given_up(&self) -> bool {
        lock(&self.0).given_up
    }

    /// Takes in what another has; what is given up stays so.
    pub(crate) fn append(&mut self, other: Self) {
        if self.is_empty() && !self.is_given_up() {
            *self = other;
            return;
        }
        let other = std::mem::take(&mut *lock(&other.0));
        let mut kept = lock(&self.0);
        kept.bodies.extend(other.bodies);
        merge(&mut kept.taken, other.taken);
    }

    /// All bodies: only their handles are copied.
    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        lock(&self.0).bodies.iter().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).bodies.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn merge(taken: &mut Option<OwnedSemaphorePermit>, more: Option<OwnedSemaphorePermit>) {
    match (taken, more) {
        (Some(taken), Some(more)) => taken.merge(more),
        (taken, Some(more)) => *taken = Some(more),
        (_, None) => {}
    }
}

/// At least one, so that many small objects count too.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds a body of so many bytes more, if there is room.
    fn hold(room: &Room, held: &mut Held, bytes: usize) -> Result<(), Full> {
        room.take(held, bytes)?;
        held.push(vec![0; bytes].into());
        Ok(())
    }

    #[test]
    fn room_is_bounded_and_comes_back_body_by_body() {
        let room = Room::new();
        let (mut one, mut other) = (Held::default(), Held::default());
        let half = limits::LIST_BYTES / 2;
        hold(&room, &mut one, half - UNIT_BYTES).unwrap();
        hold(&room, &mut other, half - 2 * UNIT_BYTES).unwrap();
        hold(&room, &mut one, 1).unwrap();
        assert!(hold(&room, &mut one, 1).is_err() && hold(&room, &mut other, 1).is_err());
        assert_eq!(one.pop().map(|body| body.len()), Some(half - UNIT_BYTES));
        hold(&room, &mut other, 1).unwrap();
        drop((one, other));
        assert_eq!(room.units.available_permits() * UNIT_BYTES, limits::LIST_BYTES);
    }

    #[test]
    fn what_is_alone_always_has_room() {
        let room = Room::new();
        let (mut large, mut other) = (Held::default(), Held::default());
        for _ in 0..3 {
            hold(&room, &mut large, limits::LIST_BYTES / 2).unwrap();
        }
        assert!(hold(&room, &mut other, 1).is_err());
        while large.pop().is_some() {}
        drop(large);
        hold(&room, &mut other, 1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_in_time_makes_room_for_others() {
        let room = Room::new();
        let (mut late, mut other) = (Held::default(), Held::default());
        hold(&room, &mut late, limits::LIST_BYTES / 2).unwrap();
        hold(&room, &mut late, limits::LIST_BYTES / 4).unwrap();
        assert!(late.pop().is_some());
        hold(&room, &mut late, limits::LIST_BYTES / 2).unwrap();
        assert!(hold(&room, &mut other, limits::LIST_BYTES / 2).is_err());
        tokio::time::advance(limits::LIST_LASTS * 2).await;
        hold(&room, &mut other, limits::LIST_BYTES / 2).unwrap();
        assert!(late.pop().is_none() && late.is_given_up());
        assert!(!other.is_given_up());
        // What comes after a part that is lost does not make the whole.
        late.append(other);
        assert!(late.is_given_up());
    }
}
