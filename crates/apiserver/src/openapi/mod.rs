//! OpenAPI, made of the definitions: with it `kubectl` checks what it sends, and explains the
//! fields. Clients of today take version 3, a document for each group version; older ones take
//! version 2, all in one document, and that in protobuf alone.
//!
//! The definitions do not change while the server runs, so the documents are made once.

mod encoding;
mod v2;
mod v3;

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{accept, body::Body, definition::Registry, status::ApiError};

const JSON: &str = "application/json";
/// The media type of version 2 in protobuf, and the name it had, which no parser of media types
/// takes, but which clients still ask for.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const OLD_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// What a path below `/openapi` names.
#[derive(Debug)]
pub(crate) enum Place<'p> {
    /// `/openapi/v2`.
    Everything,
    /// `/openapi/v3`.
    Index,
    /// A group version below it.
    Version(&'p str, &'p str),
}

/// All documents.
pub(crate) struct Documents {
    /// Version 2, in JSON and in protobuf.
    everything: [Document; 2],
    index: Document,
    versions: BTreeMap<String, Document>,
}

/// A document as it is sent.
struct Document {
    media_type: &'static str,
    content: Bytes,
    /// Changes with the content.
    hash: String,
}

impl Documents {
    /// Makes the documents.
    pub(crate) fn compile(registry: &Registry) -> Result<Self, serde_json::Error> {
        let (mut written, mut versions, mut addresses) = (Vec::new(), BTreeMap::new(), json!({}));
        for (group, version, resources) in registry.group_versions() {
            let described = v3::document(&resources)?;
            let (place, document) = (place(group, version), Document::json(&described));
            let address = format!("/openapi/v3/{place}?hash={}", document.hash);
            addresses[&place] = json!({ "serverRelativeURL": address });
            versions.insert(place, document);
            written.push(described);
        }
        let everything = v2::document(&written);
        let encoded = Document::new(PROTOBUF, encoding::encode(&everything));
        Ok(Self {
            everything: [Document::json(&everything), encoded],
            index: Document::json(&json!({ "paths": addresses })),
            versions,
        })
    }

    /// Answers with a document; none if there is none of the kind.
    pub(crate) fn answer(
        &self,
        place: &Place<'_>,
        headers: &HeaderMap,
    ) -> Result<Option<Response<Body>>, ApiError> {
        let [plain, encoded] = &self.everything;
        let offers = match place {
            Place::Everything => {
                vec![(JSON, plain), (PROTOBUF, encoded), (OLD_PROTOBUF, encoded)]
            }
            Place::Index => vec![(JSON, &self.index)],
            Place::Version(group, version) => match self.versions.get(&self::place(group, version))
            {
                Some(document) => vec![(JSON, document)],
                None => return Ok(None),
            },
        };
        let names: Vec<&str> = offers.iter().map(|(name, _)| *name).collect();
        let wanted = headers.get(header::ACCEPT).map(|value| value.to_str().unwrap_or_default());
        let best = accept::best_of(wanted, &names).and_then(|best| offers.get(best));
        let (_, document) = best.ok_or_else(|| ApiError::not_acceptable(&names))?;
        Ok(Some(document.answer(headers)))
    }
}

impl Document {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let hash = digest(&SHA256, &content);
        let hash = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Self { media_type, content: content.into(), hash }
    }

    fn json(document: &Value) -> Self {
        Self::new(JSON, document.to_string().into())
    }

    /// The document; 304 to whoever has it.
    fn answer(&self, headers: &HeaderMap) -> Response<Body> {
        let tag = format!("\"{}\"", self.hash);
        let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| {
            let mut known = known.to_str().unwrap_or_default().split(',').map(str::trim);
            known.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
        });
        let mut response = match known {
            true => Response::new(Body::whole(Bytes::new())),
            false => Response::new(Body::whole(self.content.clone())),
        };
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let said = response.headers_mut();
        said.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        said.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        said.insert(header::VARY, HeaderValue::from_static("Accept"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            said.insert(header::ETAG, tag);
        }
        response
    }
}

/// Where a group version lies, below the root.
fn place(group: &str, version: &str) -> String {
    match group {
        "" => format!("api/{version}"),
        group => format!("apis/{group}/{version}"),
    }
}

/// What every document says of itself.
fn about() -> Value {
    json!({ "title": "eventbus", "version": env!("CARGO_PKG_VERSION") })
}
