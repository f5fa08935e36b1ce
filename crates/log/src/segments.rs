//! The segments of the log, oldest first, the last one being written, and the spare files.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use eventbus_core::Position;

use crate::bytes::LogId;
use crate::bytes::segment::{CONTENT_AT, SegmentHead};
use crate::disk::{Disk, DiskFile, is_full};
use crate::index::segment_and_byte;
use crate::segment::{Index, Segment};
use crate::sidecar::Sidecar;

/// Files kept for reuse. One is taken at a time, a second bridges a burst; more is idle disk.
const SPARES: usize = 2;

/// Bytes of one write when a file is written for the first time.
const PREWRITE_BYTES: usize = 1024 * 1024;

/// All segments.
pub(crate) struct Segments {
    state: RwLock<State>,
    /// Held while the set of files changes, so that no two threads make the same one.
    making: Mutex<()>,
    /// The volume had no room for bytes that a file had reserved: it copies what is written anew,
    /// is thin, or cannot reserve. From then on a spare file is no help, and none is kept.
    thin: AtomicBool,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log: LogId,
    pub(crate) segment_bytes: u64,
    pub(crate) max_bytes: u64,
}

#[derive(Default)]
struct State {
    all: VecDeque<Arc<Segment>>,
    /// Retired, the oldest first: nobody finds them any more, their files are still to be freed.
    retired: VecDeque<Arc<Segment>>,
    spares: Vec<Spare>,
    files: u32,
}

/// A file that holds nothing.
pub(crate) struct Spare {
    pub(crate) file_number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) size: u64,
    pub(crate) generation: u64,
}

/// Why there is no next segment.
#[derive(Debug)]
pub(crate) enum RollError {
    /// `max_bytes` is reached, or the volume is full.
    Full,
    Io(io::Error),
}

impl From<io::Error> for RollError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Io(error) }
    }
}

/// What a new segment is to begin with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    pub(crate) number: u64,
    pub(crate) base: Position,
    /// The last position before it that counts.
    pub(crate) before: Position,
    pub(crate) epoch: u32,
    /// Bytes it must have at least.
    pub(crate) size: u64,
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, log: LogId, segment_bytes: u64, max_bytes: u64) -> Self {
        let (state, making, thin) = (RwLock::default(), Mutex::default(), AtomicBool::new(false));
        Self { state, making, thin, disk, log, segment_bytes, max_bytes }
    }

    /// Takes in what recovery found; files are numbered from `files` on.
    pub(crate) fn adopt(&self, mut all: Vec<Arc<Segment>>, spares: Vec<Spare>, files: u32) {
        all.sort_by_key(|segment| segment.number);
        *self.write() = State { all: all.into(), retired: VecDeque::new(), spares, files };
    }

    /// Every segment, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.read().all.iter().cloned().collect()
    }

    /// Those segments that may hold positions above `after`, oldest first.
    pub(crate) fn above(&self, after: Position) -> Vec<Arc<Segment>> {
        let state = self.read();
        let from = state.all.partition_point(|segment| segment.base <= after.next());
        state.all.iter().skip(from.saturating_sub(1)).cloned().collect()
    }

    /// The segment of that number, if it is still there.
    pub(crate) fn numbered(&self, number: u64) -> Option<Arc<Segment>> {
        let state = self.read();
        let at = state.all.binary_search_by_key(&number, |segment| segment.number).ok()?;
        state.all.get(at).cloned()
    }

    /// The segment that is being written.
    pub(crate) fn active(&self) -> Option<Arc<Segment>> {
        self.read().all.back().cloned()
    }

    /// Bytes of content from a place to the end of the log.
    pub(crate) fn bytes_from(&self, place: u64) -> u64 {
        let (number, at) = segment_and_byte(place);
        let (Some(segment), Some(last)) = (self.numbered(number), self.active()) else { return 0 };
        let from = segment.before_bytes + at.saturating_sub(CONTENT_AT);
        last.end_bytes().saturating_sub(from)
    }

    /// The first position still kept.
    pub(crate) fn first(&self) -> Position {
        self.read().all.front().map(|segment| segment.base).unwrap_or_default()
    }

    /// Bytes of all files.
    pub(crate) fn used_bytes(&self) -> u64 {
        let state = self.read();
        let spares: u64 = state.spares.iter().map(|spare| spare.size).sum();
        let segments = state.all.iter().chain(&state.retired);
        spares + segments.map(|segment| segment.all_bytes()).sum::<u64>()
    }

    /// Is there a file the next segment can begin in at once?
    pub(crate) fn has_spare(&self) -> bool {
        let is_large = |spare: &Spare| spare.size >= self.segment_bytes;
        !self.is_thin() && self.read().spares.iter().any(is_large)
    }

    /// Begins the next segment, in a spare file where there is one.
    pub(crate) fn roll(&self, beginning: Beginning) -> Result<Arc<Segment>, RollError> {
        let _making = self.making();
        let size = beginning.size.max(CONTENT_AT);
        let spare = match self.take_spare(size) {
            Some(spare) => spare,
            None => self.make_file(size)?,
        };
        let head = SegmentHead {
            log: self.log,
            generation: spare.generation + 1,
            number: beginning.number,
            base: beginning.base,
            before: beginning.before,
            epoch: beginning.epoch,
        };
        if let Err(error) = head.write(spare.file.as_ref()) {
            return Err(self.give_back(spare, error));
        }
        let mut state = self.write();
        let before_bytes = state.all.back().map_or(0, |last| last.end_bytes());
        let segment = Arc::new(Segment::begun(spare, beginning, before_bytes));
        state.all.push_back(segment.clone());
        Ok(segment)
    }

    /// A segment could not begin in a spare file. The file must say that it is a spare, durably,
    /// before anything is written elsewhere: a head that was half written claims positions which
    /// the segment before it is still to use.
    fn give_back(&self, mut spare: Spare, error: io::Error) -> RollError {
        spare.generation += 2;
        let head = self.spare_head(spare.generation);
        let given_back = match head.write(spare.file.as_ref()).and_then(|()| spare.file.sync()) {
            Ok(()) => {
                self.write().spares.push(spare);
                Ok(())
            }
            Err(error) if is_full(&error) => self.discard(spare.file_number),
            Err(error) => Err(error),
        };
        if is_full(&error) {
            self.set_thin();
        }
        match given_back {
            Ok(()) => error.into(),
            Err(error) => RollError::Io(error),
        }
    }

    /// What a file had reserved found no room.
    pub(crate) fn set_thin(&self) {
        self.thin.store(true, Ordering::Release);
    }

    fn is_thin(&self) -> bool {
        self.thin.load(Ordering::Acquire)
    }

    fn spare_head(&self, generation: u64) -> SegmentHead {
        let (base, before) = (Position(0), Position(0));
        SegmentHead { log: self.log, generation, number: 0, base, before, epoch: 0 }
    }

    fn take_spare(&self, size: u64) -> Option<Spare> {
        if self.is_thin() {
            return None;
        }
        let mut state = self.write();
        let at = state.spares.iter().position(|spare| spare.size >= size)?;
        Some(state.spares.swap_remove(at))
    }

    fn make_file(&self, size: u64) -> Result<Spare, RollError> {
        if self.used_bytes() + size > self.max_bytes {
            return Err(RollError::Full);
        }
        let file_number = self.read().files + 1;
        let name = segment_name(file_number);
        let made = self.disk.create(&name).and_then(|file| {
            file.reserve(size)?;
            self.disk.sync_names()?;
            Ok(file)
        });
        match made {
            Ok(file) => {
                self.write().files = file_number;
                Ok(Spare { file_number, file, size, generation: 0 })
            }
            Err(error) => {
                // Best effort: an empty file left behind is taken for a spare at the next start.
                let _ = self.disk.remove(&name);
                Err(error.into())
            }
        }
    }

    /// Looks after room for the next segment: a spare file, or where those are no help, as many
    /// bytes of the volume.
    pub(crate) fn prepare(&self) -> Result<(), RollError> {
        if !self.is_thin() {
            return self.prepare_spare(self.segment_bytes);
        }
        self.remove_spares()?;
        let unused_bytes = self.max_bytes.saturating_sub(self.used_bytes());
        let free_bytes = unused_bytes.min(self.disk.free_bytes()?);
        if free_bytes < self.segment_bytes { Err(RollError::Full) } else { Ok(()) }
    }

    fn remove_spares(&self) -> io::Result<()> {
        let _making = self.making();
        loop {
            let last = self.read().spares.last().map(|spare| spare.file_number);
            let Some(file_number) = last else { return Ok(()) };
            remove_if_there(self.disk.as_ref(), &segment_name(file_number))?;
            self.write().spares.pop();
        }
    }

    /// Makes a spare file of `size` bytes and writes all of it, unless there is one: a file that
    /// was written takes records without the file system having to note new extents at each sync.
    pub(crate) fn prepare_spare(&self, size: u64) -> Result<(), RollError> {
        let spare = {
            let _making = self.making();
            if self.has_spare() {
                return Ok(());
            }
            self.make_file(size)?
        };
        let zeros = vec![0; PREWRITE_BYTES];
        let mut at = 0;
        while at < spare.size {
            let length = zeros.len().min((spare.size - at) as usize);
            if let Err(error) = spare.file.write_at(&zeros[..length], at) {
                self.disk.remove(&segment_name(spare.file_number))?;
                return Err(error.into());
            }
            at += length as u64;
        }
        spare.file.sync()?;
        self.write().spares.push(spare);
        Ok(())
    }

    /// Ends the oldest segments: from now on nobody finds them.
    pub(crate) fn retire(&self, count: usize) {
        let mut state = self.write();
        let State { all, retired, .. } = &mut *state;
        retired.extend(all.drain(..count.min(all.len())));
    }

    /// Frees the files of retired segments: each becomes a spare, or goes. The oldest is first, and
    /// the one at which this fails is tried again before any other.
    pub(crate) fn free_retired(&self) -> io::Result<()> {
        loop {
            let Some(segment) = self.read().retired.front().cloned() else { return Ok(()) };
            self.free(&segment)?;
        }
    }

    fn free(&self, segment: &Segment) -> io::Result<()> {
        let spare = if self.keeps(segment)? { self.clear(segment)? } else { None };
        if segment.index_bytes() > 0 {
            remove_if_there(self.disk.as_ref(), &index_name(segment.file_number))?;
        }
        if spare.is_none() {
            self.discard(segment.file_number)?;
        }
        let mut state = self.write();
        state.retired.pop_front();
        state.spares.extend(spare);
        Ok(())
    }

    /// Is its file to be used again? Not one that an attempt before this removed.
    fn keeps(&self, segment: &Segment) -> io::Result<bool> {
        let is_wanted = self.read().spares.len() < SPARES && !self.is_thin();
        if !is_wanted || segment.size < self.segment_bytes {
            return Ok(false);
        }
        match self.disk.open(&segment_name(segment.file_number)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes its file a spare, unless the volume has no room for that. The head that says so is
    /// durable before the file can be used again, so a power cut never shows old positions with new
    /// bytes.
    fn clear(&self, segment: &Segment) -> io::Result<Option<Spare>> {
        let head = self.spare_head(segment.generation + 1);
        let file = segment.file.clone();
        match head.write(file.as_ref()).and_then(|()| file.sync()) {
            Ok(()) => {
                let Segment { file_number, size, .. } = *segment;
                Ok(Some(Spare { file_number, file, size, generation: head.generation }))
            }
            Err(error) if is_full(&error) => {
                self.set_thin();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the file of a segment, durably: no younger one goes before it.
    fn discard(&self, file_number: u32) -> io::Result<()> {
        remove_if_there(self.disk.as_ref(), &segment_name(file_number))?;
        self.disk.sync_names()
    }

    /// Writes the index of a full segment beside it.
    pub(crate) fn write_index(&self, segment: &Segment) -> io::Result<()> {
        let Some(bytes) = segment.index_encoded(self.log) else { return Ok(()) };
        let file = self.disk.create(&index_name(segment.file_number))?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        if let Some(sidecar) = Sidecar::open(file, self.log, segment.number)? {
            segment.set_index(Index::Disk(sidecar));
        }
        Ok(())
    }

    fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a file; false when it was not there, for an operator may have removed an index.
pub(crate) fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<bool> {
    match disk.remove(name) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn segment_name(file_number: u32) -> String {
    format!("segment-{file_number:06}")
}

pub(crate) fn index_name(file_number: u32) -> String {
    format!("index-{file_number:06}")
}
