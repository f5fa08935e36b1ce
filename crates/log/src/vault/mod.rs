//! The vault: dead letters, each a whole copy of its event, and events that are not due yet.
//!
//! SQLite, because they are keyed, few and cold. Nothing here is on the road of an event that is
//! delivered: a turn without dead letters never comes by.

mod database;
mod delayed;

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use eventbus_core::broker::CursorId;
use eventbus_core::dead_letters::{DeadLetter, DeadLetterError, DeadLetterKey, DeadLetters};
use eventbus_core::delivery::{Attempts, DeadLetterReason, Tried};
use eventbus_core::wire::stored;
use eventbus_core::{Event, Position};
use futures::FutureExt;
use futures::future::BoxFuture;
use rusqlite::{Connection, Row, ToSql, params};

pub use database::Database;
pub(crate) use database::VAULT;
pub(crate) use delayed::{DelayedKey, Due, Kept, Waiting};

use crate::bytes::Fields;
use crate::bytes::entry::{attempt, put_attempts};
use crate::config::OpenError;
use crate::disk::{Access, Disk};

/// The vault of an open log.
#[derive(Clone)]
pub(crate) struct Vault {
    disk: Arc<dyn Disk>,
    /// Held while the database is used: what is under way ends before the log does.
    is_open: Arc<RwLock<bool>>,
}

impl Vault {
    /// The vault of `disk`, unless it is not ours. It is not made before it is needed.
    pub(crate) fn of(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, OpenError> {
        let database = disk.vault(Access::Read);
        let failed = |error| OpenError::Io { path: path.to_owned(), error };
        database.map_err(failed)?.check()?;
        Ok(Self { disk, is_open: Arc::new(true.into()) })
    }

    /// The highest position in it: the log must not give it to another event, not even when
    /// somebody took everything else away.
    pub(crate) fn highest(&self, path: &Path) -> Result<Position, OpenError> {
        let highest = self.look(|connection| {
            let highest = "SELECT max(position) FROM dead_letters";
            connection.query_row(highest, [], |row| row.get::<_, Option<i64>>(0))
        });
        let path = path.join(VAULT);
        let highest = highest.map_err(|error| OpenError::Io { path, error })?;
        Ok(Position(highest.flatten().unwrap_or_default().unsigned_abs()))
    }

    /// Stores those that are not there yet, and tells how many; durable when it returns. All or
    /// none. Blocks.
    pub(crate) fn put(&self, dead: &[DeadLetter]) -> io::Result<usize> {
        if dead.is_empty() {
            return Ok(0);
        }
        let _open = self.held_open()?;
        self.disk.vault(Access::Write)?.change(|connection| {
            let transaction = connection.transaction()?;
            let mut new = 0;
            for letter in dead {
                new += put(&transaction, letter)?;
            }
            transaction.commit()?;
            Ok(new)
        })
    }

    /// Takes no more calls, and lets go of its file.
    pub(crate) fn close(&self) {
        let mut is_open = self.is_open.write().unwrap_or_else(PoisonError::into_inner);
        *is_open = false;
        if let Ok(database) = self.disk.vault(Access::Read) {
            database.close();
        }
    }

    pub(crate) fn page_now(
        &self,
        of: &CursorId,
        after: Position,
        limit: NonZeroUsize,
    ) -> io::Result<Vec<DeadLetter>> {
        let select = "SELECT cursor, position, reason, dead_ms, attempts, last, event \
                      FROM dead_letters WHERE cursor = ?1 AND position > ?2 \
                      ORDER BY position LIMIT ?3";
        let limit = i64::try_from(limit.get()).unwrap_or(i64::MAX);
        self.select(select, params![&*of.0, signed(after.0), limit])
    }

    fn get_now(&self, key: &DeadLetterKey) -> io::Result<Option<DeadLetter>> {
        let select = "SELECT cursor, position, reason, dead_ms, attempts, last, event \
                      FROM dead_letters WHERE cursor = ?1 AND position = ?2";
        let found = self.select(select, params![&*key.cursor.0, signed(key.position.0)])?;
        Ok(found.into_iter().next())
    }

    fn remove_now(&self, key: &DeadLetterKey) -> io::Result<bool> {
        let _open = self.held_open()?;
        let removed = self.disk.vault(Access::Write)?.look(|connection| {
            let delete = "DELETE FROM dead_letters WHERE cursor = ?1 AND position = ?2";
            connection.execute(delete, params![&*key.cursor.0, signed(key.position.0)])
        })?;
        Ok(removed.is_some_and(|count| count > 0))
    }

    fn select(&self, select: &str, by: &[&dyn ToSql]) -> io::Result<Vec<DeadLetter>> {
        let rows = self.look(|connection| {
            let mut select = connection.prepare_cached(select)?;
            let rows = select.query_map(by, Cells::read)?;
            rows.collect::<rusqlite::Result<Vec<Cells>>>()
        })?;
        rows.unwrap_or_default().into_iter().map(Cells::letter).collect()
    }

    fn look<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> io::Result<Option<T>> {
        let _open = self.held_open()?;
        self.disk.vault(Access::Read)?.look(work)
    }

    fn held_open(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let is_open = self.is_open.read().unwrap_or_else(PoisonError::into_inner);
        if *is_open { Ok(is_open) } else { Err(io::Error::other("the log is closed")) }
    }

    /// Does `work` where blocking is allowed.
    fn soon<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, DeadLetterError>> {
        let vault = self.clone();
        async move {
            let done = tokio::task::spawn_blocking(move || work(&vault)).await;
            let done = done.unwrap_or_else(|error| Err(io::Error::other(error)));
            done.map_err(|error| DeadLetterError::Unavailable(error.to_string()))
        }
        .boxed()
    }
}

impl DeadLetters for Vault {
    fn page(
        &self,
        of: CursorId,
        after: Position,
        limit: NonZeroUsize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>> {
        self.soon(move |vault| vault.page_now(&of, after, limit))
    }

    fn get(
        &self,
        key: DeadLetterKey,
    ) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>> {
        self.soon(move |vault| vault.get_now(&key))
    }

    fn remove(&self, key: DeadLetterKey) -> BoxFuture<'_, Result<bool, DeadLetterError>> {
        self.soon(move |vault| vault.remove_now(&key))
    }
}

/// A row, as SQLite gives it.
struct Cells {
    cursor: String,
    position: i64,
    reason: String,
    dead_ms: i64,
    attempts: u32,
    last: Vec<u8>,
    event: Vec<u8>,
}

impl Cells {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            cursor: row.get(0)?,
            position: row.get(1)?,
            reason: row.get(2)?,
            dead_ms: row.get(3)?,
            attempts: row.get(4)?,
            last: row.get(5)?,
            event: row.get(6)?,
        })
    }

    fn letter(self) -> io::Result<DeadLetter> {
        let Self { cursor, position, reason, dead_ms, attempts, last, event } = self;
        let damaged = |what: &str| {
            let damaged = format!("the dead letter of {cursor} at {position} is damaged: {what}");
            io::Error::other(damaged)
        };
        let event = stored::decode(&Bytes::from(event));
        let event = event.map_err(|error| damaged(&error.to_string()))?;
        let known = DeadLetterReason::ALL.into_iter().find(|known| known.as_str() == reason);
        let reason = known.ok_or_else(|| damaged("no such reason"))?;
        let position = Position(position.unsigned_abs());
        Ok(DeadLetter {
            key: DeadLetterKey { cursor: CursorId(cursor.into()), position },
            event: Arc::new(event),
            reason,
            dead_ms: dead_ms.unsigned_abs(),
            tried: Tried { attempts, last: attempts_in(&last) },
        })
    }
}

/// Stores one, unless there is one under its key.
fn put(connection: &Connection, letter: &DeadLetter) -> rusqlite::Result<usize> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO dead_letters VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (cursor, position) DO NOTHING",
    )?;
    let DeadLetter { key, event, reason, dead_ms, tried } = letter;
    let Tried { attempts, last } = tried;
    let mut remembered = Vec::new();
    put_attempts(last, &mut remembered);
    let (position, dead_ms) = (signed(key.position.0), signed(*dead_ms));
    let event = whole(event);
    let reason = reason.as_str();
    insert.execute(params![&*key.cursor.0, position, reason, dead_ms, attempts, remembered, event])
}

/// The event as the log stores it.
pub(crate) fn whole(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::new();
    stored::encode_head(event, &mut bytes);
    bytes.extend_from_slice(&event.payload);
    bytes
}

fn attempts_in(bytes: &[u8]) -> Attempts {
    let mut fields = Fields(bytes);
    std::iter::from_fn(|| attempt(&mut fields)).collect()
}

/// A number as SQLite knows them; positions and times stay far below its largest.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
