//! What the server knows of the stream and of every cursor, looked at from time to time; and what
//! follows from it: settled events are purged, and who holds back too much loses its oldest.
//!
//! One process sweeps, by a lease that it renews on the server itself; all look.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use eventbus_core::Position;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{ApiError, code};
use crate::cursor::NatsCursor;
use crate::pull::Lane;
use crate::shared::{Overview, Shared};
use crate::{streams, subject, sweep, telemetry};

/// How often the stream is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The part of the time that may be spent on looking at cursors, as one in so many.
const LOOK_PART: u32 = 20;

/// The longest pause between two looks at cursors.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Cursors that are looked at together: each waits for a few answers of the server.
pub(crate) const LOOKS_AT_ONCE: usize = 16;

/// Retries of a cursor that are listed at a look to find the oldest event among them: some 50 KiB.
/// Of more the server's first is taken, which is not the oldest for sure.
const RETRIES_LISTED: u64 = 1_000;

/// What the server says of all cursors.
pub(crate) struct Known {
    /// Their consumers of the stream of events, by name.
    pub(crate) consumers: HashMap<String, ConsumerState>,
    /// Those that have one for retries as well.
    pub(crate) retrying: HashSet<String>,
}

/// What the server says of a consumer.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConsumerState {
    pub(crate) name: String,
    delivered: Sequences,
    ack_floor: Sequences,
    #[serde(default)]
    pub(crate) num_pending: u64,
    #[serde(default)]
    pub(crate) num_ack_pending: u64,
    #[serde(default)]
    num_waiting: u64,
    pub(crate) config: ConsumerConfig,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Sequences {
    #[serde(default)]
    stream_seq: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConsumerConfig {
    #[serde(default)]
    pub(crate) filter_subject: String,
}

impl ConsumerState {
    /// The last position that was given to anybody.
    pub(crate) fn delivered(&self) -> Position {
        Position(self.delivered.stream_seq)
    }

    /// Were events before `upto` never given to anybody?
    pub(crate) fn loses_before(&self, upto: Position) -> bool {
        self.num_pending > 0 && self.delivered().next() < upto
    }

    /// Are there events, and does nobody ask for them?
    fn is_unasked(&self) -> bool {
        self.num_pending > 0 && self.num_waiting == 0
    }

    /// The first position that may be unsettled on the stream of events; `None` when none is.
    pub(crate) fn holds_from(&self) -> Option<Position> {
        let is_idle = self.num_pending == 0 && self.num_ack_pending == 0;
        (!is_idle).then(|| Position(self.ack_floor.stream_seq + 1))
    }
}

#[derive(Deserialize)]
struct ConsumerPage<T> {
    consumers: Option<Vec<T>>,
}

#[derive(Deserialize)]
struct FoundStream {
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    last_ts: String,
    #[serde(default)]
    subjects: Option<BTreeMap<String, u64>>,
}

/// Works until the broker is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut sweeper = sweep::Sweeper::default();
    let mut next = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => break,
            () = sleep(LOOK_EVERY) => {}
        }
        if !shared.is_ready() {
            continue;
        }
        let overview = match overview(&shared).await {
            Ok(overview) => overview,
            Err(error) => {
                let trouble = Some(error.to_string());
                let before = mem::replace(&mut shared.overview().trouble, trouble.clone());
                if before != trouble {
                    telemetry::not_surveyed_at_all(&error);
                }
                continue;
            }
        };
        *shared.overview() = overview.clone();
        let began = shared.clock.elapsed();
        if began >= next {
            // What fails of the rest is looked at again; it stops neither publishing nor
            // delivering.
            if let Err(error) = look(&shared, &mut sweeper, &overview).await {
                telemetry::not_surveyed(&error);
            }
            let ended = shared.clock.elapsed();
            next = ended + (ended.saturating_sub(began) * LOOK_PART).min(PAUSE_MAX);
        }
    }
    sweeper.end(&shared).await;
}

async fn look(
    shared: &Arc<Shared>,
    sweeper: &mut sweep::Sweeper,
    overview: &Overview,
) -> Result<(), ApiError> {
    let is_full = overview.bytes >= shared.config.max_bytes / 100 * 99;
    if !is_full {
        shared.is_full.store(false, Ordering::Relaxed);
    }
    shared.hear_of_delayed().await?;
    let consumers = consumers(shared).await?;
    let retrying = names(shared, streams::RETRY).await?;
    let losers = losers(shared).await?;
    let cursors = stream::iter(shared.cursors().all()).map(Ok);
    let looks = cursors.try_for_each_concurrent(LOOKS_AT_ONCE, |cursor| {
        let (consumers, retrying, losers) = (&consumers, &retrying, &losers);
        async move {
            if retrying.contains(&cursor.consumer) && !cursor.place().has_due_lane {
                cursor.place().has_due_lane = true;
                cursor.notify.notify_one();
            }
            if let Some(state) = consumers.get(&cursor.consumer) {
                ask_again(shared, &cursor, state).await?;
                look_at(shared, &cursor, state, overview).await?;
            }
            if losers.contains(&subject::dropped(&cursor.consumer)) {
                let dropped = dropped(shared, &cursor.consumer).await?;
                cursor.place().heard.dropped = dropped;
            }
            Ok::<_, ApiError>(())
        }
    });
    looks.await?;
    // Of a cluster, the list may lack those whose server did not answer. What they hold is unknown.
    let is_whole = |name: &String| consumers.contains_key(name);
    if names(shared, streams::EVENTS).await?.iter().all(is_whole) {
        sweeper.sweep(shared, overview, &Known { consumers, retrying }).await?;
    }
    Ok(())
}

async fn overview(shared: &Shared) -> Result<Overview, ApiError> {
    let verb = format!("STREAM.INFO.{}", streams::EVENTS);
    let FoundStream { state } = shared.api.call(&verb, &json!({})).await?;
    Ok(state.into())
}

impl From<StreamState> for Overview {
    fn from(state: StreamState) -> Self {
        Self {
            bytes: state.bytes,
            // Of a stream in which nothing ever was, the server says 0. Nothing is before 1, and
            // servers of 2.12 take a purge of that for a purge of everything.
            first: Position(state.first_seq.max(1)),
            last: Position(state.last_seq),
            last_ms: milliseconds(&state.last_ts).unwrap_or(0),
            trouble: None,
        }
    }
}

/// Every consumer of the stream of events, by name.
async fn consumers(shared: &Shared) -> Result<HashMap<String, ConsumerState>, ApiError> {
    let states: Vec<ConsumerState> = pages(shared, "LIST", streams::EVENTS).await?;
    Ok(states.into_iter().map(|state| (state.name.clone(), state)).collect())
}

/// What the server says of a consumer of the stream of events now.
pub(crate) async fn state(
    shared: &Shared,
    consumer: &ConsumerState,
) -> Result<ConsumerState, ApiError> {
    let verb = format!("CONSUMER.INFO.{}.{}", streams::EVENTS, consumer.name);
    shared.api.call(&verb, &json!({})).await
}

/// The names of all consumers of a stream, whether they can be asked or not.
pub(crate) async fn names(shared: &Shared, stream: &str) -> Result<HashSet<String>, ApiError> {
    Ok(pages(shared, "NAMES", stream).await?.into_iter().collect())
}

/// Everything that `verb` tells of a stream's consumers: the server tells it in pages.
async fn pages<T: DeserializeOwned>(
    shared: &Shared,
    verb: &str,
    stream: &str,
) -> Result<Vec<T>, ApiError> {
    let verb = format!("CONSUMER.{verb}.{stream}");
    let mut all = Vec::new();
    loop {
        let page: ConsumerPage<T> = shared.api.call(&verb, &json!({ "offset": all.len() })).await?;
        let found = page.consumers.unwrap_or_default();
        if found.is_empty() {
            return Ok(all);
        }
        all.extend(found);
    }
}

/// Asks anew where the server has events for us and knows of no request: it was lost on its way, or
/// with the server that led the consumer.
async fn ask_again(
    shared: &Shared,
    cursor: &NatsCursor,
    state: &ConsumerState,
) -> Result<(), ApiError> {
    let mut lost = Vec::new();
    if state.is_unasked() {
        lost.push(Lane::Events);
    }
    if cursor.place().has_due_lane {
        let verb = format!("CONSUMER.INFO.{}.{}", streams::RETRY, cursor.consumer);
        match shared.api.call::<ConsumerState>(&verb, &json!({})).await {
            Ok(due) if due.is_unasked() => lost.push(Lane::Due),
            Ok(_) => {}
            // Somebody removed it: it is made again with the next retry.
            Err(error) if error.is(code::CONSUMER_NOT_FOUND) => {
                cursor.place().has_due_lane = false;
            }
            Err(error) => return Err(error),
        }
    }
    for lane in &lost {
        cursor.place().asked[*lane as usize].lost();
    }
    if !lost.is_empty() {
        cursor.notify.notify_one();
    }
    Ok(())
}

/// Takes in what the server says of a cursor.
async fn look_at(
    shared: &Shared,
    cursor: &NatsCursor,
    state: &ConsumerState,
    overview: &Overview,
) -> Result<(), ApiError> {
    let mut waiting = 0;
    if cursor.place().has_due_lane {
        let retries = subject::retries(&cursor.consumer);
        waiting = shared.api.count(streams::RETRY, &retries, 1).await?;
    }
    let retried = oldest_retry(shared, &cursor.consumer, waiting).await?;
    let from = state.holds_from().into_iter().chain(retried).min();
    let oldest_ms = match from {
        Some(from) => time_of(shared, &state.config.filter_subject, from).await?,
        None => None,
    };
    let mut place = cursor.place();
    let due_here = place.held_of_retries();
    let heard = &mut place.heard;
    heard.pending = state.num_pending;
    heard.leased = state.num_ack_pending + due_here;
    heard.waiting = waiting.saturating_sub(due_here);
    heard.oldest_ms = oldest_ms;
    heard.backlog_bytes = from.map_or(0, |from| overview.bytes_from(from));
    drop(place);
    Ok(())
}

/// The position of the oldest event among so many that wait for a retry: exact up to
/// [`RETRIES_LISTED`], else that of some of them.
async fn oldest_retry(
    shared: &Shared,
    consumer: &str,
    waiting: u64,
) -> Result<Option<Position>, ApiError> {
    let retries = subject::retries(consumer);
    if waiting <= RETRIES_LISTED {
        let all = match waiting {
            0 => Vec::new(),
            _ => subjects(shared, streams::RETRY, &retries).await?,
        };
        return Ok(all.iter().filter_map(|one| subject::position(one)).min());
    }
    let wanted = json!({ "seq": 1, "next_by_subj": retries });
    let first = shared.api.get(streams::RETRY, &wanted).await?;
    let subject = first.as_ref().and_then(|first| first.headers.as_ref()?.get("Nats-Subject"));
    Ok(subject.and_then(|subject| subject::position(subject.as_str())))
}

/// When the first event of `subject` at or behind `from` was stored.
async fn time_of(shared: &Shared, subject: &str, from: Position) -> Result<Option<u64>, ApiError> {
    let wanted = json!({ "seq": from.0, "next_by_subj": subject });
    let found = shared.api.get(streams::EVENTS, &wanted).await?;
    let time = found.as_ref().and_then(|found| found.headers.as_ref()?.get("Nats-Time-Stamp"));
    Ok(time.and_then(|time| milliseconds(time.as_str())))
}

/// A time of the server's as milliseconds since 1970.
fn milliseconds(time: &str) -> Option<u64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// The subjects under which losses are counted.
async fn losers(shared: &Shared) -> Result<HashSet<String>, ApiError> {
    let subjects = subjects(shared, streams::COUNTS, "dropped.>").await?;
    Ok(subjects.into_iter().collect())
}

/// The subjects of a stream that match `filter`.
pub(crate) async fn subjects(
    shared: &Shared,
    stream: &str,
    filter: &str,
) -> Result<Vec<String>, ApiError> {
    let verb = format!("STREAM.INFO.{stream}");
    let mut all = Vec::new();
    loop {
        let asked = json!({ "subjects_filter": filter, "offset": all.len() });
        let FoundStream { state } = shared.api.call(&verb, &asked).await?;
        let subjects = state.subjects.unwrap_or_default();
        if subjects.is_empty() {
            return Ok(all);
        }
        all.extend(subjects.into_keys());
    }
}

/// How many events a cursor has lost.
async fn dropped(shared: &Shared, consumer: &str) -> Result<u64, ApiError> {
    let wanted = json!({ "last_by_subj": subject::dropped(consumer) });
    let Some(found) = shared.api.get(streams::COUNTS, &wanted).await? else { return Ok(0) };
    let value: Value = serde_json::from_slice(&found.payload).unwrap_or_default();
    Ok(value["val"].as_str().and_then(|count| count.parse().ok()).unwrap_or(0))
}

impl Overview {
    /// Bytes from `position` to the end, by the mean size of an event.
    pub(crate) fn bytes_from(&self, position: Position) -> u64 {
        let from = position.0.max(self.first.0);
        let behind = (self.last.0 + 1).saturating_sub(from);
        let all = (self.last.0 + 1).saturating_sub(self.first.0).max(1);
        (u128::from(self.bytes) * u128::from(behind) / u128::from(all)) as u64
    }

    /// The position from which on there are at most `bytes` to the end, by the mean size.
    pub(crate) fn position_before(&self, bytes: u64) -> Position {
        let all = u128::from((self.last.0 + 1).saturating_sub(self.first.0));
        let behind = (all * u128::from(bytes)).checked_div(u128::from(self.bytes));
        let behind = u64::try_from(behind.unwrap_or(all)).unwrap_or(u64::MAX);
        Position((self.last.0 + 1).saturating_sub(behind).max(self.first.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_nothing_to_purge_in_a_stream_that_never_held_anything() {
        let state = r#"{"bytes":0,"first_seq":0,"last_seq":0,"last_ts":"0001-01-01T00:00:00Z"}"#;
        let state: StreamState = serde_json::from_str(state).unwrap();
        let overview = Overview::from(state);
        assert_eq!((overview.first, overview.last.next()), (Position(1), Position(1)));
        assert_eq!(overview.position_before(0), overview.first);
    }
}
