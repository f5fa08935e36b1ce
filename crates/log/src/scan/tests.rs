//! Every torn prefix and every flipped bit of a small segment.

use eventbus_core::TopicHash;

use super::*;
use crate::bytes::pad;

const LOG: LogId = LogId(77);
const NUMBER: u64 = 3;
const BASE: Position = Position(50);

/// A segment as a writer leaves it.
#[derive(Clone)]
struct Made {
    bytes: Vec<u8>,
    /// Where each record lies: position, from, to.
    records: Vec<(Position, usize, usize)>,
    end: usize,
    next: Position,
}

impl Made {
    fn new() -> Self {
        let bytes = vec![0; 16 * 1024];
        Self { bytes, records: Vec::new(), end: CONTENT_AT as usize, next: BASE }
    }

    /// Commits a batch; everything before it is durable when `synced`.
    fn commit(&mut self, kind: Kind, events: &[&[u8]], synced: bool) {
        let seed = Seed::new(LOG, NUMBER);
        let synced_upto = if synced { Position(self.next.0 - 1) } else { Position(BASE.0 - 1) };
        let mut out = vec![0; batch::BYTES];
        let base = self.next;
        for event in events {
            let from = self.end + out.len();
            let head = RecordHead {
                position: self.next,
                committed_ms: 1_000 + self.next.0,
                topic_hash: TopicHash(9),
                deduplication: 5,
                epoch: 2,
                length: event.len() as u32,
                checksum: crc32c::crc32c(event),
                atomic: kind == Kind::Atomic,
            };
            out.extend_from_slice(&head.encode(seed));
            out.extend_from_slice(event);
            pad(&mut out);
            self.records.push((self.next, from, self.end + out.len()));
            self.next = self.next.next();
        }
        let head = BatchHead {
            kind,
            epoch: 2,
            base,
            count: events.len() as u32,
            length: (out.len() - batch::BYTES) as u32,
            committed_ms: 1_000 + base.0,
            synced_upto,
        };
        out[..batch::BYTES].copy_from_slice(&head.encode(LOG, seed));
        self.bytes[self.end..self.end + out.len()].copy_from_slice(&out);
        self.end += out.len();
    }

    fn scan(&self, promised: Position) -> Scan {
        self.scan_upto(promised, Position(u64::MAX))
    }

    fn scan_upto(&self, promised: Position, last: Position) -> Scan {
        let (log, number, base) = (LOG, NUMBER, BASE);
        scan(Whole { bytes: &self.bytes, log, number, base, promised, last })
    }

    fn small() -> Self {
        let mut made = Self::new();
        made.commit(Kind::Records, &[b"one", b"two and more"], false);
        made.commit(Kind::Atomic, &[b"three", b"", b"five"], true);
        made.commit(Kind::Records, &[b"six"], true);
        made
    }

    /// What a run before this one left in the file.
    fn over_old_bytes(mut self) -> Self {
        let mut old = Self::new();
        for _ in 0..20 {
            old.commit(Kind::Records, &[b"an old event", b"another"], true);
        }
        let other = Seed::new(LOG, NUMBER - 1);
        let mut at = CONTENT_AT as usize;
        // The same frames, sealed for the segment the file was before.
        while let Some(head) = BatchHead::decode(&old.bytes[at..], LOG, Seed::new(LOG, NUMBER)) {
            old.bytes[at..at + batch::BYTES].copy_from_slice(&head.encode(LOG, other));
            at += batch::BYTES + head.length as usize;
        }
        let end = self.end;
        self.bytes[end..].copy_from_slice(&old.bytes[end..]);
        for (_, from, _) in &old.records {
            if *from >= end {
                self.bytes[from + 4] ^= 0xff;
            }
        }
        self
    }
}

fn positions(scan: &Scan) -> Vec<Position> {
    scan.records.iter().map(|found| found.head.position).collect()
}

#[test]
fn a_sound_segment_is_read_whole() {
    for made in [Made::small(), Made::small().over_old_bytes()] {
        let scan = made.scan(Position(0));
        let all: Vec<Position> = made.records.iter().map(|(position, ..)| *position).collect();
        assert_eq!(positions(&scan), all);
        assert_eq!((scan.end, scan.next, scan.expected), (made.end, made.next, made.next));
        assert!(scan.corrupt.is_empty() && scan.torn.is_empty() && !scan.end_is_corrupt);
    }
}

#[test]
fn what_a_failed_write_left_behind_does_not_count() {
    for kind in [Kind::Records, Kind::Atomic] {
        let mut made = Made::small();
        let last = Position(made.next.0 - 1);
        made.commit(kind, &[b"refused", b"too"], true);
        let scan = made.scan_upto(Position(0), last);
        assert_eq!(positions(&scan), positions(&Made::small().scan(Position(0))));
        assert_eq!((scan.torn.len(), scan.next), (1, made.next), "{scan:?}");
    }
}

#[test]
fn a_flipped_bit_costs_at_most_what_it_hits() {
    let made = Made::small();
    let promised = Position(made.next.0 - 1);
    for bit in CONTENT_AT as usize * 8..made.end * 8 {
        let mut flipped = made.clone();
        flipped.bytes[bit / 8] ^= 1 << (bit % 8);
        let scan = flipped.scan(promised);
        let hit = |from: &usize, to: &usize| (*from..*to).contains(&(bit / 8));
        let sound = made.records.iter().filter(|(_, from, to)| !hit(from, to));
        let sound: Vec<Position> = sound.map(|(position, ..)| *position).collect();
        let found = positions(&scan);
        assert!(sound.iter().all(|position| found.contains(position)), "bit {bit}: {scan:?}");
        for record in &scan.records {
            let bytes = &flipped.bytes[record.at..];
            assert_eq!(record.head.event(bytes), record.head.event(&made.bytes[record.at..]));
        }
        let padding = found.len() == made.records.len();
        assert!(padding || !scan.corrupt.is_empty(), "bit {bit} is reported: {scan:?}");
        assert!(scan.torn.is_empty(), "what was promised is never called torn: {scan:?}");
        assert!(scan.next >= made.next);
    }
}

#[test]
fn a_torn_commit_costs_nothing_that_was_promised() {
    for kind in [Kind::Records, Kind::Atomic] {
        let mut made = Made::small().over_old_bytes();
        let (end, next) = (made.end, made.next);
        made.commit(kind, &[b"seven", b"eight", &[b'x'; 700], b"ten"], true);
        let before = Made::small().over_old_bytes();
        for torn in end..made.end {
            // A prefix came through; or everything but a prefix; or all but one sector's worth.
            for (from, to) in [(torn, made.end), (end, torn), (torn, (torn + 512).min(made.end))] {
                let mut cut = made.clone();
                cut.bytes[from..to].copy_from_slice(&before.bytes[from..to]);
                check_torn(&cut, kind, next, (from, to));
            }
        }
    }
}

/// Nothing promised is lost, an atomic batch is whole or gone, and the gaps that recovery writes
/// make the next scan quiet.
fn check_torn(cut: &Made, kind: Kind, next: Position, torn: (usize, usize)) {
    let promised = Position(next.0 - 1);
    let scan = cut.scan(promised);
    let found = positions(&scan);
    assert!((BASE.0..next.0).all(|p| found.contains(&Position(p))), "{torn:?}: {scan:?}");
    assert!(scan.corrupt.is_empty(), "nobody was promised it: {torn:?} {scan:?}");
    let more = found.len() - (next.0 - BASE.0) as usize;
    assert!(kind != Kind::Atomic || more == 0 || more == 4, "{torn:?}: {more} of 4");
    let mut mended = cut.clone();
    for range in &scan.torn {
        let gap = BatchHead {
            kind: Kind::Gap,
            epoch: scan.epoch,
            base: range.first,
            count: range.count as u32,
            length: (range.to - range.from - batch::BYTES) as u32,
            committed_ms: 1,
            synced_upto: scan.synced_upto,
        };
        let gap = gap.encode(LOG, Seed::new(LOG, NUMBER));
        mended.bytes[range.from..range.from + batch::BYTES].copy_from_slice(&gap);
    }
    let again = mended.scan(promised);
    assert_eq!(positions(&again), found, "{torn:?}");
    assert!(again.corrupt.is_empty() && again.torn.is_empty(), "{torn:?}: {again:?}");
    assert_eq!((again.end, again.expected), (scan.end, scan.expected), "{torn:?}");
}
