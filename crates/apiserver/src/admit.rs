//! What every written object goes through before it is stored: is it of the kind the path names,
//! what of it is unknown, what of it is wrong.

use serde_json::Value;

use crate::{
    builtin,
    definition::Resource,
    limits, metadata, object,
    route::FieldValidation,
    status::{ApiError, Cause},
};

/// Refuses what is not an object of this resource.
pub(crate) fn check_kind(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized: a {} must be a JSON object",
            resource.kind
        )));
    }
    let field = |name: &str| match object[name].as_str() {
        Some(text) if !text.is_empty() => Ok(text),
        _ => {
            let title = if name == "kind" { "Kind" } else { name };
            Err(ApiError::bad_request(format!("Object '{title}' is missing in the body")))
        }
    };
    let (kind, version) = (field("kind")?, field("apiVersion")?);
    if version != resource.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            resource.api_version()
        )));
    }
    if kind != resource.kind {
        return Err(unhandled(
            resource,
            kind,
            &format!("the kind in the data ({kind}) does not match the expected kind"),
        ));
    }
    refuse(resource, object, metadata::type_faults(object, resource))
}

/// Says for the client what the path has said already: clients of Kubernetes' own kinds leave it
/// out, and the real server lets them.
pub(crate) fn complete(resource: &Resource, object: &mut Value) {
    let is_kubernetes_own = resource.group.is_empty() || resource.group.ends_with(".k8s.io");
    let Value::Object(members) = object else { return };
    if is_kubernetes_own {
        members.entry("kind").or_insert_with(|| resource.kind.clone().into());
        members.entry("apiVersion").or_insert_with(|| resource.api_version().into());
    }
}

/// Drops what the schema does not know. By the client's wish unknown and repeated fields are
/// refused, or given back as warnings, or passed over.
pub(crate) fn prune(
    resource: &Resource,
    object: &mut Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>, Unknown> {
    let mut dropped = Vec::new();
    resource.schema.prune(object, "", &mut dropped);
    dropped.truncate(limits::CAUSES);
    let duplicates = duplicates.iter().map(|path| format!("duplicate field \"{path}\""));
    let unknown = dropped.iter().map(|path| format!("unknown field \"{path}\""));
    let faults: Vec<String> = duplicates.chain(unknown).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(faults),
        FieldValidation::Strict if faults.is_empty() => Ok(faults),
        FieldValidation::Strict => Err(Unknown(faults)),
    }
}

/// Refuses fields of an application that the schema does not know, whatever the client wishes: what
/// is not stored cannot be owned. Repeated fields are refused or warned of, as elsewhere.
pub(crate) fn check_fields(
    resource: &Resource,
    applied: &Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let mut dropped = Vec::new();
    resource.schema.prune(&mut applied.clone(), "", &mut dropped);
    dropped.truncate(limits::CAUSES);
    if !dropped.is_empty() {
        let faults: Vec<String> =
            dropped.iter().map(|path| format!(".{path}: field not declared in schema")).collect();
        let faults = match faults.as_slice() {
            [only] => only.clone(),
            several => format!("errors:\n  {}", several.join("\n  ")),
        };
        return Err(ApiError::bad_request(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {faults}",
            object::text(applied, "namespace"),
            object::name(applied),
            resource.api_version(),
            resource.kind
        )));
    }
    let faults: Vec<String> =
        duplicates.iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !faults.is_empty() => {
            let faults = faults.join(", ");
            Err(ApiError::bad_request(format!("error strict decoding YAML: {faults}")))
        }
        _ => Ok(faults),
    }
}

/// Fields that strict validation refuses.
pub(crate) struct Unknown(Vec<String>);

impl Unknown {
    /// The refusal of a whole object.
    pub(crate) fn in_object(&self, resource: &Resource) -> ApiError {
        unhandled(resource, &resource.kind, &self.sentence())
    }

    /// The refusal of a patch that made `patched`.
    pub(crate) fn in_patch(&self, resource: &Resource, patched: &Value) -> ApiError {
        let cause = match resource.is_secret() {
            true => Cause::hidden("patch", &self.sentence()),
            false => Cause::invalid("patch", patched, &self.sentence()),
        };
        ApiError::invalid_options("", "", vec![cause])
    }

    fn sentence(&self) -> String {
        format!("strict decoding error: {}", self.0.join(", "))
    }
}

fn unhandled(resource: &Resource, kind: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{kind} in version \"{}\" cannot be handled as a {}: {why}",
        resource.version, resource.kind
    ))
}

/// Refuses an object that breaks the schema or the rules of metadata; every fault at once.
pub(crate) fn validate(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    let mut faults = metadata::faults(object, resource);
    faults.extend(resource.schema.faults(object, ""));
    if faults.is_empty() {
        faults = resource.rules.faults(object);
    }
    faults.extend(builtin::faults(resource, object));
    faults.truncate(limits::CAUSES);
    refuse(resource, object, faults)
}

/// Refuses an object that breaks the schema; its metadata may be empty.
pub(crate) fn validate_fields(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    let mut faults = resource.schema.faults(object, "");
    faults.truncate(limits::CAUSES);
    refuse(resource, object, faults)
}

/// Refuses an object whose status breaks the schema. The rest is as it was stored.
pub(crate) fn validate_status(resource: &Resource, object: &Value) -> Result<(), ApiError> {
    let schema = resource.schema.property("status");
    let faults = match (schema, object.get("status")) {
        (Some(schema), Some(status)) => schema.faults(status, "status"),
        _ => Vec::new(),
    };
    refuse(resource, object, faults)
}

fn refuse(resource: &Resource, object: &Value, faults: Vec<Cause>) -> Result<(), ApiError> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(resource, object::name(object), faults))
}
