//! Secrets: written by many, read by one, and nowhere in plain sight.

use std::collections::BTreeSet;

use eventbus_apiserver::{Role, Scope};
use serde_json::{Value, json};

use crate::fixture::{Fixture, definitions, open_with};

const SECRETS: &str = "/api/v1/namespaces/stage/secrets";
const ONE: &str = "/api/v1/namespaces/stage/secrets/one";

fn secret(plain: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "one" },
        "stringData": { "password": plain },
    })
}

fn editor() -> Role {
    Role::Editor(Scope::Within(BTreeSet::from(["stage".to_owned()])))
}

/// `hunter2, the password`, in base64.
const ENCODED: &str = "aHVudGVyMiwgdGhlIHBhc3N3b3Jk";
const PLAIN: &str = "hunter2, the password";

#[tokio::test]
async fn plain_texts_become_values() {
    let fixture = Fixture::new().await;
    let (code, made) = fixture.send("POST", SECRETS, secret(PLAIN)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!((&made["data"]["password"], &made["type"]), (&json!(ENCODED), &json!("Opaque")));
    assert!(made.get("stringData").is_none() && made["metadata"].get("generation").is_none());
    let (_, read) = fixture.get(ONE).await;
    assert_eq!(read, made);
    let more = json!({ "stringData": { "user": "a" }, "data": { "password": null } });
    let (code, patched) = fixture.send("PATCH", ONE, more).await;
    assert_eq!((code, &patched["data"]), (200, &json!({ "user": "YQ==" })), "{patched}");
    // Without a resourceVersion, as `kubectl replace` by somebody who may not read.
    let (code, replaced) = fixture.send("PUT", ONE, secret("x")).await;
    assert_eq!((code, &replaced["data"]), (200, &json!({ "password": "eA==" })), "{replaced}");
}

#[tokio::test]
async fn what_is_no_secret_is_refused_without_repeating_it() {
    let fixture = Fixture::new().await;
    let cases = [
        json!({ "data": { "password": "not base64, hunter2" } }),
        json!({ "data": "hunter2" }),
        json!({ "data": { "password": 7 }, "stringData": "hunter2" }),
        json!({ "data": { "a/b": ENCODED } }),
        json!({ "data": { "tls.crt": ENCODED }, "type": "kubernetes.io/tls" }),
        json!({ "stringData": { "long": "hunter2".repeat(160_000) } }),
    ];
    for case in cases {
        let mut secret = secret(PLAIN);
        secret["stringData"] = Value::Null;
        for (field, value) in case.as_object().unwrap() {
            secret[field] = value.clone();
        }
        let (code, refused) = fixture.send("POST", SECRETS, secret).await;
        assert_eq!(code, 422, "{refused}");
        let text = refused.to_string();
        assert!(!text.contains("hunter2") && !text.contains(ENCODED), "{text}");
    }
    fixture.send("POST", SECRETS, secret(PLAIN)).await;
    let strict = format!("{ONE}?fieldValidation=Strict");
    let (code, refused) = fixture.send("PATCH", &strict, json!({ "none": "hunter2" })).await;
    assert_eq!(code, 422);
    let text = refused.to_string();
    assert!(text.contains("unknown field") && !text.contains(ENCODED), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn what_is_immutable_stays() {
    let fixture = Fixture::new().await;
    let mut frozen = secret(PLAIN);
    frozen["immutable"] = true.into();
    fixture.send("POST", SECRETS, frozen).await;
    for change in [
        json!({ "immutable": false }),
        json!({ "stringData": { "password": "x" } }),
        json!({ "type": "other" }),
    ] {
        let (code, refused) = fixture.send("PATCH", ONE, change).await;
        assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")), "{refused}");
    }
    let (code, _) =
        fixture.send("PATCH", ONE, json!({ "metadata": { "labels": { "a": "b" } } })).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn who_may_write_may_not_read() {
    let fixture = Fixture::new().await;
    let mut first = secret(PLAIN);
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    first["metadata"]["annotations"] = json!({ applied: PLAIN });
    let (code, made) = fixture.send_as(editor(), "POST", SECRETS, first.clone()).await;
    assert_eq!(code, 201, "{made}");
    assert!(!made.to_string().contains(ENCODED) && !made.to_string().contains("hunter2"), "{made}");
    let (code, again) = fixture.send_as(editor(), "PUT", ONE, first).await;
    assert_eq!((code, &again["metadata"]["name"]), (200, &json!("one")), "{again}");
    assert!(!again.to_string().contains(ENCODED) && !again.to_string().contains("hunter2"));
    let watch = format!("{SECRETS}?watch=true");
    for (method, path) in [
        ("GET", ONE),
        ("GET", SECRETS),
        ("GET", watch.as_str()),
        ("PATCH", ONE),
        ("DELETE", SECRETS),
    ] {
        let (code, refused) = fixture.send_as(editor(), method, path, Value::Null).await;
        assert_eq!((code, &refused["reason"]), (403, &json!("Forbidden")), "{method} {path}");
    }
    let viewer = Role::Viewer(Scope::Everywhere);
    assert_eq!(fixture.send_as(viewer, "GET", ONE, Value::Null).await.0, 403);
    let (_, read) = fixture.send_as(Role::Admin, "GET", ONE, Value::Null).await;
    assert_eq!(read["data"]["password"], ENCODED);
    // What holds it back shows no more than the rest.
    let held = json!({ "metadata": { "finalizers": ["a/b"] } });
    fixture.send("PATCH", ONE, held).await;
    let (code, marked) = fixture.send_as(editor(), "DELETE", ONE, Value::Null).await;
    assert_eq!((code, marked.to_string().contains(ENCODED)), (200, false), "{marked}");
}

#[tokio::test]
async fn no_file_tells_what_a_secret_holds() {
    let fixture = Fixture::new().await;
    for number in 0..20 {
        let mut secret = secret(PLAIN);
        secret["metadata"]["name"] = format!("s{number}").into();
        assert_eq!(fixture.send("POST", SECRETS, secret).await.0, 201);
    }
    fixture
        .send("PUT", &format!("{SECRETS}/s1"), {
            let mut secret = secret("another hunter2");
            secret["metadata"]["name"] = "s1".into();
            secret
        })
        .await;
    let look = |folder: &std::path::Path| {
        for file in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            for word in ["hunter2", &ENCODED[..8], "password"] {
                assert!(!bytes.windows(word.len()).any(|part| part == word.as_bytes()), "{word}");
            }
        }
    };
    look(fixture.folder.path());
    let fixture = fixture.reopen().await;
    let (_, list) = fixture.get(SECRETS).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 20);
    assert_eq!(list["items"][0]["data"]["password"], ENCODED);
    fixture.server.close().await;
    look(fixture.folder.path());
}

#[tokio::test]
async fn without_the_right_key_the_store_stays_closed() {
    let fixture = Fixture::new().await;
    fixture.send("POST", SECRETS, secret(PLAIN)).await;
    fixture.server.close().await;
    let (store, key) =
        (fixture.folder.path().join("resources.db"), fixture.folder.path().join("resources.key"));
    let right = std::fs::read_to_string(&key).unwrap();
    let why = async || open_with(&store, definitions()).await.err().unwrap().to_string();
    std::fs::remove_file(&key).unwrap();
    assert!(why().await.contains("it is missing"));
    std::fs::write(&key, "0".repeat(64)).unwrap();
    assert!(why().await.contains("it does not fit what it sealed"));
    std::fs::write(&key, right).unwrap();
    let opened = open_with(&store, definitions()).await.unwrap();
    opened.close().await;
}

#[tokio::test]
async fn who_may_not_read_learns_nothing_from_what_a_write_changes() {
    let fixture = Fixture::new().await;
    let fixed = |name: &str, plain: &str, immutable: bool| {
        let mut secret = secret(plain);
        secret["metadata"]["name"] = name.into();
        secret["immutable"] = immutable.into();
        secret
    };
    let put = async |guess: &Value| {
        let name = guess["metadata"]["name"].as_str().unwrap();
        fixture.send_as(editor(), "PUT", &format!("{SECRETS}/{name}"), guess.clone()).await
    };
    let version = |answer: &Value| answer["metadata"]["resourceVersion"].clone();
    let (_, made) = fixture.send("POST", SECRETS, fixed("two", PLAIN, false)).await;
    let (code, right) = put(&fixed("two", PLAIN, false)).await;
    assert_eq!(code, 200, "{right}");
    assert_ne!(version(&right), version(&made), "an unchanged Secret looks like a changed one");
    fixture.clock.advance(std::time::Duration::from_secs(60));
    let (_, wrong) = put(&fixed("two", "another", false)).await;
    assert_ne!(version(&wrong), version(&right));
    let besides = |answer: &Value| {
        let mut answer = answer.clone();
        answer["metadata"]["resourceVersion"].take();
        answer
    };
    assert_eq!(besides(&right), besides(&wrong));
    fixture.send("POST", SECRETS, fixed("three", PLAIN, true)).await;
    let guesses = [fixed("three", PLAIN, true), fixed("three", "another", true)];
    let [right, wrong] = [put(&guesses[0]).await, put(&guesses[1]).await];
    assert_eq!((right.0, &right), (422, &wrong));
}

#[tokio::test]
async fn a_secret_without_values_has_none_of_them() {
    let fixture = Fixture::new().await;
    let empty = json!({ "metadata": { "name": "empty" } });
    assert_eq!(fixture.send("POST", SECRETS, empty).await.0, 201);
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let request = http::Request::get(SECRETS).header("accept", table).body(String::new()).unwrap();
    let table = crate::fixture::read(fixture.raw(request).await).await;
    assert_eq!(table["rows"][0]["cells"], json!(["empty", "Opaque", 0, "0s"]));
}
