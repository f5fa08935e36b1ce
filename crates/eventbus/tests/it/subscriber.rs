//! A subscriber that keeps what it gets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Request;

use crate::program::within;
use crate::server::{Server, answer};

/// Takes deliveries and answers as told.
pub(crate) struct Subscriber {
    server: Server,
    got: Arc<Mutex<Vec<Request<Bytes>>>>,
}

impl Subscriber {
    /// Answers 200 to everything.
    pub(crate) async fn start() -> Self {
        Self::answering(|_| 200).await
    }

    /// Answers each delivery with the status that `decide` says.
    pub(crate) async fn answering(
        decide: impl Fn(&Request<Bytes>) -> u16 + Send + Sync + 'static,
    ) -> Self {
        let got = Arc::<Mutex<Vec<_>>>::default();
        let kept = got.clone();
        let server = Server::start(move |request| {
            let status = decide(&request);
            kept.lock().unwrap().push(request);
            async move { answer(status, "") }
        })
        .await;
        Self { server, got }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url("/")
    }

    /// The payloads got so far, in their order.
    pub(crate) fn payloads(&self) -> Vec<String> {
        let got = self.got.lock().unwrap();
        got.iter().map(|request| String::from_utf8(request.body().to_vec()).unwrap()).collect()
    }

    /// Waits until there are `count` deliveries; returns them all.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Request<Bytes>> {
        within(async {
            while self.got.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.got.lock().unwrap().clone()
    }
}
