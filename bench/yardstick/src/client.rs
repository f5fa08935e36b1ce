//! The least a client can do: posts as fast as a server answers. What deliveries are measured
//! against.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What is posted, and how.
pub(crate) struct Client {
    pub(crate) to: Uri,
    pub(crate) connections: usize,
    pub(crate) payload: usize,
    pub(crate) time: Duration,
}

impl Client {
    /// Posts for as long as it was told; returns the requests answered with 2xx in a second.
    pub(crate) async fn rate(&self) -> io::Result<f64> {
        let until = Instant::now() + self.time;
        let body = Bytes::from(vec![b'x'; self.payload]);
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            connections.spawn(post(self.to.clone(), body.clone(), until));
        }
        let mut answered = 0;
        while let Some(ended) = connections.join_next().await {
            answered += ended.map_err(io::Error::other)??;
        }
        Ok(f64::from(answered) / self.time.as_secs_f64())
    }
}

/// Posts over one connection, one after the other; returns how many were answered.
async fn post(to: Uri, body: Bytes, until: Instant) -> io::Result<u32> {
    let authority = to.authority().ok_or_else(|| io::Error::other("no host"))?.to_string();
    let stream = TcpStream::connect(&authority).await?;
    stream.set_nodelay(true)?;
    let opened = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(io::Error::other)?;
    // It ends when its sender does.
    tokio::spawn(connection);
    let mut answered = 0;
    while Instant::now() < until {
        let request = Request::post(to.path())
            .header(HOST, &authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.clone()))
            .map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        if !answer.status().is_success() {
            return Err(io::Error::other(format!("the server answers {}", answer.status())));
        }
        answer.into_body().collect().await.map_err(io::Error::other)?;
        answered += 1;
    }
    Ok(answered)
}
