//! Strategic merge patches: merge patches that know lists. Items that a list tells apart are merged
//! one by one, and directives say what a merge cannot: members whose names begin with `$`.
//!
//! `kubectl apply` and `kubectl edit` send them for the kinds that they have compiled in, whatever
//! a server says it takes. So the built-in kinds take them, and, as on the real server, no other.

use serde_json::{Map, Value};

use crate::{
    effort::Effort,
    schema::{Schema, parts},
    status::ApiError,
};

/// What becomes of an object or an item, where a patch says so.
const WHAT: &str = "$patch";
/// The only members that an object keeps.
const KEEP: &str = "$retainKeys";
/// Before the name of a list: the items that go.
const REMOVE: &str = "$deleteFromPrimitiveList/";
/// Before the name of a list: its items in their order.
const ORDER: &str = "$setElementOrder/";

/// Lays `patch` over `object`. As deep as the patch, whose depth is bounded where it is read.
pub(crate) fn merge(
    schema: Option<&Schema>,
    object: &mut Value,
    patch: &Map<String, Value>,
    effort: &mut Effort,
) -> Result<(), ApiError> {
    match what(patch)? {
        What::Merge => {}
        What::Delete => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        What::Replace => *object = Value::Null,
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(members) = object else { return Ok(()) };
    if let Some(kept) = patch.get(KEEP) {
        let kept = items(KEEP, kept)?;
        effort.spend(members.len() * kept.len())?;
        members.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    let named = |prefix: &'static str| {
        patch.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
    };
    for (name, gone) in named(REMOVE) {
        let gone = items(REMOVE, gone)?;
        if let Some(Value::Array(list)) = members.get_mut(name) {
            effort.spend(list.len() * gone.len())?;
            list.retain(|item| !gone.contains(item));
        }
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let schema = parts::member(schema, name).and_then(|part| part.schema);
        match value {
            Value::Null => drop(members.remove(name)),
            Value::Object(patch) => {
                merge(schema, members.entry(name).or_insert(Value::Null), patch, effort)?;
            }
            Value::Array(patch) => {
                merge_list(schema, members.entry(name).or_insert(Value::Null), patch, effort)?;
            }
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
    for (name, order) in named(ORDER) {
        let schema = parts::member(schema, name).and_then(|part| part.schema);
        if let (Some(Value::Array(list)), Some(schema)) = (members.get_mut(name), schema) {
            let order = items(ORDER, order)?;
            effort.spend(list.len() * order.len())?;
            sort(schema, list, order);
        }
    }
    Ok(())
}

/// Lays the items of a patch over a list; a list that is one field is replaced.
fn merge_list(
    schema: Option<&Schema>,
    list: &mut Value,
    patch: &[Value],
    effort: &mut Effort,
) -> Result<(), ApiError> {
    let Some(schema) = schema.filter(|schema| schema.tells_items_apart()) else {
        *list = patch.into();
        return Ok(());
    };
    let mut merged = match list {
        Value::Array(items) => std::mem::take(items),
        _ => Vec::new(),
    };
    let mut changes = Vec::new();
    for item in patch {
        let what = item.as_object().map_or(Ok(What::Merge), what)?;
        match (what, schema.identity(item)) {
            (What::Replace, None) => merged.clear(),
            (what, Some(identity)) => changes.push((what, identity, item)),
            (_, None) => {
                let text = "an item of the patch does not contain the key of its list";
                return Err(ApiError::bad_request(text));
            }
        }
    }
    for (what, identity, item) in changes {
        effort.spend(merged.len())?;
        let known =
            merged.iter().position(|known| schema.identity(known) == Some(identity.clone()));
        match (what, known, item) {
            (What::Delete, Some(at), _) => drop(merged.remove(at)),
            (What::Delete, None, _) => {}
            (_, known, Value::Object(patch)) => {
                let at = known.unwrap_or(merged.len());
                if known.is_none() {
                    merged.push(Value::Null);
                }
                merge(schema.item(), &mut merged[at], patch, effort)?;
            }
            (_, None, item) => merged.push(item.clone()),
            (_, Some(_), _) => {}
        }
    }
    *list = merged.into();
    Ok(())
}

/// Puts the items in the order of those that are named; the others follow.
fn sort(schema: &Schema, list: &mut [Value], order: &[Value]) {
    let order: Vec<Option<Value>> = order.iter().map(|item| schema.identity(item)).collect();
    list.sort_by_cached_key(|item| {
        let identity = schema.identity(item);
        order.iter().position(|named| *named == identity).unwrap_or(order.len())
    });
}

#[derive(Clone, Copy)]
enum What {
    Merge,
    Replace,
    Delete,
}

fn what(patch: &Map<String, Value>) -> Result<What, ApiError> {
    match patch.get(WHAT).map(|what| what.as_str().unwrap_or_default()) {
        None | Some("merge") => Ok(What::Merge),
        Some("replace") => Ok(What::Replace),
        Some("delete") => Ok(What::Delete),
        Some(_) => Err(ApiError::bad_request(format!("{WHAT} is merge, replace or delete"))),
    }
}

fn items<'v>(directive: &str, value: &'v Value) -> Result<&'v [Value], ApiError> {
    let items = value.as_array().map(Vec::as_slice);
    items.ok_or_else(|| ApiError::bad_request(format!("{directive} must be a list")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::compile(&json!({ "type": "object", "properties": {
            "set": { "type": "array", "x-kubernetes-list-type": "set",
                "items": { "type": "string" } },
            "map": { "type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"], "items": { "type": "object",
                    "properties": { "k": { "type": "string" }, "v": { "type": "integer" } } } },
            "list": { "type": "array", "items": { "type": "string" } },
        } }))
        .unwrap()
    }

    fn patched(object: Value, patch: &Value) -> Result<Value, u64> {
        let mut object = object;
        merge(Some(&schema()), &mut object, patch.as_object().unwrap(), &mut Effort::new())
            .map_err(|error| error.status()["code"].as_u64().unwrap())?;
        Ok(object)
    }

    #[test]
    fn lists_are_merged_as_far_as_their_items_are_told_apart() {
        let object = json!({ "set": ["a", "b"], "list": ["a"],
            "map": [{ "k": "x", "v": 1 }, { "k": "y", "v": 2 }] });
        let patch = json!({ "set": ["c", "a"], "list": ["b"],
            "map": [{ "k": "y", "v": 3 }, { "k": "z", "v": null },
                { "k": "x", "$patch": "delete" }] });
        let wanted = json!({ "set": ["a", "b", "c"], "list": ["b"],
            "map": [{ "k": "y", "v": 3 }, { "k": "z" }] });
        assert_eq!(patched(object.clone(), &patch), Ok(wanted));
        let patch = json!({ "map": [{ "$patch": "replace" }, { "k": "w" }],
            "$deleteFromPrimitiveList/set": ["a", "q"], "set": ["d"],
            "$setElementOrder/set": ["d", "b"] });
        let wanted = json!({ "set": ["d", "b"], "list": ["a"], "map": [{ "k": "w" }] });
        assert_eq!(patched(object.clone(), &patch), Ok(wanted));
        let order = json!({ "$setElementOrder/map": [{ "k": "y" }], "set": null });
        let wanted = json!({ "list": ["a"], "map": [{ "k": "y", "v": 2 }, { "k": "x", "v": 1 }] });
        assert_eq!(patched(object, &order), Ok(wanted));
    }

    #[test]
    fn directives_say_what_becomes_of_an_object() {
        let object = json!({ "o": { "a": 1, "b": 2 }, "p": 1 });
        let patch = |what: &str| json!({ "o": { "$patch": what, "c": null, "d": 3 } });
        let with = |o: Value| Ok(json!({ "o": o, "p": 1 }));
        assert_eq!(
            patched(object.clone(), &patch("merge")),
            with(json!({ "a": 1, "b": 2, "d": 3 }))
        );
        assert_eq!(patched(object.clone(), &patch("replace")), with(json!({ "d": 3 })));
        assert_eq!(patched(object.clone(), &patch("delete")), with(json!({})));
        let keep = json!({ "o": { "$retainKeys": ["a", "d"], "d": 3 } });
        assert_eq!(patched(object.clone(), &keep), with(json!({ "a": 1, "d": 3 })));
        for wrong in [
            patch("dig"),
            json!({ "$retainKeys": "a" }),
            json!({ "map": [{ "v": 1 }] }),
            json!({ "map": ["x"] }),
            json!({ "$deleteFromPrimitiveList/set": {} }),
        ] {
            assert_eq!(patched(object.clone(), &wrong), Err(400), "{wrong}");
        }
    }

    fn any_object() -> impl Strategy<Value = Value> {
        let texts = || prop::collection::btree_set("[abc]", 0..3).prop_map(|set| json!(set));
        let map = prop::collection::btree_map("[xyz]", 0..3u8, 0..3).prop_map(|map| {
            map.into_iter().map(|(k, v)| json!({ "k": k, "v": v })).collect::<Value>()
        });
        let object = prop::collection::btree_map("[ab]", 0..3u8, 0..3);
        (texts(), texts(), map, object).prop_map(
            |(set, list, map, other)| json!({ "set": set, "list": list, "map": map, "o": other }),
        )
    }

    /// The items that a list tells apart, by what tells them.
    fn by_key(list: &Value) -> std::collections::BTreeMap<String, Value> {
        let key = |item: &Value| item.get("k").unwrap_or(item).to_string();
        list.as_array().unwrap().iter().map(|item| (key(item), item.clone())).collect()
    }

    proptest! {
        #[test]
        fn a_patch_lays_over_what_it_names_and_leaves_the_rest(
            object in any_object(),
            patch in any_object(),
        ) {
            let once = patched(object.clone(), &patch).unwrap();
            prop_assert_eq!(&patched(once.clone(), &patch).unwrap(), &once);
            prop_assert_eq!(&once["list"], &patch["list"]);
            for list in ["set", "map"] {
                let mut wanted = by_key(&object[list]);
                wanted.extend(by_key(&patch[list]));
                prop_assert_eq!(by_key(&once[list]), wanted);
            }
            let mut other = object["o"].as_object().unwrap().clone();
            other.extend(patch["o"].as_object().unwrap().clone());
            prop_assert_eq!(once["o"].as_object().unwrap(), &other);
        }
    }
}
