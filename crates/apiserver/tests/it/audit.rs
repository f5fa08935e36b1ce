//! The audit log: who wrote what, and nothing of what was written.

use eventbus_apiserver::{Role, Scope};
use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS, widget};

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
        "delete namespaces stage 200",
    ];
    assert_eq!(short, expected);
    assert_eq!((&lines[4]["dryRun"], &lines[0]["dryRun"]), (&json!(true), &json!(false)));
    assert_eq!(lines[0]["namespace"], "stage");
}
