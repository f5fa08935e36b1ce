//! The frame of the ledger: one change of what is known of the cursors.

use eventbus_core::broker::CursorId;
use eventbus_core::cursor::{Entry, Spot, Waiting};
use eventbus_core::delivery::{Attempt, Attempts, Tried};
use eventbus_core::{Interest, Position, Source, Text};

use super::{Fields, Seed, aligned, pad, put_text, put_varint, seal};

pub(crate) const MARK: [u8; 4] = *b"EBLE";

/// Bytes of a frame before its body: mark, checksum, length, kind, flags, byte of the file.
pub(crate) const BYTES: usize = 24;

const OPEN: u8 = 1;
const TURN: u8 = 2;
const FORGET: u8 = 3;
const DROP: u8 = 4;
const MARK_KIND: u8 = 5;
const SNAPSHOT_END: u8 = 6;

/// A waiting event's flags. Bit 0 is kept for "a key hash of eight bytes follows".
const NO_FLAGS: u8 = 0;
const KEY_HASH: u8 = 1;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A cursor is made, or its spec is another one.
    Open(Opened),
    /// A dispatcher's turn.
    Turn { cursor: u64, entry: Entry },
    /// A cursor is forgotten.
    Forget { cursor: u64 },
    /// A cursor loses everything up to a position; `dropped` counts all it ever lost.
    Drop { cursor: u64, upto: Position, dropped: u64 },
    /// What the log knew when this was written; `closed` when nothing came after it.
    Mark { synced: Position, next: Position, closed: bool },
    /// Everything a new file begins with has been said.
    SnapshotEnd,
}

/// What makes a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) cursor: u64,
    pub(crate) id: CursorId,
    pub(crate) interest: Interest,
    pub(crate) waiting_max: usize,
    /// Everything up to here is settled; counts only when the cursor is made.
    pub(crate) frontier: Position,
    pub(crate) dropped: u64,
}

impl Change {
    /// Appends the frame, which will lie at byte `at` of the file.
    pub(crate) fn encode(&self, at: u64, seed: Seed, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(&MARK);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&[self.kind(), 0, 0, 0]);
        out.extend_from_slice(&at.to_le_bytes());
        self.encode_body(out);
        let length = (out.len() - from - BYTES) as u32;
        pad(out);
        out[from + 8..from + 12].copy_from_slice(&length.to_le_bytes());
        seal(&mut out[from..], seed);
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Open(_) => OPEN,
            Self::Turn { .. } => TURN,
            Self::Forget { .. } => FORGET,
            Self::Drop { .. } => DROP,
            Self::Mark { .. } => MARK_KIND,
            Self::SnapshotEnd => SNAPSHOT_END,
        }
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(opened) => encode_open(opened, out),
            Self::Turn { cursor, entry } => {
                put_varint(out, *cursor);
                encode_entry(entry, out);
            }
            Self::Forget { cursor } => put_varint(out, *cursor),
            Self::Drop { cursor, upto, dropped } => {
                for value in [*cursor, upto.0, *dropped] {
                    put_varint(out, value);
                }
            }
            Self::Mark { synced, next, closed } => {
                for value in [synced.0, next.0, u64::from(*closed)] {
                    put_varint(out, value);
                }
            }
            Self::SnapshotEnd => {}
        }
    }

    /// The frame at the start of `bytes`, which lies at byte `at` of the file, and its whole size.
    pub(crate) fn decode(bytes: &[u8], at: u64, seed: Seed) -> Option<(Self, usize)> {
        let length = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?) as usize;
        let size = BYTES + aligned(length);
        let frame = bytes.get(..size)?;
        if frame[..4] != MARK {
            return None;
        }
        let checksum = u32::from_le_bytes(*frame.get(4..)?.first_chunk()?);
        if seed.checksum(&frame[8..]) != checksum {
            return None;
        }
        let mut fields = Fields(&frame[12..BYTES + length]);
        let kind = fields.u8()?;
        fields.bytes(3)?;
        if fields.u64()? != at {
            return None;
        }
        Some((decode_body(kind, fields)?, size))
    }

    /// The highest position this change speaks of.
    pub(crate) fn highest(&self) -> Position {
        match self {
            Self::Open(opened) => opened.frontier,
            Self::Turn { entry, .. } => entry.frontier,
            Self::Drop { upto, .. } => *upto,
            Self::Mark { next, .. } => Position(next.0.saturating_sub(1)),
            Self::Forget { .. } | Self::SnapshotEnd => Position(0),
        }
    }
}

fn encode_open(opened: &Opened, out: &mut Vec<u8>) {
    put_varint(out, opened.cursor);
    put_text(out, &opened.id.0);
    put_text(out, opened.interest.source.as_str());
    put_text(out, &opened.interest.event_type);
    put_text(out, &opened.interest.event_type_version);
    for value in [opened.waiting_max as u64, opened.frontier.0, opened.dropped] {
        put_varint(out, value);
    }
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    put_varint(out, entry.frontier.0);
    put_varint(out, entry.taken.len() as u64);
    let mut before = Spot { position: Position(0), place: 0 };
    for spot in &entry.taken {
        put_varint(out, spot.position.0 - before.position.0);
        put_varint(out, zigzag(spot.place.wrapping_sub(before.place)));
        before = *spot;
    }
    put_varint(out, entry.gone.len() as u64);
    for position in &entry.gone {
        put_varint(out, position.0);
    }
    put_varint(out, entry.waiting.len() as u64);
    for waiting in &entry.waiting {
        out.push(NO_FLAGS);
        let Waiting { spot, due_ms, tried } = waiting;
        for value in [spot.position.0, spot.place, *due_ms, u64::from(tried.attempts)] {
            put_varint(out, value);
        }
        put_varint(out, tried.last.len() as u64);
        put_attempts(&tried.last, out);
    }
}

fn decode_body(kind: u8, mut fields: Fields<'_>) -> Option<Change> {
    Some(match kind {
        OPEN => Change::Open(decode_open(&mut fields)?),
        TURN => {
            let cursor = fields.varint()?;
            Change::Turn { cursor, entry: decode_entry(&mut fields)? }
        }
        FORGET => Change::Forget { cursor: fields.varint()? },
        DROP => Change::Drop {
            cursor: fields.varint()?,
            upto: Position(fields.varint()?),
            dropped: fields.varint()?,
        },
        MARK_KIND => Change::Mark {
            synced: Position(fields.varint()?),
            next: Position(fields.varint()?),
            closed: fields.varint()? != 0,
        },
        SNAPSHOT_END => Change::SnapshotEnd,
        _ => return None,
    })
}

fn decode_open(fields: &mut Fields<'_>) -> Option<Opened> {
    Some(Opened {
        cursor: fields.varint()?,
        id: CursorId(Text::from(fields.text()?)),
        interest: Interest {
            source: Source::from_id(fields.text()?.into()),
            event_type: fields.text()?.into(),
            event_type_version: fields.text()?.into(),
        },
        waiting_max: usize::try_from(fields.varint()?).ok()?,
        frontier: Position(fields.varint()?),
        dropped: fields.varint()?,
    })
}

fn decode_entry(fields: &mut Fields<'_>) -> Option<Entry> {
    let mut entry = Entry { frontier: Position(fields.varint()?), ..Entry::default() };
    let mut spot = Spot { position: Position(0), place: 0 };
    for _ in 0..fields.varint()? {
        spot.position.0 = spot.position.0.checked_add(fields.varint()?)?;
        spot.place = spot.place.wrapping_add(unzigzag(fields.varint()?));
        entry.taken.push(spot);
    }
    for _ in 0..fields.varint()? {
        entry.gone.push(Position(fields.varint()?));
    }
    for _ in 0..fields.varint()? {
        let flags = fields.u8()?;
        let spot = Spot { position: Position(fields.varint()?), place: fields.varint()? };
        let due_ms = fields.varint()?;
        let attempts = u32::try_from(fields.varint()?).ok()?;
        let mut last = Attempts::default();
        for _ in 0..fields.varint()? {
            last.push(attempt(fields)?);
        }
        if flags & KEY_HASH != 0 {
            fields.u64()?;
        }
        entry.waiting.push(Waiting { spot, due_ms, tried: Tried { attempts, last } });
    }
    Some(entry)
}

/// Eight bytes an attempt.
pub(crate) fn put_attempts(attempts: &[Attempt], out: &mut Vec<u8>) {
    for attempt in attempts {
        out.extend_from_slice(&attempt.at_s.to_le_bytes());
        out.extend_from_slice(&attempt.took_ms.to_le_bytes());
        out.extend_from_slice(&attempt.outcome_code.to_le_bytes());
    }
}

/// Reads one attempt back.
pub(crate) fn attempt(fields: &mut Fields<'_>) -> Option<Attempt> {
    let (at_s, took_ms, outcome_code) = (fields.u32()?, fields.u16()?, fields.u16()?);
    Some(Attempt { at_s, took_ms, outcome_code })
}

/// Small differences of either sign as small numbers.
fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::super::LogId;
    use super::*;

    fn changes() -> Vec<Change> {
        let spot = |n: u64| Spot { position: Position(n), place: u64::MAX / 3 - n * 70 };
        let attempt = Attempt { at_s: 1, took_ms: 2, outcome_code: 503 };
        let waiting = Waiting {
            spot: spot(12),
            due_ms: 1_700_000_000_000,
            tried: Tried { attempts: 3, last: vec![attempt, attempt].into() },
        };
        let entry = Entry {
            frontier: Position(90),
            taken: vec![spot(3), spot(5), Spot { position: Position(6), place: 0 }, spot(700)],
            waiting: vec![waiting],
            gone: vec![Position(4), Position(2)],
        };
        let interest = Interest {
            source: Source::from_id("shop".into()),
            event_type: "order.created".into(),
            event_type_version: "".into(),
        };
        vec![
            Change::Open(Opened {
                cursor: 3,
                id: CursorId("a-uid".into()),
                interest,
                waiting_max: 65_536,
                frontier: Position(9),
                dropped: 4,
            }),
            Change::Turn { cursor: 300, entry },
            Change::Forget { cursor: 2 },
            Change::Drop { cursor: 1, upto: Position(1 << 50), dropped: 12 },
            Change::Mark { synced: Position(5), next: Position(7), closed: true },
            Change::SnapshotEnd,
        ]
    }

    #[test]
    fn changes_are_read_back_and_any_flipped_bit_or_torn_byte_is_seen() {
        let seed = Seed::new(LogId(1), 4);
        for change in changes() {
            let mut bytes = Vec::new();
            change.encode(640, seed, &mut bytes);
            let size = bytes.len();
            assert_eq!(Change::decode(&bytes, 640, seed), Some((change.clone(), size)));
            assert_eq!(Change::decode(&bytes, 648, seed), None, "elsewhere in the file");
            assert_eq!(Change::decode(&bytes, 640, Seed::new(LogId(1), 5)), None, "other file");
            for bit in 0..size * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Change::decode(&bytes, 640, seed), None, "{change:?} bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            for torn in 0..size {
                assert_eq!(Change::decode(&bytes[..torn], 640, seed), None);
            }
        }
    }

    #[test]
    fn a_body_that_is_no_change_is_refused() {
        for body in [&[][..], &[0xff; 12], &[1, 200]] {
            for kind in 0..=255 {
                if let Some(change) = decode_body(kind, Fields(body)) {
                    assert!(matches!(change, Change::SnapshotEnd | Change::Forget { .. }));
                }
            }
        }
    }
}
