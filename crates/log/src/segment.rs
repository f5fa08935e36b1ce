//! One segment: a file of records with its index.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventbus_core::cursor::Spot;
use eventbus_core::{Position, TopicHash};

use crate::bytes::batch::{self, BatchHead, Kind};
use crate::bytes::record::{self, RecordHead};
use crate::bytes::segment::CONTENT_AT;
use crate::bytes::{LogId, Seed};
use crate::disk::{DiskFile, read_range, read_whole};
use crate::index::{self, Facts, SegmentIndex, Stretch, TimeMark};
use crate::scan::{self, Scan, Whole};
use crate::segments::{Beginning, Spare};
use crate::sidecar::{self, Sidecar};

/// A segment. Its bytes only grow, so readers need no lock on the file.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file_number: u32,
    pub(crate) base: Position,
    pub(crate) size: u64,
    pub(crate) generation: u64,
    /// Bytes of content in all segments before this one, since the log was opened.
    pub(crate) before_bytes: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    index: Mutex<Index>,
    full: AtomicBool,
}

/// Where the index of a segment is.
pub(crate) enum Index {
    Memory(SegmentIndex),
    Disk(Sidecar),
}

impl Segment {
    /// A segment that begins in a spare file.
    pub(crate) fn begun(spare: Spare, beginning: Beginning, before_bytes: u64) -> Self {
        let Beginning { number, base, .. } = beginning;
        let Spare { file_number, file, size, generation } = spare;
        let generation = generation + 1;
        let before = Position(base.0.saturating_sub(1));
        let facts = Facts { last: before, end: CONTENT_AT, ..Facts::default() };
        let index = Mutex::new(Index::Memory(SegmentIndex { facts, ..SegmentIndex::default() }));
        let full = AtomicBool::new(false);
        Self { number, file_number, base, size, generation, before_bytes, file, index, full }
    }

    /// Nothing more will be written into it.
    pub(crate) fn set_full(&self, last: Position) {
        if let Index::Memory(index) = &mut *self.index() {
            index.facts.last = index.facts.last.max(last);
        }
        self.full.store(true, Ordering::Release);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Puts an index in the place of the present one.
    pub(crate) fn set_index(&self, index: Index) {
        *self.index() = index;
    }

    /// Takes in records that were written: head and byte.
    pub(crate) fn add<'a>(&self, records: impl Iterator<Item = (&'a RecordHead, u64)>) {
        if let Index::Memory(index) = &mut *self.index() {
            for (head, at) in records {
                index.add(head, at);
            }
        }
    }

    /// Bytes of content up to its end, those of all segments before it included.
    pub(crate) fn end_bytes(&self) -> u64 {
        self.before_bytes + self.facts().end - CONTENT_AT
    }

    pub(crate) fn facts(&self) -> Facts {
        match &*self.index() {
            Index::Memory(index) => index.facts,
            Index::Disk(sidecar) => sidecar.facts,
        }
    }

    /// Bytes of the index file; 0 while there is none.
    pub(crate) fn index_bytes(&self) -> u64 {
        match &*self.index() {
            Index::Memory(_) => 0,
            Index::Disk(sidecar) => sidecar.bytes,
        }
    }

    /// Bytes of both its files.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.size + self.index_bytes()
    }

    /// The bytes of the index file, while the index is in memory.
    pub(crate) fn index_encoded(&self, log: LogId) -> Option<Vec<u8>> {
        match &*self.index() {
            Index::Memory(index) => Some(sidecar::encode(index, log, self.number)),
            Index::Disk(_) => None,
        }
    }

    pub(crate) fn has_index_on_disk(&self) -> bool {
        matches!(&*self.index(), Index::Disk(_))
    }

    /// Adds the records of `topic_hash` in `stretch` to `found`, until that has `limit`.
    pub(crate) fn collect(
        &self,
        topic_hash: TopicHash,
        stretch: Stretch,
        limit: usize,
        found: &mut Vec<Spot>,
    ) -> io::Result<()> {
        self.with_list(topic_hash, |list| index::collect(list, self.number, stretch, limit, found))
    }

    /// How many records of `topic_hash` lie in `stretch`.
    pub(crate) fn count(&self, topic_hash: TopicHash, stretch: Stretch) -> io::Result<u64> {
        let mut counted = 0;
        self.with_list(topic_hash, |list| counted = index::count(list, stretch))?;
        Ok(counted)
    }

    /// The records of every topic hash.
    pub(crate) fn counts(&self) -> io::Result<Vec<(TopicHash, u64)>> {
        self.look(SegmentIndex::counts, Sidecar::counts)
    }

    /// The hashes of the ids of its records, in their order, each with the time mark at or before
    /// it: when it was committed, to a second.
    pub(crate) fn ids(&self) -> io::Result<Vec<(u64, u128)>> {
        self.look(SegmentIndex::ids, Sidecar::ids)
    }

    /// The same, read from its records: when each was committed, exactly.
    pub(crate) fn exact_ids(&self, log: LogId) -> io::Result<Vec<(u64, u128)>> {
        let scan = self.scan(log)?;
        Ok(scan.records.iter().map(|found| found.head.id()).collect())
    }

    /// The last time mark at or before `committed_ms`, if the segment has one.
    pub(crate) fn time_mark(&self, committed_ms: u64) -> Option<TimeMark> {
        let index = self.index();
        let times = match &*index {
            Index::Memory(index) => &index.times,
            Index::Disk(sidecar) => &sidecar.times,
        };
        let after = times.partition_point(|mark| mark.committed_ms < committed_ms);
        times.get(after.saturating_sub(1)).copied()
    }

    /// Does the record of `position` lie whole at byte `at`?
    pub(crate) fn holds(&self, log: LogId, position: Position, at: u64) -> io::Result<bool> {
        let head = read_range(self.file.as_ref(), at, record::BYTES)?;
        let Some(head) = RecordHead::decode(&head, self.seed(log)) else { return Ok(false) };
        let bytes = read_range(self.file.as_ref(), at, head.size())?;
        Ok(head.position == position && head.event(&bytes).is_some())
    }

    /// The last position that was surely committed before `ms`.
    pub(crate) fn older_than(&self, ms: u64) -> Position {
        let index = self.index();
        let (times, facts) = match &*index {
            Index::Memory(index) => (&index.times, &index.facts),
            Index::Disk(sidecar) => (&sidecar.times, &sidecar.facts),
        };
        // What a mark stands for is less than a step younger than the mark.
        let old = times.partition_point(|mark| mark.committed_ms + index::TIME_STEP_MS <= ms);
        times.get(old).map_or(facts.last, |mark| Position(mark.position.0 - 1))
    }

    /// The first position committed at or after `ms`, searched from `mark` on. Reads at most the
    /// second of the log that the mark stands for.
    pub(crate) fn first_at(&self, log: LogId, mark: TimeMark, ms: u64) -> io::Result<Position> {
        let (mut at, end) = (mark.at, self.facts().end);
        let mut after = mark.position;
        while at < end {
            let head = read_range(self.file.as_ref(), at, record::BYTES)?;
            if let Some(head) = BatchHead::decode(&head, log, self.seed(log)) {
                at += batch::BYTES as u64;
                if head.kind == Kind::Gap {
                    at += u64::from(head.length);
                }
            } else if let Some(head) = RecordHead::decode(&head, self.seed(log)) {
                if head.committed_ms >= ms {
                    return Ok(head.position);
                }
                after = head.position.next();
                at += head.size() as u64;
            } else {
                // Damaged: rather a second too early than an event too late.
                return Ok(mark.position);
            }
        }
        Ok(after)
    }

    /// The last time mark at or before `position`: tells, to a second, when it was committed.
    pub(crate) fn time_of(&self, position: Position) -> Option<u64> {
        let index = self.index();
        let times = match &*index {
            Index::Memory(index) => &index.times,
            Index::Disk(sidecar) => &sidecar.times,
        };
        let after = times.partition_point(|mark| mark.position <= position);
        times.get(after.saturating_sub(1)).map(|mark| mark.committed_ms)
    }

    fn with_list(&self, topic_hash: TopicHash, mut read: impl FnMut(&[u8])) -> io::Result<()> {
        let mut list = None;
        let in_memory =
            |index: &SegmentIndex| index.list(topic_hash).into_iter().for_each(&mut read);
        self.look(in_memory, |sidecar| {
            list = sidecar.list(topic_hash)?;
            Ok(list.is_some().then_some(()))
        })?;
        list.iter().for_each(|list| read(list));
        Ok(())
    }

    /// Looks into the index where it is; makes it anew where the one on disk is damaged.
    fn look<T>(
        &self,
        mut in_memory: impl FnMut(&SegmentIndex) -> T,
        on_disk: impl FnOnce(&Sidecar) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        let sidecar = match &*self.index() {
            Index::Memory(index) => return Ok(in_memory(index)),
            Index::Disk(sidecar) => sidecar.clone(),
        };
        if let Some(found) = on_disk(&sidecar)? {
            return Ok(found);
        }
        let scan = self.scan(sidecar.log)?;
        let mut index = SegmentIndex { facts: sidecar.facts, ..SegmentIndex::default() };
        index.facts.count = 0;
        for found in &scan.records {
            index.add(&found.head, found.at as u64);
        }
        index.corrupt = scan.corrupt;
        // Before others have it: it may be written to disk again at once.
        let found = in_memory(&index);
        self.set_index(Index::Memory(index));
        Ok(found)
    }

    /// Reads it whole.
    fn scan(&self, log: LogId) -> io::Result<Scan> {
        let bytes = read_whole(self.file.as_ref(), self.size)?;
        let (number, base, last) = (self.number, self.base, self.facts().last);
        Ok(scan::scan(Whole { bytes: &bytes, log, number, base, promised: last, last }))
    }

    /// The seed of the checksums in this segment.
    pub(crate) fn seed(&self, log: LogId) -> Seed {
        Seed::new(log, self.number)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
