//! Which fields a value has, and in which fields two values differ.

use std::collections::BTreeMap;

use serde_json::Value;

use super::set::FieldSet;
use crate::schema::{
    Schema,
    parts::{self, Part},
};

/// The parts of a value, each with its own value; none if the value is one field.
fn parts<'s, 'v>(
    schema: Option<&'s Schema>,
    value: &'v Value,
) -> Option<Vec<(Part<'s>, &'v Value)>> {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| Some((parts::member(schema, name)?, value)))
            .collect(),
        Value::Array(items) => Some(parts::items(schema, items)?.into_iter().zip(items).collect()),
        _ => None,
    }
}

/// The fields that a value sets, as an apply owns them: every field that is not taken apart, every
/// item and every key. A property that only holds others is owned by nobody.
pub(super) fn set_by(schema: Option<&Schema>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    for (part, value) in parts(schema, value).unwrap_or_default() {
        let is_whole = parts(part.schema, value).is_none();
        let is_empty = value.as_object().is_some_and(|members| members.is_empty());
        let owned = is_whole || is_empty || !part.is_property;
        set.insert(part.step, owned, set_by(part.schema, value));
    }
    set
}

/// Every field of a value, those too that only hold others.
fn all_of(schema: Option<&Schema>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    for (part, value) in parts(schema, value).unwrap_or_default() {
        set.insert(part.step, true, all_of(part.schema, value));
    }
    set
}

/// How a later state of an object differs from an earlier one.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Fields that are new or have another value.
    pub(super) changed: FieldSet,
    /// Fields that are gone.
    pub(super) removed: FieldSet,
}

impl Differences {
    pub(super) fn between(schema: Option<&Schema>, before: &Value, after: &Value) -> Self {
        let mut differences = Self::default();
        let mut left: BTreeMap<String, &Value> = parts(schema, before)
            .unwrap_or_default()
            .into_iter()
            .map(|(part, value)| (part.step, value))
            .collect();
        for (part, after) in parts(schema, after).unwrap_or_default() {
            match left.remove(&part.step) {
                Some(before) => differences.compare(part, before, after),
                None => differences.changed.insert(part.step, true, all_of(part.schema, after)),
            }
        }
        if left.is_empty() {
            return differences;
        }
        for (part, before) in parts(schema, before).unwrap_or_default() {
            if left.contains_key(&part.step) {
                differences.removed.insert(part.step, true, all_of(part.schema, before));
            }
        }
        differences
    }

    /// Notes how a part differs that is there before and after.
    fn compare(&mut self, part: Part<'_>, before: &Value, after: &Value) {
        if before == after {
            return;
        }
        let come_apart = |value| parts(part.schema, value).map(|parts| !parts.is_empty());
        let is_changed = match (come_apart(before), come_apart(after)) {
            // One is empty: the fields of the other came or went.
            (Some(before), Some(after)) => !before && !after,
            _ => true,
        };
        let below = Self::between(part.schema, before, after);
        self.changed.insert(part.step.clone(), is_changed, below.changed);
        self.removed.insert(part.step, false, below.removed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::compile(&json!({ "type": "object", "properties": {
            "holder": { "type": "object", "properties": { "a": { "type": "string" } } },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            "whole": { "type": "object", "x-kubernetes-map-type": "atomic",
                "additionalProperties": { "type": "string" } },
            "list": { "type": "array", "items": { "type": "string" } },
            "set": { "type": "array", "x-kubernetes-list-type": "set",
                "items": { "type": "string" } },
            "map": { "type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name", "port"],
                "items": { "type": "object", "properties": {
                    "name": { "type": "string" }, "port": { "type": "integer", "default": 80 },
                    "text": { "type": "string" } } } },
            "open": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        } }))
        .unwrap()
    }

    fn set(value: Value) -> Value {
        set_by(Some(&schema()), &value).written()
    }

    #[test]
    fn a_schema_says_what_is_one_field() {
        assert_eq!(
            set(json!({ "holder": { "a": "x" }, "labels": { "b": "y" }, "whole": { "c": "z" } })),
            json!({ "f:holder": { "f:a": {} }, "f:labels": { "f:b": {} }, "f:whole": {} })
        );
        assert_eq!(
            set(json!({ "list": ["a"], "set": ["b", "c"], "map": [{ "name": "d", "text": "e" }] })),
            json!({ "f:list": {}, "f:set": { "v:\"b\"": {}, "v:\"c\"": {} }, "f:map": {
                "k:{\"name\":\"d\",\"port\":80}": { ".": {}, "f:name": {}, "f:text": {} } } })
        );
        assert_eq!(
            set(json!({ "open": { "a": { "b": [1] } }, "holder": {}, "set": [] })),
            json!({ "f:open": { "f:a": { ".": {}, "f:b": {} } }, "f:holder": {} })
        );
    }

    #[test]
    fn what_cannot_be_told_apart_is_one_field() {
        assert_eq!(set(json!({ "set": ["a", "a"] })), json!({ "f:set": {} }));
        assert_eq!(set(json!({ "map": [{ "port": 1 }] })), json!({ "f:map": {} }));
        assert_eq!(
            set(json!({ "holder": 3, "labels": null })),
            json!({
            "f:holder": {}, "f:labels": {} })
        );
    }

    #[test]
    fn differences_are_told_field_by_field() {
        let schema = schema();
        let differ = |before: Value, after: Value| {
            let found = Differences::between(Some(&schema), &before, &after);
            (found.changed.written(), found.removed.written())
        };
        assert_eq!(
            differ(
                json!({ "holder": { "a": "x" }, "labels": { "b": "y", "c": "z" }, "list": [1] }),
                json!({ "holder": { "a": "w" }, "labels": { "b": "y" }, "list": [2] }),
            ),
            (
                json!({ "f:holder": { "f:a": {} }, "f:list": {} }),
                json!({ "f:labels": { "f:c": {} } })
            )
        );
        let item = |text: &str| json!({ "name": "d", "port": 1, "text": text });
        assert_eq!(
            differ(
                json!({ "set": ["a", "b"], "map": [item("e")] }),
                json!({ "set": ["b", "a"], "map": [item("f")], "holder": { "a": "x" } }),
            ),
            (
                json!({ "f:holder": { ".": {}, "f:a": {} },
                    "f:map": { "k:{\"name\":\"d\",\"port\":1}": { "f:text": {} } } }),
                json!({})
            )
        );
        assert_eq!(
            differ(json!({ "labels": {}, "holder": null }), json!({ "holder": { "a": "x" } })),
            (json!({ "f:holder": { ".": {}, "f:a": {} } }), json!({ "f:labels": {} }))
        );
    }
}
