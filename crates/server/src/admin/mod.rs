//! The operators' endpoints of the API port.

mod broker;
mod health;
mod metrics;
mod pages;
mod subscriptions;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};

pub use broker::BrokerGauges;
pub use health::probe;
pub use metrics::Metrics;
pub use pages::Page;
pub use subscriptions::SubscriptionStates;

use crate::readiness::Readiness;

/// What the operators' endpoints answer.
pub type Body = Either<Full<Bytes>, Page>;

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
    pub async fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        match (request.uri().path(), request.method()) {
            ("/metrics", &Method::GET | &Method::HEAD) => {
                Some(self.metrics.answer(request.headers()).await)
            }
            ("/metrics", _) => Some(get_only().map(Either::Left)),
            _ => Some(probe(request.uri(), &self.readiness)?.map(Either::Left)),
        }
    }
}

/// What is answered for a path that is not served.
pub fn not_found() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned())
}

fn get_only() -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET will do\n".to_owned());
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
