//! What the server sends to us: events that cursors asked for, and the ends of their requests.

use std::sync::Arc;

use async_nats::{Message, StatusCode, Subscriber};
use eventbus_core::Position;
use futures::{FutureExt, StreamExt};

use crate::chores::Chore;
use crate::cursor::{Arrival, Content, NatsCursor, Origin};
use crate::delivery::Delivery;
use crate::pull::Lane;
use crate::shared::Shared;
use crate::stored::{self, Reference};
use crate::{streams, telemetry};

/// Messages taken at once: cursors are woken once for all of them.
const AT_ONCE: usize = 256;

/// Where the server says which of a cluster leads a consumer from now on.
pub(crate) const LEADERS: &str = "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED";

/// Works until the connection is closed for good.
pub(crate) async fn run(shared: Arc<Shared>, mut inbox: Subscriber) {
    let mut woken: Vec<Arc<NatsCursor>> = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            first = inbox.next() => first,
        };
        let Some(first) = first else { return };
        take(&shared, first, &mut woken);
        for _ in 1..AT_ONCE {
            let Some(Some(next)) = inbox.next().now_or_never() else { break };
            take(&shared, next, &mut woken);
        }
        for cursor in woken.drain(..) {
            cursor.notify.notify_one();
        }
    }
}

fn take(shared: &Shared, message: Message, woken: &mut Vec<Arc<NatsCursor>>) {
    let cursor = match &message.status {
        Some(status) => ended(shared, &message, *status),
        None if message.subject.starts_with(LEADERS) => led_anew(shared, &message.subject),
        None => arrived(shared, message),
    };
    if let Some(cursor) = cursor
        && woken.last().is_none_or(|last| last.number != cursor.number)
    {
        woken.push(cursor);
    }
}

/// Another server of a cluster leads a consumer: what was asked of the one before is lost.
fn led_anew(shared: &Shared, subject: &str) -> Option<Arc<NatsCursor>> {
    let mut tokens = subject.strip_prefix(LEADERS)?.split('.').skip(1);
    let (stream, consumer) = (tokens.next()?, tokens.next()?);
    let lane = Lane::ALL.into_iter().find(|lane| lane.stream() == stream)?;
    let cursor = shared.cursors().by_consumer(consumer)?.clone();
    cursor.place().asked[lane as usize].lost();
    Some(cursor)
}

/// An event came.
fn arrived(shared: &Shared, message: Message) -> Option<Arc<NatsCursor>> {
    let reply = message.reply?;
    let delivery = Delivery::of(&reply)?;
    let cursor = shared.cursors().by_consumer(delivery.consumer)?.clone();
    let pending = delivery.pending;
    let arrival = if delivery.stream == streams::RETRY {
        let reference: Result<Reference, _> = serde_json::from_slice(&message.payload);
        let origin = Origin { lane: Lane::Due, reply: reply.clone() };
        match reference {
            Ok(reference) => Arrival {
                position: Position(reference.position),
                committed_ms: reference.committed_ms,
                origin,
                content: Content::Reference(reference),
            },
            Err(error) => return not_ours(shared, &cursor, origin, &delivery, &error.to_string()),
        }
    } else {
        let origin = Origin { lane: Lane::Events, reply: reply.clone() };
        match stored::event(message.headers.as_ref(), message.payload) {
            Ok(event) => Arrival {
                position: delivery.sequence,
                committed_ms: delivery.stored_ms,
                origin,
                content: Content::Event(event),
            },
            Err(reason) => return not_ours(shared, &cursor, origin, &delivery, &reason),
        }
    };
    cursor.arrived(arrival, pending);
    Some(cursor)
}

/// Somebody else put something into our streams: it is stepped over, or it would come for ever.
fn not_ours(
    shared: &Shared,
    cursor: &Arc<NatsCursor>,
    origin: Origin,
    delivery: &Delivery<'_>,
    reason: &str,
) -> Option<Arc<NatsCursor>> {
    telemetry::not_ours(delivery.sequence, reason);
    cursor.place().asked[origin.lane as usize].arrived();
    shared.chores.push(Chore::StepOver(origin));
    Some(cursor.clone())
}

/// A request for events ended.
fn ended(shared: &Shared, message: &Message, status: StatusCode) -> Option<Arc<NatsCursor>> {
    let mut tokens = message.subject.strip_prefix(shared.inbox.as_str())?.split('.').skip(1);
    let number = tokens.next()?.parse().ok()?;
    let lane = if tokens.next()? == "1" { Lane::Due } else { Lane::Events };
    let cursor = shared.cursors().by_number(number)?.clone();
    let missing = message.headers.as_ref().and_then(|all| all.get("Nats-Pending-Messages"));
    let missing = missing.and_then(|missing| missing.as_str().parse().ok());
    {
        let asked = &mut cursor.place().asked[lane as usize];
        match missing {
            Some(missing) => asked.ended(missing),
            None => asked.lost(),
        }
    }
    if status == StatusCode::TIMEOUT {
        return Some(cursor.clone());
    }
    // The consumer is gone, or moves to another server: upkeep asks again in a moment.
    shared.chores.push(Chore::Examine { cursor: number });
    None
}
