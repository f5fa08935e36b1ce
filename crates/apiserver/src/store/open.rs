//! Opening the file: known as ours before anything is written to it.
//!
//! A new file is made beside its place and renamed into it, so that whatever lies there is either
//! whole or not ours; the header is read as plain bytes, so that a foreign or newer file stays
//! untouched to the last byte.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use eventbus_core::Entropy;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, watch};

use super::{
    Readers, Shared, Store,
    layout::{APPLICATION_ID, FORMAT, TABLES},
    queue,
    ring::Ring,
    room::Room,
    seal::{Seal, place},
    writer::Writer,
};
use crate::{definition::Registry, limits};

/// Why the store cannot be opened. The file is as it was.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file or its folder cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Some other program's file lies there.
    #[error("{0} is not a resource store of eventbus: move it away, or name another data folder")]
    Foreign(PathBuf),
    /// A newer version of this program wrote it.
    #[error(
        "{path} has format {found}, and this version knows formats up to {FORMAT}: \
         run the version that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The key of what lies sealed in it cannot be used.
    #[error(
        "{path}: the key of the Secrets cannot be used: {reason}; restore it from a backup, or \
         move the resource store away too"
    )]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its pages contradict each other.
    #[error("{path} is corrupted ({reason}): restore it from a backup, or move it away")]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What the check found first.
        reason: String,
    },
}

impl Store {
    /// Refuses the file at `path` if [`Store::open`] would, and leaves it alone.
    pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
        if exists(path)? { inspect(path) } else { Ok(()) }
    }

    /// Opens the file at `path`, or makes it, for the resources of `registry`; likewise the key
    /// beside it.
    pub(crate) fn open(
        path: &Path,
        registry: Arc<Registry>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, StoreError> {
        if exists(path)? {
            inspect(path)?;
        } else {
            make(path)?;
        }
        let database = |error: rusqlite::Error| failed(path, error);
        let connection = connect(path).map_err(database)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(database)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(database)?;
        connection
            .pragma_update(None, "journal_size_limit", limits::WAL_BYTES)
            .map_err(database)?;
        let ids = resource_ids(&connection, &registry).map_err(database)?;
        let revision: i64 = connection
            .query_row("SELECT revision FROM store", [], |row| row.get(0))
            .map_err(database)?;
        let mut readers = Vec::with_capacity(limits::READERS);
        for _ in 0..limits::READERS {
            let reader = connect(path).map_err(database)?;
            reader.pragma_update(None, "query_only", true).map_err(database)?;
            readers.push(reader);
        }
        let revision = revision.unsigned_abs();
        let seal = open_seal(&connection, path, &registry, entropy)?;
        let shared = Arc::new(Shared {
            ids,
            sealed: registry.resources().iter().map(|resource| resource.is_secret()).collect(),
            seal,
            rings: registry.resources().iter().map(|_| Arc::new(Ring::new(revision))).collect(),
            published: watch::Sender::new(revision),
            collect: Notify::new(),
        });
        let (jobs, queued) = queue();
        let writer = Writer::new(connection, queued, Arc::clone(&shared), registry, revision);
        let writer = std::thread::Builder::new()
            .name("resource-writer".into())
            .spawn(move || writer.run())
            .map_err(|source| StoreError::Io { path: path.into(), source })?;
        Ok(Self {
            jobs: Some(jobs).into(),
            writer: Some(writer).into(),
            readers: Arc::new(Readers {
                idle: readers.into(),
                permits: Arc::new(Semaphore::new(limits::READERS)),
            }),
            drafts: Arc::new(Semaphore::new(limits::DRAFTS)),
            room: Room::new(),
            shared,
        })
    }
}

/// Opens the file for this process alone: then the index of the write-ahead log lies in memory, and
/// not in a mapped file, into which a write kills the process where the volume is full. Without
/// SQLite's own mutexes: each connection is used by one thread at a time.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, "unix-excl")?;
    // The last one to close leaves the files as they are: so a look changes nothing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "cache_size", -limits::PAGE_CACHE_KIB)?;
    connection.pragma_update(None, "busy_timeout", 5_000)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Tells trouble of the volume from trouble in the file: who is told to move a sound file away
/// loses it.
fn failed(path: &Path, error: rusqlite::Error) -> StoreError {
    let io = |source| StoreError::Io { path: path.into(), source };
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io(io::Error::new(io::ErrorKind::StorageFull, error)),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            io(io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"))
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => io(io::Error::other(error)),
        _ => corrupted(path, error.to_string()),
    }
}

fn corrupted(path: &Path, reason: String) -> StoreError {
    StoreError::Corrupted { path: path.into(), reason }
}

/// An empty file counts as none: nothing in it can be lost.
fn exists(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() > 0 || !found.is_file()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StoreError::Io { path: path.into(), source }),
    }
}

/// Reads the header as bytes, then lets SQLite check the pages.
fn inspect(path: &Path) -> Result<(), StoreError> {
    let mut header = [0u8; 100];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(StoreError::Foreign(path.into()));
        }
        Err(source) => return Err(StoreError::Io { path: path.into(), source }),
    }
    let word =
        |at: usize| header[at..at + 4].iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
    if !header.starts_with(b"SQLite format 3\0") || word(68) != APPLICATION_ID {
        return Err(StoreError::Foreign(path.into()));
    }
    if word(60) > FORMAT {
        return Err(StoreError::Newer { path: path.into(), found: word(60) });
    }
    let checked: String = connect(path)
        .and_then(|connection| {
            connection.pragma_update(None, "query_only", true)?;
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        })
        .map_err(|error| failed(path, error))?;
    if checked == "ok" { Ok(()) } else { Err(corrupted(path, checked)) }
}

/// Makes a whole store under another name and renames it into place. It is in WAL mode from then
/// on: changing the mode of the file in its place would leave, at a kill in between, a journal that
/// the read-only check may not play back.
fn make(path: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: path.into(), source };
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let made = Connection::open(&fresh).and_then(|connection| {
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN; {TABLES} \
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
        ))?;
        connection.close().map_err(|(_, error)| error)
    });
    made.map_err(|error| io(io::Error::other(error)))?;
    fs::rename(&fresh, path).map_err(io)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)
}

/// Reads the key, and tries it on what is sealed.
fn open_seal(
    connection: &Connection,
    path: &Path,
    registry: &Registry,
    entropy: Arc<dyn Entropy>,
) -> Result<Seal, StoreError> {
    let database = |error: rusqlite::Error| corrupted(path, error.to_string());
    let secret = registry.resources().iter().find(|resource| resource.is_secret());
    let name = secret.map(|resource| resource.qualified()).unwrap_or_default();
    let sealed: Option<(String, String, Vec<u8>)> = connection
        .query_row(
            "SELECT o.namespace, o.name, o.body FROM objects o \
             JOIN resources r ON r.id = o.resource WHERE r.name = ?1 LIMIT 1",
            [name],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()
        .map_err(database)?;
    let seal = Seal::read(path, entropy, sealed.is_some())?;
    match sealed {
        Some((namespace, name, body)) if seal.open(&place(&namespace, &name), &body).is_err() => {
            let reason = "it does not fit what it sealed";
            Err(StoreError::Key { path: path.with_extension("key"), reason })
        }
        _ => Ok(seal),
    }
}

/// The number of each resource in the file, in the registry's order.
fn resource_ids(connection: &Connection, registry: &Registry) -> rusqlite::Result<Vec<i64>> {
    registry
        .resources()
        .iter()
        .map(|resource| {
            let name = resource.qualified();
            connection.execute("INSERT OR IGNORE INTO resources (name) VALUES (?1)", [&name])?;
            connection
                .query_row("SELECT id FROM resources WHERE name = ?1", [&name], |row| row.get(0))
        })
        .collect()
}
