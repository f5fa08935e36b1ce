//! A disk in memory: the log on it is the memory broker.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{Access, Disk, DiskFile};
use crate::vault::Database;

type Names = BTreeMap<String, Arc<MemoryFile>>;

/// Files in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    names: Arc<Mutex<Names>>,
    vault: Arc<Database>,
    volume_bytes: u64,
}

#[derive(Debug, Default)]
struct MemoryFile(RwLock<Vec<u8>>);

impl MemoryDisk {
    /// An empty disk that says it is `volume_bytes` large.
    pub fn new(volume_bytes: u64) -> Self {
        Self { names: Arc::default(), vault: Arc::default(), volume_bytes }
    }

    fn names_locked(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, name: &str) -> io::Result<Arc<MemoryFile>> {
        let names = self.names_locked();
        names.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.names_locked().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.found(name)?)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = Arc::new(MemoryFile::default());
        self.names_locked().insert(name.to_owned(), file.clone());
        Ok(file)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.names_locked().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        Ok(self.volume_bytes)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        // It says how large it is, and takes whatever it is given.
        Ok(self.volume_bytes)
    }

    fn vault(&self, _: Access) -> io::Result<Arc<Database>> {
        Ok(self.vault.clone())
    }
}

impl DiskFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = (at as usize).min(bytes.len());
        let read = buffer.len().min(bytes.len() - from);
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, written: &[u8], at: u64) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let end = at as usize + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at as usize..end].copy_from_slice(written);
        Ok(())
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() < size as usize {
            bytes.resize(size as usize, 0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
