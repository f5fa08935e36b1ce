//! Delayed events whose time has come: they are put among the events.
//!
//! A schedule of the server's ends in the stream that it lies in, so what is due is taken from
//! there: by all processes of the bus, from one consumer. Each event is stored under an id that is
//! the same whoever stores it, and acknowledged after that: an end in between repeats it, and the
//! repeat is not stored.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use eventbus_core::broker::AppendError;
use eventbus_core::{Event, limits};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{ApiError, Changes};
use crate::chores::{ACK, NAK};
use crate::settle::consumer_config;
use crate::shared::Shared;
use crate::{inbox, pull, stored, streams, subject, telemetry};

/// The consumer that all processes share.
const CONSUMER: &str = "due";

/// Events asked for at once, which are stored together: so many are in memory at most.
const AT_ONCE: usize = 32;

/// The server's words for an event that could not be stored: give it to somebody in five seconds,
/// and others before.
const NAK_SOON: &str = "-NAK {\"delay\":5000000000}";

/// The same for what this program cannot read: in a minute, to one that can, perhaps.
const NAK_LATER: &str = "-NAK {\"delay\":60000000000}";

/// Works until the broker is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let client = &shared.api.client;
    let replies = client.subscribe(format!("{}due.*", shared.inbox)).await;
    let leaders = format!("{}.{}.{CONSUMER}", inbox::LEADERS, streams::DELAY);
    // Else the connection is closed for good.
    let (Ok(replies), Ok(leaders)) = (replies, client.subscribe(leaders).await) else { return };
    let changes = shared.api.changes.clone();
    let (request, until) = (0, Duration::ZERO);
    let mut due = Due { shared, replies, leaders, changes, request, until, batch: AT_ONCE };
    while !due.shared.is_closed() {
        due.work().await;
        due.pause().await;
    }
    due.give_back().await;
}

/// What takes the events that are due.
struct Due {
    shared: Arc<Shared>,
    replies: Subscriber,
    leaders: Subscriber,
    changes: Changes,
    /// The number of the last request, and when it is surely over.
    request: u64,
    until: Duration,
    /// How many events the next one asks for.
    batch: usize,
}

/// Why nothing more comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Its time is over.
    InTime,
    /// Nobody knows of it, or we are not to go on.
    Lost,
}

impl Due {
    /// Asks for what is due and stores it, for as long as there is somebody to ask.
    async fn work(&mut self) {
        if !self.shared.is_ready() {
            return;
        }
        self.changes.mark_unchanged();
        let asked = async {
            self.ensure_consumer().await?;
            loop {
                self.ask().await?;
                if self.take().await == Ended::Lost {
                    return Ok::<_, ApiError>(());
                }
            }
        };
        if let Err(error) = asked.await {
            telemetry::not_taken(&error);
        }
    }

    /// Makes the consumer, where there is none.
    async fn ensure_consumer(&self) -> Result<(), ApiError> {
        let mut config = consumer_config(CONSUMER);
        config["filter_subject"] = json!(subject::delay_due("*"));
        config["deliver_policy"] = json!("all");
        let stream = streams::DELAY;
        let asked = json!({ "stream_name": stream, "config": config });
        let verb = format!("CONSUMER.CREATE.{stream}.{CONSUMER}");
        self.shared.api.call::<Value>(&verb, &asked).await.map(drop)
    }

    async fn ask(&mut self) -> Result<(), ApiError> {
        self.request += 1;
        self.until = self.shared.clock.elapsed() + limits::NATS_PULL_TIME + limits::NATS_CALL_TIME;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{CONSUMER}", streams::DELAY);
        let reply = format!("{}due.{}", self.shared.inbox, self.request);
        let wanted = pull::request(self.batch);
        let asked = self.shared.api.client.publish_with_reply(subject, reply, wanted).await;
        asked.map_err(|error| ApiError::Away(error.to_string()))
    }

    /// Stores what comes of a request, until nothing more does.
    async fn take(&mut self) -> Ended {
        let (mut missing, mut batch) = (self.batch, (self.batch * 2).min(AT_ONCE));
        while missing > 0 {
            let (came, ended) = self.receive(missing).await;
            missing -= came.len();
            let stored = join_all(came.into_iter().map(|one| store(&self.shared, one))).await;
            if let Some(error) = stored.into_iter().find_map(Result::err) {
                if self.batch > 1 && batch > 1 {
                    telemetry::not_stored(&error);
                }
                // One is tried then, and twice as many with each success: what cannot be stored
                // costs no more than that, however much of it there is.
                batch = 1;
                self.pause().await;
            }
            if let Some(ended) = ended {
                self.batch = batch;
                return ended;
            }
        }
        self.batch = batch;
        Ended::InTime
    }

    /// Waits for an event, and takes what came with it, `most` of them at most.
    async fn receive(&mut self, most: usize) -> (Vec<Message>, Option<Ended>) {
        let mut came = Vec::new();
        let mut next = Some(self.next().await);
        while let Some(one) = next {
            match one {
                Ok(message) => came.push(message),
                Err(ended) => return (came, Some(ended)),
            }
            next = if came.len() < most { self.next().now_or_never() } else { None };
        }
        (came, None)
    }

    async fn next(&mut self) -> Result<Message, Ended> {
        loop {
            let left = self.until.saturating_sub(self.shared.clock.elapsed());
            let message = tokio::select! {
                biased;
                () = self.shared.closing.cancelled() => return Err(Ended::Lost),
                // The connection, or who leads the consumer in a cluster, is another one now.
                _ = self.changes.changed() => return Err(Ended::Lost),
                _ = self.leaders.next() => return Err(Ended::Lost),
                message = self.replies.next() => message.ok_or(Ended::Lost)?,
                () = sleep(left) => return Err(Ended::Lost),
            };
            match message.status {
                None => return Ok(message),
                Some(status) if self.is_current(&message.subject) => {
                    let in_time = status == StatusCode::TIMEOUT;
                    return Err(if in_time { Ended::InTime } else { Ended::Lost });
                }
                // The end of one that was given up before.
                Some(_) => {}
            }
        }
    }

    fn is_current(&self, reply: &str) -> bool {
        let request = reply.rsplit('.').next();
        request.and_then(|request| request.parse().ok()) == Some(self.request)
    }

    async fn pause(&self) {
        tokio::select! {
            biased;
            () = self.shared.closing.cancelled() => {}
            () = sleep(limits::DUE_AGAIN) => {}
        }
    }

    /// What came and is not stored need not wait until the server misses it.
    async fn give_back(&mut self) {
        while let Some(Some(message)) = self.replies.next().now_or_never() {
            if let Some(reply) = message.reply {
                let _ = self.shared.api.tell(reply, NAK).await;
            }
        }
    }
}

/// Stores an event that is due, and acknowledges it then; else it comes again.
async fn store(shared: &Shared, message: Message) -> Result<(), AppendError> {
    let Message { subject, reply, headers, payload, .. } = message;
    let (Some(reply), Some(headers)) = (reply, headers) else { return Ok(()) };
    let event = match stored::event(Some(&headers), payload) {
        Ok(event) => event,
        Err(reason) => {
            telemetry::not_readable(&reason);
            let _ = shared.api.tell(reply, NAK_LATER).await;
            return Ok(());
        }
    };
    let bytes = stored::message_bytes(&event) as u64;
    let moved = async {
        // One that is stored already, before an end, is not stored again.
        let (to, headers) =
            (subject::event(&event.interest()), headers_of(&event, &headers, &subject));
        shared.api.publish(to, headers, event.payload.clone()).await?;
        shared.api.tell_and_wait(reply.clone(), ACK).await
    };
    let moved = moved.await.map_err(|error| shared.append_error(error, bytes));
    if moved.is_err() {
        // Else the server misses it after its time.
        let _ = shared.api.tell(reply, NAK_SOON).await;
    }
    moved
}

/// The headers with which a delayed event is stored: its head as it was kept, and an id by which it
/// is known should it be stored again.
fn headers_of(event: &Event, kept: &HeaderMap, subject: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(head) = kept.get(stored::HEAD.clone()) {
        headers.insert(stored::HEAD.clone(), head.clone());
    }
    let id = match event.id_given {
        true => stored::message_id(event),
        false => subject.rsplit('.').next().unwrap_or_default().to_owned(),
    };
    headers.insert(stored::MESSAGE_ID, id);
    headers
}
