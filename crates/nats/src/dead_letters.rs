//! Events that were given up: one message each, under a subject of its own.

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_nats::{HeaderMap, Message};
use eventbus_core::broker::CursorId;
use eventbus_core::dead_letters::{DeadLetterError, DeadLetterKey};
use eventbus_core::delivery::{DeadLetterReason, Tried};
use eventbus_core::{DeadLetter, DeadLetters, Position, Stored};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::{ApiError, code};
use crate::shared::Shared;
use crate::{stored, streams, subject, survey};

/// The header that says why an event was given up, and what was tried.
const OBITUARY: &str = "Eventbus-Dead-Letter";

/// What is known of the end of an event.
#[derive(Serialize, Deserialize)]
pub(crate) struct Obituary {
    reason: String,
    dead_ms: u64,
    #[serde(flatten)]
    tried: Tried,
}

impl Obituary {
    pub(crate) fn new(reason: DeadLetterReason, dead_ms: u64, tried: Tried) -> Self {
        Self { reason: reason.as_str().to_owned(), dead_ms, tried }
    }
}

/// Stores an event that was given up; once, however often. Tells whether this was the first time.
pub(crate) async fn put(
    shared: &Shared,
    consumer: &str,
    stored: &Stored,
    obituary: &Obituary,
) -> Result<bool, ApiError> {
    let mut headers = HeaderMap::new();
    let head = stored::headers(&stored.event);
    if let Some(head) = head.get(stored::HEAD.clone()) {
        headers.insert(stored::HEAD.clone(), head.clone());
    }
    let text = serde_json::to_string(obituary).map_err(|e| ApiError::Away(e.to_string()))?;
    headers.insert(OBITUARY, text);
    headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
    let subject = subject::dead(consumer, stored.position);
    match shared.api.publish(subject, headers, stored.event.payload.clone()).await {
        Err(error) if error.is(code::WRONG_LAST_SEQUENCE) => Ok(false),
        stored => stored.map(|_| true),
    }
}

/// The dead letters on the server.
pub(crate) struct NatsDeadLetters(pub(crate) Arc<Shared>);

impl NatsDeadLetters {
    /// The positions of a cursor's dead letters, in order.
    async fn positions(&self, of: &CursorId) -> Result<Vec<Position>, ApiError> {
        let filter = format!("dead.{}.*", subject::consumer(of));
        let subjects = survey::subjects(&self.0, streams::DEAD, &filter).await?;
        let positions = subjects.iter().filter_map(|subject| subject::position(subject));
        let mut positions: Vec<_> = positions.collect();
        positions.sort_unstable();
        Ok(positions)
    }

    async fn one(&self, key: DeadLetterKey) -> Result<Option<DeadLetter>, ApiError> {
        let subject = subject::dead(&subject::consumer(&key.cursor), key.position);
        let wanted = json!({ "last_by_subj": subject });
        let found = self.0.api.get(streams::DEAD, &wanted).await?;
        found.map(|message| read(key, message)).transpose().map_err(ApiError::Away)
    }
}

fn read(key: DeadLetterKey, message: Message) -> Result<DeadLetter, String> {
    let text = message.headers.as_ref().and_then(|headers| headers.get(OBITUARY));
    let text = text.ok_or_else(|| format!("it has no header {OBITUARY}"))?;
    let obituary: Obituary =
        serde_json::from_str(text.as_str()).map_err(|error| error.to_string())?;
    let reason = DeadLetterReason::ALL.into_iter().find(|one| one.as_str() == obituary.reason);
    let reason = reason.ok_or_else(|| format!("its reason {} is unknown", obituary.reason))?;
    Ok(DeadLetter {
        key,
        event: stored::event(message.headers.as_ref(), message.payload)?,
        reason,
        dead_ms: obituary.dead_ms,
        tried: obituary.tried,
    })
}

impl DeadLetters for NatsDeadLetters {
    fn page(
        &self,
        of: CursorId,
        after: Position,
        limit: NonZeroUsize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetter>, DeadLetterError>> {
        async move {
            let positions = self.positions(&of).await.map_err(unavailable)?;
            let wanted = positions.into_iter().filter(|at| *at > after).take(limit.get());
            let keys = wanted.map(|position| DeadLetterKey { cursor: of.clone(), position });
            let found = join_all(keys.map(|key| self.one(key))).await;
            let found: Result<Vec<_>, _> = found.into_iter().collect();
            Ok(found.map_err(unavailable)?.into_iter().flatten().collect())
        }
        .boxed()
    }

    fn get(
        &self,
        key: DeadLetterKey,
    ) -> BoxFuture<'_, Result<Option<DeadLetter>, DeadLetterError>> {
        async move { self.one(key).await.map_err(unavailable) }.boxed()
    }

    fn remove(&self, key: DeadLetterKey) -> BoxFuture<'_, Result<bool, DeadLetterError>> {
        async move {
            let subject = subject::dead(&subject::consumer(&key.cursor), key.position);
            let verb = format!("STREAM.PURGE.{}", streams::DEAD);
            let purged: Value =
                self.0.api.call(&verb, &json!({ "filter": subject })).await.map_err(unavailable)?;
            Ok(purged["purged"].as_u64().unwrap_or(0) > 0)
        }
        .boxed()
    }
}

fn unavailable(error: ApiError) -> DeadLetterError {
    DeadLetterError::Unavailable(error.to_string())
}
