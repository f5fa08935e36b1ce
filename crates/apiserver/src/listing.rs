//! The body of a list. Each object is put into the form that was asked for only as it is sent, so
//! that a long list lies in memory once: as it was read.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    accept::{Encoding, Shape},
    definition::Resource,
    render::{self, Form},
    status::ApiError,
    store::Held,
    table,
};

/// Pieces of this size are handed on with little overhead and freed as they are sent.
const PIECE_BYTES: usize = 64 * 1024;

/// A list that is being sent, piece by piece.
pub(crate) struct Listing {
    form: Form,
    resource: Arc<Resource>,
    objects: Held,
    /// What follows the objects; none when it is said.
    tail: Option<&'static [u8]>,
    piece: Vec<u8>,
}

impl Listing {
    pub(crate) fn new(
        form: Form,
        resource: &Arc<Resource>,
        objects: Held,
        metadata: Value,
    ) -> Result<Self, ApiError> {
        let (frame, member) = frame(form, resource, metadata);
        let (piece, tail): (String, &[u8]) = match form.accept.encoding {
            Encoding::Json => {
                let frame = frame.to_string();
                let open = frame.strip_suffix('}').unwrap_or(&frame);
                (format!("{open},\"{member}\":["), b"]}\n")
            }
            Encoding::Yaml => {
                let none = if objects.is_empty() { " []" } else { "" };
                let frame = render::yaml(&frame)?;
                (format!("{}\n{member}:{none}\n", frame.trim_end()), b"")
            }
        };
        let resource = Arc::clone(resource);
        Ok(Self { form, resource, objects, tail: Some(tail), piece: piece.into() })
    }

    /// Says the next objects.
    fn fill(&mut self) -> Result<(), ApiError> {
        while self.piece.len() < PIECE_BYTES
            && let Some(body) = self.objects.pop()
        {
            let item = self.form.item(&self.resource, &body)?;
            self.piece.extend_from_slice(&item);
            if self.form.accept.encoding == Encoding::Json && !self.objects.is_empty() {
                self.piece.push(b',');
            }
        }
        if self.objects.is_empty() {
            self.piece.extend_from_slice(self.tail.take().unwrap_or_default());
        }
        Ok(())
    }
}

impl Iterator for Listing {
    type Item = Bytes;

    /// A list that cannot go on ends without its tail, so that nobody takes it for whole.
    fn next(&mut self) -> Option<Bytes> {
        let filled = self.fill();
        if let Err(error) = filled {
            tracing::error!(status = %error.status(), "a list ends in the middle");
        } else if !self.objects.is_given_up() {
            return (!self.piece.is_empty()).then(|| std::mem::take(&mut self.piece).into());
        }
        self.piece.clear();
        (self.objects, self.tail) = (Held::default(), None);
        None
    }
}

/// What stands around the objects, and the name of the list that they stand in.
fn frame(form: Form, resource: &Resource, metadata: Value) -> (Value, &'static str) {
    match form.accept.shape {
        Shape::Object => {
            let (kind, version) = (resource.list_kind.as_str(), resource.api_version());
            (json!({ "kind": kind, "apiVersion": version, "metadata": metadata }), "items")
        }
        Shape::Metadata => {
            let (kind, version) = ("PartialObjectMetadataList", "meta.k8s.io/v1");
            (json!({ "kind": kind, "apiVersion": version, "metadata": metadata }), "items")
        }
        Shape::Table(version) => (table::frame(version, resource, metadata, false), "rows"),
    }
}
