//! A port: accepts connections and serves requests on them, within limits.
//!
//! The accept loop is our own because the limits are: a head that does not arrive in time ends its
//! connection, as does silence before the first one, and a client that takes nothing of its answer;
//! the number of connections is bounded, and a drain waits for the requests in work and no longer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::limits;
use futures::FutureExt;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::greeting::{Version, greet};
use crate::stall::Unstalled;
use crate::timer::OneTimer;
use crate::tls::Identity;

/// Pause after a failed accept: the process may be out of descriptors, and spinning does not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client said just before a stop may take this long to be seen.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// Concurrent HTTP/2 requests of one connection; HTTP/1.1 has one.
const STREAMS: u32 = 128;

/// An open port.
#[derive(Debug)]
pub struct Port {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
    connections: usize,
    identity: Option<Identity>,
    has_short_answers: bool,
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the {name} port: {error}. {advice}")]
pub struct ListenError {
    name: &'static str,
    address: SocketAddr,
    error: std::io::Error,
    advice: &'static str,
}

impl Port {
    /// Opens the port called `name`, for so many connections at once (at most
    /// [`limits::CONNECTIONS`]); with port number 0 the system chooses one.
    pub async fn open(
        name: &'static str,
        address: SocketAddr,
        connections: usize,
    ) -> Result<Self, ListenError> {
        let failed =
            |error: std::io::Error| ListenError { name, address, advice: advice(&error), error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let connections = connections.min(limits::CONNECTIONS);
        Ok(Self { name, listener, address, connections, identity: None, has_short_answers: false })
    }

    /// Speaks TLS, too, with whoever begins it: as `identity`.
    pub fn with_identity(self, identity: Identity) -> Self {
        Self { identity: Some(identity), ..self }
    }

    /// Sends each answer in one piece, which is cheaper where hardly one is long.
    pub fn with_short_answers(self) -> Self {
        Self { has_short_answers: true, ..self }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then waits until the requests in work are answered.
    pub async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let connections = Arc::new(Semaphore::new(self.connections));
        let tasks = TaskTracker::new();
        let graceful = GracefulShutdown::new();
        let servers = Servers::new(self.has_short_answers);
        loop {
            // Who connected before the stop still comes in.
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => self.accept(&connections).now_or_never(),
                accepted = self.accept(&connections) => Some(accepted),
            };
            let Some((stream, permit)) = accepted else { break };
            let (servers, service) = (servers.clone(), service.clone());
            let (watcher, stop) = (graceful.watcher(), stop.clone());
            let identity = self.identity.clone();
            tasks.spawn(async move {
                let greeted = tokio::select! {
                    greeted = greet(stream, identity.as_ref()) => greeted,
                    () = stop.cancelled().then(|()| sleep(LAST_LOOK)) => None,
                };
                let Some((version, stream)) = greeted else { return };
                let server = servers.of(version);
                let connection =
                    server.serve_connection(TokioIo::new(Unstalled::new(stream)), service);
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    debug!(%error, "a connection ended early");
                }
                drop(permit);
            });
        }
        drop(self.listener);
        graceful.shutdown().await;
        tasks.close();
        tasks.wait().await;
    }

    async fn accept(&self, connections: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            // While all connections are taken, new ones wait in the system's queue.
            let Ok(permit) = connections.clone().acquire_owned().await else {
                std::future::pending::<()>().await;
                continue;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Without it an answer in two writes waits for the peer's delayed ack.
                    let _ = stream.set_nodelay(true);
                    return (stream, permit);
                }
                Err(error) => {
                    warn!(port = self.name, %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A server for each version.
#[derive(Clone)]
struct Servers {
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

impl Servers {
    fn new(has_short_answers: bool) -> Self {
        let mut http1 = auto::Builder::new(TokioExecutor::new()).http1_only();
        http1.http1().header_read_timeout(limits::HEAD_TIME);
        if has_short_answers {
            http1.http1().writev(false);
        }
        let mut http2 = auto::Builder::new(TokioExecutor::new()).http2_only();
        http2
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(limits::HEAD_TIME);
        Self { http1, http2 }
    }

    /// The server of one connection.
    fn of(mut self, version: Version) -> auto::Builder<TokioExecutor> {
        match version {
            Version::Http1 => {
                self.http1.http1().timer(OneTimer::default());
                self.http1
            }
            Version::Http2 => self.http2,
        }
    }
}

fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "Another program uses it: stop that program or choose another port (0 lets the system \
             choose)."
        }
        std::io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need a privilege: choose a higher one."
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "This machine has no such address: use 127.0.0.1, or one of its own."
        }
        _ => "Choose another address.",
    }
}
