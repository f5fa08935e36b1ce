//! Laying what is applied over what is there, and taking away what its only applier gave up.

use std::collections::HashMap;

use serde_json::Value;

use super::set::{FieldSet, NOTHING};
use crate::schema::{
    Schema,
    parts::{self, Part},
};

/// The object with the applied fields in it.
pub(super) fn merge(schema: Option<&Schema>, live: Value, applied: &Value) -> Value {
    match (live, applied) {
        (Value::Object(mut members), Value::Object(applied)) => {
            for (name, value) in applied {
                let Some(part) = parts::member(schema, name) else {
                    return Value::Object(applied.clone());
                };
                let merged = match members.remove(name) {
                    Some(live) => merge(part.schema, live, value),
                    None => value.clone(),
                };
                members.insert(name.clone(), merged);
            }
            Value::Object(members)
        }
        (Value::Array(live), Value::Array(applied)) => {
            match (parts::items(schema, &live), parts::items(schema, applied)) {
                (Some(live_parts), Some(parts)) => {
                    let live = live_parts.into_iter().zip(live).collect();
                    Value::Array(merge_items(live, parts.into_iter().zip(applied).collect()))
                }
                _ => Value::Array(applied.clone()),
            }
        }
        (_, applied) => applied.clone(),
    }
}

/// The items of both lists. The applied ones are in the order in which they were applied; those
/// that are only there already keep their places among them.
fn merge_items(live: Vec<(Part<'_>, Value)>, applied: Vec<(Part<'_>, &Value)>) -> Vec<Value> {
    let mut known: HashMap<&str, Option<&Value>> =
        live.iter().map(|(part, value)| (part.step.as_str(), Some(value))).collect();
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    let is_applied = |step: &str| applied.iter().any(|(part, _)| part.step == step);
    let mut applied = applied.iter();
    let mut lay = |merged: &mut Vec<Value>, (part, value): &(Part<'_>, &Value)| {
        let there = known.get_mut(part.step.as_str()).and_then(Option::take);
        merged.push(match there {
            Some(there) => merge(part.schema, there.clone(), value),
            None => (*value).clone(),
        });
        there.is_some()
    };
    for (part, value) in &live {
        if is_applied(&part.step) {
            // The place of one that is in both lists goes to the next such in the applied order.
            while let Some(next) = applied.next()
                && !lay(&mut merged, next)
            {}
        } else {
            merged.push(value.clone());
        }
    }
    for next in applied {
        lay(&mut merged, next);
    }
    merged
}

/// Takes away the fields of `given_up` that nobody in `kept` owns.
pub(super) fn prune(
    schema: Option<&Schema>,
    value: &mut Value,
    given_up: &FieldSet,
    kept: &FieldSet,
) {
    match value {
        Value::Object(members) => members.retain(|name, value| {
            parts::member(schema, name).is_none_or(|part| stays(&part, value, given_up, kept))
        }),
        Value::Array(items) => {
            let Some(parts) = parts::items(schema, items) else { return };
            let mut parts = parts.into_iter();
            items.retain_mut(|item| {
                parts.next().is_none_or(|part| stays(&part, item, given_up, kept))
            });
        }
        _ => {}
    }
}

/// Whether a part stays; what of it does not stay is taken away.
fn stays(part: &Part<'_>, value: &mut Value, given_up: &FieldSet, kept: &FieldSet) -> bool {
    let Some(old) = given_up.get(&part.step) else { return true };
    let owner = kept.get(&part.step);
    // Whoever owns a field inside a property needs the property; an item or a key has its own.
    let needs = |owned: bool| owned || part.is_property;
    if needs(old.owned) && !owner.is_some_and(|owner| needs(owner.owned)) {
        return false;
    }
    prune(part.schema, value, &old.below, owner.map_or(&NOTHING, |owner| &owner.below));
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(kind: &str) -> Schema {
        Schema::compile(&json!({ "properties": { "l": { "type": "array",
            "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["n"],
            "items": { "properties": { "n": {}, "a": {}, "b": {} } } } } }))
        .unwrap()
    }

    fn merged(kind: &str, live: Value, applied: Value) -> Value {
        merge(Some(&list(kind)), json!({ "l": live }), &json!({ "l": applied }))["l"].clone()
    }

    #[test]
    fn lists_merge_as_their_schema_says() {
        assert_eq!(merged("atomic", json!([1, 2]), json!([3])), json!([3]));
        assert_eq!(
            merged("set", json!(["a", "b", "c"]), json!(["c", "x", "a"])),
            json!(["c", "b", "x", "a"])
        );
        assert_eq!(
            merged("map", json!([{ "n": 1, "a": 1 }, { "n": 2 }]), json!([{ "n": 1, "b": 2 }])),
            json!([{ "n": 1, "a": 1, "b": 2 }, { "n": 2 }])
        );
        // Items that cannot be told apart are replaced as a whole.
        assert_eq!(merged("set", json!(["a", "a"]), json!(["b"])), json!(["b"]));
    }

    #[test]
    fn objects_merge_member_by_member_unless_they_are_one_field() {
        let live = json!({ "a": { "b": 1, "c": 2 }, "d": 1 });
        let applied = json!({ "a": { "c": 3 }, "d": { "e": 1 } });
        assert_eq!(
            merge(None, live.clone(), &applied),
            json!({ "a": { "b": 1, "c": 3 }, "d": { "e": 1 } })
        );
        let whole = json!({ "properties": { "a": { "x-kubernetes-map-type": "atomic" } } });
        let whole = Schema::compile(&whole).unwrap();
        assert_eq!(merge(Some(&whole), live, &applied)["a"], json!({ "c": 3 }));
    }

    #[test]
    fn only_what_nobody_else_owns_is_taken_away() {
        let set = |written: Value| FieldSet::read(&written).unwrap();
        let schema = list("map");
        let mut value =
            json!({ "l": [{ "n": 1, "a": 1 }, { "n": 2, "a": 1, "b": 2 }, { "n": 3 }] });
        let item = json!({ ".": {}, "f:n": {}, "f:a": {} });
        let given_up = set(json!({ "f:l": { "k:{\"n\":1}": item, "k:{\"n\":2}": item } }));
        let kept = set(json!({ "f:l": { "k:{\"n\":2}": { ".": {}, "f:n": {}, "f:b": {} } } }));
        prune(Some(&schema), &mut value, &given_up, &kept);
        assert_eq!(value, json!({ "l": [{ "n": 2, "b": 2 }, { "n": 3 }] }));
    }
}
