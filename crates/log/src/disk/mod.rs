//! The one seam to storage: a flat folder of files.
//!
//! Narrow on purpose: what the log asks of a disk is what its doubles can crash, tear and fail.
//! There are no calls for reading whole files, seeking or appending.

#[cfg(any(test, feature = "testing"))]
mod faulty;
mod file;
mod memory;

use std::io;
use std::sync::Arc;

use memmap2::MmapMut;
use rustix::io::Errno;

#[cfg(any(test, feature = "testing"))]
pub use faulty::{Fault, FaultyDisk};
pub use file::{DirLock, FileDisk};
pub use memory::MemoryDisk;

pub use crate::vault::Database;

/// A flat folder of files.
pub trait Disk: Send + Sync + 'static {
    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file, in the place of one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: files made and removed before.
    fn sync_names(&self) -> io::Result<()>;

    /// Bytes of the whole volume, used and free.
    fn volume_bytes(&self) -> io::Result<u64>;

    /// Bytes of the volume that files may still take.
    fn free_bytes(&self) -> io::Result<u64>;

    /// The database of the dead letters, beside the files and none of them. Asked for at each use,
    /// which may be refused as any other operation.
    fn vault(&self, access: Access) -> io::Result<Arc<Database>>;
}

/// What a database is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To look.
    Read,
    /// To change something.
    Write,
}

/// A file of a [`Disk`]. Calls may come from several threads at once.
pub trait DiskFile: Send + Sync + 'static {
    /// Bytes of the file.
    fn size(&self) -> io::Result<u64>;

    /// Reads as much of `buffer` as the file has from byte `at` on; returns how much.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of `bytes` from byte `at` on.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes the file at least `size` bytes long and takes the space for them.
    fn reserve(&self, size: u64) -> io::Result<()>;

    /// Makes everything written before durable.
    fn sync(&self) -> io::Result<()>;
}

/// Is this error "no space left", by volume or by quota?
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Are the bytes that could not be read lost? The kernel has tried again before it says EIO:
/// whoever waits for them would wait for ever. Any other error may pass.
pub(crate) fn is_lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Reads a file's first `size` bytes into memory of its own, which the system has back when it is
/// dropped: an allocator would keep it.
pub(crate) fn read_whole(file: &dyn DiskFile, size: u64) -> io::Result<MmapMut> {
    let mut bytes = MmapMut::map_anon(size as usize)?;
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Reads `length` bytes from byte `at` on; less where the file ends.
pub(crate) fn read_range(file: &dyn DiskFile, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = file.read_at(&mut bytes, at)?;
    bytes.truncate(read);
    Ok(bytes)
}
