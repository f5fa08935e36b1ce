//! Delete: finalizers, owners, namespaces, collections.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS, widget};

const STAGE: &str = "/apis/shop.example/v1/namespaces/stage/widgets";

fn path(name: &str) -> String {
    format!("{STAGE}/{name}")
}

/// Waits until the collector has done what `done` looks for.
async fn eventually(fixture: &Fixture, path: &str, done: impl Fn(u16, &Value) -> bool) -> Value {
    for _ in 0..500 {
        let (code, answer) = fixture.get(path).await;
        if done(code, &answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} never came to be as it should");
}

/// Creates a widget owned by others.
async fn owned(fixture: &Fixture, name: &str, owners: &[&Value], extra: Value) -> Value {
    let mut asked = widget(name, 1);
    asked["metadata"]["ownerReferences"] = owners
        .iter()
        .map(|owner| {
            json!({
                "apiVersion": owner["apiVersion"], "kind": owner["kind"],
                "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": true,
            })
        })
        .collect();
    if let Some(finalizers) = extra.get("finalizers") {
        asked["metadata"]["finalizers"] = finalizers.clone();
    }
    let (code, created) = fixture.send("POST", STAGE, asked).await;
    assert_eq!(code, 201, "{created}");
    created
}

#[tokio::test]
async fn a_deleted_object_is_gone_and_its_uid_told() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "one", 1).await;
    let uid = &created["metadata"]["uid"];
    for wrong in [json!({ "uid": "other" }), json!({ "resourceVersion": "1" })] {
        let options = json!({ "preconditions": wrong });
        let (code, status) = fixture.send("DELETE", &path("one"), options).await;
        assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    }
    let options = json!({ "preconditions": { "uid": uid }, "propagationPolicy": "Background",
        "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0 });
    let (code, status) = fixture.send("DELETE", &path("one"), options).await;
    assert_eq!((code, &status["status"]), (200, &json!("Success")));
    let details = json!({
        "name": "one", "group": "shop.example", "kind": "widgets", "uid": uid,
    });
    assert_eq!(status["details"], details);
    assert_eq!(fixture.get(&path("one")).await.0, 404);
    assert_eq!(fixture.send("DELETE", &path("one"), Value::Null).await.0, 404);
    let again = fixture.create("stage", "one", 1).await;
    assert_ne!(&again["metadata"]["uid"], uid);
    let odd = json!({ "propagationPolicy": "Sideways" });
    assert_eq!(fixture.send("DELETE", &path("one"), odd).await.0, 422);
    assert_eq!(fixture.send("DELETE", &path("one"), json!([1])).await.0, 400);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_let_go() {
    let fixture = Fixture::new().await;
    let held = json!({ "finalizers": ["shop.example/hold"] });
    owned(&fixture, "one", &[], held).await;
    let (code, marked) = fixture.send("DELETE", &path("one"), Value::Null).await;
    assert_eq!((code, &marked["kind"]), (200, &json!("Widget")));
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2017-07-14T02:40:00Z");
    assert_eq!(marked["metadata"]["generation"], 2);
    assert_eq!(fixture.send("DELETE", &path("one"), Value::Null).await, (200, marked.clone()));
    let add = json!({ "metadata": { "finalizers": ["shop.example/hold", "shop.example/more"] } });
    let (code, status) = fixture.send("PATCH", &path("one"), add).await;
    assert_eq!(code, 422);
    assert!(status["message"].as_str().unwrap().contains(
        "no new finalizers can be added if the object is being deleted, \
         found new finalizers []string{\"shop.example/more\"}"
    ));
    let revive = json!({ "metadata": { "deletionTimestamp": null } });
    assert_eq!(fixture.send("PATCH", &path("one"), revive).await, (200, marked));
    let release = json!({ "metadata": { "finalizers": null } });
    assert_eq!(fixture.send("PATCH", &path("one"), release).await.0, 200);
    assert_eq!(fixture.get(&path("one")).await.0, 404);
}

#[tokio::test]
async fn dependents_go_when_all_their_owners_are_gone() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.create("stage", "a", 1).await, fixture.create("stage", "b", 1).await);
    let foreign = json!({ "apiVersion": "other.example/v1", "kind": "Thing",
        "metadata": { "name": "x", "uid": "11111111-1111-4111-8111-111111111111" } });
    owned(&fixture, "of-both", &[&a, &b], json!({})).await;
    let child = owned(&fixture, "of-a", &[&a], json!({})).await;
    owned(&fixture, "grandchild", &[&child], json!({})).await;
    owned(&fixture, "of-foreign", &[&foreign], json!({})).await;
    owned(&fixture, "of-a-and-foreign", &[&a, &foreign], json!({})).await;
    assert_eq!(fixture.send("DELETE", &path("a"), Value::Null).await.0, 200);
    eventually(&fixture, &path("grandchild"), |code, _| code == 404).await;
    eventually(&fixture, &path("of-a"), |code, _| code == 404).await;
    let owners = |answer: &Value| answer["metadata"]["ownerReferences"].as_array().unwrap().len();
    for kept in ["of-both", "of-a-and-foreign"] {
        eventually(&fixture, &path(kept), |_, answer| owners(answer) == 1).await;
    }
    assert_eq!(owners(&fixture.get(&path("of-foreign")).await.1), 1);
    assert_eq!(fixture.send("DELETE", &path("b"), Value::Null).await.0, 200);
    eventually(&fixture, &path("of-both"), |code, _| code == 404).await;
    // An owner that never was is as one that is gone.
    owned(&fixture, "of-a", &[&a], json!({})).await;
    eventually(&fixture, &path("of-a"), |code, _| code == 404).await;
}

#[tokio::test]
async fn nothing_stops_the_collector() {
    let fixture = Fixture::new().await;
    let ghost = json!([{ "apiVersion": "shop.example/v1", "kind": "Widget", "name": "ghost",
        "uid": "22222222-2222-4222-8222-222222222222" }]);
    // The default namespace may not go, though its owner is gone; an object may own itself.
    let owners = json!({ "metadata": { "ownerReferences": ghost } });
    let default = "/api/v1/namespaces/default";
    assert_eq!(fixture.send("PATCH", default, owners).await.0, 200);
    let narcissus = fixture.create("stage", "narcissus", 1).await;
    let mirror = json!({ "metadata": { "ownerReferences": [{ "apiVersion": "shop.example/v1",
        "kind": "Widget", "name": "narcissus", "uid": narcissus["metadata"]["uid"],
        "blockOwnerDeletion": true }] } });
    assert_eq!(fixture.send("PATCH", &path("narcissus"), mirror).await.0, 200);
    let foreground = json!({ "propagationPolicy": "Foreground" });
    assert_eq!(fixture.send("DELETE", &path("narcissus"), foreground).await.0, 200);
    eventually(&fixture, &path("narcissus"), |code, _| code == 404).await;
    let forgotten = |_, answer: &Value| answer["metadata"].get("ownerReferences").is_none();
    eventually(&fixture, default, forgotten).await;
}

#[tokio::test]
async fn orphans_stay_and_forget_their_owner() {
    let fixture = Fixture::new().await;
    let owner = fixture.create("stage", "owner", 1).await;
    owned(&fixture, "child", &[&owner], json!({})).await;
    let orphan = format!("{}?propagationPolicy=Orphan", path("owner"));
    assert_eq!(fixture.send("DELETE", &orphan, Value::Null).await.0, 200);
    let (code, child) = fixture.get(&path("child")).await;
    assert_eq!((code, child["metadata"].get("ownerReferences")), (200, None));
}

#[tokio::test]
async fn in_the_foreground_dependents_go_first() {
    let fixture = Fixture::new().await;
    let owner = fixture.create("stage", "owner", 1).await;
    owned(&fixture, "free", &[&owner], json!({})).await;
    owned(&fixture, "held", &[&owner], json!({ "finalizers": ["shop.example/hold"] })).await;
    let foreground = json!({ "propagationPolicy": "Foreground" });
    let (_, marked) = fixture.send("DELETE", &path("owner"), foreground).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    eventually(&fixture, &path("free"), |code, _| code == 404).await;
    eventually(&fixture, &path("held"), |_, held| {
        held["metadata"].get("deletionTimestamp").is_some()
    })
    .await;
    assert_eq!(fixture.get(&path("owner")).await.0, 200);
    let release = json!({ "metadata": { "finalizers": [] } });
    assert_eq!(fixture.send("PATCH", &path("held"), release).await.0, 200);
    eventually(&fixture, &path("owner"), |code, _| code == 404).await;
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_contents_with_it() {
    let fixture = Fixture::new().await;
    for name in 0..3 {
        fixture.create("stage", &format!("w{name}"), 1).await;
    }
    fixture.create("other", "stays", 1).await;
    owned(&fixture, "held", &[], json!({ "finalizers": ["shop.example/hold"] })).await;
    let namespace = "/api/v1/namespaces/stage";
    let (code, going) = fixture.send("DELETE", namespace, Value::Null).await;
    assert_eq!((code, &going["status"]["phase"]), (200, &json!("Terminating")));
    let (code, status) = fixture.send("POST", STAGE, widget("late", 1)).await;
    assert_eq!(code, 403);
    assert!(status["message"].as_str().unwrap().ends_with(
        "unable to create new content in namespace stage because it is being terminated"
    ));
    let left = |answer: &Value| answer["items"].as_array().unwrap().len();
    eventually(&fixture, STAGE, |_, answer| left(answer) == 1).await;
    assert_eq!(fixture.get(namespace).await.1["status"]["phase"], "Terminating");
    let release = json!({ "metadata": { "finalizers": null } });
    fixture.send("PATCH", &path("held"), release).await;
    eventually(&fixture, namespace, |code, _| code == 404).await;
    let (_, all) = fixture.get(&format!("{WIDGETS}/widgets")).await;
    assert_eq!(left(&all), 1);
    fixture.create("stage", "again", 1).await;
    let (code, status) = fixture.send("DELETE", "/api/v1/namespaces/default", Value::Null).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
}

#[tokio::test]
async fn what_a_restart_interrupted_is_finished_after_it() {
    let fixture = Fixture::new().await;
    for name in 0..3 {
        fixture.create("stage", &format!("w{name}"), 1).await;
    }
    let namespace = "/api/v1/namespaces/stage";
    let (code, _) = fixture.send("DELETE", namespace, Value::Null).await;
    assert_eq!(code, 200);
    let fixture = fixture.reopen().await;
    eventually(&fixture, namespace, |code, _| code == 404).await;
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let fixture = Fixture::new().await;
    for number in 0..5 {
        fixture.create("stage", &format!("w{number}"), 1).await;
    }
    fixture.create("other", "w0", 1).await;
    let some = format!("{STAGE}?fieldSelector=metadata.name!%3Dw3");
    let (code, deleted) = fixture.send("DELETE", &some, Value::Null).await;
    assert_eq!((code, &deleted["kind"]), (200, &json!("WidgetList")));
    assert_eq!(deleted["items"].as_array().unwrap().len(), 4);
    let (_, left) = fixture.get(&format!("{WIDGETS}/widgets")).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 2);
    // Not over all namespaces at once, as on the real server.
    let (code, _) = fixture.send("DELETE", &format!("{WIDGETS}/widgets"), Value::Null).await;
    assert_eq!(code, 405);
}

#[tokio::test]
async fn what_may_not_go_holds_up_no_owner() {
    let fixture = Fixture::new().await;
    let owner = fixture.create("stage", "owner", 1).await;
    let default = "/api/v1/namespaces/default";
    let owned = json!({ "metadata": { "ownerReferences": [{ "apiVersion": "shop.example/v1",
        "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": true }] } });
    assert_eq!(fixture.send("PATCH", default, owned).await.0, 200);
    let foreground = json!({ "propagationPolicy": "Foreground" });
    assert_eq!(fixture.send("DELETE", &path("owner"), foreground).await.0, 200);
    eventually(&fixture, &path("owner"), |code, _| code == 404).await;
    let (code, kept) = fixture.get(default).await;
    assert_eq!((code, kept["metadata"].get("ownerReferences")), (200, None));
}

#[tokio::test]
async fn one_object_that_cannot_be_collected_holds_up_no_other() {
    let fixture = Fixture::new().await;
    let hold = json!({ "finalizers": ["shop.example/hold"] });
    for name in ["broken", "whole"] {
        let owner = fixture.create("stage", name, 1).await;
        owned(&fixture, &format!("of-{name}"), &[&owner], hold.clone()).await;
        let foreground = json!({ "propagationPolicy": "Foreground" });
        assert_eq!(fixture.send("DELETE", &path(name), foreground).await.0, 200);
    }
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "past" },
        "involvedObject": { "namespace": "stage", "name": "whole" }, "reason": "Because",
    });
    let events = "/api/v1/namespaces/stage/events";
    assert_eq!(fixture.send("POST", events, event).await.0, 201);
    fixture.clock.advance(Duration::from_secs(2 * 60 * 60));
    let file = fixture.folder.path().join("resources.db");
    fixture.server.close().await;
    let store = rusqlite::Connection::open(file).unwrap();
    let breaks = "UPDATE objects SET body = CAST('{' AS BLOB) WHERE name = 'broken'";
    assert_eq!(store.execute(breaks, []).unwrap(), 1);
    drop(store);
    let fixture = fixture.reopen().await;
    eventually(&fixture, &format!("{events}/past"), |code, _| code == 404).await;
    let release = json!({ "metadata": { "finalizers": [] } });
    assert_eq!(fixture.send("PATCH", &path("of-whole"), release).await.0, 200);
    eventually(&fixture, &path("whole"), |code, _| code == 404).await;
}

#[tokio::test]
async fn what_cannot_be_read_deletes_nothing() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "one", 1).await;
    let uid = &created["metadata"]["uid"];
    let wrong = [
        json!([]),
        json!(7),
        json!("Background"),
        json!({ "preconditions": [] }),
        json!({ "preconditions": [uid] }),
        json!({ "preconditions": { "uid": 7 } }),
        json!({ "propagationPolicy": ["Orphan"] }),
        json!({ "orphanDependents": "yes" }),
        json!({ "gracePeriodSeconds": "0" }),
        json!({ "dryRun": "All" }),
        json!({ "kind": "Widget" }),
        json!({ "kind": "DeleteOptions", "apiVersion": "other.example/v1" }),
        json!({ "kind": 7 }),
        widget("one", 1),
    ];
    for method in [path("one"), STAGE.to_owned()] {
        for options in &wrong {
            let (code, answer) = fixture.send("DELETE", &method, options.clone()).await;
            assert_eq!((code, &answer["reason"]), (400, &json!("BadRequest")), "{options}");
        }
        let nonsense = json!({ "dryRun": ["Nonsense"] });
        let (code, answer) = fixture.send("DELETE", &method, nonsense).await;
        assert_eq!((code, &answer["reason"]), (422, &json!("Invalid")), "{answer}");
    }
    assert_eq!(fixture.get(&path("one")).await.0, 200);
    for version in ["v1", "meta.k8s.io/v1", "shop.example/v1"] {
        let right = json!({ "kind": "DeleteOptions", "apiVersion": version, "dryRun": ["All"],
            "gracePeriodSeconds": 0, "preconditions": { "uid": uid } });
        assert_eq!(fixture.send("DELETE", &path("one"), right).await.0, 200);
    }
    assert_eq!(fixture.get(&path("one")).await.0, 200);
}

#[tokio::test]
async fn a_patch_that_is_too_much_work_is_refused() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "one", 1).await;
    let mut steps = vec![json!({ "op": "add", "path": "/a", "value": vec![0; 200_000] })];
    steps.extend(vec![json!({ "op": "add", "path": "/a/0", "value": 0 }); 9000]);
    let (code, answer) = fixture.send("PATCH", &path("one"), Value::from(steps)).await;
    assert_eq!((code, &answer["reason"]), (422, &json!("Invalid")), "{answer}");
    let lists = json!([["replace", "/spec/size", 3]]);
    assert_eq!(fixture.send("PATCH", &path("one"), lists).await.0, 400);
}

#[tokio::test]
async fn namespaces_are_deleted_one_by_one() {
    let fixture = Fixture::new().await;
    let (_, core) = fixture.get("/api/v1").await;
    let verbs = core["resources"][0]["verbs"].as_array().unwrap();
    assert!(!verbs.contains(&json!("deletecollection")) && verbs.contains(&json!("delete")));
    let (code, answer) = fixture.send("DELETE", "/api/v1/namespaces", Value::Null).await;
    assert_eq!((code, &answer["reason"]), (405, &json!("MethodNotAllowed")));
}
