//! The service: a request in, an answer out. Here paths meet verbs and errors become answers.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use crate::{
    accept::{Accept, Encoding, Shape},
    access::{self, Role, User, Wish},
    audit::Deed,
    body::Body,
    builtin::reviews::review,
    discovery, limits, render,
    render::Form,
    route::{Discovery, Query, Route, Target, segments},
    status::ApiError,
    table,
    verbs::{Api, Call, Written, apply, create, delete, list, update, watch},
};

/// The API as a `tower` service. Cheap to clone; it may be the service behind a `kube::Client`.
#[derive(Clone)]
pub struct Service {
    api: Arc<Api>,
}

impl Service {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }
}

impl<B> tower::Service<Request<B>> for Service
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = Arc::clone(&self.api);
        let (head, body) = request.into_parts();
        let answer = answer(api, head, body);
        answer.map(|answer| Ok(answer.unwrap_or_else(|error| render::error(&error)))).boxed()
    }
}

async fn answer<B>(api: Arc<Api>, head: request::Parts, body: B) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let segments = segments(head.uri.path()).unwrap_or_default();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let user = head.extensions.get::<User>().cloned();
    let route = Route::find(&segments, &api.registry);
    let Some(Route::Resource(target)) = route else {
        if let Some(user) = &user {
            permit_path(user, &head, route.is_some())?;
        }
        return route.map_or_else(|| Ok(not_found()), |route| document(&api, &route, &head));
    };
    let query = Query::parse(head.uri.query().unwrap_or_default())?;
    let accept = Accept::parse(header_text(&head, header::ACCEPT))?;
    let include = table::include(query.text("includeObject"))
        .ok_or_else(|| ApiError::bad_request("includeObject must be None, Metadata or Object"))?;
    let write_only = user.as_ref().is_some_and(|user| user.role != Role::Admin);
    let form = Form { accept, include, now_ms: api.clock.now_ms(), write_only };
    let body = match head.method {
        Method::GET => Ok(Bytes::new()),
        _ => read(body).await,
    };
    let standing = head.extensions.get().cloned();
    let call = Call { user, standing, target, query, form, headers: head.headers, body };
    perform_as_user(&api, head.method, call).await
}

/// What the request wants to do to its resource.
fn wish<'c>(method: &Method, call: &'c Call) -> Result<Wish<'c>, ApiError> {
    let (resource, target) = (call.resource(), &call.target);
    let verb = match (method, &target.name) {
        (&Method::GET, _) if call.query.flag("watch") => "watch",
        (&Method::GET, Some(_)) => "get",
        (&Method::GET, None) => "list",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, Some(_)) => "delete",
        (&Method::DELETE, None) => "deletecollection",
        _ => return Err(ApiError::method_not_allowed()),
    };
    let name = target.name.as_deref().unwrap_or_default();
    let namespace = if resource.is_namespace() { Some(name) } else { target.namespace.as_deref() };
    Ok(Wish {
        verb,
        group: &resource.group,
        resource: &resource.plural,
        subresource: if target.status { "status" } else { "" },
        namespace: namespace.unwrap_or_default(),
        name,
    })
}

/// Does what the user may do, and tells of it if it is a write. The program itself has no user: it
/// may do everything, and nothing is told.
async fn perform_as_user(
    api: &Arc<Api>,
    method: Method,
    call: Call,
) -> Result<Response<Body>, ApiError> {
    let Some(user) = &call.user else { return perform(api, &method, &call).await };
    if method == Method::GET {
        let wish = wish(&method, &call)?;
        access::check(&api.registry, user, call.resource(), &wish)?;
        return perform(api, &method, &call).await;
    }
    // A write that has begun is done and told of, whether its client waits for the answer or not.
    let user = user.clone();
    let task = Arc::clone(api);
    let task = async move { write_as_user(&task, &user, &method, &call).await };
    let done = api.writes.spawn(task).await;
    done.map_err(|_| ApiError::internal("a defect in the server stopped this write".into()))?
}

async fn write_as_user(
    api: &Arc<Api>,
    user: &User,
    method: &Method,
    call: &Call,
) -> Result<Response<Body>, ApiError> {
    let wish = wish(method, call)?;
    let answer = match access::check(&api.registry, user, call.resource(), &wish) {
        Ok(()) => perform(api, method, call).await,
        Err(refusal) => Err(refusal),
    };
    if let Some(audit) = &api.audit
        && !call.resource().is_review()
    {
        let (code, made) = match &answer {
            Ok(answer) => {
                let made = answer.extensions().get().map(|Made(name)| name.as_str());
                (answer.status(), made.unwrap_or_default())
            }
            Err(error) => (error.code(), error.name()),
        };
        let name = if wish.name.is_empty() { made } else { wish.name };
        let dry = call.query.dry_run().unwrap_or_default();
        let deed = Deed { now_ms: call.form.now_ms, user: &user.name, dry, code };
        audit.note(&Wish { name, ..wish }, &deed).await;
    }
    answer
}

/// The name of the object that a request made; an extension of its answer, which may say it in any
/// form.
#[derive(Clone)]
struct Made(String);

impl Made {
    /// Reads the name of an object as it lies in the store.
    fn of(body: &Bytes) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Named {
            metadata: Name,
        }
        #[derive(serde::Deserialize)]
        struct Name {
            name: String,
        }
        serde_json::from_slice::<Named>(body).ok().map(|named| Self(named.metadata.name))
    }
}

/// The same for what is no resource. What is not there either is said to be so to known users.
fn permit_path(user: &User, head: &request::Parts, known: bool) -> Result<(), ApiError> {
    let verb = head.method.as_str().to_lowercase();
    let path = head.uri.path();
    let judged = known || user.role == Role::Nobody;
    if judged && verb == "get" && !access::may_ask(user, &verb, path.trim_end_matches('/')) {
        return Err(access::refuse_path(user, &verb, path));
    }
    Ok(())
}

async fn perform(api: &Arc<Api>, method: &Method, call: &Call) -> Result<Response<Body>, ApiError> {
    let Target { resource, namespace, name, status } = &call.target;
    let whole = namespace.is_some() || !resource.namespaced;
    match (method, name) {
        (&Method::POST, None) if resource.is_review() => written(call, review(api, call)?),
        _ if resource.is_review() => Err(ApiError::method_not_allowed()),
        (&Method::GET, _) if call.query.flag("watch") && !status => watch::watch(api, call).await,
        (&Method::GET, Some(_)) => list::get(api, call).await,
        (&Method::GET, None) => list::list(api, call).await,
        (&Method::POST, None) if whole => written(call, create::create(api, call).await?),
        (&Method::PUT, Some(_)) => written(call, update::replace(api, call).await?),
        (&Method::PATCH, Some(_)) if apply::is_meant(call) => {
            written(call, apply::apply(api, call).await?)
        }
        (&Method::PATCH, Some(_)) => written(call, update::patch(api, call).await?),
        (&Method::DELETE, Some(_)) if !status => delete::delete(api, call).await,
        (&Method::DELETE, None) if whole && !resource.is_namespace() => {
            delete::delete_collection(api, call).await
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn written(call: &Call, written: Written) -> Result<Response<Body>, ApiError> {
    let mut response = call.form.object(written.code, &call.target.resource, &written.body)?;
    render::warn(&mut response, &written.warnings);
    if call.target.name.is_none()
        && let Some(made) = Made::of(&written.body)
    {
        response.extensions_mut().insert(made);
    }
    Ok(response)
}

/// What is not a resource: health, version, discovery, OpenAPI.
fn document(
    api: &Api,
    route: &Route<'_>,
    head: &request::Parts,
) -> Result<Response<Body>, ApiError> {
    if head.method != Method::GET {
        return Err(ApiError::method_not_allowed());
    }
    match route {
        Route::Health => Ok(render::text(StatusCode::OK, "ok")),
        Route::Version => json(head, &discovery::version()),
        Route::Discovery(document) => discover(api, document, head),
        Route::OpenApi(place) => {
            Ok(api.openapi.answer(place, &head.headers)?.unwrap_or_else(not_found))
        }
        Route::Resource(_) => Ok(not_found()),
    }
}

fn discover(
    api: &Api,
    document: &Discovery<'_>,
    head: &request::Parts,
) -> Result<Response<Body>, ApiError> {
    let accept = header_text(head, header::ACCEPT).unwrap_or_default();
    if discovery::wants_aggregated(accept)
        && let Some(document) = discovery::aggregated(&api.registry, document)
    {
        let body = Body::whole(document.to_string());
        let mut response = render::respond(StatusCode::OK, Encoding::Json, body);
        let media_type = HeaderValue::from_static(discovery::AGGREGATED);
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        return Ok(response);
    }
    match discovery::plain(&api.registry, document) {
        Some(document) => json(head, &document),
        None => Ok(not_found()),
    }
}

/// A document in JSON or YAML.
fn json(head: &request::Parts, document: &Value) -> Result<Response<Body>, ApiError> {
    let accept = Accept::parse(header_text(head, header::ACCEPT))?;
    let accept = Accept { shape: Shape::Object, ..accept };
    let form = Form { accept, include: table::Include::Metadata, now_ms: 0, write_only: true };
    form.value(StatusCode::OK, document)
}

fn not_found() -> Response<Body> {
    render::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn header_text(head: &request::Parts, name: header::HeaderName) -> Option<&str> {
    head.headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

/// The whole body, within its limit.
async fn read<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let collected = Limited::new(Box::pin(body), limits::BODY_BYTES).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            return ApiError::too_large(limits::BODY_BYTES);
        }
        ApiError::bad_request(format!("the body could not be read: {error}"))
    })
}
