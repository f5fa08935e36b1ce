//! Leases: what several processes elect one of them by.

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::fixture::{Fixture, read};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/bus/leases";

fn lease(holder: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "leader" },
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 0,
            "acquireTime": "2017-07-14T02:40:00.000001Z",
            "renewTime": "2017-07-14T02:40:00.000001Z",
        },
    })
}

#[tokio::test]
async fn of_two_who_saw_the_same_lease_one_takes_it() {
    let fixture = Fixture::new().await;
    let one = format!("{LEASES}/leader");
    let (code, made) = fixture.send("POST", LEASES, lease("a")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"], lease("a")["spec"]);
    assert!(made["metadata"].get("generation").is_none(), "{made}");
    assert_eq!(fixture.send("POST", LEASES, lease("b")).await.0, 409);
    let (_, seen) = fixture.get(&one).await;
    assert_eq!(seen, made);
    let take = async |holder: &str| {
        let mut wanted = lease(holder);
        wanted["metadata"] = seen["metadata"].clone();
        fixture.send("PUT", &one, wanted).await
    };
    let (b, c) = tokio::join!(take("b"), take("c"));
    let mut codes = [b.0, c.0];
    codes.sort_unstable();
    assert_eq!(codes, [200, 409], "{} {}", b.1, c.1);
    let (code, status) = fixture.send("PUT", &one, lease("d")).await;
    assert_eq!(code, 422, "nobody takes it unseen: {status}");
}

#[tokio::test]
async fn a_lease_is_watched_patched_and_given_up() {
    let fixture = Fixture::new().await;
    let one = format!("{LEASES}/leader");
    let (_, made) = fixture.send("POST", LEASES, lease("a")).await;
    let revision = made["metadata"]["resourceVersion"].as_str().unwrap();
    let watch = format!("{LEASES}?watch=true&resourceVersion={revision}");
    let watch = Request::get(watch).body(String::new()).unwrap();
    let mut watch = fixture.raw(watch).await.into_body();
    let renewed = json!({ "spec": { "renewTime": "2017-07-14T02:40:10.500000Z" } });
    for content in ["merge-patch", "strategic-merge-patch"] {
        let request =
            Request::patch(&one).header("content-type", format!("application/{content}+json"));
        let answer = fixture.raw(request.body(renewed.to_string()).unwrap()).await;
        assert_eq!(answer.status(), 200, "{content}");
        assert_eq!(read(answer).await["spec"]["renewTime"], renewed["spec"]["renewTime"]);
    }
    assert_eq!(fixture.send("DELETE", &one, Value::Null).await.0, 200);
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let line = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        let line: Value = serde_json::from_slice(&line).unwrap();
        kinds.push(line["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds, ["MODIFIED", "DELETED"], "a patch that changes nothing is not told");
}

#[tokio::test]
async fn leases_are_found_and_say_what_they_may_hold() {
    let fixture = Fixture::new().await;
    let (_, groups) = fixture.get("/apis").await;
    assert!(groups.to_string().contains("coordination.k8s.io/v1"), "{groups}");
    let (_, resources) = fixture.get("/apis/coordination.k8s.io/v1").await;
    let leases = &resources["resources"][0];
    assert_eq!((&leases["name"], &leases["namespaced"]), (&json!("leases"), &json!(true)));
    let (code, schema) = fixture.get("/openapi/v3/apis/coordination.k8s.io/v1").await;
    assert!(code == 200 && schema.to_string().contains("leaseTransitions"), "{schema}");
    let mut wrong = lease("a");
    wrong["spec"]["leaseDurationSeconds"] = 0.into();
    wrong["spec"]["renewTime"] = "now".into();
    let (code, status) = fixture.send("POST", LEASES, wrong).await;
    assert_eq!((code, status["details"]["causes"].as_array().unwrap().len()), (422, 2), "{status}");
    let mut more = lease("a");
    more["spec"]["color"] = "red".into();
    let (code, made) = fixture.send("POST", LEASES, more).await;
    assert_eq!((code, made["spec"].get("color")), (201, None));
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let request = Request::get(LEASES).header("accept", table).body(String::new()).unwrap();
    let table = read(fixture.raw(request).await).await;
    assert_eq!(table["rows"][0]["cells"], json!(["leader", "a", "0s"]));
}
