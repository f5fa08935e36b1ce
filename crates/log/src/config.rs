//! How a log is opened, and why it is not.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::limits;

use crate::disk::Disk;

/// How a log is opened.
#[derive(Clone)]
pub struct LogConfig {
    /// Where it lies.
    pub storage: Storage,
    /// Bytes of settled events kept for replay.
    pub history_bytes: u64,
    /// Bytes of storage beyond which publishing is refused; `None`: 80 % of the volume.
    pub max_bytes: Option<u64>,
    /// Bytes that one cursor may hold back before it loses its oldest events; `None`: a quarter of
    /// `max_bytes`.
    pub backlog_max_bytes: Option<u64>,
    /// After this time an event is gone, settled or not.
    pub age: Duration,
    /// How long ids are remembered, at most [`limits::DEDUPLICATION_IDS`] of them; zero: not at
    /// all.
    pub deduplication_time: Duration,
    /// Bytes of a segment; the first one is at most 4 MiB. Smaller ones trim more finely.
    pub segment_bytes: u64,
    /// Bytes of published events kept in memory for subscribers that keep up.
    pub tail_cache_bytes: usize,
}

/// Where a log lies.
#[derive(Clone)]
pub enum Storage {
    /// In a directory of its own, which is made where there is none.
    Dir(PathBuf),
    /// On a disk given by the caller, such as one in memory.
    Disk(Arc<dyn Disk>),
}

impl LogConfig {
    /// The defaults, in the directory `path`.
    pub fn in_dir(path: impl Into<PathBuf>) -> Self {
        Self::on(Storage::Dir(path.into()))
    }

    /// The defaults, on `disk`.
    pub fn on_disk(disk: Arc<dyn Disk>) -> Self {
        Self::on(Storage::Disk(disk))
    }

    fn on(storage: Storage) -> Self {
        Self {
            storage,
            history_bytes: limits::HISTORY_BYTES,
            max_bytes: None,
            backlog_max_bytes: None,
            age: limits::EVENT_AGE,
            deduplication_time: limits::DEDUPLICATION_TIME,
            segment_bytes: limits::SEGMENT_BYTES,
            tail_cache_bytes: limits::TAIL_CACHE_BYTES,
        }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "{} is in use by another process: stop that process, \
         or give this one a directory of its own",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It holds something else.
    #[error(
        "{} holds {file}, which is no file of a log: \
         give the log an empty directory, or one it made",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// A file that does not belong.
        file: String,
    },
    /// A newer program made it.
    #[error(
        "{} has format {found}, and this program reads up to {known}: \
         use the newer program; nothing was changed",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version this program knows.
        known: u16,
    },
    /// A setting makes no sense.
    #[error("{setting} is {value} bytes: it must be at least {least}, {reason}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// The smallest that is allowed.
        least: u64,
        /// What that is.
        reason: &'static str,
    },
    /// The disk failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}
