//! Merge patches (RFC 7396), JSON patches (RFC 6902) and, for some kinds, strategic merge patches;
//! bounded so that a small patch cannot make a huge or endlessly deep object.

use json_patch::{PatchOperation, jsonptr::Pointer};
use serde_json::{Map, Value};

use crate::{
    decode::{Syntax, decode},
    definition::Resource,
    effort::{self, Effort},
    limits, object,
    status::ApiError,
    strategic,
};

/// The media type of an application, which is no patch but a part of an object.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";
/// The media types of the patches.
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json-patch+json";

/// A patch, read.
#[derive(Debug)]
pub(crate) enum Patch {
    /// Members laid over the object, with the paths of those that came twice.
    Merge(Map<String, Value>, Vec<String>),
    /// The same, with directives; lists are merged as the kind says.
    Strategic(Map<String, Value>, Vec<String>),
    /// Operations, one after the other.
    Json(Vec<PatchOperation>),
}

impl Patch {
    /// Reads a patch of this media type for a resource.
    pub(crate) fn read(
        resource: &Resource,
        media_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ApiError> {
        match media_type {
            Some(MERGE) => {
                let (members, duplicates) = members(body)?;
                Ok(Self::Merge(members, duplicates))
            }
            Some(STRATEGIC) if resource.is_built_in() => {
                let (members, duplicates) = members(body)?;
                Ok(Self::Strategic(members, duplicates))
            }
            Some(JSON) => {
                let operations = operations(decode(body, Syntax::Json)?.value)?;
                if operations.len() > limits::PATCH_OPERATIONS {
                    let text = format!(
                        "The allowed maximum operations in a JSON patch is {}, got {}",
                        limits::PATCH_OPERATIONS,
                        operations.len()
                    );
                    return Err(ApiError::bad_request(text));
                }
                Ok(Self::Json(operations))
            }
            _ if resource.is_built_in() => {
                Err(ApiError::unsupported_media_type(&[JSON, MERGE, STRATEGIC, APPLY]))
            }
            _ => Err(ApiError::unsupported_media_type(&[JSON, MERGE, APPLY])),
        }
    }

    /// The paths of members that the patch repeats.
    pub(crate) fn duplicates(&self) -> &[String] {
        match self {
            Self::Merge(_, duplicates) | Self::Strategic(_, duplicates) => duplicates,
            Self::Json(_) => &[],
        }
    }

    /// Applies the patch to an object of the resource it was read for.
    pub(crate) fn apply(&self, resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
        match self {
            Self::Merge(patch, _) => {
                merge(object, patch);
                Ok(())
            }
            Self::Strategic(patch, _) => {
                let mut effort = Effort::new();
                strategic::merge(Some(&resource.schema), object, patch, &mut effort)
            }
            Self::Json(operations) => apply_operations(object, operations),
        }
    }
}

/// The operations of a patch, each of them an object: what reads them would take lists, too.
fn operations(patch: Value) -> Result<Vec<PatchOperation>, ApiError> {
    let refuse = |why: String| ApiError::bad_request(format!("error decoding patch: {why}"));
    let Value::Array(operations) = patch else {
        return Err(refuse("it must be a list of operations".into()));
    };
    if let Some(at) = operations.iter().position(|operation| !operation.is_object()) {
        return Err(refuse(format!("operation {at} must be a JSON object")));
    }
    serde_json::from_value(operations.into()).map_err(|error| refuse(error.to_string()))
}

/// The members of a patch, and the paths of those that came twice.
fn members(body: &[u8]) -> Result<(Map<String, Value>, Vec<String>), ApiError> {
    let decoded = decode(body, Syntax::Json)?;
    match decoded.value {
        Value::Object(members) => Ok((members, decoded.duplicates)),
        _ => Err(ApiError::bad_request("a merge patch must be a JSON object")),
    }
}

/// Lays `patch` over `object`: members replace members, null takes away. As deep as the patch,
/// whose depth is bounded where it is read.
fn merge(object: &mut Value, patch: &Map<String, Value>) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(members) = object else { return };
    for (name, value) in patch {
        match value {
            Value::Null => drop(members.remove(name)),
            Value::Object(patch) => merge(members.entry(name).or_insert(Value::Null), patch),
            value => drop(members.insert(name.clone(), value.clone())),
        }
    }
}

fn apply_operations(object: &mut Value, operations: &[PatchOperation]) -> Result<(), ApiError> {
    let (mut copied, mut effort) = (0, Effort::new());
    for (index, operation) in operations.iter().enumerate() {
        effort.spend(steps(object, operation))?;
        bound_growth(object, operation, &mut copied)?;
        if tests_absence(object, operation) {
            continue;
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|error| {
            ApiError::unprocessable(format!(
                "the server rejected our request due to an error in our request: \
                 operation {index} at {}: {}",
                error.path, error.kind
            ))
        })?;
    }
    Ok(())
}

/// What an operation moves beside its own value: the items that stand behind a place in a list, and
/// all of what it takes from one place to another.
fn steps(object: &Value, operation: &PatchOperation) -> usize {
    let shifted = |path: &Pointer| {
        let list = path.parent().and_then(|parent| parent.resolve(object).ok());
        let at_end = path.last().is_some_and(|last| last.decoded() == "-");
        list.and_then(Value::as_array).filter(|_| !at_end).map_or(0, Vec::len)
    };
    let moved = |from: &Pointer| from.resolve(object).map_or(0, effort::size);
    1 + shifted(operation.path())
        + match operation {
            PatchOperation::Move(step) => shifted(&step.from) + moved(&step.from),
            PatchOperation::Copy(copy) => moved(&copy.from),
            _ => 0,
        }
}

/// Is it a test for null of a member that is not there? For Kubernetes that is true, and clients
/// rely on it: kube-rs adds the first finalizer so.
fn tests_absence(object: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let is_there = |path: &Pointer| path.resolve(object).is_ok();
    test.value.is_null() && !is_there(&test.path) && test.path.parent().is_some_and(is_there)
}

/// Refuses what would make the object deeper than may be read back, or copy more than may be sent.
fn bound_growth(
    object: &Value,
    operation: &PatchOperation,
    copied: &mut usize,
) -> Result<(), ApiError> {
    let resolve = |from: &Pointer| from.resolve(object).ok();
    let added = match operation {
        PatchOperation::Add(add) => object::depth(&add.value),
        PatchOperation::Replace(replace) => object::depth(&replace.value),
        PatchOperation::Move(step) => resolve(&step.from).map_or(0, object::depth),
        PatchOperation::Copy(copy) => {
            let source = resolve(&copy.from);
            *copied += source.map_or(0, |source| source.to_string().len());
            if *copied > limits::PATCH_COPY_BYTES {
                let text = format!("a JSON patch may copy {} bytes", limits::PATCH_COPY_BYTES);
                return Err(ApiError::unprocessable(text));
            }
            source.map_or(0, object::depth)
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if operation.path().count() + added > limits::JSON_DEPTH {
        let text = format!("the patched object would nest deeper than {}", limits::JSON_DEPTH);
        return Err(ApiError::unprocessable(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::definition::Registry;

    /// A built-in resource, and one that is not.
    fn resources() -> [Arc<Resource>; 2] {
        let registry = Registry::read(&[]).unwrap();
        [registry.namespaces().cloned(), registry.resources().last().cloned()].map(Option::unwrap)
    }

    fn applied(patch: &Value, mut object: Value) -> Result<Value, u64> {
        let [resource, _] = resources();
        let patch = Patch::read(&resource, Some(JSON), patch.to_string().as_bytes()).unwrap();
        patch
            .apply(&resource, &mut object)
            .map_err(|error| error.status()["code"].as_u64().unwrap())?;
        Ok(object)
    }

    #[test]
    fn json_patches_apply_or_are_422() {
        let patch = json!([
            { "op": "test", "path": "/a", "value": 1 },
            { "op": "add", "path": "/b", "value": [1] },
            { "op": "add", "path": "/b/-", "value": 2 },
            { "op": "copy", "from": "/b", "path": "/c" },
            { "op": "remove", "path": "/a" },
        ]);
        let patched = applied(&patch, json!({ "a": 1 })).unwrap();
        assert_eq!(patched, json!({ "b": [1, 2], "c": [1, 2] }));
        assert_eq!(applied(&patch, json!({ "a": 2 })), Err(422));
        let missing = json!([{ "op": "replace", "path": "/no/where", "value": 1 }]);
        assert_eq!(applied(&missing, json!({})), Err(422));
    }

    #[test]
    fn a_member_that_is_not_there_is_null() {
        let first = json!([
            { "op": "test", "path": "/metadata/finalizers", "value": null },
            { "op": "add", "path": "/metadata/finalizers", "value": ["a"] },
        ]);
        let added = json!({ "metadata": { "finalizers": ["a"] } });
        assert_eq!(applied(&first, json!({ "metadata": {} })), Ok(added.clone()));
        assert_eq!(applied(&first, added), Err(422));
        assert_eq!(applied(&first, json!({})), Err(422));
        let other = json!([{ "op": "test", "path": "/a", "value": 1 }]);
        assert_eq!(applied(&other, json!({})), Err(422));
    }

    #[test]
    fn copies_cannot_blow_up_or_dig() {
        let mut doubling = vec![json!({ "op": "add", "path": "/a", "value": "x".repeat(1000) })];
        for step in 0..40 {
            doubling.push(json!({ "op": "copy", "from": "", "path": format!("/c{step}") }));
        }
        assert_eq!(applied(&json!(doubling), json!({})), Err(422));
        let mut digging = Vec::new();
        for depth in 1..200 {
            let path = "/a".repeat(depth);
            digging.push(json!({ "op": "add", "path": path, "value": {} }));
        }
        assert_eq!(applied(&json!(digging), json!({})), Err(422));
    }

    #[test]
    fn a_patch_is_only_so_much_work() {
        let long = json!({ "a": vec![json!(0); 300_000], "b": {} });
        let first = json!({ "op": "add", "path": "/a/0", "value": 1 });
        let (there, back) = (
            json!({ "op": "move", "from": "/a", "path": "/b/c" }),
            json!({ "op": "move", "from": "/b/c", "path": "/a" }),
        );
        let to_and_fro = vec![[there, back]; 2500].concat();
        let copy = json!({ "op": "copy", "from": "/a", "path": "/b/c" });
        for operations in [vec![first.clone(); 5000], to_and_fro, vec![copy; 5000]] {
            assert_eq!(applied(&json!(operations), long.clone()), Err(422));
        }
        // Ends of lists, and short ones, cost nothing.
        let last = json!({ "op": "add", "path": "/a/-", "value": 1 });
        assert!(applied(&json!(vec![last; 5000]), long).is_ok());
        assert!(applied(&json!(vec![first; 1500]), json!({ "a": [] })).is_ok());
    }

    #[test]
    fn a_strategic_patch_is_only_so_much_work() {
        let [namespaces, _] = resources();
        let names = |count: usize| (0..count).map(|at| json!(at.to_string())).collect::<Value>();
        let held = json!({ "metadata": { "finalizers": names(20_000) } });
        let patches = [
            json!({ "metadata": { "finalizers": names(20_000) } }),
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": names(20_000) } }),
            json!({ "metadata": { "$setElementOrder/finalizers": names(20_000) } }),
            json!({ "metadata": { "$retainKeys": names(2_000_001) } }),
        ];
        for patch in patches {
            let mut object = held.clone();
            let patch = patch.to_string();
            let patch = Patch::read(&namespaces, Some(STRATEGIC), patch.as_bytes()).unwrap();
            let refused = patch.apply(&namespaces, &mut object).unwrap_err();
            assert_eq!(refused.code(), 422);
        }
    }

    #[test]
    fn other_patches_are_refused() {
        let [built_in, defined] = resources();
        let code = |media_type, body: &[u8]| {
            let refused = Patch::read(&defined, media_type, body).unwrap_err();
            refused.status()["code"].as_u64().unwrap()
        };
        assert_eq!(code(Some(STRATEGIC), b"{}"), 415);
        assert!(Patch::read(&built_in, Some(STRATEGIC), b"{}").is_ok());
        assert!(Patch::read(&built_in, Some(STRATEGIC), b"[]").is_err());
        assert_eq!(code(None, b"{}"), 415);
        assert_eq!(code(Some(MERGE), b"[]"), 400);
        assert_eq!(code(Some(JSON), b"{}"), 400);
        assert_eq!(code(Some(JSON), br#"[{"op":"dig"}]"#), 400);
        assert_eq!(code(Some(JSON), br#"[["replace","/a",3]]"#), 400);
        let many = json!(vec![json!({ "op": "remove", "path": "/a" }); 10_001]);
        assert_eq!(code(Some(JSON), many.to_string().as_bytes()), 400);
    }

    /// RFC 7396's own words, in place of ours.
    fn reference(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = match target {
            Value::Object(target) => target,
            _ => serde_json::Map::new(),
        };
        for (name, value) in patch {
            match value {
                Value::Null => drop(target.remove(name)),
                value => {
                    let old = target.remove(name).unwrap_or(Value::Null);
                    target.insert(name.clone(), reference(old, value));
                }
            }
        }
        Value::Object(target)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn merging_is_rfc_7396(
            object in any_value(),
            patch in prop::collection::btree_map("[abc]", any_value(), 0..4),
        ) {
            let patch: Map<String, Value> = patch.into_iter().collect();
            let mut merged = object.clone();
            merge(&mut merged, &patch);
            prop_assert_eq!(merged, reference(object, &patch.into()));
        }
    }
}
