//! Requests to the server: publishing with an answer, and the calls of JetStream's own interface.
//!
//! Everything is asked through here, so that everything has a time limit and fails at once while
//! there is no connection.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::subject::ToSubject;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind, StatusCode, Subject};
use bytes::Bytes;
use eventbus_core::limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Counts connections: grows each time one is made or lost.
pub(crate) type Changes = watch::Receiver<u64>;

/// The server's interface.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) client: Client,
    /// Changes when the connection is made or lost.
    pub(crate) changes: Changes,
}

/// Why the server did not do as it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// It answered that it will not.
    #[error("{description} ({code})")]
    Refused {
        /// Its own number of the reason.
        code: u64,
        /// Its own words.
        description: String,
    },
    /// It did not answer.
    #[error("{0}")]
    Away(String),
}

/// The server's numbers of reasons that we act upon.
pub(crate) mod code {
    pub(crate) const CONSUMER_EXISTS: u64 = 10_148;
    pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
    pub(crate) const INSUFFICIENT_RESOURCES: u64 = 10_023;
    pub(crate) const MESSAGE_NOT_FOUND: u64 = 10_037;
    pub(crate) const STORAGE_EXCEEDED: u64 = 10_047;
    pub(crate) const MESSAGE_TOO_LARGE: u64 = 10_054;
    pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10_071;
    pub(crate) const STORE_FAILED: u64 = 10_077;
    pub(crate) const ROLLUP_FAILED: u64 = 10_111;
    pub(crate) const BATCH_REPEATS: u64 = 10_201;
}

impl ApiError {
    /// Did it refuse for this reason?
    pub(crate) fn is(&self, wanted: u64) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == wanted)
    }
}

/// The answer to a publish.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Acknowledged {
    #[serde(default)]
    pub(crate) seq: u64,
    #[serde(default)]
    pub(crate) duplicate: bool,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Failed {
    error: Option<Failure>,
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self::Refused { code: failure.err_code, description: failure.description }
    }
}

impl Api {
    /// Is there a connection?
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Publishes into a stream.
    pub(crate) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Acknowledged, ApiError> {
        let request = Request::new().headers(headers).payload(payload);
        let answer = self.request(subject, request, limits::APPEND_TIME).await?;
        acknowledged(&answer)
    }

    /// Calls JetStream's interface.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let answer = self.ask(verb, body).await?;
        let wrong = |error: serde_json::Error| ApiError::Away(format!("{verb}: {error}"));
        let failed: Failed = serde_json::from_slice(&answer.payload).map_err(wrong)?;
        match failed.error {
            Some(failure) => Err(failure.into()),
            None => serde_json::from_slice(&answer.payload).map_err(wrong),
        }
    }

    /// The same without a look at the answer's body.
    pub(crate) async fn ask(&self, verb: &str, body: &impl Serialize) -> Result<Message, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| ApiError::Away(error.to_string()))?;
        let request = Request::new().payload(body.into());
        self.request(format!("$JS.API.{verb}"), request, limits::NATS_CALL_TIME).await
    }

    /// Gets a message of `stream` as `wanted` says; `None` when there is none.
    pub(crate) async fn get(
        &self,
        stream: &str,
        wanted: &Value,
    ) -> Result<Option<Message>, ApiError> {
        let answer = self.ask(&format!("DIRECT.GET.{stream}"), wanted).await?;
        match answer.status {
            None => Ok(Some(answer)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => {
                let why = answer.description.unwrap_or_default();
                Err(ApiError::Away(format!("DIRECT.GET.{stream}: {status} {why}")))
            }
        }
    }

    /// How many messages of `stream` match `subject`, from the sequence `from` on.
    pub(crate) async fn count(
        &self,
        stream: &str,
        subject: &str,
        from: u64,
    ) -> Result<u64, ApiError> {
        let wanted = json!({ "seq": from.max(1), "next_by_subj": subject, "batch": 1 });
        let Some(first) = self.get(stream, &wanted).await? else { return Ok(0) };
        let behind = first.headers.as_ref().and_then(|headers| headers.get("Nats-Num-Pending"));
        let behind = behind.and_then(|behind| behind.as_str().parse::<u64>().ok());
        behind.map(|behind| behind + 1).ok_or_else(|| {
            ApiError::Away("the server does not count what matches: it is too old".into())
        })
    }

    /// Acknowledges a delivery in the server's `words`, without waiting for anything.
    pub(crate) async fn tell(&self, reply: Subject, words: &'static str) -> Result<(), ApiError> {
        // Without a connection the client would keep it, and say it when nobody means it any more.
        if !self.is_connected() {
            return Err(disconnected());
        }
        let told = self.client.publish(reply, Bytes::from_static(words.as_bytes())).await;
        told.map_err(|error| ApiError::Away(error.to_string()))
    }

    /// The same, and waits until the server has taken it in.
    pub(crate) async fn tell_and_wait(
        &self,
        reply: Subject,
        words: &'static str,
    ) -> Result<(), ApiError> {
        let request = Request::new().payload(Bytes::from_static(words.as_bytes()));
        self.request(reply, request, limits::NATS_CALL_TIME).await.map(drop)
    }

    async fn request(
        &self,
        subject: impl ToSubject,
        request: Request,
        time: Duration,
    ) -> Result<Message, ApiError> {
        if !self.is_connected() {
            return Err(disconnected());
        }
        let request = request.timeout(Some(time));
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let answered = tokio::select! {
            biased;
            answered = self.client.send_request(subject, request) => answered,
            // The answer would come to nobody.
            Ok(()) = changes.changed() => {
                return Err(ApiError::Away("the connection to the NATS server was lost".into()));
            }
        };
        answered.map_err(|error| match error.kind() {
            RequestErrorKind::TimedOut => {
                ApiError::Away(format!("the NATS server did not answer within {time:?}"))
            }
            RequestErrorKind::NoResponders => {
                ApiError::Away("JetStream does not answer: is it enabled, with our streams?".into())
            }
            RequestErrorKind::MaxPayloadExceeded => {
                ApiError::Refused { code: code::MESSAGE_TOO_LARGE, description: error.to_string() }
            }
            _ => ApiError::Away(error.to_string()),
        })
    }
}

fn disconnected() -> ApiError {
    ApiError::Away("there is no connection to the NATS server".into())
}

/// The answer to a publish.
pub(crate) fn acknowledged(answer: &Message) -> Result<Acknowledged, ApiError> {
    let parsed: Result<Acknowledged, _> = serde_json::from_slice(&answer.payload);
    let mut parsed = parsed.map_err(|error| ApiError::Away(format!("its answer: {error}")))?;
    match parsed.error.take() {
        Some(failure) => Err(failure.into()),
        None => Ok(parsed),
    }
}
