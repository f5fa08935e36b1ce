//! Publishing connections: prepared bytes out, answers in, one request at a time each.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{Clock, Durability};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::value::RawValue;
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

/// What the other side said about the events of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It took all; whether the connection ends here, and how durably they are stored.
    Taken { is_last: bool, durability: Option<Durability> },
    /// It did not; with the status, and the answer for people.
    Refused { status: u16, answer: String },
}

/// What the publishers of a run were told.
pub(super) struct Heard {
    /// Of the measured events.
    pub(super) latency: Latency,
    /// The least that any answer told.
    pub(super) durability: Option<Durability>,
}

/// What all publishers of a run share.
pub(super) struct Publishers {
    pub(super) connections: u16,
    /// Events of each request.
    pub(super) batch: u16,
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
        let target = load.target;
        let path = match load.url.path_and_query() {
            _ if load.batch > 1 && target == Target::Bus => {
                format!("{}/batch", load.url.path().trim_end_matches('/'))
            }
            path => path.map_or("/", |path| path.as_str()).to_owned(),
        };
        Ok(Self { address, host: authority.to_owned(), path, target })
    }
}

// === impl Connection ===

impl Connection {
    /// Connects, to publish `batch` events with each request.
    pub(super) async fn open(to: &Destination, shape: &Shape, batch: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        let request = shape.request(&to.host, &to.path, batch);
        Ok(Self { stream, inbox: Inbox::new(), request, target: to.target })
    }

    /// Publishes events, as many as a request has, and waits for the answer.
    pub(super) async fn publish(&mut self, stamps: &[Stamp]) -> io::Result<Said> {
        self.stream.write_all(self.request.stamp(stamps)).await?;
        let answer = self.inbox.answer(&mut self.stream).await?;
        Ok(judge(self.target, &answer, &self.request))
    }
}

/// Reads an answer strictly: only the one a target gives to events it has taken is good.
fn judge(target: Target, answer: &Answer<'_>, request: &Request) -> Said {
    let complaint = match target {
        Target::Bus if answer.status != 200 => Some(answer.body),
        Target::Bus if request.events() == 1 => {
            (!is_published(answer.body, request)).then_some(answer.body)
        }
        Target::Bus => complaint(answer.body, request),
        Target::Bare | Target::Relay => (answer.status != 204).then_some(answer.body),
    };
    let Some(complaint) = complaint else {
        let level = answer.durability.and_then(|level| std::str::from_utf8(level).ok());
        let durability = level.and_then(|level| level.parse().ok());
        return Said::Taken { is_last: answer.is_last, durability };
    };
    let complaint = String::from_utf8_lossy(complaint);
    let shown: String = complaint.trim().chars().take(SHOWN_CHARS).collect();
    let status = answer.status;
    Said::Refused { status, answer: format!("{status} {}", printable(&shown)) }
}

/// What a bus says about one event.
#[derive(Deserialize)]
struct EventResult<'a> {
    #[serde(rename = "event-id")]
    event_id: &'a str,
    status: &'a str,
}

impl EventResult<'_> {
    fn is_published(&self, event_id: &[u8]) -> bool {
        self.status == "published" && self.event_id.as_bytes() == event_id
    }
}

/// Whether the body says that the only event of the request is published.
fn is_published(body: &[u8], request: &Request) -> bool {
    let result: Result<EventResult<'_>, _> = serde_json::from_slice(body);
    result.is_ok_and(|result| request.event_ids().all(|id| result.is_published(id)))
}

/// What the body says beside every event of the request being published, in their order.
fn complaint<'a>(body: &'a [u8], request: &Request) -> Option<&'a [u8]> {
    #[derive(Deserialize)]
    struct Results<T> {
        results: Vec<T>,
    }
    let read: Result<Results<EventResult<'_>>, _> = serde_json::from_slice(body);
    let Some(Results { results }) = read.ok().filter(|all| all.results.len() == request.events())
    else {
        return Some(body);
    };
    let of_ids = || results.iter().zip(request.event_ids());
    let wrong = of_ids().position(|(result, id)| !result.is_published(id))?;
    // The one result alone: the body has many.
    let read: Result<Results<&'a RawValue>, _> = serde_json::from_slice(body);
    Some(read.map_or(body, |all| all.results[wrong].get().as_bytes()))
}

// === impl Publishers ===

impl Publishers {
    /// Publishes until the board wants no more; returns what was heard.
    pub(super) async fn run(self) -> Heard {
        let heard = RefCell::new(Heard { latency: Latency::new(), durability: None });
        let connections = (0..self.connections).map(|_| async {
            if let Err(why) = self.connection(&heard).await {
                self.board.complain(why);
            }
        });
        join_all(connections).await;
        heard.into_inner()
    }

    async fn connection(&self, heard: &RefCell<Heard>) -> Result<(), String> {
        let lost = |error: io::Error| format!("a publishing connection failed: {error}");
        let open = || Connection::open(&self.destination, &self.shape, self.batch);
        let mut connection = open().await.map_err(lost)?;
        let mut stamps = Vec::with_capacity(self.batch.into());
        while let Some(first) = self.board.issue(self.batch).await {
            let now = self.clock.elapsed();
            let stamp = |sequence| Stamp { sequence, due_ns: self.due(sequence, now) };
            stamps.clear();
            stamps.extend((first..).take(self.batch.into()).map(stamp));
            match connection.publish(&stamps).await.map_err(lost)? {
                Said::Refused { answer, .. } => {
                    let of = if self.batch == 1 { "event" } else { "of the batch from event" };
                    return Err(format!("{of} {first} was not published: {answer}"));
                }
                Said::Taken { is_last, durability } => {
                    self.board.count_published(self.batch);
                    self.hear(&stamps, durability, &mut heard.borrow_mut());
                    if is_last {
                        connection = open().await.map_err(lost)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes down an answer that came now.
    fn hear(&self, stamps: &[Stamp], durability: Option<Durability>, heard: &mut Heard) {
        let known = heard.durability.into_iter().chain(durability);
        heard.durability = known.min();
        let now = self.clock.elapsed();
        for stamp in stamps.iter().filter(|stamp| self.board.is_measured(stamp.sequence)) {
            heard.latency.record(now.saturating_sub(Duration::from_nanos(stamp.due_ns)));
        }
    }

    /// When an event is due, in nanoseconds: by the schedule, or, in closed loop, now.
    fn due(&self, sequence: u64, now: Duration) -> u64 {
        self.schedule.map_or(now, |schedule| schedule.due(sequence)).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(target: Target, status: u16, body: &str, events: u16) -> Said {
        let durability = Some(&b"synced"[..]);
        let answer = Answer { status, is_last: false, durability, body: body.as_bytes() };
        let mut request = Shape::new(0, 1, 0).request("h", "/", events);
        let stamps: Vec<Stamp> =
            (1..).take(events.into()).map(|sequence| Stamp { sequence, due_ns: 0 }).collect();
        request.stamp(&stamps);
        judge(target, &answer, &request)
    }

    const TAKEN: Said = Said::Taken { is_last: false, durability: Some(Durability::Synced) };

    fn result(sequence: u64, status: &str) -> String {
        let id = Shape::new(0, 1, 0).event_id(sequence);
        format!(r#"{{"event-id":"{id}","status":"{status}","reason":"r"}}"#)
    }

    #[test]
    fn only_the_right_answer_is_good() {
        assert_eq!(said(Target::Bus, 200, &result(1, "published"), 1), TAKEN);
        for (status, body) in [
            (201, &*result(1, "published")),
            (200, &result(1, "ignored")),
            (200, &result(2, "published")),
            (200, r#"{"event-id":"00000000-0000-0000-0000-000000000001"}"#),
            (200, ""),
            (204, ""),
            (503, r#"{"status":503}"#),
        ] {
            let refused = said(Target::Bus, status, body, 1);
            assert!(matches!(refused, Said::Refused { status: is, .. } if is == status), "{body}");
        }
        assert_eq!(said(Target::Bare, 204, "", 1), TAKEN);
        assert_eq!(said(Target::Bare, 204, "", 5), TAKEN);
        assert_eq!(said(Target::Relay, 204, "", 1), TAKEN);
        assert_ne!(said(Target::Relay, 502, "", 1), TAKEN);
    }

    #[test]
    fn every_event_of_a_batch_must_be_published() {
        let of = |results: &[String]| format!("{{\"results\":[{}]}}\n", results.join(","));
        let good = [result(1, "published"), result(2, "published")];
        assert_eq!(said(Target::Bus, 200, &of(&good), 2), TAKEN);
        let ignored = result(2, "ignored");
        for (results, shown) in [
            (vec![good[0].clone(), ignored.clone()], &ignored),
            (vec![good[1].clone(), good[0].clone()], &good[1]),
            (vec![good[0].clone(), good[0].clone()], &good[0]),
        ] {
            let answer = format!("200 {shown}");
            assert_eq!(
                said(Target::Bus, 200, &of(&results), 2),
                Said::Refused { status: 200, answer }
            );
        }
        for body in [of(&good[..1]), of(&[&good[..], &good[..1]].concat()), good[0].clone()] {
            assert_ne!(said(Target::Bus, 200, &body, 2), TAKEN, "{body}");
        }
        assert_ne!(said(Target::Bus, 400, &of(&good), 2), TAKEN);
    }
}
