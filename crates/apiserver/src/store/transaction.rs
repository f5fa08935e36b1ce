//! What a write may do inside the writer's transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::ring::{Event, EventKind};
use crate::{definition::Registry, object, render, status::ApiError};

/// Where an object is: the resource's index, the namespace (empty for cluster-wide resources), the
/// name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) resource: usize,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// An object as it lies in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    id: i64,
    /// The object as JSON.
    pub(crate) body: Bytes,
}

impl Stored {
    /// The object.
    pub(crate) fn object(&self) -> Result<Value, ApiError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| ApiError::internal(format!("a stored object is not JSON: {error}")))
    }
}

/// The writer's open transaction.
pub(crate) struct Transaction<'c> {
    connection: &'c Connection,
    registry: &'c Registry,
    ids: &'c [i64],
    /// The revision of the last change.
    pub(super) revision: u64,
    /// Changes made so far, with the index of their resource.
    pub(super) events: Vec<(usize, Event)>,
    /// Whether one of them may have left something to collect.
    pub(super) collect: bool,
    failure: Option<ApiError>,
}

impl<'c> Transaction<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        registry: &'c Registry,
        ids: &'c [i64],
        revision: u64,
    ) -> Self {
        let events = Vec::new();
        let (collect, failure) = (false, None);
        Self { connection, registry, ids, revision, events, collect, failure }
    }

    /// Runs one piece of work so that its error or its panic leaves no trace.
    pub(super) fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let (revision, changes, collect) = (self.revision, self.events.len(), self.collect);
        self.run("SAVEPOINT work")?;
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_| {
            Err(ApiError::internal("a defect in the server stopped this write".into()))
        });
        if outcome.is_err() {
            self.revision = revision;
            self.events.truncate(changes);
            self.collect = collect;
            // SQLite ends the whole transaction by itself when the disk is full or fails.
            if self.connection.is_autocommit() {
                let failure = outcome.err().unwrap_or_else(ApiError::closing);
                self.failure = Some(failure.clone());
                return Err(failure);
            }
            self.run("ROLLBACK TO work")?;
        }
        self.run("RELEASE work")?;
        outcome
    }

    /// Nothing more is done: everything attempted from here on fails so.
    pub(super) fn fail(&mut self, failure: ApiError) {
        self.failure = Some(failure);
    }

    /// The fault that ended the transaction as a whole, if one did.
    pub(super) fn failure(&self) -> Option<&ApiError> {
        self.failure.as_ref()
    }

    /// The kinds that are served.
    pub(crate) fn registry(&self) -> &'c Registry {
        self.registry
    }

    /// The object at `key`.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Stored>, ApiError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, body FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
        )?;
        let found = statement
            .query_row(params![self.id(key)?, key.namespace, key.name], |row| {
                Ok(Stored { id: row.get(0)?, body: Bytes::from(row.get::<_, Vec<u8>>(1)?) })
            })
            .optional()?;
        Ok(found)
    }

    /// Stores a new object under the next revision; gives it as stored.
    pub(crate) fn insert(&mut self, key: &Key, object: &mut Value) -> Result<Bytes, ApiError> {
        let event = self.stamp(EventKind::Added, key, object, None)?;
        self.connection
            .prepare_cached(
                "INSERT INTO objects (resource, namespace, name, uid, deleting, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                self.id(key)?,
                key.namespace,
                key.name,
                object::uid(object),
                object::is_deleting(object),
                &event.body[..],
            ])?;
        self.own(self.connection.last_insert_rowid(), object)?;
        Ok(self.changed(key.resource, event))
    }

    /// Stores another state of an object under the next revision; gives it as stored.
    pub(crate) fn update(
        &mut self,
        key: &Key,
        before: &Stored,
        object: &mut Value,
    ) -> Result<Bytes, ApiError> {
        let event = self.stamp(EventKind::Modified, key, object, Some(before.body.clone()))?;
        let deleting = object::is_deleting(object);
        self.connection
            .prepare_cached("UPDATE objects SET deleting = ?2, body = ?3 WHERE id = ?1")?
            .execute(params![before.id, deleting, &event.body[..]])?;
        self.disown(before.id)?;
        self.own(before.id, object)?;
        self.collect |= deleting;
        Ok(self.changed(key.resource, event))
    }

    /// Removes an object; its last state is told to watchers under the next revision.
    pub(crate) fn remove(
        &mut self,
        key: &Key,
        before: &Stored,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        let event = self.stamp(EventKind::Deleted, key, object, Some(before.body.clone()))?;
        self.disown(before.id)?;
        self.connection
            .prepare_cached("DELETE FROM objects WHERE id = ?1")?
            .execute([before.id])?;
        let uid = object::uid(object);
        self.collect |= object::is_deleting(object) || !self.dependents(uid, 1)?.is_empty();
        self.changed(key.resource, event);
        Ok(())
    }

    /// At most `limit` objects that name `uid` as an owner.
    pub(crate) fn dependents(&self, uid: &str, limit: usize) -> Result<Vec<Key>, ApiError> {
        self.keys(
            "SELECT o.resource, o.namespace, o.name FROM owners w JOIN objects o ON o.id = w.object \
             WHERE w.uid = ?1 LIMIT ?2",
            params![uid, count(limit)],
        )
    }

    /// At most `limit` objects of which an owner of a served kind does not exist.
    pub(crate) fn orphans(&self, limit: usize) -> Result<Vec<Key>, ApiError> {
        self.keys(
            "SELECT DISTINCT o.resource, o.namespace, o.name FROM owners w \
             JOIN objects o ON o.id = w.object WHERE o.deleting = 0 \
             AND NOT EXISTS (SELECT 1 FROM objects p WHERE p.uid = w.uid) LIMIT ?1",
            params![count(limit)],
        )
    }

    /// At most `limit` objects that are being deleted, oldest first, from the `skip`-th on.
    pub(crate) fn deleting(&self, limit: usize, skip: usize) -> Result<Vec<Key>, ApiError> {
        self.keys(
            "SELECT resource, namespace, name FROM objects WHERE deleting = 1 \
             ORDER BY id LIMIT ?1 OFFSET ?2",
            params![count(limit), count(skip)],
        )
    }

    /// At most `limit` objects in a namespace that are not being deleted yet.
    pub(crate) fn within(&self, namespace: &str, limit: usize) -> Result<Vec<Key>, ApiError> {
        self.keys(
            "SELECT resource, namespace, name FROM objects \
             WHERE namespace = ?1 AND namespace <> '' AND deleting = 0 LIMIT ?2",
            params![namespace, count(limit)],
        )
    }

    /// Whether nothing is left in a namespace.
    pub(crate) fn is_empty(&self, namespace: &str) -> Result<bool, ApiError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM objects WHERE namespace = ?1 AND namespace <> '')",
        )?;
        Ok(statement.query_row([namespace], |row| row.get(0))?)
    }

    /// Whether an object with this uid exists.
    pub(crate) fn lives(&self, uid: &str) -> Result<bool, ApiError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM objects WHERE uid = ?1)")?;
        Ok(statement.query_row([uid], |row| row.get(0))?)
    }

    /// Objects of resources that this program no longer serves are left out: nobody can name them.
    fn keys(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<Vec<Key>, ApiError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(parameters)?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if let Some(resource) = self.ids.iter().position(|known| *known == id) {
                keys.push(Key { resource, namespace: row.get(1)?, name: row.get(2)? });
            }
        }
        Ok(keys)
    }

    fn id(&self, key: &Key) -> Result<i64, ApiError> {
        let id = self.ids.get(key.resource).copied();
        id.ok_or_else(|| ApiError::internal("no such resource".into()))
    }

    /// Gives the object the next revision and serialises the line that every watcher gets.
    fn stamp(
        &mut self,
        kind: EventKind,
        key: &Key,
        object: &mut Value,
        before: Option<Bytes>,
    ) -> Result<Event, ApiError> {
        self.revision += 1;
        object::set_revision(object, self.revision);
        let object = serde_json::to_vec(object).map_err(|error| {
            ApiError::internal(format!("an object does not serialise: {error}"))
        })?;
        let line = render::line(kind.as_str(), &object);
        let end = line.len() - render::LINE_TAIL;
        let body = line.slice(end - object.len()..end);
        let (namespace, name) = (key.namespace.as_str().into(), key.name.as_str().into());
        Ok(Event { revision: self.revision, kind, namespace, name, line, body, before })
    }

    fn changed(&mut self, resource: usize, event: Event) -> Bytes {
        let body = event.body.clone();
        self.events.push((resource, event));
        body
    }

    /// Notes the owners of served kinds; one that does not exist is the collector's business.
    fn own(&mut self, id: i64, object: &Value) -> Result<(), ApiError> {
        for reference in object::owners(object) {
            if !self.registry.serves(reference.group, reference.kind) {
                continue;
            }
            self.connection
                .prepare_cached("INSERT OR IGNORE INTO owners (uid, object) VALUES (?1, ?2)")?
                .execute(params![reference.uid, id])?;
            self.collect |= !self.lives(reference.uid)?;
        }
        Ok(())
    }

    fn disown(&self, id: i64) -> Result<(), ApiError> {
        self.connection.prepare_cached("DELETE FROM owners WHERE object = ?1")?.execute([id])?;
        Ok(())
    }

    fn run(&self, sql: &str) -> Result<(), ApiError> {
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
