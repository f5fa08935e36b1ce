//! Events that wait in the vault until they are due.
//!
//! Each has a number that is never used twice. From it comes the hash under which an event is
//! stored that has no id of its own: so it is stored once, however often that is tried.

use std::collections::HashSet;
use std::io;

use bytes::Bytes;
use eventbus_core::wire::stored;
use eventbus_core::{Event, limits};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Vault, signed};
use crate::bytes::{LogId, record};
use crate::delays::Delay;
use crate::disk::Access;

/// How much waits, and for when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) events: u64,
    /// Bytes of the events as stored.
    pub(crate) bytes: u64,
    /// When the first of them is due.
    pub(crate) next_due_ms: Option<u64>,
}

/// What became of an event that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Fresh,
    /// One of its id waits already.
    Repeat,
    /// There is no room for it.
    Full,
}

/// An event whose time has come.
pub(crate) struct Due {
    pub(crate) key: DelayedKey,
    /// Or what is wrong with it.
    pub(crate) event: Result<Event, String>,
    /// Bytes of the event as stored.
    pub(crate) bytes: usize,
}

/// Which event that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DelayedKey {
    pub(crate) number: i64,
    /// [`Event::deduplication_hash`] where its publisher gave it an id.
    pub(crate) id: Option<u128>,
}

impl DelayedKey {
    /// The hash under which it is stored in `log`. A log's identity is drawn at random, so what
    /// follows it is no hash of an id.
    pub(crate) fn hash(self, log: LogId) -> u128 {
        self.id.unwrap_or(log.0.wrapping_add(u128::from(self.number.unsigned_abs())))
    }

    /// The first two columns.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let id: Option<[u8; 16]> = row.get(1)?;
        Ok(Self { number: row.get(0)?, id: id.map(u128::from_le_bytes) })
    }
}

impl Vault {
    /// How much waits. Reads the whole index.
    pub(crate) fn waiting(&self) -> io::Result<Waiting> {
        let select = "SELECT count(*), coalesce(sum(bytes), 0), min(due_ms) FROM delayed_events";
        let waiting = self.look(|connection| {
            connection.query_row(select, [], |row| {
                let (events, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
                let next_due_ms = row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs);
                let (events, bytes) = (events.unsigned_abs(), bytes.unsigned_abs());
                Ok(Waiting { events, bytes, next_due_ms })
            })
        })?;
        Ok(waiting.unwrap_or_default())
    }

    /// The ids of those that have one. Reads the whole index of ids.
    pub(crate) fn ids(&self) -> io::Result<HashSet<u128>> {
        let select = "SELECT id_hash FROM delayed_events WHERE id_hash IS NOT NULL";
        let ids = self.look(|connection| {
            let mut select = connection.prepare(select)?;
            select.query_map([], |row| row.get(0).map(u128::from_le_bytes))?.collect()
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// Those that have been due at `ms`, and when.
    pub(crate) fn due_until(&self, ms: u64) -> io::Result<Vec<(DelayedKey, u64)>> {
        let select = "SELECT number, id_hash, due_ms FROM delayed_events WHERE due_ms <= ?1";
        let keys = self.look(|connection| {
            let mut select = connection.prepare_cached(select)?;
            let read =
                |row: &Row<'_>| Ok((DelayedKey::read(row)?, row.get::<_, i64>(2)?.unsigned_abs()));
            select.query_map([signed(ms)], read)?.collect()
        })?;
        Ok(keys.unwrap_or_default())
    }

    /// Those due at `now_ms`, the first ones first: as many as take `room` bytes in a segment, or
    /// one.
    pub(crate) fn due(&self, now_ms: u64, mut room: usize) -> io::Result<Vec<Due>> {
        let select = "SELECT number, id_hash, event FROM delayed_events WHERE due_ms <= ?1 \
                      ORDER BY due_ms, number LIMIT ?2";
        let due = self.look(|connection| {
            let mut select = connection.prepare_cached(select)?;
            let mut rows = select.query(params![signed(now_ms), limits::DUE_EVENTS as i64])?;
            let mut due = Vec::new();
            while let Some(row) = rows.next()? {
                let event = Bytes::from(row.get::<_, Vec<u8>>(2)?);
                let taken = record::size(event.len());
                if taken > room && !due.is_empty() {
                    break;
                }
                room = room.saturating_sub(taken);
                let (key, bytes) = (DelayedKey::read(row)?, event.len());
                let event = stored::decode(&event).map_err(|error| error.to_string());
                due.push(Due { key, event, bytes });
            }
            Ok(due)
        })?;
        Ok(due.unwrap_or_default())
    }

    /// Keeps those of which none waits yet, as far as there is room; durable when it returns.
    /// `waiting` is told of them.
    pub(crate) fn keep(&self, turn: &[Delay], waiting: &mut Waiting) -> io::Result<Vec<Kept>> {
        if turn.is_empty() {
            return Ok(Vec::new());
        }
        let _open = self.held_open()?;
        let mut after = *waiting;
        let kept = self.disk.vault(Access::Write)?.change(|connection| {
            let transaction = connection.transaction()?;
            let kept = turn.iter().map(|delay| keep(&transaction, delay, &mut after));
            let kept = kept.collect::<rusqlite::Result<_>>()?;
            transaction.commit()?;
            Ok(kept)
        })?;
        *waiting = after;
        Ok(kept)
    }

    /// Forgets those that are stored, `bytes` of them; durable when it returns.
    pub(crate) fn remove_stored(
        &self,
        stored: &[DelayedKey],
        waiting: &mut Waiting,
    ) -> io::Result<()> {
        self.change(waiting, |transaction, waiting| {
            let delete = "DELETE FROM delayed_events WHERE number = ?1 RETURNING bytes";
            let mut delete = transaction.prepare_cached(delete)?;
            for key in stored {
                let removed = delete.query_row([key.number], |row| row.get::<_, i64>(0));
                if let Some(bytes) = removed.optional()? {
                    waiting.events = waiting.events.saturating_sub(1);
                    waiting.bytes = waiting.bytes.saturating_sub(bytes.unsigned_abs());
                }
            }
            Ok(())
        })
    }

    /// Lets these wait until `due_ms`.
    pub(crate) fn postpone(
        &self,
        these: &[DelayedKey],
        due_ms: u64,
        waiting: &mut Waiting,
    ) -> io::Result<()> {
        self.change(waiting, |transaction, _| {
            let update = "UPDATE delayed_events SET due_ms = ?2 WHERE number = ?1";
            let mut update = transaction.prepare_cached(update)?;
            for key in these {
                update.execute(params![key.number, signed(due_ms)])?;
            }
            Ok(())
        })
    }

    /// Does `work` in a transaction, and sees who is due next.
    fn change(
        &self,
        waiting: &mut Waiting,
        work: impl FnOnce(&Transaction<'_>, &mut Waiting) -> rusqlite::Result<()>,
    ) -> io::Result<()> {
        let _open = self.held_open()?;
        let mut after = *waiting;
        self.disk.vault(Access::Write)?.look(|connection| {
            let transaction = connection.transaction()?;
            work(&transaction, &mut after)?;
            let next = "SELECT min(due_ms) FROM delayed_events";
            let next = transaction.query_row(next, [], |row| row.get::<_, Option<i64>>(0))?;
            after.next_due_ms = next.map(i64::unsigned_abs);
            transaction.commit()
        })?;
        *waiting = after;
        Ok(())
    }
}

/// Keeps one, unless one of its id waits or there is no room.
fn keep(connection: &Connection, delay: &Delay, waiting: &mut Waiting) -> rusqlite::Result<Kept> {
    let bytes = delay.event.len() as u64;
    let is_full =
        waiting.events >= limits::DELAYED_EVENTS || waiting.bytes + bytes > limits::DELAYED_BYTES;
    if is_full {
        return Ok(Kept::Full);
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO delayed_events (id_hash, due_ms, bytes, event) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (id_hash) DO NOTHING",
    )?;
    let id = delay.id.map(u128::to_le_bytes);
    let is_new = insert.execute(params![id, signed(delay.due_ms), signed(bytes), delay.event])?;
    if is_new == 0 {
        return Ok(Kept::Repeat);
    }
    waiting.events += 1;
    waiting.bytes += bytes;
    let next_due_ms = waiting.next_due_ms.map_or(delay.due_ms, |next| next.min(delay.due_ms));
    waiting.next_due_ms = Some(next_due_ms);
    Ok(Kept::Fresh)
}
