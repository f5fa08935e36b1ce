//! Reads events back from the segments, for those who do not keep up.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use eventbus_core::cursor::Spot;
use eventbus_core::wire::stored;
use eventbus_core::{Position, Stored, limits};

use crate::bytes::LogId;
use crate::bytes::record::{self, RecordHead};
use crate::disk::{DiskFile, is_lost, read_range};
use crate::index;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::telemetry::{LogEvent, add};

/// Bytes read for one event among others that lie elsewhere.
const SCATTERED_BYTES: usize = 16 * 1024;

/// The last reads, for all cursors.
#[derive(Default)]
pub(crate) struct Reader {
    kept: Mutex<VecDeque<Chunk>>,
    damaged: Mutex<BTreeSet<Position>>,
}

/// What one read gave.
#[derive(Clone)]
struct Chunk {
    segment: u64,
    from: u64,
    bytes: Bytes,
}

impl Chunk {
    /// What it has from byte `at` of its segment on.
    fn behind(&self, at: u64) -> &[u8] {
        usize::try_from(at - self.from).ok().and_then(|from| self.bytes.get(from..)).unwrap_or(&[])
    }
}

/// Why an event was not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Its segment is gone.
    Gone,
    /// Its bytes are not what was written.
    Damaged(&'static str),
    /// The disk does not answer.
    Io(io::Error),
}

impl Reader {
    /// Reads the event at `spot`. `more_follow` says that its neighbours will be wanted too.
    pub(crate) fn read(
        &self,
        shared: &Shared,
        spot: Spot,
        more_follow: bool,
    ) -> Result<Stored, ReadError> {
        let (number, _) = index::segment_and_byte(spot.place);
        let segment = shared.segments.numbered(number).ok_or(ReadError::Gone)?;
        let read = self.read_in(&segment, shared.log, spot, more_follow);
        // Retired meanwhile: then another segment may have begun in its file.
        if read.is_err() && shared.segments.numbered(number).is_none() {
            return Err(ReadError::Gone);
        }
        read
    }

    fn read_in(
        &self,
        segment: &Segment,
        log: LogId,
        spot: Spot,
        more_follow: bool,
    ) -> Result<Stored, ReadError> {
        let (number, at) = index::segment_and_byte(spot.place);
        let chunk = match self.kept(number, at) {
            Some(chunk) => chunk,
            None => {
                let length = if more_follow { limits::READ_BYTES } else { SCATTERED_BYTES };
                // One bad sector must not cost the events around it: no byte more than is needed.
                let read = self.load(segment, at, length);
                read.or_else(|_| self.load(segment, at, record::BYTES))?
            }
        };
        let seed = segment.seed(log);
        let head = RecordHead::decode(chunk.behind(at), seed)
            .ok_or(ReadError::Damaged("the head of a record is not what was written"))?;
        if head.position != spot.position {
            return Err(ReadError::Damaged("another event lies in its place"));
        }
        let whole = record::BYTES + head.length as usize;
        let is_whole = chunk.behind(at).len() >= whole;
        let chunk = if is_whole { chunk } else { self.load(segment, at, whole)? };
        let event = head
            .event(chunk.behind(at))
            .ok_or(ReadError::Damaged("the bytes of an event are not what was written"))?;
        // A small event is copied out, so that it does not keep a whole read in memory.
        let event = if event.len() * 4 < chunk.bytes.len() {
            Bytes::copy_from_slice(event)
        } else {
            chunk.bytes.slice_ref(event)
        };
        let event = stored::decode(&event).map_err(|_| ReadError::Damaged("it is no event"))?;
        let committed_ms = head.committed_ms;
        Ok(Stored { position: spot.position, event: Arc::new(event), committed_ms })
    }

    /// Counts and reports a damaged event, once.
    pub(crate) fn report(&self, shared: &Shared, position: Position, reason: &'static str) {
        {
            let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
            if damaged.len() >= limits::DAMAGED_REMEMBERED {
                damaged.pop_first();
            }
            if !damaged.insert(position) {
                return;
            }
        }
        add(&shared.telemetry.corrupt_ranges, 1);
        shared.observer.observe(&LogEvent::Corrupt { first: position, count: 1, reason });
    }

    /// The kept read that has at least a record's head from `at` on.
    fn kept(&self, segment: u64, at: u64) -> Option<Chunk> {
        let kept = self.kept_locked();
        let chunk = kept.iter().rev().find(|chunk| {
            let end = chunk.from + chunk.bytes.len() as u64;
            chunk.segment == segment && chunk.from <= at && at + record::BYTES as u64 <= end
        })?;
        Some(chunk.clone())
    }

    /// Reads `length` bytes from `at` on, up to the end of what is written.
    fn load(&self, segment: &Segment, at: u64, length: usize) -> Result<Chunk, ReadError> {
        let end = segment.facts().end.max(at);
        let length = length.min((end - at) as usize);
        let file = segment.file.as_ref();
        let chunk = |bytes| Chunk { segment: segment.number, from: at, bytes };
        if length <= SCATTERED_BYTES || length > limits::READ_BYTES {
            return read_range(file, at, length).map(Bytes::from).map(chunk).map_err(unreadable);
        }
        let chunk = self.read_many(file, at, length).map(chunk).map_err(unreadable)?;
        let mut kept = self.kept_locked();
        if kept.len() >= limits::READS_KEPT {
            kept.pop_front();
        }
        kept.push_back(chunk.clone());
        Ok(chunk)
    }

    /// Reads into the memory of the oldest kept read, where no event lies in it still: those who
    /// lag would have the allocator take and give back as much as they read.
    fn read_many(&self, file: &dyn DiskFile, at: u64, length: usize) -> io::Result<Bytes> {
        let oldest = {
            let mut kept = self.kept_locked();
            if kept.len() >= limits::READS_KEPT { kept.pop_front() } else { None }
        };
        let free = oldest.and_then(|chunk| chunk.bytes.try_into_mut().ok());
        let mut bytes = free.unwrap_or_else(|| BytesMut::with_capacity(limits::READ_BYTES));
        bytes.resize(length, 0);
        let read = file.read_at(&mut bytes, at)?;
        bytes.truncate(read);
        Ok(bytes.freeze())
    }

    fn kept_locked(&self) -> MutexGuard<'_, VecDeque<Chunk>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(error: io::Error) -> ReadError {
    if is_lost(&error) {
        return ReadError::Damaged("the disk cannot read an event");
    }
    ReadError::Io(error)
}

#[cfg(test)]
mod tests;
