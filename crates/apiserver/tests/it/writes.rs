//! Create, replace and patch: what is accepted, what is refused and in which words, what stays.

use http::Request;
use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS, read, widget};

const STAGE: &str = "/apis/shop.example/v1/namespaces/stage/widgets";
const ONE: &str = "/apis/shop.example/v1/namespaces/stage/widgets/one";

fn text(status: &Value) -> &str {
    status["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_new_object_gets_what_the_server_gives() {
    let fixture = Fixture::new().await;
    let mut asked = widget("one", 3);
    asked["metadata"]["uid"] = "mine".into();
    asked["metadata"]["generation"] = 9.into();
    asked["metadata"]["creationTimestamp"] = Value::Null;
    asked["metadata"]["deletionTimestamp"] = "2001-01-01T00:00:00Z".into();
    asked["status"] = json!({ "made": 5 });
    let (code, created) = fixture.send("POST", STAGE, asked).await;
    assert_eq!(code, 201);
    let metadata = &created["metadata"];
    assert_eq!(metadata["namespace"], "stage");
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["creationTimestamp"], "2017-07-14T02:40:00Z");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert!(metadata.get("deletionTimestamp").is_none());
    assert!(created.get("status").is_none());
    assert_eq!(created["spec"], json!({ "size": 3, "color": "red", "timeout_ms": 1000 }));
    assert_eq!(fixture.get(ONE).await, (200, created));
    let (code, status) = fixture.send("POST", STAGE, widget("one", 4)).await;
    assert_eq!((code, text(&status)), (409, "widgets.shop.example \"one\" already exists"));
    assert_eq!(status["reason"], "AlreadyExists");
    let kind = json!({ "name": "one", "group": "shop.example", "kind": "widgets" });
    assert_eq!(status["details"], kind);
}

#[tokio::test]
async fn names_are_generated() {
    let fixture = Fixture::new().await;
    let mut asked = widget("", 3);
    asked["metadata"] = json!({ "generateName": "wheel-" });
    let (_, first) = fixture.send("POST", STAGE, asked.clone()).await;
    let (_, second) = fixture.send("POST", STAGE, asked).await;
    let (first, second) = (&first["metadata"]["name"], &second["metadata"]["name"]);
    assert_ne!(first, second);
    let name = first.as_str().unwrap();
    assert!(name.starts_with("wheel-") && name.len() == 11, "{name}");
    // A name that is given is never another, though it could be generated.
    let mut named = widget("", 3);
    named["metadata"] = json!({ "name": name, "generateName": "wheel-" });
    let (code, status) = fixture.send("POST", STAGE, named).await;
    assert_eq!((code, &status["reason"]), (409, &"AlreadyExists".into()));
    let mut nameless = widget("", 3);
    nameless["metadata"] = json!({});
    let (code, status) = fixture.send("POST", STAGE, nameless).await;
    assert_eq!(code, 422);
    assert!(text(&status).ends_with("Required value: name or generateName is required"));
}

#[tokio::test]
async fn what_the_server_sets_must_be_of_its_type_though_it_is_not_heard() {
    let mut placed = widget("", 3);
    placed["metadata"] = json!({ "name": 7, "namespace": false, "generateName": "w-" });
    let fixture = Fixture::new().await;
    let one = fixture.create("stage", "one", 1).await;
    for (field, wrong) in [
        ("resourceVersion", json!(1)),
        ("uid", json!(["a"])),
        ("creationTimestamp", json!(7)),
        ("deletionTimestamp", json!({})),
        ("generation", json!("1")),
    ] {
        let patch = json!({ "metadata": { field: wrong }, "spec": { "size": 2 } });
        let mut whole = one.clone();
        whole["metadata"][field] = wrong.clone();
        let mut new = widget("new", 3);
        new["metadata"][field] = wrong;
        let mut part = whole.clone();
        part["metadata"]["managedFields"].take();
        let applied = fixture.apply(&format!("{ONE}?fieldManager=a&force=true"), &part).await;
        let answers = [
            fixture.send("PATCH", ONE, patch).await,
            fixture.send("PUT", ONE, whole).await,
            fixture.send("POST", STAGE, new).await,
            applied,
        ];
        for (code, status) in answers {
            assert_eq!(code, 422, "{field}: {status}");
            let cause = &status["details"]["causes"][0];
            assert_eq!(cause["field"], format!("metadata.{field}"));
            assert_eq!(cause["reason"], "FieldValueTypeInvalid");
        }
    }
    assert_eq!(fixture.get(ONE).await.1, one);
    let (code, status) = fixture.send("POST", STAGE, placed).await;
    assert_eq!((code, status["details"]["causes"].as_array().unwrap().len()), (422, 2), "{status}");
}

#[tokio::test]
async fn unknown_namespaces_are_made_by_writes_and_never_by_reads() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.get(ONE).await.0, 404);
    assert_eq!(fixture.get(STAGE).await.0, 200);
    assert_eq!(fixture.get("/api/v1/namespaces/stage").await.0, 404);
    let refused = fixture.send("POST", STAGE, widget("one", 0)).await;
    assert_eq!((refused.0, fixture.get("/api/v1/namespaces/stage").await.0), (422, 404));
    fixture.create("stage", "one", 1).await;
    let (code, namespace) = fixture.get("/api/v1/namespaces/stage").await;
    assert_eq!(code, 200);
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "stage");
    let (_, all) = fixture.get("/api/v1/namespaces").await;
    assert_eq!(all["kind"], "NamespaceList");
    let names: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["default", "stage"]);
}

#[tokio::test]
async fn an_invalid_object_is_told_every_cause_at_once() {
    let fixture = Fixture::new().await;
    let bad = json!({
        "apiVersion": "shop.example/v1", "kind": "Widget",
        "metadata": { "name": "Bad_Name", "labels": { "a b": "c" } },
        "spec": { "color": "RED", "source": { "name": "" }, "source_id": "x", "tags": [1] },
    });
    let (code, status) = fixture.send("POST", STAGE, bad).await;
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    assert!(
        text(&status).starts_with("Widget.shop.example \"Bad_Name\" is invalid: [metadata.name")
    );
    assert_eq!(status["details"]["kind"], "Widget");
    let causes = status["details"]["causes"].as_array().unwrap();
    let fields: Vec<_> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
    let wanted = [
        "metadata.name",
        "metadata.labels",
        "spec.size",
        "spec.color",
        "spec.source.name",
        "spec.tags[0]",
        "spec",
    ];
    assert_eq!(fields, wanted);
    assert_eq!(
        causes[2],
        json!({
            "reason": "FieldValueRequired", "message": "Required value", "field": "spec.size",
        })
    );
    assert_eq!(
        causes[3]["message"],
        "Invalid value: \"RED\": spec.color in body should match '^[a-z]+$'"
    );
}

#[tokio::test]
async fn strict_validation_names_unknown_and_repeated_fields() {
    let fixture = Fixture::new().await;
    let body = r#"{"apiVersion":"shop.example/v1","kind":"Widget","metadata":{"name":"one"},
        "spec":{"size":1,"size":2,"wheels":4,"source":{"nam":"x"}},"spare":true}"#;
    let send = async |validation: &str| {
        let request = Request::post(format!("{STAGE}?fieldValidation={validation}&dryRun=All"));
        let response = fixture.raw(request.body(body.into()).unwrap()).await;
        let warnings: Vec<String> = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|warning| warning.to_str().unwrap().to_owned())
            .collect();
        (response.status().as_u16(), warnings, read(response).await)
    };
    let (code, _, status) = send("Strict").await;
    assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")));
    assert_eq!(
        text(&status),
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: \
         duplicate field \"spec.size\", unknown field \"spare\", \
         unknown field \"spec.source.nam\", unknown field \"spec.wheels\""
    );
    for lenient in ["Warn", ""] {
        let (code, warnings, created) = send(lenient).await;
        assert_eq!(code, 201);
        assert_eq!(warnings.len(), 4);
        assert_eq!(warnings[3], "299 - \"unknown field \\\"spec.wheels\\\"\"");
        assert_eq!(created["spec"], json!({ "size": 2, "source": {}, "timeout_ms": 1000 }));
    }
    let (code, warnings, _) = send("Ignore").await;
    assert_eq!((code, warnings.len()), (201, 0));
    assert_eq!(send("Perhaps").await.0, 422);
    let strict = format!("{ONE}?fieldValidation=Strict");
    fixture.create("stage", "one", 1).await;
    let patch = json!({ "spec": { "wheels": 1 } });
    let (code, status) = fixture.send("PATCH", &strict, patch).await;
    assert_eq!(code, 422);
    assert!(text(&status).contains("strict decoding error: unknown field \"spec.wheels\""));
}

#[tokio::test]
async fn what_is_not_the_object_of_the_path_is_refused() {
    let fixture = Fixture::new().await;
    let refused = async |change: fn(&mut Value)| {
        let mut asked = widget("one", 3);
        change(&mut asked);
        let (code, status) = fixture.send("POST", STAGE, asked).await;
        assert_eq!(code, 400);
        text(&status).to_owned()
    };
    assert_eq!(
        refused(|widget| widget["apiVersion"] = "shop.example/v2".into()).await,
        "the API version in the data (shop.example/v2) does not match the expected API version \
         (shop.example/v1)"
    );
    assert!(refused(|widget| widget["kind"] = "Gadget".into()).await.starts_with("Gadget in"));
    assert!(refused(|widget| widget["kind"] = Value::Null).await.contains("'Kind' is missing"));
    assert!(refused(|widget| *widget = json!([])).await.contains("must be a JSON object"));
    assert_eq!(
        refused(|widget| widget["metadata"]["namespace"] = "other".into()).await,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    assert_eq!(
        refused(|widget| widget["metadata"]["resourceVersion"] = "7".into()).await,
        "resourceVersion should not be set on objects to be created"
    );
    fixture.create("stage", "one", 1).await;
    let (code, status) = fixture.send("PUT", ONE, widget("two", 3)).await;
    assert_eq!(code, 400);
    assert_eq!(
        text(&status),
        "the name of the object (two) does not match the name on the URL (one)"
    );
}

#[tokio::test]
async fn replace_counts_wishes_and_refuses_old_versions() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "one", 1).await;
    let (code, status) = fixture.send("PUT", ONE, widget("one", 2)).await;
    assert_eq!(code, 422);
    assert!(text(&status).ends_with(
        "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
    ));
    let mut wanted = created.clone();
    wanted["spec"]["size"] = 2.into();
    wanted["metadata"]["labels"] = json!({ "a": "b" });
    wanted["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    wanted["status"] = json!({ "made": 1 });
    let (code, replaced) = fixture.send("PUT", ONE, wanted.clone()).await;
    assert_eq!(code, 200);
    assert_eq!(replaced["metadata"]["generation"], 2);
    assert_eq!(replaced["metadata"]["labels"], json!({ "a": "b" }));
    for field in ["uid", "creationTimestamp"] {
        assert_eq!(replaced["metadata"][field], created["metadata"][field]);
    }
    assert!(replaced.get("status").is_none());
    let (code, status) = fixture.send("PUT", ONE, wanted).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        text(&status),
        "Operation cannot be fulfilled on widgets.shop.example \"one\": the object has been \
         modified; please apply your changes to the latest version and try again"
    );
    let mut other = replaced.clone();
    other["metadata"]["uid"] = "another".into();
    let (code, status) = fixture.send("PUT", ONE, other).await;
    assert_eq!(code, 409);
    assert!(text(&status).contains("UID in precondition: another"));
    let (code, _) = fixture.send("PUT", &format!("{STAGE}/none"), json!({
        "apiVersion": "shop.example/v1", "kind": "Widget", "metadata": { "resourceVersion": "1" },
        "spec": { "size": 1 },
    })).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_write_that_changes_nothing_changes_nothing() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "one", 1).await;
    let same = [
        fixture.send("PUT", ONE, created.clone()).await,
        fixture.send("PATCH", ONE, json!({})).await,
        fixture.send("PATCH", ONE, json!({ "spec": { "size": 1, "timeout_ms": null } })).await,
        fixture
            .send("PATCH", ONE, json!([{ "op": "test", "path": "/spec/size", "value": 1 }]))
            .await,
        fixture.send("PATCH", &format!("{ONE}/status"), json!({ "spec": { "size": 9 } })).await,
    ];
    for (code, answer) in same {
        assert_eq!((code, answer), (200, created.clone()));
    }
    let (_, list) = fixture.get(STAGE).await;
    assert_eq!(list["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn status_and_the_rest_are_written_apart() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "one", 1).await;
    let status = format!("{ONE}/status");
    let patch = json!({ "spec": { "size": 9 }, "status": { "made": 1 },
        "metadata": { "labels": { "not": "kept" } } });
    let (code, patched) = fixture.send("PATCH", &status, patch).await;
    assert_eq!((code, &patched["status"]), (200, &json!({ "made": 1 })));
    assert_eq!(patched["spec"], created["spec"]);
    assert_eq!(patched["metadata"]["generation"], 1);
    assert!(patched["metadata"].get("labels").is_none());
    let (_, patched) = fixture.send("PATCH", ONE, json!({ "status": { "made": 2 } })).await;
    assert_eq!(patched["status"], json!({ "made": 1 }));
    let mut wanted = patched.clone();
    wanted["status"] = json!({ "made": -1, "conditions": [{ "type": "ready" }] });
    let (code, refused) = fixture.send("PUT", &status, wanted.clone()).await;
    assert_eq!((code, refused["details"]["causes"].as_array().unwrap().len()), (422, 2));
    wanted["status"] = json!({ "made": 3 });
    let (code, replaced) = fixture.send("PUT", &status, wanted).await;
    assert_eq!((code, &replaced["status"]), (200, &json!({ "made": 3 })));
    assert_eq!(fixture.get(&status).await, (200, replaced));
    // Gadgets have no status of their own road: it is a field as others are.
    let gadget = json!({ "apiVersion": "shop.example/v1", "kind": "Gadget",
        "metadata": { "name": "g" }, "status": { "any": "thing" } });
    let gadgets = format!("{WIDGETS}/namespaces/stage/gadgets");
    let (_, created) = fixture.send("POST", &gadgets, gadget).await;
    assert_eq!(created["status"], json!({ "any": "thing" }));
    assert_eq!(fixture.get(&format!("{gadgets}/g/status")).await.0, 404);
}

#[tokio::test]
async fn patches_keep_names_and_tell_conflicts() {
    let fixture = Fixture::new().await;
    let created = fixture.create("stage", "one", 1).await;
    let rename = json!({ "metadata": { "name": "two" } });
    let (code, status) = fixture.send("PATCH", ONE, rename).await;
    assert_eq!(code, 422);
    assert!(text(&status).contains("metadata.name: Invalid value: \"two\": field is immutable"));
    let size = |size: u64| json!([{ "op": "replace", "path": "/spec/size", "value": size }]);
    let (code, patched) = fixture.send("PATCH", ONE, size(5)).await;
    assert_eq!((code, &patched["spec"]["size"]), (200, &json!(5)));
    assert_eq!(patched["metadata"]["generation"], 2);
    let old = json!({ "metadata": { "resourceVersion": created["metadata"]["resourceVersion"] },
        "spec": { "size": 6 } });
    assert_eq!(fixture.send("PATCH", ONE, old).await.0, 409);
    let unversioned = json!({ "metadata": { "resourceVersion": null }, "spec": { "size": 7 } });
    assert_eq!(fixture.send("PATCH", ONE, unversioned).await.0, 200);
    let missing = json!([{ "op": "remove", "path": "/spec/none" }]);
    assert_eq!(fixture.send("PATCH", ONE, missing).await.0, 422);
    assert_eq!(fixture.send("PATCH", ONE, size(0)).await.0, 422);
    assert_eq!(fixture.send("PATCH", &format!("{STAGE}/none"), size(1)).await.0, 404);
    let strategic = Request::patch(ONE)
        .header("content-type", "application/strategic-merge-patch+json")
        .body("{}".into())
        .unwrap();
    let response = fixture.raw(strategic).await;
    assert_eq!(response.status(), 415);
    assert!(text(&read(response).await).contains("application/merge-patch+json"));
}

#[tokio::test]
async fn what_is_built_in_takes_strategic_patches() {
    let fixture = Fixture::new().await;
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "shop", "labels": { "a": "1" }, "finalizers": ["x/a", "x/b"] } });
    assert_eq!(fixture.send("POST", "/api/v1/namespaces", space).await.0, 201);
    let patch = json!({ "metadata": { "labels": { "a": null, "b": "2" }, "finalizers": ["x/c"],
        "$deleteFromPrimitiveList/finalizers": ["x/a"],
        "$setElementOrder/finalizers": ["x/c", "x/b"] } });
    let request = Request::patch("/api/v1/namespaces/shop?fieldManager=ann&fieldValidation=Strict")
        .header("content-type", "application/strategic-merge-patch+json")
        .body(patch.to_string());
    let response = fixture.raw(request.unwrap()).await;
    assert_eq!(response.status(), 200);
    let patched = read(response).await;
    assert_eq!(patched["metadata"]["finalizers"], json!(["x/c", "x/b"]));
    let labels = json!({ "b": "2", "kubernetes.io/metadata.name": "shop" });
    assert_eq!(patched["metadata"]["labels"], labels);
}

#[tokio::test]
async fn a_dry_run_answers_and_keeps_nothing() {
    let fixture = Fixture::new().await;
    let (code, created) =
        fixture.send("POST", &format!("{STAGE}?dryRun=All"), widget("one", 1)).await;
    assert_eq!(code, 201);
    assert_eq!(created["spec"]["timeout_ms"], 1000);
    assert_eq!(fixture.get(ONE).await.0, 404);
    assert_eq!(fixture.get("/api/v1/namespaces/stage").await.0, 404);
    let created = fixture.create("stage", "one", 1).await;
    let patch = json!({ "spec": { "size": 2 } });
    let (_, patched) = fixture.send("PATCH", &format!("{ONE}?dryRun=All"), patch).await;
    assert_eq!(
        (&patched["spec"]["size"], &patched["metadata"]["generation"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(fixture.send("DELETE", &format!("{ONE}?dryRun=All"), Value::Null).await.0, 200);
    let options = json!({ "dryRun": ["All"] });
    assert_eq!(fixture.send("DELETE", ONE, options).await.0, 200);
    assert_eq!(fixture.get(ONE).await, (200, created));
    assert_eq!(fixture.send("POST", &format!("{STAGE}?dryRun=Some"), widget("x", 1)).await.0, 422);
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let fixture = Fixture::new().await;
    let body =
        "apiVersion: shop.example/v1\nkind: Widget\nmetadata:\n  name: one\nspec:\n  size: 3\n";
    let request = Request::post(STAGE)
        .header("content-type", "application/yaml")
        .header("accept", "application/yaml")
        .body(body.into())
        .unwrap();
    let response = fixture.raw(request).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["content-type"], "application/yaml");
    let Value::String(yaml) = read(response).await else { panic!("not a text") };
    assert!(yaml.contains("\nspec:\n  size: 3\n  timeout_ms: 1000\n"), "{yaml}");
    let request = Request::post(STAGE).header("content-type", "text/csv").body("a,b".into());
    assert_eq!(fixture.raw(request.unwrap()).await.status(), 415);
}

#[tokio::test]
async fn bodies_have_limits() {
    let fixture = Fixture::new().await;
    let post = async |body: String| {
        let response = fixture.raw(Request::post(STAGE).body(body).unwrap()).await;
        (response.status().as_u16(), read(response).await)
    };
    let (code, status) = post(" ".repeat(3 * 1024 * 1024 + 1)).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    let (code, status) = post("[".repeat(200_000)).await;
    assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")));
    for bad in ["", "{", "nonsense"] {
        assert_eq!(post(bad.into()).await.0, 400);
    }
}

#[tokio::test]
async fn objects_have_limits_by_whatever_way_they_grow() {
    let fixture = Fixture::new().await;
    let path = format!("{WIDGETS}/namespaces/stage/widgets");
    let large = |name: &str, bytes: usize| {
        let mut large = widget(name, 1);
        large["spec"]["source_id"] = "x".repeat(bytes).into();
        large
    };
    let refused = |(code, answer): (u16, Value)| {
        assert_eq!((code, &answer["reason"]), (413, &json!("RequestEntityTooLarge")), "{answer}");
        assert_eq!(text(&answer), "Request entity too large: limit is 1572864");
    };
    refused(fixture.send("POST", &path, large("a", 1_600_000)).await);
    refused(fixture.send("POST", &format!("{path}?dryRun=All"), large("a", 1_600_000)).await);
    let (code, made) = fixture.send("POST", &path, large("a", 1_572_000)).await;
    assert_eq!(code, 201, "{}", text(&made));
    let one = format!("{path}/a");
    let note = json!({ "metadata": { "annotations": { "a": "x".repeat(2000) } } });
    refused(fixture.send("PATCH", &one, note.clone()).await);
    refused(fixture.send("PATCH", &format!("{one}?dryRun=All"), note).await);
    let mut replaced = large("a", 1_573_000);
    replaced["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    refused(fixture.send("PUT", &one, replaced).await);
    // Those who own its fields are part of it, however many they are.
    let mut owners = 0;
    let full = loop {
        let mine = json!({
            "apiVersion": "shop.example/v1", "kind": "Widget", "metadata": { "name": "a",
            "labels": { format!("l{owners}"): "x" } },
        });
        let answer = fixture.apply(&format!("{one}?fieldManager=m{owners}"), &mine).await;
        owners += 1;
        if answer.0 != 200 {
            break answer;
        }
        assert!(owners < 100, "any number of owners");
    };
    refused(full);
    // It can still be deleted, and in the foreground too.
    let hold = json!({ "propagationPolicy": "Foreground" });
    assert_eq!(fixture.send("DELETE", &one, hold).await.0, 200);
}
