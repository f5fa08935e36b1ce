//! The endpoints of a run on a Svix server, made and removed through its API.
//!
//! A run has an application of its own, named by the run, and event types of its own, since an
//! endpoint may only ask for types that the server knows.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::event::Shape;
use super::plan::Load;
use super::resources::Wanted;
use crate::cli::Fault;
use crate::output::printable;

/// How long one request to the API may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of an answer a complaint shows, in characters.
const SHOWN_CHARS: usize = 300;

/// The application of one run.
pub(super) struct Svix {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Scheme and authority.
    server: String,
    token: String,
    application: String,
}

/// The bearer token in a file.
pub(super) fn token(file: &Path) -> Result<String, Fault> {
    let wrong = |why: String| Fault::Usage(format!("--token-file {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    match token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty() {
        true => Ok(token.to_owned()),
        false => Err(wrong("no token in there".to_owned())),
    }
}

/// Where the events of a run are posted. The server is asked not to send them back.
pub(super) fn path_of_events(shape: &Shape) -> String {
    format!("/api/v1/app/{}/msg/?with_content=false", application(shape.run()))
}

fn application(run: u64) -> String {
    format!("eventbus-bench-{run:016x}")
}

impl Svix {
    /// Nothing is made yet.
    pub(super) fn of_run(run: u64, load: &Load) -> Result<Self, Fault> {
        let token = load.token_file.as_deref().map(token).transpose()?.unwrap_or_default();
        let server = format!("http://{}", load.url.authority().map_or("", |all| all.as_str()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, server, token, application: application(run) })
    }

    /// Makes the application, the event types and an endpoint for each of `wanted`.
    pub(super) async fn create(&self, wanted: &[Wanted]) -> Result<(), Fault> {
        let application = &self.application;
        let of_run = json!({ "name": application, "uid": application });
        self.ask(Method::POST, "/api/v1/app/", Some(of_run)).await?;
        for event_type in types(wanted) {
            let described = json!({ "name": event_type, "description": "of eventbus bench" });
            self.ask(Method::POST, "/api/v1/event-type/", Some(described)).await?;
        }
        for Wanted { endpoint, event_type, .. } in wanted {
            let asked = json!({ "url": endpoint, "version": 1, "filterTypes": [event_type] });
            let path = format!("/api/v1/app/{application}/endpoint/");
            self.ask(Method::POST, &path, Some(asked)).await?;
        }
        Ok(())
    }

    /// Deletes the application with its endpoints, and the event types of `wanted`.
    pub(super) async fn delete(&self, wanted: &[Wanted]) -> Result<(), Fault> {
        let path = format!("/api/v1/app/{}/", self.application);
        self.ask(Method::DELETE, &path, None).await?;
        for event_type in types(wanted) {
            let path = format!("/api/v1/event-type/{event_type}/?expunge=true");
            self.ask(Method::DELETE, &path, None).await?;
        }
        Ok(())
    }

    /// Asks the API. What is to be deleted may be missing.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<(), Fault> {
        let failed =
            |why: String| Fault::Failed(format!("the Svix server: {method} {path}: {why}"));
        let url: Uri =
            format!("{}{path}", self.server).parse().map_err(|_| failed("no URL".into()))?;
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(&method)
            .uri(url)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| failed(error.to_string()))?;
        let asked = async {
            let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok((status, body.to_bytes()))
        };
        let answered = tokio::time::timeout(PATIENCE, asked).await;
        let late = || failed(format!("no answer for {}s", PATIENCE.as_secs()));
        let (status, body) = answered.map_err(|_| late())?.map_err(failed)?;
        let is_gone = method == Method::DELETE && status == StatusCode::NOT_FOUND;
        if status.is_success() || is_gone {
            return Ok(());
        }
        let shown: String = String::from_utf8_lossy(&body).chars().take(SHOWN_CHARS).collect();
        Err(failed(format!("{status} {}", printable(shown.trim()))))
    }
}

fn types(wanted: &[Wanted]) -> BTreeSet<&str> {
    wanted.iter().map(|one| one.event_type.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_alone_in_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        for (text, is_good) in
            [("abc.def\n", true), ("", false), ("a b", false), ("a\r\nX: y", false)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(token(&file).is_ok(), is_good, "{text:?}");
        }
        assert!(matches!(token(&directory.path().join("none")), Err(Fault::Usage(_))));
    }
}
