//! Events: found by the object they tell of, bounded in age and number.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::Fixture;

const EVENTS: &str = "/api/v1/namespaces/stage/events";

fn event(name: &str, about: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": name },
        "involvedObject": {
            "apiVersion": "shop.example/v1", "kind": "Widget", "name": about, "uid": "u-1",
            "namespace": "stage",
        },
        "reason": "Made", "message": "It was made.", "type": "Normal", "count": 1,
    })
}

/// A server with the namespace `stage`.
async fn with_stage() -> Fixture {
    let fixture = Fixture::new().await;
    let stage = json!({ "metadata": { "name": "stage" } });
    assert_eq!(fixture.send("POST", "/api/v1/namespaces", stage).await.0, 201);
    fixture
}

async fn names(fixture: &Fixture, query: &str) -> Vec<String> {
    let (code, list) = fixture.get(&format!("{EVENTS}{query}")).await;
    assert_eq!(code, 200, "{list}");
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn events_are_found_by_what_they_tell_of() {
    let fixture = with_stage().await;
    let mut warning = event("b", "two");
    warning["type"] = "Warning".into();
    for event in [event("a", "one"), warning] {
        let (code, made) = fixture.send("POST", EVENTS, event).await;
        assert_eq!(code, 201, "{made}");
        assert_eq!(made["lastTimestamp"], made["metadata"]["creationTimestamp"]);
    }
    let described = "?limit=500&fieldSelector=involvedObject.name%3Done,\
                     involvedObject.namespace%3Dstage,involvedObject.kind%3DWidget,\
                     involvedObject.uid%3Du-1";
    assert_eq!(names(&fixture, described).await, ["a"]);
    assert_eq!(names(&fixture, "?fieldSelector=type%3DWarning").await, ["b"]);
    assert_eq!(names(&fixture, "?fieldSelector=reason%21%3DMade").await, [""; 0]);
    let again = json!({ "count": 7, "lastTimestamp": "2017-07-14T02:41:00Z" });
    let (code, patched) = fixture.send("PATCH", &format!("{EVENTS}/a"), again).await;
    assert_eq!((code, &patched["count"]), (200, &json!(7)));
    assert_eq!(patched["firstTimestamp"], "2017-07-14T02:40:00Z");
}

#[tokio::test]
async fn an_event_lies_where_its_object_is() {
    let fixture = Fixture::new().await;
    let elsewhere = "/api/v1/namespaces/other/events";
    let (code, refused) = fixture.send("POST", elsewhere, event("a", "one")).await;
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")));
    assert_eq!(refused["details"]["causes"][0]["field"], "involvedObject.namespace");
    let mut long = event("a", "one");
    long["message"] = "x".repeat(17 * 1024).into();
    assert_eq!(fixture.send("POST", EVENTS, long).await.0, 422);
}

#[tokio::test]
async fn an_event_brings_no_namespace_back() {
    let fixture = with_stage().await;
    assert_eq!(fixture.send("POST", EVENTS, event("a", "one")).await.0, 201);
    let (code, _) = fixture.send("DELETE", "/api/v1/namespaces/stage", json!({})).await;
    assert_eq!(code, 200);
    for _ in 0..200 {
        if fixture.get("/api/v1/namespaces/stage").await.0 == 404 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (code, refused) = fixture.send("POST", EVENTS, event("b", "one")).await;
    assert_eq!((code, &refused["message"]), (404, &json!("namespaces \"stage\" not found")));
    assert_eq!(fixture.get("/api/v1/namespaces/stage").await.0, 404);
}

#[tokio::test]
async fn a_patch_of_nothing_shows_an_event_and_writes_nothing() {
    let fixture = with_stage().await;
    let (_, made) = fixture.send("POST", EVENTS, event("a", "one")).await;
    fixture.clock.advance(Duration::from_secs(5));
    let path = format!("{EVENTS}/a?fieldManager=eventbus");
    let (code, shown) = fixture.send("PATCH", &path, json!({})).await;
    assert_eq!((code, shown), (200, made));
}

#[tokio::test]
async fn a_table_of_events_reads_as_from_kubernetes() {
    let fixture = with_stage().await;
    fixture.send("POST", EVENTS, event("a", "one")).await;
    let request = http::Request::get(EVENTS)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(String::new());
    let table = crate::fixture::read(fixture.raw(request.unwrap()).await).await;
    let columns = table["columnDefinitions"].as_array().unwrap();
    let shown: Vec<_> = columns
        .iter()
        .zip(table["rows"][0]["cells"].as_array().unwrap())
        .filter(|(column, _)| column["priority"] == 0)
        .map(|(column, cell)| (column["name"].as_str().unwrap(), cell.as_str().unwrap()))
        .collect();
    let expected = [
        ("Last Seen", "0s"),
        ("Type", "Normal"),
        ("Reason", "Made"),
        ("Object", "widget/one"),
        ("Message", "It was made."),
    ];
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn only_the_newest_thousand_of_a_namespace_are_kept() {
    let fixture = with_stage().await;
    for number in 0..1003 {
        let event = event(&format!("e{number:04}"), "one");
        assert_eq!(fixture.send("POST", EVENTS, event).await.0, 201);
    }
    let kept = names(&fixture, "").await;
    assert_eq!((kept.len(), kept[0].as_str(), kept[999].as_str()), (1000, "e0003", "e1002"));
}

#[tokio::test]
async fn events_go_an_hour_after_they_happened_last() {
    let mut fixture = with_stage().await;
    for name in ["old", "again", "liar"] {
        fixture.send("POST", EVENTS, event(name, "one")).await;
    }
    let liar = json!({ "lastTimestamp": "2099-01-01T00:00:00Z" });
    fixture.send("PATCH", &format!("{EVENTS}/liar"), liar).await;
    let again = json!({ "lastTimestamp": "2017-07-14T03:00:00Z" });
    fixture.send("PATCH", &format!("{EVENTS}/again"), again).await;
    fixture.clock.advance(Duration::from_secs(3601));
    // A collector that begins looks at once.
    fixture = fixture.reopen().await;
    for _ in 0..200 {
        if names(&fixture, "").await.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(names(&fixture, "").await, ["again"]);
}
