//! The head of a segment file, in two slots: of the valid ones the younger counts.
//!
//! Both slots are written when a segment begins in a spare file, and when it becomes a spare again.
//! A torn write leaves the old head in a slot, or the new one, or none: an old segment, a spare or
//! the new segment, of which nothing was promised yet. And one damaged slot costs nothing.

use std::io;

use eventbus_core::Position;

use super::{Fields, LogId, Seed, VERSION, opened, seal};
use crate::disk::DiskFile;

const MARK: [u8; 4] = *b"EBSG";

/// Bytes of a slot that are used.
const SLOT_BYTES: usize = 128;

/// Slots lie a page apart, so that no write tears both.
const SLOT_STRIDE: u64 = 4096;

/// Where batches begin.
pub(crate) const CONTENT_AT: u64 = 2 * SLOT_STRIDE;

/// What a segment file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub(crate) log: LogId,
    /// Counts the writes of this head: the younger one counts.
    pub(crate) generation: u64,
    /// The number of the segment; 0 means spare: the file holds nothing.
    pub(crate) number: u64,
    /// The first position that may lie in it.
    pub(crate) base: Position,
    /// The last position of the segment before it that counts. Below `base - 1` when a write failed
    /// there and its positions were left behind.
    pub(crate) before: Position,
    /// Epoch in which it was begun.
    pub(crate) epoch: u32,
}

/// What the head of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadRead {
    Valid(SegmentHead),
    /// Written by a newer program.
    Newer(u16),
    /// Neither slot is valid: a file that was being made, or one damaged in both.
    Neither,
}

impl SegmentHead {
    /// Writes the head into both slots.
    pub(crate) fn write(&self, file: &dyn DiskFile) -> io::Result<()> {
        let bytes = self.encode();
        file.write_at(&bytes, 0)?;
        file.write_at(&bytes, SLOT_STRIDE)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend_from_slice(&MARK);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.log.0.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.base.0.to_le_bytes());
        out.extend_from_slice(&self.before.0.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.resize(SLOT_BYTES, 0);
        seal(&mut out, seed());
        out
    }

    /// Reads the head out of the first [`CONTENT_AT`] bytes of a file.
    pub(crate) fn read(bytes: &[u8]) -> HeadRead {
        let slots = [0, SLOT_STRIDE as usize].map(|at| slot(bytes.get(at..).unwrap_or_default()));
        let mut found = HeadRead::Neither;
        for slot in slots {
            found = match (found, slot) {
                (HeadRead::Newer(version), _) | (_, HeadRead::Newer(version)) => {
                    HeadRead::Newer(version)
                }
                (HeadRead::Valid(one), HeadRead::Valid(other)) => {
                    HeadRead::Valid(if other.generation > one.generation { other } else { one })
                }
                (found, HeadRead::Neither) => found,
                (HeadRead::Neither, found) => found,
            };
        }
        found
    }
}

/// The log is not known before the head is read, so heads of segments share one seed.
fn seed() -> Seed {
    Seed::new(LogId(0), 0)
}

fn slot(bytes: &[u8]) -> HeadRead {
    let Some(mut fields) = opened::<SLOT_BYTES>(bytes, MARK, seed()) else {
        return HeadRead::Neither;
    };
    match fields.u16() {
        Some(version) if version > VERSION => HeadRead::Newer(version),
        Some(_) => decode(fields).map_or(HeadRead::Neither, HeadRead::Valid),
        None => HeadRead::Neither,
    }
}

fn decode(mut fields: Fields<'_>) -> Option<SegmentHead> {
    fields.bytes(6)?;
    Some(SegmentHead {
        log: LogId(fields.u128()?),
        generation: fields.u64()?,
        number: fields.u64()?,
        base: Position(fields.u64()?),
        before: Position(fields.u64()?),
        epoch: fields.u32()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(generation: u64) -> SegmentHead {
        let (log, base, before) = (LogId(7), Position(70), Position(66));
        SegmentHead { log, generation, number: generation + 3, base, before, epoch: 9 }
    }

    fn file(heads: &[SegmentHead]) -> Vec<u8> {
        let mut bytes = vec![0; CONTENT_AT as usize];
        for (slot, head) in heads.iter().enumerate() {
            let at = slot * SLOT_STRIDE as usize;
            bytes[at..at + SLOT_BYTES].copy_from_slice(&head.encode());
        }
        bytes
    }

    #[test]
    fn the_younger_slot_counts_and_a_torn_one_leaves_the_older() {
        let mut bytes = file(&[head(4), head(5)]);
        assert_eq!(SegmentHead::read(&bytes), HeadRead::Valid(head(5)));
        for torn in 0..SLOT_BYTES {
            let at = SLOT_STRIDE as usize + torn;
            bytes[at] ^= 1;
            assert_eq!(SegmentHead::read(&bytes), HeadRead::Valid(head(4)), "byte {torn}");
            bytes[at] ^= 1;
        }
        assert_eq!(SegmentHead::read(&file(&[])), HeadRead::Neither);
        assert_eq!(SegmentHead::read(&[]), HeadRead::Neither);
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = file(&[head(4)]);
        let slot = &mut bytes[..SLOT_BYTES];
        slot[8..10].copy_from_slice(&(VERSION + 1).to_le_bytes());
        seal(slot, seed());
        assert_eq!(SegmentHead::read(&bytes), HeadRead::Newer(VERSION + 1));
    }
}
