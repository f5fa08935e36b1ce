//! The index of a full segment, in a file beside it.
//!
//! Derived: it can always be made again from the segment, so it is written without ceremony and a
//! damaged one is simply made anew.

use std::io;
use std::sync::Arc;

use eventbus_core::{Position, TopicHash};

use crate::bytes::{Fields, LogId, Seed, VERSION, opened, pad, seal};
use crate::disk::{DiskFile, is_lost, read_range};
use crate::index::{self, Facts, SegmentIndex, TimeMark};
use crate::scan::BadRange;

const MARK: [u8; 4] = *b"EBIX";

/// Bytes of the head; the sections follow in the order of [`Sections`].
const HEAD_BYTES: usize = 128;

/// Bytes of a row of the table: topic hash, count, byte of its list, bytes and checksum of that.
const ROW_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Section {
    at: u64,
    length: u64,
    checksum: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sections {
    topic_hashes: Section,
    lists: Section,
    hashes: Section,
    times_and_corrupt: Section,
}

/// An index on disk.
#[derive(Clone)]
pub(crate) struct Sidecar {
    file: Arc<dyn DiskFile>,
    sections: Sections,
    pub(crate) log: LogId,
    pub(crate) facts: Facts,
    pub(crate) bytes: u64,
    pub(crate) times: Vec<TimeMark>,
    pub(crate) corrupt: Vec<BadRange>,
}

/// The index as the bytes of its file.
pub(crate) fn encode(index: &SegmentIndex, log: LogId, segment: u64) -> Vec<u8> {
    let seed = Seed::new(log, segment);
    let mut out = vec![0; HEAD_BYTES];
    let mut lists = Vec::new();
    let topic_hashes = section(&mut out, |out| {
        for (topic_hash, list) in &index.topic_hashes {
            out.extend_from_slice(&topic_hash.0.to_le_bytes());
            out.extend_from_slice(&list.count.to_le_bytes());
            out.extend_from_slice(&(lists.len() as u64).to_le_bytes());
            out.extend_from_slice(&(list.bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(&crc32c::crc32c(&list.bytes).to_le_bytes());
            lists.extend_from_slice(&list.bytes);
        }
    });
    let lists = section(&mut out, |out| out.extend_from_slice(&lists));
    let hashes = section(&mut out, |out| {
        out.extend(index.hashes.iter().flat_map(|hash| hash.to_le_bytes()));
    });
    let times_and_corrupt = section(&mut out, |out| put_times_and_corrupt(index, out));
    let sections = Sections { topic_hashes, lists, hashes, times_and_corrupt };
    let head = encode_head(&index.facts, &sections, segment, seed);
    out[..HEAD_BYTES].copy_from_slice(&head);
    out
}

fn section(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) -> Section {
    let at = out.len();
    fill(out);
    let bytes = &out[at..];
    let made =
        Section { at: at as u64, length: bytes.len() as u64, checksum: crc32c::crc32c(bytes) };
    pad(out);
    made
}

fn put_times_and_corrupt(index: &SegmentIndex, out: &mut Vec<u8>) {
    out.extend_from_slice(&(index.times.len() as u64).to_le_bytes());
    for mark in &index.times {
        for value in [mark.committed_ms, mark.position.0, mark.at] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
    for range in &index.corrupt {
        for value in [range.from as u64, range.to as u64, range.first.0, range.count] {
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

fn encode_head(facts: &Facts, sections: &Sections, segment: u64, seed: Seed) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES);
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&u32::from(VERSION).to_le_bytes());
    out.extend_from_slice(&(facts.end as u32).to_le_bytes());
    for value in [segment, facts.count, facts.last.0, facts.first_ms, facts.last_ms] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    let Sections { topic_hashes, lists, hashes, times_and_corrupt } = sections;
    for section in [topic_hashes, lists, hashes, times_and_corrupt] {
        out.extend_from_slice(&(section.at as u32).to_le_bytes());
        out.extend_from_slice(&(section.length as u32).to_le_bytes());
        out.extend_from_slice(&section.checksum.to_le_bytes());
    }
    out.resize(HEAD_BYTES, 0);
    seal(&mut out, seed);
    out
}

impl Sidecar {
    /// Opens the index of `segment`; `None` when the file is another's, newer or damaged.
    pub(crate) fn open(
        file: Arc<dyn DiskFile>,
        log: LogId,
        segment: u64,
    ) -> io::Result<Option<Self>> {
        let bytes = file.size()?;
        let head = read(file.as_ref(), 0, HEAD_BYTES)?;
        let Some((facts, sections)) = decode_head(&head, segment, Seed::new(log, segment)) else {
            return Ok(None);
        };
        let empty = (Vec::new(), Vec::new());
        let mut sidecar =
            Self { file, sections, log, facts, bytes, times: empty.0, corrupt: empty.1 };
        let Some(marks) = sidecar.read(sections.times_and_corrupt)? else { return Ok(None) };
        let Some((times, corrupt)) = decode_times_and_corrupt(&marks) else { return Ok(None) };
        (sidecar.times, sidecar.corrupt) = (times, corrupt);
        Ok(sidecar.read(sections.topic_hashes)?.map(|_| sidecar))
    }

    /// The list of a topic hash, empty when there is none; `None` when the file is damaged.
    pub(crate) fn list(&self, topic_hash: TopicHash) -> io::Result<Option<Vec<u8>>> {
        let Some(table) = self.read(self.sections.topic_hashes)? else { return Ok(None) };
        Ok(match row(&table, topic_hash) {
            None => Some(Vec::new()),
            Some(row) => {
                let at = self.sections.lists.at + row.at;
                self.read(Section { at, length: u64::from(row.length), checksum: row.checksum })?
            }
        })
    }

    /// The records of every topic hash; `None` when the file is damaged.
    pub(crate) fn counts(&self) -> io::Result<Option<Vec<(TopicHash, u64)>>> {
        let Some(table) = self.read(self.sections.topic_hashes)? else { return Ok(None) };
        let rows = table.chunks_exact(ROW_BYTES).filter_map(decode_row);
        Ok(Some(rows.map(|row| (row.topic_hash, row.count)).collect()))
    }

    /// The hashes of the records' ids with their times, to a second; `None` when the file is
    /// damaged.
    pub(crate) fn ids(&self) -> io::Result<Option<Vec<(u64, u128)>>> {
        let Some(table) = self.read(self.sections.topic_hashes)? else { return Ok(None) };
        let Some(lists) = self.read(self.sections.lists)? else { return Ok(None) };
        let Some(hashes) = self.read(self.sections.hashes)? else { return Ok(None) };
        let (hashes, _) = hashes.as_chunks::<16>();
        let hashes: Vec<u128> = hashes.iter().map(|hash| u128::from_le_bytes(*hash)).collect();
        let mut positions = Vec::with_capacity(hashes.len());
        for row in table.chunks_exact(ROW_BYTES).filter_map(decode_row) {
            let list =
                lists.get(row.at as usize..).and_then(|list| list.get(..row.length as usize));
            let Some(list) = list else { return Ok(None) };
            positions.extend(index::entries(list).map(|(position, _)| position));
        }
        Ok(Some(index::timed(positions, &hashes, &self.times)))
    }

    fn read(&self, section: Section) -> io::Result<Option<Vec<u8>>> {
        let bytes = read(self.file.as_ref(), section.at, section.length as usize)?;
        let whole = bytes.len() as u64 == section.length;
        Ok((whole && crc32c::crc32c(&bytes) == section.checksum).then_some(bytes))
    }
}

/// Reads what is there; what the disk has lost is missing.
fn read(file: &dyn DiskFile, at: u64, length: usize) -> io::Result<Vec<u8>> {
    match read_range(file, at, length) {
        Err(error) if is_lost(&error) => Ok(Vec::new()),
        bytes => bytes,
    }
}

fn decode_head(head: &[u8], segment: u64, seed: Seed) -> Option<(Facts, Sections)> {
    let mut fields = opened::<HEAD_BYTES>(head, MARK, seed)?;
    if fields.u32()? > u32::from(VERSION) {
        return None;
    }
    let end = u64::from(fields.u32()?);
    if fields.u64()? != segment {
        return None;
    }
    let (count, last) = (fields.u64()?, Position(fields.u64()?));
    let (first_ms, last_ms) = (fields.u64()?, fields.u64()?);
    let mut section = || {
        Some(Section {
            at: u64::from(fields.u32()?),
            length: u64::from(fields.u32()?),
            checksum: fields.u32()?,
        })
    };
    let sections = Sections {
        topic_hashes: section()?,
        lists: section()?,
        hashes: section()?,
        times_and_corrupt: section()?,
    };
    Some((Facts { count, last, first_ms, last_ms, end }, sections))
}

fn decode_times_and_corrupt(bytes: &[u8]) -> Option<(Vec<TimeMark>, Vec<BadRange>)> {
    let mut fields = Fields(bytes);
    let (mut times, mut corrupt) = (Vec::new(), Vec::new());
    for _ in 0..fields.u64()? {
        let (committed_ms, position) = (fields.u64()?, Position(fields.u64()?));
        times.push(TimeMark { committed_ms, position, at: fields.u64()? });
    }
    while let Some(from) = fields.u64() {
        let (from, to) = (from as usize, fields.u64()? as usize);
        let (first, count) = (Position(fields.u64()?), fields.u64()?);
        corrupt.push(BadRange { from, to, first, count });
    }
    Some((times, corrupt))
}

struct Row {
    topic_hash: TopicHash,
    count: u64,
    at: u64,
    length: u32,
    checksum: u32,
}

fn decode_row(row: &[u8]) -> Option<Row> {
    let mut fields = Fields(row);
    Some(Row {
        topic_hash: TopicHash(fields.u64()?),
        count: fields.u64()?,
        at: fields.u64()?,
        length: fields.u32()?,
        checksum: fields.u32()?,
    })
}

/// The row of a topic hash: the table is sorted by hash.
fn row(table: &[u8], topic_hash: TopicHash) -> Option<Row> {
    let rows = table.len() / ROW_BYTES;
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        let row = decode_row(&table[middle * ROW_BYTES..])?;
        match row.topic_hash.cmp(&topic_hash) {
            std::cmp::Ordering::Equal => return Some(row),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    None
}
