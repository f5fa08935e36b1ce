//! How a cursor is made, takes another spec, and goes.

use std::sync::Arc;

use eventbus_core::Position;
use eventbus_core::broker::{CursorError, CursorId, CursorSpec, Start};
use eventbus_core::cursor::Progress;
use tokio::sync::oneshot;

use crate::bytes::entry::{Change, Opened};
use crate::cursor::{Answer, LogCursor, Place};
use crate::fresh::Fresh;
use crate::index::Facts;
use crate::ledger::{self, Request};
use crate::retention::position_at;
use crate::shared::Shared;
use crate::table::TableState;

/// A cursor that is not durable yet.
pub(crate) struct Admitted {
    pub(crate) cursor: Arc<LogCursor>,
    pub(crate) answer: oneshot::Receiver<Result<(), CursorError>>,
}

impl Shared {
    /// Can the cursor be opened without reading a disk? It can when there is nothing to search for
    /// its beginning and nothing to count: after a restart, and for a new Subscription.
    pub(crate) fn admits_at_once(&self, spec: &CursorSpec) -> bool {
        let known = self.table.state().by_id.get(&spec.id).cloned();
        if let Some(cursor) = known {
            let place = cursor.place();
            return place.interest == spec.interest && place.fresh.is_counted();
        }
        let Start::AtMs(start_ms) = spec.start;
        let holds_none = |facts: Facts| facts.count == 0 || facts.last_ms < start_ms;
        self.segments.all().iter().all(|segment| holds_none(segment.facts()))
    }

    /// Makes or updates a cursor; the answer comes when that is durable. Blocks, unless
    /// [`Shared::admits_at_once`].
    pub(crate) fn admit(self: &Arc<Self>, spec: CursorSpec) -> Result<Admitted, CursorError> {
        let failed = |error| CursorError::Unavailable(format!("the log: {error}"));
        let Start::AtMs(start_ms) = spec.start;
        loop {
            let known = self.table.state().by_id.contains_key(&spec.id);
            // Searched without the table, which the router needs.
            let beginning =
                if known { None } else { Some(position_at(self, start_ms).map_err(failed)?) };
            let mut table = self.table.state();
            let known = table.by_id.get(&spec.id).cloned();
            let opened = match (&known, beginning) {
                (Some(cursor), _) => cursor.opened_as(&spec),
                (None, Some(beginning)) => first_opened(&spec, beginning, &table),
                // Forgotten meanwhile.
                (None, None) => continue,
            };
            // Before anything changes: a ledger that takes no more leaves nothing half done. Nor
            // does it snapshot meanwhile, for which it needs the table.
            let (reply, answer) = oneshot::channel();
            let change = Change::Open(opened.clone());
            self.ledger.push(Request::Change { change, reply: Some(reply) })?;
            let cursor = known.unwrap_or_else(|| self.make(opened, &mut table));
            let count = cursor.change(&spec, &mut table);
            drop(table);
            // Until that is done, and after it has failed, nothing the cursor may want ends.
            if let Some(reading) = count {
                reading.count_in().map_err(failed)?;
            }
            return Ok(Admitted { cursor, answer });
        }
    }

    /// A new cursor, whose events are still to be counted.
    fn make(self: &Arc<Self>, opened: Opened, table: &mut TableState) -> Arc<LogCursor> {
        let progress = Progress::new(opened.frontier, opened.waiting_max);
        let fresh = Fresh::uncounted_from(opened.frontier, table.visible);
        let place = Place::new(&opened, progress, fresh);
        let cursor = LogCursor::new(self.clone(), opened.cursor, opened.id, place);
        table.insert(cursor.clone());
        cursor
    }

    /// Takes a cursor away; the answer comes when that is durable, though another one took it.
    pub(crate) fn forget(&self, id: &CursorId) -> Result<Answer, CursorError> {
        let mut table = self.table.state();
        let Some(cursor) = table.by_id.get(id).cloned() else {
            // Perhaps it was forgotten a moment ago, or the ledger failed to say so: it says a mark
            // after that, or all anew.
            let (reply, answer) = oneshot::channel();
            let change = ledger::mark(self);
            self.ledger.push(Request::Change { change, reply: Some(reply) })?;
            return Ok(answer);
        };
        let answer = cursor.forget()?;
        table.remove(id);
        Ok(answer)
    }
}

/// What the ledger is told of a new cursor whose first event may lie at `beginning`.
fn first_opened(spec: &CursorSpec, beginning: Position, table: &TableState) -> Opened {
    Opened {
        cursor: table.last_number + 1,
        id: spec.id.clone(),
        interest: spec.interest.clone(),
        waiting_max: spec.waiting_max,
        frontier: Position(beginning.0.saturating_sub(1)),
        dropped: 0,
    }
}

#[cfg(test)]
mod tests {
    use eventbus_core::testing::{event, interest};

    use super::*;
    use crate::disk::FaultyDisk;
    use crate::stepped::{machines, orders};

    /// Queues as much as the ledger takes.
    fn crowd(shared: &Shared) {
        let mark = || Request::Change { change: ledger::mark(shared), reply: None };
        while shared.ledger.push(mark()).is_ok() {}
    }

    #[test]
    fn an_opening_that_a_full_ledger_refuses_leaves_nothing_behind() {
        let mut machines = machines(&FaultyDisk::new(1 << 30));
        let shared = machines.shared.clone();
        machines.publish(["a", "b"].map(|event_type| event(event_type, "x")));
        let mut leases = Vec::new();
        for event_type in ["a", "b"] {
            crowd(&shared);
            assert!(shared.admit(orders(event_type)).is_err());
            let known = shared.table.state().by_id.get(&orders("a").id).cloned();
            assert!(known.is_none_or(|known| known.place().interest == interest("a")));
            machines.settle();
            let cursor = shared.admit(orders(event_type)).unwrap().cursor;
            leases.extend(cursor.lease_now(10).unwrap());
            let last = leases.last().map(|lease| &*lease.event().event_type);
            assert_eq!(last, Some(event_type));
        }
    }
}
