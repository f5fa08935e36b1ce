//! What was promised, and what came: written apart from the code it checks.

use std::collections::{BTreeMap, BTreeSet};

use eventbus_core::{Durability, Position};

/// An event by its number, which is also its payload.
pub(crate) type Id = u64;

/// A broken promise.
pub(crate) type Broken = String;

#[derive(Default)]
pub(crate) struct Checker {
    sent: BTreeMap<Id, Sent>,
    positions: BTreeMap<Position, Id>,
    cursors: BTreeMap<String, Place>,
    pub(crate) deliveries: u64,
    pub(crate) acknowledged: u64,
}

struct Sent {
    event_type: String,
    durability: Durability,
    /// Its batch, when that is atomic, and how many belong to it.
    atomic: Option<(Id, usize)>,
    /// The publisher was told, or a subscriber has seen it: it must stay.
    kept: bool,
}

#[derive(Default)]
struct Place {
    event_type: String,
    /// Events from this one on are owed to it.
    since: Id,
    /// Its making was confirmed.
    opened: bool,
    leased: BTreeSet<Id>,
    /// A settlement was asked for: it may count.
    asked: BTreeSet<Id>,
    /// A settlement was confirmed: it counts, except after a power cut.
    settled: BTreeSet<Id>,
}

impl Checker {
    pub(crate) fn send(
        &mut self,
        ids: &[Id],
        event_type: &str,
        durability: Durability,
        atomic: bool,
    ) {
        for id in ids {
            let atomic = atomic.then_some((ids[0], ids.len()));
            let event_type = event_type.to_owned();
            self.sent.insert(*id, Sent { event_type, durability, atomic, kept: false });
        }
    }

    pub(crate) fn acknowledged(&mut self, id: Id, position: Position) -> Result<(), Broken> {
        self.acknowledged += 1;
        self.at(position, id)?;
        self.sent.entry(id).and_modify(|sent| sent.kept = true);
        Ok(())
    }

    /// The cursor is being made; `next` is the next event to be sent.
    pub(crate) fn opening(&mut self, cursor: &str, event_type: &str) {
        let place = self.cursors.entry(cursor.to_owned()).or_default();
        place.event_type = event_type.to_owned();
    }

    pub(crate) fn opened(&mut self, cursor: &str, next: Id) {
        let place = self.cursors.entry(cursor.to_owned()).or_default();
        if !place.opened {
            (place.opened, place.since) = (true, next);
        }
    }

    pub(crate) fn leased(
        &mut self,
        cursor: &str,
        id: Id,
        position: Position,
    ) -> Result<(), Broken> {
        self.deliveries += 1;
        self.at(position, id)?;
        let sent = self.sent.get_mut(&id).ok_or("an event nobody sent")?;
        sent.kept = true;
        let place = self.cursors.get_mut(cursor).ok_or("a cursor nobody made")?;
        if sent.event_type != place.event_type {
            return Err(format!("{cursor} got event {id} of {}", sent.event_type));
        }
        if place.settled.contains(&id) {
            return Err(format!("{cursor} got event {id} after it was settled"));
        }
        if !place.leased.insert(id) {
            return Err(format!("{cursor} got event {id} twice at once"));
        }
        Ok(())
    }

    pub(crate) fn given_back(&mut self, cursor: &str, id: Id) {
        self.cursors.entry(cursor.to_owned()).and_modify(|place| {
            place.leased.remove(&id);
        });
    }

    /// The lease ended with a verdict; `done` says that it was one that ends the event.
    pub(crate) fn asked(&mut self, cursor: &str, id: Id, done: bool) {
        self.given_back(cursor, id);
        if done && let Some(place) = self.cursors.get_mut(cursor) {
            place.asked.insert(id);
        }
    }

    pub(crate) fn settled(&mut self, cursor: &str, ids: &[Id]) {
        if let Some(place) = self.cursors.get_mut(cursor) {
            place.settled.extend(ids);
        }
    }

    pub(crate) fn killed(&mut self) {
        for place in self.cursors.values_mut() {
            place.leased.clear();
        }
        for sent in self.sent.values_mut() {
            sent.kept &= sent.durability >= Durability::Written;
        }
    }

    pub(crate) fn power_cut(&mut self) {
        self.killed();
        for place in self.cursors.values_mut() {
            place.settled.clear();
        }
        for sent in self.sent.values_mut() {
            sent.kept &= sent.durability >= Durability::Synced;
        }
        // Positions of lost events stay taken for ever.
    }

    /// Cursors that must be there after a restart.
    pub(crate) fn must_exist(&self) -> impl Iterator<Item = &str> {
        self.cursors.iter().filter(|(_, place)| place.opened).map(|(id, _)| id.as_str())
    }

    /// What a cursor must still get.
    pub(crate) fn owed(&self, cursor: &str) -> BTreeSet<Id> {
        let Some(place) = self.cursors.get(cursor) else { return BTreeSet::new() };
        let owed = self.sent.iter().filter(|(id, sent)| {
            sent.kept
                && sent.event_type == place.event_type
                && **id >= place.since
                && place.opened
                && !place.asked.contains(id)
        });
        owed.map(|(id, _)| *id).collect()
    }

    /// Atomic batches are there as a whole or not at all. `all` is what the log holds.
    pub(crate) fn atomic(&self, all: &BTreeSet<Id>) -> Result<(), Broken> {
        let mut found: BTreeMap<Id, (usize, usize)> = BTreeMap::new();
        for id in all {
            if let Some((batch, count)) = self.sent.get(id).and_then(|sent| sent.atomic) {
                found.entry(batch).or_insert((0, count)).0 += 1;
            }
        }
        match found.iter().find(|(_, (there, count))| there != count) {
            None => Ok(()),
            Some((batch, (there, count))) => {
                Err(format!("{there} of {count} events of the atomic batch {batch} are there"))
            }
        }
    }

    fn at(&mut self, position: Position, id: Id) -> Result<(), Broken> {
        match self.positions.insert(position, id) {
            Some(other) if other != id => {
                Err(format!("position {position} was used for {other} and for {id}"))
            }
            _ => Ok(()),
        }
    }
}
