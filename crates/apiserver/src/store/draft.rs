//! Writes that are worked out before it is the writer's turn.
//!
//! What a patch makes of an object may be much work, and everybody who writes waits for the one
//! thread that does. So it is worked out beside it, from the object as it was read; the writer only
//! looks whether the object is still the same, and keeps what was worked out.

use std::sync::Arc;

use bytes::Bytes;

use super::{Key, Store, Stored, Transaction};
use crate::{limits, status::ApiError};

/// What comes of an object that was read.
pub(crate) enum Draft<T> {
    /// An answer: nothing is to be written.
    Answer(T),
    /// What the writer does with the object, if it is still the same.
    Write(Write<T>),
}

/// A piece of work for the writer, which is given the object as it lies in the store.
type Write<T> = Box<dyn FnOnce(&mut Transaction<'_>, Option<Stored>) -> Result<T, ApiError> + Send>;

impl<T> Draft<T> {
    /// Something to write.
    pub(crate) fn write<W>(work: W) -> Self
    where
        W: FnOnce(&mut Transaction<'_>, Option<Stored>) -> Result<T, ApiError> + Send + 'static,
    {
        Self::Write(Box::new(work))
    }

    /// The same, whose answer has this with it.
    pub(crate) fn with<W: Send + 'static>(self, with: W) -> Draft<(T, W)>
    where
        T: 'static,
    {
        match self {
            Self::Answer(answer) => Draft::Answer((answer, with)),
            Self::Write(write) => Draft::write(move |transaction, stored| {
                write(transaction, stored).map(|answer| (answer, with))
            }),
        }
    }
}

impl Store {
    /// Works out by `draft` what becomes of the object at `key`, or of none there, and does it. An
    /// object that somebody else changes meanwhile is looked at anew; one that changes all the
    /// time, in the writer's own turn at last.
    pub(crate) async fn revise<T, D>(&self, key: Key, draft: D) -> Result<T, ApiError>
    where
        T: Send + 'static,
        D: Fn(Option<&Bytes>) -> Result<Draft<T>, ApiError> + Send + Sync + 'static,
    {
        let draft = Arc::new(draft);
        for _ in 0..limits::DRAFT_TRIES {
            let seen = self.get(key.clone()).await?;
            let write = match self.work_out(&draft, seen.clone()).await? {
                Draft::Answer(answer) => return Ok(answer),
                Draft::Write(write) => write,
            };
            let at = key.clone();
            let written = self.write(move |transaction| {
                let stored = transaction.get(&at)?;
                // A body tells its version.
                let is_same = stored.as_ref().map(|stored| &stored.body) == seen.as_ref();
                is_same.then(|| write(transaction, stored)).transpose()
            });
            if let Some(written) = written.await? {
                return Ok(written);
            }
        }
        self.write(move |transaction| {
            let stored = transaction.get(&key)?;
            match draft(stored.as_ref().map(|stored| &stored.body))? {
                Draft::Answer(answer) => Ok(answer),
                Draft::Write(write) => write(transaction, stored),
            }
        })
        .await
    }

    /// Runs `draft` on a thread that may work for long.
    async fn work_out<T, D>(
        &self,
        draft: &Arc<D>,
        seen: Option<Bytes>,
    ) -> Result<Draft<T>, ApiError>
    where
        T: Send + 'static,
        D: Fn(Option<&Bytes>) -> Result<Draft<T>, ApiError> + Send + Sync + 'static,
    {
        let drafts = Arc::clone(&self.drafts);
        let permit = drafts.acquire_owned().await.map_err(|_| ApiError::closing())?;
        let draft = Arc::clone(draft);
        let work = tokio::task::spawn_blocking(move || {
            let outcome = draft(seen.as_ref());
            drop(permit);
            outcome
        });
        work.await.map_err(|error| match error.is_panic() {
            true => ApiError::internal("a defect in the server stopped this write".into()),
            false => ApiError::closing(),
        })?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use serde_json::{Value, json};

    use super::*;
    use crate::{definition::Registry, object};

    fn open(folder: &tempfile::TempDir) -> Store {
        let registry = Registry::read(&[]).unwrap();
        let entropy = Arc::new(eventbus_core::testing::SeededEntropy::new(1));
        Store::open(&folder.path().join("resources.db"), Arc::new(registry), entropy).unwrap()
    }

    fn key() -> Key {
        Key { resource: 0, namespace: String::new(), name: "one".into() }
    }

    fn counted(seen: Option<&Bytes>) -> u64 {
        seen.map_or(0, |body| object::read(body).unwrap()["count"].as_u64().unwrap())
    }

    /// The object with one more count than was seen.
    fn count_on(seen: Option<&Bytes>) -> Draft<u64> {
        let count = counted(seen) + 1;
        Draft::write(move |transaction, stored| {
            let mut object: Value =
                json!({ "metadata": { "name": "one", "uid": "one" }, "count": count });
            match stored {
                Some(stored) => transaction.update(&key(), &stored, &mut object)?,
                None => transaction.insert(&key(), &mut object)?,
            };
            Ok(count)
        })
    }

    #[tokio::test]
    async fn what_changed_meanwhile_is_looked_at_anew_and_at_last_in_the_writers_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        for disturbed in 0..=limits::DRAFT_TRIES {
            let before = counted(store.get(key()).await.unwrap().as_ref());
            let (looks, looked) = mpsc::sync_channel(1);
            let (go_on, may_go_on) = mpsc::sync_channel(1);
            let (may_go_on, tries) = (Mutex::new(may_go_on), Arc::new(AtomicUsize::new(0)));
            let tried = Arc::clone(&tries);
            let slow = store.revise(key(), move |seen| {
                if tried.fetch_add(1, Ordering::SeqCst) < disturbed {
                    looks.send(()).unwrap();
                    may_go_on.lock().unwrap().recv().unwrap();
                }
                Ok(count_on(seen))
            });
            let others = async {
                let mut looked = Some(looked);
                for _ in 0..disturbed {
                    let waiting = looked.take().unwrap();
                    let waits = move || waiting.recv().map(|()| waiting).unwrap();
                    looked = Some(tokio::task::spawn_blocking(waits).await.unwrap());
                    store.revise(key(), |seen| Ok(count_on(seen))).await.unwrap();
                    go_on.send(()).unwrap();
                }
            };
            let (slow, ()) = tokio::join!(slow, others);
            assert_eq!(slow.unwrap(), before + disturbed as u64 + 1);
            assert_eq!(tries.load(Ordering::SeqCst), disturbed + 1);
        }
        store.close().await;
    }

    #[tokio::test]
    async fn an_answer_writes_nothing_and_a_defect_is_one_request_s() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder);
        let answered = store.revise(key(), |seen| Ok(Draft::Answer(seen.is_none())));
        assert!(answered.await.unwrap());
        let broken = store.revise(key(), |_| -> Result<Draft<()>, ApiError> { panic!("a defect") });
        assert_eq!(broken.await.unwrap_err().code(), 500);
        assert!(store.get(key()).await.unwrap().is_none());
        assert_eq!(store.revise(key(), |seen| Ok(count_on(seen))).await.unwrap(), 1);
        store.close().await;
    }
}
