//! Asking the server for events.
//!
//! A request names how many are wanted and stays open until so many came, or its time is over. All
//! cursors of a process get theirs on one inbox, so that thousands of them cost one subscription.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::broker::CursorError;
use eventbus_core::limits;

use crate::cursor::{NatsCursor, Place};
use crate::shared::Shared;
use crate::streams;

/// The two ways on which events come to a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Fresh from the stream of events.
    Events = 0,
    /// From the stream of retries, when they are due.
    Due = 1,
}

impl Lane {
    /// Both. What is due is asked for first: it has waited longer.
    pub(crate) const ALL: [Self; 2] = [Self::Due, Self::Events];

    pub(crate) fn stream(self) -> &'static str {
        match self {
            Self::Events => streams::EVENTS,
            Self::Due => streams::RETRY,
        }
    }
}

/// What is asked for on a lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Events that open requests still wait for.
    open: usize,
    /// When the last of them is surely over.
    until: Duration,
}

impl Asked {
    /// An event came.
    pub(crate) fn arrived(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// A request ended, with so many events not sent.
    pub(crate) fn ended(&mut self, missing: usize) {
        self.open = self.open.saturating_sub(missing);
    }

    /// The server does not know our requests any more.
    pub(crate) fn lost(&mut self) {
        self.open = 0;
    }

    /// Is nothing asked for?
    pub(crate) fn is_nothing(&self) -> bool {
        self.open == 0
    }

    /// Should a request be open of which the server seems to know nothing?
    pub(crate) fn is_overdue(&self, now: Duration) -> bool {
        self.open > 0 && now > self.until
    }

    fn more(&mut self, wanted: usize, now: Duration) -> usize {
        let more = wanted.saturating_sub(self.open);
        if more > 0 {
            self.open += more;
            self.until = now + limits::NATS_PULL_TIME + limits::NATS_CALL_TIME;
        }
        more
    }
}

impl Place {
    /// How many events to ask for on a lane, so that up to `limit` may come.
    fn missing(&mut self, lane: Lane, limit: usize, now: Duration) -> usize {
        let here = self.ready.len();
        let wanted = match lane {
            Lane::Events => {
                let held = self.held.len() + here + self.heard.waiting as usize;
                limit.saturating_sub(here).min(self.waiting_max.saturating_sub(held))
            }
            Lane::Due if self.has_due_lane => limit.saturating_sub(here),
            Lane::Due => 0,
        };
        self.asked[lane as usize].more(wanted, now)
    }
}

impl NatsCursor {
    /// Asks for up to `limit` events, but for those that are asked for already.
    pub(crate) async fn pull(&self, shared: &Arc<Shared>, limit: usize) -> Result<(), CursorError> {
        for lane in Lane::ALL {
            let now = shared.clock.elapsed();
            let more = self.place().missing(lane, limit, now);
            if more == 0 {
                continue;
            }
            let (stream, consumer) = (lane.stream(), &self.consumer);
            let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
            let reply = shared.inbox(self.number, lane);
            let wanted = request(more);
            let asking = Asking { cursor: self, lane, more };
            let sent = shared.api.client.publish_with_reply(subject, reply, wanted).await;
            sent.map_err(|error| CursorError::Unavailable(error.to_string()))?;
            asking.asked();
        }
        Ok(())
    }
}

/// A request on its way; dropped before it is sent, nothing was asked.
struct Asking<'a> {
    cursor: &'a NatsCursor,
    lane: Lane,
    more: usize,
}

impl Asking<'_> {
    fn asked(mut self) {
        self.more = 0;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.more > 0 {
            self.cursor.place().asked[self.lane as usize].ended(self.more);
        }
    }
}

/// The body of a request for so many events.
pub(crate) fn request(batch: usize) -> Bytes {
    let expires_ns = limits::NATS_PULL_TIME.as_nanos();
    Bytes::from(format!("{{\"batch\":{batch},\"expires\":{expires_ns}}}"))
}
