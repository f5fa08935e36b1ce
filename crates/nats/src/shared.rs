//! What the parts of the broker share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use eventbus_core::broker::{BrokerHealth, CursorSpec};
use eventbus_core::{Clock, Entropy, Event, Position};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, ApiError, code};
use crate::chores::Chores;
use crate::config::{NatsConfig, OpenError};
use crate::cursor::NatsCursor;
use crate::delay::Room;
use crate::levels::Levels;
use crate::pull::Lane;
use crate::telemetry::Telemetry;
use crate::{stored, streams, telemetry};

/// Headers of a message that waits for its time.
const SCHEDULE: &str = "Nats-Schedule";
const SCHEDULE_TARGET: &str = "Nats-Schedule-Target";

/// The last time that the server can tell from the past, in the year 2262: it counts nanoseconds.
const LAST_MS: i64 = i64::MAX / 1_000_000;

/// What the parts of the broker share.
pub(crate) struct Shared {
    pub(crate) api: Api,
    pub(crate) config: NatsConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) standing: Arc<watch::Sender<Standing>>,
    pub(crate) overview: Mutex<Overview>,
    pub(crate) chores: Chores,
    /// Ends all tasks.
    pub(crate) closing: CancellationToken,
    /// Where the server puts what cursors ask for.
    pub(crate) inbox: String,
    pub(crate) is_full: AtomicBool,
    /// How much waits to be due; held while the server is asked.
    pub(crate) delayed: tokio::sync::Mutex<Room>,
    pub(crate) telemetry: Arc<Telemetry>,
    cursors: Mutex<Cursors>,
}

/// The cursors that are open here.
#[derive(Default)]
pub(crate) struct Cursors {
    by_consumer: HashMap<String, Arc<NatsCursor>>,
    by_number: HashMap<u64, Arc<NatsCursor>>,
    last_number: u64,
}

/// May the broker be used?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not yet, for this reason.
    Waiting(String),
    /// Yes.
    Ready(Levels),
    /// No: a stream or the server is not what it must be.
    Wrong(OpenError),
}

/// How the stream of events is, as last heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overview {
    pub(crate) bytes: u64,
    pub(crate) first: Position,
    pub(crate) last: Position,
    /// When the last event was stored: milliseconds since 1970.
    pub(crate) last_ms: u64,
    /// Why nothing was heard.
    pub(crate) trouble: Option<String>,
}

impl Shared {
    pub(crate) fn new(
        api: Api,
        config: NatsConfig,
        standing: Arc<watch::Sender<Standing>>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Self {
        let inbox = format!("_INBOX.eb{:016x}{:016x}", entropy.next_u64(), entropy.next_u64());
        Self {
            api,
            config,
            clock,
            entropy,
            standing,
            overview: Mutex::default(),
            chores: Chores::default(),
            closing: CancellationToken::new(),
            inbox,
            is_full: AtomicBool::new(false),
            delayed: tokio::sync::Mutex::default(),
            telemetry: Arc::default(),
            cursors: Mutex::default(),
        }
    }

    pub(crate) fn cursors(&self) -> MutexGuard<'_, Cursors> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn overview(&self) -> MutexGuard<'_, Overview> {
        self.overview.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// May the server be asked something?
    pub(crate) fn is_ready(&self) -> bool {
        self.api.is_connected() && matches!(*self.standing.borrow(), Standing::Ready(_))
    }

    /// The levels in force; says why there are none.
    pub(crate) fn levels(&self) -> Result<Levels, String> {
        if self.is_closed() {
            return Err("the broker is closed".to_owned());
        }
        match &*self.standing.borrow() {
            Standing::Ready(_) if !self.api.is_connected() => {
                Err("the connection to the NATS server is lost".to_owned())
            }
            Standing::Ready(levels) => Ok(*levels),
            Standing::Waiting(reason) => Err(reason.clone()),
            Standing::Wrong(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn health(&self) -> BrokerHealth {
        if let Err(reason) = self.levels() {
            return BrokerHealth::Unusable(reason);
        }
        match &self.overview().trouble {
            Some(trouble) => BrokerHealth::Unusable(trouble.clone()),
            None if self.is_full.load(Ordering::Relaxed) => BrokerHealth::Full,
            None => BrokerHealth::Usable,
        }
    }

    /// Where the answers to a cursor's requests go.
    pub(crate) fn inbox(&self, cursor: u64, lane: Lane) -> String {
        format!("{}.{cursor}.{}", self.inbox, lane as usize)
    }

    /// The event at `position`; `None` when it is not stored any more.
    pub(crate) async fn event_at(
        &self,
        position: Position,
    ) -> Result<Option<Arc<Event>>, ApiError> {
        let wanted = json!({ "seq": position.0 });
        let Some(found) = self.api.get(streams::EVENTS, &wanted).await? else {
            return self.is_gone(position).await.map(|()| None);
        };
        let Message { headers, payload, .. } = found;
        match stored::event(headers.as_ref(), payload) {
            Ok(event) => Ok(Some(event)),
            Err(reason) => {
                telemetry::not_ours(position, &reason);
                Ok(None)
            }
        }
    }

    /// Any replica may have been asked, and one may lag behind: only the leader knows what is gone.
    async fn is_gone(&self, position: Position) -> Result<(), ApiError> {
        let verb = format!("STREAM.MSG.GET.{}", streams::EVENTS);
        let found: Result<Value, _> = self.api.call(&verb, &json!({ "seq": position.0 })).await;
        match found {
            Ok(_) => Err(ApiError::Away("a replica lags behind".to_owned())),
            Err(error) if error.is(code::MESSAGE_NOT_FOUND) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has the server put a message under the subject `target` at `due_ms`.
    pub(crate) fn schedule(&self, headers: &mut HeaderMap, due_ms: u64, target: String) {
        headers.insert(SCHEDULE, format!("@at {}", self.rfc3339(due_ms)));
        headers.insert(SCHEDULE_TARGET, target);
    }

    /// `ms` milliseconds since 1970, as the server writes times.
    pub(crate) fn rfc3339(&self, ms: u64) -> String {
        let ms = i64::try_from(ms).unwrap_or(i64::MAX).min(LAST_MS);
        jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
    }
}

impl Cursors {
    pub(crate) fn by_consumer(&self, consumer: &str) -> Option<&Arc<NatsCursor>> {
        self.by_consumer.get(consumer)
    }

    pub(crate) fn by_number(&self, number: u64) -> Option<&Arc<NatsCursor>> {
        self.by_number.get(&number)
    }

    pub(crate) fn all(&self) -> Vec<Arc<NatsCursor>> {
        self.by_number.values().cloned().collect()
    }

    /// The cursor of that consumer, as `spec` has it from now on.
    pub(crate) fn open(
        &mut self,
        shared: &Arc<Shared>,
        consumer: String,
        spec: &CursorSpec,
    ) -> Arc<NatsCursor> {
        if let Some(cursor) = self.by_consumer.get(&consumer) {
            let mut place = cursor.place();
            (place.interest, place.waiting_max) = (spec.interest.clone(), spec.waiting_max);
            drop(place);
            cursor.notify.notify_one();
            return cursor.clone();
        }
        self.last_number += 1;
        let number = self.last_number;
        let cursor = Arc::new(NatsCursor::new(shared, number, consumer.clone(), spec));
        self.by_consumer.insert(consumer, cursor.clone());
        self.by_number.insert(number, cursor.clone());
        cursor
    }

    pub(crate) fn remove(&mut self, consumer: &str) -> Option<Arc<NatsCursor>> {
        let cursor = self.by_consumer.remove(consumer)?;
        self.by_number.remove(&cursor.number);
        Some(cursor)
    }
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
