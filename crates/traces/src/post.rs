//! The collector, over HTTP.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;

use crate::Form;

/// What is read of an answer: all that a collector has to say, so that its connection can be used
/// again.
const ANSWER_BYTES: usize = 64 * 1024;

/// Why spans cannot be sent to a collector.
#[derive(Debug, thiserror::Error)]
pub enum BadCollector {
    /// The URL cannot be posted to. (It is not repeated: it may hold a password.)
    #[error("must start with http:// or https:// and name a host and no user")]
    Url,
    /// Nobody is trusted.
    #[error("no trusted certificates: {0}")]
    Certificates(#[from] std::io::Error),
}

/// Where a collector takes spans: over HTTP or HTTPS, and without a user.
#[derive(Clone, Debug)]
pub struct CollectorUrl(Uri);

impl CollectorUrl {
    /// Reads one; without a path, it is the one to which collectors take this form.
    pub fn parse(text: &str, form: Form) -> Result<Self, BadCollector> {
        let read = |text: &str| text.parse::<Uri>().map_err(|_| BadCollector::Url);
        let url = read(text)?;
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        let names_user = url.authority().is_some_and(|at| at.as_str().contains('@'));
        if !is_http || names_user {
            return Err(BadCollector::Url);
        }
        if url.path() != "/" || url.query().is_some() {
            return Ok(Self(url));
        }
        read(&format!("{}{}", text.trim_end_matches('/'), form.path())).map(Self)
    }
}

impl fmt::Display for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Takes requests.
pub(crate) struct Collector {
    url: Uri,
    media_type: HeaderValue,
    ask: Box<dyn Fn(Request<Full<Bytes>>) -> ResponseFuture + Send + Sync>,
}

impl Collector {
    /// The collector at `url`, which takes bodies of this media type.
    pub(crate) fn at(url: CollectorUrl, media_type: HeaderValue) -> Result<Self, BadCollector> {
        let CollectorUrl(url) = url;
        let builder = Client::builder(TokioExecutor::new());
        let ask: Box<dyn Fn(_) -> _ + Send + Sync> = if url.scheme_str() == Some("https") {
            let connector = HttpsConnectorBuilder::new()
                .with_native_roots()?
                .https_only()
                .enable_http1()
                .build();
            let client: Client<_, Full<Bytes>> = builder.build(connector);
            Box::new(move |request| client.request(request))
        } else {
            let client: Client<_, Full<Bytes>> = builder.build(HttpConnector::new());
            Box::new(move |request| client.request(request))
        };
        Ok(Self { url, media_type, ask })
    }

    /// Posts a body and returns the answer's; the error says why it was not taken.
    pub(crate) async fn post(&self, body: Bytes) -> Result<Bytes, String> {
        let mut request = Request::post(self.url.clone()).body(Full::new(body)).map_err(said)?;
        request.headers_mut().insert(CONTENT_TYPE, self.media_type.clone());
        let answer = (self.ask)(request).await.map_err(said)?;
        let status = answer.status();
        // Of an answer that is too long or breaks off, the status is what counts.
        let said = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let said = said.map(|said| said.to_bytes()).unwrap_or_default();
        if status.is_success() { Ok(said) } else { Err(format!("it answered {status}")) }
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
