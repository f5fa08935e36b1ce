//! Attempts over HTTP/1.1: resolve, connect, TLS, request, answer; and the connections between.
//!
//! What is seen on the wire is the contract's, down to the capitals of the header names.

mod answer;
mod chunks;
mod connection;
mod pool;
mod request;
mod resolver;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use eventbus_core::Clock;
use eventbus_core::delivery::Outcome;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::either::Either;

use self::connection::{Connection, Failure};
use self::pool::Pool;
use self::resolver::Resolver;
use self::tls::Tls;
use crate::endpoint::{Endpoint, Origin};
use crate::transport::{Delivery, Transport};

/// The transport over HTTP/1.1, plain or through TLS.
///
/// It knows no proxy, follows no redirect, and asks for no compressed answer.
pub struct Http {
    clock: Arc<dyn Clock>,
    pool: Pool,
    resolver: Resolver,
    tls: Tls,
}

impl Http {
    /// A transport that holds at most `connections` connections, busy and idle, and trusts these
    /// certificates beside the system's.
    pub fn new(
        clock: Arc<dyn Clock>,
        connections: usize,
        trusted: Vec<CertificateDer<'static>>,
    ) -> Self {
        let (pool, resolver) = (Pool::new(connections), Resolver::new(clock.clone()));
        Self { clock, pool, resolver, tls: Tls::new(trusted) }
    }

    async fn exchange(
        &self,
        mut connection: Box<Connection>,
        delivery: &Delivery<'_>,
    ) -> Result<u16, Failure> {
        let answered = connection.exchange(delivery).await?;
        if answered.lasts && connection.fall_idle() {
            self.pool.put(&delivery.endpoint.origin, connection, self.clock.elapsed());
        }
        Ok(answered.status)
    }

    async fn open(&self, origin: &Origin, deadline: Instant) -> Result<Box<Connection>, Outcome> {
        let addresses = self.resolver.resolve(&origin.host).await.ok_or(Outcome::Dns)?;
        let descriptor = self.pool.descriptor();
        let stream = connect(&addresses, origin.port, deadline).await.ok_or(Outcome::Connect)?;
        // Without it the kernel waits for more to send after a small request.
        stream.set_nodelay(true).map_err(|_| Outcome::Connect)?;
        let stream = if origin.secure {
            Either::Right(Box::new(self.tls.connect(&origin.host, stream).await?))
        } else {
            Either::Left(stream)
        };
        Ok(Box::new(Connection::new(stream, descriptor)))
    }
}

impl Transport for Http {
    async fn attempt(&self, delivery: &Delivery<'_>) -> Outcome {
        let Endpoint { origin, .. } = delivery.endpoint;
        if let Some(idle) = self.pool.take(origin) {
            match self.exchange(idle, delivery).await {
                Ok(status) => return Outcome::Status(status),
                // Its peer closed it while it was idle: that says nothing about the endpoint. Once
                // a byte was written the peer may have the event, and to send it again is a retry.
                Err(Failure { is_unsent: true, .. }) => {}
                Err(failure) => return failure.outcome,
            }
        }
        // In a box, because connecting is rare and its state larger than all the rest.
        let fresh = match Box::pin(self.open(origin, delivery.deadline)).await {
            Ok(fresh) => fresh,
            Err(outcome) => return outcome,
        };
        match self.exchange(fresh, delivery).await {
            Ok(status) => Outcome::Status(status),
            Err(failure) => failure.outcome,
        }
    }

    fn tidy(&self) {
        self.pool.tidy(self.clock.elapsed());
    }
}

/// Connects to the first address that answers. Each gets an equal part of the time that is left, so
/// that one black hole among them does not hide the others.
async fn connect(addresses: &[IpAddr], port: u16, deadline: Instant) -> Option<TcpStream> {
    for (tried, &address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let parts = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let connecting = TcpStream::connect(SocketAddr::new(address, port));
        if parts == 1 {
            return connecting.await.ok();
        }
        if let Ok(Ok(stream)) = timeout(left / parts, connecting).await {
            return Some(stream);
        }
    }
    None
}
