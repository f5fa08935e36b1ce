//! Structural schemas: compiled once from a definition's `openAPIV3Schema`, then used to drop what
//! they do not know (`shape`), to fill in defaults (`shape`) and to find faults (`validate`).
//!
//! A definition that asks for what this server does not do is refused when it is read, so that no
//! rule is ever silently ignored.

pub(crate) mod parts;
mod rules;
mod shape;
mod validate;

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use thiserror::Error;

pub(crate) use self::rules::Rules;

/// Why a schema cannot be used.
#[derive(Debug, Error, Eq, PartialEq)]
#[error("{path}: {reason}")]
pub struct SchemaError {
    /// Where, such as `properties.spec.pattern`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// One node of a schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    kind: Option<Kind>,
    nullable: bool,
    /// Members that no property names are kept (`x-kubernetes-preserve-unknown-fields`).
    open: bool,
    int_or_string: bool,
    properties: BTreeMap<String, Schema>,
    additional: Option<Box<Schema>>,
    items: Option<Box<Schema>>,
    list: parts::ListKind,
    /// The object is one field, owned as a whole.
    is_atomic_map: bool,
    required: Vec<String>,
    default: Option<Value>,
    choices: Option<Vec<Value>>,
    format: Option<Format>,
    pattern: Option<Regex>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
    multiple_of: Option<f64>,
    length: Limits,
    count: Limits,
    members: Limits,
    unique: bool,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// The formats that are checked; others say something to people only, as on the real server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    DateTime,
    Int32,
    Int64,
    Uuid,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    value: f64,
    exclusive: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    least: Option<u64>,
    most: Option<u64>,
}

/// Members of a schema that say something to people or to clients, not to the server, and those
/// that are read beside others.
const SILENT: [&str; 9] = [
    "description",
    "title",
    "example",
    "externalDocs",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "exclusiveMinimum",
    // Read apart, for all of a schema at once.
    rules::MEMBER,
];

impl Schema {
    /// Reads a schema as a definition writes it.
    pub(crate) fn compile(written: &Value) -> Result<Self, SchemaError> {
        compile(written, "")
    }

    /// The schema of a property, when there is one.
    pub(crate) fn property(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name)
    }
}

fn compile(written: &Value, path: &str) -> Result<Schema, SchemaError> {
    let Value::Object(members) = written else {
        return Err(fault(path, "a schema must be an object"));
    };
    let mut schema = Schema::default();
    schema.read_parts(members, path)?;
    for (name, value) in members {
        let path = below(path, name);
        match name.as_str() {
            "minimum" => schema.minimum = Some(bound(members, "exclusiveMinimum", value, &path)?),
            "maximum" => schema.maximum = Some(bound(members, "exclusiveMaximum", value, &path)?),
            "exclusiveMaximum" => {}
            silent if SILENT.contains(&silent) => {}
            _ => member(&mut schema, name, value, &path)?,
        }
    }
    Ok(schema)
}

fn member(schema: &mut Schema, name: &str, value: &Value, path: &str) -> Result<(), SchemaError> {
    match name {
        "type" => schema.kind = Some(kind(value, path)?),
        "format" => schema.format = format(value),
        "nullable" => schema.nullable = truth(value, path)?,
        "x-kubernetes-preserve-unknown-fields" => schema.open = truth(value, path)?,
        "x-kubernetes-int-or-string" => schema.int_or_string = truth(value, path)?,
        "uniqueItems" => schema.unique = truth(value, path)?,
        "properties" => schema.properties = properties(value, path)?,
        "additionalProperties" => match value {
            Value::Bool(open) => schema.open |= open,
            value => schema.additional = Some(compile(value, path)?.into()),
        },
        "items" => schema.items = Some(compile(value, path)?.into()),
        "required" => schema.required = names(value, path)?,
        "default" => schema.default = Some(value.clone()),
        "enum" => match value {
            Value::Array(choices) => schema.choices = Some(choices.clone()),
            _ => return Err(fault(path, "must be a list")),
        },
        "pattern" => schema.pattern = Some(pattern(value, path)?),
        "multipleOf" => match value.as_f64() {
            Some(step) if step > 0.0 => schema.multiple_of = Some(step),
            _ => return Err(fault(path, "must be a number above 0")),
        },
        "minLength" => schema.length.least = Some(size(value, path)?),
        "maxLength" => schema.length.most = Some(size(value, path)?),
        "minItems" => schema.count.least = Some(size(value, path)?),
        "maxItems" => schema.count.most = Some(size(value, path)?),
        "minProperties" => schema.members.least = Some(size(value, path)?),
        "maxProperties" => schema.members.most = Some(size(value, path)?),
        "allOf" => schema.all_of = several(value, path)?,
        "anyOf" => schema.any_of = several(value, path)?,
        "oneOf" => schema.one_of = several(value, path)?,
        "not" => schema.not = Some(compile(value, path)?.into()),
        _ => return Err(fault(path, "this server does not know this member of a schema")),
    }
    Ok(())
}

fn fault(path: &str, reason: &str) -> SchemaError {
    SchemaError { path: path.into(), reason: reason.into() }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

fn kind(value: &Value, path: &str) -> Result<Kind, SchemaError> {
    let kinds =
        [Kind::Object, Kind::Array, Kind::String, Kind::Integer, Kind::Number, Kind::Boolean];
    let found = kinds.into_iter().find(|kind| value.as_str() == Some(kind.as_str()));
    found.ok_or_else(|| fault(path, "must be one of the JSON types"))
}

fn format(value: &Value) -> Option<Format> {
    match value.as_str()? {
        "date-time" => Some(Format::DateTime),
        "int32" => Some(Format::Int32),
        "int64" => Some(Format::Int64),
        "uuid" => Some(Format::Uuid),
        _ => None,
    }
}

fn truth(value: &Value, path: &str) -> Result<bool, SchemaError> {
    value.as_bool().ok_or_else(|| fault(path, "must be true or false"))
}

fn size(value: &Value, path: &str) -> Result<u64, SchemaError> {
    value.as_u64().ok_or_else(|| fault(path, "must be a whole number, 0 or more"))
}

fn pattern(value: &Value, path: &str) -> Result<Regex, SchemaError> {
    let text = value.as_str().ok_or_else(|| fault(path, "must be a text"))?;
    RegexBuilder::new(text).build().map_err(|error| fault(path, &error.to_string()))
}

fn names(value: &Value, path: &str) -> Result<Vec<String>, SchemaError> {
    let names: Option<Vec<String>> = value
        .as_array()
        .and_then(|list| list.iter().map(|name| name.as_str().map(Into::into)).collect());
    names.ok_or_else(|| fault(path, "must be a list of texts"))
}

fn bound(
    members: &serde_json::Map<String, Value>,
    exclusive: &str,
    value: &Value,
    path: &str,
) -> Result<Bound, SchemaError> {
    let exclusive = members.get(exclusive).and_then(Value::as_bool).unwrap_or_default();
    let value = value.as_f64().ok_or_else(|| fault(path, "must be a number"))?;
    Ok(Bound { value, exclusive })
}

fn properties(value: &Value, path: &str) -> Result<BTreeMap<String, Schema>, SchemaError> {
    let Value::Object(members) = value else { return Err(fault(path, "must be an object")) };
    members
        .iter()
        .map(|(name, schema)| Ok((name.clone(), compile(schema, &below(path, name))?)))
        .collect()
}

fn several(value: &Value, path: &str) -> Result<Vec<Schema>, SchemaError> {
    let Value::Array(schemas) = value else { return Err(fault(path, "must be a list")) };
    schemas
        .iter()
        .enumerate()
        .map(|(index, schema)| compile(schema, &format!("{path}[{index}]")))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_would_ignore_is_refused() {
        let refused = |schema: Value| Schema::compile(&schema).unwrap_err().to_string();
        let inside =
            json!({ "properties": { "spec": { "x-kubernetes-embedded-resource": true } } });
        assert_eq!(
            refused(inside),
            "properties.spec.x-kubernetes-embedded-resource: \
             this server does not know this member of a schema"
        );
        assert!(refused(json!({ "pattern": "(" })).starts_with("pattern: "));
        assert!(refused(json!({ "type": "text" })).starts_with("type: "));
        assert!(refused(json!({ "maxLength": -1 })).starts_with("maxLength: "));
        assert!(refused(json!({ "oneOf": [3] })).starts_with("oneOf[0]: "));
        assert!(refused(json!(true)).contains("must be an object"));
    }
}
