//! The heads of all segment files, and what becomes of a file without one.
//!
//! Such a file was being made and holds nothing, or both slots of its head are damaged. Then its
//! first batch still tells which segment it is: the number is in the seed of every checksum.

use std::io;

use eventbus_core::Position;

use crate::bytes::batch::{self, BatchHead};
use crate::bytes::segment::{CONTENT_AT, HeadRead, SegmentHead};
use crate::bytes::{LogId, Seed, VERSION};
use crate::config::OpenError;
use crate::disk::{DiskFile, read_range};
use crate::recovery::{Place, numbered};
use crate::segments::{Spare, segment_name};

/// How many numbers of segments are tried at most: 64 TiB of them, in a tenth of a second.
const NUMBERS: usize = 1 << 20;

/// Bytes looked at to tell an empty file from one that holds something.
const LOOKED_AT: usize = 64 * 1024;

/// A segment file with its head.
pub(crate) struct Headed {
    pub(crate) spare: Spare,
    pub(crate) head: SegmentHead,
}

/// All segment files.
#[derive(Default)]
pub(crate) struct Heads {
    /// The segments, oldest first.
    pub(crate) headed: Vec<Headed>,
    /// Files that hold nothing.
    pub(crate) spares: Vec<Spare>,
    /// Files of which nobody knows what they hold: they are left alone.
    pub(crate) unknown: Vec<String>,
    /// The numbers of segments whose heads were made anew.
    pub(crate) restored: Vec<u64>,
    /// The highest number of a file.
    pub(crate) highest_file: u32,
    headless: Vec<Spare>,
}

/// Reads the heads of all segment files; they must be of `log`, where that is known.
pub(crate) fn read(place: &Place, log: Option<LogId>) -> Result<Heads, OpenError> {
    let mut heads = Heads::default();
    let failed = |error| OpenError::Io { path: place.path.clone(), error };
    for name in place.disk.names().map_err(failed)? {
        let Some(file_number) = numbered(&name, "segment-") else { continue };
        heads.highest_file = heads.highest_file.max(file_number);
        let file = place.disk.open(&name).map_err(failed)?;
        let size = file.size().map_err(failed)?;
        let bytes = read_range(file.as_ref(), 0, CONTENT_AT as usize).map_err(failed)?;
        let mut spare = Spare { file_number, file, size, generation: 0 };
        match SegmentHead::read(&bytes) {
            HeadRead::Newer(found) => {
                return Err(OpenError::Newer {
                    path: place.path.join(name),
                    found,
                    known: VERSION,
                });
            }
            HeadRead::Valid(head) => {
                spare.generation = head.generation;
                if head.number == 0 {
                    heads.spares.push(spare);
                } else {
                    heads.headed.push(Headed { spare, head });
                }
            }
            HeadRead::Neither => heads.headless.push(spare),
        }
    }
    heads.headed.sort_by_key(|headed| headed.head.number);
    if let Some(file) = heads.foreign(log) {
        return Err(OpenError::Foreign { path: place.path.clone(), file });
    }
    heads.decide(log).map_err(failed)?;
    Ok(heads)
}

impl Heads {
    /// The log that the segments are of.
    pub(crate) fn log(&self) -> Option<LogId> {
        self.headed.first().map(|headed| headed.head.log)
    }

    /// A segment's file that is of another log than `log`, or than the first one.
    fn foreign(&self, log: Option<LogId>) -> Option<String> {
        let log = log.or(self.log())?;
        let foreign = self.headed.iter().find(|headed| headed.head.log != log)?;
        Some(segment_name(foreign.spare.file_number))
    }

    /// Decides about every file without a head: a segment that is missing among the others gets its
    /// head back.
    fn decide(&mut self, log: Option<LogId>) -> io::Result<()> {
        let among = self.missing();
        for spare in std::mem::take(&mut self.headless) {
            match identify(spare.file.as_ref(), log.or(self.log()), *among.end())? {
                Headless::Segment(head) if among.contains(&head.number) && !self.has(&head) => {
                    head.write(spare.file.as_ref())?;
                    spare.file.sync()?;
                    self.restored.push(head.number);
                    let spare = Spare { generation: head.generation, ..spare };
                    self.headed.push(Headed { spare, head });
                }
                // An earlier life of a file that was being made a spare, or a segment again.
                Headless::Segment(_) | Headless::Empty => self.spares.push(spare),
                Headless::Unknown => self.unknown.push(segment_name(spare.file_number)),
            }
        }
        self.headed.sort_by_key(|headed| headed.head.number);
        for spare in &self.spares {
            // It is a spare by what is seen; a power cut must not show an earlier head again, nor
            // does it when the sync of this one had failed.
            let seen = read_range(spare.file.as_ref(), 0, CONTENT_AT as usize)?;
            spare.file.write_at(&seen, 0)?;
            spare.file.sync()?;
        }
        Ok(())
    }

    /// Where the number of a segment without a head may lie.
    fn missing(&self) -> std::ops::RangeInclusive<u64> {
        let count = self.headless.len() as u64;
        match (self.headed.first(), self.headed.last()) {
            (Some(first), Some(last)) => {
                first.head.number.saturating_sub(count)..=last.head.number + count
            }
            _ => 1..=NUMBERS as u64,
        }
    }

    fn has(&self, head: &SegmentHead) -> bool {
        self.headed.iter().any(|headed| headed.head.number == head.number)
    }
}

/// What a file without a head is.
enum Headless {
    /// Nothing was ever written to it.
    Empty,
    /// The segment with this head, or it was once.
    Segment(SegmentHead),
    /// Not empty, and that is all.
    Unknown,
}

/// Its number is at most `highest`.
fn identify(file: &dyn DiskFile, log: Option<LogId>, highest: u64) -> io::Result<Headless> {
    let bytes = read_range(file, CONTENT_AT, LOOKED_AT)?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Headless::Empty);
    }
    let Some(log) = log.or_else(|| batch::log(&bytes)) else { return Ok(Headless::Unknown) };
    let head = (1..=highest).rev().take(NUMBERS).find_map(|number| {
        let seed = Seed::new(log, number);
        let BatchHead { base, epoch, .. } = BatchHead::decode(&bytes, log, seed)?;
        let before = Position(base.0.saturating_sub(1));
        Some(SegmentHead { log, generation: 1, number, base, before, epoch })
    });
    Ok(head.map_or(Headless::Unknown, Headless::Segment))
}
