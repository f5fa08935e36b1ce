//! The server's monitoring port, which tells how it syncs.

use bytes::Bytes;
use eventbus_core::limits;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// Bytes of the answer, which has some ten thousand.
const ANSWER_BYTES: usize = 1024 * 1024;

#[derive(Deserialize)]
struct Varz {
    jetstream: Jetstream,
}

#[derive(Default, Deserialize)]
struct Jetstream {
    #[serde(default)]
    config: Config,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
}

/// Does the server at `url` (`http://host:port`) sync before it acknowledges?
pub(crate) async fn syncs_always(url: &str) -> Result<bool, String> {
    let asked = tokio::time::timeout(limits::NATS_CALL_TIME, ask(url)).await;
    let body = asked.map_err(|_| "it does not answer".to_owned())??;
    let varz: Varz = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    Ok(varz.jetstream.config.sync_always)
}

async fn ask(url: &str) -> Result<Bytes, String> {
    let authority = url.strip_prefix("http://").ok_or("say http://host:port")?;
    let authority = authority.trim_end_matches('/');
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(authority).await.map_err(|error| text(&error))?;
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| text(&error))?;
    let request = Request::get("/varz").header("host", authority).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| text(&error))?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| text(&error))
    };
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answered = answered => answered,
        _ = &mut connection => Err("the connection was closed".to_owned()),
    }
}
