//! `bridge`: the least that a service over JetStream can do, to measure the bus over JetStream
//! against: axum takes an event and publishes it; a pull consumer posts it on and acknowledges.
//! No features: no matching, no retries, no order, no limits.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{DiscardPolicy, StorageType};
use async_nats::jetstream::{self, stream};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use futures::StreamExt;
use http::{StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::post_on;

const STREAM: &str = "BRIDGE";
const SUBJECT: &str = "bridge.events";

/// What a bridge is told.
pub(crate) struct Bridge {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// The NATS server.
    pub(crate) nats: String,
    /// Where to post each event; nowhere, when only publishing is measured.
    pub(crate) to: Option<Uri>,
    /// Requests under way at once.
    pub(crate) inflight: usize,
    /// Servers that keep each event.
    pub(crate) replicas: usize,
}

impl Bridge {
    /// Serves until the process is ended.
    pub(crate) async fn serve(self) -> io::Result<()> {
        let client = async_nats::connect(&self.nats).await.map_err(io::Error::other)?;
        let context = jetstream::new(client);
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            num_replicas: self.replicas,
            ..stream::Config::default()
        };
        let stream = context.get_or_create_stream(config).await.map_err(io::Error::other)?;
        let mut tasks = JoinSet::new();
        if let Some(to) = self.to {
            let consumer = pull::Config {
                durable_name: Some("bridge".to_owned()),
                ack_policy: AckPolicy::Explicit,
                deliver_policy: DeliverPolicy::New,
                ack_wait: Duration::from_secs(10),
                max_ack_pending: -1,
                ..pull::Config::default()
            };
            let consumer = stream.create_consumer(consumer).await.map_err(io::Error::other)?;
            tasks.spawn(deliver(consumer, to, self.inflight));
        }
        let listener = TcpListener::bind(self.listen).await?;
        writeln!(io::stdout(), "http://{}/", listener.local_addr()?)?;
        let router = Router::new().route("/", post(publish)).with_state(context);
        axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |stream| {
                let _ = stream.set_nodelay(true);
            }),
            router,
        )
        .await
    }
}

async fn publish(State(context): State<jetstream::Context>, body: Bytes) -> StatusCode {
    let Ok(acknowledgement) = context.publish(SUBJECT, body).await else {
        return StatusCode::SERVICE_UNAVAILABLE;
    };
    match acknowledgement.await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn deliver(consumer: jetstream::consumer::PullConsumer, to: Uri, inflight: usize) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let Ok(messages) = consumer.stream().max_messages_per_batch(inflight).messages().await else {
        return;
    };
    messages
        .for_each_concurrent(inflight, |message| {
            let (client, to) = (&client, &to);
            async move {
                if let Ok(message) = message
                    && post_on(client, to, message.payload.clone()).await.is_success()
                {
                    let _ = message.ack().await;
                }
            }
        })
        .await;
}
