//! Why a publish was refused, and the body that says so: the one place where errors of publishing
//! become HTTP.
//!
//! Two services of the original spoke here, with different words for the same faults: `publish`,
//! and the Application Connector's front before it. [`Refusal`] is what is wrong, in publish's
//! words; [`FrontRefusal`] adds the faults that the front finds by itself.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use crate::attributes::AttributeError;
use crate::broker::AppendError;
use crate::durability::Durability;
use crate::event::Text;
use crate::limits;

/// Why publish refuses an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body is not JSON of the contract's types: `bad_payload_syntax`.
    BadPayload,
    /// Not a POST: `bad_request`.
    NotPost,
    /// A required field is not there.
    Missing(&'static str),
    /// There is no source, neither in the body nor in the header.
    NoSource,
    /// A field has a value that it may not have.
    Invalid(&'static str),
    /// A field has a value that it may not have; this is why.
    Wrong {
        /// The field.
        field: Text,
        /// Why.
        why: Cow<'static, str>,
    },
    /// The body is not what its media type says; the text says where: `bad_payload_syntax`.
    Malformed(String),
    /// A batch has more events than allowed.
    TooManyEvents(usize),
    /// The header `Source-Id` has a value that it may not have.
    InvalidSourceHeader,
    /// A field has more characters than allowed.
    TooLong {
        /// The field.
        field: &'static str,
        /// How many it may have.
        max_chars: usize,
    },
    /// The bus cannot promise the durability that was asked for. It can promise these.
    Durability(&'static [Durability]),
    /// The body is larger than allowed.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// Too many requests are in work.
    TooManyRequests,
    /// The broker does not store now.
    Unavailable(Cow<'static, str>),
    /// The store is full.
    Full(Cow<'static, str>),
    /// The program has a defect.
    Internal,
}

/// Why the Application Connector's front refuses an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrontRefusal {
    /// The body is empty.
    EmptyBody,
    /// The body does not parse; the text says where.
    BadPayload(String),
    /// A required field is not there.
    Missing(&'static str),
    /// A field has a value that it may not have.
    Invalid(&'static str),
    /// The body is larger than allowed.
    TooLarge,
    /// No such path, or an application whose name is outside the pattern.
    NotFound,
    /// The path knows another method.
    MethodNotAllowed,
    /// Publish refused it; the front passes its words on.
    Relayed(Refusal),
}

/// Whose words the Application Connector's front speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrontDialect {
    /// The front of 2018, before the event bus that this one replaces.
    #[default]
    Connector,
    /// Kyma's event publisher proxy, which took its place.
    PublisherProxy,
}

/// An error body of the contract, in publish's form: every member is always there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// The HTTP status.
    pub status: u16,
    /// The kind of error, a word of the contract.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is wrong, in the contract's words.
    pub message: Cow<'static, str>,
    /// More about it; often empty.
    #[serde(rename = "moreInfo")]
    pub more_info: Cow<'static, str>,
    /// The field at fault: exactly one, or none (`null`).
    pub details: Option<[ErrorDetail; 1]>,
}

/// The field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorDetail {
    /// The field.
    pub field: Cow<'static, str>,
    /// What is wrong with it, a word of the contract.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The same in the contract's words.
    pub message: Cow<'static, str>,
    /// More about it; often empty.
    #[serde(rename = "moreInfo")]
    pub more_info: Cow<'static, str>,
}

const COMPLETE: &str = "We need all required fields complete to keep you moving.";
const CORRECT: &str = "We need all your entries to be correct to keep you moving.";
const CONTACT_SUPPORT: &str = "Some unexpected internal error occurred, please contact support.";
const NO_SOURCE: &str =
    "Either provide 'Source-Id' header or specify 'source-id' in the json payload";
const TOO_LARGE: &str = "Request body too large";

/// The front's words.
struct FrontWords {
    missing_field: &'static str,
    invalid_field: &'static str,
    bad_payload: &'static str,
}

impl FrontDialect {
    fn words(self) -> FrontWords {
        match self {
            Self::Connector => FrontWords {
                missing_field: "Missing Field",
                invalid_field: "Invalid Field",
                bad_payload: "Bad Payload Syntax",
            },
            Self::PublisherProxy => FrontWords {
                missing_field: "Missing field",
                invalid_field: "Invalid field",
                bad_payload: "Bad payload syntax",
            },
        }
    }
}

impl Refusal {
    /// A field has a value that it may not have; this is why.
    pub fn wrong(field: &str, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Wrong { field: field.into(), why: why.into() }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::BadPayload
            | Self::Malformed(_)
            | Self::Wrong { .. }
            | Self::NotPost
            | Self::Missing(_)
            | Self::NoSource
            | Self::Invalid(_)
            | Self::InvalidSourceHeader
            | Self::TooLong { .. }
            | Self::Durability(_) => 400,
            Self::TooSlow => 408,
            Self::TooLarge | Self::TooManyEvents(_) => 413,
            Self::TooManyRequests => 429,
            Self::Internal => 500,
            Self::Unavailable(_) => 503,
            Self::Full(_) => 507,
        }
    }

    /// The seconds after which the publisher should try again, where that may help.
    pub fn retry_after_s(&self) -> Option<u64> {
        matches!(self, Self::TooManyRequests | Self::Unavailable(_) | Self::Full(_))
            .then_some(limits::RETRY_AFTER_S)
    }

    /// The body.
    pub fn body(&self) -> ErrorBody {
        let plain = |kind, message: &'static str| self.plain(kind, message.into());
        match self {
            Self::BadPayload => plain("bad_payload_syntax", CONTACT_SUPPORT),
            Self::NotPost => plain("bad_request", CONTACT_SUPPORT),
            Self::Internal => plain("internal_server_error", CONTACT_SUPPORT),
            Self::Malformed(why) => ErrorBody {
                more_info: why.clone().into(),
                ..plain("bad_payload_syntax", CONTACT_SUPPORT)
            },
            Self::TooLarge => plain("request_body_too_large", TOO_LARGE),
            Self::TooManyEvents(max) => ErrorBody {
                more_info: format!("A batch has at most {max} events").into(),
                ..plain("request_body_too_large", TOO_LARGE)
            },
            Self::TooSlow => plain("request_timeout", "The request body did not arrive in time."),
            Self::TooManyRequests => {
                plain("too_many_requests", "Too many requests are in work, try again later.")
            }
            Self::Unavailable(why) => self.plain("service_unavailable", why.clone()),
            Self::Full(why) => self.plain("insufficient_storage", why.clone()),
            Self::Missing(field) => self.field(*field, "missing_field", COMPLETE),
            Self::Invalid(field) => self.field(*field, "invalid_field", CORRECT),
            Self::NoSource => {
                self.field("source-id/Source-Id", "missing_field/missing_header", NO_SOURCE)
            }
            Self::InvalidSourceHeader => self.field("Source-Id", "invalid_header", CORRECT),
            Self::Wrong { field, why } => {
                self.explained(field.to_string(), "invalid_field", why.to_string())
            }
            Self::TooLong { field, max_chars } => {
                let more_info = format!("Field length must be at max: {max_chars}");
                self.explained(*field, "invalid_field_length", more_info)
            }
            Self::Durability(offered) => {
                let offered: Vec<_> = offered.iter().map(|level| level.as_str()).collect();
                let more_info = format!("This bus can promise: {}", offered.join(", "));
                self.explained("Eventbus-Durability", "invalid_field", more_info)
            }
        }
    }

    /// The body is not what its media type says. Of what the client sent not all is repeated.
    pub(crate) fn malformed(why: &dyn fmt::Display) -> Self {
        Self::Malformed(shortened(why))
    }

    /// The contract takes no such attribute.
    pub(crate) fn attribute(name: &str, error: AttributeError) -> Self {
        let shown = shortened(&name);
        Self::Wrong { field: format!("attributes.{shown}").into(), why: error.to_string().into() }
    }

    /// What is wrong in one line of text.
    pub fn reason(&self) -> String {
        let body = self.body();
        // Where more is known than the contract's sentence, that alone helps.
        let why = |message: &Cow<'static, str>, more_info: &Cow<'static, str>| {
            if more_info.is_empty() { message.clone() } else { more_info.clone() }
        };
        match &body.details {
            None => why(&body.message, &body.more_info).into_owned(),
            Some([detail]) => {
                format!("{}: {}", detail.field, why(&detail.message, &detail.more_info))
            }
        }
    }

    fn explained(
        &self,
        field: impl Into<Cow<'static, str>>,
        kind: &'static str,
        more_info: String,
    ) -> ErrorBody {
        let mut body = self.field(field, kind, CORRECT);
        for detail in body.details.iter_mut().flatten() {
            detail.more_info = Cow::from(more_info.clone());
        }
        body
    }

    fn plain(&self, kind: &'static str, message: Cow<'static, str>) -> ErrorBody {
        ErrorBody { status: self.status(), kind, message, more_info: "".into(), details: None }
    }

    fn field(
        &self,
        field: impl Into<Cow<'static, str>>,
        kind: &'static str,
        words: &'static str,
    ) -> ErrorBody {
        let (field, more_info) = (field.into(), Cow::from(""));
        let detail = ErrorDetail { field, kind, message: words.into(), more_info };
        ErrorBody { details: Some([detail]), ..self.plain("validation_violation", words.into()) }
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Full { .. } | AppendError::DelaysFull { .. } | AppendError::NoRoom => {
                Self::Full(error.to_string().into())
            }
            AppendError::TooLarge { .. } | AppendError::TooMany { .. } => Self::TooLarge,
            // Asked for by name it would have been refused: what the broker promises has changed.
            AppendError::Durability(_) => Self::Unavailable(error.to_string().into()),
            AppendError::Unavailable(_) => Self::Unavailable(error.to_string().into()),
        }
    }
}

impl FrontRefusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::EmptyBody | Self::BadPayload(_) | Self::Missing(_) | Self::Invalid(_) => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::Relayed(refusal) => refusal.status(),
        }
    }

    /// The kind of error, a word of the contract.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EmptyBody | Self::BadPayload(_) => "bad_payload_syntax",
            Self::Missing(_) | Self::Invalid(_) => "validation_violation",
            Self::NotFound | Self::MethodNotAllowed => "bad_request",
            Self::TooLarge => "request_body_too_large",
            Self::Relayed(refusal) => refusal.body().kind,
        }
    }

    /// The media type of the answer, and the answer. The front leaves out what is empty; of paths
    /// and methods the publisher proxy says no more than the status does.
    pub fn answer(&self, dialect: FrontDialect) -> (&'static str, Vec<u8>) {
        let of_path = "application/json;charset=UTF-8";
        match (self, dialect) {
            (Self::NotFound, FrontDialect::PublisherProxy) => {
                ("text/plain; charset=utf-8", b"404 page not found\n".to_vec())
            }
            (Self::MethodNotAllowed, FrontDialect::PublisherProxy) => {
                ("text/plain; charset=utf-8", Vec::new())
            }
            (Self::NotFound, FrontDialect::Connector) => {
                (of_path, path_error(404, "Requested resource could not be found."))
            }
            (Self::MethodNotAllowed, FrontDialect::Connector) => {
                (of_path, path_error(405, "Method not allowed."))
            }
            _ => ("application/json", json_line(&Sparse::from(&self.body(dialect.words())))),
        }
    }

    fn body(&self, words: FrontWords) -> ErrorBody {
        let FrontWords { missing_field, invalid_field, bad_payload } = words;
        let plain = |kind, message: &'static str, more_info: Cow<'static, str>| ErrorBody {
            status: self.status(),
            kind,
            message: message.into(),
            more_info,
            details: None,
        };
        let field = |field: &'static str, kind, words: &'static str| ErrorBody {
            details: Some([ErrorDetail {
                field: field.into(),
                kind,
                message: words.into(),
                more_info: "".into(),
            }]),
            ..plain("validation_violation", words, "".into())
        };
        match self {
            Self::EmptyBody => plain("bad_payload_syntax", bad_payload, bad_payload.into()),
            Self::BadPayload(why) => plain("bad_payload_syntax", bad_payload, why.clone().into()),
            Self::Missing(name) => field(name, "missing_field", missing_field),
            Self::Invalid(name) => field(name, "invalid_field", invalid_field),
            Self::TooLarge => {
                let why = "http: request body too large";
                plain("request_body_too_large", TOO_LARGE, why.into())
            }
            Self::NotFound => {
                plain("not_found", "Requested resource could not be found.", "".into())
            }
            Self::MethodNotAllowed => plain("bad_request", "Method not allowed.", "".into()),
            Self::Relayed(refusal) => refusal.body(),
        }
    }
}

impl ErrorBody {
    /// The body as JSON, with the line end of the original.
    pub fn json(&self) -> Vec<u8> {
        json_line(self)
    }
}

/// The front's form of an error body and of its detail: what is empty is left out.
#[derive(Serialize)]
struct Sparse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    field: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    message: &'a str,
    #[serde(rename = "moreInfo", skip_serializing_if = "str::is_empty")]
    more_info: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Self>,
}

impl<'a> From<&'a ErrorBody> for Sparse<'a> {
    fn from(body: &'a ErrorBody) -> Self {
        Self {
            status: Some(body.status),
            field: "",
            kind: body.kind,
            message: &body.message,
            more_info: &body.more_info,
            details: body.details.iter().flatten().map(Self::from).collect(),
        }
    }
}

impl<'a> From<&'a ErrorDetail> for Sparse<'a> {
    fn from(detail: &'a ErrorDetail) -> Self {
        Self {
            status: None,
            field: &detail.field,
            kind: detail.kind,
            message: &detail.message,
            more_info: &detail.more_info,
            details: Vec::new(),
        }
    }
}

/// The text, or where it is long its ends: errors of parsers repeat what they read, and say behind
/// it where that was.
pub(crate) fn shortened(text: &dyn fmt::Display) -> String {
    let text = text.to_string();
    let half = limits::REPEATED_CHARS / 2;
    if text.len() <= 2 * half {
        return text;
    }
    let (start, end) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{} … {}", &text[..start], &text[end..])
}

fn json_line(body: &impl Serialize) -> Vec<u8> {
    // Serialising these structures cannot fail: their keys are text.
    let mut json = serde_json::to_vec(body).unwrap_or_default();
    json.push(b'\n');
    json
}

fn path_error(code: u16, error: &str) -> Vec<u8> {
    format!("{}\n", serde_json::json!({ "code": code, "error": error })).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: Vec<u8>) -> String {
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn publish_always_writes_every_member() {
        assert_eq!(
            text(Refusal::Missing("event-type").body().json()),
            "{\"status\":400,\"type\":\"validation_violation\",\
             \"message\":\"We need all required fields complete to keep you moving.\",\
             \"moreInfo\":\"\",\"details\":[{\"field\":\"event-type\",\"type\":\"missing_field\",\
             \"message\":\"We need all required fields complete to keep you moving.\",\
             \"moreInfo\":\"\"}]}\n"
        );
        assert_eq!(
            text(Refusal::BadPayload.body().json()),
            "{\"status\":400,\"type\":\"bad_payload_syntax\",\"message\":\"Some unexpected \
             internal error occurred, please contact support.\",\"moreInfo\":\"\",\
             \"details\":null}\n"
        );
    }

    #[test]
    fn a_line_of_text_says_what_is_known() {
        let missing = "event-type: We need all required fields complete to keep you moving.";
        assert_eq!(Refusal::Missing("event-type").reason(), missing);
        assert_eq!(Refusal::TooLarge.reason(), "Request body too large");
        assert_eq!(Refusal::Malformed("not UTF-8".to_owned()).reason(), "not UTF-8");
        assert_eq!(Refusal::TooManyEvents(3).reason(), "A batch has at most 3 events");
        let wrong = Refusal::wrong("time", "a timestamp");
        assert_eq!(wrong.reason(), "time: a timestamp");
    }

    #[test]
    fn the_front_leaves_out_what_is_empty_and_relays_the_words_of_publish() {
        let json = |refusal: FrontRefusal, dialect| text(refusal.answer(dialect).1);
        let (connector, proxy) = (FrontDialect::Connector, FrontDialect::PublisherProxy);
        assert_eq!(
            json(FrontRefusal::Invalid("event-time"), connector),
            "{\"status\":400,\"type\":\"validation_violation\",\"message\":\"Invalid Field\",\
             \"details\":[{\"field\":\"event-time\",\"type\":\"invalid_field\",\
             \"message\":\"Invalid Field\"}]}\n"
        );
        let relayed = FrontRefusal::Relayed(Refusal::TooManyRequests);
        assert_eq!(relayed.status(), 429);
        assert!(!json(relayed, connector).contains("moreInfo"));
        assert_eq!(
            json(FrontRefusal::NotFound, connector),
            "{\"code\":404,\"error\":\"Requested resource could not be found.\"}\n"
        );
        assert_eq!(
            json(FrontRefusal::Missing("data"), proxy),
            "{\"status\":400,\"type\":\"validation_violation\",\"message\":\"Missing field\",\
             \"details\":[{\"field\":\"data\",\"type\":\"missing_field\",\
             \"message\":\"Missing field\"}]}\n"
        );
        assert_eq!(json(FrontRefusal::NotFound, proxy), "404 page not found\n");
        assert_eq!(json(FrontRefusal::MethodNotAllowed, proxy), "");
    }
}
