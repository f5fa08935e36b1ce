//! Errors as the real API server words them: a `Status` object with reason, details and causes.
//!
//! Clients decide by `code` and `reason`, people read the text, and `kubectl` prints the causes, so
//! the words follow the real server's.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{definition::Resource, limits};

/// A refusal or a failure, ready to be answered.
#[derive(Clone, Debug)]
pub(crate) struct ApiError(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    code: StatusCode,
    reason: &'static str,
    text: String,
    details: Option<Value>,
    next: Option<String>,
}

/// One reason among several why an object is invalid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cause {
    /// Kubernetes' word, such as `FieldValueRequired`.
    pub(crate) reason: &'static str,
    /// What is wrong, without the field.
    pub(crate) text: String,
    /// The field, such as `spec.endpoint`; empty for the whole object.
    pub(crate) field: String,
}

impl Cause {
    pub(crate) fn required(field: &str) -> Self {
        Self { reason: "FieldValueRequired", text: "Required value".into(), field: field.into() }
    }

    /// `value` is refused because of `why`.
    pub(crate) fn invalid(field: &str, value: &Value, why: &str) -> Self {
        let text = format!("Invalid value: {}: {why}", quoted(value));
        Self { reason: "FieldValueInvalid", text, field: field.into() }
    }

    /// A value is refused that no text may repeat.
    pub(crate) fn hidden(field: &str, why: &str) -> Self {
        let text = format!("Invalid value: \"<hidden>\": {why}");
        Self { reason: "FieldValueInvalid", text, field: field.into() }
    }

    /// The value has the JSON type `found`.
    pub(crate) fn wrong_type(field: &str, found: &str, why: &str) -> Self {
        let text = format!("Invalid value: \"{found}\": {why}");
        Self { reason: "FieldValueTypeInvalid", text, field: field.into() }
    }

    pub(crate) fn not_supported(field: &str, value: &Value, supported: &[Value]) -> Self {
        let supported: Vec<String> = supported.iter().map(quoted).collect();
        let text = format!(
            "Unsupported value: {}: supported values: {}",
            quoted(value),
            supported.join(", ")
        );
        Self { reason: "FieldValueNotSupported", text, field: field.into() }
    }

    pub(crate) fn too_long(field: &str, limit: u64) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        let text = format!("Too long: may not be more than {limit} {unit}");
        Self { reason: "FieldValueTooLong", text, field: field.into() }
    }

    pub(crate) fn too_many(field: &str, found: usize, limit: u64) -> Self {
        let unit = if limit == 1 { "item" } else { "items" };
        let text = format!("Too many: {found}: must have at most {limit} {unit}");
        Self { reason: "FieldValueTooMany", text, field: field.into() }
    }

    pub(crate) fn duplicate(field: &str, value: &Value) -> Self {
        let text = format!("Duplicate value: {}", quoted(value));
        Self { reason: "FieldValueDuplicate", text, field: field.into() }
    }

    pub(crate) fn forbidden(field: &str, why: &str) -> Self {
        let text = format!("Forbidden: {why}");
        Self { reason: "FieldValueForbidden", text, field: field.into() }
    }

    fn sentence(&self) -> String {
        match self.field.as_str() {
            "" => self.text.clone(),
            field => format!("{field}: {}", self.text),
        }
    }
}

/// A value as the answer repeats it, not longer than its limit.
fn quoted(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > limits::QUOTED_BYTES {
        let mut end = limits::QUOTED_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
    text
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, text: String) -> Self {
        Self(Box::new(Parts { code, reason, text, details: None, next: None }))
    }

    fn detailed(mut self, details: Value) -> Self {
        self.0.details = Some(details);
        self
    }

    /// 400: the request makes no sense.
    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", text.into())
    }

    /// 401: no valid token.
    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized".into())
    }

    /// 403 for an object, or for all of a resource when `name` is empty, with the reason why.
    pub(crate) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let subject = match name {
            "" => resource.qualified(),
            name => format!("{} \"{name}\"", resource.qualified()),
        };
        let text = format!("{subject} is forbidden: {why}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", text).detailed(resource.details(name))
    }

    /// 403 for a whole request.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", text.into())
    }

    /// 404 for an object.
    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        let text = format!("{} \"{name}\" not found", resource.qualified());
        Self::new(StatusCode::NOT_FOUND, "NotFound", text).detailed(resource.details(name))
    }

    /// 405 for a verb that the resource does not have.
    pub(crate) fn method_not_allowed() -> Self {
        let text = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", text.into())
    }

    /// 406: none of the forms asked for exists.
    pub(crate) fn not_acceptable(accepted: &[&str]) -> Self {
        let text = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", text)
    }

    /// 409: it is there already.
    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let text = format!("{} \"{name}\" already exists", resource.qualified());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", text).detailed(resource.details(name))
    }

    /// 409: it is not as the request supposes.
    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let text =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", text).detailed(resource.details(name))
    }

    /// 409: somebody else wrote in between.
    pub(crate) fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(resource, name, why)
    }

    /// 409: what is applied belongs to others; every field with its owner at once.
    pub(crate) fn apply_conflict(text: String, causes: &[Cause]) -> Self {
        let causes: Vec<Value> = causes.iter().map(cause).collect();
        Self::new(StatusCode::CONFLICT, "Conflict", text).detailed(json!({ "causes": causes }))
    }

    /// 410: the revision is no longer kept; a list may go on, inconsistently, with `next`.
    pub(crate) fn expired(text: impl Into<String>, next: Option<String>) -> Self {
        let mut error = Self::new(StatusCode::GONE, "Expired", text.into());
        error.0.next = next;
        error
    }

    /// 413: the body, or the object that it makes, has more than `limit` bytes.
    pub(crate) fn too_large(limit: usize) -> Self {
        let text = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", text)
    }

    /// 415: the body is in none of `accepted`.
    pub(crate) fn unsupported_media_type(accepted: &[&str]) -> Self {
        let text = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", text)
    }

    /// 422: the object breaks the rules; every cause at once.
    pub(crate) fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        let kind = match resource.group.as_str() {
            "" => resource.kind.clone(),
            group => format!("{}.{group}", resource.kind),
        };
        let text = format!("{kind} \"{name}\" is invalid: {}", sentences(&causes));
        let details = json!({
            "name": name, "group": resource.group, "kind": resource.kind,
            "causes": causes.iter().map(cause).collect::<Vec<_>>(),
        });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text).detailed(details)
    }

    /// 422 for the query or the patch, not for an object.
    pub(crate) fn invalid_options(kind: &str, group: &str, causes: Vec<Cause>) -> Self {
        let subject = match (kind, group) {
            ("", _) => String::new(),
            (kind, "") => kind.to_owned(),
            (kind, group) => format!("{kind}.{group}"),
        };
        let text = format!("{subject} \"\" is invalid: {}", sentences(&causes));
        let details = json!({
            "group": group, "kind": kind, "causes": causes.iter().map(cause).collect::<Vec<_>>(),
        });
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text).detailed(details)
    }

    /// 422: a patch cannot be applied to this object.
    pub(crate) fn unprocessable(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", text.into())
    }

    /// 429: as much as may be in work at once is in work.
    pub(crate) fn too_many() -> Self {
        let text = "the server has received too many requests and has asked us to try again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", text.into())
            .detailed(json!({ "retryAfterSeconds": 1 }))
    }

    /// 500: our fault.
    pub(crate) fn internal(text: String) -> Self {
        let text = format!("Internal error occurred: {text}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", text)
    }

    /// 503: the server is going down.
    pub(crate) fn closing() -> Self {
        let text = "the server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", text.into())
    }

    /// 504: that revision does not exist yet.
    pub(crate) fn too_large_revision(asked: u64, present: u64) -> Self {
        let text = format!("Too large resource version: {asked}, current: {present}");
        let cause = "Too large resource version";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", text).detailed(json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": cause }],
            "retryAfterSeconds": 1,
        }))
    }

    /// The HTTP status.
    pub(crate) fn code(&self) -> StatusCode {
        self.0.code
    }

    /// The name of the object that it is about; empty when it is about none.
    pub(crate) fn name(&self) -> &str {
        let details = self.0.details.as_ref();
        details.and_then(|details| details["name"].as_str()).unwrap_or_default()
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.0.text, "reason": self.0.reason, "code": self.0.code.as_u16(),
        });
        if let Some(details) = &self.0.details {
            status["details"] = details.clone();
        }
        if let Some(next) = &self.0.next {
            status["metadata"]["continue"] = next.as_str().into();
        }
        status
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        Self::internal(format!("the resource store: {error}"))
    }
}

fn sentences(causes: &[Cause]) -> String {
    match causes {
        [only] => only.sentence(),
        several => {
            let sentences: Vec<String> = several.iter().map(Cause::sentence).collect();
            format!("[{}]", sentences.join(", "))
        }
    }
}

fn cause(cause: &Cause) -> Value {
    json!({ "reason": cause.reason, "message": cause.text, "field": cause.field })
}
