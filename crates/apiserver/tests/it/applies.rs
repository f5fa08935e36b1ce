//! Field ownership and server-side apply: whose fields are, what is refused and in which words.

use http::Request;
use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS, read, widget};

const STAGE: &str = "/apis/shop.example/v1/namespaces/stage/widgets";
const ONE: &str = "/apis/shop.example/v1/namespaces/stage/widgets/one";
const STATUS: &str = "/apis/shop.example/v1/namespaces/stage/widgets/one/status";

fn text(status: &Value) -> &str {
    status["message"].as_str().unwrap_or_default()
}

/// The path with who applies.
fn by(path: &str, who: &str) -> String {
    format!("{path}?fieldManager={who}")
}

/// The entry of an object for this name and operation; null if there is none.
fn entry(object: &Value, name: &str, operation: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array();
    let found = entries.into_iter().flatten().find(|entry| {
        (entry["manager"].as_str(), entry["operation"].as_str()) == (Some(name), Some(operation))
    });
    found.cloned().unwrap_or_default()
}

fn version(object: &Value) -> &Value {
    &object["metadata"]["resourceVersion"]
}

#[tokio::test]
async fn every_write_records_what_it_changed() {
    let fixture = Fixture::new().await;
    let post = Request::post(STAGE)
        .header("user-agent", "curl/8.1 (a machine)")
        .body(widget("one", 3).to_string());
    let created = read(fixture.raw(post.unwrap()).await).await;
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{
            "manager": "curl", "operation": "Update", "apiVersion": "shop.example/v1",
            "time": "2017-07-14T02:40:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": { "f:spec": {
                ".": {}, "f:color": {}, "f:size": {}, "f:timeout_ms": {} } },
        }])
    );
    fixture.clock.advance(std::time::Duration::from_secs(60));
    let patch = json!({ "spec": { "size": 4 }, "metadata": { "labels": { "a": "b" } } });
    fixture.send("PATCH", &by(ONE, "ann"), patch.clone()).await;
    let status = json!({ "status": { "made": 1 }, "spec": { "size": 9 } });
    let (_, written) = fixture.send("PATCH", &by(STATUS, "ben"), status).await;
    let fields = |name: &str| entry(&written, name, "Update")["fieldsV1"].clone();
    assert_eq!(fields("curl"), json!({ "f:spec": { ".": {}, "f:color": {}, "f:timeout_ms": {} } }));
    assert_eq!(
        fields("ann"),
        json!({ "f:metadata": { "f:labels": { ".": {}, "f:a": {} } }, "f:spec": { "f:size": {} } })
    );
    assert_eq!(fields("ben"), json!({ "f:status": { ".": {}, "f:made": {} } }));
    assert_eq!(entry(&written, "ben", "Update")["subresource"], "status");
    assert_eq!(entry(&written, "ann", "Update")["time"], "2017-07-14T02:41:00Z");
    // Who writes what is there already takes nothing, and no time goes by.
    fixture.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(fixture.send("PATCH", &by(ONE, "cat"), patch).await.1, written);
    assert_eq!(fixture.send("PUT", &by(ONE, "cat"), written.clone()).await.1, written);
}

#[tokio::test]
async fn apply_makes_an_object_and_then_does_nothing() {
    let fixture = Fixture::new().await;
    let (code, made) = fixture.apply(&by(ONE, "ann"), &widget("one", 3)).await;
    assert_eq!((code, &made["metadata"]["generation"]), (201, &json!(1)));
    assert_eq!(made["spec"]["timeout_ms"], 1000);
    assert_eq!(
        entry(&made, "ann", "Apply")["fieldsV1"],
        json!({ "f:spec": { "f:color": {}, "f:size": {} } })
    );
    fixture.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(fixture.apply(&by(ONE, "ann"), &widget("one", 3)).await, (200, made.clone()));
    // A second owner of the same values is a change, but no other wish.
    let (_, shared) = fixture.apply(&by(ONE, "ben"), &widget("one", 3)).await;
    assert_ne!(version(&shared), version(&made));
    assert_eq!(shared["metadata"]["generation"], 1);
    // What both own stays until both have given it up.
    let mut less = widget("one", 3);
    less["spec"] = json!({ "size": 3 });
    let (_, kept) = fixture.apply(&by(ONE, "ann"), &less).await;
    assert_eq!(kept["spec"]["color"], "red");
    let (_, gone) = fixture.apply(&by(ONE, "ben"), &less).await;
    assert_eq!(gone["spec"], json!({ "size": 3, "timeout_ms": 1000 }));
}

#[tokio::test]
async fn apply_reads_yaml_and_names_the_object_by_its_path() {
    let fixture = Fixture::new().await;
    let yaml = "apiVersion: shop.example/v1\nkind: Widget\nspec: {size: 3}\n";
    let request = Request::patch(by(ONE, "ann"))
        .header("content-type", "application/apply-patch+yaml")
        .body(yaml.to_owned());
    let response = fixture.raw(request.unwrap()).await;
    assert_eq!(response.status(), 201);
    let made = read(response).await;
    assert_eq!(made["metadata"]["name"], "one");
    assert_eq!(made["spec"]["size"], 3);
    let (code, status) = fixture.apply(&by(ONE, "ann"), &widget("two", 3)).await;
    assert_eq!((code, text(&status).contains("does not match the name on the URL")), (400, true));
}

#[tokio::test]
async fn what_belongs_to_others_is_a_conflict() {
    let fixture = Fixture::new().await;
    fixture.apply(&by(ONE, "ann"), &widget("one", 3)).await;
    let edit = json!({ "spec": { "size": 5 } });
    let (_, edited) = fixture.send("PATCH", &by(ONE, "kubectl-edit"), edit).await;
    let (code, status) = fixture.apply(&by(ONE, "ann"), &widget("one", 3)).await;
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        text(&status),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using shop.example/v1: \
         .spec.size"
    );
    assert_eq!(
        status["details"],
        json!({ "causes": [{
            "reason": "FieldManagerConflict", "field": ".spec.size",
            "message": "conflict with \"kubectl-edit\" using shop.example/v1",
        }] })
    );
    assert_eq!(fixture.get(ONE).await.1, edited);
    let mut other = widget("one", 7);
    other["spec"]["color"] = "blue".into();
    let (code, status) = fixture.apply(&by(ONE, "ben"), &other).await;
    assert_eq!(code, 409);
    assert_eq!(
        text(&status),
        "Apply failed with 2 conflicts: conflicts with \"ann\":\n- .spec.color\n\
         conflicts with \"kubectl-edit\" using shop.example/v1:\n- .spec.size"
    );
    let forced = format!("{}&force=true", by(ONE, "ben"));
    let (code, taken) = fixture.apply(&forced, &other).await;
    assert_eq!((code, &taken["spec"]["size"]), (200, &json!(7)));
    for (name, operation) in [("ann", "Apply"), ("kubectl-edit", "Update")] {
        assert!(entry(&taken, name, operation).is_null(), "{taken}");
    }
}

#[tokio::test]
async fn requests_that_are_no_application_are_refused() {
    let fixture = Fixture::new().await;
    let refused = async |path: &str, body: Value| {
        let (code, status) = fixture.apply(path, &body).await;
        (code, text(&status).to_owned())
    };
    assert_eq!(
        refused(ONE, widget("one", 3)).await,
        (
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required \
             for apply patch"
                .into()
        )
    );
    for bad in ["a%07b", &"x".repeat(129)] {
        assert_eq!(refused(&by(ONE, bad), widget("one", 3)).await.0, 422);
    }
    let mut owned = widget("one", 3);
    owned["metadata"]["managedFields"] = json!([]);
    let path = by(ONE, "ann");
    let nil = "metadata.managedFields must be nil";
    assert_eq!(refused(&path, owned.clone()).await, (400, nil.into()));
    owned["metadata"]["managedFields"] = Value::Null;
    assert_eq!(refused(&path, owned).await.0, 201);
    let mut unknown = widget("one", 3);
    unknown["spec"]["wheels"] = 4.into();
    assert_eq!(
        refused(&path, unknown).await,
        (
            400,
            "failed to create typed patch object (stage/one; shop.example/v1, Kind=Widget): \
             .spec.wheels: field not declared in schema"
                .into()
        )
    );
    let mut wrong = widget("one", 3);
    wrong["spec"]["size"] = "big".into();
    assert_eq!(refused(&path, wrong).await.0, 422);
    for nonsense in [json!(null), json!([]), json!("x"), json!({ "kind": "Gadget" })] {
        assert_eq!(refused(&path, nonsense).await.0, 400);
    }
    let forced = format!("{path}&force=true");
    let (code, status) = fixture.send("PATCH", &forced, json!({})).await;
    assert_eq!((code, text(&status).contains("may not be specified for non-apply")), (422, true));
}

#[tokio::test]
async fn lists_that_tell_their_items_apart_have_no_item_twice() {
    let fixture = Fixture::new().await;
    let mut twice = widget("one", 3);
    twice["spec"]["marks"] = json!(["a", "b", "a"]);
    twice["spec"]["parts"] = json!([{ "name": "p" }, { "name": "p", "text": "t" }]);
    for (code, status) in [
        fixture.apply(&by(ONE, "ann"), &twice).await,
        fixture.send("POST", STAGE, twice.clone()).await,
    ] {
        let causes = status["details"]["causes"].as_array().unwrap();
        let found: Vec<_> =
            causes.iter().map(|cause| (&cause["reason"], &cause["field"])).collect();
        let reason = json!("FieldValueDuplicate");
        let fields = (json!("spec.marks[2]"), json!("spec.parts[1]"));
        assert_eq!((code, found), (422, vec![(&reason, &fields.0), (&reason, &fields.1)]));
    }
}

#[tokio::test]
async fn an_application_may_name_the_state_it_supposes() {
    let fixture = Fixture::new().await;
    let with = |field: &str, value: &Value| {
        let mut asked = widget("one", 4);
        asked["metadata"][field] = value.clone();
        asked
    };
    let path = by(ONE, "ann");
    let (code, status) = fixture.apply(&path, &with("uid", &json!("some"))).await;
    assert_eq!(code, 409);
    assert!(text(&status).ends_with(
        "uid mismatch: the provided object specified uid some, and no existing object was found"
    ));
    assert_eq!(fixture.apply(&path, &with("resourceVersion", &json!("7"))).await.0, 409);
    let (_, made) = fixture.apply(&path, &widget("one", 3)).await;
    assert_eq!(fixture.apply(&path, &with("uid", &json!("some"))).await.0, 409);
    assert_eq!(fixture.apply(&path, &with("resourceVersion", &json!("1"))).await.0, 409);
    let uid = with("uid", &made["metadata"]["uid"]);
    assert_eq!(fixture.apply(&format!("{path}&dryRun=All"), &uid).await.1["spec"]["size"], 4);
    assert_eq!(fixture.get(ONE).await.1, made);
    assert_eq!(fixture.apply(&path, &with("resourceVersion", version(&made))).await.0, 200);
    let two = format!("{STAGE}/two?fieldManager=ann&dryRun=All");
    assert_eq!(fixture.apply(&two, &widget("two", 1)).await.0, 201);
    assert_eq!(fixture.get(&format!("{STAGE}/two")).await.0, 404);
}

#[tokio::test]
async fn a_status_is_applied_apart() {
    let fixture = Fixture::new().await;
    let made = |made: u64| {
        let mut asked = widget("one", 9);
        asked["status"] = json!({ "made": made });
        asked
    };
    assert_eq!(fixture.apply(&by(STATUS, "ann"), &made(1)).await.0, 404);
    // The object's own road takes no status, and nobody owns what it did not take.
    let (_, created) = fixture.apply(&by(ONE, "ann"), &made(1)).await;
    assert!(created.get("status").is_none());
    assert!(entry(&created, "ann", "Apply")["fieldsV1"].get("f:status").is_none());
    let (code, applied) = fixture.apply(&by(STATUS, "ben"), &made(2)).await;
    assert_eq!((code, &applied["status"]), (200, &json!({ "made": 2 })));
    assert_eq!(applied["metadata"]["generation"], 1);
    assert_eq!(
        entry(&applied, "ben", "Apply")["fieldsV1"],
        json!({ "f:status": { "f:made": {} } })
    );
    fixture.send("PATCH", &by(STATUS, "cat"), json!({ "status": { "made": 3 } })).await;
    let (code, status) = fixture.apply(&by(STATUS, "ben"), &made(4)).await;
    assert_eq!(code, 409);
    assert_eq!(
        text(&status),
        "Apply failed with 1 conflict: conflict with \"cat\" with subresource \"status\" using \
         shop.example/v1: .status.made"
    );
    let mut stale = made(5);
    stale["metadata"]["resourceVersion"] = "1".into();
    let forced = format!("{}&force=true", by(STATUS, "ben"));
    assert_eq!(fixture.apply(&forced, &stale).await.0, 409);
    assert_eq!(fixture.apply(&forced, &made(5)).await.1["status"], json!({ "made": 5 }));
}

#[tokio::test]
async fn each_condition_is_its_own_writers() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "one", 3).await;
    let said = |conditions: &[(&str, &str)]| {
        let condition = |(kind, status): &(&str, &str)| json!({ "type": kind, "status": status });
        let conditions: Vec<Value> = conditions.iter().map(condition).collect();
        json!({ "apiVersion": "shop.example/v1", "kind": "Widget",
            "status": { "conditions": conditions } })
    };
    let status = by(STATUS, "bus");
    assert_eq!(fixture.send("PATCH", &status, said(&[("ready", "True")])).await.0, 200);
    let (code, both) = fixture.apply(&by(STATUS, "ann"), &said(&[("seen", "False")])).await;
    assert_eq!(
        (code, &both["status"]),
        (200, &said(&[("ready", "True"), ("seen", "False")])["status"])
    );
    let owned = json!({ "f:status": { "f:conditions": { "k:{\"type\":\"seen\"}": {
        ".": {}, "f:status": {}, "f:type": {} } } } });
    assert_eq!(entry(&both, "ann", "Apply")["fieldsV1"], owned);
    // Whoever writes the whole list changes what it changes, and takes no more.
    let (_, later) =
        fixture.send("PATCH", &status, said(&[("ready", "False"), ("seen", "False")])).await;
    assert_eq!(entry(&later, "ann", "Apply")["fieldsV1"], owned);
    let (code, refused) = fixture.apply(&by(STATUS, "ann"), &said(&[("ready", "True")])).await;
    assert_eq!(code, 409);
    assert_eq!(
        refused["details"]["causes"][0]["field"],
        ".status.conditions[type=\"ready\"].status"
    );
    // Who no longer names a condition takes it away, and no other.
    let (_, gone) = fixture.apply(&by(STATUS, "ann"), &said(&[])).await;
    assert_eq!(gone["status"], said(&[("ready", "False")])["status"]);
    let twice = said(&[("ready", "True"), ("ready", "False")]);
    assert_eq!(fixture.send("PATCH", &status, twice).await.0, 422);
}

#[tokio::test]
async fn ownership_is_reset_by_one_empty_entry_only() {
    let fixture = Fixture::new().await;
    let (_, made) = fixture.apply(&by(ONE, "ann"), &widget("one", 3)).await;
    let set = |entries: Value| json!({ "metadata": { "managedFields": entries } });
    let unreadable = [
        json!([]),
        Value::Null,
        json!([{}, {}]),
        json!([{ "manager": "x", "operation": "Steal", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {} }]),
        json!([{ "manager": "x", "operation": "Apply", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": { "nonsense": 1 } }]),
        json!("text"),
    ];
    for entries in unreadable {
        let path = by(ONE, "cat");
        let answer = fixture.send("PATCH", &path, set(entries.clone())).await;
        assert_eq!(answer, (200, made.clone()), "{entries}");
    }
    // Entries that can be read are taken over: so kubectl moves fields from one name to another.
    let mut moved = made["metadata"]["managedFields"].clone();
    moved[0]["manager"] = "dan".into();
    let operations = json!([
        { "op": "replace", "path": "/metadata/managedFields", "value": moved },
        { "op": "replace", "path": "/metadata/resourceVersion", "value": version(&made) },
    ]);
    let (_, after) = fixture.send("PATCH", ONE, operations).await;
    assert_eq!(after["metadata"]["managedFields"], moved);
    let status = json!({ "metadata": { "managedFields": [{}] }, "status": { "made": 1 } });
    let (_, after) = fixture.send("PATCH", &by(STATUS, "cat"), status).await;
    assert_eq!(after["metadata"]["managedFields"].as_array().unwrap().len(), 2);
    let (_, after) = fixture.send("PATCH", ONE, set(json!([{}]))).await;
    assert!(after["metadata"].get("managedFields").is_none());
    let (_, after) = fixture.send("PATCH", ONE, json!({ "spec": { "size": 4 } })).await;
    assert!(after["metadata"].get("managedFields").is_none());
    let (code, status) = fixture.apply(&by(ONE, "ann"), &widget("one", 3)).await;
    assert_eq!((code, text(&status).contains("\"before-first-apply\" using")), (409, true));
    let (_, after) = fixture.apply(&by(ONE, "ann"), &widget("one", 4)).await;
    let before = entry(&after, "before-first-apply", "Update")["fieldsV1"].clone();
    assert_eq!(before["f:spec"]["f:timeout_ms"], json!({}));
    assert!(before.get("f:status").is_none());
}

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_from_its_own_side() {
    let fixture = Fixture::new().await;
    let note = "kubectl.kubernetes.io/last-applied-configuration";
    let mut asked = widget("one", 3);
    asked["metadata"]["annotations"] = json!({ note: widget("one", 3).to_string() });
    fixture.send("POST", &by(STAGE, "kubectl-client-side-apply"), asked).await;
    fixture.send("PATCH", &by(ONE, "ann"), json!({ "spec": { "color": "blue" } })).await;
    let mut wanted = widget("one", 5);
    wanted["spec"]["color"] = "green".into();
    // The size is as the note says; the color no longer is.
    let (code, status) = fixture.apply(&by(ONE, "kubectl"), &wanted).await;
    assert_eq!(code, 409);
    assert_eq!(
        text(&status),
        "Apply failed with 1 conflict: conflict with \"ann\" using shop.example/v1: .spec.color"
    );
    wanted["spec"]["color"] = "blue".into();
    assert_eq!(fixture.apply(&by(ONE, "ben"), &wanted).await.0, 409);
    let (code, taken) = fixture.apply(&by(ONE, "kubectl"), &wanted).await;
    assert_eq!((code, &taken["spec"]["size"]), (200, &json!(5)));
    let noted = taken["metadata"]["annotations"][note].as_str().unwrap();
    let noted: Value = serde_json::from_str(noted).unwrap();
    assert_eq!(noted["spec"], wanted["spec"]);
}

#[tokio::test]
async fn clients_that_wrote_long_ago_are_put_together() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "one", 1).await;
    for step in 0..20u64 {
        fixture.clock.advance(std::time::Duration::from_secs(1));
        let label = json!({ "metadata": { "labels": { format!("l{step}"): "x" } } });
        fixture.send("PATCH", &by(ONE, &format!("client-{step}")), label).await;
    }
    let (_, object) = fixture.get(ONE).await;
    assert_eq!(object["metadata"]["managedFields"].as_array().unwrap().len(), 11);
    let ancient = entry(&object, "ancient-changes", "Update");
    assert_eq!(ancient["fieldsV1"]["f:metadata"]["f:labels"]["f:l9"], json!({}));
    assert_eq!(ancient["fieldsV1"]["f:spec"]["f:size"], json!({}));
    assert!(entry(&object, "client-9", "Update").is_null());
    assert!(!entry(&object, "client-10", "Update").is_null());
}

#[tokio::test]
async fn finalizers_and_owners_are_kept_apart() {
    let fixture = Fixture::new().await;
    let (_, owner) = fixture.apply(&by(ONE, "ann"), &widget("one", 3)).await;
    let child = format!("{STAGE}/child");
    let mut asked = widget("child", 3);
    asked["metadata"]["finalizers"] = json!(["a.example/x"]);
    fixture.apply(&by(&child, "ann"), &asked).await;
    asked["metadata"] = json!({ "finalizers": ["b.example/y"], "ownerReferences": [{
        "apiVersion": "shop.example/v1", "kind": "Widget", "name": "one",
        "uid": owner["metadata"]["uid"] }] });
    let (_, both) = fixture.apply(&by(&child, "ben"), &asked).await;
    assert_eq!(both["metadata"]["finalizers"], json!(["a.example/x", "b.example/y"]));
    let (_, left) = fixture.apply(&by(&child, "ben"), &widget("child", 3)).await;
    assert_eq!(left["metadata"]["finalizers"], json!(["a.example/x"]));
    assert!(left["metadata"].get("ownerReferences").is_none());
    // The last finalizer that is given up lets a deleted object go.
    fixture.send("DELETE", &child, Value::Null).await;
    let (code, _) = fixture.apply(&by(&child, "ann"), &widget("child", 3)).await;
    assert_eq!((code, fixture.get(&child).await.0), (200, 404));
}

#[tokio::test]
async fn what_no_schema_describes_is_owned_member_by_member() {
    let fixture = Fixture::new().await;
    let path = format!("{WIDGETS}/namespaces/stage/gadgets/g");
    let gadget = |spec: Value| {
        json!({ "apiVersion": "shop.example/v1", "kind": "Gadget", "spec": spec,
            "status": { "any": "thing" } })
    };
    let spec = json!({ "a": { "b": 1, "c": [1] }, "d": null });
    let (code, made) = fixture.apply(&by(&path, "ann"), &gadget(spec)).await;
    assert_eq!((code, &made["status"]), (201, &json!({ "any": "thing" })));
    assert_eq!(
        entry(&made, "ann", "Apply")["fieldsV1"],
        json!({ "f:spec": { "f:a": { ".": {}, "f:b": {}, "f:c": {} }, "f:d": {} },
            "f:status": { "f:any": {} } })
    );
    let (_, less) = fixture.apply(&by(&path, "ann"), &gadget(json!({ "a": { "b": 1 } }))).await;
    assert_eq!(less["spec"], json!({ "a": { "b": 1 } }));
}

#[tokio::test]
async fn namespaces_are_applied_too() {
    let fixture = Fixture::new().await;
    let made =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "labels": { "a": "b" } } });
    let path = by("/api/v1/namespaces/made", "ann");
    assert_eq!(fixture.apply(&path, &made).await.0, 201);
    let none = json!({ "apiVersion": "v1", "kind": "Namespace" });
    let (code, left) = fixture.apply(&path, &none).await;
    let name = json!({ "kubernetes.io/metadata.name": "made" });
    assert_eq!((code, &left["metadata"]["labels"]), (200, &name));
}

#[tokio::test]
async fn the_texts_of_a_secret_are_owned_as_its_values() {
    let fixture = Fixture::new().await;
    let secret = |texts: Value| {
        let mut secret = json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque" });
        secret["stringData"] = texts;
        secret
    };
    let path = by("/api/v1/namespaces/stage/secrets/token", "ann");
    let (code, _) = fixture.apply(&path, &secret(json!({ "a": "x", "b": "y" }))).await;
    let (_, less) = fixture.apply(&path, &secret(json!({ "a": "x" }))).await;
    assert_eq!((code, &less["data"]), (201, &json!({ "a": "eA==" })));
    assert_eq!(
        entry(&less, "ann", "Apply")["fieldsV1"],
        json!({ "f:data": { "f:a": {} }, "f:type": {} })
    );
}

#[tokio::test]
async fn each_value_of_a_secret_is_its_own_writers() {
    let fixture = Fixture::new().await;
    let path = "/api/v1/namespaces/stage/secrets/token";
    let secret = |field: &str, values: Value| {
        let mut secret = json!({ "apiVersion": "v1", "kind": "Secret" });
        secret[field] = values;
        secret
    };
    let mut plain = secret("stringData", json!({ "a": "hunter2", "b": "b" }));
    plain["metadata"] = json!({ "name": "token" });
    let post = "/api/v1/namespaces/stage/secrets?fieldManager=cat";
    let (_, made) = fixture.send("POST", post, plain).await;
    assert_eq!(
        entry(&made, "cat", "Update")["fieldsV1"],
        json!({ "f:data": { ".": {}, "f:a": {}, "f:b": {} }, "f:type": {} })
    );
    let (code, _) = fixture.apply(&by(path, "ann"), &secret("data", json!({ "c": "Yw==" }))).await;
    assert_eq!(code, 200);
    // What is said as a text is compared as a value.
    let same = secret("stringData", json!({ "a": "hunter2", "c": "c" }));
    let (code, both) = fixture.apply(&by(path, "ben"), &same).await;
    assert_eq!(code, 200, "{both}");
    let owned = json!({ "f:data": { "f:a": {}, "f:c": {} } });
    assert_eq!(entry(&both, "ben", "Apply")["fieldsV1"], owned);
    let other = secret("stringData", json!({ "a": "secret!", "c": "x" }));
    let (code, refused) = fixture.apply(&by(path, "ben"), &other).await;
    assert_eq!(code, 409);
    let causes = refused["details"]["causes"].as_array().unwrap();
    let fields: Vec<&Value> = causes.iter().map(|cause| &cause["field"]).collect();
    assert_eq!(fields, [".data.c", ".data.a"]);
    assert!(!refused.to_string().contains("secret!") && !refused.to_string().contains("hunter2"));
    let forced = format!("{}&force=true", by(path, "ben"));
    let (_, taken) = fixture.apply(&forced, &other).await;
    assert_eq!(taken["data"], json!({ "a": "c2VjcmV0IQ==", "b": "Yg==", "c": "eA==" }));
    assert_eq!(entry(&taken, "ann", "Apply"), Value::Null);
    let (_, again) = fixture.apply(&forced, &other).await;
    assert_eq!(version(&again), version(&taken));
}

#[tokio::test]
async fn what_an_event_tells_of_is_one_field() {
    let fixture = Fixture::new().await;
    let stage = json!({ "metadata": { "name": "stage" } });
    assert_eq!(fixture.send("POST", "/api/v1/namespaces", stage).await.0, 201);
    let path = "/api/v1/namespaces/stage/events/one.1";
    let event = |about: &str, text: &str| {
        json!({ "apiVersion": "v1", "kind": "Event", "reason": "Made", "message": text,
            "involvedObject": { "kind": "Widget", "name": about, "namespace": "stage" },
            "source": { "component": "bus" } })
    };
    let (code, made) = fixture.apply(&by(path, "ann"), &event("one", "made")).await;
    assert_eq!((code, &made["firstTimestamp"]), (201, &json!("2017-07-14T02:40:00Z")));
    assert_eq!(
        entry(&made, "ann", "Apply")["fieldsV1"],
        json!({ "f:involvedObject": {}, "f:message": {}, "f:reason": {},
            "f:source": { "f:component": {} } })
    );
    let (code, refused) = fixture.apply(&by(path, "ben"), &event("two", "made")).await;
    assert_eq!((code, &refused["details"]["causes"][0]["field"]), (409, &json!(".involvedObject")));
    let (code, again) = fixture.apply(&by(path, "ann"), &event("one", "made")).await;
    assert_eq!((code, version(&again)), (200, version(&made)));
}
