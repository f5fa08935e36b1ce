//! The index of one segment: which records are of which topic hash, and when they came.
//!
//! Kept in memory while the segment is written, in the very form in which it is written beside the
//! segment when that is full: two or three bytes a record.

use std::collections::BTreeMap;

use eventbus_core::cursor::Spot;
use eventbus_core::{Position, TopicHash};

use crate::bytes::record::RecordHead;
use crate::bytes::{ALIGN, Fields, put_varint};
use crate::scan::BadRange;

/// A time is noted once a second, so a search by time reads at most a second of the log.
pub(crate) const TIME_STEP_MS: u64 = 1_000;

/// What is known of a segment's content as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Records.
    pub(crate) count: u64,
    /// The last position that belongs to the segment, be it used or a gap.
    pub(crate) last: Position,
    /// Commit times of the first and the last record.
    pub(crate) first_ms: u64,
    pub(crate) last_ms: u64,
    /// The first byte after the content.
    pub(crate) end: u64,
}

/// From this record on, times are at least this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeMark {
    pub(crate) committed_ms: u64,
    pub(crate) position: Position,
    pub(crate) at: u64,
}

/// The records of one topic hash, as differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HashList {
    pub(crate) count: u64,
    pub(crate) bytes: Vec<u8>,
    last_position: u64,
    last_at: u64,
}

/// The index of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    pub(crate) facts: Facts,
    pub(crate) topic_hashes: BTreeMap<TopicHash, HashList>,
    /// Deduplication hashes in the order of the records.
    pub(crate) hashes: Vec<u128>,
    pub(crate) times: Vec<TimeMark>,
    pub(crate) corrupt: Vec<BadRange>,
}

impl SegmentIndex {
    /// Takes in a record that lies at byte `at`.
    pub(crate) fn add(&mut self, head: &RecordHead, at: u64) {
        let facts = &mut self.facts;
        if facts.count == 0 {
            facts.first_ms = head.committed_ms;
        }
        facts.count += 1;
        facts.last = facts.last.max(head.position);
        facts.last_ms = facts.last_ms.max(head.committed_ms);
        facts.end = facts.end.max(at + head.size() as u64);
        let noted_ms = self.times.last().map(|mark| mark.committed_ms + TIME_STEP_MS);
        if noted_ms.is_none_or(|due_ms| head.committed_ms >= due_ms) {
            let (committed_ms, position) = (head.committed_ms, head.position);
            self.times.push(TimeMark { committed_ms, position, at });
        }
        self.hashes.push(head.deduplication);
        self.topic_hashes.entry(head.topic_hash).or_default().add(head.position, at);
    }

    /// The records of every topic hash.
    pub(crate) fn counts(&self) -> Vec<(TopicHash, u64)> {
        self.topic_hashes.iter().map(|(topic_hash, list)| (*topic_hash, list.count)).collect()
    }

    /// The hashes of ids with their times, to a second.
    pub(crate) fn ids(&self) -> Vec<(u64, u128)> {
        let positions = self.topic_hashes.values().flat_map(|list| entries(&list.bytes));
        timed(positions.map(|(position, _)| position).collect(), &self.hashes, &self.times)
    }

    /// The list of a topic hash.
    pub(crate) fn list(&self, topic_hash: TopicHash) -> Option<&[u8]> {
        self.topic_hashes.get(&topic_hash).map(|list| list.bytes.as_slice())
    }
}

impl HashList {
    fn add(&mut self, position: Position, at: u64) {
        put_varint(&mut self.bytes, position.0 - self.last_position);
        put_varint(&mut self.bytes, (at - self.last_at) / ALIGN as u64);
        (self.last_position, self.last_at) = (position.0, at);
        self.count += 1;
    }
}

/// Reads a topic hash's list: positions and bytes in the segment.
pub(crate) fn entries(list: &[u8]) -> impl Iterator<Item = (Position, u64)> {
    let mut fields = Fields(list);
    let (mut position, mut at) = (0u64, 0u64);
    std::iter::from_fn(move || {
        position = position.checked_add(fields.varint()?)?;
        at = at.checked_add(fields.varint()?.checked_mul(ALIGN as u64)?)?;
        Some((Position(position), at))
    })
}

/// Gives each hash, in the order of the records, the time of the mark at or before its record.
/// `positions` are those of the records, in any order.
pub(crate) fn timed(
    mut positions: Vec<Position>,
    hashes: &[u128],
    times: &[TimeMark],
) -> Vec<(u64, u128)> {
    positions.sort_unstable();
    let mut marks = times.iter().peekable();
    let mut committed_ms = 0;
    let timed = positions.iter().zip(hashes).map(|(position, hash)| {
        while let Some(mark) = marks.next_if(|mark| mark.position <= *position) {
            committed_ms = mark.committed_ms;
        }
        (committed_ms, *hash)
    });
    timed.collect()
}

/// Where a record lies: the segment's number above, the byte in it below. Fits a [`Spot`].
pub(crate) fn place(segment: u64, at: u64) -> u64 {
    segment << 32 | at
}

/// The segment's number and the byte of a [`place`].
pub(crate) fn segment_and_byte(place: u64) -> (u64, u64) {
    (place >> 32, place & 0xffff_ffff)
}

/// A stretch of positions: above `after`, up to and with `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) after: Position,
    pub(crate) upto: Position,
}

impl Stretch {
    pub(crate) fn is_empty(self) -> bool {
        self.after >= self.upto
    }

    fn holds(self, position: Position) -> bool {
        position > self.after && position <= self.upto
    }
}

/// Adds the spots of `list` in `stretch` to `found`, until that has `limit`.
pub(crate) fn collect(
    list: &[u8],
    segment: u64,
    stretch: Stretch,
    limit: usize,
    found: &mut Vec<Spot>,
) {
    let room = limit.saturating_sub(found.len());
    let inside = entries(list).filter(|(position, _)| stretch.holds(*position));
    let spots = inside.map(|(position, at)| Spot { position, place: place(segment, at) });
    found.extend(spots.take(room));
}

/// How many records of `list` lie in `stretch`.
pub(crate) fn count(list: &[u8], stretch: Stretch) -> u64 {
    entries(list).filter(|(position, _)| stretch.holds(*position)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hash_has_the_time_of_the_mark_before_its_record() {
        let mark =
            |committed_ms, position| TimeMark { committed_ms, position: Position(position), at: 0 };
        let times = [mark(1_000, 3), mark(2_500, 5), mark(9_000, 40)];
        // Positions 6 to 38 are a gap; lists of topics are not in order.
        let positions = [4, 39, 41, 3, 5, 40].map(Position).to_vec();
        let timed = timed(positions, &[10, 11, 12, 13, 14, 15], &times);
        let expected =
            [(1_000, 10), (1_000, 11), (2_500, 12), (2_500, 13), (9_000, 14), (9_000, 15)];
        assert_eq!(timed, expected);
    }
}
