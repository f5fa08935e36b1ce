//! What can be done with a resource, a file for each verb.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
mod options;
pub(crate) mod update;
pub(crate) mod watch;

use std::sync::Arc;

use bytes::Bytes;
use eventbus_core::{Clock, Entropy};
use http::{HeaderMap, StatusCode, header};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::{
    access::User,
    admit,
    audit::Audit,
    decode::{Decoded, Syntax, decode},
    definition::{Registry, Resource},
    fields::Author,
    limits, object,
    openapi::Documents,
    protobuf,
    render::Form,
    route::{Query, Target},
    status::{ApiError, Cause},
    store::{Key, Store},
    users::Standing,
};

/// What every request works with.
pub(crate) struct Api {
    pub(crate) registry: Arc<Registry>,
    /// What the resources look like, for clients.
    pub(crate) openapi: Documents,
    pub(crate) store: Store,
    /// Where it is told who wrote what.
    pub(crate) audit: Option<Audit>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// The writes that users asked for, and that are not told of yet.
    pub(crate) writes: TaskTracker,
    /// The places of the watches that are served.
    pub(crate) watches: Arc<Semaphore>,
    /// Turns true when the server closes: watches end.
    pub(crate) closing: tokio::sync::watch::Sender<bool>,
}

/// A request for a resource, read as far as all verbs need it.
pub(crate) struct Call {
    /// Who asks; none: the program itself.
    pub(crate) user: Option<User>,
    /// What they came in with, if it may be taken away.
    pub(crate) standing: Option<Standing>,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) form: Form,
    pub(crate) headers: HeaderMap,
    /// The body; or why it could not be had, which whoever asks for it is told.
    pub(crate) body: Result<Bytes, ApiError>,
}

/// What a write answers with.
pub(crate) struct Written {
    pub(crate) code: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) warnings: Vec<String>,
}

impl Call {
    pub(crate) fn resource(&self) -> &Arc<Resource> {
        &self.target.resource
    }

    /// Where the object named by the path is.
    fn key(&self) -> Key {
        Key {
            resource: self.resource().index,
            namespace: self.target.namespace.clone().unwrap_or_default(),
            name: self.target.name.clone().unwrap_or_default(),
        }
    }

    /// Who writes: the name given for it, or the beginning of the `User-Agent`.
    fn author(&self) -> Result<Author, ApiError> {
        let given = self.query.text("fieldManager");
        if let Some(fault) = author_fault(given) {
            return Err(ApiError::invalid_options("WriteOptions", "meta.k8s.io", vec![fault]));
        }
        let agent = self.headers.get(header::USER_AGENT);
        let agent = agent.map_or(NAMELESS, |agent| agent.to_str().unwrap_or(NAMELESS));
        let name = match given {
            "" => agent.split('/').next().unwrap_or_default().trim(),
            given => given,
        };
        let moment = object::moment(self.form.now_ms);
        Ok(Author {
            name: name.chars().take(limits::FIELD_AUTHOR_BYTES).collect(),
            applies: false,
            api_version: self.resource().api_version(),
            subresource: if self.target.status { "status".into() } else { String::new() },
            time: moment.as_str().unwrap_or_default().into(),
        })
    }

    /// The media type of the body, without its parameters.
    fn media_type(&self) -> Option<&str> {
        let value = self.headers.get(header::CONTENT_TYPE)?;
        value.to_str().unwrap_or_default().split(';').next().map(str::trim)
    }

    /// The body as it came.
    fn body(&self) -> Result<&Bytes, ApiError> {
        self.body.as_ref().map_err(ApiError::clone)
    }

    /// The body as an object of the resource.
    pub(crate) fn object(&self) -> Result<Decoded, ApiError> {
        let mut decoded = self.decoded()?;
        admit::complete(self.resource(), &mut decoded.value);
        Ok(decoded)
    }

    /// The body; no media type means JSON.
    fn decoded(&self) -> Result<Decoded, ApiError> {
        let syntax = match self.media_type() {
            None | Some("" | "application/json") => Syntax::Json,
            Some("application/yaml") => Syntax::Yaml,
            Some(protobuf::MEDIA_TYPE) => return protobuf::decode(self.body()?),
            Some(_) => {
                let accepted = ["application/json", "application/yaml"];
                return Err(ApiError::unsupported_media_type(&accepted));
            }
        };
        decode(self.body()?, syntax)
    }
}

/// Who writes under no name.
const NAMELESS: &str = "unknown";

/// Why this cannot be a `fieldManager`.
fn author_fault(name: &str) -> Option<Cause> {
    let field = "fieldManager";
    if name.len() > limits::FIELD_AUTHOR_BYTES {
        return Some(Cause::too_long(field, limits::FIELD_AUTHOR_BYTES as u64));
    }
    let (place, letter) = name.char_indices().find(|(_, letter)| letter.is_control())?;
    let why = format!("invalid character U+{:04X} (at position {place})", u32::from(letter));
    Some(Cause::invalid(field, &name.into(), &why))
}
