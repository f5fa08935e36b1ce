//! The broker: what a process of the bus sees of JetStream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use eventbus_core::broker::{
    AppendError, Batch, BrokerStats, Capabilities, CloseError, CursorError, CursorId, CursorSpec,
    OpenError as CursorOpenError, Start,
};
use eventbus_core::telemetry::load;
use eventbus_core::{
    Broker, Clock, Cursor, DeadLetters, Durability, Entropy, Event, Position, Receipt, Receipts,
    limits,
};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all, try_join_all};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;

use crate::api::{Api, ApiError, code};
use crate::config::{NatsConfig, OpenError};
use crate::cursor::OpenCursor;
use crate::levels::Levels;
use crate::settle::consumer_config;
use crate::shared::{Shared, Standing};
use crate::telemetry::Telemetry;
use crate::{dead_letters, due, inbox, link, stored, streams, subject, survey, upkeep};

/// How long opening waits for a server that does not answer, before it goes on waiting beside.
const FIRST_TIME: Duration = Duration::from_secs(3);

/// Headers of an atomic batch.
const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// Events of an atomic batch that the server takes.
const BATCH_EVENTS: usize = 1_000;

/// JetStream as a broker.
pub struct Nats {
    pub(crate) shared: Arc<Shared>,
    tasks: TaskTracker,
    dead_letters: dead_letters::NatsDeadLetters,
}

impl Nats {
    /// Connects. A server that does not answer is waited for, also after this has returned: until
    /// it does, the broker is unusable and says why.
    pub async fn open(
        config: NatsConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenError> {
        config.check()?;
        let (client, signals) = link::connect(&config).await?;
        let api = Api { client, changes: signals.changes.clone() };
        let shared = link::share(api, config, signals.standing, (clock, entropy));
        let subscribed = try_join_all([
            shared.api.client.subscribe(format!("{}.>", shared.inbox)),
            shared.api.client.subscribe(format!("{}.>", inbox::LEADERS)),
        ]);
        let unusable = |reason: String| OpenError::Server { reason };
        let inboxes = subscribed.await.map_err(|error| unusable(error.to_string()))?;
        let tasks = TaskTracker::new();
        let mut standing = shared.standing.subscribe();
        for inbox in inboxes {
            tasks.spawn(inbox::run(shared.clone(), inbox));
        }
        tasks.spawn(upkeep::run(shared.clone()));
        tasks.spawn(survey::run(shared.clone()));
        tasks.spawn(due::run(shared.clone()));
        tasks.spawn(link::run(shared.clone(), signals.changes));
        tasks.close();
        let dead_letters = dead_letters::NatsDeadLetters(shared.clone());
        let nats = Self { shared, tasks, dead_letters };
        let settled = standing.wait_for(|now| !matches!(now, Standing::Waiting(_)));
        if let Ok(Ok(standing)) = tokio::time::timeout(FIRST_TIME, settled).await
            && let Standing::Wrong(error) = &*standing
        {
            return Err(error.clone());
        }
        Ok(nats)
    }

    /// What happened since it was opened, for whoever scrapes metrics.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.shared.telemetry
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl Shared {
    /// The levels in force, where `durability` is among them.
    fn levels_for(&self, durability: Durability) -> Result<Levels, AppendError> {
        let levels = self.levels().map_err(AppendError::Unavailable)?;
        let promised = levels.capabilities().durabilities.contains(&durability);
        promised.then_some(levels).ok_or(AppendError::Durability(durability))
    }

    /// Stores one event.
    async fn append_one(&self, event: Event) -> Result<Receipt, ApiError> {
        let subject = subject::event(&event.interest());
        let answer = self.api.publish(subject, stored::headers(&event), event.payload).await?;
        Ok(match answer.duplicate {
            true => Receipt::Duplicate,
            false => Receipt::Stored(Position(answer.seq)),
        })
    }

    /// Stores events all or none.
    async fn append_whole(&self, events: &[Event]) -> Result<Vec<Receipt>, ApiError> {
        let batch = format!("{:016x}{:016x}", self.entropy.next_u64(), self.entropy.next_u64());
        let count = events.len();
        for (at, event) in events.iter().enumerate() {
            let subject = subject::event(&event.interest());
            let mut headers: HeaderMap = stored::headers(event);
            headers.insert(BATCH_ID, batch.as_str());
            headers.insert(BATCH_SEQUENCE, (at + 1).to_string());
            let payload: Bytes = event.payload.clone();
            if at + 1 < count {
                let sent = self.api.client.publish_with_headers(subject, headers, payload).await;
                sent.map_err(|error| ApiError::Away(error.to_string()))?;
            } else {
                headers.insert(BATCH_COMMIT, "1");
                let last = self.api.publish(subject, headers, payload).await?.seq;
                let positions = (last + 1).saturating_sub(count as u64)..=last;
                return Ok(positions.map(|position| Receipt::Stored(Position(position))).collect());
            }
        }
        Ok(Vec::new())
    }

    async fn append(&self, batch: Batch) -> Result<Vec<Receipt>, ApiError> {
        if batch.atomic && batch.events.len() > 1 {
            match self.append_whole(&batch.events).await {
                // Which ones repeat is not told: one by one the server leaves those out.
                Err(error) if error.is(code::BATCH_REPEATS) => {}
                appended => return appended,
            }
        }
        let mut events = batch.events;
        // Most batches are of one, which needs no list of what is under way.
        if events.len() == 1
            && let Some(event) = events.pop()
        {
            return Ok(vec![self.append_one(event).await?]);
        }
        let answers = join_all(events.into_iter().map(|event| self.append_one(event))).await;
        answers.into_iter().collect()
    }

    /// Hands events to the connection, and waits for nothing.
    async fn hand_over(&self, batch: Batch) -> Result<Vec<Receipt>, ApiError> {
        let count = batch.events.len();
        for event in batch.events {
            let subject = subject::event(&event.interest());
            let headers = stored::headers(&event);
            let sent = self.api.client.publish_with_headers(subject, headers, event.payload).await;
            sent.map_err(|error| ApiError::Away(error.to_string()))?;
        }
        Ok(vec![Receipt::Accepted; count])
    }

    /// Why the server did not store an event with so many bytes of payload.
    pub(crate) fn append_error(&self, error: ApiError, bytes: u64) -> AppendError {
        let (code, description) = match error {
            ApiError::Away(reason) => return AppendError::Unavailable(reason),
            ApiError::Refused { code, description } => (code, description),
        };
        let is_full = code == code::INSUFFICIENT_RESOURCES
            || code == code::STORAGE_EXCEEDED
            || (code == code::STORE_FAILED && description.contains("maximum"));
        if is_full {
            self.is_full.store(true, Ordering::Relaxed);
            let used_bytes = self.overview().bytes;
            return AppendError::Full { used_bytes, max_bytes: self.config.max_bytes };
        }
        if code == code::MESSAGE_TOO_LARGE {
            let max_bytes = self.api.client.max_payload() as u64;
            return AppendError::TooLarge { bytes, max_bytes };
        }
        AppendError::Unavailable(description)
    }

    /// Makes a cursor's consumer, or brings it up to date.
    async fn ensure_consumer(&self, consumer: &str, spec: &CursorSpec) -> Result<(), ApiError> {
        let stream = streams::EVENTS;
        let filter = subject::event(&spec.interest);
        let verb = format!("CONSUMER.INFO.{stream}.{consumer}");
        let found: Result<FoundConsumer, _> = self.api.call(&verb, &json!({})).await;
        let (config, action) = match found {
            Ok(found) if found.config["filter_subject"] == filter.as_str() => return Ok(()),
            Ok(mut found) => {
                found.config["filter_subject"] = json!(filter);
                (found.config, "update")
            }
            Err(error) if error.is(code::CONSUMER_NOT_FOUND) => {
                let Start::AtMs(start_ms) = spec.start;
                let mut config = consumer_config(consumer);
                config["filter_subject"] = json!(filter);
                config["deliver_policy"] = json!("by_start_time");
                config["opt_start_time"] = json!(self.rfc3339(start_ms));
                (config, "create")
            }
            Err(error) => return Err(error),
        };
        let asked = json!({ "stream_name": stream, "config": config, "action": action });
        let verb = format!("CONSUMER.CREATE.{stream}.{consumer}");
        match self.api.call::<Value>(&verb, &asked).await {
            // Another process was faster: it wanted the same.
            Err(ApiError::Refused { code: code::CONSUMER_EXISTS, .. }) if action == "create" => {
                Ok(())
            }
            made => made.map(drop),
        }
    }
}

#[derive(Deserialize)]
struct FoundConsumer {
    config: Value,
}

impl Broker for Nats {
    fn capabilities(&self) -> Capabilities {
        match &*self.shared.standing.borrow() {
            Standing::Ready(levels) => levels.capabilities(),
            // Nobody knows yet: whoever appends hears that the broker is not there.
            _ => Capabilities {
                durabilities: &Durability::ALL,
                default_durability: Durability::Written,
            },
        }
    }

    fn fits(&self, event: &Event) -> Result<(), AppendError> {
        let bytes = stored::message_bytes(event) as u64;
        let max_bytes = self.shared.api.client.max_payload() as u64;
        // Zero: the server has not said it yet.
        if max_bytes > 0 && bytes > max_bytes {
            return Err(AppendError::TooLarge { bytes, max_bytes });
        }
        Ok(())
    }

    fn append(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        async move {
            let levels = self.shared.levels_for(durability)?;
            if batch.atomic && batch.events.len() > BATCH_EVENTS {
                let (events, max_events) = (batch.events.len(), BATCH_EVENTS);
                return Err(AppendError::TooMany { events, max_events });
            }
            let bytes = batch.events.iter().map(|event| event.payload.len()).max().unwrap_or(0);
            let events = batch.events.len();
            let began = self.shared.clock.elapsed();
            let (appended, durability) = if durability == Durability::Accepted {
                (self.shared.hand_over(batch).await, durability)
            } else {
                let appended = self.shared.append(batch).await;
                let took = self.shared.clock.elapsed().saturating_sub(began);
                if appended.is_ok() {
                    self.shared.telemetry.appended(events, took);
                }
                (appended, levels.reached())
            };
            let failed = |error| self.shared.append_error(error, bytes as u64);
            Ok(Receipts { receipts: appended.map_err(failed)?, durability })
        }
        .boxed()
    }

    fn delay(
        &self,
        event: Event,
        due_ms: u64,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        async move {
            let levels = self.shared.levels_for(durability)?;
            let receipts = vec![self.shared.delay(event, due_ms).await?];
            // What waits is never only handed over: it would be missed too late.
            Ok(Receipts { receipts, durability: levels.reached() })
        }
        .boxed()
    }

    fn open(&self, spec: CursorSpec) -> BoxFuture<'_, Result<Arc<dyn Cursor>, CursorOpenError>> {
        async move {
            let shared = &self.shared;
            shared.levels().map_err(CursorOpenError::Unavailable)?;
            let consumer = subject::consumer(&spec.id);
            let ensured = shared.ensure_consumer(&consumer, &spec).await;
            ensured.map_err(|error| CursorOpenError::Unavailable(error.to_string()))?;
            let cursor = shared.cursors().open(shared, consumer, &spec);
            Ok(Arc::new(OpenCursor(cursor)) as Arc<dyn Cursor>)
        }
        .boxed()
    }

    fn forget(&self, id: CursorId) -> BoxFuture<'_, Result<(), CursorError>> {
        async move {
            let shared = &self.shared;
            shared.levels().map_err(CursorError::Unavailable)?;
            let consumer = subject::consumer(&id);
            if let Some(cursor) = shared.cursors().remove(&consumer) {
                cursor.forget();
            }
            let unavailable = |error: ApiError| CursorError::Unavailable(error.to_string());
            // First what nobody would find any more without the second.
            upkeep::forget_retries(shared, &consumer).await.map_err(unavailable)?;
            let verb = format!("CONSUMER.DELETE.{}.{consumer}", streams::EVENTS);
            match shared.api.call::<Value>(&verb, &json!({})).await {
                Err(error) if !error.is(code::CONSUMER_NOT_FOUND) => Err(unavailable(error)),
                _ => Ok(()),
            }
        }
        .boxed()
    }

    fn cursors(&self) -> BoxFuture<'_, Result<Vec<CursorId>, CursorError>> {
        async move {
            self.shared.levels().map_err(CursorError::Unavailable)?;
            let names = survey::names(&self.shared, streams::EVENTS).await;
            let names = names.map_err(|error| CursorError::Unavailable(error.to_string()))?;
            Ok(names.iter().filter_map(|name| subject::cursor(name)).collect())
        }
        .boxed()
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        &self.dead_letters
    }

    fn stats(&self) -> BrokerStats {
        let health = self.shared.health();
        let overview = self.shared.overview();
        let telemetry = &self.shared.telemetry;
        BrokerStats {
            health,
            used_bytes: overview.bytes,
            free_bytes: self.shared.config.max_bytes.saturating_sub(overview.bytes),
            first: overview.first,
            next: overview.last.next(),
            corrupt_ranges: 0,
            delayed_events: load(&telemetry.delayed_events),
            delayed_bytes: load(&telemetry.delayed_bytes),
            dropped_events: load(&telemetry.dropped_events),
            dead_letters: load(&telemetry.dead_letters),
        }
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CloseError>> {
        async move {
            self.shared.closing.cancel();
            for cursor in self.shared.cursors().all() {
                cursor.notify.notify_waiters();
                cursor.notify.notify_one();
            }
            let ended = async {
                self.tasks.wait().await;
                // The server has everything that was said then, or is not there.
                let _ = self.shared.api.client.flush().await;
            };
            let _ = tokio::time::timeout(limits::NATS_CLOSE_TIME, ended).await;
            Ok(())
        }
        .boxed()
    }
}
