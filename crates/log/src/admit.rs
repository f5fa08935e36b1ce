//! How a cursor is made, or takes another spec.

use std::sync::Arc;

use eventbus_core::Position;
use eventbus_core::broker::{CursorError, CursorSpec, Start};
use eventbus_core::cursor::Progress;
use tokio::sync::oneshot;

use crate::bytes::entry::{Change, Opened};
use crate::cursor::{LogCursor, Place};
use crate::fresh::Fresh;
use crate::index::{Facts, Stretch};
use crate::ledger::Request;
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
            return cursor.place().interest == spec.interest;
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
            let (known, visible) = {
                let table = self.table.state();
                (table.by_id.contains_key(&spec.id), table.visible)
            };
            // Searched without the table, which the router needs.
            let beginning = if known {
                None
            } else {
                Some(position_at(self, start_ms, visible).map_err(failed)?)
            };
            let mut table = self.table.state();
            let (cursor, uncounted) = match (table.by_id.get(&spec.id).cloned(), beginning) {
                (Some(cursor), _) => {
                    let uncounted = cursor.change(&spec, &mut table);
                    (cursor, uncounted)
                }
                (None, Some(beginning)) => {
                    let (cursor, stretch) = self.make(&spec, beginning, &mut table);
                    (cursor, Some(stretch))
                }
                // Forgotten meanwhile.
                (None, None) => continue,
            };
            let (reply, answer) = oneshot::channel();
            let change = Change::Open(cursor.opened());
            self.ledger.push(Request::Change { change, reply: Some(reply) })?;
            drop(table);
            if let Some(stretch) = uncounted {
                cursor.count_in(stretch).map_err(failed)?;
            }
            return Ok(Admitted { cursor, answer });
        }
    }

    /// A new cursor, and the stretch whose events are still to be counted.
    fn make(
        self: &Arc<Self>,
        spec: &CursorSpec,
        beginning: Position,
        table: &mut TableState,
    ) -> (Arc<LogCursor>, Stretch) {
        let frontier = Position(beginning.0.saturating_sub(1));
        let opened = Opened {
            cursor: table.last_number + 1,
            id: spec.id.clone(),
            interest: spec.interest.clone(),
            waiting_max: spec.waiting_max,
            frontier,
            dropped: 0,
        };
        let progress = Progress::new(frontier, spec.waiting_max);
        let fresh = Fresh::uncounted_from(frontier, table.visible);
        let mut place = Place::new(&opened, progress, fresh);
        place.looking_up = true;
        let cursor = LogCursor::new(self.clone(), opened.cursor, opened.id, place);
        table.insert(cursor.clone());
        (cursor, Stretch { after: frontier, upto: table.visible })
    }
}
