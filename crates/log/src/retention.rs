//! What may go: settled history, the oldest of a backlog that is too large, what is too old.
//!
//! A cursor loses events alone: no limit of one cursor moves another. What is lost is written to
//! the ledger, durably, before the bytes go, so the counts are exact even across a power cut.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use eventbus_core::Position;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::cursor::LogCursor;
use crate::index;
use crate::ledger::{self, Request};
use crate::segment::Segment;
use crate::shared::Shared;
use crate::signal::Now;
use crate::table::TableState;
use crate::telemetry::{DropLimit, LogEvent, add};

/// Looks after the three limits.
pub(crate) struct Retention {
    shared: Arc<Shared>,
    /// Segments to end once the ledger has what their end costs.
    ending: Option<Ending>,
}

struct Ending {
    segments: usize,
    durable: oneshot::Receiver<Result<(), eventbus_core::broker::CursorError>>,
}

impl Retention {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, ending: None }
    }

    /// Applies the limits; true when it should be called again soon.
    pub(crate) fn step(&mut self, now: Now) -> bool {
        if let Some(mut ending) = self.ending.take() {
            match ending.durable.try_recv() {
                Err(TryRecvError::Empty) => {
                    self.ending = Some(ending);
                    return true;
                }
                Ok(Ok(())) => self.end(ending.segments, now),
                // Not written: the segments stay, and this step decides anew.
                Ok(Err(_)) | Err(TryRecvError::Closed) => {}
            }
        }
        let freed = self.shared.segments.free_retired();
        self.shorten_backlogs();
        self.end_what_is_old(now);
        let told = self.told(&self.shared.table.state());
        let may_end = self.may_end(self.shared.table.all().iter(), told);
        self.look_at_room(&may_end);
        let segments = self.segments_to_end(&may_end, now);
        // What could not be freed is tried again first: until then its bytes are used.
        if segments == 0 || freed.is_err() {
            return false;
        }
        let (reply, durable) = oneshot::channel();
        let change = ledger::mark(&self.shared);
        if self.shared.ledger.push(Request::Change { change, reply: Some(reply) }).is_ok() {
            self.ending = Some(Ending { segments, durable });
        }
        true
    }

    /// Ends up to `most` segments. Since it was decided, a turn that was not written may have given
    /// an event back, a cursor that was opened may want one, and there may be room again.
    fn end(&self, most: usize, now: Now) {
        // No cursor is opened while the table is held.
        let table = self.shared.table.state();
        let may_end = self.may_end(table.by_number.values(), self.told(&table));
        self.shared.segments.retire(self.segments_to_end(&may_end, now).min(most));
    }

    /// A cursor that holds back too much loses its oldest, a segment's worth at a time.
    fn shorten_backlogs(&self) {
        let told = self.told(&self.shared.table.state());
        for cursor in self.shared.table.all() {
            while let Some(segment) = self.too_long(&cursor) {
                let upto = segment.facts().last;
                let may_go = segment.is_full() && upto <= told;
                if !may_go || !self.drop_upto(&cursor, upto, DropLimit::Backlog) {
                    break;
                }
            }
        }
    }

    /// The oldest segment a cursor holds, when it holds more than it may.
    fn too_long(&self, cursor: &LogCursor) -> Option<Arc<Segment>> {
        let spot = cursor.holds()?;
        let bytes = self.shared.segments.bytes_from(spot.place);
        let (number, _) = index::segment_and_byte(spot.place);
        let segment = self.shared.segments.numbered(number)?;
        (bytes > self.shared.limits.backlog_max_bytes).then_some(segment)
    }

    /// What is older than the age limit ends, wherever it waits.
    fn end_what_is_old(&self, now: Now) {
        let Some(oldest_ms) = now.ms.checked_sub(self.shared.limits.age_ms) else { return };
        let mut old = Position(0);
        for segment in self.shared.segments.all() {
            let older = segment.older_than(oldest_ms);
            old = old.max(older);
            if older < segment.facts().last {
                break;
            }
        }
        let old = old.min(self.told(&self.shared.table.state()));
        if old == Position(0) {
            return;
        }
        for cursor in self.shared.table.all() {
            if cursor.place().holds_from().is_some_and(|from| from <= old) {
                self.drop_upto(&cursor, old, DropLimit::Age);
            }
        }
    }

    /// The oldest segments that nobody needs: they are settled by all.
    ///
    /// What no cursor was told of yet is held by none, and wanted perhaps.
    fn may_end<'a>(
        &self,
        cursors: impl Iterator<Item = &'a Arc<LogCursor>>,
        told: Position,
    ) -> Vec<Arc<Segment>> {
        let held = cursors.filter_map(|cursor| cursor.place().holds_from()).min();
        let may_end = |segment: &Arc<Segment>| {
            let last = segment.facts().last;
            let settled = held.is_none_or(|held| last < held);
            segment.is_full() && settled && last <= told
        };
        self.shared.segments.all().into_iter().take_while(may_end).collect()
    }

    /// Takes note of how much may still be stored, where nothing is in the way that may end.
    fn look_at_room(&self, may_end: &[Arc<Segment>]) {
        let Shared { segments, limits, room, .. } = &*self.shared;
        let unused_bytes = limits.max_bytes.saturating_sub(segments.used_bytes());
        // A volume that does not tell may have room for all.
        let volume_bytes = segments.disk.free_bytes().unwrap_or(u64::MAX);
        let settled_bytes: u64 = may_end.iter().map(|segment| segment.all_bytes()).sum();
        room.store(unused_bytes.min(volume_bytes) + settled_bytes, Ordering::Relaxed);
    }

    /// How many of those may end now: they are too old, or beyond the history, or in the way of new
    /// events.
    fn segments_to_end(&self, may_end: &[Arc<Segment>], now: Now) -> usize {
        let limits = &self.shared.limits;
        let Some(end_bytes) = self.shared.segments.active().map(|active| active.end_bytes()) else {
            return 0;
        };
        let needed = self.shared.segments.segment_bytes;
        // A volume that is full may be so below `max_bytes`: then one at a time is in the way.
        let volume_is_full = self.shared.health.is_full() && !self.shared.segments.has_spare();
        let mut used_bytes = self.shared.segments.used_bytes();
        let mut count = 0;
        for segment in may_end {
            let is_old = segment.facts().last_ms.saturating_add(limits.age_ms) < now.ms;
            let is_history = end_bytes - segment.end_bytes() >= limits.history_bytes;
            let has_no_room = used_bytes + needed > limits.max_bytes;
            let is_in_the_way = has_no_room || volume_is_full && count == 0;
            if !(is_old || is_history || is_in_the_way) {
                break;
            }
            used_bytes -= segment.all_bytes();
            count += 1;
        }
        count
    }

    /// Up to here everything is durable and the cursors know of it.
    fn told(&self, table: &TableState) -> Position {
        let synced = self.shared.flow.state().synced;
        table.visible.min(synced)
    }

    /// Takes everything up to `upto` from a cursor; false when it must be tried again later.
    fn drop_upto(&self, cursor: &Arc<LogCursor>, upto: Position, limit: DropLimit) -> bool {
        let reading = {
            let mut place = cursor.place();
            if place.readings.are_under_way() || place.forgotten {
                return false;
            }
            let beyond_ring = place.fresh.beyond_ring(upto);
            place.read(cursor, beyond_ring)
        };
        let Ok(beyond_ring) = reading.count() else { return false };
        let Some(mut place) = reading.place() else { return false };
        // It is said once the place is let go of. A ledger that takes no more leaves all as it is.
        if self.shared.ledger.push(Request::Drop { cursor: cursor.clone() }).is_err() {
            return false;
        }
        let lost = place.fresh.drop_upto(upto, beyond_ring) + place.progress.drop_upto(upto);
        place.dropped += lost;
        cursor.set_timer(&mut place);
        drop(place);
        if lost > 0 {
            add(&self.shared.telemetry.dropped_events, lost);
            let (cursor, events) = (cursor.id.clone(), lost);
            self.shared.observer.observe(&LogEvent::Dropped { cursor, events, upto, limit });
        }
        true
    }
}

/// The position from which on events are committed at or after `ms`. What is written and not
/// visible yet counts: it may be older.
pub(crate) fn position_at(shared: &Shared, ms: u64) -> std::io::Result<Position> {
    // Read first: the indexes hold what lies before it.
    let next = shared.next_position();
    for segment in shared.segments.all() {
        let facts = segment.facts();
        if facts.count == 0 || facts.last_ms < ms {
            continue;
        }
        let Some(mark) = segment.time_mark(ms) else { continue };
        return segment.first_at(shared.log, mark, ms);
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
