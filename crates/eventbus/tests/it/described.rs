//! What `kubectl describe` tells of a Subscription's life: its Events, with the real kubectl.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use regex::Regex;
use serde_json::json;

use crate::cluster::{Cluster, over_each_api_server};
use crate::program::within;
use crate::resources::{activation, subscription};
use crate::served::{Bus, kubectl_path};
use crate::subscriber::Subscriber;

/// In full: which group the bare word means is promised by the embedded API alone.
const ORDERS: &str = "subscriptions.eventing.kyma.cx/orders";

/// A kubectl command that shows Events.
struct Shown<'a> {
    bus: &'a Bus,
    args: &'a [&'a str],
}

impl Shown<'_> {
    /// What it says, with single spaces.
    async fn now(&self) -> String {
        let namespace = self.bus.namespace("stage");
        let ended = self.bus.kubectl(&[self.args, &["-n", &namespace]].concat(), "").await;
        assert!(ended.success, "{ended:?}");
        Regex::new(" +").unwrap().replace_all(&ended.stdout, " ").into_owned()
    }

    /// Waits until it says a line that matches.
    async fn until(&self, line: &str) -> String {
        let line = Regex::new(&format!("(?m){line}")).unwrap();
        within(async {
            loop {
                let said = self.now().await;
                if line.is_match(&said) {
                    return said;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    }
}

over_each_api_server! {
    describe_tells_why_it_is_not_active_and_since_when_it_fails,
    each_group_has_events_of_its_own,
}

async fn describe_tells_why_it_is_not_active_and_since_when_it_fails(cluster: Option<&Cluster>) {
    if kubectl_path().is_none() {
        return;
    }
    let bus = Bus::over(cluster, &[]).await;
    let status = Arc::new(AtomicU16::new(200));
    let answered = status.clone();
    let subscriber = Subscriber::answering(move |_| answered.load(Ordering::Relaxed)).await;
    bus.create(&subscription("orders", "order.created", &subscriber.url())).await;
    let shown = Shown { bus: &bus, args: &["describe", ORDERS] };
    let said = shown.until("^ Warning NotActivated").await;
    let why = "^ Warning NoEventActivation \\d+s eventbus no EventActivation of source shop";
    assert!(Regex::new(&format!("(?m){why}")).unwrap().is_match(&said), "{said}");

    bus.create(&activation()).await;
    let said = shown.until("^ Normal Delivering \\d+s eventbus events are delivered to").await;
    assert!(said.contains("\n Normal Activated "), "{said}");

    // Three failures in a row are no accident.
    status.store(500, Ordering::Relaxed);
    for n in 0..3 {
        bus.publish("order.created", &json!(n)).await;
    }
    shown.until("^ Warning EndpointFailing \\d+s eventbus http://.* answers 500").await;
    status.store(200, Ordering::Relaxed);
    shown.until("^ Normal Delivering \\d+s \\(x2 over \\d+s\\) eventbus events are").await;
    subscriber.wait_for(6).await;

    status.store(503, Ordering::Relaxed);
    for n in 3..6 {
        bus.publish("order.created", &json!(n)).await;
    }
    let counted = "^ Warning EndpointFailing \\d+s \\(x2 over \\d+s\\) eventbus .* answers 503";
    shown.until(counted).await;
}

async fn each_group_has_events_of_its_own(cluster: Option<&Cluster>) {
    if kubectl_path().is_none() {
        return;
    }
    let bus = Bus::over(cluster, &[]).await;
    let mut other = subscription("orders", "order.created", "http://127.0.0.1:1/");
    other["apiVersion"] = "eventing.kyma-project.io/v1alpha1".into();
    bus.create(&other).await;
    bus.until_told("orders", "NotActivated").await;
    let resource = "subscriptions.eventing.kyma-project.io/orders";
    let described = Shown { bus: &bus, args: &["describe", resource] };
    assert!(described.now().await.contains("\n Warning NotActivated "));
    let of = |resource| ["events", "--for", resource];
    let listed = Shown { bus: &bus, args: &of(resource) };
    assert!(listed.now().await.contains(" Warning NotActivated Subscription/orders "));
    // Another group, another Subscription of that name: nothing is told of it.
    bus.activate().await;
    bus.until_told("orders", "Delivering").await;
    bus.create(&subscription("orders", "order.created", "http://127.0.0.1:1/")).await;
    let listed = Shown { bus: &bus, args: &of(ORDERS) };
    let said = listed.until("Delivering").await;
    assert!(!said.contains("NotActivated"), "{said}");
}
