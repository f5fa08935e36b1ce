//! Nothing that a client sends brings the server down: every answer is an object, a `Status` or a
//! plain 404.

use http::{Method, Request};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::fixture::{Fixture, read};

fn any_path() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => prop::sample::select(vec![
            "api", "apis", "v1", "shop.example", "namespaces", "stage", "widgets", "gadgets", "one",
            "status", "openapi", "v2", "v3", "version", "healthz", "default", "",
        ]).prop_map(str::to_owned),
        1 => "[a-z0-9%.?#/ ~-]{0,12}",
        1 => "\\PC{0,6}".prop_map(|text| text.bytes().map(|byte| format!("%{byte:02X}")).collect()),
    ];
    let resource = prop::sample::select(vec![
        "/apis/shop.example/v1/namespaces/stage/widgets",
        "/apis/shop.example/v1/namespaces/stage/widgets/one",
        "/apis/shop.example/v1/namespaces/stage/widgets/one/status",
        "/apis/shop.example/v1/namespaces/stage/gadgets/one",
        "/apis/shop.example/v1/widgets",
        "/api/v1/namespaces",
        "/api/v1/namespaces/stage",
        "/api/v1/namespaces/stage/secrets",
        "/api/v1/namespaces/stage/secrets/one",
        "/api/v1/namespaces/stage/events/one",
    ]);
    prop_oneof![
        prop::collection::vec(word, 0..8).prop_map(|words| format!("/{}", words.join("/"))),
        resource.prop_map(str::to_owned),
    ]
}

fn any_query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "limit",
        "continue",
        "labelSelector",
        "fieldSelector",
        "resourceVersion",
        "dryRun",
        "resourceVersionMatch",
        "fieldValidation",
        "fieldManager",
        "force",
        "includeObject",
        "propagationPolicy",
        "other",
        "sendInitialEvents",
        "allowWatchBookmarks",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec!["1", "0", "All", "Strict", "Exact", "true", "a in (b,c)", "!x"])
            .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    let encode = |text: String| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let pair = (name, value.prop_map(encode)).prop_map(|(name, value)| format!("{name}={value}"));
    prop::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&"))
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["shop.example/v1", "v1", "Widget", "Namespace", "one", "7"])
            .prop_map(Value::from),
    ];
    let name = prop_oneof![
        8 => prop::sample::select(vec![
            "apiVersion", "kind", "metadata", "spec", "status", "name", "namespace", "labels",
            "size", "annotations", "finalizers", "ownerReferences", "uid", "resourceVersion",
            "conditions", "generation", "op", "path", "from", "value", "preconditions", "dryRun",
            "generateName", "managedFields", "manager", "operation", "fieldsType", "fieldsV1",
            "f:spec", "marks", "parts", ".", "data", "stringData", "involvedObject", "$patch",
            "$retainKeys", "$deleteFromPrimitiveList/finalizers", "$setElementOrder/finalizers",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

/// A widget, more or less.
fn any_widget() -> impl Strategy<Value = Value> {
    (any_json(), any_json(), any_json()).prop_map(|(metadata, spec, status)| {
        let mut widget = json!({
            "apiVersion": "shop.example/v1", "kind": "Widget", "metadata": { "name": "one" },
            "spec": { "size": 3 }, "status": status,
        });
        for (place, value) in [("metadata", metadata), ("spec", spec)] {
            match value {
                Value::Object(members) => members.into_iter().for_each(|(name, value)| {
                    widget[place][name] = value;
                }),
                other => widget[place] = other,
            }
        }
        widget
    })
}

fn any_patch() -> impl Strategy<Value = Value> {
    let op = prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test", "dig"]);
    let path = prop::collection::vec(
        prop::sample::select(vec![
            "spec", "metadata", "status", "tags", "0", "-", "labels", "a~1b",
        ]),
        0..4,
    )
    .prop_map(|words| words.iter().map(|word| format!("/{word}")).collect::<String>());
    let step = (op, path.clone(), path, any_json()).prop_map(
        |(op, path, from, value)| json!({ "op": op, "path": path, "from": from, "value": value }),
    );
    prop::collection::vec(step, 0..6).prop_map(Value::from)
}

/// Options of a deletion, more or less.
fn any_options() -> impl Strategy<Value = Value> {
    let names = vec!["preconditions", "dryRun", "propagationPolicy", "kind", "orphanDependents"];
    let value = prop_oneof![any_json(), Just(json!("DeleteOptions")), Just(json!(["All"]))];
    prop::collection::btree_map(prop::sample::select(names), value, 0..4)
        .prop_map(|options| json!(options))
}

fn any_body() -> impl Strategy<Value = String> {
    prop_oneof![
        any_widget().prop_map(|value| value.to_string()),
        any_json().prop_map(|value| value.to_string()),
        any_patch().prop_map(|value| value.to_string()),
        any_options().prop_map(|value| value.to_string()),
        "\\PC{0,60}",
        "[\\[\\]{}:,&*a \n\"-]{0,60}",
    ]
}

fn any_request() -> impl Strategy<Value = (Method, String, String, String, String)> {
    let method = prop::sample::select(vec![
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
    ]);
    let accept = prop::sample::select(vec![
        "application/json",
        "application/yaml",
        "*/*",
        "text/html",
        "",
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    ]);
    let content = prop::sample::select(vec![
        "application/json",
        "application/yaml",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/apply-patch+yaml",
        "application/strategic-merge-patch+json",
        "text/plain",
        "",
    ]);
    let target = (any_path(), any_query()).prop_map(|(path, query)| format!("{path}?{query}"));
    let headers = (accept, content);
    (method, target, headers, any_body()).prop_map(|(method, target, (accept, content), body)| {
        (method, target, accept.to_owned(), content.to_owned(), body)
    })
}

#[test]
fn every_request_gets_an_answer() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    runtime.block_on(fixture.create("stage", "one", 1));
    let mut runner = TestRunner::new(ProptestConfig { cases: 3000, ..ProptestConfig::default() });
    let outcome = runner.run(&any_request(), |(method, target, accept, content, body)| {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("accept", accept)
            .header("content-type", content)
            .body(body);
        // What is no URI does not reach a server.
        let Ok(request) = request else { return Ok(()) };
        let response = runtime.block_on(fixture.raw(request));
        let code = response.status().as_u16();
        let answer = runtime.block_on(read(response));
        // A version that nobody has made yet is waited for, and then 504, as in Kubernetes.
        let is_ahead = answer["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge";
        prop_assert!(code < 500 || code == 504 && is_ahead, "{code}: {answer}");
        if code >= 400 && answer != "404 page not found\n" {
            prop_assert_eq!(&answer["kind"], "Status");
            prop_assert_eq!(&answer["code"], code);
            prop_assert!(!answer["message"].as_str().unwrap_or_default().is_empty());
        }
        Ok(())
    });
    outcome.unwrap();
}

/// Applications and merge patches of whatever looks like a widget, on one that is there.
#[test]
fn every_application_gets_an_answer() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    runtime.block_on(fixture.create("stage", "one", 1));
    let one = "/apis/shop.example/v1/namespaces/stage/widgets/one";
    let mut runner = TestRunner::new(ProptestConfig { cases: 1000, ..ProptestConfig::default() });
    let names = prop::sample::select(vec!["ann", "ben", "kubectl"]);
    let outcome = runner.run(&(any_widget(), names, any::<bool>()), |(widget, name, force)| {
        let path = format!("{one}?fieldManager={name}");
        let (code, answer) =
            runtime.block_on(fixture.apply(&format!("{path}&force={force}"), &widget));
        prop_assert!(code < 500, "{code}: {answer}");
        let (code, answer) = runtime.block_on(fixture.send("PATCH", &path, widget));
        prop_assert!(code < 500, "{code}: {answer}");
        Ok(())
    });
    outcome.unwrap();
}

/// What is no object of options deletes nothing.
#[test]
fn no_deletion_is_guessed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    runtime.block_on(fixture.create("stage", "one", 1));
    let one = "/apis/shop.example/v1/namespaces/stage/widgets/one";
    let mut runner = TestRunner::new(ProptestConfig { cases: 1000, ..ProptestConfig::default() });
    let other = any_json()
        .prop_filter("an object is meant", |value| !value.is_object() && !value.is_null());
    let outcome = runner.run(&other, |other| {
        let inner = json!({ "preconditions": other });
        let named = json!({ "preconditions": { "uid": other } });
        for body in [other, inner, named] {
            let (code, answer) = runtime.block_on(fixture.send("DELETE", one, body));
            prop_assert!([400, 409].contains(&code), "{code}: {answer}");
        }
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(runtime.block_on(fixture.get(one)).0, 200);
}
