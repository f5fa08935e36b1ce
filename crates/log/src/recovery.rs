//! Opens what a run before this one left, however it ended.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::cursor::Spot;
use eventbus_core::{Entropy, Position, TopicHash, limits};

use crate::bytes::batch::{self, BatchHead, Kind};
use crate::bytes::segment::{CONTENT_AT, SegmentHead};
use crate::bytes::{LogId, Seed, VERSION};
use crate::config::OpenError;
use crate::disk::{Disk, read_whole};
use crate::fresh::Fresh;
use crate::heads::{self, Headed, Heads};
use crate::index::{SegmentIndex, Stretch, segment_and_byte};
use crate::ledger_file::{self, Chosen, Known, LedgerRead, NAMES, Replayed};
use crate::remembered::Remembered;
use crate::scan::{self, Scan, Whole};
use crate::segment::{Index, Segment};
use crate::segments::{Beginning, RollError, Segments, Spare, index_name, remove_if_there};
use crate::sidecar::Sidecar;
#[cfg(test)]
use crate::simulation::Mutation;
use crate::vault::VAULT;
use crate::writer::Resume;

/// What there was.
pub(crate) struct Recovered {
    pub(crate) segments: Segments,
    pub(crate) active: Arc<Segment>,
    pub(crate) resume: Resume,
    pub(crate) epoch: u32,
    pub(crate) ledger: Chosen,
    pub(crate) cursors: Vec<(Known, Fresh)>,
    pub(crate) last_number: u64,
    /// Ranges that were promised and are damaged.
    pub(crate) corrupt: Vec<scan::BadRange>,
    pub(crate) torn_ranges: usize,
    pub(crate) ledger_damaged_at: Option<u64>,
    /// There was a ledger, and nothing of it can be read.
    pub(crate) ledger_lost: bool,
    /// Files of which nobody knows what they hold.
    pub(crate) unknown: Vec<String>,
    /// Segments whose heads were lost and made anew.
    pub(crate) restored: Vec<u64>,
}

/// Where and how large.
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    /// For errors.
    pub(crate) path: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) max_bytes: u64,
    /// The highest position of a dead letter.
    pub(crate) dead: Position,
    pub(crate) deduplication_time: Duration,
}

struct Recovery<'a> {
    place: &'a Place,
    log: LogId,
    epoch: u32,
    promised: Position,
    next: Position,
    /// The log was not closed: positions may have been used of which no trace is left.
    skips: bool,
    has_ledger: bool,
    ledger_lost: bool,
    committed_ms: u64,
    corrupt: Vec<scan::BadRange>,
    torn_ranges: usize,
    remembered: Remembered,
}

/// Reads the directory and makes it ready to be written; says which ids are still remembered.
pub(crate) fn recover(
    place: &Place,
    entropy: &dyn Entropy,
) -> Result<(Recovered, Remembered), OpenError> {
    let failed = |error| OpenError::Io { path: place.path.clone(), error };
    check_names(place.disk.as_ref(), &place.path)?;
    let read = ledger_file::read(place.disk.as_ref()).map_err(failed)?;
    let is_damaged = matches!(read, LedgerRead::Damaged);
    let replayed = match read {
        LedgerRead::Newer(found) => {
            let path = place.path.join(NAMES[0]);
            return Err(OpenError::Newer { path, found, known: VERSION });
        }
        LedgerRead::Read(replayed) => Some(replayed),
        LedgerRead::None | LedgerRead::Damaged => None,
    };
    let chosen = replayed.as_ref().map(|replayed| replayed.chosen);
    let known_log = chosen.map(|chosen| chosen.head.log);
    let heads = heads::read(place, known_log)?;
    let log = known_log.or(heads.log()).unwrap_or_else(|| {
        LogId(u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64()))
    });
    if is_damaged {
        // What is left in them must not be read as frames of the ledger that begins anew.
        ledger_file::remove(place.disk.as_ref()).map_err(failed)?;
    }
    let mut recovery = Recovery::new(place, log, &heads, replayed.as_ref());
    if heads.headed.is_empty() && recovery.promised > Position(0) {
        // Nothing is left, and nobody knows how much of it was retired before.
        let unsettled = replayed.iter().flat_map(|replayed| replayed.cursors.values());
        let frontier = unsettled.map(|known| known.progress.frontier()).min().unwrap_or_default();
        recovery.lose(frontier.next(), recovery.promised);
        recovery.next = recovery.next.max(recovery.promised.next());
    }
    let Heads { headed, spares, unknown, restored, highest_file, .. } = heads;
    let spares = (spares, highest_file);
    let (segments, active, resume) = recovery.segments(headed, spares).map_err(failed)?;
    let Recovery { epoch, corrupt, torn_ranges, next, ledger_lost, remembered, .. } = recovery;
    let last_number = replayed.as_ref().map_or(0, |replayed| replayed.last_number);
    let ledger_damaged_at = replayed.as_ref().and_then(|replayed| replayed.damaged_at);
    let known = replayed.map(|replayed| replayed.cursors).unwrap_or_default();
    let mut known: Vec<Known> = known.into_values().collect();
    for known in &mut known {
        lose_what_is_gone(known, &segments, &corrupt).map_err(failed)?;
    }
    let cursors = count_lag(known, &segments, next).map_err(failed)?;
    let ledger = chosen.unwrap_or(Chosen::new(log, epoch));
    let recovered = Recovered {
        segments,
        active,
        resume,
        epoch,
        ledger,
        cursors,
        last_number,
        corrupt,
        torn_ranges,
        ledger_damaged_at,
        ledger_lost,
        unknown,
        restored,
    };
    Ok((recovered, remembered))
}

/// Refuses a directory that holds something else, before anything is touched.
pub(crate) fn check_names(disk: &dyn Disk, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::Io { path: path.to_owned(), error };
    for name in disk.names().map_err(failed)? {
        let ours = NAMES.contains(&name.as_str())
            || numbered(&name, "segment-").is_some()
            || numbered(&name, "index-").is_some()
            || name.starts_with(VAULT)
            || name == "lost+found";
        if !ours {
            return Err(OpenError::Foreign { path: path.to_owned(), file: name });
        }
    }
    Ok(())
}

/// The number in a file's name.
pub(crate) fn numbered(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

impl<'a> Recovery<'a> {
    fn new(place: &'a Place, log: LogId, heads: &Heads, replayed: Option<&Replayed>) -> Self {
        let segments = heads.headed.iter().map(|headed| headed.head.epoch);
        let ledger = replayed.map(|replayed| replayed.chosen.head.epoch);
        let highest = replayed.map(|replayed| replayed.highest).unwrap_or_default();
        Self {
            place,
            log,
            epoch: segments.chain(ledger).max().unwrap_or(0),
            promised: replayed.map(|replayed| replayed.synced).unwrap_or_default(),
            next: highest.max(place.dead).next(),
            skips: replayed.is_some_and(|replayed| !replayed.closed),
            has_ledger: replayed.is_some(),
            ledger_lost: false,
            committed_ms: 0,
            corrupt: Vec::new(),
            torn_ranges: 0,
            remembered: Remembered::new(place.deduplication_time, limits::DEDUPLICATION_IDS),
        }
    }

    /// Makes the segments: the youngest is always read whole, an older one only when its index or
    /// the segment behind it is missing.
    fn segments(
        &mut self,
        headed: Vec<Headed>,
        (spares, highest_file): (Vec<Spare>, u32),
    ) -> io::Result<(Segments, Arc<Segment>, Resume)> {
        let Place { disk, segment_bytes, max_bytes, .. } = self.place;
        let segments = Segments::new(disk.clone(), self.log, *segment_bytes, *max_bytes);
        let mut made: Vec<(Segment, Option<Scan>)> = Vec::new();
        let mut after: Option<SegmentHead> = None;
        for headed in headed.into_iter().rev() {
            let head = headed.head;
            made.push(self.segment(headed, after)?);
            after = Some(head);
        }
        self.epoch += 1;
        // A log that was never written to may have been killed before it had a ledger.
        self.ledger_lost = !self.has_ledger && self.next > Position(1);
        if self.skips || self.ledger_lost {
            self.next.0 += limits::UNSYNCED_POSITIONS;
        }
        self.remember(&made)?;
        let mut before_bytes = 0;
        let mut all = Vec::new();
        let mut tail = None;
        for (mut segment, scan) in made.into_iter().rev() {
            segment.before_bytes = before_bytes;
            before_bytes = segment.end_bytes();
            let segment = Arc::new(segment);
            all.push(segment.clone());
            tail = scan.map(|scan| (segment, scan));
        }
        segments.adopt(all, spares, highest_file);
        let (active, resume) = self.begin(&segments, tail)?;
        Ok((segments, active, resume))
    }

    /// Takes in the ids of the youngest segments, as many as are remembered: at the times that its
    /// records say where a segment was read, else to a second by its index.
    fn remember(&mut self, youngest_first: &[(Segment, Option<Scan>)]) -> io::Result<()> {
        #[cfg(test)]
        if Mutation::of_this_thread() == Mutation::ForgetIds {
            return Ok(());
        }
        let mut chosen = Vec::new();
        let mut count = 0;
        for (segment, scan) in youngest_first {
            if count >= self.remembered.most() {
                break;
            }
            if self.remembered.reaches(segment.facts().last_ms, self.committed_ms) {
                count += self.ids(segment, scan.as_ref())?.len();
                chosen.push((segment, scan));
            }
        }
        self.remembered.expect(count);
        // Read once more: all of them at once would take as much memory as what is remembered.
        for (segment, scan) in chosen.into_iter().rev() {
            for (committed_ms, hash) in self.ids(segment, scan.as_ref())? {
                self.remembered.admit(hash, committed_ms);
            }
        }
        self.remembered.forget(self.committed_ms);
        Ok(())
    }

    /// The ids of a segment that are remembered still. One that was forgotten and came again counts
    /// from when it came again.
    fn ids(&self, segment: &Segment, scan: Option<&Scan>) -> io::Result<Vec<(u64, u128)>> {
        let mut ids = match scan {
            Some(scan) => scan.records.iter().map(|found| found.head.id()).collect(),
            None => segment.ids()?,
        };
        ids.retain(|(ms, hash)| *hash != 0 && self.remembered.reaches(*ms, self.committed_ms));
        Ok(ids)
    }

    /// One segment, from its index or by reading it.
    fn segment(
        &mut self,
        headed: Headed,
        after: Option<SegmentHead>,
    ) -> io::Result<(Segment, Option<Scan>)> {
        let Headed { spare, head } = headed;
        let SegmentHead { number, base, .. } = head;
        let index = index_name(spare.file_number);
        let SegmentHead { before, epoch, .. } = head;
        let beginning = Beginning { number, base, before, epoch, size: spare.size };
        let mut segment = Segment::begun(spare, beginning, 0);
        segment.generation = head.generation;
        // Where one is missing behind it, a scan tells whether that was ever promised.
        let is_followed = after.is_some_and(|after| after.number == number + 1);
        if is_followed
            && let Ok(file) = self.place.disk.open(&index)
            && let Some(sidecar) = Sidecar::open(file, self.log, number)?
        {
            self.committed_ms = self.committed_ms.max(sidecar.facts.last_ms);
            self.next = self.next.max(sidecar.facts.last.next());
            self.corrupt.extend(&sidecar.corrupt);
            segment.set_index(Index::Disk(sidecar));
            segment.set_full(Position(0));
            return Ok((segment, None));
        }
        if after.is_none() {
            self.remove_index(&index)?;
        }
        let scan = self.scan(&segment, after)?;
        let mut index = SegmentIndex::default();
        index.facts.last = Position(scan.expected.0 - 1);
        index.facts.end = scan.end as u64;
        for found in &scan.records {
            index.add(&found.head, found.at as u64);
        }
        index.corrupt.clone_from(&scan.corrupt);
        segment.set_index(Index::Memory(index));
        if let Some(after) = after {
            segment.set_full(Position(after.base.0 - 1));
        }
        Ok((segment, Some(scan)))
    }

    /// Remembers that the positions from `first` to `last` were promised and are nowhere.
    fn lose(&mut self, first: Position, last: Position) {
        if first <= last {
            let count = last.0 + 1 - first.0;
            self.corrupt.push(scan::BadRange { from: 0, to: 0, first, count });
        }
    }

    /// The youngest segment is written on, so an index from the time when it seemed full must not
    /// outlive this moment. (It was full, and a power cut took the head of the one after it.)
    fn remove_index(&self, name: &str) -> io::Result<()> {
        let Place { disk, .. } = self.place;
        if remove_if_there(disk.as_ref(), name)? { disk.sync_names() } else { Ok(()) }
    }

    /// Reads a segment, writes gaps over what was torn, and makes durable what was found.
    fn scan(&mut self, segment: &Segment, after: Option<SegmentHead>) -> io::Result<Scan> {
        let file = segment.file.as_ref();
        let bytes = read_whole(file, segment.size)?;
        let (number, base, log) = (segment.number, segment.base, self.log);
        let last = after.map_or(Position(u64::MAX), |after| after.before);
        let promised = self.promised.min(last);
        let scan = scan::scan(Whole { bytes: &bytes, log, number, base, promised, last });
        // What was only written may be read from now on, so it must not vanish any more. It is
        // written again, because a sync after one that failed may make nothing durable.
        file.write_at(&bytes[scan.unsynced_from..scan.end], scan.unsynced_from as u64)?;
        let mut torn = scan.torn.clone();
        if let Some(after) = after
            && scan.expected <= after.before
            && !scan.end_is_corrupt
        {
            // The commits at the end are torn: the writer left room for a gap behind the others.
            let (from, to) = (scan.end, scan.end + batch::BYTES);
            let count = after.before.0 + 1 - scan.expected.0;
            torn.push(scan::BadRange { from, to, first: scan.expected, count });
        }
        for range in &torn {
            let gap = BatchHead {
                kind: Kind::Gap,
                epoch: scan.epoch,
                base: range.first,
                count: u32::try_from(range.count).unwrap_or(u32::MAX),
                length: (range.to - range.from).saturating_sub(batch::BYTES) as u32,
                committed_ms: scan.committed_ms,
                synced_upto: scan.synced_upto,
            };
            file.write_at(&gap.encode(log, Seed::new(log, number)), range.from as u64)?;
        }
        file.sync()?;
        self.promised = self.promised.max(scan.synced_upto);
        self.epoch = self.epoch.max(scan.epoch);
        self.next = self.next.max(scan.next);
        self.committed_ms = self.committed_ms.max(scan.committed_ms);
        self.corrupt.extend(&scan.corrupt);
        self.torn_ranges += torn.len();
        Ok(scan)
    }

    /// Begins the new epoch: with a gap behind the tail that also skips the positions which are
    /// lost or which only the ledger knows; in a new segment where that finds no place.
    fn begin(
        &self,
        segments: &Segments,
        tail: Option<(Arc<Segment>, Scan)>,
    ) -> io::Result<(Arc<Segment>, Resume)> {
        let skipped = Position(self.next.0 - 1);
        let resume =
            |at, synced| Resume { at, next: self.next, synced, committed_ms: self.committed_ms };
        let number = tail.as_ref().map_or(0, |(segment, _)| segment.number);
        let (mut before, mut full) = (Position(0), None);
        if let Some((segment, scan)) = tail {
            // Behind this gap there must be room for another one, as behind a commit.
            let fits = (scan.end + 2 * batch::BYTES) as u64 <= segment.size;
            let count = u32::try_from(self.next.0 - scan.expected.0.min(self.next.0));
            if let (true, false, Ok(count)) = (fits, scan.end_is_corrupt, count) {
                let gap = BatchHead {
                    kind: Kind::Gap,
                    epoch: self.epoch,
                    base: scan.expected,
                    count,
                    length: 0,
                    committed_ms: self.committed_ms,
                    synced_upto: Position(scan.expected.0 - 1),
                };
                let seed = segment.seed(self.log);
                segment.file.write_at(&gap.encode(self.log, seed), scan.end as u64)?;
                segment.file.sync()?;
                return Ok((segment, resume((scan.end + batch::BYTES) as u64, skipped)));
            }
            before = Position(scan.expected.0 - 1).max(self.promised);
            full = Some(segment);
        }
        let size = match number {
            0 => limits::FIRST_SEGMENT_BYTES.min(self.place.segment_bytes),
            _ => self.place.segment_bytes,
        };
        let (base, epoch) = (self.next, self.epoch);
        let beginning = Beginning { number: number + 1, base, before, epoch, size };
        if number == 0 {
            segments.prepare_spare(size).map_err(into_io)?;
        }
        match segments.roll(beginning) {
            Ok(segment) => {
                segment.file.sync()?;
                if let Some(full) = full {
                    full.set_full(before);
                }
                Ok((segment, resume(CONTENT_AT, skipped)))
            }
            // Full: deliveries make room, and the writer begins the segment when there is some.
            // Until then only the ledger knows of what is skipped.
            Err(RollError::Full) => {
                let last = segments.active().ok_or(io::ErrorKind::StorageFull)?;
                let end = last.size;
                Ok((last, resume(end, before)))
            }
            Err(RollError::Io(error)) => Err(error),
        }
    }
}

fn into_io(error: RollError) -> io::Error {
    match error {
        RollError::Full => io::ErrorKind::StorageFull.into(),
        RollError::Io(error) => error,
    }
}

/// The ledger may speak of events that were only written when the power was cut: nobody was
/// promised them, and they are gone. They can only be missing where no index says that all was
/// synced.
fn lose_what_is_gone(
    known: &mut Known,
    segments: &Segments,
    corrupt: &[scan::BadRange],
) -> io::Result<()> {
    let mut gone = Vec::new();
    for Spot { position, place } in known.progress.unsettled() {
        let was_promised = corrupt
            .iter()
            .any(|range| range.first <= position && position.0 < range.first.0 + range.count);
        let (number, at) = segment_and_byte(place);
        let is_there = match segments.numbered(number) {
            // Trimmed ones are counted as dropped.
            None => position < segments.first(),
            Some(segment) => {
                segment.has_index_on_disk() || segment.holds(segments.log, position, at)?
            }
        };
        if !is_there && !was_promised {
            gone.push(position);
        }
    }
    for position in gone {
        known.progress.lose(position);
    }
    Ok(())
}

/// Counts what lies before each cursor, in one walk over the indexes.
fn count_lag(
    known: Vec<Known>,
    segments: &Segments,
    next: Position,
) -> io::Result<Vec<(Known, Fresh)>> {
    let first = segments.first();
    let mut cursors: Vec<(Known, u64)> = known.into_iter().map(|known| (known, 0)).collect();
    let mut by_topic_hash: BTreeMap<TopicHash, Vec<usize>> = BTreeMap::new();
    for (at, (known, _)) in cursors.iter_mut().enumerate() {
        // Its segment went, and with it the last word on what was lost.
        known.opened.dropped += known.progress.drop_upto(Position(first.0.saturating_sub(1)));
        by_topic_hash.entry(known.opened.interest.topic_hash()).or_default().push(at);
    }
    for segment in segments.all() {
        let last = segment.facts().last;
        for (topic_hash, count) in segment.counts()? {
            for at in by_topic_hash.get(&topic_hash).into_iter().flatten() {
                let (known, lag) = &mut cursors[*at];
                let frontier = known.progress.frontier();
                if frontier < segment.base {
                    *lag += count;
                } else if frontier < last {
                    *lag += segment.count(topic_hash, Stretch { after: frontier, upto: last })?;
                }
            }
        }
    }
    let visible = Position(next.0 - 1);
    Ok(cursors
        .into_iter()
        .map(|(known, lag)| {
            let fresh = Fresh::new(known.progress.frontier(), visible, lag);
            (known, fresh)
        })
        .collect())
}

#[cfg(test)]
mod tests;
