//! The bytes on disk, each frame in a file of its own; drawn in `docs/format.md`.
//!
//! All numbers are little endian. Every frame starts with a mark of four letters and a checksum
//! that is seeded with the log's identity and the frame's segment, so that bytes of an earlier life
//! of the file, or of another log, never pass for this one's.

pub(crate) mod batch;
pub(crate) mod entry;
pub(crate) mod record;
pub(crate) mod segment;

/// Version of all files of the log. A newer one is refused.
pub(crate) const VERSION: u16 = 1;

/// Frames begin at multiples of this, so that a search after damage is short.
pub(crate) const ALIGN: usize = 8;

/// The identity of a log, rolled when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogId(pub(crate) u128);

/// Where a checksum starts: says which log and which segment (or ledger generation) a frame is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(log: LogId, part: u64) -> Self {
        let seed = crc32c::crc32c(&log.0.to_le_bytes());
        Self(crc32c::crc32c_append(seed, &part.to_le_bytes()))
    }

    pub(crate) fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

/// `length` rounded up to the alignment of frames.
pub(crate) fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGN)
}

/// Adds zeros to the alignment of frames.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(aligned(out.len()), 0);
}

/// Fills in the checksum of the frame head that starts at `at`: bytes 4–7, over what follows.
pub(crate) fn seal(out: &mut [u8], seed: Seed) {
    let checksum = seed.checksum(&out[8..]);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// The bytes of a frame head of `N` bytes after its checksum, when mark and checksum are right.
pub(crate) fn opened<const N: usize>(
    bytes: &[u8],
    mark: [u8; 4],
    seed: Seed,
) -> Option<Fields<'_>> {
    let head = bytes.get(..N)?;
    let mut fields = Fields(head);
    if fields.array::<4>()? != mark {
        return None;
    }
    let checksum = fields.u32()?;
    (seed.checksum(&head[8..]) == checksum).then_some(fields)
}

/// Reads fields one after the other; `None` at the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A varint length and as many bytes of UTF-8.
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.varint()?).ok()?;
        std::str::from_utf8(self.bytes(length)?).ok()
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varint_is_read_back(value in any::<u64>(), small in 0u64..300) {
            for value in [value, small, u64::MAX] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                prop_assert_eq!(Fields(&out).varint(), Some(value));
                prop_assert_eq!(Fields(&out[..out.len() - 1]).varint(), None);
            }
        }
    }
}
