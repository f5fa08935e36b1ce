//! A chunked body: where it ends (RFC 9112, section 7.1). Pure.

/// A chunked body, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    place: Place,
    /// Bytes of this chunk that are still to come.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Before the first digit of a size.
    #[default]
    Begin,
    Size,
    /// Between a size and what may follow it on its line.
    Blank,
    Extension,
    /// Before the last byte of a size's line.
    SizeEnd,
    Chunk,
    /// Behind a chunk: before the two bytes that end it.
    ChunkEnd,
    ChunkLast,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    InTrailer,
    TrailerEnd,
    /// Before the very last byte.
    Last,
    End,
}

impl Chunks {
    /// Reads on; tells how many of `bytes` belong to the body, and whether it has ended. `None`:
    /// this is no chunked body.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let mut at = 0;
        while let (Some(&byte), true) = (bytes.get(at), self.place != Place::End) {
            if self.place == Place::Chunk {
                let skipped = self.left.min((bytes.len() - at) as u64);
                self.left -= skipped;
                at += skipped as usize;
                if self.left == 0 {
                    self.place = Place::ChunkEnd;
                }
                continue;
            }
            self.place = self.after(byte)?;
            at += 1;
        }
        Some((at, self.place == Place::End))
    }

    /// Where a byte that is not of a chunk leads to. Lines end as they must: whoever reads them
    /// otherwise on the way would see another end of the body.
    fn after(&mut self, byte: u8) -> Option<Place> {
        Some(match (self.place, byte) {
            (Place::Begin | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16)?;
                self.left = self.left.checked_mul(16)?.checked_add(digit.into())?;
                Place::Size
            }
            (Place::Size | Place::Blank | Place::Extension, b'\r') => Place::SizeEnd,
            (Place::Size | Place::Blank, b';') => Place::Extension,
            (Place::Size | Place::Blank, b' ' | b'\t') => Place::Blank,
            (Place::SizeEnd, b'\n') if self.left == 0 => Place::Trailer,
            (Place::SizeEnd, b'\n') => Place::Chunk,
            (Place::ChunkEnd, b'\r') => Place::ChunkLast,
            (Place::ChunkLast, b'\n') => Place::Begin,
            (Place::Trailer, b'\r') => Place::Last,
            (Place::InTrailer, b'\r') => Place::TrailerEnd,
            (Place::TrailerEnd, b'\n') => Place::Trailer,
            (Place::Last, b'\n') => Place::End,
            (_, b'\n') => return None,
            (Place::Extension, _) => Place::Extension,
            (Place::Trailer | Place::InTrailer, _) => Place::InTrailer,
            _ => return None,
        })
    }
}
