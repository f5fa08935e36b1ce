//! Answers: objects, lists and errors in the form the client asked for.

use std::sync::Arc;

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
    listing::Listing,
    object,
    status::ApiError,
    store::{EventKind, Held},
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
            _ => self.shape(resource, object::read(body)?, false),
        };
        self.value(code, &shaped)
    }

    /// A list of objects.
    pub(crate) fn list(
        self,
        resource: &Arc<Resource>,
        objects: Held,
        metadata: Value,
    ) -> Result<Response<Body>, ApiError> {
        let listing = Listing::new(self, resource, objects, metadata)?;
        Ok(respond(StatusCode::OK, self.accept.encoding, Body::stream(stream::iter(listing))))
    }

    /// One object among those of a list.
    pub(crate) fn item(self, resource: &Resource, body: &Bytes) -> Result<Bytes, ApiError> {
        if self.accept == Accept::default() && !self.hides(resource) {
            return Ok(body.clone());
        }
        let object = self.visible(resource, object::read(body)?);
        let item = match self.accept.shape {
            Shape::Object => object,
            Shape::Metadata => table::partial(&object),
            Shape::Table(_) => self.row(resource, object),
        };
        Ok(match self.accept.encoding {
            Encoding::Json => item.to_string().into(),
            // A list of one: lists of YAML are joined by standing below each other.
            Encoding::Yaml => yaml(&json!([item]))?.into(),
        })
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
        let shaped = self.shape(resource, object::read(body)?, rows_only);
        Ok(line(kind.as_str(), shaped.to_string().as_bytes()))
    }

    /// An object in the shape asked for; a table names its columns unless `rows_only`.
    pub(crate) fn shape(self, resource: &Resource, object: Value, rows_only: bool) -> Value {
        let object = self.visible(resource, object);
        match self.accept.shape {
            Shape::Object => object,
            Shape::Metadata => table::partial(&object),
            Shape::Table(version) => {
                let metadata = table::single_metadata(&object);
                let mut table = table::frame(version, resource, metadata, rows_only);
                table["rows"] = json!([self.row(resource, object)]);
                table
            }
        }
    }

    fn row(self, resource: &Resource, object: Value) -> Value {
        let form = TableForm { include: self.include, now_ms: self.now_ms };
        form.row(resource, object)
    }

    /// What of an object whoever asks may see.
    fn visible(self, resource: &Resource, object: Value) -> Value {
        if self.hides(resource) { secrets::without_values(object) } else { object }
    }

    /// Whether values of this resource are left out.
    pub(crate) fn hides(self, resource: &Resource) -> bool {
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
    let again = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    if again.contains(&error.code()) {
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

pub(crate) fn yaml(value: &Value) -> Result<String, ApiError> {
    serde_saphyr::to_string(value)
        .map_err(|error| ApiError::internal(format!("an answer does not become YAML: {error}")))
}
