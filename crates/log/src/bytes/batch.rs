//! The head of a batch: stands before the records that were committed together.

use eventbus_core::Position;

use super::{Fields, LogId, Seed, opened, seal};

pub(crate) const MARK: [u8; 4] = *b"EBBH";

/// Bytes of a batch head.
pub(crate) const BYTES: usize = 64;

const ATOMIC: u16 = 1;
const GAP: u16 = 2;

/// What the bytes after a batch head are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records that stand alone.
    Records,
    /// Records of which all count or none.
    Atomic,
    /// Nothing: `length` bytes to step over, and `count` positions that are not used. Written by
    /// recovery over a torn commit, and first of all in each epoch.
    Gap,
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHead {
    pub(crate) kind: Kind,
    /// Grows by one each time the log is opened.
    pub(crate) epoch: u32,
    /// Positions `base` to `base + count - 1` belong to the batch.
    pub(crate) base: Position,
    pub(crate) count: u32,
    /// Bytes of the records after this head.
    pub(crate) length: u32,
    /// Wall clock, milliseconds since 1970; never falls along the log.
    pub(crate) committed_ms: u64,
    /// When this head was written, everything up to this position was durable.
    pub(crate) synced_upto: Position,
}

impl BatchHead {
    pub(crate) fn encode(&self, log: LogId, seed: Seed) -> [u8; BYTES] {
        let flags = match self.kind {
            Kind::Records => 0,
            Kind::Atomic => ATOMIC,
            Kind::Gap => GAP,
        };
        let mut out = [0; BYTES];
        out[..4].copy_from_slice(&MARK);
        out[8..24].copy_from_slice(&log.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.epoch.to_le_bytes());
        out[28..32].copy_from_slice(&self.count.to_le_bytes());
        out[32..40].copy_from_slice(&self.base.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.committed_ms.to_le_bytes());
        out[48..56].copy_from_slice(&self.synced_upto.0.to_le_bytes());
        out[56..60].copy_from_slice(&self.length.to_le_bytes());
        out[60..62].copy_from_slice(&flags.to_le_bytes());
        seal(&mut out, seed);
        out
    }

    /// The head at the start of `bytes`, if one is there.
    pub(crate) fn decode(bytes: &[u8], log: LogId, seed: Seed) -> Option<Self> {
        let mut fields = opened::<BYTES>(bytes, MARK, seed)?;
        if fields.u128()? != log.0 {
            return None;
        }
        let (epoch, count, base) = (fields.u32()?, fields.u32()?, Position(fields.u64()?));
        let (committed_ms, synced_upto) = (fields.u64()?, Position(fields.u64()?));
        let length = fields.u32()?;
        let flags = fields.u16()?;
        let kind = match (flags & ATOMIC != 0, flags & GAP != 0) {
            (_, true) => Kind::Gap,
            (true, false) => Kind::Atomic,
            (false, false) => Kind::Records,
        };
        Some(Self { kind, epoch, base, count, length, committed_ms, synced_upto })
    }
}

/// The log that the head at the start of `bytes` says it is of, if one seems to be there.
pub(crate) fn log(bytes: &[u8]) -> Option<LogId> {
    let mut fields = Fields(bytes);
    let is_marked = fields.array() == Some(MARK);
    fields.u32()?;
    fields.u128().filter(|_| is_marked).map(LogId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back_and_any_flipped_bit_is_seen() {
        let (log, seed) = (LogId(5), Seed::new(LogId(5), 2));
        for kind in [Kind::Records, Kind::Atomic, Kind::Gap] {
            let head = BatchHead {
                kind,
                epoch: 3,
                base: Position(1 << 40),
                count: 17,
                length: 70_000,
                committed_ms: 1_700_000_000_000,
                synced_upto: Position(99),
            };
            let mut bytes = head.encode(log, seed);
            assert_eq!(BatchHead::decode(&bytes, log, seed), Some(head));
            assert_eq!(BatchHead::decode(&bytes, log, Seed::new(log, 3)), None, "other segment");
            for bit in 0..BYTES * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(BatchHead::decode(&bytes, log, seed), None, "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
