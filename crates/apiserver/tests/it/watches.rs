//! Watch: where it starts, what it says, how it ends.

use std::time::Duration;

use eventbus_apiserver::{Account, Accounts, Body, Gate, Role, Scope, User, Users};
use futures::StreamExt;
use http::Request;
use http_body_util::{BodyDataStream, BodyExt, Either};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};

use crate::fixture::{Fixture, WIDGETS, read, widget};

const ALL: &str = "/apis/shop.example/v1/widgets";

/// The lines of a watch, read as they come.
struct Lines(BodyDataStream<Body>);

impl Lines {
    async fn open(fixture: &Fixture, query: &str) -> Self {
        Self::open_as(fixture, query, "application/json").await
    }

    async fn open_as(fixture: &Fixture, query: &str, accept: &str) -> Self {
        let request = Request::get(format!("{ALL}?watch=1{query}")).header("accept", accept);
        let response = fixture.raw(request.body(String::new()).unwrap()).await;
        assert_eq!(response.status(), 200);
        Self(response.into_body().into_data_stream())
    }

    /// The next line; none at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        let line = self.0.next().await?.unwrap();
        assert!(line.ends_with(b"\n"));
        Some(serde_json::from_slice(&line).unwrap())
    }

    /// The next event as `TYPE name size`.
    async fn event(&mut self) -> String {
        let event = self.next().await.unwrap();
        let object = &event["object"];
        let (name, size) = (&object["metadata"]["name"], &object["spec"]["size"]);
        let text = format!("{} {name} {size}", event["type"].as_str().unwrap());
        text.replace('"', "")
    }

    /// All lines up to the end.
    async fn rest(mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        lines
    }
}

async fn resize(fixture: &Fixture, name: &str, size: u64) -> Value {
    let path = format!("{WIDGETS}/namespaces/stage/widgets/{name}");
    fixture.send("PATCH", &path, json!({ "spec": { "size": size } })).await.1
}

async fn delete(fixture: &Fixture, name: &str) {
    let path = format!("{WIDGETS}/namespaces/stage/widgets/{name}");
    assert_eq!(fixture.send("DELETE", &path, Value::Null).await.0, 200);
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_list_of_nothing_has_a_version_to_watch_from() {
    let fixture = Fixture::new().await;
    // 0 would mean any: the watch would begin with what is there then.
    let (_, empty) = fixture.get(ALL).await;
    fixture.create("stage", "a", 1).await;
    delete(&fixture, "a").await;
    let query = format!("&resourceVersion={}&timeoutSeconds=1", revision(&empty));
    let events = Lines::open(&fixture, &query).await.rest().await;
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ADDED", "DELETED"]);
}

#[tokio::test]
async fn without_a_revision_the_present_comes_first() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "a", 1).await;
    fixture.create("stage", "b", 1).await;
    let mut absent = Lines::open(&fixture, "").await;
    let mut zero = Lines::open(&fixture, "&resourceVersion=0").await;
    for lines in [&mut absent, &mut zero] {
        assert_eq!(lines.event().await, "ADDED a 1");
        assert_eq!(lines.event().await, "ADDED b 1");
    }
    resize(&fixture, "a", 2).await;
    for lines in [&mut absent, &mut zero] {
        assert_eq!(lines.event().await, "MODIFIED a 2");
    }
}

#[tokio::test]
async fn from_a_revision_everything_after_it_comes() {
    let fixture = Fixture::new().await;
    let first = fixture.create("stage", "a", 1).await;
    let from = revision(&first);
    resize(&fixture, "a", 2).await;
    fixture.create("stage", "b", 1).await;
    delete(&fixture, "a").await;
    let mut lines = Lines::open(&fixture, &format!("&resourceVersion={from}")).await;
    assert_eq!(lines.event().await, "MODIFIED a 2");
    assert_eq!(lines.event().await, "ADDED b 1");
    let deleted = lines.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(revision(&deleted["object"]), from + 3);
    // Another namespace's changes are not seen where one namespace is watched.
    let path = format!("{WIDGETS}/namespaces/other/widgets?watch=1&resourceVersion={from}");
    let request = Request::get(path).body(String::new()).unwrap();
    let mut other = Lines(fixture.raw(request).await.into_body().into_data_stream());
    fixture.create("other", "c", 1).await;
    assert_eq!(other.event().await, "ADDED c 1");
}

#[tokio::test]
async fn a_revision_too_old_is_410_inside_the_stream() {
    let fixture = Fixture::new().await;
    let old = revision(&fixture.create("stage", "a", 1).await);
    fixture.create("stage", "b", 1).await;
    let fixture = fixture.reopen().await;
    let lines = Lines::open(&fixture, &format!("&resourceVersion={old}")).await.rest().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["type"], "ERROR");
    assert_eq!(lines[0]["object"]["code"], 410);
    assert_eq!(lines[0]["object"]["reason"], "Expired");
    // The newest revision is still good after a restart.
    let mut lines = Lines::open(&fixture, &format!("&resourceVersion={}", old + 1)).await;
    fixture.create("stage", "c", 1).await;
    assert_eq!(lines.event().await, "ADDED c 1");
    let (code, _) = fixture.get(&format!("{ALL}?watch=1&resourceVersion=x")).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn crossing_a_selector_adds_and_deletes() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "a", 1).await;
    let from = revision(&created);
    let query = format!("&resourceVersion={from}&labelSelector=app%3Dx");
    let mut labelled = Lines::open(&fixture, &query).await;
    let query = format!("&resourceVersion={from}&fieldSelector=spec.color%3Dred");
    let mut red = Lines::open(&fixture, &query).await;
    let path = format!("{WIDGETS}/namespaces/stage/widgets/a");
    let patch = async |patch: Value| fixture.send("PATCH", &path, patch).await.1;
    patch(json!({ "metadata": { "labels": { "app": "x" } } })).await;
    patch(json!({ "spec": { "size": 2 } })).await;
    let left =
        patch(json!({ "metadata": { "labels": { "app": "y" } }, "spec": { "color": "blue" } }))
            .await;
    patch(json!({ "spec": { "size": 3 } })).await;
    patch(json!({ "metadata": { "labels": { "app": "x" } } })).await;
    delete(&fixture, "a").await;
    assert_eq!(labelled.event().await, "ADDED a 1");
    assert_eq!(labelled.event().await, "MODIFIED a 2");
    let gone = labelled.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"], json!({ "app": "x" }));
    assert_eq!(revision(&gone["object"]), revision(&left));
    assert_eq!(labelled.event().await, "ADDED a 3");
    assert_eq!(labelled.event().await, "DELETED a 3");
    assert_eq!(red.event().await, "MODIFIED a 1");
    assert_eq!(red.event().await, "MODIFIED a 2");
    assert_eq!(red.event().await, "DELETED a 2");
}

#[tokio::test]
async fn the_initial_state_ends_with_its_bookmark() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "a", 1).await;
    let query = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true\
        &fieldSelector=metadata.name%3Da";
    let mut lines = Lines::open(&fixture, query).await;
    assert_eq!(lines.event().await, "ADDED a 1");
    let bookmark = lines.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "Widget");
    let ended = &bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"];
    assert_eq!(ended, "true");
    let b = fixture.create("stage", "b", 1).await;
    assert!(revision(&bookmark["object"]) < revision(&b));
    resize(&fixture, "a", 2).await;
    assert_eq!(lines.event().await, "MODIFIED a 2");
    for bad in [
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=Exact",
    ] {
        let (code, status) = fixture.get(&format!("{ALL}?watch=1&{bad}")).await;
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_and_the_watch_ends_in_time() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "a", 1).await;
    let from = revision(&created);
    let query = format!("&resourceVersion={from}&timeoutSeconds=150");
    let begun = tokio::time::Instant::now();
    assert_eq!(Lines::open(&fixture, &query).await.rest().await, Vec::<Value>::new());
    assert_eq!(begun.elapsed().as_secs(), 150);
    let query = format!("{query}&allowWatchBookmarks=true");
    let lines = Lines::open(&fixture, &query).await.rest().await;
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["BOOKMARK"; 3]);
    assert_eq!(revision(&lines[0]["object"]), from);
}

#[tokio::test]
async fn tables_and_metadata_are_watched_too() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "a", 1).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut lines = Lines::open_as(&fixture, "", table).await;
    let first = lines.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    fixture.clock.advance(Duration::from_secs(5));
    resize(&fixture, "a", 2).await;
    let second = lines.next().await.unwrap();
    assert_eq!(second["object"]["rows"][0]["cells"], json!(["a", 2, null, "red", "5s"]));
    assert_eq!(second["object"]["columnDefinitions"], Value::Null);
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut lines = Lines::open_as(&fixture, "", metadata).await;
    let first = lines.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "PartialObjectMetadata");
    assert!(first["object"].get("spec").is_none());
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_up_nobody_and_is_told() {
    let fixture = Fixture::new().await;
    let from = revision(&fixture.create("stage", "a", 1).await);
    let slow = Lines::open(&fixture, &format!("&resourceVersion={from}")).await;
    let mut quick = Lines::open(&fixture, &format!("&resourceVersion={from}")).await;
    // More bytes than the ring keeps, in objects of a quarter of a megabyte.
    for number in 0..40 {
        let mut big = widget(&format!("big-{number}"), 1);
        big["spec"]["source_id"] = "x".repeat(256 * 1024).into();
        let path = format!("{WIDGETS}/namespaces/stage/widgets");
        assert_eq!(fixture.send("POST", &path, big).await.0, 201);
        assert_eq!(quick.event().await, format!("ADDED big-{number} 1"));
    }
    let lines = slow.rest().await;
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["object"]["code"], 410);
}

#[tokio::test]
async fn a_hundred_watchers_lose_nothing() {
    const WRITERS: u64 = 8;
    const WRITES: u64 = 25;
    let fixture = Fixture::new().await;
    let mut from = 0;
    for writer in 0..WRITERS {
        from = revision(&fixture.create("stage", &format!("w{writer}"), 1).await);
    }
    let mut watchers = Vec::new();
    for _ in 0..100 {
        let mut lines = Lines::open(&fixture, &format!("&resourceVersion={from}")).await;
        watchers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..WRITERS * WRITES {
                let event = lines.next().await.unwrap();
                seen.push(revision(&event["object"]));
            }
            seen
        }));
    }
    let write = async |writer: u64| {
        for size in 2..WRITES + 2 {
            resize(&fixture, &format!("w{writer}"), size).await;
        }
    };
    futures::future::join_all((0..WRITERS).map(write)).await;
    for watcher in watchers {
        let seen = watcher.await.unwrap();
        let wanted: Vec<u64> = (from + 1..=from + WRITERS * WRITES).collect();
        assert_eq!(seen, wanted);
    }
}

#[tokio::test]
async fn closing_ends_every_watch_and_refuses_what_comes_later() {
    let fixture = Fixture::new().await;
    let lines = Lines::open(&fixture, "").await;
    let ended = tokio::spawn(lines.rest());
    fixture.server.close().await;
    assert_eq!(ended.await.unwrap(), Vec::<Value>::new());
    let (code, _) = fixture.get(ALL).await;
    assert_eq!(code, 503);
    let request = Request::post(format!("{WIDGETS}/namespaces/stage/widgets"));
    let response = fixture.raw(request.body(widget("x", 1).to_string()).unwrap()).await;
    assert_eq!(response.status(), 503);
    assert_eq!(read(response).await["reason"], "ServiceUnavailable");
}

/// A watch through the gate, by whoever has the token.
async fn watch_with(
    fixture: &Fixture,
    gate: &Gate,
    token: &str,
) -> BodyDataStream<Either<Body, Body>> {
    let request = Request::get(format!("{WIDGETS}/namespaces/stage/widgets?watch=1"))
        .header("host", "localhost")
        .header("authorization", format!("Bearer {token}"));
    let gated = gate.layer(fixture.server.service());
    let answer = gated.oneshot(request.body(String::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().into_data_stream()
}

#[tokio::test(start_paused = true)]
async fn who_may_no_longer_watch_watches_no_longer() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "a", 1).await;
    let path = fixture.folder.path().join("users");
    let stage = || Scope::Within(["stage".to_owned()].into());
    let write = |users: &[(&str, Role)]| {
        let mut accounts = Accounts::default();
        for (name, role) in users {
            let account = Account::new(name, role.clone(), &format!("token of {name}"));
            accounts.add(account.unwrap()).unwrap();
        }
        std::fs::write(path.with_extension("new"), accounts.to_string()).unwrap();
        std::fs::rename(path.with_extension("new"), &path).unwrap();
    };
    let both = [("ada", Role::Viewer(stage())), ("bob", Role::Editor(stage()))];
    write(&[both.as_slice(), &[("cyd", Role::Admin)]].concat());
    let users = Users::new("owner".into(), Some(path.clone()));
    let gate = Gate::new(users, ([127, 0, 0, 1], 0).into(), Vec::new());
    let mut watches = Vec::new();
    for token in ["token of ada", "token of bob", "token of cyd", "owner"] {
        let mut watch = watch_with(&fixture, &gate, token).await;
        assert!(watch.next().await.unwrap().unwrap().starts_with(b"{\"type\":\"ADDED\""));
        watches.push(watch);
    }
    let [mut ada, mut bob, mut cyd, mut owner] = <[_; 4]>::try_from(watches).ok().unwrap();
    // Ada is revoked; Bob may only look from now on; Cyd stays as they are.
    write(&[("bob", Role::Viewer(stage())), ("cyd", Role::Admin)]);
    let last: Value = serde_json::from_slice(&ada.next().await.unwrap().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["object"]["code"]), (&json!("ERROR"), &json!(401)));
    assert!(ada.next().await.is_none() && bob.next().await.is_none());
    tokio::time::sleep(Duration::from_secs(60)).await;
    resize(&fixture, "a", 2).await;
    for watch in [&mut cyd, &mut owner] {
        let line = watch.next().await.unwrap().unwrap();
        assert!(line.starts_with(b"{\"type\":\"MODIFIED\""), "{line:?}");
    }
}

#[tokio::test]
async fn only_so_many_watches_are_served() {
    let fixture = Fixture::new().await;
    let ask = async |user: bool| {
        let mut request = Request::get(format!("{ALL}?watch=true")).body(String::new()).unwrap();
        if user {
            let role = Role::Viewer(Scope::Everywhere);
            request.extensions_mut().insert(User { name: "vi".into(), role });
        }
        fixture.raw(request).await
    };
    let mut served = Vec::new();
    let refused = loop {
        let answer = ask(true).await;
        if answer.status() != 200 {
            break answer;
        }
        served.push(answer);
        assert!(served.len() < 3000, "any number of watches");
    };
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(ask(false).await.status(), 200, "the program's own are not counted");
    served.pop();
    assert_eq!(ask(true).await.status(), 200);
}

#[tokio::test]
async fn a_watch_ends_in_time_though_there_is_always_news() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "first", 1).await;
    let (_, list) = fixture.get(ALL).await;
    let from = revision(&list);
    crate::lists::fill(&fixture, 60).await;
    let query = "?watch=true&timeoutSeconds=5&allowWatchBookmarks=true";
    let watch = Lines::open(&fixture, &format!("{query}&resourceVersion={from}")).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    let told = watch.rest().await;
    assert!(told.len() > 1 && told.len() < 60, "{} events", told.len());
    assert_eq!(told.last().unwrap()["type"], "BOOKMARK");
}
