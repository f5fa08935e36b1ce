//! Keeps leases alive, gives back what nobody leases, and asks anew where requests were lost.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use eventbus_core::{Position, limits};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::{ApiError, code};
use crate::chores::{ACK, Chore, IN_PROGRESS, NAK};
use crate::cursor::{NatsCursor, Origin};
use crate::pull::Lane;
use crate::shared::Shared;
use crate::{stored, streams, subject};

/// How often cursors are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Chores that are done together: some wait for an answer of the server.
const CHORES_AT_ONCE: usize = 16;

/// How long what arrived may wait for somebody to lease it before others get it.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// Works until the broker is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    tokio::select! {
        biased;
        () = shared.closing.cancelled() => {}
        // Leases stay alive whatever else there is to do.
        () = looks(&shared) => {}
        () = chores(&shared) => {}
    }
    // What is given back now need not wait until the server misses it.
    give_back_all(&shared).await;
}

async fn looks(shared: &Arc<Shared>) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        look_after_all(shared).await;
    }
}

async fn chores(shared: &Arc<Shared>) {
    loop {
        shared.chores.notify.notified().await;
        if shared.is_ready() {
            let chores = stream::iter(shared.chores.take());
            let doing = chores.for_each_concurrent(CHORES_AT_ONCE, |chore| async move {
                // Whatever fails here is put right by the server, after its own time.
                let _ = do_chore(shared, chore).await;
            });
            doing.await;
        }
    }
}

async fn look_after_all(shared: &Arc<Shared>) {
    if !shared.is_ready() {
        return;
    }
    let cursors = shared.cursors().all();
    for cursor in cursors {
        for (origin, words) in look_after(shared, &cursor) {
            // The server gives the event to somebody else; the next look tries again.
            let _ = shared.api.tell(origin.reply, words).await;
        }
    }
}

/// What is to be said about a cursor's events.
fn look_after(shared: &Shared, cursor: &NatsCursor) -> Vec<(Origin, &'static str)> {
    let now = shared.clock.elapsed();
    let mut words = Vec::new();
    let mut place = cursor.place();
    for held in place.held.values_mut() {
        if now.saturating_sub(held.told) >= limits::NATS_PROGRESS_EVERY {
            held.told = now;
            words.extend(held.origins.iter().map(|origin| (origin.clone(), IN_PROGRESS)));
        }
    }
    if place.lessees == 0 && now.saturating_sub(place.idle_since) > IDLE_TIME {
        words.extend(place.ready.drain(..).map(|arrival| (arrival.origin, NAK)));
    }
    for asked in &mut place.asked {
        if asked.is_overdue(now) {
            asked.lost();
        }
    }
    // Most cursors have no lane for retries, on which nothing is ever asked for.
    let mut asked = place.asked.iter().take(if place.has_due_lane { 2 } else { 1 });
    let starves = place.lessees > 0 && asked.any(|asked| asked.is_nothing());
    drop(place);
    if starves {
        cursor.notify.notify_one();
    }
    words
}

async fn give_back_all(shared: &Arc<Shared>) {
    let cursors = shared.cursors().all();
    for cursor in cursors {
        let ready: Vec<_> = cursor.place().ready.drain(..).collect();
        for arrival in ready {
            // Else the server misses it after its time.
            let _ = shared.api.tell(arrival.origin.reply, NAK).await;
        }
    }
    for chore in shared.chores.take() {
        if let Chore::GiveBack(origin) = chore {
            let _ = shared.api.tell(origin.reply, NAK).await;
        }
    }
}

async fn do_chore(shared: &Arc<Shared>, chore: Chore) -> Result<(), ApiError> {
    match chore {
        Chore::GiveBack(origin) => shared.api.tell(origin.reply, NAK).await,
        Chore::StepOver(origin) => shared.api.tell_and_wait(origin.reply, ACK).await,
        Chore::Lost { consumer, position, origin } => {
            count_lost(shared, &consumer, Lost::At(position)).await?;
            shared.api.tell_and_wait(origin.reply, ACK).await
        }
        Chore::Examine { cursor } => {
            let cursor = shared.cursors().by_number(cursor).cloned();
            match cursor {
                Some(cursor) => examine(shared, &cursor).await,
                None => Ok(()),
            }
        }
    }
}

/// Events that a cursor has lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lost {
    /// The one at this position, which waited for a retry.
    At(Position),
    /// So many before this position, which it was never given.
    Before(Position, u64),
}

impl Lost {
    fn events(self) -> u64 {
        match self {
            Self::At(_) => 1,
            Self::Before(_, events) => events,
        }
    }

    /// What the same loss is known by when it is told again, and no other.
    fn id(self, consumer: &str) -> String {
        match self {
            Self::At(position) => format!("{consumer}.at.{position}"),
            Self::Before(position, _) => format!("{consumer}.before.{position}"),
        }
    }
}

/// Counts what a cursor has lost: once, however often it is said.
pub(crate) async fn count_lost(
    shared: &Shared,
    consumer: &str,
    lost: Lost,
) -> Result<(), ApiError> {
    let events = lost.events();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Incr", format!("+{events}"));
    headers.insert(stored::MESSAGE_ID, lost.id(consumer));
    let told = shared.api.publish(subject::dropped(consumer), headers, Bytes::new()).await?;
    if !told.duplicate {
        shared.telemetry.lost(consumer, events);
    }
    Ok(())
}

/// Looks whether a cursor's consumers are still there.
async fn examine(shared: &Arc<Shared>, cursor: &Arc<NatsCursor>) -> Result<(), ApiError> {
    for lane in Lane::ALL {
        if lane == Lane::Due && !cursor.place().has_due_lane {
            continue;
        }
        let verb = format!("CONSUMER.INFO.{}.{}", lane.stream(), cursor.consumer);
        let found: Result<Value, _> = shared.api.call(&verb, &json!({})).await;
        match found {
            Err(error) if error.is(code::CONSUMER_NOT_FOUND) && lane == Lane::Due => {
                cursor.place().has_due_lane = false;
            }
            Err(error) if error.is(code::CONSUMER_NOT_FOUND) => {
                // Another process forgot it: its Subscription is gone.
                if let Some(cursor) = shared.cursors().remove(&cursor.consumer) {
                    cursor.forget();
                }
                // What this process settled meanwhile came behind what the other removed.
                return forget_retries(shared, &cursor.consumer).await;
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Everything that is kept of a cursor's retries is removed.
pub(crate) async fn forget_retries(shared: &Shared, consumer: &str) -> Result<(), ApiError> {
    let verb = format!("CONSUMER.DELETE.{}.{consumer}", streams::RETRY);
    let deleted: Result<Value, _> = shared.api.call(&verb, &json!({})).await;
    match deleted {
        Err(error) if !error.is(code::CONSUMER_NOT_FOUND) => return Err(error),
        _ => {}
    }
    for subject in [format!("sched.{consumer}.*"), format!("due.{consumer}.*")] {
        let verb = format!("STREAM.PURGE.{}", streams::RETRY);
        let _: Value = shared.api.call(&verb, &json!({ "filter": subject })).await?;
    }
    let verb = format!("STREAM.PURGE.{}", streams::COUNTS);
    let _: Value = shared.api.call(&verb, &json!({ "filter": subject::dropped(consumer) })).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_is_not_taken_for_another() {
        let at = Position(7);
        let losses = [Lost::At(at), Lost::Before(at, 1), Lost::Before(Position(8), 1)];
        let ids: std::collections::HashSet<_> = losses.map(|lost| lost.id("uid")).into();
        assert_eq!(ids.len(), losses.len(), "{ids:?}");
        assert_eq!(Lost::Before(at, 1).id("uid"), Lost::Before(at, 2).id("uid"), "told again");
    }
}
