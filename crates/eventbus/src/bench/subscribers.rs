//! Counting subscribers: they take deliveries as cheaply as they can, and check every one.
//!
//! All of them live on one thread. Healthy ones share one address and are told apart by the path;
//! each bad one has an address of its own, as it would have in life.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::Clock;
use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::args::Layout;
use super::board::Board;
use super::event::Shape;
use super::inbox::{Delivery, Inbox};
use super::kill::journal::Journal;
use super::latency::Latency;
use super::seen::Seen;
use super::worker::Worker;

/// Connections that one address takes at once: more than any bus should open to one endpoint.
const CONNECTIONS: usize = 16 * 1024;

/// How many missing events a complaint names.
const MISSING_SHOWN: usize = 5;

/// The answer to a delivery.
const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The answer of an endpoint that cannot do its work.
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

/// The answer that is dripped.
const DRIPPED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

const DRIP_PAUSE: Duration = Duration::from_secs(1);

/// A host name that cannot exist (RFC 6761).
const NOWHERE: &str = "http://nowhere.invalid/";

/// The ways in which an endpoint can be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Accepts, reads, never answers.
    BlackHole,
    /// Resets the connection when a request comes.
    Reset,
    /// Answers one byte a second.
    Drip,
    /// Answers 500.
    Failing,
    /// Its host name does not exist.
    NoHost,
}

/// What has arrived.
pub(super) struct Arrivals {
    pub(super) layout: Layout,
    pub(super) shape: Arc<Shape>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
    /// How many Subscriptions, the last of the busy ones, are bad, and not checked.
    pub(super) troubled: u32,
    /// Where every delivery is written down before it is answered. With one, repeats are legal: the
    /// journal is what is judged.
    pub(super) journal: Option<Journal>,
    pub(super) counts: Mutex<Counts>,
}

/// What is counted of the arrivals.
pub(super) struct Counts {
    /// For each Subscription the events that have arrived.
    seen: Vec<Seen>,
    /// Events that came again.
    pub(super) repeats: u64,
    /// From due to delivered, of the measured events, at healthy Subscriptions.
    pub(super) latency: Latency,
}

/// Listening addresses, and the URLs of all Subscriptions.
pub(super) struct Endpoints {
    listeners: Vec<(std::net::TcpListener, Option<Trouble>)>,
    /// The endpoint of each Subscription.
    pub(super) urls: Vec<String>,
}

// === impl Trouble ===

impl Trouble {
    pub(super) const ALL: [Self; 5] =
        [Self::BlackHole, Self::Reset, Self::Drip, Self::Failing, Self::NoHost];
}

// === impl Endpoints ===

impl Endpoints {
    /// Opens the addresses: `listen` for the healthy, and one for each bad one that has any.
    pub(super) async fn open(
        listen: SocketAddr,
        layout: &Layout,
        troubles: &[Trouble],
    ) -> io::Result<Self> {
        let healthy = TcpListener::bind(listen).await?;
        let base = format!("http://{}/", healthy.local_addr()?);
        let mut listeners = vec![(healthy.into_std()?, None)];
        let mut urls: Vec<String> =
            (0..layout.subscriptions).map(|number| format!("{base}{number}")).collect();
        let first_bad = layout.busy() as usize - troubles.len();
        for (url, trouble) in urls[first_bad..].iter_mut().zip(troubles) {
            if *trouble == Trouble::NoHost {
                NOWHERE.clone_into(url);
                continue;
            }
            let listener = TcpListener::bind(SocketAddr::new(listen.ip(), 0)).await?;
            *url = format!("http://{}/", listener.local_addr()?);
            listeners.push((listener.into_std()?, Some(*trouble)));
        }
        Ok(Self { listeners, urls })
    }

    /// Takes deliveries, on a thread of its own, until that is dropped.
    pub(super) fn serve(self, arrivals: Arc<Arrivals>) -> io::Result<Worker<()>> {
        Worker::start("subscribers", async move || {
            let all = self.listeners.into_iter();
            let accepting = all.map(async |(listener, trouble)| {
                // Its runtime is another one now.
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(listener, trouble, &arrivals).await,
                    Err(error) => arrivals.board.complain(format!("a subscriber: {error}")),
                }
            });
            join_all(accepting).await;
        })
    }
}

async fn accept(listener: TcpListener, trouble: Option<Trouble>, arrivals: &Arc<Arrivals>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, trouble, arrivals.clone()));
                }
                Err(error) => {
                    arrivals.board.complain(format!("a subscriber cannot accept: {error}"));
                    return;
                }
            }
        }
    }
}

async fn connection(stream: TcpStream, trouble: Option<Trouble>, arrivals: Arc<Arrivals>) {
    let _ = stream.set_nodelay(true);
    // A connection that breaks is no fault: an event that does not arrive is, and is noticed.
    let _ = match trouble {
        None => take(stream, &arrivals).await,
        Some(trouble) => misbehave(stream, trouble).await,
    };
}

async fn take(mut stream: TcpStream, arrivals: &Arrivals) -> io::Result<()> {
    let mut inbox = Inbox::new();
    while let Some(delivery) = inbox.delivery(&mut stream).await? {
        match arrivals.check(&delivery) {
            Ok((subscription, sequence)) => {
                if let Some(journal) = &arrivals.journal {
                    journal.delivered(subscription, sequence).await?;
                }
                stream.write_all(TAKEN).await?;
            }
            Err(why) => {
                arrivals.board.complain(format!("a delivery that nobody published: {why}"));
                stream.write_all(FAILED).await?;
            }
        }
    }
    Ok(())
}

async fn misbehave(mut stream: TcpStream, trouble: Trouble) -> io::Result<()> {
    let mut inbox = Inbox::new();
    while inbox.delivery(&mut stream).await?.is_some() {
        match trouble {
            Trouble::Reset => return stream.set_zero_linger(),
            Trouble::Failing | Trouble::NoHost => stream.write_all(FAILED).await?,
            Trouble::BlackHole => {
                // Until the other side has had enough.
                while stream.read(&mut [0; 1024]).await? > 0 {}
            }
            Trouble::Drip => {
                for byte in DRIPPED {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(DRIP_PAUSE).await;
                }
            }
        }
    }
    Ok(())
}

// === impl Arrivals ===

impl Arrivals {
    /// Nothing has arrived yet; no endpoint is bad, and there is no journal.
    pub(super) fn new(
        layout: Layout,
        shape: Arc<Shape>,
        board: Arc<Board>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let counts = Mutex::new(Counts::new(&layout));
        Self { layout, shape, board, clock, troubled: 0, journal: None, counts }
    }

    /// Checks a delivery and counts it; returns the Subscription and the event.
    fn check(&self, delivery: &Delivery<'_>) -> Result<(u32, u64), String> {
        let path = delivery.path;
        let subscription = path.strip_prefix('/').and_then(|number| number.parse().ok());
        let Some(subscription) = subscription.filter(|one| *one < self.checked()) else {
            return Err(format!("to {path}, where nothing may come"));
        };
        let Some(stamp) = self.shape.read(delivery.body) else {
            return Err(format!("{} bytes that are no payload of this run", delivery.body.len()));
        };
        let sequence = stamp.sequence;
        if sequence >= self.board.issued()
            || self.shape.type_of(sequence) != self.layout.type_of(subscription)
        {
            return Err(format!("event {sequence} to Subscription {subscription}"));
        }
        if let Some(id) = delivery.event_id
            && id != self.shape.event_id(sequence).as_bytes()
        {
            return Err(format!("event {sequence} with the id of another"));
        }
        let took = self.clock.elapsed().saturating_sub(Duration::from_nanos(stamp.due_ns));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if !counts.seen[subscription as usize].insert(self.shape.place_of(sequence)) {
            counts.repeats += 1;
            return Ok((subscription, sequence));
        }
        if self.board.is_measured(sequence) {
            counts.latency.record(took);
        }
        drop(counts);
        self.board.count_delivered();
        Ok((subscription, sequence))
    }

    /// How many Subscriptions are checked: the first of the busy ones, that are not bad.
    pub(super) fn checked(&self) -> u32 {
        self.layout.busy() - self.troubled
    }

    /// How many deliveries the events before `sequence` are, at the checked Subscriptions.
    pub(super) fn owed(&self, sequence: u64) -> u64 {
        let of = |one| self.shape.count_before(sequence, self.layout.type_of(one));
        (0..self.checked()).map(of).sum()
    }

    /// Whether all of `events` have arrived at every Subscription. Only where there is one type.
    pub(super) fn have_all(&self, events: &Seen) -> bool {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.seen.iter().all(|seen| seen.contains_all(events))
    }

    /// What is wrong once everything should be here: events that are missing, or came again.
    pub(super) fn complaint(&self) -> Option<String> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let issued = self.board.issued();
        for (number, seen) in (0..self.checked()).zip(&counts.seen) {
            let owed = self.shape.count_before(issued, self.layout.type_of(number));
            let lost = owed - seen.count();
            if lost > 0 {
                let first = seen.missing(owed, MISSING_SHOWN);
                return Some(format!(
                    "{lost} of {owed} events did not arrive at Subscription {number}; the first \
                     (counted within its type): {first:?}"
                ));
            }
        }
        let repeats = counts.repeats;
        (repeats > 0).then(|| format!("{repeats} events arrived more than once"))
    }
}

// === impl Counts ===

impl Counts {
    fn new(layout: &Layout) -> Self {
        let seen = (0..layout.busy()).map(|_| Seen::default()).collect();
        Self { seen, repeats: 0, latency: Latency::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemClock;

    fn arrivals(layout: Layout, issued: usize) -> Arrivals {
        let board = Arc::new(Board::new(false, None, 1));
        for _ in 0..issued {
            futures::executor::block_on(board.issue(1)).unwrap();
        }
        let shape = Arc::new(Shape::new(7, layout.event_types, 0));
        Arrivals::new(layout, shape, board, Arc::new(SystemClock::start()))
    }

    const TWO: Layout = Layout { event_types: 2, fan_out: 1, subscriptions: 3, max_inflight: 1 };

    fn body(sequence: u64) -> Vec<u8> {
        let mut request = Shape::new(7, 2, 0).request("h", "/", 1);
        let stamp = super::super::event::Stamp { sequence, due_ns: 0 };
        let bytes = request.stamp(&[stamp]);
        let from = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        bytes[from + 4..].to_vec()
    }

    fn deliver(to: &Arrivals, path: &str, sequence: u64) -> Result<(u32, u64), String> {
        to.check(&Delivery { path, event_id: None, body: &body(sequence) })
    }

    #[test]
    fn everything_once_is_right() {
        let arrivals = arrivals(TWO, 3);
        for (path, sequence) in [("/0", 0), ("/0", 2), ("/1", 1)] {
            deliver(&arrivals, path, sequence).unwrap();
        }
        assert_eq!(arrivals.complaint(), None);
        assert_eq!((arrivals.owed(3), arrivals.board.counters().delivered), (3, 3));
    }

    #[test]
    fn a_missing_and_a_repeated_event_are_noticed() {
        let arrivals = arrivals(TWO, 3);
        deliver(&arrivals, "/0", 2).unwrap();
        deliver(&arrivals, "/1", 1).unwrap();
        let complaint = arrivals.complaint().unwrap();
        assert!(
            complaint.contains("1 of 2 events did not arrive at Subscription 0"),
            "{complaint}"
        );
        assert!(complaint.ends_with("[0]"), "{complaint}");
        deliver(&arrivals, "/0", 0).unwrap();
        deliver(&arrivals, "/0", 2).unwrap();
        assert_eq!(arrivals.complaint().unwrap(), "1 events arrived more than once");
    }

    #[test]
    fn what_nobody_published_is_refused() {
        let arrivals = arrivals(TWO, 3);
        for (path, sequence, why) in [
            ("/0", 1, "the type of another Subscription"),
            ("/0", 4, "not published yet"),
            ("/2", 0, "an idle Subscription"),
            ("/3", 0, "no Subscription"),
            ("/x", 0, "no number"),
        ] {
            assert!(deliver(&arrivals, path, sequence).is_err(), "{why}");
        }
        let body = body(0);
        let of = |event_id, body| arrivals.check(&Delivery { path: "/0", event_id, body });
        assert!(of(Some(b"another id"), &body).is_err());
        assert!(of(None, &body[..body.len() - 2]).is_err());
        let id = arrivals.shape.event_id(0);
        assert_eq!(of(Some(id.as_bytes()), &body), Ok((0, 0)));
    }
}
