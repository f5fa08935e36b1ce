//! The end of a run: what is owed must come, and what is kept must be what was promised.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eventbus_core::broker::{CursorId, CursorSpec, Start};
use eventbus_core::delivery::Verdict;
use eventbus_core::testing::interest;
use eventbus_core::{Position, Settled};

use super::{Broken, Bus, REMEMBERED, TYPES, number};
use crate::ledger;
use crate::signal::Next;

impl Bus {
    /// Steps everything until nothing is left to do.
    pub(super) fn settle_down(&mut self) {
        for _ in 0..200 {
            let Some(parts) = &mut self.parts else { return };
            self.clock.elapsed_ms.fetch_add(200, Ordering::Relaxed);
            let now = parts.shared.now();
            while parts.delayer.step(now) == Next::Again {}
            while parts.writer.step(now) == Next::Again {}
            while parts.syncer.step(now) == Next::Again {}
            while parts.router.step(now) == Next::Again {}
            while parts.ledger.step(now) == Next::Again {}
            while ledger::sync_step(&parts.shared, now) == Next::Again {}
            if parts.upkeep.step(now) != Next::SleepFor(Duration::from_millis(5)) {
                break;
            }
        }
    }

    /// After a last crash, without faults: everything owed must come.
    pub(super) fn drain(&mut self) -> Result<(), Broken> {
        self.disk.heal();
        let power_cut = self.mix.power_cuts && self.roll(2) == 0;
        self.crash(power_cut)?;
        self.disk.heal();
        self.open()?;
        self.all_fall_due()?;
        self.whole_batches()?;
        let cursors: Vec<String> = self.checker.must_exist().map(str::to_owned).collect();
        for id in cursors {
            let mut owed = self.checker.owed(&id);
            for _ in 0..10_000 {
                self.clock.wall_ms.fetch_add(40_000, Ordering::Relaxed);
                if self.lease_of(&id, 50)? == 0 {
                    break;
                }
                for (_, _, lease) in &self.leases {
                    owed.remove(&number(lease.event())?);
                }
                self.settle_all(&id)?;
            }
            if let Some(lost) = owed.first() {
                return Err(format!("{id} never got event {lost}"));
            }
            let lag = self.cursor(&id).map(|cursor| cursor.stats().lag_events);
            if lag != Some(0) {
                return Err(format!("{id} got everything, and its lag is {lag:?}"));
            }
            self.dead_letters(&id)?;
        }
        self.nothing_is_corrupt()
    }

    fn settle_all(&mut self, id: &str) -> Result<(), Broken> {
        let Some(cursor) = self.cursor(id) else { return Ok(()) };
        let mut turn = Vec::new();
        for (_, _, lease) in std::mem::take(&mut self.leases) {
            self.checker.asked(id, number(lease.event())?, true);
            turn.push(Settled { lease, attempt: None, verdict: Verdict::Ack });
        }
        cursor.give_up_and_end(turn).map_err(|error| error.to_string())?;
        self.settle_down();
        Ok(())
    }

    /// Reads the whole log, whoever wanted what is in it.
    fn whole_batches(&mut self) -> Result<(), Broken> {
        let Some(parts) = &self.parts else { return Ok(()) };
        let window_ms = u64::try_from(REMEMBERED.as_millis()).unwrap_or(u64::MAX);
        let mut all = BTreeMap::new();
        for event_type in TYPES {
            let spec = CursorSpec {
                id: CursorId(format!("all-{event_type}").into()),
                interest: interest(event_type),
                start: Start::AtMs(0),
                waiting_max: 100_000,
            };
            let admitted = parts.shared.admit(spec).map_err(|error| error.to_string())?;
            loop {
                let leases = admitted.cursor.lease_now(100).map_err(|error| error.to_string())?;
                if leases.is_empty() {
                    break;
                }
                for lease in leases {
                    let (id, ms) = (number(lease.event())?, lease.stored().committed_ms);
                    lease.end();
                    // After a restart an index knows times to a second.
                    if all.insert(id, ms).is_some_and(|before_ms| ms < before_ms + window_ms - 1000)
                    {
                        return Err(format!("event {id} is stored twice"));
                    }
                }
            }
        }
        self.checker.atomic(&all)?;
        self.checker.repeats(&all, window_ms)
    }

    /// Reads the dead letters of a cursor that has got everything.
    fn dead_letters(&mut self, id: &str) -> Result<(), Broken> {
        let Some(parts) = &self.parts else { return Ok(()) };
        let page =
            parts.shared.vault.page_now(&CursorId(id.into()), Position(0), NonZeroUsize::MAX);
        let page = page.map_err(|error| error.to_string())?;
        let letters = page.iter().map(|letter| Ok((letter.key.position, number(&letter.event)?)));
        self.checker.dead_letters(id, &letters.collect::<Result<_, Broken>>()?)
    }
}
