//! Roles: what each may do, and that the reviews say so.

use std::collections::BTreeSet;

use eventbus_apiserver::{Role, Scope};
use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS, widget};

const ACCESS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const RULES: &str = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn within(namespace: &str) -> Scope {
    Scope::Within(BTreeSet::from([namespace.to_owned()]))
}

fn access_review(spec: Value) -> Value {
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec,
    })
}

/// Asks the review, and then does it: both must agree.
async fn may(fixture: &Fixture, role: &Role, verb: &str, namespace: &str, status: bool) -> bool {
    let attributes = json!({
        "verb": verb, "group": "shop.example", "resource": "widgets", "namespace": namespace,
        "subresource": if status { "status" } else { "" },
    });
    let review = access_review(json!({ "resourceAttributes": attributes }));
    let (code, answer) = fixture.send_as(role.clone(), "POST", ACCESS, review).await;
    assert_eq!(code, 201, "{answer}");
    let said = answer["status"]["allowed"].as_bool().unwrap();
    let all = match namespace {
        "" => format!("{WIDGETS}/widgets"),
        namespace => format!("{WIDGETS}/namespaces/{namespace}/widgets"),
    };
    let one = if status { format!("{all}/none/status") } else { format!("{all}/none") };
    let (method, path, body) = match verb {
        "get" => ("GET", one, Value::Null),
        "list" => ("GET", all, Value::Null),
        "watch" => ("GET", format!("{all}?watch=true&timeoutSeconds=1"), Value::Null),
        "create" => ("POST", format!("{all}?dryRun=All"), widget("two", 1)),
        "update" => ("PUT", one, widget("none", 1)),
        "patch" => ("PATCH", one, json!({})),
        "delete" => ("DELETE", one, Value::Null),
        _ => ("DELETE", all, Value::Null),
    };
    let (code, answer) = fixture.send_as(role.clone(), method, &path, body).await;
    assert_eq!(code != 403, said, "{verb} in {namespace:?}: {answer}");
    if code == 403 {
        let text = answer["message"].as_str().unwrap();
        assert!(text.contains("forbidden: User \"ada\" cannot "), "{text}");
    }
    said
}

#[tokio::test]
async fn what_the_reviews_say_is_what_happens() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "one", 1).await;
    let read = ["get", "list", "watch"];
    let write = ["create", "update", "patch", "delete", "deletecollection"];
    let (everywhere, stage) = (Scope::Everywhere, within("stage"));
    let cases = [
        (Role::Editor(stage.clone()), "stage", true, true),
        (Role::Editor(stage.clone()), "other", false, false),
        (Role::Viewer(stage.clone()), "stage", true, false),
        (Role::Viewer(stage), "other", false, false),
        (Role::Viewer(everywhere.clone()), "other", true, false),
        (Role::Editor(everywhere), "other", true, true),
        (Role::Admin, "other", true, true),
    ];
    for (role, namespace, reads, writes) in cases {
        for verb in read {
            assert_eq!(
                may(&fixture, &role, verb, namespace, false).await,
                reads,
                "{role:?} {verb}"
            );
        }
        for verb in write {
            let did = may(&fixture, &role, verb, namespace, false).await;
            assert_eq!(did, writes, "{role:?} {verb}");
        }
        assert_eq!(may(&fixture, &role, "get", namespace, true).await, reads, "{role:?}");
        let judges = role == Role::Admin;
        assert_eq!(may(&fixture, &role, "patch", namespace, true).await, judges, "{role:?}");
    }
}

#[tokio::test]
async fn lists_of_all_namespaces_need_all_namespaces() {
    let fixture = Fixture::new().await;
    assert!(may(&fixture, &Role::Viewer(Scope::Everywhere), "list", "", false).await);
    assert!(!may(&fixture, &Role::Viewer(within("stage")), "list", "", false).await);
    let (code, refused) = fixture
        .send_as(Role::Viewer(within("stage")), "GET", "/api/v1/namespaces", Value::Null)
        .await;
    assert_eq!(code, 403);
    let words = "namespaces is forbidden: User \"ada\" cannot list resource \"namespaces\" in API \
                 group \"\" at the cluster scope";
    assert_eq!((&refused["message"], &refused["reason"]), (&json!(words), &json!("Forbidden")));
    let path = "/api/v1/namespaces/stage";
    let viewer = Role::Viewer(within("stage"));
    assert_eq!(fixture.send_as(viewer, "GET", path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn the_words_of_a_refusal_are_kubernetes() {
    let fixture = Fixture::new().await;
    let path = format!("{WIDGETS}/namespaces/stage/widgets/one/status");
    let viewer = Role::Viewer(Scope::Everywhere);
    let (_, refused) = fixture.send_as(viewer, "PATCH", &path, json!({})).await;
    assert_eq!(
        refused["message"],
        "widgets.shop.example \"one\" is forbidden: User \"ada\" cannot patch resource \
         \"widgets/status\" in API group \"shop.example\" in the namespace \"stage\""
    );
    let details = json!({ "name": "one", "group": "shop.example", "kind": "widgets" });
    assert_eq!(refused["details"], details);
}

#[tokio::test]
async fn whoever_asks_is_told_who_and_what() {
    let fixture = Fixture::new().await;
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let viewer = Role::Viewer(within("stage"));
    let (_, me) = fixture.send_as(viewer.clone(), "POST", SELF, review.clone()).await;
    let groups = ["eventbus:viewer", "system:authenticated"];
    assert_eq!(me["status"]["userInfo"], json!({ "username": "ada", "groups": groups }));
    let (_, program) = fixture.send("POST", SELF, review.clone()).await;
    assert_eq!(program["status"]["userInfo"]["username"], "system:eventbus");
    let asks = |namespace| {
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
            "spec": { "namespace": namespace },
        })
    };
    let (_, here) = fixture.send_as(viewer.clone(), "POST", RULES, asks("stage")).await;
    let widgets = json!({
        "verbs": ["get", "list", "watch"], "apiGroups": ["shop.example"],
        "resources": ["widgets"],
    });
    assert!(here["status"]["resourceRules"].as_array().unwrap().contains(&widgets), "{here}");
    let (_, there) = fixture.send_as(viewer.clone(), "POST", RULES, asks("other")).await;
    assert!(!there["status"]["resourceRules"].as_array().unwrap().contains(&widgets), "{there}");
    let path = |path| json!({ "nonResourceAttributes": { "path": path, "verb": "get" } });
    for (place, allowed) in [("/apis/x", true), ("/metrics", true), ("/elsewhere", false)] {
        let review = access_review(path(place));
        let (_, answer) = fixture.send_as(viewer.clone(), "POST", ACCESS, review).await;
        assert_eq!(answer["status"]["allowed"], allowed, "{place}");
    }
}

#[tokio::test]
async fn reviews_are_asked_and_not_kept() {
    let fixture = Fixture::new().await;
    for place in [ACCESS, RULES, SELF] {
        assert_eq!(fixture.get(place).await.0, 405);
        assert_eq!(fixture.get(&format!("{place}/one")).await.0, 405);
    }
    let neither = access_review(json!({}));
    let (code, refused) = fixture.send("POST", ACCESS, neither).await;
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")));
    let (code, _) = fixture.send("POST", SELF, widget("one", 1)).await;
    assert_eq!(code, 400);
    let mut old = access_review(json!({ "resourceAttributes": { "verb": "get" } }));
    old["metadata"] = json!({ "creationTimestamp": null });
    assert_eq!(fixture.send("POST", ACCESS, old).await.0, 201);
    let nobody = access_review(json!({ "resourceAttributes": { "verb": "get" } }));
    assert_eq!(fixture.send_as(Role::Nobody, "POST", ACCESS, nobody).await.0, 403);
}
