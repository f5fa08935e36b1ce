//! Random applies and writes of several clients, on the server and on a model that knows nothing of
//! schemas and trees: a map from paths to values, and for each client the paths it owns.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value, json};

use crate::fixture::{Fixture, WIDGETS};

/// The paths that clients write, with how conflicts name them.
const PATHS: [(&str, &str); 10] = [
    ("labels/a", ".metadata.labels.a"),
    ("labels/b", ".metadata.labels.b"),
    ("color", ".spec.color"),
    ("tags", ".spec.tags"),
    ("marks/x", ".spec.marks[=\"x\"]"),
    ("marks/y", ".spec.marks[=\"y\"]"),
    ("parts/p", ".spec.parts[name=\"p\"]"),
    ("parts/p/text", ".spec.parts[name=\"p\"].text"),
    ("parts/q", ".spec.parts[name=\"q\"]"),
    ("parts/q/text", ".spec.parts[name=\"q\"].text"),
];

/// A client: its name, and whether it applies.
type Client = (String, bool);
type Fields = BTreeMap<String, Value>;

#[derive(Clone, Debug)]
enum Operation {
    Apply { who: u8, fields: Fields, force: bool },
    Write { who: u8, edits: BTreeMap<String, Option<Value>> },
    Reset,
    Delete,
    Reopen,
}

/// A value that fits the path, one of two.
fn value(path: &str, other: bool) -> Value {
    match path {
        "size" => json!(if other { 2 } else { 1 }),
        "color" => json!(if other { "red" } else { "blue" }),
        "tags" => json!([if other { "t" } else { "u" }]),
        // Items are there or not.
        "parts/p" | "parts/q" | "marks/x" | "marks/y" => json!(true),
        _ => json!(if other { "1" } else { "2" }),
    }
}

/// What is inside an item needs the item, and the item its name.
fn close(fields: &mut Fields) {
    for part in ["parts/p", "parts/q"] {
        if fields.contains_key(part) || fields.contains_key(&format!("{part}/text")) {
            fields.insert(part.into(), json!(true));
            fields.insert(format!("{part}/name"), json!(part.trim_start_matches("parts/")));
        }
    }
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let path = (0..PATHS.len()).prop_map(|at| PATHS[at].0.to_owned());
    let some = prop::collection::btree_map(path.clone(), any::<bool>(), 0..6);
    let fields = (some, any::<bool>()).prop_map(|(some, size)| {
        let mut fields: Fields =
            some.into_iter().map(|(path, other)| (path.clone(), value(&path, other))).collect();
        fields.insert("size".into(), value("size", size));
        close(&mut fields);
        fields
    });
    let size = Just("size".to_owned());
    let edit = (prop_oneof![5 => path, 1 => size], prop::option::weighted(0.7, any::<bool>()));
    let edits = prop::collection::vec(edit, 1..4).prop_map(|edits| {
        edits
            .into_iter()
            .map(|(path, other)| (path.clone(), other.map(|other| value(&path, other))))
            .collect()
    });
    prop_oneof![
        6 => (0..3u8, fields, any::<bool>())
            .prop_map(|(who, fields, force)| Operation::Apply { who, fields, force }),
        5 => (0..3u8, edits).prop_map(|(who, edits)| Operation::Write { who, edits }),
        1 => Just(Operation::Reset),
        1 => Just(Operation::Delete),
        1 => Just(Operation::Reopen),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// None while the object does not exist.
    fields: Option<Fields>,
    owners: BTreeMap<Client, BTreeSet<String>>,
}

/// Conflicts, as pairs of a client and a path.
type Conflicts = BTreeSet<(String, String)>;

impl Model {
    fn apply(&mut self, name: &str, wanted: &Fields, force: bool) -> Result<(), Conflicts> {
        let live = self.fields.clone().unwrap_or_default();
        let me = (name.to_owned(), true);
        if self.owners.is_empty() && self.fields.is_some() {
            let before = ("before-first-apply".to_owned(), false);
            self.owners.insert(before, live.keys().cloned().collect());
        }
        let changed: BTreeSet<&String> =
            wanted.iter().filter(|(path, v)| live.get(*path) != Some(v)).map(|(p, _)| p).collect();
        let mut conflicts = Conflicts::new();
        for (client, owned) in self.owners.iter().filter(|(client, _)| **client != me) {
            for path in owned.iter().filter(|path| changed.contains(path)) {
                conflicts.insert((told(client), path.clone()));
            }
        }
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        let given_up = self.owners.remove(&me).unwrap_or_default();
        self.owners.insert(me.clone(), wanted.keys().cloned().collect());
        let mut fields = live;
        for path in given_up {
            if !self.owners.values().any(|owned| owned.contains(&path)) {
                remove(&mut fields, &path);
            }
        }
        fields.extend(wanted.clone());
        for (client, owned) in &mut self.owners {
            owned.retain(|path| {
                fields.contains_key(path) && (*client == me || !changed.contains(path))
            });
        }
        self.owners.retain(|_, owned| !owned.is_empty());
        self.fields = Some(fields);
        Ok(())
    }

    fn write(&mut self, name: &str, after: Fields) {
        let before = self.fields.replace(after.clone()).unwrap_or_default();
        if self.owners.is_empty() {
            return;
        }
        let changed: BTreeSet<String> = after
            .iter()
            .filter(|(path, value)| before.get(*path) != Some(value))
            .map(|(path, _)| path.clone())
            .collect();
        for owned in self.owners.values_mut() {
            owned.retain(|path| after.contains_key(path) && !changed.contains(path));
        }
        self.owners.entry((name.to_owned(), false)).or_default().extend(changed);
        self.owners.retain(|_, owned| !owned.is_empty());
    }
}

/// A client as conflicts tell of it.
fn told((name, applies): &Client) -> String {
    match applies {
        true => format!("conflict with \"{name}\""),
        false => format!("conflict with \"{name}\" using shop.example/v1"),
    }
}

/// Takes a path away, with what is below it.
fn remove(fields: &mut Fields, path: &str) {
    let below = format!("{path}/");
    fields.retain(|known, _| known != path && !known.starts_with(&below));
}

fn labels(fields: &Fields) -> Map<String, Value> {
    let label = |(path, value): (&String, &Value)| {
        Some((path.strip_prefix("labels/")?.to_owned(), value.clone()))
    };
    fields.iter().filter_map(label).collect()
}

fn marks(fields: &Fields) -> Vec<Value> {
    fields.keys().filter_map(|path| path.strip_prefix("marks/").map(Value::from)).collect()
}

fn parts(fields: &Fields) -> Vec<Value> {
    let names = ["p", "q"].into_iter().filter(|name| fields.contains_key(&format!("parts/{name}")));
    let part = |name: &str| {
        let mut part = json!({ "name": name });
        if let Some(text) = fields.get(&format!("parts/{name}/text")) {
            part["text"] = text.clone();
        }
        part
    };
    names.map(part).collect()
}

/// The fields as an object to apply.
fn object(fields: &Fields) -> Value {
    let mut object = json!({ "apiVersion": "shop.example/v1", "kind": "Widget", "spec": {} });
    for name in ["size", "color", "tags"] {
        if let Some(value) = fields.get(name) {
            object["spec"][name] = value.clone();
        }
    }
    let (labels, marks, parts) = (labels(fields), marks(fields), parts(fields));
    if !labels.is_empty() {
        object["metadata"] = json!({ "labels": labels });
    }
    for (name, items) in [("marks", marks), ("parts", parts)] {
        if !items.is_empty() {
            object["spec"][name] = items.into();
        }
    }
    object
}

/// The merge patch from one state to another.
fn patch(before: &Fields, after: &Fields) -> Value {
    let mut patch = json!({ "spec": {} });
    for name in ["size", "color", "tags"] {
        if before.get(name) != after.get(name) {
            patch["spec"][name] = after.get(name).cloned().unwrap_or_default();
        }
    }
    let is_new = |part: fn(&Fields) -> Vec<Value>| part(before) != part(after);
    if is_new(marks) {
        patch["spec"]["marks"] = marks(after).into();
    }
    if is_new(parts) {
        patch["spec"]["parts"] = parts(after).into();
    }
    let mut changed = labels(after);
    for name in labels(before).keys().filter(|name| !labels(after).contains_key(*name)) {
        changed.insert(name.clone(), Value::Null);
    }
    patch["metadata"] = json!({ "labels": changed });
    if labels(before) == labels(after) {
        patch["metadata"] = json!({});
    }
    patch
}

/// What the server says the fields are.
fn shown(object: &Value) -> Fields {
    let mut fields = Fields::new();
    for name in ["size", "color", "tags"] {
        if let Some(value) = object["spec"].get(name) {
            fields.insert(name.into(), value.clone());
        }
    }
    for (name, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        fields.insert(format!("labels/{name}"), value.clone());
    }
    for mark in object["spec"]["marks"].as_array().into_iter().flatten() {
        fields.insert(format!("marks/{}", mark.as_str().unwrap()), json!(true));
    }
    for part in object["spec"]["parts"].as_array().into_iter().flatten() {
        let path = format!("parts/{}", part["name"].as_str().unwrap());
        for (name, value) in part.as_object().unwrap() {
            fields.insert(format!("{path}/{name}"), value.clone());
        }
        fields.insert(path, json!(true));
    }
    fields
}

/// Who the server says owns what, of the paths that the model knows.
fn shown_owners(object: &Value) -> BTreeMap<Client, BTreeSet<String>> {
    let mut owners = BTreeMap::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let client = (
            entry["manager"].as_str().unwrap().to_owned(),
            entry["operation"].as_str().unwrap() == "Apply",
        );
        let mut owned = BTreeSet::new();
        for (above, below) in
            [("f:metadata", "f:labels"), ("f:spec", "f:marks"), ("f:spec", "f:parts")]
        {
            let group = below.trim_start_matches("f:");
            for (step, inside) in entry["fieldsV1"][above][below].as_object().into_iter().flatten()
            {
                let Some((kind, rest)) = step.split_once(':') else { continue };
                let name: String = match kind {
                    "f" => rest.into(),
                    "v" => serde_json::from_str(rest).unwrap(),
                    _ => serde_json::from_str::<Value>(rest).unwrap()["name"]
                        .as_str()
                        .unwrap()
                        .into(),
                };
                let path = format!("{group}/{name}");
                let inside = inside.as_object().unwrap();
                for name in inside.keys().filter_map(|step| step.strip_prefix("f:")) {
                    owned.insert(format!("{path}/{name}"));
                }
                if inside.is_empty() || inside.contains_key(".") {
                    owned.insert(path);
                }
            }
        }
        for name in ["size", "color", "tags"] {
            if entry["fieldsV1"]["f:spec"].get(format!("f:{name}")).is_some() {
                owned.insert(name.to_owned());
            }
        }
        owners.insert(client, owned);
    }
    owners.retain(|_, owned: &mut BTreeSet<String>| !owned.is_empty());
    owners
}

const NAMES: [&str; 3] = ["ann", "ben", "cat"];

fn check_conflicts(answer: &Value, wanted: &Conflicts) {
    let field =
        |path: &str| PATHS.iter().find(|(known, _)| *known == path).map(|(_, field)| *field);
    let wanted: BTreeSet<(String, String)> = wanted
        .iter()
        .map(|(client, path)| (client.clone(), field(path).unwrap_or(".spec.size").to_owned()))
        .collect();
    let causes = answer["details"]["causes"].as_array().unwrap();
    let text = |cause: &Value, name: &str| cause[name].as_str().unwrap().to_owned();
    let found: BTreeSet<(String, String)> =
        causes.iter().map(|cause| (text(cause, "message"), text(cause, "field"))).collect();
    assert_eq!(found, wanted);
}

/// Does one operation on both and compares.
async fn step(mut fixture: Fixture, model: &mut Model, operation: &Operation) -> Fixture {
    let one = format!("{WIDGETS}/namespaces/stage/widgets/one");
    let (_, earlier) = fixture.get(&one).await;
    let before = model.clone();
    match operation {
        Operation::Apply { who, fields, force } => {
            let name = NAMES[usize::from(*who)];
            let path = format!("{one}?fieldManager={name}&force={force}");
            let (code, answer) = fixture.apply(&path, &object(fields)).await;
            match model.apply(name, fields, *force) {
                Err(conflicts) => {
                    assert_eq!(code, 409, "{answer}");
                    check_conflicts(&answer, &conflicts);
                    *model = before.clone();
                }
                Ok(()) => {
                    let wanted = if before.fields.is_some() { 200 } else { 201 };
                    assert_eq!(code, wanted, "{answer}");
                }
            }
        }
        Operation::Write { who, edits } => {
            let name = NAMES[usize::from(*who)];
            let Some(live) = before.fields.clone() else { return fixture };
            let mut after = live.clone();
            for (path, value) in edits {
                match value {
                    Some(value) => drop(after.insert(path.clone(), value.clone())),
                    None if path == "size" => {}
                    None => remove(&mut after, path),
                }
            }
            close(&mut after);
            let path = format!("{one}?fieldManager={name}");
            let (code, answer) = fixture.send("PATCH", &path, patch(&live, &after)).await;
            assert_eq!(code, 200, "{answer}");
            model.write(name, after);
        }
        Operation::Reset if before.fields.is_some() => {
            let reset = json!({ "metadata": { "managedFields": [{}] } });
            assert_eq!(fixture.send("PATCH", &one, reset).await.0, 200);
            model.owners.clear();
        }
        Operation::Reset => {}
        Operation::Delete => {
            fixture.send("DELETE", &one, Value::Null).await;
            *model = Model::default();
        }
        Operation::Reopen => fixture = fixture.reopen().await,
    }
    let (code, later) = fixture.get(&one).await;
    let Some(fields) = &model.fields else {
        assert_eq!(code, 404);
        return fixture;
    };
    assert_eq!((&shown(&later), shown_owners(&later)), (fields, model.owners.clone()));
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&earlier) == version(&later), *model == before, "{operation:?}");
    fixture
}

#[test]
fn server_and_model_agree_on_who_owns_what() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
    let operations = prop::collection::vec(any_operation(), 1..40);
    let outcome = runner.run(&operations, |operations| {
        runtime.block_on(async {
            let mut fixture = Fixture::new().await;
            let mut model = Model::default();
            for operation in &operations {
                fixture = step(fixture, &mut model, operation).await;
            }
        });
        Ok(())
    });
    outcome.unwrap();
}
