//! The real kubectl against the running program.

use std::process::Stdio;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::program::within;
use crate::served::{Bus, kubectl_path};
use crate::subscriber::Subscriber;

/// The seed's own example, with the mapping lines that its copies lost.
const EXAMPLE: &str = "apiVersion: eventing.kyma.cx/v1alpha1
kind: Subscription
metadata:
  name: my-subscription
  namespace: stage
spec:
  endpoint: http://testjs.default:8080/
  push_request_timeout_ms: 2000
  max_inflight: 400
  include_subscription_name_header: true
  event_type: order_created
  event_type_version: v1
  source:
    source_namespace: com.github
    source_type: commerce
    source_environment: stage
";

const ACTIVATION: &str = "apiVersion: remoteenvironment.kyma.cx/v1alpha1
kind: EventActivation
metadata:
  name: commerce
  namespace: stage
spec:
  displayName: Commerce
  source:
    environment: stage
    namespace: com.github
    type: commerce
";

async fn succeeds(bus: &Bus, args: &[&str], input: &str) -> String {
    let ended = bus.kubectl(args, input).await;
    assert!(ended.success, "kubectl {args:?}: {ended:?}");
    ended.stdout
}

#[tokio::test]
async fn the_seeds_examples_work_to_the_letter() {
    if kubectl_path().is_none() {
        return;
    }
    let bus = Bus::start().await;
    let created = succeeds(&bus, &["create", "-f", "-"], EXAMPLE).await;
    assert_eq!(created, "subscription.eventing.kyma.cx/my-subscription created\n");
    succeeds(&bus, &["create", "-f", "-"], ACTIVATION).await;
    let waited = ["wait", "--for=condition=ready", "subscription/my-subscription", "-n", "stage"];
    succeeds(&bus, &waited, "").await;
    let table = succeeds(&bus, &["get", "subscription", "--all-namespaces"], "").await;
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    let expected =
        ["stage", "my-subscription", "order_created", "v1", "True", "True", "Delivering"];
    assert_eq!(words[..7], expected);
    let columns = "-o=custom-columns=NAME:.metadata.name,\
                   STATUS:.status.conditions[*].status,STATUS TYPE:.status.conditions[*].type";
    let custom = succeeds(&bus, &["get", "subscriptions", "-n", "stage", columns], "").await;
    let row: Vec<&str> = custom.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["my-subscription", "True,True", "events-activated,ready"]);
}

#[tokio::test]
async fn apply_get_describe_label_delete() {
    if kubectl_path().is_none() {
        return;
    }
    let (bus, subscriber) = (Bus::start().await, Subscriber::start().await);
    let manifest = EXAMPLE.replace("http://testjs.default:8080/", &subscriber.url());
    let applied = succeeds(&bus, &["apply", "-f", "-"], &manifest).await;
    assert!(applied.ends_with(" created\n"), "{applied}");
    let again = succeeds(&bus, &["apply", "-f", "-"], &manifest).await;
    assert!(again.ends_with(" unchanged\n"), "{again}");
    let changed = manifest.replace("max_inflight: 400", "max_inflight: 4");
    let configured = succeeds(&bus, &["apply", "-f", "-"], &changed).await;
    assert!(configured.ends_with(" configured\n"), "{configured}");
    let get = |form: &'static str| {
        let bus = &bus;
        async move { succeeds(bus, &["get", "sub", "-n", "stage", "-o", form], "").await }
    };
    let list: Value = serde_json::from_str(&get("json").await).unwrap();
    assert_eq!(list["items"][0]["spec"]["max_inflight"], 4);
    assert_eq!(list["items"][0]["metadata"]["generation"], 2);
    assert!(get("yaml").await.contains("event_type: order_created"));
    assert_eq!(get("name").await, "subscription.eventing.kyma.cx/my-subscription\n");
    assert_eq!(get("jsonpath={.items[*].spec.max_inflight}").await, "4");
    assert!(get("wide").await.contains(&subscriber.url()));
    succeeds(&bus, &["label", "sub", "my-subscription", "-n", "stage", "app=x"], "").await;
    assert!(succeeds(&bus, &["get", "sub", "-A", "-l", "app=x"], "").await.contains("my-sub"));
    let none = bus.kubectl(&["get", "sub", "-A", "-l", "app in (y,z)"], "").await;
    assert!(none.success && none.stderr.contains("No resources found"), "{none:?}");
    let described =
        succeeds(&bus, &["describe", "sub", "my-subscription", "-n", "stage"], "").await;
    assert!(described.contains("NoEventActivation"), "{described}");
    let deleted = succeeds(&bus, &["delete", "sub", "my-subscription", "-n", "stage"], "").await;
    assert!(deleted.contains("deleted"), "{deleted}");
    let gone = bus.kubectl(&["get", "sub", "my-subscription", "-n", "stage"], "").await;
    assert!(!gone.success && gone.stderr.contains("not found"), "{gone:?}");
}

#[tokio::test]
async fn bad_manifests_are_refused_with_every_cause() {
    if kubectl_path().is_none() {
        return;
    }
    let bus = Bus::start().await;
    let refused = |manifest: String| {
        let bus = &bus;
        async move {
            let ended = bus.kubectl(&["create", "-f", "-"], &manifest).await;
            assert!(!ended.success, "{ended:?}");
            ended.stderr
        }
    };
    let misspelt = refused(EXAMPLE.replace("max_inflight", "max_in_flight")).await;
    assert!(misspelt.contains("unknown field \"spec.max_in_flight\""), "{misspelt}");
    let wrong = EXAMPLE.replace("400", "401").replace("http://", "ftp://");
    let wrong = refused(wrong).await;
    assert!(wrong.contains("spec.max_inflight: Invalid value: 401"), "{wrong}");
    assert!(wrong.contains("spec.endpoint"), "{wrong}");
    let both = refused(format!("{EXAMPLE}  source_id: shop\n")).await;
    assert!(both.contains("set exactly one of source and source_id"), "{both}");
    let flat = EXAMPLE.replace("spec:\n", "").replace("metadata:\n", "");
    refused(flat).await;
}

#[tokio::test]
async fn watch_shows_the_status_change_and_deleting_a_namespace_deletes_what_is_in_it() {
    if kubectl_path().is_none() {
        return;
    }
    let bus = Bus::start().await;
    succeeds(&bus, &["create", "-f", "-"], EXAMPLE).await;
    succeeds(&bus, &["create", "-f", "-"], ACTIVATION).await;
    let waited = ["wait", "--for=jsonpath={.status.conditions[0].status}=True", "sub", "--all"];
    succeeds(&bus, &[&waited[..], &["-n", "stage"]].concat(), "").await;
    succeeds(&bus, &["delete", "-f", "-"], ACTIVATION).await;
    let inactive = ["wait", "--for=condition=events-activated=False", "sub/my-subscription"];
    succeeds(&bus, &[&inactive[..], &["-n", "stage"]].concat(), "").await;
    let namespaces = succeeds(&bus, &["get", "ns", "-o", "name"], "").await;
    assert_eq!(namespaces, "namespace/default\nnamespace/stage\n");
    succeeds(&bus, &["delete", "ns", "stage"], "").await;
    let left = succeeds(&bus, &["get", "sub,ea", "-A", "-o", "name"], "").await;
    assert_eq!(left, "");
}

#[tokio::test]
async fn a_proxy_passes_requests_on_with_the_token() {
    let Some(kubectl) = kubectl_path() else { return };
    let bus = Bus::start().await;
    let mut proxy = Command::new(kubectl)
        .args(["proxy", "--port=0", "--kubeconfig"])
        .arg(bus.data_dir().join("kubeconfig"))
        .env("HOME", bus.data_dir())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
    let line = within(lines.next_line()).await.unwrap().unwrap();
    let address = line.rsplit_once(' ').unwrap().1;
    let namespace = format!("http://{address}/api/v1/namespaces/default");
    let answer = bus.ask(Request::get(namespace).body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("\"kind\":\"Namespace\""), "{answer:?}");
}
