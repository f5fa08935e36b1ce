//! What was promised, and what came: written apart from the code it checks.

use std::collections::{BTreeMap, BTreeSet};

use eventbus_core::{Durability, Position, Receipt};

/// An event by its number, which is also its payload.
pub(crate) type Id = u64;

/// A broken promise.
pub(crate) type Broken = String;

#[derive(Default)]
pub(crate) struct Checker {
    sent: BTreeMap<Id, Sent>,
    positions: BTreeMap<Position, Id>,
    cursors: BTreeMap<String, Place>,
    /// Repeats of ids that were given more than once before: which of the events is there, only
    /// the log knows.
    repeats: Vec<Id>,
    /// The latest that the wall clock has shown.
    latest_ms: u64,
    pub(crate) deliveries: u64,
    pub(crate) acknowledged: u64,
    pub(crate) repeated: u64,
    pub(crate) delayed: u64,
    pub(crate) dead_letters: u64,
}

struct Sent {
    event_type: String,
    durability: Durability,
    /// Its batch, when that is atomic.
    atomic: Option<Id>,
    /// The id its publisher gave it.
    given: Option<Id>,
    /// It is to be stored when this time has come.
    due_ms: Option<u64>,
    /// The publisher was told that it is a repeat: it must not be there.
    is_repeat: bool,
    /// The publisher was told, or a subscriber has seen it: it must stay, to this level.
    kept: Option<Durability>,
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
    /// There may be dead letters of these.
    giving_up: BTreeMap<Position, Id>,
    /// There must be dead letters of these.
    dead: BTreeSet<Id>,
}

impl Sent {
    /// It must stay, to the level that was asked for.
    fn keep(&mut self) {
        self.kept = self.kept.max(Some(self.durability));
    }
}

impl Checker {
    pub(crate) fn send(
        &mut self,
        ids: &[Id],
        given: &[Option<Id>],
        event_type: &str,
        (durability, atomic): (Durability, bool),
    ) {
        for (id, given) in ids.iter().zip(given) {
            let sent = Sent {
                event_type: event_type.to_owned(),
                durability,
                atomic: atomic.then_some(ids[0]),
                given: *given,
                due_ms: None,
                is_repeat: false,
                kept: None,
            };
            self.sent.insert(*id, sent);
        }
    }

    pub(crate) fn delay(&mut self, id: Id, given: Option<Id>, event_type: &str, due_ms: u64) {
        self.send(&[id], &[given], event_type, (Durability::Synced, false));
        self.sent.entry(id).and_modify(|sent| sent.due_ms = Some(due_ms));
    }

    /// When the last of the delayed events is due. One whose time was past is due when it is kept,
    /// and the clock may have gone back since.
    pub(crate) fn last_due_ms(&self) -> u64 {
        let due_ms = self.sent.values().filter_map(|sent| sent.due_ms);
        due_ms.fold(self.latest_ms, u64::max)
    }

    pub(crate) fn it_is(&mut self, wall_ms: u64) {
        self.latest_ms = self.latest_ms.max(wall_ms);
    }

    pub(crate) fn acknowledged(&mut self, id: Id, receipt: Receipt) -> Result<(), Broken> {
        self.acknowledged += 1;
        let is_delayed = self.sent.get(&id).is_some_and(|sent| sent.due_ms.is_some());
        match receipt {
            Receipt::Stored(position) if !is_delayed => self.at(position, id)?,
            Receipt::Delayed if is_delayed => self.delayed += 1,
            Receipt::Duplicate => return self.repeated(id),
            receipt => return Err(format!("{id} was only told: {receipt:?}")),
        }
        self.sent.entry(id).and_modify(Sent::keep);
        Ok(())
    }

    /// What it repeats is there, as durably as its publisher asked.
    fn repeated(&mut self, id: Id) -> Result<(), Broken> {
        self.repeated += 1;
        let originals = self.originals(id);
        let sent = self.sent.get_mut(&id).ok_or("an answer to nothing")?;
        sent.is_repeat = true;
        let durability = sent.durability;
        match originals[..] {
            [] => return Err(format!("{id} is said to repeat what was never sent")),
            [original] => {
                let keep = |sent: &mut Sent| sent.kept = sent.kept.max(Some(durability));
                self.sent.entry(original).and_modify(keep);
            }
            _ => self.repeats.push(id),
        }
        Ok(())
    }

    /// The events before `id` that have its id and may be there.
    fn originals(&self, id: Id) -> Vec<Id> {
        let Some(given) = self.sent.get(&id).and_then(|sent| sent.given) else { return Vec::new() };
        let same = self.sent.range(..id).filter(|(_, sent)| sent.given == Some(given));
        same.filter(|(_, sent)| !sent.is_repeat).map(|(id, _)| *id).collect()
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
        sent.keep();
        if sent.due_ms.is_some_and(|due_ms| due_ms > self.latest_ms) {
            return Err(format!("{cursor} got event {id} before it was due"));
        }
        if sent.is_repeat {
            return Err(format!("{cursor} got event {id}, a repeat"));
        }
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

    /// The lease ended with a verdict; `done` says that it was one that ends the event. True where
    /// that was not asked for before.
    pub(crate) fn asked(&mut self, cursor: &str, id: Id, done: bool) -> bool {
        self.given_back(cursor, id);
        let place = self.cursors.get_mut(cursor).filter(|_| done);
        place.is_some_and(|place| place.asked.insert(id))
    }

    /// An event is to be given up: there may be a dead letter from now on.
    pub(crate) fn giving_up(&mut self, cursor: &str, id: Id, position: Position) {
        if let Some(place) = self.cursors.get_mut(cursor) {
            place.giving_up.insert(position, id);
        }
    }

    /// The ledger has the turn of these: their dead letters are there, whatever comes.
    pub(crate) fn given_up(&mut self, cursor: &str, ids: &[Id]) {
        if let Some(place) = self.cursors.get_mut(cursor) {
            place.dead.extend(ids);
        }
    }

    /// Nothing came of what was asked.
    pub(crate) fn refused(&mut self, cursor: &str, asked: &[Id]) {
        if let Some(place) = self.cursors.get_mut(cursor) {
            place.asked.retain(|id| !asked.contains(id));
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
        self.keeps(Durability::Written);
    }

    /// What was promised below this level may be lost.
    fn keeps(&mut self, level: Durability) {
        for sent in self.sent.values_mut() {
            sent.kept = sent.kept.filter(|kept| *kept >= level);
        }
        let sent = &self.sent;
        self.repeats.retain(|id| sent.get(id).is_some_and(|sent| sent.durability >= level));
    }

    pub(crate) fn power_cut(&mut self) {
        self.killed();
        for place in self.cursors.values_mut() {
            place.settled.clear();
        }
        self.keeps(Durability::Synced);
        // Positions of lost events stay taken for ever.
    }

    /// What a cursor that has got everything gave up is there, once, and nothing else.
    pub(crate) fn dead_letters(
        &mut self,
        cursor: &str,
        letters: &BTreeMap<Position, Id>,
    ) -> Result<(), Broken> {
        let Some(place) = self.cursors.get(cursor) else { return Ok(()) };
        self.dead_letters += letters.len() as u64;
        for (position, id) in letters {
            if place.giving_up.get(position) != Some(id) {
                return Err(format!("a dead letter of {cursor} holds event {id}"));
            }
        }
        let there: BTreeSet<Id> = letters.values().copied().collect();
        match place.dead.difference(&there).next() {
            None => Ok(()),
            Some(id) => Err(format!("{cursor} gave event {id} up, and it is no dead letter")),
        }
    }

    /// Cursors that must be there after a restart.
    pub(crate) fn must_exist(&self) -> impl Iterator<Item = &str> {
        self.cursors.iter().filter(|(_, place)| place.opened).map(|(id, _)| id.as_str())
    }

    /// What a cursor must still get.
    pub(crate) fn owed(&self, cursor: &str) -> BTreeSet<Id> {
        let Some(place) = self.cursors.get(cursor) else { return BTreeSet::new() };
        let owed = self.sent.iter().filter(|(id, sent)| {
            sent.kept.is_some()
                && sent.event_type == place.event_type
                && **id >= place.since
                && place.opened
                && !place.asked.contains(id)
        });
        owed.map(|(id, _)| *id).collect()
    }

    /// Atomic batches are there as a whole or not at all, repeats left out. `all` is what the log
    /// holds, with commit times.
    pub(crate) fn atomic(&self, all: &BTreeMap<Id, u64>) -> Result<(), Broken> {
        let batch_of = |id: &Id| self.sent.get(id).and_then(|sent| sent.atomic);
        let there: BTreeSet<Id> = all.keys().filter_map(batch_of).collect();
        let missing = self.sent.iter().find(|(id, sent)| {
            let is_owed = sent.atomic.is_some_and(|batch| there.contains(&batch));
            is_owed && !all.contains_key(id) && self.originals(**id).is_empty()
        });
        match missing {
            None => Ok(()),
            Some((id, _)) => Err(format!("{id} is missing from an atomic batch that is there")),
        }
    }

    /// No id is there twice within `window_ms`, and whatever was repeated is there, unless it was
    /// so old that retention took it.
    pub(crate) fn repeats(&self, all: &BTreeMap<Id, u64>, window_ms: u64) -> Result<(), Broken> {
        let mut last: BTreeMap<Id, (Id, u64)> = BTreeMap::new();
        for (id, committed_ms) in all {
            let Some(given) = self.sent.get(id).and_then(|sent| sent.given) else { continue };
            let before = last.insert(given, (*id, *committed_ms));
            // After a restart an index knows times to a second.
            if let Some((before, ms)) =
                before.filter(|(_, ms)| *committed_ms < ms + window_ms - 1000)
            {
                let after_ms = committed_ms - ms;
                return Err(format!(
                    "{id} is stored {after_ms} ms after {before}, which it repeats"
                ));
            }
        }
        let at_once = |id: &&Id| self.sent.get(id).is_some_and(|sent| sent.due_ms.is_none());
        let first = all.keys().find(at_once).copied().unwrap_or(Id::MAX);
        let is_there =
            |id: &Id| self.originals(*id).iter().any(|one| all.contains_key(one) || *one < first);
        match self.repeats.iter().find(|id| !is_there(id)) {
            None => Ok(()),
            Some(id) => Err(format!("what {id} repeats is not there")),
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
