//! The audit log: who wrote what, and nothing of what was written.

use eventbus_apiserver::{Role, Scope, User};
use http::Request;
use serde_json::{Value, json};
use tower::Service;

use crate::fixture::{Fixture, WIDGETS, widget};

/// Closes the server and reads its log.
async fn log(fixture: &Fixture) -> Vec<Value> {
    fixture.server.close().await;
    let text = std::fs::read_to_string(fixture.folder.path().join("audit.log")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_write_of_a_user_is_a_line() {
    let fixture = Fixture::new().await;
    let all = format!("{WIDGETS}/namespaces/stage/widgets");
    let (one, secrets) = (format!("{all}/one"), "/api/v1/namespaces/stage/secrets");
    let ask = async |role: Role, method: &str, path: &str, body: Value| {
        fixture.send_as(role, method, path, body).await.0
    };
    let mut named = widget("", 1);
    named["metadata"] = json!({ "generateName": "w-" });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "key" },
        "stringData": { "password": "hunter2" },
    });
    ask(Role::Admin, "POST", &all, widget("one", 1)).await;
    ask(Role::Admin, "POST", &all, widget("one", 1)).await;
    ask(Role::Admin, "POST", &all, named).await;
    ask(Role::Viewer(Scope::Everywhere), "DELETE", &one, Value::Null).await;
    ask(Role::Admin, "PATCH", &format!("{one}/status?dryRun=All"), json!({ "status": {} })).await;
    ask(Role::Admin, "POST", secrets, secret.clone()).await;
    let long = Value::from("x".repeat(4 * 1024 * 1024));
    assert_eq!(ask(Role::Admin, "PUT", &one, long.clone()).await, 413);
    assert_eq!(ask(Role::Viewer(Scope::Everywhere), "PUT", &one, long).await, 403);
    ask(Role::Admin, "GET", &all, Value::Null).await;
    fixture.send("POST", secrets, secret).await;
    ask(Role::Admin, "DELETE", "/api/v1/namespaces/stage", Value::Null).await;
    fixture.server.close().await;
    let text = std::fs::read_to_string(fixture.folder.path().join("audit.log")).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let short: Vec<_> = lines
        .iter()
        .map(|line| {
            assert_eq!((&line["user"], &line["dryRun"]), (&json!("ada"), &line["dryRun"]));
            let word = |field: &str| line[field].as_str().unwrap().to_owned();
            let name = word("name");
            let name = if name.starts_with("w-") { "w-" } else { &name };
            format!("{} {} {} {}", word("verb"), word("resource"), name, line["code"])
        })
        .collect();
    let expected = [
        "create widgets.shop.example one 201",
        "create widgets.shop.example one 409",
        "create widgets.shop.example w- 201",
        "delete widgets.shop.example one 403",
        "patch widgets.shop.example/status one 200",
        "create secrets key 201",
        "update widgets.shop.example one 413",
        "update widgets.shop.example one 403",
        "delete namespaces stage 200",
    ];
    assert_eq!(short, expected);
    assert_eq!((&lines[4]["dryRun"], &lines[0]["dryRun"]), (&json!(true), &json!(false)));
    assert_eq!(lines[0]["namespace"], "stage");
}

#[tokio::test]
async fn a_write_is_told_of_though_its_client_has_gone() {
    let fixture = Fixture::new().await;
    let all = format!("{WIDGETS}/namespaces/stage/widgets");
    for number in 0..60 {
        let body = widget(&format!("w{number}"), 1).to_string();
        let mut request = Request::post(&all).body(body).unwrap();
        request.extensions_mut().insert(User { name: "ada".into(), role: Role::Admin });
        let mut answer = fixture.server.service().call(request);
        // The client goes at one moment or another.
        for _ in 0..=number % 3 {
            if futures::poll!(&mut answer).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // Written after them all.
    fixture.create("stage", "last", 1).await;
    let made = fixture.get(&all).await.1["items"].as_array().unwrap().len() - 1;
    assert!(made > 0);
    assert_eq!(log(&fixture).await.len(), made);
}

#[tokio::test]
async fn the_name_is_told_in_whatever_form_the_answer_is() {
    let fixture = Fixture::new().await;
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let forms = ["application/json", "application/yaml", table, metadata];
    for (number, form) in forms.into_iter().enumerate() {
        let all = format!("{WIDGETS}/namespaces/stage/widgets");
        let body = widget(&format!("w{number}"), 1).to_string();
        let mut request = Request::post(all).header("accept", form).body(body).unwrap();
        request.extensions_mut().insert(User { name: "ada".into(), role: Role::Admin });
        assert_eq!(fixture.raw(request).await.status(), 201);
    }
    let lines = log(&fixture).await;
    let names: Vec<_> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["w0", "w1", "w2", "w3"]);
}
