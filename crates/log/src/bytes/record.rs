//! The record: one event with what the log must know of it.
//!
//! Head and event have checksums of their own: while the head is sound its length can be trusted,
//! so a damaged event costs just itself.

use eventbus_core::{Position, TopicHash};

use super::{Seed, aligned, opened, seal};

pub(crate) const MARK: [u8; 4] = *b"EBRE";

/// Bytes of a record's head.
pub(crate) const BYTES: usize = 64;

const ATOMIC: u16 = 1;

/// The head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub(crate) position: Position,
    pub(crate) committed_ms: u64,
    pub(crate) topic_hash: TopicHash,
    pub(crate) deduplication: u128,
    pub(crate) epoch: u32,
    /// Bytes of the event after this head, padding not counted.
    pub(crate) length: u32,
    /// Checksum of those bytes, unseeded: the publisher's thread computes it before the position
    /// is known, and the head vouches for it.
    pub(crate) checksum: u32,
    /// Does it belong to a batch of which all records count or none?
    pub(crate) atomic: bool,
}

impl RecordHead {
    pub(crate) fn encode(&self, seed: Seed) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..4].copy_from_slice(&MARK);
        out[8..16].copy_from_slice(&self.position.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.committed_ms.to_le_bytes());
        out[24..32].copy_from_slice(&self.topic_hash.0.to_le_bytes());
        out[32..48].copy_from_slice(&self.deduplication.to_le_bytes());
        out[48..52].copy_from_slice(&self.epoch.to_le_bytes());
        out[52..56].copy_from_slice(&self.length.to_le_bytes());
        out[56..60].copy_from_slice(&self.checksum.to_le_bytes());
        out[60..62].copy_from_slice(&(u16::from(self.atomic) * ATOMIC).to_le_bytes());
        seal(&mut out, seed);
        out
    }

    /// The head at the start of `bytes`, if one is there. Says nothing about the event after it.
    pub(crate) fn decode(bytes: &[u8], seed: Seed) -> Option<Self> {
        let mut fields = opened::<BYTES>(bytes, MARK, seed)?;
        Some(Self {
            position: Position(fields.u64()?),
            committed_ms: fields.u64()?,
            topic_hash: TopicHash(fields.u64()?),
            deduplication: fields.u128()?,
            epoch: fields.u32()?,
            length: fields.u32()?,
            checksum: fields.u32()?,
            atomic: fields.u16()? & ATOMIC != 0,
        })
    }

    /// When it was committed, and the hash of its id.
    pub(crate) fn id(&self) -> (u64, u128) {
        (self.committed_ms, self.deduplication)
    }

    /// Bytes of the whole record: head, event, padding.
    pub(crate) fn size(&self) -> usize {
        size(self.length as usize)
    }

    /// The bytes of the event, when they are all in `bytes` (which starts with the head) and right.
    pub(crate) fn event<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let event = bytes.get(BYTES..BYTES + self.length as usize)?;
        (crc32c::crc32c(event) == self.checksum).then_some(event)
    }
}

/// Bytes of a record whose event has `length` bytes.
pub(crate) fn size(length: usize) -> usize {
    BYTES + aligned(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_any_flipped_bit_is_seen() {
        let seed = Seed::new(LogId(5), 2);
        let event = b"an event of some bytes";
        let head = RecordHead {
            position: Position(77),
            committed_ms: 1_700_000_000_000,
            topic_hash: TopicHash(0xfeed),
            deduplication: 1 << 100,
            epoch: 3,
            length: event.len() as u32,
            checksum: crc32c::crc32c(event),
            atomic: true,
        };
        let mut bytes = head.encode(seed).to_vec();
        bytes.extend_from_slice(event);
        let read = |bytes: &[u8]| {
            let head = RecordHead::decode(bytes, seed)?;
            head.event(bytes).map(|event| (head, event.to_vec()))
        };
        assert_eq!(read(&bytes), Some((head, event.to_vec())));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for torn in 0..bytes.len() {
            assert_eq!(read(&bytes[..torn]), None, "torn at {torn}");
        }
    }

    use super::super::LogId;
}
