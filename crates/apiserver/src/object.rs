//! Reading and writing an object's metadata in place.
//!
//! Objects are JSON values and stay so: the server is generic, and what it does not know it keeps.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::status::ApiError;

/// An owner named by an object.
pub(crate) struct Owner<'o> {
    /// The group of its `apiVersion`; empty for the core group.
    pub(crate) group: &'o str,
    pub(crate) kind: &'o str,
    pub(crate) uid: &'o str,
    /// Whether the owner's foreground deletion waits for this object.
    pub(crate) blocks: bool,
}

/// The finalizer of an object whose dependents go first.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// An object as it lies in the store.
pub(crate) fn read(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::internal(format!("a stored object is not JSON: {error}")))
}

/// A text of the metadata; empty when absent.
pub(crate) fn text<'o>(object: &'o Value, field: &str) -> &'o str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, "name")
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// Whether the object is marked for deletion.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// The texts of a list in the metadata, such as the finalizers.
pub(crate) fn texts<'o>(object: &'o Value, field: &str) -> Vec<&'o str> {
    let list = object["metadata"][field].as_array();
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Sets a member of the metadata, or takes it away.
pub(crate) fn set(object: &mut Value, field: &str, value: Option<Value>) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    match value {
        Some(value) => metadata[field] = value,
        None => drop(metadata.as_object_mut().and_then(|metadata| metadata.remove(field))),
    }
}

pub(crate) fn set_revision(object: &mut Value, revision: u64) {
    set(object, "resourceVersion", Some(revision.to_string().into()));
}

/// A moment as Kubernetes writes it: seconds, UTC.
pub(crate) fn moment(now_ms: u64) -> Value {
    let seconds = i64::try_from(now_ms / 1000).unwrap_or(i64::MAX);
    let moment = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    moment.to_string().into()
}

/// The owners that an object names, as far as they are readable.
pub(crate) fn owners(object: &Value) -> impl Iterator<Item = Owner<'_>> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten().filter_map(|owner| {
        let version = owner["apiVersion"].as_str()?;
        Some(Owner {
            group: version.split_once('/').map_or("", |(group, _)| group),
            kind: owner["kind"].as_str()?,
            uid: owner["uid"].as_str()?,
            blocks: owner["blockOwnerDeletion"].as_bool().unwrap_or_default(),
        })
    })
}

/// The size of the deepest nesting: 0 for a scalar, 1 for a flat object.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// Kubernetes' name of a value's JSON type.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn moments_have_seconds_and_end_in_z() {
        assert_eq!(moment(1_500_000_000_999), json!("2017-07-14T02:40:00Z"));
        assert_eq!(moment(0), json!("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn owners_are_read_with_their_group() {
        let object = json!({ "metadata": { "ownerReferences": [
            { "apiVersion": "a.b/v1", "kind": "K", "uid": "1", "blockOwnerDeletion": true },
            { "apiVersion": "v1", "kind": "Namespace", "uid": "2" },
            { "kind": "none" },
        ] } });
        let owners: Vec<_> = owners(&object)
            .map(|owner| (owner.group, owner.kind, owner.uid, owner.blocks))
            .collect();
        assert_eq!(owners, [("a.b", "K", "1", true), ("", "Namespace", "2", false)]);
    }

    #[test]
    fn metadata_is_made_where_it_is_missing_or_nonsense() {
        for mut object in [json!(null), json!({}), json!({ "metadata": 3 })] {
            set_revision(&mut object, 7);
            assert_eq!(object, json!({ "metadata": { "resourceVersion": "7" } }));
        }
    }
}
