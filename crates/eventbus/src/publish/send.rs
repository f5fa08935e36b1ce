//! Posting one event, and again while the bus asks for patience.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::Clock;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;

use crate::cli::Fault;
use crate::output::printable;

/// One try, from connecting to the end of the answer. Longer than a bus ever works on one event.
const TRY_TIME: Duration = Duration::from_secs(60);

/// The longest pause between two tries, whatever `Retry-After` says: a person waits for the end.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The most that is read of an answer: an error body with every field wrong is far smaller.
const ANSWER_BYTES: usize = 64 * 1024;

/// Posts events to one bus.
pub(super) struct Publisher {
    url: Uri,
    tries: u16,
    post: Box<dyn Fn(Request<Full<Bytes>>) -> ResponseFuture>,
}

/// What became of one event. Its `Display` is the result line.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The bus took it: stored it, or ignored it because nobody listens.
    Taken { status: StatusCode, body: String, ignored: bool },
    /// The bus answered, but did not take it.
    Refused { status: StatusCode, body: String },
    /// There is no answer, or nothing was sent. If it was sent, it may have been stored.
    Unsent(String),
}

struct Answer {
    status: StatusCode,
    retry_after: Option<String>,
    body: String,
}

// === impl Publisher ===

impl Publisher {
    /// A publisher that posts to `url` and tries an event at most `tries` times.
    pub(super) fn to(url: &Uri, tries: u16) -> Result<Self, Fault> {
        let builder = Client::builder(TokioExecutor::new());
        let post: Box<dyn Fn(_) -> _> = match url.scheme_str() {
            Some("http") => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                let client: Client<_, Full<Bytes>> = builder.clone().build(connector);
                Box::new(move |request| client.request(request))
            }
            Some("https") => {
                let connector = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_native_roots()
                    .map_err(|error| Fault::Failed(format!("no trusted certificates: {error}")))?
                    .https_only()
                    .enable_http1()
                    .build();
                let client: Client<_, Full<Bytes>> = builder.clone().build(connector);
                Box::new(move |request| client.request(request))
            }
            _ => {
                let wrong = format!("--url {url}: give a URL that starts with http:// or https://");
                return Err(Fault::Usage(wrong));
            }
        };
        Ok(Self { url: url.clone(), tries, post })
    }

    /// Posts an event until it is taken, refused for good, or tried often enough.
    pub(super) async fn publish(&self, event: Bytes, clock: &dyn Clock) -> Outcome {
        let mut tried = 0;
        loop {
            let answer = match tokio::time::timeout(TRY_TIME, self.post(event.clone())).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(why)) => return Outcome::Unsent(why),
                Err(_) => return Outcome::Unsent(format!("no answer in {}s", TRY_TIME.as_secs())),
            };
            tried += 1;
            if tried >= self.tries || !asks_for_patience(answer.status) {
                return answer.into();
            }
            let now_ms = clock.now_ms();
            tokio::time::sleep(pause(answer.retry_after.as_deref(), tried, now_ms)).await;
        }
    }

    async fn post(&self, event: Bytes) -> Result<Answer, String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(event))
            .map_err(|error| error.to_string())?;
        let response = (self.post)(request).await.map_err(|error| chain(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| format!("{status}, then {error}"))?.to_bytes();
        Ok(Answer { status, retry_after, body: String::from_utf8_lossy(&body).trim().to_owned() })
    }
}

/// Whether the same event may be taken a little later.
fn asks_for_patience(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::INSUFFICIENT_STORAGE
    )
}

/// How long to wait after the `tried`-th try: what `Retry-After` says (seconds or a date), else one
/// second that doubles; never above [`PAUSE_MAX`].
fn pause(retry_after: Option<&str>, tried: u16, now_ms: u64) -> Duration {
    let asked = retry_after.and_then(|text| match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => until(text, now_ms),
    });
    let own = Duration::from_secs(1 << (tried - 1).min(5));
    asked.unwrap_or(own).min(PAUSE_MAX)
}

/// The time from `now_ms` to an HTTP date; none of it if it has passed.
fn until(date: &str, now_ms: u64) -> Option<Duration> {
    let date: Timestamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    let ms = u64::try_from(date.as_millisecond()).ok()?;
    Some(Duration::from_millis(ms.saturating_sub(now_ms)))
}

/// An error with its causes: the outermost alone ("client error") says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

// === impl Outcome ===

impl From<Answer> for Outcome {
    fn from(Answer { status, body, .. }: Answer) -> Self {
        #[derive(serde::Deserialize)]
        struct Taken {
            status: Option<String>,
        }
        if !status.is_success() {
            return Self::Refused { status, body };
        }
        let taken = serde_json::from_str::<Taken>(&body).ok().and_then(|taken| taken.status);
        Self::Taken { status, body, ignored: taken.as_deref() == Some("ignored") }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { status, body, .. } | Self::Refused { status, body } => {
                write!(formatter, "{} {}", status.as_str(), printable(body))
            }
            Self::Unsent(why) => write!(formatter, "--- {}", printable(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_what_the_bus_asks_for_up_to_a_limit() {
        assert_eq!(pause(Some("7"), 1, 0), Duration::from_secs(7));
        assert_eq!(pause(Some("0"), 3, 0), Duration::ZERO);
        assert_eq!(pause(Some("86400"), 1, 0), PAUSE_MAX);
        let date = "Thu, 01 Jan 1970 00:00:10 GMT";
        assert_eq!(pause(Some(date), 1, 4_000), Duration::from_secs(6));
        assert_eq!(pause(Some(date), 1, 60_000), Duration::ZERO);
    }

    #[test]
    fn without_a_readable_wish_the_pause_doubles() {
        for wish in [None, Some("soon"), Some("-1")] {
            let pauses: Vec<u64> = (1..=7).map(|tried| pause(wish, tried, 0).as_secs()).collect();
            assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let of = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            Outcome::from(Answer { status, retry_after: None, body: body.to_owned() })
        };
        let published = of(200, r#"{"event-id":"1","status":"published","reason":"r"}"#);
        assert!(matches!(published, Outcome::Taken { ignored: false, .. }));
        assert!(matches!(of(200, r#"{"status":"ignored"}"#), Outcome::Taken { ignored: true, .. }));
        assert!(matches!(of(200, r#"{"event-id":"1"}"#), Outcome::Taken { ignored: false, .. }));
        assert!(matches!(of(302, ""), Outcome::Refused { .. }));
        assert_eq!(of(400, "{\"a\":\n1}").to_string(), "400 {\"a\":\\n1}");
    }
}
