//! The log looks after itself: indexes of full segments, retention, spare files, room.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{Position, limits};

use crate::ledger::{self, Request};
use crate::retention::Retention;
use crate::shared::Shared;
use crate::signal::{Next, Now};

/// While the ledger syncs what a trim needs, look again this soon.
const SOON: Duration = Duration::from_millis(5);

/// Does what is not on the road of an event.
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    retention: Retention,
    marked: Position,
}

impl Upkeep {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let retention = Retention::new(shared.clone());
        Self { shared, retention, marked: Position(0) }
    }

    /// One round. Errors of the disk are told by whoever needs what was not done: an index is made
    /// again at the next start, a spare is missed by the writer.
    pub(crate) fn step(&mut self, now: Now) -> Next {
        if self.shared.health.failed().is_some() {
            return Next::Sleep;
        }
        let synced = self.shared.flow.state().synced;
        for segment in self.shared.segments.all() {
            if segment.is_full() && !segment.has_index_on_disk() && segment.facts().last <= synced {
                let _ = self.shared.segments.write_index(&segment);
            }
        }
        if self.shared.upkeep.is_stopped() {
            return Next::Sleep;
        }
        // First: what has become room by itself, no segment must end for.
        self.prepare();
        let soon = self.retention.step(now);
        if synced != self.marked {
            self.marked = synced;
            let change = ledger::mark(&self.shared);
            let _ = self.shared.ledger.push(Request::Change { change, reply: None });
        }
        Next::SleepFor(if soon { SOON } else { limits::UPKEEP_TIME })
    }

    /// Has room ready before it is needed, and notices when there is room again.
    fn prepare(&self) {
        let segments = &self.shared.segments;
        let is_full = self.shared.health.is_full();
        let half = |segment: &crate::segment::Segment| segment.facts().end > segment.size / 2;
        if !is_full && !segments.active().is_some_and(|active| half(&active)) {
            return;
        }
        if segments.prepare().is_ok() {
            self.shared.set_full(false);
        }
    }
}
