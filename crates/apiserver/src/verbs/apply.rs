//! Server-side apply: makes the object, or brings the client's part into it.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    Api, Call, Written,
    create::Newborn,
    update::{Before, Change, check_place},
};
use crate::{
    admit, builtin,
    decode::{Decoded, Syntax, decode},
    fields::{Application, Ownership},
    object, patch,
    status::{ApiError, Cause},
    store::Draft,
};

/// Whether the body is a part of an object to be applied, not a patch.
pub(crate) fn is_meant(call: &Call) -> bool {
    call.media_type() == Some(patch::APPLY)
}

/// Applies the fields of the body: 201 when they make a new object, 200 otherwise.
pub(crate) async fn apply(api: &Api, call: &Call) -> Result<Written, ApiError> {
    let mut change = Change::of(call)?;
    if call.query.text("fieldManager").is_empty() {
        let mut cause = Cause::required("fieldManager");
        cause.text.push_str(": is required for apply patch");
        return Err(ApiError::invalid_options("PatchOptions", "meta.k8s.io", vec![cause]));
    }
    change.author.applies = true;
    let Decoded { value: mut applied, duplicates } = read(call.body()?)?;
    let resource = Arc::clone(&change.resource);
    admit::check_kind(&resource, &applied)?;
    check_place(&change.key, &applied)?;
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let place = [("namespace", &change.key.namespace), ("name", &change.key.name)];
    for (field, text) in place.into_iter().filter(|(_, text)| !text.is_empty()) {
        object::set(&mut applied, field, Some(text.as_str().into()));
    }
    let validation = call.query.field_validation()?;
    let warnings = admit::check_fields(&resource, &applied, &duplicates, validation)?;
    builtin::complete_applied(&resource, &mut applied);
    let force = call.query.flag("force");
    let application = Application { applied, author: change.author.clone(), force };
    let newborn = Newborn::of(api);
    let applied = move |stored: Option<&Bytes>| match stored {
        None if !change.status => {
            Ok(make(&change, &newborn, &application)?.with(StatusCode::CREATED))
        }
        stored => {
            let before = Before::read(change.found(stored)?)?;
            Ok(bring(&change, before, &application)?.with(StatusCode::OK))
        }
    };
    let (body, code) = api.store.revise(call.key(), applied).await?;
    Ok(Written { code, body, warnings })
}

/// The body is YAML. JSON is too, all but the escapes in its texts.
fn read(body: &Bytes) -> Result<Decoded, ApiError> {
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(decoded) = decode(body, Syntax::Json)
    {
        return Ok(decoded);
    }
    decode(body, Syntax::Yaml)
}

/// Brings the fields into an object that is there.
fn bring(
    change: &Change,
    before: Before,
    application: &Application,
) -> Result<Draft<Bytes>, ApiError> {
    let (mut wanted, ownership) =
        application.apply(&change.resource, &before.object, &before.ownership)?;
    for field in ["resourceVersion", "uid"] {
        let asked = object::text(&application.applied, field);
        let known = object::text(&before.object, field);
        let precondition = if asked.is_empty() { known } else { asked };
        object::set(&mut wanted, field, Some(precondition.into()));
    }
    let after = change.completed(&before.object, wanted)?;
    change.keep(before, after, ownership)
}

/// Makes the object of the fields.
fn make(
    change: &Change,
    newborn: &Newborn,
    application: &Application,
) -> Result<Draft<Bytes>, ApiError> {
    let (resource, name) = (&change.resource, &change.key.name);
    if !object::text(&application.applied, "resourceVersion").is_empty() {
        return Err(ApiError::modified(resource, name));
    }
    let uid = object::uid(&application.applied);
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, \
             and no existing object was found"
        );
        return Err(ApiError::conflict(resource, name, &why));
    }
    let nothing: Value = json!({});
    let (mut object, ownership) = application.apply(resource, &nothing, &Ownership::default())?;
    newborn.prepare(resource, &mut object)?;
    admit::validate(resource, &object)?;
    ownership.attach(&mut object);
    let (newborn, resource, dry) = (newborn.clone(), Arc::clone(resource), change.dry);
    Ok(Draft::write(move |transaction, _| newborn.insert(transaction, &resource, object, dry)))
}
