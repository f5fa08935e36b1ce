//! Who may come in over HTTP: a layer around everything the API port serves.
//!
//! Two doors. The `Host` must be one we answer to, or a web page could reach the port through the
//! reader's browser under a name of its own (DNS rebinding). And a bearer token must be ours.

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
use http::{HeaderMap, Request, Response, header, request};
use http_body_util::Either;

use crate::{
    access::{User, is_open},
    body::Body,
    render,
    status::ApiError,
    users::{Standing, Users},
};

/// The layer.
#[derive(Clone)]
pub struct Gate(Arc<Rules>);

struct Rules {
    users: Arc<Users>,
    listen: SocketAddr,
    hosts: Vec<String>,
}

impl Gate {
    /// Lets in who has a token of one of `users`, and who shows none as nobody; all must ask for
    /// loopback, for the address of `listen`, or for one of `hosts` (names or addresses, without
    /// port).
    pub fn new(users: Users, listen: SocketAddr, hosts: Vec<String>) -> Self {
        Self(Arc::new(Rules { users: Arc::new(users), listen, hosts }))
    }
}

impl Rules {
    fn admit(&self, head: &request::Parts) -> Result<(User, Option<Standing>), ApiError> {
        let host = head.headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
        let host = host.or_else(|| head.uri.authority().map(|authority| authority.host()));
        if !self.answers_to(host.unwrap_or_default()) {
            let text =
                format!("this server does not answer to the host {:?}", host.unwrap_or_default());
            return Err(ApiError::refused(text));
        }
        let given = head.headers.get(header::AUTHORIZATION);
        let given = given.and_then(|header| token(header.as_bytes()));
        let known = match given.and_then(|token| self.users.find(token)) {
            Some(known) => known,
            None if is_open(head.uri.path()) => (User::anonymous(), None),
            None => return Err(ApiError::unauthorized()),
        };
        check_impersonation(&known.0, &head.headers)?;
        Ok(known)
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

/// Nobody may act as somebody else (`kubectl --as`), and whoever asks for it must not be taken for
/// themselves.
fn check_impersonation(user: &User, headers: &HeaderMap) -> Result<(), ApiError> {
    let wish = headers.iter().find_map(|(name, value)| {
        let what = name.as_str().strip_prefix("impersonate-")?;
        Some((if what == "group" { "groups" } else { "users" }, value))
    });
    let Some((resource, value)) = wish else { return Ok(()) };
    let value = headers.get("impersonate-user").filter(|_| resource == "users").unwrap_or(value);
    Err(ApiError::refused(format!(
        "{resource} {:?} is forbidden: User {:?} cannot impersonate resource {resource:?} in API \
         group \"\" at the cluster scope",
        String::from_utf8_lossy(value.as_bytes()),
        user.name,
    )))
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

/// The token of an `Authorization` header.
fn token(header: &[u8]) -> Option<&[u8]> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = header.split_at(space);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| rest.trim_ascii())
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
            Ok((user, standing)) => {
                let mut request = Request::from_parts(head, body);
                request.extensions_mut().insert(user);
                if let Some(standing) = standing {
                    request.extensions_mut().insert(standing);
                }
                let inside: fn(Response<A>) -> Self::Response = |answer| answer.map(Either::Right);
                EitherFuture::Right(self.inner.call(request).map_ok(inside))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::StatusCode;
    use http_body_util::BodyExt;
    use tower::{Layer, Service, service_fn};

    use super::*;
    use crate::access::Role;

    async fn code(host: &str, authorization: &str, path: &str) -> u16 {
        let listen = SocketAddr::from(([10, 0, 0, 7], 8001));
        let gate = Gate::new(Users::new("s3cret".into(), None), listen, vec!["Bus.example".into()]);
        let mut gated = gate.layer(service_fn(|request: Request<()>| async move {
            let user = request.extensions().get::<User>().unwrap();
            let known = user.role == Role::Admin;
            let code = if known { StatusCode::OK } else { StatusCode::ACCEPTED };
            let mut response = Response::new(Body::whole("in"));
            *response.status_mut() = code;
            Ok::<_, Infallible>(response)
        }));
        let mut request = Request::builder().uri(path).header("host", host);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        gated.call(request.body(()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn only_a_token_of_ours_opens() {
        let host = "127.0.0.1:8001";
        assert_eq!(code(host, "Bearer s3cret", "/api").await, 200);
        assert_eq!(code(host, "bearer  s3cret", "/api").await, 200);
        for closed in ["/api", "/metrics", "/api/v1/namespaces"] {
            assert_eq!(code(host, "", closed).await, 401, "{closed}");
        }
        for wrong in [
            "Bearer",
            "Bearer ",
            "Bearer s3cre",
            "Bearer s3cretx",
            "Basic !",
            // any:s3cret: a token in a URL comes into logs and shell histories.
            "Basic YW55OnMzY3JldA==",
            "X s3cret",
        ] {
            assert_eq!(code(host, wrong, "/api").await, 401, "{wrong}");
        }
        for open in ["/healthz", "/livez", "/livez/ping", "/readyz", "/readyz/broker", "/version"] {
            assert_eq!(code(host, "", open).await, 202, "{open}");
            assert_eq!(code(host, "Bearer wrong", open).await, 202, "{open}");
        }
    }

    #[tokio::test]
    async fn nobody_acts_as_somebody_else() {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8001));
        let gate = Gate::new(Users::new("s3cret".into(), None), listen, Vec::new());
        let mut gated = gate.layer(service_fn(|_: Request<()>| async move {
            Ok::<_, Infallible>(Response::new(Body::whole("in")))
        }));
        for (header, what) in [
            ("Impersonate-User", "users"),
            ("Impersonate-Uid", "users"),
            ("impersonate-group", "groups"),
            ("Impersonate-Extra-scopes", "users"),
        ] {
            let request = Request::get("/api/v1/namespaces").header("host", "localhost");
            let request = request.header("authorization", "Bearer s3cret").header(header, "bob");
            let answer = gated.call(request.body(()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), 403, "{header}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let text = format!(
                "{what} \"bob\" is forbidden: User \"kubernetes-admin\" cannot impersonate \
                 resource \"{what}\" in API group \"\" at the cluster scope"
            );
            assert_eq!(status["message"], text, "{header}");
        }
    }

    #[tokio::test]
    async fn only_our_own_names_are_answered() {
        let good = [
            "localhost",
            "localhost:1",
            "LOCALHOST",
            "127.0.0.1",
            "127.3.2.1:9",
            "[::1]:8001",
            "[::1]",
            "10.0.0.7:8001",
            "bus.example:80",
        ];
        for host in good {
            assert_eq!(code(host, "Bearer s3cret", "/api").await, 200, "{host}");
        }
        for host in ["evil.example", "", "10.0.0.8", "127.0.0.1.evil.example", "[::2]:1", "bus"] {
            assert_eq!(code(host, "Bearer s3cret", "/healthz").await, 403, "{host}");
        }
    }
}
