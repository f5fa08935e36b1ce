//! Reads a whole segment and tells what is sound, what is corrupt and what was merely torn.
//!
//! Pure: bytes in, findings out. The tail lies after the **last** valid frame, not before the first
//! bad one, so one flipped bit never hides what came after it. A bad range at or below what was
//! promised to be durable is corruption; one above it is a commit that nobody was promised.

use eventbus_core::Position;

use crate::bytes::batch::{self, BatchHead, Kind};
use crate::bytes::record::{self, RecordHead};
use crate::bytes::segment::CONTENT_AT;
use crate::bytes::{ALIGN, LogId, Seed};

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whole<'a> {
    /// The file from its first byte on.
    pub(crate) bytes: &'a [u8],
    pub(crate) log: LogId,
    /// The segment's number.
    pub(crate) number: u64,
    /// The first position the segment may hold.
    pub(crate) base: Position,
    /// What is known from elsewhere to have been durable.
    pub(crate) promised: Position,
    /// The last position that counts: what lies above was left behind by a write that failed.
    pub(crate) last: Position,
}

/// A sound record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) head: RecordHead,
    pub(crate) at: usize,
}

/// Bytes that are no frame, and the positions that went with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRange {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) first: Position,
    /// 0 when only the head of a batch is lost.
    pub(crate) count: u64,
}

/// What a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) records: Vec<Found>,
    /// Was promised and is lost.
    pub(crate) corrupt: Vec<BadRange>,
    /// Was never promised; recovery writes a gap over it.
    pub(crate) torn: Vec<BadRange>,
    /// From this byte on nothing says that it was synced; the file's first one where that is all.
    pub(crate) unsynced_from: usize,
    /// The first byte after the last valid frame.
    pub(crate) end: usize,
    /// Something promised is missing at the end: nothing may be written behind it.
    pub(crate) end_is_corrupt: bool,
    /// The position the next frame must carry, once gaps lie over what is torn.
    pub(crate) expected: Position,
    /// The first position that was never used.
    pub(crate) next: Position,
    pub(crate) epoch: u32,
    pub(crate) committed_ms: u64,
    /// The largest durable position any batch spoke of.
    pub(crate) synced_upto: Position,
}

/// Reads a segment.
pub(crate) fn scan(whole: Whole<'_>) -> Scan {
    let mut walk = Walk::new(whole);
    while walk.step() {}
    walk.judge()
}

#[derive(Clone, Copy, Debug)]
enum Frame {
    Batch(BatchHead),
    Record(RecordHead),
}

struct Walk<'a> {
    whole: Whole<'a>,
    seed: Seed,
    at: usize,
    expected: Position,
    epoch: u32,
    records: Vec<Found>,
    batches: Vec<(usize, BatchHead)>,
    bad: Vec<BadRange>,
}

impl<'a> Walk<'a> {
    fn new(whole: Whole<'a>) -> Self {
        Self {
            whole,
            seed: Seed::new(whole.log, whole.number),
            at: CONTENT_AT as usize,
            expected: whole.base,
            epoch: 0,
            records: Vec::new(),
            batches: Vec::new(),
            bad: Vec::new(),
        }
    }

    /// Takes the next frame in; false at the end.
    fn step(&mut self) -> bool {
        if let Some(frame) = self.frame_at(self.at)
            && position_of(&frame) == self.expected
        {
            self.take(frame);
            return true;
        }
        let searched = self.at;
        let Some((at, frame)) = self.search(searched) else { return false };
        let first = self.expected;
        self.lost(BadRange {
            from: searched,
            to: at,
            first,
            count: position_of(&frame).0 - first.0,
        });
        self.at = at;
        self.expected = position_of(&frame);
        self.take(frame);
        true
    }

    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Batch(head) => {
                self.epoch = head.epoch;
                self.batches.push((self.at, head));
                self.at += batch::BYTES;
                if head.kind == Kind::Gap {
                    self.at += head.length as usize;
                    self.expected.0 += u64::from(head.count);
                }
            }
            Frame::Record(head) => {
                let (at, bytes) = (self.at, self.whole.bytes);
                self.epoch = head.epoch;
                self.at = (at + head.size()).min(bytes.len());
                if head.event(&bytes[at..]).is_some() {
                    self.records.push(Found { head, at });
                } else {
                    self.lost(BadRange { from: at, to: self.at, first: head.position, count: 1 });
                }
                self.expected = head.position.next();
            }
        }
    }

    /// A valid frame at `at` that may follow what was read: neither epoch nor position fall.
    fn frame_at(&self, at: usize) -> Option<Frame> {
        let bytes = self.whole.bytes.get(at..)?;
        let mark = bytes.first_chunk::<4>()?;
        let (frame, epoch) = if *mark == batch::MARK {
            let head = BatchHead::decode(bytes, self.whole.log, self.seed)?;
            (Frame::Batch(head), head.epoch)
        } else if *mark == record::MARK {
            let head = RecordHead::decode(bytes, self.seed)?;
            (Frame::Record(head), head.epoch)
        } else {
            return None;
        };
        (epoch >= self.epoch && position_of(&frame) >= self.expected).then_some(frame)
    }

    fn search(&self, from: usize) -> Option<(usize, Frame)> {
        let last = self.whole.bytes.len().checked_sub(batch::BYTES)?;
        (from..=last).step_by(ALIGN).find_map(|at| Some((at, self.frame_at(at)?)))
    }

    fn lost(&mut self, range: BadRange) {
        match self.bad.last_mut() {
            Some(last) if last.to == range.from && last.first.0 + last.count == range.first.0 => {
                last.to = range.to;
                last.count += range.count;
            }
            _ => self.bad.push(range),
        }
    }

    /// Tells corrupt from torn, drops atomic batches that are not whole.
    fn judge(self) -> Scan {
        let heads = || self.batches.iter().map(|(_, head)| head);
        let synced_upto = heads().map(|head| head.synced_upto).max().unwrap_or_default();
        let promised = synced_upto.max(self.whole.promised);
        let announced = heads().map(|head| head.base.0 + u64::from(head.count)).max();
        let (mut corrupt, mut torn): (Vec<_>, Vec<_>) =
            self.bad.iter().partition(|range| range.first <= promised);
        let end_is_corrupt = self.expected <= promised;
        if end_is_corrupt {
            let (first, count) = (self.expected, promised.0 + 1 - self.expected.0);
            corrupt.push(BadRange { from: self.at, to: self.at, first, count });
        }
        let unsynced_from = self.unsynced_from(promised);
        torn.extend(self.broken_atomic(promised));
        torn.extend(self.left_behind());
        let torn = merged(torn);
        let kept = |found: &Found| !torn.iter().any(|t| t.from <= found.at && found.at < t.to);
        let records: Vec<Found> = self.records.into_iter().filter(kept).collect();
        // A gap over what is torn uses its positions up.
        let after_gaps = torn.iter().map(|range| range.first.0 + range.count).max().unwrap_or(0);
        let expected = Position(self.expected.0.max(after_gaps));
        let times = heads().map(|head| head.committed_ms);
        let times = times.chain(records.iter().map(|found| found.head.committed_ms));
        Scan {
            corrupt,
            unsynced_from,
            end: self.at,
            expected,
            end_is_corrupt,
            next: Position(expected.0.max(announced.unwrap_or(0)).max(promised.0 + 1)),
            epoch: self.epoch,
            committed_ms: times.max().unwrap_or(0),
            synced_upto,
            records,
            torn,
        }
    }

    fn unsynced_from(&self, promised: Position) -> usize {
        // A gap may be empty: then what follows it has the position that it names.
        let last = |head: &BatchHead| head.base.0 + u64::from(head.count.max(1)) - 1;
        let batch = self.batches.iter().find(|(_, head)| last(head) > promised.0);
        let batch = batch.map(|(at, _)| *at);
        let record = self.records.iter().find(|found| found.head.position > promised);
        let record = record.map(|found| found.at);
        let from = [batch, record].into_iter().flatten().min().unwrap_or(self.at);
        if from > CONTENT_AT as usize { from } else { 0 }
    }

    /// The extents of what does not count though it is whole.
    fn left_behind(&self) -> Vec<BadRange> {
        let last = self.whole.last;
        let batches = self.batches.iter().filter(|(_, head)| head.base > last);
        let batches = batches.filter(|(_, head)| head.kind != Kind::Gap);
        let batches = batches.map(|(at, head)| BadRange {
            from: *at,
            to: (at + batch::BYTES + head.length as usize).min(self.at),
            first: head.base,
            count: u64::from(head.count),
        });
        let records = self.records.iter().filter(|found| found.head.position > last);
        let records = records.map(|found| BadRange {
            from: found.at,
            to: found.at + found.head.size(),
            first: found.head.position,
            count: 1,
        });
        batches.chain(records).collect()
    }

    /// The extents of atomic batches above `promised` of which something is missing.
    fn broken_atomic(&self, promised: Position) -> Vec<BadRange> {
        let mut broken = Vec::new();
        let mut whole: Vec<(Position, Position)> = Vec::new();
        for (at, head) in &self.batches {
            if head.kind != Kind::Atomic {
                continue;
            }
            let end = Position(head.base.0 + u64::from(head.count));
            let from = self.records.partition_point(|found| found.head.position < head.base);
            let to = self.records.partition_point(|found| found.head.position < end);
            if to - from == head.count as usize || end.0 <= promised.0 + 1 {
                whole.push((head.base, end));
            } else {
                let bytes = batch::BYTES + head.length as usize;
                let to = (at + bytes).min(self.at);
                broken.push(BadRange {
                    from: *at,
                    to,
                    first: head.base,
                    count: u64::from(head.count),
                });
            }
        }
        // Records that say they are part of an atomic batch whose head is lost.
        let headless = self.records.iter().filter(|found| {
            let position = found.head.position;
            let in_whole = || {
                let after = whole.partition_point(|(base, _)| *base <= position);
                after > 0 && position < whole[after - 1].1
            };
            found.head.atomic && position > promised && !in_whole()
        });
        broken.extend(headless.map(|found| BadRange {
            from: found.at,
            to: found.at + found.head.size(),
            first: found.head.position,
            count: 1,
        }));
        broken
    }
}

fn position_of(frame: &Frame) -> Position {
    match frame {
        Frame::Batch(head) => head.base,
        Frame::Record(head) => head.position,
    }
}

/// Ranges that touch become one.
fn merged(mut ranges: Vec<BadRange>) -> Vec<BadRange> {
    ranges.sort_by_key(|range| range.from);
    let mut merged: Vec<BadRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.from <= last.to => {
                let end = (last.first.0 + last.count).max(range.first.0 + range.count);
                last.first = last.first.min(range.first);
                last.count = end - last.first.0;
                last.to = last.to.max(range.to);
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests;
