//! The one thread that writes: takes what waits, commits it together, tells the watchers, answers.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;

use super::{Job, Shared, transaction::Transaction};
use crate::{definition::Registry, limits, status::ApiError};

/// Owns the writing connection.
pub(super) struct Writer {
    connection: Connection,
    jobs: mpsc::Receiver<Job>,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    revision: u64,
    /// Set once the disk failed under a commit: what it holds is no longer known, so nothing more
    /// is acknowledged until the program starts again and reads what is there.
    poison: Option<ApiError>,
}

impl Writer {
    pub(super) fn new(
        connection: Connection,
        jobs: mpsc::Receiver<Job>,
        shared: Arc<Shared>,
        registry: Arc<Registry>,
        revision: u64,
    ) -> Self {
        Self { connection, jobs, shared, registry, revision, poison: None }
    }

    /// Works until every sender is gone and the queue is empty.
    pub(super) fn run(mut self) {
        let mut batch = Vec::with_capacity(limits::WRITE_BATCH);
        while let Some(job) = self.jobs.blocking_recv() {
            batch.push(job);
            while batch.len() < limits::WRITE_BATCH
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push(job);
            }
            self.commit(&mut batch);
        }
    }

    /// One transaction for all; the watchers know before the askers do.
    fn commit(&mut self, batch: &mut Vec<Job>) {
        let begun = match &self.poison {
            Some(poison) => Err(poison.clone()),
            None => self.connection.execute_batch("BEGIN IMMEDIATE").map_err(ApiError::from),
        };
        let mut transaction =
            Transaction::new(&self.connection, &self.registry, &self.shared, self.revision);
        let (mut replies, mut failure) = (Vec::with_capacity(batch.len()), begun.err());
        if let Some(failure) = &failure {
            transaction.fail(failure.clone());
        }
        replies.extend(batch.drain(..).map(|job| job(&mut transaction)));
        failure = failure.or_else(|| transaction.failure().cloned());
        let Transaction { revision, events, collect, .. } = transaction;
        if failure.is_none() {
            failure = self.seal(revision).err();
        }
        if failure.is_none() {
            self.revision = revision;
            for (resource, event) in events {
                if let Some(ring) = self.shared.rings.get(resource) {
                    ring.publish([event]);
                }
            }
            self.shared.published.send_replace(revision);
            if collect {
                self.shared.collect.notify_one();
            }
        }
        for reply in replies {
            reply(failure.as_ref());
        }
    }

    /// Writes the counter and commits; a commit that failed is rolled back.
    fn seal(&mut self, revision: u64) -> Result<(), ApiError> {
        let counted = if revision == self.revision {
            Ok(0)
        } else {
            self.connection
                .prepare_cached("UPDATE store SET revision = ?1")
                .and_then(|mut statement| statement.execute([revision.cast_signed()]))
        };
        let committed = counted.and_then(|_| self.connection.execute_batch("COMMIT"));
        committed.map_err(|error| {
            tracing::error!(%error, "the resource store could not commit");
            let broken = error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
            let failure = ApiError::from(error);
            if broken {
                self.poison = Some(failure.clone());
            }
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "the resource store could not roll back");
            }
            failure
        })
    }
}
