//! Publishing connections: prepared bytes out, answers in, one request at a time each.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{Clock, Durability};
use futures::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::answers::{Judge, Said};
use super::args::Target;
use super::board::Board;
use super::event::{Shape, Stamp};
use super::inbox::Inbox;
use super::latency::Latency;
use super::pace::Schedule;
use super::plan::Load;
use super::request::{Envelope, Form, Request};
use super::svix;
use crate::cli::Fault;

/// Where events are posted, and how.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    address: SocketAddr,
    envelope: Envelope,
    judge: Judge,
}

/// One keep-alive connection.
pub(super) struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    request: Request,
    judge: Judge,
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
    /// Resolves the host of the load's URL once. `shape` is that of the events.
    pub(super) async fn of(load: &Load, shape: &Shape) -> Result<Self, Fault> {
        let authority = load.url.authority().map(|all| all.as_str()).unwrap_or_default();
        let host = load.url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = load.url.port_u16().unwrap_or(80);
        let unknown = |why: String| Fault::Failed(format!("--url {}: {why}", load.url));
        let mut addresses = tokio::net::lookup_host((host, port))
            .await
            .map_err(|error| unknown(error.to_string()))?;
        let address = addresses.next().ok_or_else(|| unknown("no address".to_owned()))?;
        let mut headers = String::new();
        if let Some(level) = load.durability {
            headers += &format!("Eventbus-Durability: {level}\r\n");
        }
        if let Some(file) = &load.token_file {
            headers += &format!("Authorization: Bearer {}\r\n", svix::token(file)?);
        }
        let form = Form::of(load.target, load.format);
        Ok(Self {
            address,
            envelope: Envelope {
                host: authority.to_owned(),
                path: path(load, shape),
                headers,
                form,
            },
            judge: Judge { target: load.target, form, durability: load.durability },
        })
    }
}

/// The path that takes events, or batches of them.
fn path(load: &Load, shape: &Shape) -> String {
    match load.target {
        Target::Bus if load.batch > 1 => {
            format!("{}/batch", load.url.path().trim_end_matches('/'))
        }
        Target::Svix => svix::path_of_events(shape),
        _ => load.url.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    }
}

// === impl Connection ===

impl Connection {
    /// Connects, to publish `batch` events with each request.
    pub(super) async fn open(to: &Destination, shape: &Shape, batch: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(to.address).await?;
        stream.set_nodelay(true)?;
        let request = Request::new(shape, &to.envelope, batch);
        Ok(Self { stream, inbox: Inbox::new(), request, judge: to.judge })
    }

    /// Whether the other side has neither closed it nor said anything unasked: servers close what
    /// has been idle for some seconds.
    fn is_open(&self) -> bool {
        let heard = self.stream.try_read(&mut [0]);
        heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Publishes events, as many as a request has, and waits for the answer.
    pub(super) async fn publish(&mut self, stamps: &[Stamp]) -> io::Result<Said> {
        self.stream.write_all(self.request.stamp(stamps)).await?;
        let answer = self.inbox.answer(&mut self.stream).await?;
        Ok(self.judge.of(&answer, &self.request))
    }
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
        let mut kept: Option<Connection> = None;
        let mut stamps = Vec::with_capacity(self.batch.into());
        while let Some(first) = self.board.issue(self.batch).await {
            let mut connection = match kept.take().filter(Connection::is_open) {
                Some(connection) => connection,
                None => open().await.map_err(lost)?,
            };
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
                    kept = (!is_last).then_some(connection);
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
