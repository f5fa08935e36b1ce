//! Does the API server tell us what we follow? Asked from time to time, for those who watch over
//! the bus: the bus itself goes on with what it last saw.

use std::sync::atomic::{AtomicBool, Ordering};

use eventbus_core::limits;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::definitions::DEFINITIONS;

/// What the last try to reach the API server showed.
#[derive(Debug, Default)]
pub struct Reach(AtomicBool);

impl Reach {
    /// Did it tell? False until it was asked.
    pub fn is_up(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The task: asks again and again, until it is dropped.
    pub async fn follow(&self, client: Client) {
        // A list of one: its version it would tell without its store, and to anybody.
        let [subscriptions, ..] = DEFINITIONS;
        let api: Api<DynamicObject> = Api::all_with(client, &subscriptions.api_resource());
        let one = ListParams::default().limit(1);
        let mut look = interval(limits::API_LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let asked = timeout(limits::API_LOOK_TIME, api.list_metadata(&one)).await;
            self.0.store(matches!(asked, Ok(Ok(_))), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    const LIST: &str = r#"{
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "items": []
    }"#;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_goes_and_comes_is_noticed() {
        // What the server does: answers, refuses, or says nothing.
        let status = Arc::new(std::sync::Mutex::new(Some(200)));
        let now = status.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let is_asked = request.uri().path().ends_with("/subscriptions");
            let status = if is_asked { *now.lock().unwrap() } else { Some(404) };
            async move {
                let Some(status) = status else { return std::future::pending().await };
                let body = Body::from(LIST.as_bytes().to_vec());
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        let (reach, client) = (Reach::default(), Client::new(service, "default"));
        assert!(!reach.is_up(), "nobody has asked yet");
        let look = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            for (now, is_up) in [(200, true), (500, false), (200, true), (403, false)] {
                *status.lock().unwrap() = Some(now);
                tokio::time::sleep(limits::API_LOOK_EVERY).await;
                assert_eq!(reach.is_up(), is_up, "{now}");
            }
            *status.lock().unwrap() = Some(200);
            tokio::time::sleep(limits::API_LOOK_EVERY).await;
            *status.lock().unwrap() = None;
            tokio::time::sleep(limits::API_LOOK_EVERY + limits::API_LOOK_TIME).await;
            assert!(!reach.is_up(), "it says nothing");
        };
        tokio::select! {
            () = reach.follow(client.clone()) => {}
            () = look => {}
        }
    }
}
