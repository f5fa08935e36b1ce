//! Retention: what every cursor has settled goes when it is beyond the history or in the way of new
//! events, what is too old goes for everybody, and a cursor that holds back more than it may loses
//! its own oldest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use eventbus_core::{Position, limits};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::api::{ApiError, code};
use crate::shared::{Overview, Shared};
use crate::survey::{self, ConsumerState, Known};
use crate::upkeep::{self, Lost};
use crate::{streams, subject};

/// Who sweeps.
const LEASE: &str = "lease.sweep";

/// How far a replica may lag behind that tells what a consumer holds. Of a cluster, nothing younger
/// is purged, whoever is said to have settled it.
const LAG_TIME: Duration = Duration::from_secs(10);

/// How long a cursor that loses events is given nothing at most, should the sweep end in between.
const PAUSE: Duration = Duration::from_secs(5);

/// Sweeps, when it is its turn.
#[derive(Default)]
pub(crate) struct Sweeper {
    /// The sequence of our own lease.
    lease: Option<u64>,
    /// Everything before it was settled for all at the last look.
    settled: Option<Position>,
}

impl Sweeper {
    /// Purges what is not needed any more.
    pub(crate) async fn sweep(
        &mut self,
        shared: &Arc<Shared>,
        overview: &Overview,
        known: &Known,
    ) -> Result<(), ApiError> {
        let too_old = younger_than(shared, overview, shared.config.age).await?;
        let history = overview.position_before(shared.config.kept_bytes());
        if too_old <= overview.first && history <= overview.first {
            return Ok(());
        }
        if !self.leads(shared).await? {
            self.settled = None;
            return Ok(());
        }
        let least = overview.position_before(shared.config.backlog_max_bytes());
        let retries = all_retries(shared, known).await?;
        let mut floor = Position(overview.last.0 + 1);
        for state in known.consumers.values() {
            let waiting = retries.get(&state.name).into_iter().flatten();
            let held = state.holds_from().into_iter().chain(waiting.map(|retry| retry.0)).min();
            floor = floor.min(held.map_or(floor, |from| from.max(least)));
        }
        if shared.config.replicas > 1 {
            floor = floor.min(younger_than(shared, overview, LAG_TIME).await?);
        }
        // What the last look found held back is not let go by one look alone: a server that has
        // just begun to lead a consumer may not know all of it yet.
        let settled =
            self.settled.replace(floor).map_or(overview.first, |before| before.min(floor));
        let upto = settled.min(history).max(too_old);
        if upto <= overview.first {
            return Ok(());
        }
        let losers = known.consumers.values().filter(|state| state.loses_before(upto));
        let losers: Vec<_> = losers.collect();
        for state in &losers {
            // Nothing is given to it meanwhile, so that what is counted is what is lost.
            pause(shared, state, Some(PAUSE)).await?;
            count_lost(shared, &survey::state(shared, state).await?, upto).await?;
        }
        for (name, retries) in &retries {
            lose_retries(shared, name, retries, upto).await?;
        }
        let verb = format!("STREAM.PURGE.{}", streams::EVENTS);
        let _: Value = shared.api.call(&verb, &json!({ "seq": upto.0 })).await?;
        for state in losers {
            pause(shared, state, None).await?;
        }
        Ok(())
    }

    /// Gives the lease up.
    pub(crate) async fn end(&mut self, shared: &Shared) {
        if self.lease.take().is_some() && shared.api.is_connected() {
            let verb = format!("STREAM.PURGE.{}", streams::RETRY);
            // Else it ends by itself.
            let _: Result<Value, _> = shared.api.call(&verb, &json!({ "filter": LEASE })).await;
        }
    }

    /// Is it our turn? Whoever puts the lease has it, until it expires or is renewed.
    async fn leads(&mut self, shared: &Shared) -> Result<bool, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-TTL", format!("{}s", limits::NATS_SWEEP_LEASE.as_secs()));
        let expected = self.lease.unwrap_or(0).to_string();
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected);
        match shared.api.publish(LEASE.to_owned(), headers, Bytes::new()).await {
            Ok(taken) => {
                self.lease = Some(taken.seq);
                Ok(true)
            }
            Err(error) if error.is(code::WRONG_LAST_SEQUENCE) => {
                self.lease = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// The first position of an event that is younger than `age`.
async fn younger_than(
    shared: &Shared,
    overview: &Overview,
    age: Duration,
) -> Result<Position, ApiError> {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let from_ms = shared.clock.now_ms().saturating_sub(age_ms);
    if overview.last_ms < from_ms {
        return Ok(Position(overview.last.0 + 1));
    }
    let wanted = json!({
        "start_time": shared.rfc3339(from_ms), "next_by_subj": "ev.>", "batch": 1
    });
    let young = shared.api.get(streams::EVENTS, &wanted).await?;
    let sequence = young.as_ref().and_then(|one| one.headers.as_ref()?.get("Nats-Sequence"));
    let sequence = sequence.and_then(|sequence| sequence.as_str().parse().ok());
    // There is one: a replica that has none lags behind, and knows nothing.
    Ok(sequence.map_or(overview.first, Position))
}

/// The retries of every cursor that has some, by the name of its consumers.
async fn all_retries(
    shared: &Shared,
    known: &Known,
) -> Result<HashMap<String, Vec<Retry>>, ApiError> {
    let lists = stream::iter(known.retrying.clone())
        .map(|name| async move { retries(shared, &name).await.map(|retries| (name, retries)) });
    lists.buffer_unordered(survey::LOOKS_AT_ONCE).try_collect().await
}

/// An event that waits for a retry: its position, and the subject of what waits.
type Retry = (Position, String);

async fn retries(shared: &Shared, consumer: &str) -> Result<Vec<Retry>, ApiError> {
    // Scheduled and due in one answer: a retry goes from the one to the other and back.
    let filter = subject::retries(consumer);
    let subjects = survey::subjects(shared, streams::RETRY, &filter).await?.into_iter();
    let with_position = |one: String| subject::position(&one).map(|position| (position, one));
    Ok(subjects.filter_map(with_position).collect())
}

/// Loses the retries of events before `upto`, which are not there any more.
async fn lose_retries(
    shared: &Shared,
    consumer: &str,
    retries: &[Retry],
    upto: Position,
) -> Result<(), ApiError> {
    for (position, subject) in retries.iter().filter(|retry| retry.0 < upto) {
        upkeep::count_lost(shared, consumer, Lost::At(*position)).await?;
        let verb = format!("STREAM.PURGE.{}", streams::RETRY);
        let _: Value = shared.api.call(&verb, &json!({ "filter": subject })).await?;
    }
    Ok(())
}

/// Has the server give nothing to a cursor for some time, or again.
async fn pause(
    shared: &Shared,
    state: &ConsumerState,
    time: Option<Duration>,
) -> Result<(), ApiError> {
    let verb = format!("CONSUMER.PAUSE.{}.{}", streams::EVENTS, state.name);
    let until = time.map(|time| {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        shared.rfc3339(shared.clock.now_ms().saturating_add(time_ms))
    });
    let asked = until.map_or(json!({}), |until| json!({ "pause_until": until }));
    shared.api.call::<Value>(&verb, &asked).await.map(drop)
}

/// Counts the events before `upto` that a cursor was never given. Those that wait for a retry are
/// counted by themselves.
async fn count_lost(
    shared: &Shared,
    state: &ConsumerState,
    upto: Position,
) -> Result<(), ApiError> {
    if !state.loses_before(upto) {
        return Ok(());
    }
    let filter = &state.config.filter_subject;
    let from = state.delivered().next();
    let before = shared.api.count(streams::EVENTS, filter, from.0).await?;
    let after = shared.api.count(streams::EVENTS, filter, upto.0).await?;
    if before > after {
        let lost = Lost::Before(upto, before - after);
        upkeep::count_lost(shared, &state.name, lost).await?;
    }
    Ok(())
}
