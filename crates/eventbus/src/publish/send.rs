//! Posting events, and again while the bus asks for patience or its answer is lost.
//!
//! Every event has an id, so that a bus that has stored it and whose answer was lost knows it.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::Clock;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error, ResponseFuture};
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::args::Args;
use super::batch::Events;
use super::outcome::{self, Outcome};
use super::progress::Progress;
use crate::cli::Fault;

/// One try, from connecting to the end of the answer. Longer than a bus ever works on one request.
const TRY_TIME: Duration = Duration::from_secs(60);

/// How long a request that is under way still has once the command is interrupted: time for an
/// answer that is as good as there, and short for who pressed Ctrl-C.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// The longest pause between two tries, whatever `Retry-After` says: a person waits for the end.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The most that is read of an answer, and of each of a batch's results: an error body with every
/// field wrong is far smaller.
const ANSWER_BYTES: usize = 64 * 1024;
const RESULT_BYTES: usize = 4 * 1024;

/// How the events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As the contract's events: one alone, or a batch.
    Contract,
    /// As CloudEvents: always a batch.
    CloudEvents,
}

/// Posts events to one bus.
pub(super) struct Publisher<'a> {
    url: Uri,
    /// Where batches go.
    batch_url: Uri,
    form: Form,
    tries: u16,
    post: Box<dyn Fn(Request<Full<Bytes>>) -> ResponseFuture>,
    /// Whether there was ever an answer.
    is_heard: Cell<bool>,
    /// Shows what is waited for.
    progress: &'a Progress,
    /// Cancelled when nothing is to be tried again.
    stop: CancellationToken,
}

/// What the bus says to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Without white space at its ends.
    pub(super) body: String,
    /// Whether it was a batch, which has a result for each event.
    pub(super) is_of_batch: bool,
    retry_after: Option<String>,
}

#[cfg(test)]
impl Answer {
    pub(super) fn of(status: u16, body: &str, is_of_batch: bool) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, body: body.to_owned(), is_of_batch, retry_after: None }
    }
}

/// There is no answer.
enum Lost {
    /// The bus could not be reached.
    Unreached(String),
    /// If the request was sent, its events may be stored.
    Unanswered(String),
}

// === impl Publisher ===

impl<'a> Publisher<'a> {
    /// A publisher that posts to the URL of the arguments, until `stop`.
    pub(super) fn new(
        args: &Args,
        progress: &'a Progress,
        stop: CancellationToken,
    ) -> Result<Self, Fault> {
        let (url, form, tries) = (&args.url, args.form(), args.tries);
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
        let batch_url = match form {
            Form::Contract => below(url, "batch"),
            Form::CloudEvents => url.clone(),
        };
        let (url, is_heard) = (url.clone(), Cell::new(false));
        Ok(Self { url, batch_url, form, tries, post, is_heard, progress, stop })
    }

    /// Posts events until the bus has said what became of each, or was asked often enough. Those
    /// of a batch that are asked for patience are sent again without the others.
    pub(super) async fn publish(&self, events: &Events, clock: &dyn Clock) -> Vec<Outcome> {
        let mut tried = 0;
        let answer = self.answer(events, &mut tried, clock).await;
        let mut wish = wish(&answer);
        let mut outcomes = outcome::of(answer, events.count());
        while tried < self.tries {
            let again = |at: &usize| outcomes[*at].status().is_some_and(asks_for_patience);
            let left: Vec<usize> = (0..outcomes.len()).filter(again).collect();
            let Some(status) = left.first().and_then(|at| outcomes[*at].status()) else { break };
            let pause = pause(wish.as_deref(), tried, clock.now_ms());
            if !self.waits(status.as_str(), pause).await {
                break;
            }
            let answer = self.answer(&events.some(&left), &mut tried, clock).await;
            wish = self::wish(&answer);
            let said = outcome::of(answer, left.len());
            left.into_iter().zip(said).for_each(|(at, outcome)| outcomes[at] = outcome);
        }
        outcomes
    }

    /// Posts events until the bus answers something else than that it asks for patience, or was
    /// asked often enough (`tried` counts). Without an answer: why.
    ///
    /// A bus that has answered is believed to come back; one that never did is not waited for.
    pub(super) async fn answer(
        &self,
        events: &Events,
        tried: &mut u16,
        clock: &dyn Clock,
    ) -> Result<Answer, String> {
        loop {
            let answer = self.post_in_time(events).await;
            *tried += 1;
            let (why, retry_after, again) = match &answer {
                Ok(Answer { status, retry_after, .. }) => {
                    self.is_heard.set(true);
                    (status.as_str(), retry_after.as_deref(), asks_for_patience(*status))
                }
                Err(Lost::Unreached(_)) => ("no connection", None, self.is_heard.get()),
                Err(Lost::Unanswered(_)) => ("no answer", None, true),
            };
            if *tried >= self.tries || !again {
                return answer.map_err(Lost::into_reason);
            }
            let pause = pause(retry_after, *tried, clock.now_ms());
            if !self.waits(why, pause).await {
                return answer.map_err(Lost::into_reason);
            }
        }
    }

    /// Waits before the next try; whether there is to be one.
    async fn waits(&self, why: &str, pause: Duration) -> bool {
        let _shown = self.progress.wait(why, pause);
        self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }

    async fn post_in_time(&self, events: &Events) -> Result<Answer, Lost> {
        let interrupted = async {
            self.stop.cancelled().await;
            tokio::time::sleep(LAST_WAIT).await;
        };
        tokio::select! {
            biased;
            answer = self.post(events) => answer,
            () = interrupted => Err(Lost::Unanswered("interrupted".to_owned())),
            () = tokio::time::sleep(TRY_TIME) => Err(Lost::late()),
        }
    }

    async fn post(&self, events: &Events) -> Result<Answer, Lost> {
        let alone = events.alone().filter(|_| self.form == Form::Contract);
        let is_of_batch = alone.is_none();
        let (url, body) = match alone {
            Some(event) => (&self.url, event),
            None => (&self.batch_url, events.array.clone()),
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, self.form.content_type())
            .body(Full::new(body))
            .map_err(|error| Lost::Unreached(error.to_string()))?;
        let response = (self.post)(request).await.map_err(Lost::from)?;
        let retry_after = response.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = response.status();
        let most = ANSWER_BYTES + RESULT_BYTES * events.count();
        let body = Limited::new(response.into_body(), most).collect().await;
        let body = body.map_err(|error| Lost::Unanswered(format!("{status}, then {error}")))?;
        let body = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
        Ok(Answer { status, body, is_of_batch, retry_after })
    }
}

// === impl Form ===

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Self::Contract => "application/json",
            Self::CloudEvents => "application/cloudevents-batch+json",
        }
    }
}

// === impl Lost ===

impl Lost {
    fn late() -> Self {
        Self::Unanswered(format!("no answer in {}s", TRY_TIME.as_secs()))
    }

    fn into_reason(self) -> String {
        match self {
            Self::Unreached(why) | Self::Unanswered(why) => why,
        }
    }
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        let why = chain(&error);
        if error.is_connect() { Self::Unreached(why) } else { Self::Unanswered(why) }
    }
}

/// The pause that an answer asks for.
fn wish(answer: &Result<Answer, String>) -> Option<String> {
    answer.as_ref().ok()?.retry_after.clone()
}

/// Whether the same request may be taken a little later.
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

/// The path `name` below the one of `url`.
fn below(url: &Uri, name: &str) -> Uri {
    let path = format!("{}/{name}", url.path().trim_end_matches('/'));
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = url.clone().into_parts();
    parts.path_and_query = format!("{path}{query}").parse().ok();
    // A path that is longer by a name is as valid as it was.
    Uri::from_parts(parts).unwrap_or_else(|_| url.clone())
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
    fn batches_go_beside_single_events() {
        for (url, batches) in [
            ("http://h:1/v1/events", "http://h:1/v1/events/batch"),
            ("https://h/", "https://h/batch"),
            ("http://h/bus/?a=b", "http://h/bus/batch?a=b"),
        ] {
            assert_eq!(below(&url.parse().unwrap(), "batch").to_string(), batches);
        }
    }
}
