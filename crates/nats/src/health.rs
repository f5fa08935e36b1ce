//! What the processes of a bus tell each other of how deliveries go.
//!
//! Over plain subjects, which no stream keeps: what is lost is told again, and who begins to
//! listen asks for everything.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use eventbus_core::{ProcessId, Report, limits};
use futures::{FutureExt, StreamExt};

use crate::api::Changes;
use crate::broker::Nats;
use crate::config::OpenError;
use crate::shared::Shared;
use crate::telemetry;

/// Where a process says how its deliveries go, with its name behind.
const SAID: &str = "health.said";

/// Where everybody is asked to say everything.
const ASKED: &str = "health.asked";

/// What others tell.
pub struct Hearing {
    shared: Arc<Shared>,
    said: Subscriber,
    changes: Changes,
    /// When it was last logged that something could not be read.
    complained_at: Option<Duration>,
}

/// What others ask.
pub struct Asked(Subscriber);

impl Nats {
    /// Tells what `process`, which is this one, has to say. False when it is lost for certain; it
    /// may be when it is true.
    pub async fn tell(&self, process: ProcessId, report: &Report) -> bool {
        let Ok(json) = report.to_json() else { return false };
        self.shared.say(format!("{SAID}.{process}"), json.into()).await
    }

    /// Begins to hear what processes tell, this one among them, and asks them to tell everything:
    /// now, and with each connection that is made.
    pub async fn hear(&self) -> Result<Hearing, OpenError> {
        let shared = self.shared.clone();
        let mut changes = shared.api.changes.clone();
        // A connection that is made from here on is asked again.
        changes.mark_unchanged();
        let said = subscribe(&shared, format!("{SAID}.*")).await?;
        shared.say(ASKED.to_owned(), Bytes::new()).await;
        Ok(Hearing { shared, said, changes, complained_at: None })
    }

    /// Begins to hear that somebody asks to be told everything.
    pub async fn asked(&self) -> Result<Asked, OpenError> {
        Ok(Asked(subscribe(&self.shared, ASKED.to_owned()).await?))
    }
}

impl Hearing {
    /// What is told next, and by whom. Waits for ever when the connection is closed for good.
    /// Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> (ProcessId, Report) {
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.changes.changed() => {
                    self.shared.say(ASKED.to_owned(), Bytes::new()).await;
                }
                Some(told) = self.said.next() => match read(&told) {
                    Ok(told) => return told,
                    Err(reason) => self.complain(&reason),
                },
                else => std::future::pending().await,
            }
        }
    }

    /// Not for each: whoever tells such things may tell many.
    fn complain(&mut self, reason: &str) {
        let now = self.shared.clock.elapsed();
        let is_due = |at: Duration| now.saturating_sub(at) >= limits::REPORT_ROUND;
        if self.complained_at.is_none_or(is_due) {
            self.complained_at = Some(now);
            telemetry::not_a_report(reason);
        }
    }
}

impl Asked {
    /// Ends when somebody has asked, or many at once; never when the connection is closed for good.
    pub async fn next(&mut self) {
        if self.0.next().await.is_none() {
            std::future::pending::<()>().await;
        }
        while let Some(Some(_)) = self.0.next().now_or_never() {}
    }
}

impl Shared {
    /// Says something to whoever listens; false when there is no connection. (The client would keep
    /// it, and say it when it is not true any more.)
    async fn say(&self, subject: String, payload: Bytes) -> bool {
        self.api.is_connected() && self.api.client.publish(subject, payload).await.is_ok()
    }
}

async fn subscribe(shared: &Shared, subject: String) -> Result<Subscriber, OpenError> {
    let subscribed = shared.api.client.subscribe(subject).await;
    subscribed.map_err(|error| OpenError::Server { reason: error.to_string() })
}

/// Who tells what.
fn read(told: &Message) -> Result<(ProcessId, Report), String> {
    let process = told.subject.rsplit('.').next().unwrap_or_default();
    let process = process.parse().map_err(|error| format!("{process:?}: {error}"))?;
    let report = Report::from_json(&told.payload).map_err(|error| error.to_string())?;
    Ok((process, report))
}
