//! Where objects lie: one SQLite file, one thread that writes it, a few connections that read it.
//!
//! Why so: a write is acknowledged only after it is synced, and a sync may take milliseconds. One
//! thread puts every waiting write into one transaction, so writers share the sync, and because it
//! is the only writer a write is a plain function from what is stored to what shall be stored: no
//! locks. What may take long is worked out before it is its turn ([`Draft`]). Objects stay in the
//! file, not in maps, so ten thousand of them cost disk.

mod draft;
mod layout;
mod open;
mod read;
mod ring;
mod room;
mod seal;
mod transaction;
mod writer;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};

pub use self::open::StoreError;
pub(crate) use self::{
    draft::Draft,
    read::{PageError, PageRequest},
    ring::{Event, EventKind, Overrun, Ring},
    room::Held,
    transaction::{Key, Stored, Transaction, serialised},
};
use crate::{limits, status::ApiError};

/// A piece of work for the writer: run in the transaction, then told whether it was committed.
type Job = Box<dyn FnOnce(&mut Transaction<'_>) -> Reply + Send>;

/// Gives the outcome to whoever asked; called after the commit, with the failure if it failed.
type Reply = Box<dyn FnOnce(Option<&ApiError>) + Send>;

/// The open store. Dropping it, or [`Store::close`], ends the writer after the queued writes.
pub(crate) struct Store {
    jobs: std::sync::Mutex<Option<mpsc::Sender<Job>>>,
    writer: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
    readers: Arc<Readers>,
    /// The places of the writes that are being worked out.
    drafts: Arc<Semaphore>,
    room: room::Room,
    shared: Arc<Shared>,
}

/// The connections that read, each with its permit.
struct Readers {
    idle: std::sync::Mutex<Vec<rusqlite::Connection>>,
    permits: Arc<Semaphore>,
}

/// What the writer publishes and everybody else follows.
pub(crate) struct Shared {
    /// The number of each resource in the file, by the resource's index.
    pub(crate) ids: Vec<i64>,
    /// Whether the bodies of each resource lie sealed, by the resource's index.
    sealed: Vec<bool>,
    seal: seal::Seal,
    /// Recent changes, a ring for each resource, by the resource's index.
    pub(crate) rings: Vec<Arc<Ring>>,
    /// Up to which revision the rings are complete.
    pub(crate) published: watch::Sender<u64>,
    /// Rung when a change may have left something to collect.
    pub(crate) collect: Notify,
}

impl Shared {
    /// The bytes that lie in the file for a body.
    fn close(&self, key: &Key, body: &Bytes) -> Result<Bytes, ApiError> {
        match self.is_sealed(key.resource) {
            false => Ok(body.clone()),
            true => {
                let sealed = self.seal.seal(&seal::place(&key.namespace, &key.name), body)?;
                Ok(sealed.into())
            }
        }
    }

    /// The body whose bytes lie in the file.
    fn open(
        &self,
        resource: usize,
        (namespace, name): (&str, &str),
        bytes: Vec<u8>,
    ) -> Result<Bytes, ApiError> {
        match self.is_sealed(resource) {
            false => Ok(bytes.into()),
            true => Ok(self.seal.open(&seal::place(namespace, name), &bytes)?.into()),
        }
    }

    fn is_sealed(&self, resource: usize) -> bool {
        self.sealed.get(resource).copied().unwrap_or_default()
    }
}

impl Store {
    /// Runs `work` in the writer's next transaction and returns its result once that is synced.
    /// An error from `work` undoes what it had written, and nothing else.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Transaction<'_>) -> Result<T, ApiError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let outcome = transaction.attempt(work);
            Box::new(move |failure| {
                // A client that has gone does not want the answer: that is no fault.
                let _gone = sender.send(match failure {
                    None => outcome,
                    Some(failure) => Err(failure.clone()),
                });
            })
        });
        let queue = lock(&self.jobs).clone().ok_or_else(ApiError::closing)?;
        queue.send(job).await.map_err(|_| ApiError::closing())?;
        receiver.await.map_err(|_| ApiError::closing())?
    }

    /// Runs `work` on a read-only connection, on a thread that may block.
    async fn read<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection, &Shared) -> Result<T, ApiError> + Send + 'static,
    {
        let permits = Arc::clone(&self.readers.permits);
        let permit = permits.acquire_owned().await.map_err(|_| ApiError::closing())?;
        let (readers, shared) = (Arc::clone(&self.readers), Arc::clone(&self.shared));
        let read = tokio::task::spawn_blocking(move || {
            let connection = lock(&readers.idle).pop().ok_or_else(ApiError::closing)?;
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&connection, &shared)));
            // Given back here and not by the asker, who may have gone meanwhile.
            lock(&readers.idle).push(connection);
            drop(permit);
            outcome.unwrap_or_else(|_| {
                Err(ApiError::internal("a defect in the server stopped this read".into()))
            })
        });
        read.await.map_err(|_| ApiError::closing())?
    }

    /// The ring of the resource with this index.
    pub(crate) fn ring(&self, resource: usize) -> Result<Arc<Ring>, ApiError> {
        let ring = self.shared.rings.get(resource).map(Arc::clone);
        ring.ok_or_else(|| ApiError::internal("no such resource".into()))
    }

    /// Follows the revision up to which every ring is complete.
    pub(crate) fn published(&self) -> watch::Receiver<u64> {
        self.shared.published.subscribe()
    }

    /// Waits until a change may have left something to collect.
    pub(crate) async fn wait_for_garbage(&self) {
        self.shared.collect.notified().await;
    }

    /// Lets the queued writes finish, ends the writer, and closes every connection.
    pub(crate) async fn close(&self) {
        let everyone = u32::try_from(limits::READERS).unwrap_or(u32::MAX);
        if let Ok(_read) = self.readers.permits.acquire_many(everyone).await {
            self.readers.permits.close();
            lock(&self.readers.idle).clear();
        }
        drop(lock(&self.jobs).take());
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer {
            let ended = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("the resource store's writer ended by a panic");
            }
        }
    }
}

/// Locks without fear of poison: what these locks guard is whole between any two statements.
fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How many jobs may wait for the writer before their senders wait too.
fn queue() -> (mpsc::Sender<Job>, mpsc::Receiver<Job>) {
    mpsc::channel(limits::WRITE_QUEUE)
}
