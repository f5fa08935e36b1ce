//! The two files of the ledger: which one counts, and what it says.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use eventbus_core::cursor::Progress;
use eventbus_core::{Entropy, Position};

use crate::bytes::entry::{self, Change, Opened};
use crate::bytes::{ALIGN, LogId, Seed, VERSION, opened, seal};
use crate::disk::{Disk, DiskFile, read_range, read_whole};

const MARK: [u8; 4] = *b"EBLG";
const HEAD_BYTES: usize = 64;
const SLOT_STRIDE: u64 = 4096;

/// Where the frames begin.
pub(crate) const FRAMES_AT: u64 = 2 * SLOT_STRIDE;

/// Bytes both files take from the start, so that settling goes on when the volume is full.
const RESERVED_BYTES: u64 = 256 * 1024;

/// Bytes of a snapshot that are gathered for one write; tests have many writes in a small one.
const PIECE_BYTES: usize = if cfg!(test) { 256 } else { 256 * 1024 };

/// The names of the two files; generation `g` lies in file `g % 2`.
pub(crate) const NAMES: [&str; 2] = ["ledger-0", "ledger-1"];

/// The head of a ledger file, written twice, a page apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LedgerHead {
    pub(crate) log: LogId,
    /// Grows with each snapshot. No attempt at one has that of another since the log was opened,
    /// nor, unless the same 32 bits are drawn, of one before.
    pub(crate) generation: u64,
    pub(crate) epoch: u32,
}

impl LedgerHead {
    /// The seed of the frames behind this head, counted from the top of a log's seeds, where no
    /// segment's number comes.
    pub(crate) fn seed(&self) -> Seed {
        Seed::new(self.log, u64::MAX - self.generation)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&MARK);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&u32::from(VERSION).to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.log.0.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.resize(HEAD_BYTES, 0);
        seal(&mut out, head_seed());
        out
    }

    /// The head, or the version of a newer program.
    fn decode(bytes: &[u8]) -> Option<Result<Self, u16>> {
        let mut fields = opened::<HEAD_BYTES>(bytes, MARK, head_seed())?;
        let version = fields.u32()?;
        if version > u32::from(VERSION) {
            return Some(Err(u16::try_from(version).unwrap_or(u16::MAX)));
        }
        let epoch = fields.u32()?;
        Some(Ok(Self { log: LogId(fields.u128()?), generation: fields.u64()?, epoch }))
    }
}

fn head_seed() -> Seed {
    Seed::new(LogId(0), u64::MAX)
}

/// The file that counts at a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) head: LedgerHead,
    /// The byte behind its last frame.
    pub(crate) end: u64,
}

impl Chosen {
    /// That of a log which has no ledger yet.
    pub(crate) fn new(log: LogId, epoch: u32) -> Self {
        Self { head: LedgerHead { log, generation: 0, epoch }, end: FRAMES_AT }
    }
}

/// The two files.
pub(crate) struct LedgerFiles {
    files: [Arc<dyn DiskFile>; 2],
    head: LedgerHead,
    /// The generation of the next snapshot that is begun.
    next: u64,
    reserved: u64,
}

impl LedgerFiles {
    /// Opens both files, making those that are missing.
    ///
    /// What a snapshot that did not end has left must never pass for a part of another one. Nothing
    /// tells of it after a kill, so the generations go on by a number that is drawn.
    ///
    /// The file that was read becomes durable before the first snapshot goes over the other one: it
    /// may be whole because a process wrote it that was killed before its sync. It is written anew,
    /// for a sync after one that failed may make nothing durable.
    pub(crate) fn open(disk: &dyn Disk, chosen: Chosen, entropy: &dyn Entropy) -> io::Result<Self> {
        let Chosen { head, end } = chosen;
        let names = disk.names()?;
        let open = |name: &str| {
            if names.iter().any(|present| present == name) {
                disk.open(name)
            } else {
                disk.create(name)
            }
        };
        let files = [open(NAMES[0])?, open(NAMES[1])?];
        disk.sync_names()?;
        let drawn = u64::from(entropy.next_u64() as u32);
        let next = head.generation + 1 + 2 * drawn;
        let mut opened = Self { files, head, next, reserved: 0 };
        opened.reserve(RESERVED_BYTES)?;
        let file = opened.current();
        file.write_at(&read_whole(file.as_ref(), end)?, 0)?;
        file.sync()?;
        Ok(opened)
    }

    pub(crate) fn seed(&self) -> Seed {
        self.head.seed()
    }

    pub(crate) fn current(&self) -> Arc<dyn DiskFile> {
        self.file_of(self.head.generation)
    }

    /// Takes space for `end` bytes in both files: a snapshot must always find room.
    pub(crate) fn reserve(&mut self, end: u64) -> io::Result<()> {
        if end <= self.reserved {
            return Ok(());
        }
        let size = end.next_power_of_two().max(RESERVED_BYTES);
        for file in &self.files {
            file.reserve(size)?;
        }
        self.reserved = size;
        Ok(())
    }

    /// Begins a snapshot in the file that is not current.
    pub(crate) fn begin(&mut self, epoch: u32) -> Snapshot<'_> {
        let generation = self.next;
        self.next += 2;
        let head = LedgerHead { generation, epoch, log: self.head.log };
        let file = self.file_of(generation);
        Snapshot { files: self, file, head, piece: Vec::new(), at: FRAMES_AT }
    }

    fn file_of(&self, generation: u64) -> Arc<dyn DiskFile> {
        self.files[(generation % 2) as usize].clone()
    }
}

/// A snapshot on its way to the disk, piece by piece: with much that waits it is large.
pub(crate) struct Snapshot<'a> {
    files: &'a mut LedgerFiles,
    file: Arc<dyn DiskFile>,
    head: LedgerHead,
    /// What is not written yet.
    piece: Vec<u8>,
    /// Where the piece will lie.
    at: u64,
}

impl Snapshot<'_> {
    /// Says one thing more.
    pub(crate) fn put(&mut self, change: &Change) -> io::Result<()> {
        change.encode(self.at + self.piece.len() as u64, self.head.seed(), &mut self.piece);
        if self.piece.len() >= PIECE_BYTES { self.write() } else { Ok(()) }
    }

    /// All is said: makes the file the current one, durably. Returns where the next frame goes.
    ///
    /// When that fails the file must not pass for whole at a restart, as far as the disk lets it: a
    /// sync after one that failed may succeed and make nothing durable.
    pub(crate) fn end(mut self) -> io::Result<u64> {
        self.write()?;
        let headed = self.write_heads(&self.head.encode()).and_then(|()| self.file.sync());
        if let Err(error) = headed {
            let _ = self.write_heads(&[0; HEAD_BYTES]);
            return Err(error);
        }
        self.files.head = self.head;
        self.files.next = self.head.generation + 1;
        Ok(self.at)
    }

    fn write_heads(&self, head: &[u8]) -> io::Result<()> {
        self.file.write_at(head, 0)?;
        self.file.write_at(head, SLOT_STRIDE)
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.piece, self.at)?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

/// A cursor as the ledger knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) opened: Opened,
    pub(crate) progress: Progress,
}

/// What a ledger says.
pub(crate) struct Replayed {
    pub(crate) chosen: Chosen,
    pub(crate) cursors: BTreeMap<u64, Known>,
    pub(crate) last_number: u64,
    /// The highest position it speaks of.
    pub(crate) highest: Position,
    pub(crate) synced: Position,
    /// It ends with the word that the log was closed.
    pub(crate) closed: bool,
    /// The first byte that is damaged and has sound frames behind it.
    pub(crate) damaged_at: Option<u64>,
    snapshot_is_whole: bool,
}

/// What the ledger files hold.
pub(crate) enum LedgerRead {
    /// There is no ledger.
    None,
    /// There are files, but neither can be read.
    Damaged,
    Newer(u16),
    Read(Replayed),
}

/// Removes both files.
pub(crate) fn remove(disk: &dyn Disk) -> io::Result<()> {
    for name in disk.names()?.iter().filter(|name| NAMES.contains(&name.as_str())) {
        disk.remove(name)?;
    }
    disk.sync_names()
}

/// Reads the ledger: the younger file, when the snapshot it begins with is whole; else the other.
pub(crate) fn read(disk: &dyn Disk) -> io::Result<LedgerRead> {
    let names = disk.names()?;
    let mut files = Vec::new();
    let mut is_damaged = false;
    for name in NAMES.iter().filter(|name| names.iter().any(|present| present == *name)) {
        let file = disk.open(name)?;
        match head_of(file.as_ref())? {
            None => is_damaged = true,
            Some(Err(version)) => return Ok(LedgerRead::Newer(version)),
            Some(Ok(head)) => files.push((head, file)),
        }
    }
    files.sort_by_key(|(head, _)| Reverse(head.generation));
    let generations = files.first().map_or(0, |(head, _)| head.generation);
    let mut found: Option<Replayed> = None;
    let mut highest = Position(0);
    for (head, file) in files {
        let replayed = replay(&read_whole(file.as_ref(), file.size()?)?, head);
        highest = highest.max(replayed.highest);
        if found.is_none() || replayed.snapshot_is_whole {
            found = Some(replayed);
        }
        // It says all that the other one did, and more.
        if found.as_ref().is_some_and(|found| found.snapshot_is_whole) {
            break;
        }
    }
    Ok(match found {
        Some(mut replayed) => {
            replayed.highest = highest;
            // The next snapshot must go over the file that was not chosen, whatever its age.
            let head = &mut replayed.chosen.head;
            head.generation += (generations - head.generation).next_multiple_of(2);
            LedgerRead::Read(replayed)
        }
        None if is_damaged => LedgerRead::Damaged,
        None => LedgerRead::None,
    })
}

/// The head of a ledger file, of whichever of its two places has one.
fn head_of(file: &dyn DiskFile) -> io::Result<Option<Result<LedgerHead, u16>>> {
    for at in [0, SLOT_STRIDE] {
        let head = LedgerHead::decode(&read_range(file, at, HEAD_BYTES)?);
        if head.is_some() {
            return Ok(head);
        }
    }
    Ok(None)
}

fn replay(bytes: &[u8], head: LedgerHead) -> Replayed {
    let mut replayed = Replayed {
        chosen: Chosen { head, end: FRAMES_AT },
        cursors: BTreeMap::new(),
        last_number: 0,
        highest: Position(0),
        synced: Position(0),
        closed: false,
        damaged_at: None,
        snapshot_is_whole: false,
    };
    let (mut at, seed) = (FRAMES_AT as usize, head.seed());
    let mut broken = None;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= entry::BYTES) {
        if let Some((change, size)) = Change::decode(rest, at as u64, seed) {
            replayed.highest = replayed.highest.max(change.highest());
            replayed.closed = matches!(change, Change::Mark { closed: true, .. });
            match broken {
                None => replayed.take(change),
                Some(broken_at) => {
                    replayed.damaged_at.get_or_insert(broken_at);
                    replayed.take_after_damage(change);
                }
            }
            at += size;
            replayed.chosen.end = at as u64;
        } else {
            broken.get_or_insert(at as u64);
            at += ALIGN;
        }
    }
    replayed
}

impl Replayed {
    fn take(&mut self, change: Change) {
        match change {
            Change::Open(opened) => self.open(opened),
            Change::Turn { cursor, entry } => {
                if let Some(known) = self.cursors.get_mut(&cursor) {
                    known.progress.replay(&entry);
                }
            }
            Change::Drop { cursor, upto, dropped } => {
                if let Some(known) = self.cursors.get_mut(&cursor) {
                    known.progress.drop_upto(upto);
                    known.opened.dropped = known.opened.dropped.max(dropped);
                }
            }
            Change::Forget { cursor } => {
                self.cursors.remove(&cursor);
            }
            Change::Mark { synced, .. } => self.synced = self.synced.max(synced),
            Change::SnapshotEnd => self.snapshot_is_whole = true,
        }
    }

    /// Behind damage no turn counts, because one before it may be lost: its events are delivered
    /// again. What makes and forgets a cursor stands alone.
    fn take_after_damage(&mut self, change: Change) {
        match change {
            Change::Open(_) | Change::Forget { .. } | Change::Mark { .. } => self.take(change),
            Change::Turn { .. } | Change::Drop { .. } | Change::SnapshotEnd => {}
        }
    }

    fn open(&mut self, opened: Opened) {
        self.last_number = self.last_number.max(opened.cursor);
        match self.cursors.get_mut(&opened.cursor) {
            Some(known) => {
                known.progress.set_waiting_max(opened.waiting_max);
                let dropped = known.opened.dropped.max(opened.dropped);
                known.opened = Opened { dropped, ..opened };
            }
            None => {
                let progress = Progress::new(opened.frontier, opened.waiting_max);
                self.cursors.insert(opened.cursor, Known { opened, progress });
            }
        }
    }
}

#[cfg(test)]
mod tests;
