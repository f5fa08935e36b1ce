//! A disk that crashes, tears and fails, as a seed or a test tells it to.
//!
//! It keeps two images: what programs see, and what a power cut would leave. A write goes to the
//! first, a sync carries it to the second. A power cut keeps any part of what was not synced, torn
//! at sectors, in any order.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use eventbus_core::Entropy;
use rustix::io::Errno;

use super::{Access, Disk, DiskFile};
use crate::vault::Database;

const SECTOR_BYTES: usize = 512;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with EIO; a write leaves a part of itself behind.
    Error,
    /// The operation fails with ENOSPC; a write leaves a part of itself behind.
    Full,
    /// The process ends in the middle of the operation.
    Kill,
}

/// A disk with faults. Clones are the same disk, as the same process sees it.
#[derive(Clone)]
pub struct FaultyDisk {
    world: Arc<Mutex<World>>,
    /// A process that was killed cannot touch the disk any more.
    life: u64,
}

#[derive(Default)]
struct World {
    life: u64,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    renamings: Vec<BTreeMap<String, usize>>,
    files: Vec<Contents>,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    struck: bool,
    /// Bytes of files that cannot be read, and how that fails.
    spoiled: Vec<(usize, Range<u64>, Errno)>,
    volume_bytes: u64,
    /// Does what is written anew need room of its own?
    copies_on_write: bool,
    /// What is committed to it is durable; a fault strikes before anything is done.
    vault: Arc<Database>,
}

#[derive(Clone, Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    /// Up to here something was written.
    written: usize,
}

struct FaultyFile {
    disk: FaultyDisk,
    file: usize,
}

impl FaultyDisk {
    /// An empty disk of `volume_bytes`.
    pub fn new(volume_bytes: u64) -> Self {
        let world = World { volume_bytes, ..World::default() };
        Self { world: Arc::new(Mutex::new(world)), life: 0 }
    }

    /// Changing operations done so far: writes, syncs, makings, removals.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Has the operation of that number fail, counted from 1 over the whole life of the disk.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.world().faults.insert(operation, fault);
    }

    /// Did a fault strike since the disk was made, killed or healed?
    pub fn has_struck(&self) -> bool {
        self.world().struck
    }

    /// Has every read of any of these bytes of a file fail so, until the disk is healed.
    pub fn spoil(&self, name: &str, bytes: Range<u64>, error: Errno) {
        let mut world = self.world();
        let file = world.names[name];
        world.spoiled.push((file, bytes, error));
    }

    /// Takes all faults back that did not strike yet.
    pub fn heal(&self) {
        let mut world = self.world();
        world.faults.clear();
        world.spoiled.clear();
        world.struck = false;
    }

    /// Changes the size of the volume.
    pub fn resize(&self, volume_bytes: u64) {
        self.world().volume_bytes = volume_bytes;
    }

    /// Has what is written anew need as much room again, as on a volume that copies on write; what
    /// is only reserved has its room.
    pub fn copy_on_write(&self) {
        self.world().copies_on_write = true;
    }

    /// Was the process that uses this disk killed?
    pub fn is_dead(&self) -> bool {
        self.world().life != self.life
    }

    /// The disk after the process was killed: whatever was written is there.
    pub fn after_kill(&self) -> Self {
        let mut world = self.world();
        world.life += 1;
        world.struck = false;
        world.faults.clear();
        Self { world: self.world.clone(), life: world.life }
    }

    /// The disk after a power cut: of what was not synced, the dice decide.
    pub fn after_power_cut(&self, dice: &dyn Entropy) -> Self {
        let mut world = self.world();
        let kept = dice.next_u64() as usize % (world.renamings.len() + 1);
        if kept > 0 {
            world.durable_names = world.renamings[kept - 1].clone();
        }
        world.names = world.durable_names.clone();
        world.renamings.clear();
        for file in &mut world.files {
            for (at, bytes) in std::mem::take(&mut file.unsynced) {
                let all = dice.next_u64() % 3;
                tear(at, &bytes, |at, sector| match all {
                    0 => {}
                    1 => put(&mut file.durable, at, sector),
                    _ if dice.next_u64().is_multiple_of(2) => put(&mut file.durable, at, sector),
                    _ => {}
                });
            }
            file.seen.clone_from(&file.durable);
        }
        drop(world);
        self.after_kill()
    }

    /// Flips one bit of a file, on the disk and as seen.
    pub fn flip(&self, name: &str, bit: usize) {
        let mut world = self.world();
        let Some(file) = world.names.get(name).copied() else { return };
        let file = &mut world.files[file];
        for image in [&mut file.seen, &mut file.durable] {
            if let Some(byte) = image.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Another disk with the same files as this one's programs see them, and an empty vault.
    pub fn copy(&self) -> Self {
        let world = self.world();
        let files = world.files.iter().map(|file| Contents {
            seen: file.seen.clone(),
            durable: file.seen.clone(),
            unsynced: Vec::new(),
            written: file.written,
        });
        let copy = World {
            names: world.names.clone(),
            durable_names: world.names.clone(),
            files: files.collect(),
            volume_bytes: world.volume_bytes,
            ..World::default()
        };
        Self { world: Arc::new(Mutex::new(copy)), life: 0 }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, World>> {
        let world = self.world();
        if world.life == self.life { Ok(world) } else { Err(killed()) }
    }

    /// Counts a changing operation; says whether it fails.
    fn operate(&self) -> io::Result<(MutexGuard<'_, World>, Option<Fault>)> {
        let mut world = self.alive()?;
        world.operations += 1;
        let operation = world.operations;
        let fault = world.faults.remove(&operation);
        Ok((world, fault))
    }

    /// A changing operation of which no part can be done.
    fn whole<T>(&self, work: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let (mut world, fault) = self.operate()?;
        match fault {
            None => work(&mut world),
            Some(fault) => Err(world.strike(fault)),
        }
    }

    fn file(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(FaultyFile { disk: self.clone(), file })
    }
}

impl World {
    fn strike(&mut self, fault: Fault) -> io::Error {
        self.struck = true;
        match fault {
            Fault::Error => Errno::IO.into(),
            Fault::Full => Errno::NOSPC.into(),
            Fault::Kill => {
                self.life += 1;
                killed()
            }
        }
    }

    fn renamed(&mut self) {
        self.renamings.push(self.names.clone());
    }

    fn used(&self) -> usize {
        self.names.values().map(|file| self.files[*file].seen.len()).sum()
    }

    fn room(&self, file: usize, size: usize) -> io::Result<()> {
        let grown = size.saturating_sub(self.files[file].seen.len());
        if grown > 0 && (self.used() + grown) as u64 > self.volume_bytes {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    fn room_to_copy(&self, file: usize, at: usize, bytes: usize) -> io::Result<()> {
        let copied = self.files[file].written.saturating_sub(at).min(bytes);
        if self.copies_on_write && (self.used() + copied) as u64 > self.volume_bytes {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }
}

fn killed() -> io::Error {
    io::Error::other("the process was killed")
}

fn put(image: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Cuts a write at the borders of sectors.
fn tear(at: usize, bytes: &[u8], mut each: impl FnMut(usize, &[u8])) {
    let mut from = 0;
    while from < bytes.len() {
        let to = (from + SECTOR_BYTES - (at + from) % SECTOR_BYTES).min(bytes.len());
        each(at + from, &bytes[from..to]);
        from = to;
    }
}

impl Disk for FaultyDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.alive()?;
        let file = *world.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.whole(|world| {
            world.files.push(Contents::default());
            let file = world.files.len() - 1;
            world.names.insert(name.to_owned(), file);
            world.renamed();
            Ok(self.file(file))
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole(|world| {
            world.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            world.renamed();
            Ok(())
        })
    }

    fn sync_names(&self) -> io::Result<()> {
        self.whole(|world| {
            world.durable_names = world.names.clone();
            world.renamings.clear();
            Ok(())
        })
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        Ok(self.alive()?.volume_bytes)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let world = self.alive()?;
        Ok(world.volume_bytes.saturating_sub(world.used() as u64))
    }

    fn vault(&self, access: Access) -> io::Result<Arc<Database>> {
        match access {
            Access::Read => Ok(self.alive()?.vault.clone()),
            Access::Write => self.whole(|world| Ok(world.vault.clone())),
        }
    }
}

impl DiskFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.files[self.file].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let world = self.disk.alive()?;
        let seen = &world.files[self.file].seen;
        let from = (at as usize).min(seen.len());
        let read = buffer.len().min(seen.len() - from);
        let bytes = from as u64..(from + read) as u64;
        let touches = |spoiled: &Range<u64>| spoiled.start < bytes.end && bytes.start < spoiled.end;
        for (file, spoiled, error) in &world.spoiled {
            if *file == self.file && touches(spoiled) {
                return Err((*error).into());
            }
        }
        buffer[..read].copy_from_slice(&seen[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let (mut world, fault) = self.disk.operate()?;
        let at = at as usize;
        world.room(self.file, at + bytes.len())?;
        world.room_to_copy(self.file, at, bytes.len())?;
        let written = if fault.is_some() { &bytes[..bytes.len() / 2] } else { bytes };
        let file = &mut world.files[self.file];
        put(&mut file.seen, at, written);
        file.written = file.written.max(at + written.len());
        file.unsynced.push((at, written.to_vec()));
        fault.map_or(Ok(()), |fault| Err(world.strike(fault)))
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.disk.whole(|world| {
            world.room(self.file, size as usize)?;
            let file = &mut world.files[self.file];
            if file.seen.len() < size as usize {
                file.seen.resize(size as usize, 0);
                file.durable.resize(size as usize, 0);
            }
            Ok(())
        })
    }

    /// What one that failed did not carry over no later one does, as Linux has it.
    fn sync(&self) -> io::Result<()> {
        let (mut world, fault) = self.disk.operate()?;
        if fault == Some(Fault::Kill) {
            return Err(world.strike(Fault::Kill));
        }
        let file = &mut world.files[self.file];
        let unsynced = std::mem::take(&mut file.unsynced);
        if let Some(fault) = fault {
            return Err(world.strike(fault));
        }
        for (at, bytes) in unsynced {
            put(&mut file.durable, at, &bytes);
        }
        Ok(())
    }
}
