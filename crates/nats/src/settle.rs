//! Settling a turn: what must be stored elsewhere is stored first, then the events are
//! acknowledged.
//!
//! A crash in between repeats: the retry is put under the same subject again, the dead letter is
//! refused the second time, the event comes again. Nothing is lost.

use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use eventbus_core::broker::CursorError;
use eventbus_core::delivery::{Attempt, Verdict};
use eventbus_core::{Position, Settled, Stored};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};

use crate::api::ApiError;
use crate::chores::{ACK, Chore};
use crate::cursor::{Held, NatsCursor, Origin};
use crate::dead_letters;
use crate::pull::Lane;
use crate::shared::{Shared, nanoseconds};
use crate::stored::Reference;
use crate::{streams, subject, upkeep};

impl NatsCursor {
    pub(crate) async fn settle(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        turn: Vec<Settled>,
    ) -> Result<(), CursorError> {
        let (mut done, mut moves) = (Vec::with_capacity(turn.len()), Vec::new());
        for Settled { lease, attempt, verdict } in turn {
            let position = lease.position();
            if verdict == Verdict::Release {
                continue;
            }
            // From here on the lease has no say any more: what fails is given back below.
            lease.end();
            let Some(held) = self.place().held.remove(&position) else { continue };
            match self.moved(shared, &held, attempt, verdict) {
                Some(moving) => moves.push((held.origins, moving)),
                None => done.extend(held.origins),
            }
        }
        let (origins, moving): (Vec<_>, Vec<_>) = moves.into_iter().unzip();
        let mut failed = None;
        for (origins, moved) in origins.into_iter().zip(join_all(moving).await) {
            match moved {
                Ok(()) => done.extend(origins),
                Err(error) => {
                    failed = Some(error);
                    origins.into_iter().map(Chore::GiveBack).for_each(|c| shared.chores.push(c));
                }
            }
        }
        let acknowledged = acknowledge(shared, done).await;
        // Somebody may wait for room.
        self.notify.notify_one();
        match (acknowledged, failed) {
            (Ok(()), None) => Ok(()),
            (Err(_), _) | (_, Some(_)) if self.place().forgotten => Ok(()),
            (Err(error), _) | (_, Some(error)) => Err(CursorError::Unavailable(error.to_string())),
        }
    }

    /// What must be stored before the event may be acknowledged.
    fn moved(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        held: &Held,
        attempt: Option<Attempt>,
        verdict: Verdict,
    ) -> Option<BoxFuture<'static, Result<(), ApiError>>> {
        let tried = held.tried.clone().and(attempt);
        let stored = held.stored.clone();
        match verdict {
            Verdict::Ack | Verdict::Skip | Verdict::Release => None,
            Verdict::Retry { due_ms } => {
                let Stored { position, committed_ms, .. } = stored;
                let reference = Reference { position: position.0, committed_ms, tried };
                let (cursor, shared) = (self.clone(), shared.clone());
                Some(async move { cursor.retry(&shared, &reference, due_ms).await }.boxed())
            }
            Verdict::DeadLetter { reason } => {
                let (cursor, shared) = (self.clone(), shared.clone());
                Some(
                    async move {
                        let dead_ms = shared.clock.now_ms();
                        let obituary = dead_letters::Obituary::new(reason, dead_ms, tried);
                        let put = dead_letters::put(&shared, &cursor.consumer, &stored, &obituary);
                        if put.await? {
                            shared.telemetry.gave_up();
                        }
                        Ok(())
                    }
                    .boxed(),
                )
            }
        }
    }

    /// Lets an event come again at its time.
    async fn retry(
        &self,
        shared: &Shared,
        reference: &Reference,
        due_ms: u64,
    ) -> Result<(), ApiError> {
        self.open_due_lane(shared).await?;
        let position = Position(reference.position);
        let mut headers = HeaderMap::new();
        shared.schedule(&mut headers, due_ms, subject::due(&self.consumer, position));
        let body = serde_json::to_vec(reference).map_err(|e| ApiError::Away(e.to_string()))?;
        let subject = subject::scheduled(&self.consumer, position);
        shared.api.publish(subject, headers, Bytes::from(body)).await?;
        if self.place().forgotten {
            return upkeep::forget_retries(shared, &self.consumer).await;
        }
        self.place().heard.waiting += 1;
        Ok(())
    }

    /// Makes the consumer of its retries, where there is none yet.
    pub(crate) async fn open_due_lane(&self, shared: &Shared) -> Result<(), ApiError> {
        if self.place().has_due_lane {
            return Ok(());
        }
        let consumer = &self.consumer;
        let mut config = consumer_config(consumer);
        config["filter_subject"] = json!(format!("due.{consumer}.*"));
        config["deliver_policy"] = json!("all");
        let stream = streams::RETRY;
        let asked = json!({ "stream_name": stream, "config": config });
        let verb = format!("CONSUMER.CREATE.{stream}.{consumer}");
        let _: Value = shared.api.call(&verb, &asked).await?;
        self.place().has_due_lane = true;
        self.notify.notify_one();
        Ok(())
    }
}

/// What the consumers of both lanes have in common.
pub(crate) fn consumer_config(name: &str) -> Value {
    json!({
        "durable_name": name, "name": name, "ack_policy": "explicit", "replay_policy": "instant",
        "ack_wait": nanoseconds(eventbus_core::limits::NATS_ACK_WAIT),
        "max_deliver": -1, "max_ack_pending": -1,
    })
}

/// Acknowledges for good. The last one of each lane is waited for: the server takes those of one
/// connection in order, so it has all of them then.
async fn acknowledge(shared: &Shared, mut done: Vec<Origin>) -> Result<(), ApiError> {
    let mut last: [Option<Origin>; 2] = Default::default();
    for lane in Lane::ALL {
        let found = done.iter().rposition(|origin| origin.lane == lane);
        last[lane as usize] = found.map(|at| done.swap_remove(at));
    }
    for origin in done {
        shared.api.tell(origin.reply, ACK).await?;
    }
    let waited = last.into_iter().flatten();
    let waited = waited.map(|origin| shared.api.tell_and_wait(origin.reply, ACK));
    join_all(waited).await.into_iter().collect()
}
