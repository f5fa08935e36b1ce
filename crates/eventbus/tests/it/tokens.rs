//! `eventbus token`, and what the users it makes may do with the real kubectl.

use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;

use crate::program;
use crate::served::{Bus, Kubectl, kubectl_path};

async fn token(bus: &Bus, args: &[&str]) -> program::Ended {
    let data_dir = bus.data_dir();
    let all = [&["token", "--data-dir", data_dir.to_str().unwrap()], args].concat();
    program::run(&all, "").await
}

async fn made(bus: &Bus, args: &[&str]) -> String {
    let ended = token(bus, &[&["create"], args].concat()).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{args:?}");
    ended.stdout
}

async fn ask(bus: &Bus, token: &str, path: &str) -> u16 {
    let request = Request::get(format!("{}{path}", bus.api))
        .header("authorization", format!("Bearer {}", token.trim()))
        .body(Full::<Bytes>::default());
    bus.ask(request.unwrap()).await.status
}

#[tokio::test]
async fn tokens_come_and_go_while_the_bus_runs() {
    let bus = Bus::start().await;
    let ada = made(&bus, &["ada", "--role", "viewer", "-n", "stage", "-n", "shop"]).await;
    let root = made(&bus, &["root", "--role", "admin"]).await;
    let (inside, outside) = ("/api/v1/namespaces/stage/events", "/api/v1/namespaces/other/events");
    assert_eq!((ask(&bus, &ada, inside).await, ask(&bus, &ada, outside).await), (200, 403));
    assert_eq!(ask(&bus, &root, "/api/v1/secrets").await, 200);
    let list = token(&bus, &["list"]).await.stdout;
    assert_eq!(list, "NAME  ROLE    NAMESPACES\nada   viewer  shop,stage\nroot  admin   *\n");
    let users = std::fs::read_to_string(bus.data_dir().join("users")).unwrap();
    assert!(!users.contains(ada.trim()), "{users}");
    let again = token(&bus, &["create", "ada", "--role", "editor"]).await;
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("revoke it first"), "{}", again.stderr);
    assert_eq!(token(&bus, &["revoke", "ada"]).await.code, 0);
    assert_eq!((ask(&bus, &ada, inside).await, ask(&bus, &root, inside).await), (401, 200));
    assert_eq!(token(&bus, &["revoke", "ada"]).await.code, 1);
    for wrong in [
        ["create", "Ada", "--role", "viewer"],
        ["create", "a/b", "--role", "viewer"],
        ["create", "ada", "--role", "king"],
        ["create", "kubernetes-admin", "--role", "viewer"],
    ] {
        assert_eq!(token(&bus, &wrong).await.code, 2, "{wrong:?}");
    }
    assert_eq!(token(&bus, &["create", "a", "--role", "admin", "-n", "stage"]).await.code, 2);
}

#[tokio::test]
async fn no_token_is_made_in_a_directory_of_somebody_else() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let data_dir = directory.path().to_str().unwrap();
    for args in [&["create", "ada", "--role", "viewer"][..], &["list"], &["revoke", "ada"]] {
        let ended = program::run(&[&["token", "--data-dir", data_dir], args].concat(), "").await;
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("notes.txt"), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// kubectl as the user of a kubeconfig.
async fn kubectl_as(bus: &Bus, user: &str, args: &[&str], input: &str) -> Kubectl {
    let path = bus.data_dir().join(format!("kubeconfig-{user}"));
    bus.kubectl(&[args, &["--kubeconfig", path.to_str().unwrap()]].concat(), input).await
}

#[tokio::test]
async fn kubectl_tells_users_what_they_may_do() {
    if kubectl_path().is_none() {
        return;
    }
    let bus = Bus::start().await;
    for (user, role) in [("ada", "editor"), ("bob", "viewer")] {
        let text = made(&bus, &[user, "--role", role, "-n", "stage", "--kubeconfig"]).await;
        std::fs::write(bus.data_dir().join(format!("kubeconfig-{user}")), text).unwrap();
    }
    let who = kubectl_as(&bus, "bob", &["auth", "whoami", "-o", "name"], "").await;
    assert!(who.success, "{who:?}");
    let who = kubectl_as(&bus, "bob", &["auth", "whoami"], "").await.stdout;
    assert!(who.contains("bob") && who.contains("eventbus:viewer"), "{who}");
    let may = |user: &'static str, wish: &'static [&'static str]| {
        let bus = &bus;
        async move {
            let answer = kubectl_as(bus, user, &[&["auth", "can-i"], wish].concat(), "").await;
            answer.stdout.trim() == "yes"
        }
    };
    assert!(may("ada", &["create", "subscriptions", "-n", "stage"]).await);
    assert!(!may("ada", &["create", "subscriptions", "-n", "other"]).await);
    assert!(may("ada", &["create", "secrets", "-n", "stage"]).await);
    assert!(!may("ada", &["get", "secrets", "-n", "stage"]).await);
    assert!(may("bob", &["list", "subscriptions", "-n", "stage"]).await);
    assert!(!may("bob", &["delete", "subscriptions", "-n", "stage"]).await);
    let list = ["auth", "can-i", "--list", "-n", "stage"];
    let listed = kubectl_as(&bus, "bob", &list, "").await;
    let expected = "subscriptions.eventing.kyma.cx";
    assert!(listed.success && listed.stdout.contains(expected), "{listed:?}");

    let secret = ["create", "secret", "generic", "key", "--from-literal=a=hunter2", "-n", "stage"];
    let created = kubectl_as(&bus, "ada", &secret, "").await;
    assert_eq!(created.stdout, "secret/key created\n", "{created:?}");
    let shown = [&secret[..], &["-o", "yaml"]].concat();
    let refused = kubectl_as(&bus, "bob", &shown, "").await;
    assert!(!refused.success, "{refused:?}");
    let read = kubectl_as(&bus, "ada", &["get", "secret", "key", "-n", "stage"], "").await;
    let words = "secrets \"key\" is forbidden: User \"ada\" cannot get resource \"secrets\" in API \
                 group \"\" in the namespace \"stage\"";
    assert!(read.stderr.contains(words), "{read:?}");
    let table = bus.kubectl(&["get", "secret", "-n", "stage", "--no-headers"], "").await.stdout;
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words[..3], ["key", "Opaque", "1"], "{table}");
    let manifest = "apiVersion: v1\nkind: Secret\nmetadata: {name: key, namespace: stage}\n\
                    stringData: {a: other}\n";
    let replaced = kubectl_as(&bus, "ada", &["replace", "-f", "-"], manifest).await;
    assert_eq!(replaced.stdout, "secret/key replaced\n", "{replaced:?}");
    let wanted = ["get", "secret", "key", "-n", "stage", "-o", "jsonpath={.data.a}"];
    assert_eq!(bus.kubectl(&wanted, "").await.stdout, "b3RoZXI=");
    let all = kubectl_as(&bus, "bob", &["get", "subscriptions", "-A"], "").await;
    let words = "User \"bob\" cannot list resource \"subscriptions\" in API group \
                 \"eventing.kyma.cx\" at the cluster scope";
    assert!(all.stderr.contains(words), "{all:?}");
    let named = ["create", "namespace", "shop"];
    assert_eq!(bus.kubectl(&named, "").await.stdout, "namespace/shop created\n");
    assert!(!kubectl_as(&bus, "ada", &["create", "namespace", "x"], "").await.success);
}
