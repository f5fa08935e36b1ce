//! The operators' endpoints of the API port.

mod broker;
mod metrics;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;

pub use broker::BrokerGauges;
pub use metrics::Metrics;

use crate::readiness::Readiness;

/// What the operators' endpoints tell of. Cheap to clone.
#[derive(Clone, Default)]
pub struct Admin {
    /// Is the process ready?
    pub readiness: Readiness,
    /// What it counts and measures.
    pub metrics: Metrics,
}

impl Admin {
    /// Answers `/metrics`, and what [`probe`] answers. `None` for every other path.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        match request.uri().path() {
            "/metrics" => Some(self.metrics.answer(request.headers())),
            path => probe(path, &self.readiness),
        }
    }
}

/// Answers what asks how the process is: `/healthz` and `/livez` say that it lives, `/readyz`
/// whether it is ready, with its conditions. `None` for every other path.
pub fn probe(path: &str, readiness: &Readiness) -> Option<Response<Full<Bytes>>> {
    match path {
        "/healthz" | "/livez" => Some(text(StatusCode::OK, "ok\n".to_owned())),
        "/readyz" if readiness.is_ready() => Some(text(StatusCode::OK, readiness.report())),
        "/readyz" => Some(text(StatusCode::SERVICE_UNAVAILABLE, readiness.report())),
        _ => None,
    }
}

/// What is answered for a path that is not served.
pub fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
