//! The database itself: a file beside the segments, or memory beside a disk in memory.
//!
//! It is made with the first event that is put into it, beside its place and renamed into it, so
//! that whatever lies there is whole or not ours. Its header is read as plain bytes before SQLite
//! touches it, so a foreign or newer file stays as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, ErrorCode};

use crate::config::OpenError;

/// The name of its file. What SQLite lays beside it begins with the same letters.
pub(crate) const VAULT: &str = "vault.db";

/// "evbv" in the file's header: a database without it is somebody else's.
const APPLICATION_ID: u32 = 0x6576_6276;

/// Bytes that the write-ahead log keeps once its content is in the database: more than the usual
/// turn takes, so that the space need not be found anew each time.
const WAL_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of a header of SQLite.
const HEADER_BYTES: usize = 100;

/// What makes each format out of the one before it. Drawn in `docs/format.md`.
const STEPS: [&str; 2] = [
    "
CREATE TABLE dead_letters (
    cursor   TEXT NOT NULL,
    position INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    dead_ms  INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    last     BLOB NOT NULL,
    event    BLOB NOT NULL,
    PRIMARY KEY (cursor, position)
);
",
    "
CREATE TABLE delayed_events (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    id_hash BLOB UNIQUE,
    due_ms  INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,
    event   BLOB NOT NULL
);
CREATE INDEX delayed_events_by_due ON delayed_events (due_ms, number, bytes);
",
];

/// The version of the tables, in the file's header.
const FORMAT: u16 = STEPS.len() as u16;

/// A database of whole events. Used by one thread at a time; the lock of the directory keeps other
/// processes out.
#[derive(Debug, Default)]
pub struct Database {
    /// `None`: in memory.
    path: Option<PathBuf>,
    /// `None` until it is needed, and while there is none.
    connection: Mutex<Option<Connection>>,
}

impl Database {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path: Some(path), connection: Mutex::default() }
    }

    /// Refuses a file that is not ours, or newer.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let Some(path) = &self.path else { return Ok(()) };
        let failed = |error| OpenError::Io { path: path.clone(), error };
        if !exists(path).map_err(failed)? {
            return Ok(());
        }
        let mut header = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(failed)?;
        let number = |at: usize| {
            let bytes = header.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_be_bytes(*bytes))
        };
        if !header.starts_with(b"SQLite format 3\0") || number(68) != Some(APPLICATION_ID) {
            let directory = path.parent().unwrap_or(path).to_owned();
            return Err(OpenError::Foreign { path: directory, file: VAULT.to_owned() });
        }
        let found = u16::try_from(number(60).unwrap_or_default()).unwrap_or(u16::MAX);
        if found > FORMAT {
            return Err(OpenError::Newer { path: path.clone(), found, known: FORMAT });
        }
        Ok(())
    }

    /// Does `work` on the database, where there is one.
    pub(crate) fn look<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> io::Result<Option<T>> {
        let mut connection = self.connection();
        if connection.is_none()
            && let Some(path) = &self.path
            && exists(path)?
        {
            *connection = Some(open(path).map_err(failure)?);
        }
        let done = connection.as_mut().map(work);
        done.transpose().map_err(failure)
    }

    /// Does `work` on the database, which is made where there is none.
    pub(crate) fn change<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> io::Result<T> {
        let mut slot = self.connection();
        let connection = match slot.take() {
            Some(connection) => connection,
            None => match &self.path {
                None => in_memory().map_err(failure)?,
                Some(path) => {
                    if !exists(path)? {
                        make(path)?;
                    }
                    open(path).map_err(failure)?
                }
            },
        };
        work(slot.insert(connection)).map_err(failure)
    }

    /// Lets go of the file. What lies in memory stays: whoever opens the disk again finds it.
    pub(crate) fn close(&self) {
        if self.path.is_some() {
            *self.connection() = None;
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An empty file counts as none: nothing in it can be lost.
fn exists(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes an empty database under another name, for this user alone, and renames it into place.
fn make(path: &Path) -> io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    let beside = |ending: &str| directory.join(format!("{VAULT}.new{ending}"));
    for ending in ["", "-wal", "-shm", "-journal"] {
        match fs::remove_file(beside(ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let fresh = beside("");
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let made = open(&fresh).and_then(|connection| connection.close().map_err(|(_, error)| error));
    made.map_err(failure)?;
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}

/// Every commit is synced. The directory is locked, so SQLite needs no memory to share with others.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    bring_up(&mut connection)?;
    Ok(connection)
}

fn in_memory() -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    bring_up(&mut connection)?;
    Ok(connection)
}

/// Takes the steps that are missing: all of them where the database is new.
fn bring_up(connection: &mut Connection) -> rusqlite::Result<()> {
    let found = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, u16>(0))?;
    if found >= FORMAT {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in &STEPS[usize::from(found)..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// Tells a full disk from other trouble.
fn failure(error: rusqlite::Error) -> io::Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => io::Error::other(error),
    }
}
