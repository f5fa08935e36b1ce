//! The subscribers: they take deliveries as cheaply as they can, and behave as they are told.
//!
//! All of them live on one thread. Healthy ones share one address and are told apart by the path;
//! each bad or slow one has an address of its own, as it would have in life.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::arrivals::Arrivals;
use super::inbox::Inbox;
use super::plan::{Conduct, Layout};
use super::worker::Worker;

/// Connections that one address takes at once: more than any bus should open to one endpoint.
const CONNECTIONS: usize = 16 * 1024;

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
    /// Takes its events, each only after so long.
    Slow(Duration),
}

/// Listening addresses, and the URLs of all Subscriptions.
pub(super) struct Endpoints {
    listeners: Vec<(std::net::TcpListener, Option<Trouble>)>,
    /// The endpoint of each Subscription.
    pub(super) urls: Vec<String>,
}

// === impl Trouble ===

impl Trouble {
    /// Those that no event survives.
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
        for (number, trouble) in (first_bad..).zip(troubles) {
            let url = &mut urls[number];
            if *trouble == Trouble::NoHost {
                NOWHERE.clone_into(url);
                continue;
            }
            let listener = TcpListener::bind(SocketAddr::new(listen.ip(), 0)).await?;
            *url = format!("http://{}/{number}", listener.local_addr()?);
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
        None => take(stream, arrivals.conduct, &arrivals).await,
        Some(Trouble::Slow(latency)) => {
            take(stream, Conduct { latency, failures: 0.0 }, &arrivals).await
        }
        Some(trouble) => misbehave(stream, trouble).await,
    };
}

async fn take(mut stream: TcpStream, conduct: Conduct, arrivals: &Arrivals) -> io::Result<()> {
    let mut inbox = Inbox::new();
    while let Some(delivery) = inbox.delivery(&mut stream).await? {
        let answer = match arrivals.check(&delivery) {
            Ok(arrival) if arrivals.count(&arrival, conduct.failures) => {
                if let Some(journal) = &arrivals.journal {
                    journal.delivered(arrival.subscription, arrival.sequence).await?;
                }
                TAKEN
            }
            Ok(_) => FAILED,
            Err(why) => {
                arrivals.board.complain(format!("a delivery that nobody published: {why}"));
                FAILED
            }
        };
        if !conduct.latency.is_zero() {
            tokio::time::sleep(conduct.latency).await;
        }
        stream.write_all(answer).await?;
    }
    Ok(())
}

async fn misbehave(mut stream: TcpStream, trouble: Trouble) -> io::Result<()> {
    let mut inbox = Inbox::new();
    while inbox.delivery(&mut stream).await?.is_some() {
        match trouble {
            Trouble::Reset => return stream.set_zero_linger(),
            Trouble::Failing | Trouble::NoHost | Trouble::Slow(_) => {
                stream.write_all(FAILED).await?
            }
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
