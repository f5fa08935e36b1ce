//! Replace and patch, of objects and of their status: all end in [`Change::keep`], where apply ends
//! too.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::{Api, Call, Written, create::label_namespace};
use crate::{
    admit, builtin,
    definition::Resource,
    fields::{self, Author, Ownership},
    metadata, object,
    patch::Patch,
    route::FieldValidation,
    status::{ApiError, Cause},
    store::{Draft, Key, serialised},
};

/// Puts the object of the body in place of the stored one.
pub(crate) async fn replace(api: &Api, call: &Call) -> Result<Written, ApiError> {
    let change = Change::of(call)?;
    let resource = &change.resource;
    let decoded = call.object()?;
    let mut object = decoded.value;
    admit::check_kind(resource, &object)?;
    check_place(&change.key, &object)?;
    let validation = call.query.field_validation()?;
    let warnings = admit::prune(resource, &mut object, &decoded.duplicates, validation)
        .map_err(|unknown| unknown.in_object(resource))?;
    let replaced = move |stored: Option<&Bytes>| {
        let before = Before::read(change.found(stored)?)?;
        change.settle(before, object.clone())
    };
    let body = api.store.revise(call.key(), replaced).await?;
    Ok(Written { code: StatusCode::OK, body, warnings })
}

/// Applies the patch of the body to the stored object.
pub(crate) async fn patch(api: &Api, call: &Call) -> Result<Written, ApiError> {
    let change = Change::of(call)?;
    let validation = call.query.field_validation()?;
    if !call.query.text("force").is_empty() {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(ApiError::invalid_options("PatchOptions", "meta.k8s.io", vec![cause]));
    }
    let patch = Patch::read(call.resource(), call.media_type(), call.body()?)?;
    let patched = move |stored: Option<&Bytes>| {
        let stored = change.found(stored)?;
        let (after, warnings) = change.patched(&object::read(stored)?, &patch, validation)?;
        let draft = change.settle(Before::read(stored)?, after)?;
        Ok(draft.with(warnings))
    };
    let (body, warnings) = api.store.revise(call.key(), patched).await?;
    Ok(Written { code: StatusCode::OK, body, warnings })
}

/// The name and namespace of the path count; a body may repeat them.
pub(super) fn check_place(key: &Key, object: &Value) -> Result<(), ApiError> {
    let name = object::name(object);
    if !name.is_empty() && name != key.name {
        let text = format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        );
        return Err(ApiError::bad_request(text));
    }
    let namespace = object::text(object, "namespace");
    if !namespace.is_empty() && namespace != key.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// A change of one object.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) resource: Arc<Resource>,
    pub(crate) key: Key,
    /// Only the status changes; otherwise everything but the status.
    pub(crate) status: bool,
    /// Who writes may not read: what is answered must not tell what was there.
    blind: bool,
    /// Nothing is kept.
    pub(crate) dry: bool,
    pub(crate) now_ms: u64,
    pub(crate) author: Author,
}

/// An object as it is stored, its ownership apart.
pub(super) struct Before {
    body: Bytes,
    pub(super) object: Value,
    pub(super) ownership: Ownership,
}

impl Before {
    pub(super) fn read(body: &Bytes) -> Result<Self, ApiError> {
        let mut object = object::read(body)?;
        let ownership = Ownership::detach(&mut object);
        Ok(Self { body: body.clone(), object, ownership })
    }
}

impl Change {
    pub(super) fn of(call: &Call) -> Result<Self, ApiError> {
        Ok(Self {
            resource: Arc::clone(call.resource()),
            key: call.key(),
            status: call.target.status,
            blind: call.form.hides(call.resource()),
            dry: call.query.dry_run()?,
            now_ms: call.form.now_ms,
            author: call.author()?,
        })
    }

    /// What is stored, if it is there.
    pub(super) fn found<S>(&self, stored: Option<S>) -> Result<S, ApiError> {
        stored.ok_or_else(|| ApiError::not_found(&self.resource, &self.key.name))
    }

    /// The object with the patch applied, and what must be warned of.
    fn patched(
        &self,
        before: &Value,
        patch: &Patch,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let mut after = before.clone();
        patch.apply(&self.resource, &mut after)?;
        admit::check_kind(&self.resource, &after)?;
        let warnings = admit::prune(&self.resource, &mut after, patch.duplicates(), validation)
            .map_err(|unknown| unknown.in_patch(&self.resource, &after))?;
        for field in ["name", "namespace"] {
            if object::text(&after, field) != object::text(before, field) {
                let path = format!("metadata.{field}");
                let value = &after["metadata"][field];
                let cause = Cause::invalid(&path, value, "field is immutable");
                return Err(ApiError::invalid(&self.resource, &self.key.name, vec![cause]));
            }
        }
        if object::text(&after, "resourceVersion").is_empty() {
            // A patch says what to change, not from what: without a version it fits any.
            let revision = before["metadata"].get("resourceVersion").cloned();
            object::set(&mut after, "resourceVersion", revision);
        }
        Ok((after, warnings))
    }

    /// Checks a change whose author gets what it changes: how it is stored.
    fn settle(&self, before: Before, mut wanted: Value) -> Result<Draft<Bytes>, ApiError> {
        let brought = fields::detach(&mut wanted).filter(|_| !self.status);
        let mut ownership = before.ownership.clone().with_brought(brought.as_ref());
        let after = self.completed(&before.object, wanted)?;
        ownership.follow(&self.resource.schema, &before.object, &after, &self.author);
        self.keep(before, after, ownership)
    }

    /// Checks the change and completes it: the object as it shall be.
    pub(super) fn completed(&self, before: &Value, wanted: Value) -> Result<Value, ApiError> {
        self.check_preconditions(before, &wanted)?;
        let mut after = if self.status {
            with_member(before.clone(), "status", wanted.get("status").cloned())
        } else {
            self.without_what_is_not_the_clients(before, wanted)
        };
        self.resource.schema.complete(&mut after);
        builtin::complete(&self.resource, &mut after, self.now_ms);
        if self.status {
            admit::validate_status(&self.resource, &after)?;
        } else {
            admit::validate(&self.resource, &after)?;
            builtin::check_change(&self.resource, before, &after, self.blind)?;
            self.check_finalizers(before, &after)?;
        }
        if self.resource.has_generation() && is_another_wish(before, &after) {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or_default();
            object::set(&mut after, "generation", Some((generation + 1).into()));
        }
        Ok(after)
    }

    /// How the object is stored if anything is different; that gives it as it then is.
    pub(super) fn keep(
        &self,
        before: Before,
        mut after: Value,
        ownership: Ownership,
    ) -> Result<Draft<Bytes>, ApiError> {
        let is_same = after == before.object && ownership.is_same(&before.ownership);
        if is_same && !self.blind {
            return Ok(Draft::Answer(before.body));
        }
        ownership.attach(&mut after);
        if self.dry {
            return Ok(Draft::Answer(serialised(&after)?));
        }
        let released = object::texts(&after, "finalizers").is_empty();
        let goes = object::is_deleting(&after) && released && !self.resource.is_namespace();
        let change = self.clone();
        Ok(Draft::write(move |transaction, stored| {
            let stored = change.found(stored)?;
            if goes {
                transaction.remove(&change.key, &stored, &mut after)?;
                return Ok(after.to_string().into());
            }
            transaction.update(&change.key, &stored, &mut after)
        }))
    }

    fn check_preconditions(&self, before: &Value, wanted: &Value) -> Result<(), ApiError> {
        let name = &self.key.name;
        let revision = object::text(wanted, "resourceVersion");
        if revision.is_empty() && !self.resource.is_replaced_blindly() {
            let cause = Cause {
                reason: "FieldValueInvalid",
                text: "Invalid value: 0x0: must be specified for an update".into(),
                field: "metadata.resourceVersion".into(),
            };
            return Err(ApiError::invalid(&self.resource, name, vec![cause]));
        }
        if !revision.is_empty() && revision != object::text(before, "resourceVersion") {
            return Err(ApiError::modified(&self.resource, name));
        }
        let (wanted, uid) = (object::uid(wanted), object::uid(before));
        if !wanted.is_empty() && wanted != uid {
            let why = format!(
                "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
            );
            return Err(ApiError::conflict(&self.resource, name, &why));
        }
        Ok(())
    }

    fn without_what_is_not_the_clients(&self, before: &Value, wanted: Value) -> Value {
        let mut after = wanted;
        if self.resource.has_status {
            after = with_member(after, "status", before.get("status").cloned());
        }
        if self.resource.is_namespace() {
            after = with_member(after, "spec", before.get("spec").cloned());
        }
        let kept =
            metadata::SERVER_OWNED.iter().chain(&["name", "namespace", "uid", "resourceVersion"]);
        for field in kept {
            object::set(&mut after, field, before["metadata"].get(field).cloned());
        }
        if self.resource.is_namespace() {
            label_namespace(&mut after);
        }
        after
    }

    /// An object that is going may only lose finalizers: it would never go otherwise.
    fn check_finalizers(&self, before: &Value, after: &Value) -> Result<(), ApiError> {
        if !object::is_deleting(before) {
            return Ok(());
        }
        let known = object::texts(before, "finalizers");
        let mut added = object::texts(after, "finalizers");
        added.retain(|finalizer| !known.contains(finalizer));
        if added.is_empty() {
            return Ok(());
        }
        let why = format!(
            "no new finalizers can be added if the object is being deleted, \
             found new finalizers []string{{{}}}",
            added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
        );
        let cause = Cause::forbidden("metadata.finalizers", &why);
        Err(ApiError::invalid(&self.resource, &self.key.name, vec![cause]))
    }
}

/// The object with this member, or without it.
fn with_member(mut object: Value, name: &str, value: Option<Value>) -> Value {
    if let Some(members) = object.as_object_mut() {
        match value {
            Some(value) => members.insert(name.into(), value),
            None => members.remove(name),
        };
    }
    object
}

/// Whether anything but metadata and status differs.
fn is_another_wish(before: &Value, after: &Value) -> bool {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return true };
    let wish = |name: &&String| !matches!(name.as_str(), "metadata" | "status");
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    names.filter(wish).any(|name| before.get(name) != after.get(name))
}
