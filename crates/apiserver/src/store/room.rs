//! How many bytes of answers may lie in memory at once: a list is read whole, because it shows one
//! moment, and lies there until its client has taken it.
//!
//! Whoever finds no room is told to come again (429). A list that is alone always finds room, or
//! one that is larger than all of it could never be had.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// What one permit stands for.
const UNIT_BYTES: usize = 1024;

/// The room of all answers.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

/// Too much waits to be sent already.
#[derive(Debug)]
pub(super) struct Full;

/// Bodies of objects, with the room they take; it is given back body by body.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bodies: VecDeque<Bytes>,
    taken: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(limits::LIST_BYTES / UNIT_BYTES)))
    }

    /// Takes room for `bytes` more of what `held` has.
    pub(super) fn take(&self, held: &mut Held, bytes: usize) -> Result<(), Full> {
        let wanted = units(bytes);
        let granted = match self.try_take(wanted) {
            Some(granted) => granted,
            None => {
                let taken = held.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
                let left = self.0.available_permits();
                if taken + left < limits::LIST_BYTES / UNIT_BYTES {
                    return Err(Full);
                }
                self.try_take(u32::try_from(left).unwrap_or(u32::MAX)).ok_or(Full)?
            }
        };
        merge(&mut held.taken, Some(granted));
        Ok(())
    }

    fn try_take(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

impl Held {
    pub(super) fn push(&mut self, body: Bytes) {
        self.bodies.push_back(body);
    }

    /// Takes the first body out.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let body = self.bodies.pop_front()?;
        if let Some(taken) = &mut self.taken {
            let units = usize::try_from(units(body.len())).unwrap_or(usize::MAX);
            drop(taken.split(units.min(taken.num_permits())));
        }
        Some(body)
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.bodies.append(&mut other.bodies);
        merge(&mut self.taken, other.taken.take());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.bodies.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.bodies.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bodies.is_empty()
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
        assert_eq!(room.0.available_permits() * UNIT_BYTES, limits::LIST_BYTES);
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
}
