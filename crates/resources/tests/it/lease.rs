//! One of several processes holds the Lease.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::testing::ManualClock;
use eventbus_resources::Leadership;
use futures::FutureExt;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{Api, PostParams};

use crate::Bench;

struct Two {
    bench: Bench,
    clock: Arc<ManualClock>,
}

impl Two {
    async fn start() -> Self {
        Self { bench: Bench::start().await, clock: Arc::new(ManualClock::at(1_541_196_521_000)) }
    }

    fn process(&self, identity: &str) -> Leadership {
        let client = self.bench.client.clone();
        Leadership::new(client, "eventbus", identity.to_owned(), self.clock.clone())
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.bench.client.clone(), "eventbus")
    }

    async fn spec(&self) -> LeaseSpec {
        self.leases().get("eventbus").await.unwrap().spec.unwrap()
    }
}

/// Waits for some looks at the Lease.
async fn does_not_end(future: impl Future<Output = ()>) {
    assert!(tokio::time::timeout(Duration::from_secs(7), future).await.is_err());
}

#[tokio::test]
async fn who_gives_it_up_lets_the_next_one_in() {
    let two = Two::start().await;
    let (mut one, mut other) = (two.process("one"), two.process("other"));
    one.acquire().await;
    let spec = two.spec().await;
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("one"), Some(1)));
    does_not_end(other.acquire()).await;
    // Not the holder: it has nothing to give up.
    other.release().await;
    assert_eq!(two.spec().await.holder_identity.as_deref(), Some("one"));
    one.release().await;
    other.acquire().await;
    let spec = two.spec().await;
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("other"), Some(2)));
}

#[tokio::test]
async fn a_lease_that_nobody_renews_is_taken_and_its_holder_notices() {
    let two = Two::start().await;
    let (mut one, mut other) = (two.process("one"), two.process("other"));
    one.acquire().await;
    // Seen for the first time: by the other's clock it may have been renewed just now.
    two.clock.advance(Duration::from_secs(60));
    does_not_end(other.acquire()).await;
    two.clock.advance(Duration::from_secs(15));
    other.acquire().await;
    one.keep().await;
    assert_eq!(two.spec().await.holder_identity.as_deref(), Some("other"));
}

#[tokio::test]
async fn who_renews_keeps_it() {
    let two = Two::start().await;
    let (mut one, mut other) = (two.process("one"), two.process("other"));
    one.acquire().await;
    assert!(other.acquire().now_or_never().is_none());
    for _ in 0..3 {
        two.clock.advance(Duration::from_secs(14));
        // Somebody renews: the version changes.
        let lease = two.leases().get("eventbus").await.unwrap();
        let mut renewed = lease.clone();
        let spec = renewed.spec.as_mut().unwrap();
        spec.lease_duration_seconds = spec.lease_duration_seconds.map(|seconds| seconds ^ 1);
        two.leases().replace("eventbus", &PostParams::default(), &renewed).await.unwrap();
        let look = tokio::time::timeout(Duration::from_millis(300), other.acquire());
        assert!(look.await.is_err());
    }
}
