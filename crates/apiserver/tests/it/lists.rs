//! Get and list: pages of one moment, selectors, revisions, tables.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS, read, widget};

const ALL: &str = "/apis/shop.example/v1/widgets";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

async fn list(fixture: &Fixture, query: &str) -> Value {
    let (code, list) = fixture.get(&format!("{ALL}{query}")).await;
    assert_eq!(code, 200, "{list}");
    list
}

async fn accept(fixture: &Fixture, path: &str, accept: &str) -> (u16, Value) {
    let request = Request::get(path).header("accept", accept).body(String::new()).unwrap();
    let response = fixture.raw(request).await;
    (response.status().as_u16(), read(response).await)
}

#[tokio::test]
async fn pages_show_the_moment_of_the_first() {
    let fixture = Fixture::new().await;
    for name in ["a", "c", "e", "g"] {
        fixture.create("stage", name, 1).await;
    }
    fixture.create("other", "z", 1).await;
    let first = list(&fixture, "?limit=2").await;
    assert_eq!(names(&first), ["z", "a"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What changes now is not of that moment: made, changed, deleted and made again.
    fixture.create("stage", "b", 1).await;
    let stage = format!("{WIDGETS}/namespaces/stage/widgets");
    let size = json!({ "spec": { "size": 9 } });
    fixture.send("PATCH", &format!("{stage}/e"), size.clone()).await;
    fixture.send("PATCH", &format!("{stage}/e"), json!({ "spec": { "size": 10 } })).await;
    fixture.send("DELETE", &format!("{stage}/c"), Value::Null).await;
    fixture.send("DELETE", &format!("{stage}/g"), Value::Null).await;
    fixture.create("stage", "g", 7).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = list(&fixture, &format!("?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "e"]);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = list(&fixture, &format!("?limit=2&continue={token}")).await;
    assert_eq!(names(&third), ["g"]);
    assert!(third["metadata"].get("continue").is_none());
    for page in [&first, &second, &third] {
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["spec"]["size"], 1);
        }
    }
    let now = list(&fixture, "").await;
    assert_eq!(names(&now), ["z", "a", "b", "e", "g"]);
    let exact = first["metadata"]["resourceVersion"].as_str().unwrap();
    let then =
        list(&fixture, &format!("?resourceVersion={exact}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&then), ["z", "a", "c", "e", "g"]);
}

#[tokio::test]
async fn a_long_list_is_whole() {
    let fixture = Fixture::new().await;
    let (_, empty) = fixture.get(ALL).await;
    assert_eq!((&empty["kind"], &empty["items"]), (&json!("WidgetList"), &json!([])));
    let mut made = Vec::new();
    for number in 10..20 {
        let mut big = widget(&format!("w{number}"), 1);
        big["spec"]["source_id"] = "x".repeat(number * 3000).into();
        let path = format!("{WIDGETS}/namespaces/stage/widgets");
        made.push(fixture.send("POST", &path, big).await.1);
    }
    assert_eq!(list(&fixture, "").await["items"], Value::from(made));
}

#[tokio::test]
async fn an_expired_list_is_410_and_may_go_on_inconsistently() {
    let fixture = Fixture::new().await;
    for name in ["a", "b", "c"] {
        fixture.create("stage", name, 1).await;
    }
    let first = list(&fixture, "?limit=1").await;
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    let fixture = fixture.reopen().await;
    // Nothing has changed since: still the same moment.
    assert_eq!(names(&list(&fixture, &format!("?continue={token}")).await), ["b", "c"]);
    fixture.create("stage", "d", 1).await;
    assert_eq!(names(&list(&fixture, &format!("?continue={token}")).await), ["b", "c"]);
    let fixture = fixture.reopen().await;
    let (code, status) = fixture.get(&format!("{ALL}?continue={token}")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let next = status["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&list(&fixture, &format!("?continue={next}")).await), ["b", "c", "d"]);
    let exact = first["metadata"]["resourceVersion"].as_str().unwrap();
    let query = format!("?resourceVersion={exact}&resourceVersionMatch=Exact");
    assert_eq!(fixture.get(&format!("{ALL}{query}")).await.0, 410);
    for bad in ["zz", "00", "7", "ffff"] {
        assert_eq!(fixture.get(&format!("{ALL}?continue={bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn selectors_choose() {
    let fixture = Fixture::new().await;
    for (name, color, app) in [("a", "red", "x"), ("b", "blue", "y"), ("c", "red", "")] {
        let mut asked = widget(name, 1);
        asked["spec"]["color"] = color.into();
        if !app.is_empty() {
            asked["metadata"]["labels"] = json!({ "app": app });
        }
        let path = format!("{WIDGETS}/namespaces/stage/widgets");
        assert_eq!(fixture.send("POST", &path, asked).await.0, 201);
    }
    let cases = [
        ("labelSelector=app%3Dx", vec!["a"]),
        ("labelSelector=app+in+(x,y)", vec!["a", "b"]),
        ("labelSelector=app+notin+(x)", vec!["b", "c"]),
        ("labelSelector=!app", vec!["c"]),
        ("labelSelector=app,app!%3Dx", vec!["b"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        ("fieldSelector=metadata.namespace%3Dstage,spec.color%3Dred", vec!["a", "c"]),
        ("fieldSelector=spec.color%3Dred&labelSelector=app", vec!["a"]),
        ("fieldSelector=metadata.namespace%3Dnone", vec![]),
    ];
    for (query, found) in cases {
        assert_eq!(names(&list(&fixture, &format!("?{query}")).await), found, "{query}");
    }
    let page = list(&fixture, "?fieldSelector=spec.color%3Dred&limit=1").await;
    assert_eq!(names(&page), ["a"]);
    assert!(page["metadata"].get("remainingItemCount").is_none());
    let token = page["metadata"]["continue"].as_str().unwrap();
    let query = format!("?fieldSelector=spec.color%3Dred&limit=1&continue={token}");
    let page = list(&fixture, &query).await;
    assert_eq!((names(&page), page["metadata"].get("continue")), (vec!["c"], None));
    for bad in [
        "labelSelector=a+b",
        "labelSelector=a%3D%3D%3Db",
        "fieldSelector=spec.size%3D1",
        "fieldSelector=x",
        "labelSelector=,",
    ] {
        assert_eq!(fixture.get(&format!("{ALL}?{bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_never_comes_is_504() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "a", 1).await;
    let present: u64 = created["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    for query in
        ["?resourceVersion=0", &format!("?resourceVersion={present}"), "?resourceVersion=1"]
    {
        assert_eq!(names(&list(&fixture, query).await), ["a"], "{query}");
    }
    let future = format!("{ALL}?resourceVersion={}", present + 1);
    let (code, status) = fixture.get(&future).await;
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")));
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(fixture.get(&format!("{ALL}?resourceVersion=x")).await.0, 400);
    assert_eq!(fixture.get(&format!("{ALL}?resourceVersionMatch=Exact")).await.0, 422);
    assert_eq!(
        fixture.get(&format!("{ALL}?resourceVersion=1&resourceVersionMatch=Odd")).await.0,
        422
    );
}

#[tokio::test]
async fn a_read_waits_for_the_revision_it_was_told() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "a", 1).await;
    let present: u64 = created["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let waiting = format!("{ALL}?resourceVersion={}", present + 1);
    let (answer, _) = tokio::join!(fixture.get(&waiting), fixture.create("stage", "b", 1));
    assert_eq!(names(&answer.1), ["a", "b"]);
}

#[tokio::test]
async fn tables_have_columns_and_cells() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "a", 3).await;
    let status = format!("{WIDGETS}/namespaces/stage/widgets/a/status");
    let ready = json!({ "status": { "conditions": [{ "type": "ready", "status": "True" }] } });
    fixture.send("PATCH", &status, ready).await;
    fixture.clock.advance(Duration::from_secs(150));
    let (code, table) = accept(&fixture, ALL, TABLE).await;
    assert_eq!((code, &table["kind"]), (200, &json!("Table")));
    assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["priority"].as_i64().unwrap()))
        .collect();
    assert_eq!(columns, [("Name", 0), ("Size", 0), ("Ready", 0), ("Color", 1), ("Age", 0)]);
    let row = &table["rows"][0];
    assert_eq!(row["cells"], json!(["a", 3, "True", "red", "2m30s"]));
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(row["object"]["metadata"]["namespace"], "stage");
    let one = format!("{WIDGETS}/namespaces/stage/widgets/a?includeObject=None");
    let (_, table) = accept(&fixture, &one, TABLE).await;
    assert_eq!(table["rows"], json!([{ "cells": ["a", 3, "True", "red", "2m30s"] }]));
    let (_, namespaces) = accept(&fixture, "/api/v1/namespaces/stage", TABLE).await;
    assert_eq!(namespaces["rows"][0]["cells"], json!(["stage", "Active", "2m30s"]));
    let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, metadata) = accept(&fixture, ALL, metadata).await;
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    assert!(metadata["items"][0].get("spec").is_none());
    assert_eq!(names(&metadata), ["a"]);
    assert_eq!(accept(&fixture, ALL, "text/html").await.0, 406);
}

const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// Makes widgets of about 10 KiB, with something in their metadata too.
pub(crate) async fn fill(fixture: &Fixture, count: u64) {
    let path = format!("{WIDGETS}/namespaces/stage/widgets");
    for number in 0..count {
        let mut big = widget(&format!("w{number:04}"), 1);
        big["metadata"]["annotations"] = json!({ "text": "two\nlines: [\"#\", '|']".repeat(400) });
        assert_eq!(fixture.send("POST", &path, big).await.0, 201);
    }
}

#[tokio::test]
async fn every_form_of_a_list_is_made_as_it_is_sent_and_says_the_same() {
    let fixture = Fixture::new().await;
    fill(&fixture, 40).await;
    let whole = list(&fixture, "").await;
    for form in ["application/json", TABLE, METADATA, "application/yaml"] {
        let request = Request::get(ALL).header("accept", form).body(String::new()).unwrap();
        let mut body = fixture.raw(request).await.into_body();
        let (mut text, mut largest) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            largest = largest.max(piece.len());
            text.extend_from_slice(&piece);
        }
        assert!(largest < 100_000 && text.len() > 300_000, "{form}: {largest} of {}", text.len());
        let text = String::from_utf8(text).unwrap();
        let said: Value = match form {
            "application/yaml" => serde_saphyr::from_str(&text).unwrap(),
            _ => serde_json::from_str(&text).unwrap(),
        };
        assert_eq!(said["metadata"], whole["metadata"], "{form}");
        match form {
            TABLE => assert_eq!(said["rows"][39]["cells"][0], "w0039"),
            METADATA => assert_eq!(said["items"][7]["metadata"], whole["items"][7]["metadata"]),
            _ => assert_eq!(said, whole, "{form}"),
        }
    }
    let yaml = accept(&fixture, "/api/v1/secrets", "application/yaml").await.1;
    let none: Value = serde_saphyr::from_str(yaml.as_str().unwrap()).unwrap();
    assert_eq!((&none["kind"], &none["items"]), (&json!("SecretList"), &json!([])));
}

#[tokio::test]
async fn a_list_has_the_version_of_its_own_newest_change() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "a", 1).await;
    let version = |list: &Value| list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let first = version(&list(&fixture, "").await);
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" },
        "involvedObject": { "namespace": "stage", "name": "a" }, "reason": "Because",
    });
    for other in ["one", "two"] {
        let namespace = json!({ "metadata": { "name": other } });
        assert_eq!(fixture.send("POST", "/api/v1/namespaces", namespace).await.0, 201);
    }
    let events = "/api/v1/namespaces/stage/events";
    let (code, answer) = fixture.send("POST", events, event).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(version(&list(&fixture, "").await), first, "nothing here has changed");
    // From there a watch goes on, and pages do.
    fixture.create("stage", "b", 1).await;
    let query = format!("{ALL}?watch=true&resourceVersion={first}");
    let request = Request::get(query).body(String::new()).unwrap();
    let line = fixture.raw(request).await.into_body().frame().await.unwrap().unwrap();
    let line: Value = serde_json::from_slice(&line.into_data().unwrap()).unwrap();
    assert_eq!(line["object"]["metadata"]["name"], "b");
    let page = list(&fixture, "?limit=1").await;
    assert_eq!(version(&page), line["object"]["metadata"]["resourceVersion"]);
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(names(&list(&fixture, &format!("?continue={token}")).await), ["b"]);
}

#[tokio::test]
async fn lists_that_are_not_taken_leave_room_for_few() {
    let fixture = Fixture::new().await;
    fill(&fixture, 400).await;
    let ask = async || fixture.raw(Request::get(ALL).body(String::new()).unwrap()).await;
    let mut waiting = Vec::new();
    let refused = loop {
        let answer = ask().await;
        if answer.status() != 200 {
            break answer;
        }
        waiting.push(answer);
        assert!(waiting.len() < 100, "a hundred lists lie in memory");
    };
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(read(refused).await["reason"], "TooManyRequests");
    assert!(waiting.len() > 1, "{} found room", waiting.len());
    // A page finds room where the whole does not; what is taken makes room.
    assert_eq!(list(&fixture, "?limit=1").await["items"].as_array().unwrap().len(), 1);
    read(waiting.pop().unwrap()).await;
    assert_eq!(ask().await.status(), 200);
}

#[tokio::test]
async fn a_list_that_is_not_taken_in_time_is_not_whole() {
    let fixture = Fixture::new().await;
    fill(&fixture, 40).await;
    let mut body = fixture.raw(Request::get(ALL).body(String::new()).unwrap()).await.into_body();
    let mut text = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    while let Some(piece) = body.frame().await {
        text.extend_from_slice(&piece.unwrap().into_data().unwrap());
    }
    assert!(serde_json::from_slice::<Value>(&text).is_err());
}
