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
    /// What may follow the size on its line.
    Extension,
    Chunk,
    /// Behind a chunk: the end of a line.
    ChunkEnd,
    /// At the beginning of a line behind the last chunk.
    Trailer,
    InTrailer,
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

    /// Where a byte that is not of a chunk leads to. A carriage return before the end of a line
    /// says nothing.
    fn after(&mut self, byte: u8) -> Option<Place> {
        Some(match (self.place, byte) {
            (Place::Begin | Place::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16)?;
                self.left = self.left.checked_mul(16)?.checked_add(digit.into())?;
                Place::Size
            }
            (Place::Size | Place::Extension, b'\n') if self.left == 0 => Place::Trailer,
            (Place::Size | Place::Extension, b'\n') => Place::Chunk,
            (Place::Size, b'\r' | b';' | b' ' | b'\t') | (Place::Extension, _) => Place::Extension,
            (Place::ChunkEnd, b'\n') => Place::Begin,
            (Place::ChunkEnd, b'\r') => Place::ChunkEnd,
            (Place::Trailer, b'\n') => Place::End,
            (Place::Trailer, b'\r') => Place::Trailer,
            (Place::InTrailer, b'\n') => Place::Trailer,
            (Place::Trailer | Place::InTrailer, _) => Place::InTrailer,
            _ => return None,
        })
    }
}
