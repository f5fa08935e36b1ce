//! Who may come in over HTTP: a layer around everything the API port serves.
//!
//! Two doors. The `Host` must be one we answer to, or a web page could reach the port through the
//! reader's browser under a name of its own (DNS rebinding). And the bearer token must be ours.

use std::{
    future::ready,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    TryFutureExt,
    future::{Either as EitherFuture, MapOk},
};
use http::{Request, Response, header, request};
use http_body_util::Either;

use crate::{body::Body, render, status::ApiError};

/// Paths that anybody may ask: they say only whether the server is well.
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/livez", "/version"];

/// Who a request comes from; an extension of every request that the gate let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The name, as Kubernetes would write it.
    pub name: String,
}

/// The layer.
#[derive(Clone)]
pub struct Gate(Arc<Rules>);

struct Rules {
    token: String,
    listen: SocketAddr,
    hosts: Vec<String>,
}

impl Gate {
    /// Lets in who knows `token` and asks for loopback, for the address of `listen`, or for one of
    /// `hosts` (names or addresses, without port).
    pub fn new(token: String, listen: SocketAddr, hosts: Vec<String>) -> Self {
        Self(Arc::new(Rules { token, listen, hosts }))
    }
}

impl Rules {
    fn admit(&self, head: &request::Parts) -> Result<Option<User>, ApiError> {
        let host = head.headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
        let host = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
        if !self.answers_to(host.unwrap_or_default()) {
            let text =
                format!("this server does not answer to the host {:?}", host.unwrap_or_default());
            return Err(ApiError::refused(text));
        }
        if OPEN.contains(&head.uri.path()) {
            return Ok(None);
        }
        let given = head.headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let scheme = given.and_then(|given| given.split_at_checked(7));
        match scheme {
            Some((scheme, token))
                if scheme.eq_ignore_ascii_case(b"bearer ")
                    && same(token.trim_ascii(), self.token.as_bytes()) =>
            {
                Ok(Some(User { name: "kubernetes-admin".into() }))
            }
            _ => Err(ApiError::unauthorized()),
        }
    }

    fn answers_to(&self, host: &str) -> bool {
        let name = without_port(host);
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if address.is_loopback() || address == self.listen.ip() => true,
            _ => {
                name.eq_ignore_ascii_case("localhost")
                    || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
            }
        }
    }
}

/// A host without `:port`; an IPv6 address stands in brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// Compares in a time that does not tell where the difference is.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let differing = given.iter().zip(wanted).fold(0, |differing, (a, b)| differing | (a ^ b));
    !wanted.is_empty() && given.len() == wanted.len() && std::hint::black_box(differing) == 0
}

impl<S> tower::Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { rules: Arc::clone(&self.0), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    rules: Arc<Rules>,
    inner: S,
}

impl<S, B, A> tower::Service<Request<B>> for Gated<S>
where
    S: tower::Service<Request<B>, Response = Response<A>>,
{
    type Response = Response<Either<Body, A>>;
    type Error = S::Error;
    type Future = EitherFuture<
        std::future::Ready<Result<Self::Response, S::Error>>,
        MapOk<S::Future, fn(Response<A>) -> Self::Response>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        match self.rules.admit(&head) {
            Err(error) => EitherFuture::Left(ready(Ok(render::error(&error).map(Either::Left)))),
            Ok(user) => {
                let mut request = Request::from_parts(head, body);
                if let Some(user) = user {
                    request.extensions_mut().insert(user);
                }
                let inside: fn(Response<A>) -> Self::Response = |answer| answer.map(Either::Right);
                EitherFuture::Right(self.inner.call(request).map_ok(inside))
            }
        }
    }
}
