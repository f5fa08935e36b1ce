//! The real disk: a directory of a file system.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::{Access, Disk, DiskFile};
use crate::config::OpenError;
use crate::vault::{Database, VAULT};

const LOCK: &str = "lock";

/// A directory.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    vault: Arc<Database>,
}

/// Keeps other processes out of a directory for as long as it lives. The lock is the kernel's, so
/// it dies with the process, however the process ends.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "held for its lock alone")] File);

impl FileDisk {
    /// Opens the directory at `path`, making it where there is none. Events are nobody else's: what
    /// is made can be read by this user alone.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|error| OpenError::Io { path: path.to_owned(), error })?;
        let vault = Arc::new(Database::at(path.join(VAULT)));
        Ok(Self { path: path.to_owned(), vault })
    }

    /// Keeps other processes out.
    pub fn lock(&self) -> Result<DirLock, OpenError> {
        let path = || self.path.clone();
        let failed = |error| OpenError::Io { path: path(), error };
        let lock = private().create(true).truncate(false).open(self.path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(DirLock(lock)),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path: path() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// To read and write, and made for this user alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for FileDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != LOCK {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(private().create(true).truncate(true).open(self.path.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        let volume = statvfs(&self.path)?;
        Ok(volume.f_frsize.saturating_mul(volume.f_blocks))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let volume = statvfs(&self.path)?;
        Ok(volume.f_frsize.saturating_mul(volume.f_bavail))
    }

    fn vault(&self, _: Access) -> io::Result<Arc<Database>> {
        Ok(self.vault.clone())
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], at + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        let present = self.metadata()?.len();
        if present >= size {
            return Ok(());
        }
        match fallocate(self, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            // A file system that cannot: the space is taken when it is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(size),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
