//! Publishing connections: prepared bytes out, answers in, one event at a time each.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::Clock;
use futures::future::join_all;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::args::{Load, Target};
use super::board::Board;
use super::event::{Request, Shape, Stamp};
use super::inbox::{Answer, Inbox};
use super::latency::Latency;
use super::pace::Schedule;
use crate::cli::Fault;
use crate::output::printable;

/// How much of an answer a complaint shows, in characters.
const SHOWN_CHARS: usize = 300;

/// Where events are posted.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    address: SocketAddr,
    host: String,
    path: String,
    target: Target,
}

/// One keep-alive connection.
pub(super) struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    request: Request,
    target: Target,
}

/// What the other side said about an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It took the event; whether the connection ends here.
    Taken { is_last: bool },
    /// It did not; with the status, and the answer for people.
    Refused { status: u16, answer: String },
}

/// What all publishers of a run share.
pub(super) struct Publishers {
    pub(super) connections: u16,
    pub(super) destination: Destination,
    pub(super) shape: Arc<Shape>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
    /// When events are due, in open loop.
    pub(super) schedule: Option<Schedule>,
}

// === impl Destination ===

impl Destination {
    /// Resolves the host of the load's URL once.
    pub(super) async fn of(load: &Load) -> Result<Self, Fault> {
        let authority = load.url.authority().map(|all| all.as_str()).unwrap_or_default();
        let host = load.url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = load.url.port_u16().unwrap_or(80);
        let unknown = |why: String| Fault::Failed(format!("--url {}: {why}", load.url));
        let mut addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| unknown(error.to_string()))?;
        let address = addresses.next().ok_or_else(|| unknown("no address".to_owned()))?;
        let path = load.url.path_and_query().map_or("/", |path| path.as_str());
        let target = load.target;
        Ok(Self { address, host: authority.to_owned(), path: path.to_owned(), target })
    }
}

// === impl Connection ===

impl Connection {
    /// Connects.
    pub(super) async fn open(to: &Destination, shape: &Shape) -> io::Result<Self> {
        let stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        let request = shape.request(&to.host, &to.path);
        Ok(Self { stream, inbox: Inbox::new(), request, target: to.target })
    }

    /// Publishes an event and waits for the answer.
    pub(super) async fn publish(&mut self, stamp: Stamp) -> io::Result<Said> {
        self.stream.write_all(self.request.stamp(stamp)).await?;
        let answer = self.inbox.answer(&mut self.stream).await?;
        Ok(judge(self.target, &answer, self.request.event_id()))
    }
}

/// Reads an answer strictly: only the one a target gives to an event it has taken is good.
fn judge(target: Target, answer: &Answer<'_>, event_id: &[u8]) -> Said {
    #[derive(Deserialize)]
    struct Published<'a> {
        #[serde(rename = "event-id")]
        event_id: &'a str,
        status: &'a str,
    }
    let is_taken = match target {
        Target::Bus => {
            let published = serde_json::from_slice(answer.body);
            answer.status == 200
                && published.is_ok_and(|body: Published<'_>| {
                    body.status == "published" && body.event_id.as_bytes() == event_id
                })
        }
        Target::Bare | Target::Relay => answer.status == 204,
    };
    if is_taken {
        return Said::Taken { is_last: answer.is_last };
    }
    let body = String::from_utf8_lossy(answer.body);
    let shown: String = body.trim().chars().take(SHOWN_CHARS).collect();
    let status = answer.status;
    Said::Refused { status, answer: format!("{status} {}", printable(&shown)) }
}

// === impl Publishers ===

impl Publishers {
    /// Publishes until the board wants no more; returns the latencies of the measured events.
    pub(super) async fn run(self) -> Latency {
        let latency = RefCell::new(Latency::new());
        let connections = (0..self.connections).map(|_| async {
            if let Err(why) = self.connection(&latency).await {
                self.board.complain(why);
            }
        });
        join_all(connections).await;
        latency.into_inner()
    }

    async fn connection(&self, latency: &RefCell<Latency>) -> Result<(), String> {
        let lost = |error: io::Error| format!("a publishing connection failed: {error}");
        let mut connection =
            Connection::open(&self.destination, &self.shape).await.map_err(lost)?;
        while let Some(sequence) = self.board.issue().await {
            let due = self.due(sequence);
            let stamp = Stamp { sequence, due_ns: due.as_nanos() as u64 };
            match connection.publish(stamp).await.map_err(lost)? {
                Said::Refused { answer, .. } => {
                    return Err(format!("event {sequence} was not published: {answer}"));
                }
                Said::Taken { is_last } => {
                    self.board.count_published();
                    if self.board.is_measured(sequence) {
                        latency.borrow_mut().record(self.clock.elapsed().saturating_sub(due));
                    }
                    if is_last {
                        let again = Connection::open(&self.destination, &self.shape).await;
                        connection = again.map_err(lost)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// When an event is due: by the schedule, or, in closed loop, now.
    fn due(&self, sequence: u64) -> Duration {
        self.schedule.map_or_else(|| self.clock.elapsed(), |schedule| schedule.due(sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_answer_is_good() {
        let said = |target, status, body: &str| {
            let answer = Answer { status, is_last: false, body: body.as_bytes() };
            judge(target, &answer, b"abc")
        };
        let taken = Said::Taken { is_last: false };
        let published = r#"{"event-id":"abc","status":"published","reason":"r"}"#;
        assert_eq!(said(Target::Bus, 200, published), taken);
        for (status, body) in [
            (201, published),
            (200, r#"{"event-id":"abc","status":"ignored","reason":"r"}"#),
            (200, r#"{"event-id":"abd","status":"published","reason":"r"}"#),
            (200, r#"{"event-id":"abc"}"#),
            (200, ""),
            (204, ""),
            (503, r#"{"status":503}"#),
        ] {
            let refused = said(Target::Bus, status, body);
            assert!(matches!(refused, Said::Refused { status: is, .. } if is == status));
        }
        assert_eq!(said(Target::Bare, 204, ""), taken);
        assert_eq!(said(Target::Relay, 204, ""), taken);
        assert_ne!(said(Target::Relay, 502, ""), taken);
    }
}
