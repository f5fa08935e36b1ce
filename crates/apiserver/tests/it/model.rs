//! Random operations, with restarts among them, on the server and on a map with its whole history:
//! every list, every page of an old moment and every watch must agree with the map.

use std::collections::BTreeMap;

use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS, widget};

#[derive(Clone, Debug)]
enum Operation {
    Create { name: u8, size: u64 },
    Resize { name: u8, size: u64 },
    Delete { name: u8 },
    List { limit: usize },
    NextPage { limit: usize },
    Watch { back: usize },
    Reopen,
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let (name, size) = (0..6u8, 1..4u64);
    prop_oneof![
        4 => (name.clone(), size.clone())
            .prop_map(|(name, size)| Operation::Create { name, size }),
        4 => (name.clone(), size).prop_map(|(name, size)| Operation::Resize { name, size }),
        3 => name.prop_map(|name| Operation::Delete { name }),
        2 => (0..4usize).prop_map(|limit| Operation::List { limit }),
        3 => (1..4usize).prop_map(|limit| Operation::NextPage { limit }),
        2 => (0..9usize).prop_map(|back| Operation::Watch { back }),
        1 => Just(Operation::Reopen),
    ]
}

/// Sizes by name.
type Widgets = BTreeMap<String, u64>;

/// A change as a watch tells it.
type Told = (u64, &'static str, String);

#[derive(Default)]
struct Model {
    widgets: Widgets,
    /// The widgets after each revision.
    history: BTreeMap<u64, Widgets>,
    changes: Vec<Told>,
    /// Older revisions are forgotten by a restart.
    floor: u64,
    /// A list that goes on: its token, its revision, the last name it gave.
    open: Option<(String, u64, String)>,
}

impl Model {
    fn changed(&mut self, answer: &Value, kind: &'static str, name: &str) {
        let revision = revision(answer);
        self.changes.push((revision, kind, name.into()));
        self.history.insert(revision, self.widgets.clone());
    }

    fn at(&self, revision: u64) -> Widgets {
        let then = self.history.range(..=revision).next_back();
        then.map(|(_, widgets)| widgets.clone()).unwrap_or_default()
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn shown(list: &Value) -> Vec<(String, u64)> {
    let items = list["items"].as_array().unwrap();
    let show = |item: &Value| {
        let name = item["metadata"]["name"].as_str().unwrap().to_owned();
        (name, item["spec"]["size"].as_u64().unwrap())
    };
    items.iter().map(show).collect()
}

const STAGE: &str = "/apis/shop.example/v1/namespaces/stage/widgets";

/// Does one operation on both and compares.
async fn step(mut fixture: Fixture, model: &mut Model, operation: &Operation) -> Fixture {
    match operation {
        Operation::Create { name, size } => {
            let name = format!("w{name}");
            let (code, answer) = fixture.send("POST", STAGE, widget(&name, *size)).await;
            if model.widgets.contains_key(&name) {
                assert_eq!(code, 409);
            } else {
                assert_eq!(code, 201);
                model.widgets.insert(name.clone(), *size);
                model.changed(&answer, "ADDED", &name);
            }
        }
        Operation::Resize { name, size } => {
            let name = format!("w{name}");
            let patch = json!({ "spec": { "size": size } });
            let (code, answer) = fixture.send("PATCH", &format!("{STAGE}/{name}"), patch).await;
            match model.widgets.get(&name) {
                None => assert_eq!(code, 404),
                Some(known) if known == size => assert_eq!(code, 200),
                Some(_) => {
                    model.widgets.insert(name.clone(), *size);
                    model.changed(&answer, "MODIFIED", &name);
                }
            }
        }
        Operation::Delete { name } => {
            let name = format!("w{name}");
            let (code, _) = fixture.send("DELETE", &format!("{STAGE}/{name}"), Value::Null).await;
            assert_eq!(code, if model.widgets.remove(&name).is_some() { 200 } else { 404 });
            if code == 200 {
                let (_, list) = fixture.get(&format!("{STAGE}?limit=1")).await;
                model.changed(&list, "DELETED", &name);
            }
        }
        Operation::List { limit } => {
            let (_, list) = fixture.get(&format!("{WIDGETS}/widgets?limit={limit}")).await;
            model.open = None;
            check_page(model, &list, *limit, "", revision(&list));
        }
        Operation::NextPage { limit } => {
            if let Some((token, then, last)) = model.open.take() {
                let path = format!("{WIDGETS}/widgets?limit={limit}&continue={token}");
                let (code, list) = fixture.get(&path).await;
                let changed = model.history.range(then + 1..).next().is_some();
                if then < model.floor && changed {
                    assert_eq!(code, 410);
                } else {
                    assert_eq!(code, 200, "{list}");
                    check_page(model, &list, *limit, &last, then);
                }
            }
        }
        Operation::Watch { back } => watch(&fixture, model, *back).await,
        Operation::Reopen => {
            fixture = fixture.reopen().await;
            model.floor = model.history.keys().next_back().copied().unwrap_or_default();
        }
    }
    fixture
}

fn check_page(model: &mut Model, list: &Value, limit: usize, after: &str, then: u64) {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut wanted: Vec<(String, u64)> =
        model.at(then).into_iter().filter(|(name, _)| name.as_str() > after).collect();
    let more = wanted.len() > limit;
    wanted.truncate(limit);
    assert_eq!(shown(list), wanted);
    assert_eq!(revision(list), then);
    let token = list["metadata"].get("continue").and_then(Value::as_str);
    assert_eq!(token.is_some(), more);
    model.open = token.zip(wanted.pop()).map(|(token, (last, _))| (token.into(), then, last));
}

/// A watch from some changes back tells exactly those changes, or that they are forgotten.
async fn watch(fixture: &Fixture, model: &Model, back: usize) {
    let (_, list) = fixture.get(&format!("{STAGE}?limit=1")).await;
    let known = model.changes.len().saturating_sub(back);
    let from = match model.changes.get(known) {
        Some((revision, _, _)) => revision - 1,
        None => revision(&list),
    };
    let path = format!("{WIDGETS}/widgets?watch=1&resourceVersion={from}");
    let response = fixture.raw(Request::get(path).body(String::new()).unwrap()).await;
    let mut lines = response.into_body().into_data_stream();
    let mut next = async || -> Value {
        serde_json::from_slice(&lines.next().await.unwrap().unwrap()).unwrap()
    };
    let wanted = &model.changes[known..];
    if from < model.floor {
        assert_eq!(next().await["object"]["code"], 410);
        return;
    }
    for (told, kind, name) in wanted {
        let event = next().await;
        let object = &event["object"];
        assert_eq!((revision(object), &event["type"]), (*told, &json!(kind)));
        assert_eq!(object["metadata"]["name"], json!(name));
    }
}

#[test]
fn server_and_model_agree() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 60, ..ProptestConfig::default() });
    let operations = prop::collection::vec(any_operation(), 1..60);
    let outcome = runner.run(&operations, |operations| {
        runtime.block_on(async {
            let mut fixture = Fixture::new().await;
            // The namespace's own revision comes first, so that only widgets change from here on.
            fixture.create("stage", "seed", 1).await;
            fixture.send("DELETE", &format!("{STAGE}/seed"), Value::Null).await;
            let mut model = Model::default();
            for operation in &operations {
                fixture = step(fixture, &mut model, operation).await;
            }
        });
        Ok(())
    });
    outcome.unwrap();
}
