//! Answers: objects, lists and errors in the form the client asked for.

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    accept::{Accept, Encoding, Shape},
    body::Body,
    builtin::secrets,
    definition::Resource,
    limits,
    status::ApiError,
    store::EventKind,
    table::{self, Include, TableForm},
};

/// The form of an answer, with what it needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) accept: Accept,
    pub(crate) include: Include,
    pub(crate) now_ms: u64,
    /// Whoever asks may write Secrets and not read them: their values are left out.
    pub(crate) write_only: bool,
}

impl Form {
    /// One object, as it lies in the store.
    pub(crate) fn object(
        self,
        code: StatusCode,
        resource: &Resource,
        body: &Bytes,
    ) -> Result<Response<Body>, ApiError> {
        let shaped = match self.accept.shape {
            Shape::Object if self.accept.encoding == Encoding::Json && !self.hides(resource) => {
                return Ok(respond(code, Encoding::Json, Body::whole(body.clone())));
            }
            _ => self.shape(resource, parse(body)?, false),
        };
        self.value(code, &shaped)
    }

    /// A list of objects.
    pub(crate) fn list(
        self,
        resource: &Resource,
        bodies: Vec<Bytes>,
        metadata: Value,
    ) -> Result<Response<Body>, ApiError> {
        if self.accept == Accept::default() {
            let pieces = join(resource, bodies, &metadata);
            return Ok(respond(StatusCode::OK, Encoding::Json, Body::stream(stream::iter(pieces))));
        }
        let objects = bodies.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        drop(bodies);
        let list = match self.accept.shape {
            Shape::Object => json!({
                "kind": resource.list_kind, "apiVersion": resource.api_version(),
                "metadata": metadata, "items": objects,
            }),
            Shape::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": objects.iter().map(table::partial).collect::<Vec<_>>(),
            }),
            Shape::Table(version) => {
                let form = TableForm { version, include: self.include, now_ms: self.now_ms };
                form.table(resource, objects, metadata, false)
            }
        };
        self.value(StatusCode::OK, &list)
    }

    /// The line of a watch for an object.
    pub(crate) fn event(
        self,
        kind: EventKind,
        resource: &Resource,
        body: &Bytes,
        rows_only: bool,
    ) -> Result<Bytes, ApiError> {
        if self.accept.shape == Shape::Object {
            return Ok(line(kind.as_str(), body));
        }
        let shaped = self.shape(resource, parse(body)?, rows_only);
        Ok(line(kind.as_str(), shaped.to_string().as_bytes()))
    }

    /// An object in the shape asked for; a table names its columns unless `rows_only`.
    pub(crate) fn shape(self, resource: &Resource, object: Value, rows_only: bool) -> Value {
        let object = match self.hides(resource) {
            true => secrets::without_values(object),
            false => object,
        };
        match self.accept.shape {
            Shape::Object => object,
            Shape::Metadata => table::partial(&object),
            Shape::Table(version) => {
                let form = TableForm { version, include: self.include, now_ms: self.now_ms };
                let metadata = table::single_metadata(&object);
                form.table(resource, vec![object], metadata, rows_only)
            }
        }
    }

    fn hides(self, resource: &Resource) -> bool {
        self.write_only && resource.is_secret()
    }

    /// A value that is no object of a resource.
    pub(crate) fn value(self, code: StatusCode, value: &Value) -> Result<Response<Body>, ApiError> {
        let text = match self.accept.encoding {
            Encoding::Json => value.to_string(),
            Encoding::Yaml => yaml(value)?,
        };
        Ok(respond(code, self.accept.encoding, Body::whole(text)))
    }
}

/// Bytes of a watch's line behind its object.
pub(crate) const LINE_TAIL: usize = 2;

/// A line of a watch around an object that is JSON already.
pub(crate) fn line(kind: &str, object: &[u8]) -> Bytes {
    let parts: [&[u8]; 5] = [b"{\"type\":\"", kind.as_bytes(), b"\",\"object\":", object, b"}\n"];
    parts.concat().into()
}

/// Tells of fields that were dropped or repeated; what does not fit is left out.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut room = limits::WARNING_BYTES;
    for warning in warnings {
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = format!("299 - {}", Value::from(text));
        let Some(left) = room.checked_sub(text.len()) else { break };
        let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) else { continue };
        response.headers_mut().append(header::WARNING, value);
        room = left;
    }
}

/// An error, as JSON whatever was asked for: every client reads it.
pub(crate) fn error(error: &ApiError) -> Response<Body> {
    let mut response =
        respond(error.code(), Encoding::Json, Body::whole(error.status().to_string()));
    if error.code() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A text for people and probes.
pub(crate) fn text(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = code;
    let media_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

pub(crate) fn respond(code: StatusCode, encoding: Encoding, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let media_type = HeaderValue::from_static(encoding.media_type());
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn parse(body: &Bytes) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::internal(format!("a stored object is not JSON: {error}")))
}

fn yaml(value: &Value) -> Result<String, ApiError> {
    serde_saphyr::to_string(value)
        .map_err(|error| ApiError::internal(format!("an answer does not become YAML: {error}")))
}

/// The pieces of a JSON list around objects that are JSON already, joined only as they are sent, so
/// that a long list lies in memory once.
fn join(
    resource: &Resource,
    bodies: Vec<Bytes>,
    metadata: &Value,
) -> impl Iterator<Item = Bytes> + Send + use<> {
    // Pieces of this size are handed on with little overhead and freed as they are sent.
    const PIECE: usize = 64 * 1024;
    let kind = Value::from(resource.list_kind.as_str());
    let version = Value::from(resource.api_version());
    let head =
        format!("{{\"apiVersion\":{version},\"kind\":{kind},\"metadata\":{metadata},\"items\":[");
    let mut piece = Vec::from(head);
    let mut bodies = bodies.into_iter().peekable();
    let mut ended = false;
    std::iter::from_fn(move || {
        while piece.len() < PIECE
            && let Some(body) = bodies.next()
        {
            piece.extend_from_slice(&body);
            if bodies.peek().is_some() {
                piece.push(b',');
            }
        }
        if bodies.peek().is_none() && !ended {
            ended = true;
            piece.extend_from_slice(b"]}\n");
        }
        (!piece.is_empty()).then(|| std::mem::take(&mut piece).into())
    })
}
