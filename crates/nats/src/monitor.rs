//! The servers' monitoring ports, which tell how they sync.

use bytes::Bytes;
use eventbus_core::limits;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::sync::Varz;

/// Bytes of the answer, which has some ten thousand.
const ANSWER_BYTES: usize = 1024 * 1024;

/// Does each server at `urls` (`http://host:port`) sync before it acknowledges?
pub(crate) async fn syncs_always(urls: &[String]) -> Result<bool, String> {
    let asked = join_all(urls.iter().map(|url| async move {
        let told = one(url).await;
        told.map_err(|reason| format!("the monitoring port {url}: {reason}"))
    }));
    let told: Result<Vec<bool>, String> = asked.await.into_iter().collect();
    // Of none, nothing is known.
    Ok(!urls.is_empty() && told?.into_iter().all(|always| always))
}

async fn one(url: &str) -> Result<bool, String> {
    let asked = tokio::time::timeout(limits::NATS_CALL_TIME, ask(url)).await;
    let body = asked.map_err(|_| "it does not answer".to_owned())??;
    let varz: Result<Varz, _> = serde_json::from_slice(&body);
    let varz = varz.map_err(|error| format!("it is none of a NATS server: {error}"))?;
    varz.syncs_always().ok_or_else(|| "its server has no JetStream".to_owned())
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
