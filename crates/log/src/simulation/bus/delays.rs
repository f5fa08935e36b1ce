//! Delayed events of a run.

use std::hash::Hash;
use std::sync::atomic::Ordering;

use eventbus_core::testing::event;
use eventbus_core::{Clock, Durability, Event};
use tokio::sync::oneshot::error::TryRecvError;

use super::{Broken, Bus, Id, TYPES};

/// Where the ids begin that publishers give to delayed events: an event that is stored at once and
/// a delayed one of the same id would both be right, and the checker could not tell which one to
/// ask for.
const GIVEN_DELAYED: Id = 1 << 40;

impl Bus {
    /// Delays an event: often one whose id was given before.
    pub(super) fn delay(&mut self) {
        let event_type = TYPES[self.roll(TYPES.len() as u64) as usize];
        let id = self.next;
        self.next += 1;
        let given = match self.roll(4) {
            0..=1 => None,
            2 => {
                let which = self.roll(1 + self.given_delayed.len() as u64);
                self.given_delayed.get(which as usize).copied()
            }
            _ => Some(GIVEN_DELAYED + id),
        };
        if let Some(given) = given {
            self.given_delayed.push_back(given);
            if self.given_delayed.len() > 5 {
                self.given_delayed.pop_front();
            }
        }
        let now_ms = self.clock.now_ms();
        self.checker.it_is(now_ms);
        let due_ms = match self.roll(4) {
            0 => now_ms - 1,
            _ => now_ms + self.roll(30_000),
        };
        let padding = self.roll(3000) as usize;
        let mut delayed = event(event_type, format!("{id}:{:padding$}", ""));
        if let Some(given) = given {
            delayed = Event { id: given.to_string().into(), id_given: true, ..delayed };
        }
        self.chronicle.note(|| format!("{id} as {given:?} of {event_type}, due at {due_ms}"));
        self.checker.delay(id, given, event_type, due_ms);
        let Some(parts) = &self.parts else { return };
        if let Ok(answer) = parts.shared.begin_delay(&delayed, due_ms, Durability::Synced) {
            self.delays.push((id, answer));
        }
    }

    pub(super) fn answers_to_delays(&mut self) -> Result<(), Broken> {
        for (id, mut answer) in std::mem::take(&mut self.delays) {
            match answer.try_recv() {
                Ok(Ok(receipt)) => {
                    self.chronicle.note(|| format!("acknowledged {id}: {receipt:?}"));
                    (id, format!("{receipt:?}")).hash(&mut self.trace);
                    self.checker.acknowledged(id, receipt)?;
                }
                Ok(Err(_)) | Err(TryRecvError::Closed) => {}
                Err(TryRecvError::Empty) => self.delays.push((id, answer)),
            }
        }
        Ok(())
    }

    /// Whatever waits falls due, and is stored.
    pub(super) fn all_fall_due(&mut self) -> Result<(), Broken> {
        // One with an id is due after what was committed before it, where the clock was set back,
        // and after the last look at what is known, of which a restart knows nothing.
        let shared = self.parts.as_ref().map(|parts| &parts.shared);
        let committed_ms = shared.map_or(0, |shared| shared.committed_ms.load(Ordering::Acquire));
        let last_ms = self.checker.last_due_ms().max(committed_ms) + 1;
        self.clock.wall_ms.fetch_max(last_ms, Ordering::Relaxed);
        self.checker.it_is(self.clock.now_ms());
        for _ in 0..1_000 {
            self.settle_down();
            let Some(parts) = &self.parts else { break };
            let waiting = parts.shared.vault.waiting().map_err(|error| error.to_string())?;
            if waiting.events == 0 {
                return Ok(());
            }
        }
        Err("delayed events are due and are not stored".into())
    }
}
