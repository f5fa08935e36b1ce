//! The least a client can do: posts as fast as a server answers. What deliveries are measured
//! against.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What is posted, and how.
pub(crate) struct Client {
    pub(crate) to: Uri,
    pub(crate) connections: usize,
    /// Over so many connections of HTTP/2 instead, with as many requests under way.
    pub(crate) http2: Option<usize>,
    pub(crate) payload: usize,
    pub(crate) time: Duration,
}

impl Client {
    /// Posts for as long as it was told; returns the requests answered with 2xx in a second.
    pub(crate) async fn rate(&self) -> io::Result<f64> {
        let until = Instant::now() + self.time;
        let body = Bytes::from(vec![b'x'; self.payload]);
        let authority = self.to.authority().ok_or_else(|| io::Error::other("no host"))?.to_string();
        // What moves the bytes ends with the measurement.
        let mut driven = JoinSet::new();
        let mut shared = Vec::new();
        for _ in 0..self.http2.unwrap_or_default() {
            let io = TokioIo::new(connect(&authority).await?);
            let opened = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = opened.map_err(io::Error::other)?;
            driven.spawn(connection);
            shared.push(sender);
        }
        let mut connections = JoinSet::new();
        for number in 0..self.connections {
            let sender = match shared.get(number % shared.len().max(1)) {
                Some(sender) => Sender::Http2(sender.clone()),
                None => {
                    let opened = http1::handshake(TokioIo::new(connect(&authority).await?)).await;
                    let (sender, connection) = opened.map_err(io::Error::other)?;
                    driven.spawn(connection);
                    Sender::Http1(sender)
                }
            };
            connections.spawn(post(sender, self.to.clone(), body.clone(), until));
        }
        let mut answered = 0;
        while let Some(ended) = connections.join_next().await {
            answered += ended.map_err(io::Error::other)??;
        }
        Ok(f64::from(answered) / self.time.as_secs_f64())
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }
}

async fn connect(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Posts one after the other; returns how many were answered.
async fn post(mut sender: Sender, to: Uri, body: Bytes, until: Instant) -> io::Result<u32> {
    // HTTP/1.1 wants the path alone, and the host beside it.
    let authority = to.authority().map(ToString::to_string).unwrap_or_default();
    let target = match sender {
        Sender::Http1(_) => Uri::try_from(to.path()).map_err(io::Error::other)?,
        Sender::Http2(_) => to,
    };
    let mut answered = 0;
    while Instant::now() < until {
        let request = Request::post(target.clone())
            .header(HOST, &authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))
            .map_err(io::Error::other)?;
        let answer = sender.send(request).await.map_err(io::Error::other)?;
        if !answer.status().is_success() {
            return Err(io::Error::other(format!("the server answers {}", answer.status())));
        }
        answer.into_body().collect().await.map_err(io::Error::other)?;
        answered += 1;
    }
    Ok(answered)
}
