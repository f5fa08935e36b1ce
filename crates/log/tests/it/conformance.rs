//! The log passes the suite of all brokers: in a directory, and in memory.

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use eventbus_core::conformance::{Harness, Limits, Traits};
use eventbus_core::testing::ManualClock;
use eventbus_core::{Broker, Clock};
use eventbus_log::LogConfig;
use eventbus_log::disk::{Access, Database, Disk, DiskFile, FileDisk, MemoryDisk};
use futures::FutureExt;
use futures::future::BoxFuture;
use tempfile::TempDir;

use crate::support::{clock, open_with};

mod in_a_directory {
    eventbus_core::conformance!(super::in_a_directory);
}

mod in_memory {
    eventbus_core::conformance!(super::in_memory);
}

async fn in_a_directory() -> Option<LogHarness> {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::open(dir.path()).unwrap());
    Some(LogHarness::on(disk, Some(dir)))
}

async fn in_memory() -> Option<LogHarness> {
    Some(LogHarness::on(Arc::new(MemoryDisk::new(1 << 30)), None))
}

/// A disk, a clock that is set by hand, and the process that uses them.
struct LogHarness {
    disk: Arc<dyn Disk>,
    clock: Arc<ManualClock>,
    life: Mutex<Arc<Life>>,
    _dir: Option<TempDir>,
}

/// A process as its disk sees it: until it is killed it does one thing after the other, and then
/// nothing.
#[derive(Default)]
struct Life(RwLock<bool>);

/// A disk, or a file of it, as one process sees it.
struct Lived<T: ?Sized> {
    life: Arc<Life>,
    inner: Arc<T>,
}

impl LogHarness {
    fn on(disk: Arc<dyn Disk>, dir: Option<TempDir>) -> Self {
        Self { disk, clock: clock(), life: Mutex::default(), _dir: dir }
    }
}

impl Harness for LogHarness {
    fn traits(&self) -> Traits {
        Traits { shared: false, lease_time: Duration::ZERO }
    }

    fn start(&self, limits: Limits) -> BoxFuture<'_, Arc<dyn Broker>> {
        let life = Arc::new(Life::default());
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = life.clone();
        let disk = Arc::new(Lived { life, inner: self.disk.clone() });
        let config = LogConfig {
            history_bytes: limits.history_bytes,
            max_bytes: Some(limits.max_bytes),
            backlog_max_bytes: Some(limits.backlog_max_bytes),
            age: limits.age,
            deduplication_time: limits.deduplication_time,
            segment_bytes: (limits.max_bytes / 16).clamp(64 << 10, 4 << 20),
            ..LogConfig::on_disk(disk)
        };
        let log = open_with(config, &self.clock).unwrap();
        std::future::ready(Arc::new(log) as Arc<dyn Broker>).boxed()
    }

    fn kill(&self, broker: Arc<dyn Broker>) -> BoxFuture<'_, ()> {
        async move {
            self.life.lock().unwrap_or_else(PoisonError::into_inner).end();
            // Ends its threads, which cannot do anything any more.
            let _ = broker.close().await;
        }
        .boxed()
    }

    fn reach(&self, _: bool) -> BoxFuture<'_, bool> {
        std::future::ready(false).boxed()
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.clock.advance(time);
        std::future::ready(()).boxed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }
}

impl Life {
    /// Ends it as soon as what it is doing is done.
    fn end(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl<T: ?Sized> Lived<T> {
    fn act<A>(&self, work: impl FnOnce(&T) -> io::Result<A>) -> io::Result<A> {
        let ended = self.life.0.read().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Err(io::Error::other("the process was killed"));
        }
        work(&self.inner)
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(Lived { life: self.life.clone(), inner: file })
    }
}

impl Disk for Lived<dyn Disk> {
    fn names(&self) -> io::Result<Vec<String>> {
        self.act(|disk| disk.names())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.act(|disk| disk.open(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.act(|disk| disk.create(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.act(|disk| disk.remove(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.act(|disk| disk.sync_names())
    }

    fn volume_bytes(&self) -> io::Result<u64> {
        self.act(|disk| disk.volume_bytes())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.act(|disk| disk.free_bytes())
    }

    fn vault(&self, access: Access) -> io::Result<Arc<Database>> {
        self.act(|disk| disk.vault(access))
    }
}

impl DiskFile for Lived<dyn DiskFile> {
    fn size(&self) -> io::Result<u64> {
        self.act(|file| file.size())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.act(|file| file.read_at(buffer, at))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.act(|file| file.write_at(bytes, at))
    }

    fn reserve(&self, size: u64) -> io::Result<()> {
        self.act(|file| file.reserve(size))
    }

    fn sync(&self) -> io::Result<()> {
        self.act(|file| file.sync())
    }
}
