//! The collector, over HTTP.

use std::error::Error;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;

/// What is read of an answer, so that its connection can be used again.
const ANSWER_BYTES: usize = 64 * 1024;

/// Why spans cannot be sent to a collector.
#[derive(Debug, thiserror::Error)]
pub enum BadCollector {
    /// The URL cannot be posted to. (It is not repeated: it may hold a password.)
    #[error("give a URL that starts with http:// or https:// and names no user")]
    Url,
    /// Nobody is trusted.
    #[error("no trusted certificates: {0}")]
    Certificates(#[from] std::io::Error),
}

/// Takes requests.
pub(crate) struct Collector {
    url: Uri,
    media_type: HeaderValue,
    ask: Box<dyn Fn(Request<Full<Bytes>>) -> ResponseFuture + Send + Sync>,
}

impl Collector {
    /// The collector at `url`, which takes bodies of this media type.
    pub(crate) fn at(url: Uri, media_type: HeaderValue) -> Result<Self, BadCollector> {
        let builder = Client::builder(TokioExecutor::new());
        let has_user = url.authority().is_some_and(|at| at.as_str().contains('@'));
        let ask: Box<dyn Fn(_) -> _ + Send + Sync> = match url.scheme_str() {
            Some("http") if !has_user => {
                let client: Client<_, Full<Bytes>> = builder.clone().build(HttpConnector::new());
                Box::new(move |request| client.request(request))
            }
            Some("https") if !has_user => {
                let connector = HttpsConnectorBuilder::new()
                    .with_native_roots()?
                    .https_only()
                    .enable_http1()
                    .build();
                let client: Client<_, Full<Bytes>> = builder.clone().build(connector);
                Box::new(move |request| client.request(request))
            }
            _ => return Err(BadCollector::Url),
        };
        Ok(Self { url, media_type, ask })
    }

    /// Posts a body; the error says why it was not taken.
    pub(crate) async fn post(&self, body: Bytes) -> Result<(), String> {
        let mut request = Request::post(self.url.clone()).body(Full::new(body)).map_err(said)?;
        request.headers_mut().insert(CONTENT_TYPE, self.media_type.clone());
        let answer = (self.ask)(request).await.map_err(said)?;
        let status = answer.status();
        let _ = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

/// The last of the reasons, which is the first.
fn said(error: impl Error) -> String {
    let mut reason: &dyn Error = &error;
    while let Some(deeper) = reason.source() {
        reason = deeper;
    }
    reason.to_string()
}
