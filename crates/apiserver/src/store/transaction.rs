//! What a write may do inside the writer's transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::{
    Shared,
    ring::{Event, EventKind},
};
use crate::{
    definition::{Registry, Resource},
    limits, object, render,
    status::ApiError,
};

/// Where an object is: the resource's index, the namespace (empty for cluster-wide resources), the
/// name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Key {
    pub(crate) resource: usize,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    /// Where an object of this resource belongs.
    pub(crate) fn of(resource: &Resource, object: &Value) -> Self {
        let namespace = object::text(object, "namespace").into();
        Self { resource: resource.index, namespace, name: object::name(object).into() }
    }
}

/// How far an object's deletion is, as the table holds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Deletion {
    No = 0,
    Held = 1,
    Pending = 2,
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
        object::read(&self.body)
    }
}

/// The writer's open transaction.
pub(crate) struct Transaction<'c> {
    connection: &'c Connection,
    registry: &'c Registry,
    shared: &'c Shared,
    /// The numbers of the resources, as SQL lists them.
    served: String,
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
        shared: &'c Shared,
        revision: u64,
    ) -> Self {
        let served = shared.ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let events = Vec::new();
        let (collect, failure) = (false, None);
        Self { connection, registry, shared, served, revision, events, collect, failure }
    }

    /// Runs one piece of work so that its error or its panic leaves no trace.
    pub(crate) fn attempt<T>(
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
    pub(crate) fn failure(&self) -> Option<&ApiError> {
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
            .query_row(params![self.id(key.resource)?, key.namespace, key.name], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        found
            .map(|(id, bytes)| {
                let place = (key.namespace.as_str(), key.name.as_str());
                Ok(Stored { id, body: self.shared.open(key.resource, place, bytes)? })
            })
            .transpose()
    }

    /// Stores a new object under the next revision; gives it as stored.
    pub(crate) fn insert(&mut self, key: &Key, object: &mut Value) -> Result<Bytes, ApiError> {
        let event = self.stamp(EventKind::Added, key, object, None)?;
        let bytes = self.shared.close(key, &event.body)?;
        self.connection
            .prepare_cached(
                "INSERT INTO objects (resource, namespace, name, uid, deletion, body) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                self.id(key.resource)?,
                key.namespace,
                key.name,
                object::uid(object),
                self.deletion(key, object) as u8,
                &bytes[..],
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
        let deletion = self.deletion(key, object);
        let bytes = self.shared.close(key, &event.body)?;
        self.connection
            .prepare_cached("UPDATE objects SET deletion = ?2, body = ?3 WHERE id = ?1")?
            .execute(params![before.id, deletion as u8, &bytes[..]])?;
        self.disown(before.id)?;
        self.own(before.id, object)?;
        self.collect |= deletion == Deletion::Pending;
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
        let select = "JOIN owners w ON w.object = o.id WHERE w.uid = ?1";
        self.keys(select, "LIMIT ?2", params![uid, count(limit)])
    }

    /// At most `limit` objects of which an owner of a served kind does not exist, oldest first,
    /// from the `skip`-th on.
    pub(crate) fn orphans(&self, limit: usize, skip: usize) -> Result<Vec<Key>, ApiError> {
        let select = "JOIN owners w ON w.object = o.id WHERE o.deletion = 0 \
                      AND NOT EXISTS (SELECT 1 FROM objects p WHERE p.uid = w.uid)";
        let order = "GROUP BY o.id ORDER BY o.id LIMIT ?1 OFFSET ?2";
        self.keys(select, order, params![count(limit), count(skip)])
    }

    /// At most `limit` of these that are not being deleted yet.
    pub(crate) fn staying_dependents(&self, uid: &str, limit: usize) -> Result<Vec<Key>, ApiError> {
        let select = "JOIN owners w ON w.object = o.id WHERE w.uid = ?1 AND o.deletion = 0";
        self.keys(select, "LIMIT ?2", params![uid, count(limit)])
    }

    /// Whether the foreground deletion of an object waits for dependents; what owns itself does
    /// not wait for itself.
    pub(crate) fn is_blocked(&self, uid: &str) -> Result<bool, ApiError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM owners w JOIN objects o ON o.id = w.object \
             WHERE w.uid = ?1 AND w.blocks = 1 AND o.uid <> ?1)",
        )?;
        Ok(statement.query_row([uid], |row| row.get(0))?)
    }

    /// At most `limit` objects whose deletion waits for what the collector does, oldest first, from
    /// the `skip`-th on.
    pub(crate) fn pending(&self, limit: usize, skip: usize) -> Result<Vec<Key>, ApiError> {
        let bounds = params![count(limit), count(skip)];
        self.keys("WHERE o.deletion = 2", "ORDER BY o.id LIMIT ?1 OFFSET ?2", bounds)
    }

    /// At most `limit` objects in a namespace that are not being deleted yet.
    pub(crate) fn within(&self, namespace: &str, limit: usize) -> Result<Vec<Key>, ApiError> {
        let select = "WHERE o.namespace = ?1 AND o.namespace <> '' AND o.deletion = 0";
        self.keys(select, "LIMIT ?2", params![namespace, count(limit)])
    }

    /// All but the newest `keep` objects of the resource and in the namespace of `like`.
    pub(crate) fn surplus(&self, like: &Key, keep: usize) -> Result<Vec<Key>, ApiError> {
        let select = "WHERE o.resource = ?1 AND o.namespace = ?2";
        let order = "ORDER BY o.id DESC LIMIT -1 OFFSET ?3";
        self.keys(select, order, params![self.id(like.resource)?, like.namespace, count(keep)])
    }

    /// At most `limit` events that happened last before `oldest`. One that claims to be of later
    /// than `now` is as old as it lies here.
    pub(crate) fn expired(
        &self,
        resource: usize,
        [oldest, now]: [&str; 2],
        limit: usize,
    ) -> Result<Vec<Key>, ApiError> {
        let last = "json_extract(CAST(o.body AS TEXT), '$.lastTimestamp')";
        let made = "json_extract(CAST(o.body AS TEXT), '$.metadata.creationTimestamp')";
        let select = format!(
            "WHERE o.resource = ?1 AND ?2 > CASE WHEN {last} <= ?3 THEN {last} ELSE {made} END"
        );
        self.keys(&select, "LIMIT ?4", params![self.id(resource)?, oldest, now, count(limit)])
    }

    /// Whether nothing is left in a namespace. What this program no longer serves, nobody could
    /// delete: it is forgotten here.
    pub(crate) fn empty(&self, namespace: &str) -> Result<bool, ApiError> {
        let left = "SELECT EXISTS (SELECT 1 FROM objects o \
                    WHERE o.namespace = ?1 AND o.namespace <> '' AND o.resource IN";
        let mut statement =
            self.connection.prepare_cached(&format!("{left} ({}))", self.served))?;
        if statement.query_row([namespace], |row| row.get(0))? {
            return Ok(false);
        }
        let unserved = "SELECT id FROM objects WHERE namespace = ?1 AND namespace <> ''";
        for delete in ["DELETE FROM owners WHERE object IN", "DELETE FROM objects WHERE id IN"] {
            let sql = format!("{delete} ({unserved})");
            self.connection.prepare_cached(&sql)?.execute([namespace])?;
        }
        Ok(true)
    }

    /// Whether an object with this uid exists.
    pub(crate) fn lives(&self, uid: &str) -> Result<bool, ApiError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM objects WHERE uid = ?1)")?;
        Ok(statement.query_row([uid], |row| row.get(0))?)
    }

    /// Where the selected objects are, of the resources served: nobody could name others.
    fn keys(
        &self,
        select: &str,
        order: &str,
        parameters: impl rusqlite::Params,
    ) -> Result<Vec<Key>, ApiError> {
        let sql = format!(
            "SELECT o.resource, o.namespace, o.name FROM objects o {select} \
             AND o.resource IN ({}) {order}",
            self.served
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(parameters)?;
        let mut keys = Vec::new();
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            if let Some(resource) = self.shared.ids.iter().position(|known| *known == id) {
                keys.push(Key { resource, namespace: row.get(1)?, name: row.get(2)? });
            }
        }
        Ok(keys)
    }

    fn id(&self, resource: usize) -> Result<i64, ApiError> {
        let id = self.shared.ids.get(resource).copied();
        id.ok_or_else(|| ApiError::internal("no such resource".into()))
    }

    fn deletion(&self, key: &Key, object: &Value) -> Deletion {
        if !object::is_deleting(object) {
            return Deletion::No;
        }
        let is_namespace = self.registry.at(key.resource).is_some_and(|at| at.is_namespace());
        match object::texts(object, "finalizers").contains(&object::FOREGROUND) || is_namespace {
            true => Deletion::Pending,
            false => Deletion::Held,
        }
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
        let object = serialised(object)?;
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
                .prepare_cached("INSERT OR REPLACE INTO owners VALUES (?1, ?2, ?3)")?
                .execute(params![reference.uid, id, reference.blocks])?;
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

/// The object as it lies in the store, if it is not too large for it.
pub(crate) fn serialised(object: &Value) -> Result<Bytes, ApiError> {
    let bytes = serde_json::to_vec(object)
        .map_err(|error| ApiError::internal(format!("an object does not serialise: {error}")))?;
    // What goes must be able to: its deletion is noted in it.
    let room = if object::is_deleting(object) { limits::DELETION_BYTES } else { 0 };
    match bytes.len() > limits::OBJECT_BYTES + room {
        true => Err(ApiError::too_large(limits::OBJECT_BYTES)),
        false => Ok(bytes.into()),
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::store::Store;

    fn namespace(name: &str, text: &str) -> (Key, Value) {
        let key = Key { resource: 0, namespace: String::new(), name: name.into() };
        let object = json!({ "metadata": { "name": name, "uid": name }, "text": text });
        (key, object)
    }

    async fn insert(store: &Store, name: &str, text: &str) -> Result<u64, ApiError> {
        let (key, mut object) = namespace(name, text);
        store
            .write(move |transaction| {
                transaction.insert(&key, &mut object)?;
                Ok(transaction.revision)
            })
            .await
    }

    fn open(folder: &tempfile::TempDir) -> Store {
        let registry = Registry::read(&[]).unwrap();
        let entropy = Arc::new(eventbus_core::testing::SeededEntropy::new(1));
        Store::open(&folder.path().join("resources.db"), Arc::new(registry), entropy).unwrap()
    }

    #[tokio::test]
    async fn a_failing_write_leaves_nothing_and_its_neighbours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let fails = |name: &'static str, panics: bool| {
            store.write(move |transaction| -> Result<(), ApiError> {
                let (key, mut object) = namespace(name, "");
                transaction.insert(&key, &mut object)?;
                assert!(!panics, "a defect");
                Err(ApiError::bad_request("no"))
            })
        };
        let (one, two, three, four) = tokio::join!(
            insert(&store, "one", ""),
            fails("two", false),
            fails("three", true),
            insert(&store, "four", ""),
        );
        assert_eq!((one.unwrap(), four.unwrap()), (2, 3));
        assert_eq!(two.unwrap_err().code(), 400);
        assert_eq!(three.unwrap_err().code(), 500);
        for (name, there) in [("one", true), ("two", false), ("three", false), ("four", true)] {
            let found = store.get(namespace(name, "").0).await.unwrap();
            assert_eq!(found.is_some(), there, "{name}");
        }
        let events = store.ring(0).unwrap().after(1, usize::MAX).unwrap();
        assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [2, 3]);
        store.close().await;
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_recovers() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let bound = |pages: u32| {
            store.write(move |transaction| {
                transaction.connection.pragma_update(None, "max_page_count", pages)?;
                Ok(())
            })
        };
        bound(40).await.unwrap();
        let text = "x".repeat(3000);
        let (mut stored, mut refused) = (0, 0);
        for number in 0..60 {
            match insert(&store, &format!("n{number}"), &text).await {
                Ok(revision) => {
                    stored += 1;
                    assert_eq!(revision, stored + 1);
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.code(), 500);
                }
            }
        }
        assert!(stored > 10 && refused > 10, "{stored} stored, {refused} refused");
        bound(1000).await.unwrap();
        assert_eq!(insert(&store, "after", &text).await.unwrap(), stored + 2);
        store.close().await;
        drop(store);
        let store = open(&folder);
        assert!(store.get(namespace("after", "").0).await.unwrap().is_some());
        assert_eq!(insert(&store, "last", &text).await.unwrap(), stored + 3);
        store.close().await;
    }

    #[tokio::test]
    async fn readers_that_give_up_give_their_connection_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        insert(&store, "one", "").await.unwrap();
        for _ in 0..50 {
            let read = store.get(namespace("one", "").0);
            // Polled once, so that the reading has begun, then dropped.
            assert!(futures::poll!(Box::pin(read)).is_pending());
        }
        for _ in 0..10 {
            assert!(store.get(namespace("one", "").0).await.unwrap().is_some());
        }
        store.close().await;
    }
}
