//! Exports spans to a collector, over HTTP: as OTLP, or as Zipkin's JSON.
//!
//! The spans wait in a bounded queue and are sent in batches, once each. A collector that is slow,
//! dead or full costs the spans it does not take, and nothing else: who records one never waits.

mod otlp;
mod post;
mod telemetry;
mod zipkin;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use eventbus_core::span::{Span, Spans};
use eventbus_core::{Clock, limits};
use http::HeaderValue;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::post::Collector;
use self::telemetry::Told;

pub use self::post::{BadCollector, CollectorUrl};
pub use self::telemetry::Telemetry;

/// How spans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OTLP over HTTP, in protobuf.
    Otlp,
    /// Zipkin's JSON, version 2.
    Zipkin,
}

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Config {
    /// How they are written.
    pub form: Form,
    /// The URL they are posted to.
    pub url: CollectorUrl,
    /// The name of the service they are of.
    pub service: String,
}

/// A running export. Dropping it abandons the spans that wait.
pub struct Exporter {
    spans: Arc<Inlet>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

/// The near end of the queue.
struct Inlet {
    queue: mpsc::Sender<Span>,
    telemetry: Arc<Telemetry>,
}

/// The far end.
struct Outlet {
    queue: mpsc::Receiver<Span>,
    form: Form,
    service: String,
    collector: Collector,
    telemetry: Arc<Telemetry>,
    told: Told,
    clock: Arc<dyn Clock>,
}

// === impl Form ===

impl Form {
    /// The path to which collectors take it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Otlp => "/v1/traces",
            Self::Zipkin => "/api/v2/spans",
        }
    }

    fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Otlp => "application/x-protobuf",
            Self::Zipkin => "application/json",
        })
    }

    fn write(self, spans: &[Span], service: &str) -> Vec<u8> {
        match self {
            Self::Otlp => otlp::write(spans, service),
            Self::Zipkin => zipkin::write(spans, service),
        }
    }

    /// How many spans were rejected by an answer of success.
    fn rejected(self, answer: &Bytes) -> u64 {
        match self {
            Self::Otlp => otlp::rejected(answer),
            Self::Zipkin => 0,
        }
    }
}

// === impl Exporter ===

impl Exporter {
    /// Starts to export, and counts in `telemetry`. Must be called within a Tokio runtime. The
    /// collector need not be there.
    pub fn start(
        config: Config,
        telemetry: Arc<Telemetry>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BadCollector> {
        let Config { form, url, service } = config;
        let (sender, queue) = mpsc::channel(limits::SPANS_WAITING);
        let collector = Collector::at(url, form.media_type())?;
        let spans = Arc::new(Inlet { queue: sender, telemetry: telemetry.clone() });
        let told = Told::default();
        let outlet = Outlet { queue, form, service, collector, telemetry, told, clock };
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        task.spawn(outlet.run(stop.clone()));
        Ok(Self { spans, stop, task })
    }

    /// Where spans are recorded.
    pub fn spans(&self) -> Arc<dyn Spans> {
        self.spans.clone()
    }

    /// Ends well: sends the spans that wait, for [`limits::SPANS_DRAIN_TIME`]. What is left then is
    /// counted as dropped, and said.
    pub async fn drain(mut self) {
        self.stop.cancel();
        self.task.join_next().await;
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").finish_non_exhaustive()
    }
}

// === impl Inlet ===

impl Spans for Inlet {
    fn record(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.telemetry.queue_was_full();
        }
    }
}

// === impl Outlet ===

impl Outlet {
    async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(limits::SPANS_AT_ONCE);
        let too_late = async {
            stop.cancelled().await;
            sleep(limits::SPANS_DRAIN_TIME).await;
        };
        tokio::select! {
            biased;
            () = self.export(&mut batch, &stop) => {}
            () = too_late => {}
        }
        self.queue.close();
        self.telemetry.stopped(batch.len() + self.queue.len());
    }

    /// Sends what comes until `stop`, and then what is there, as long as it is taken.
    async fn export(&mut self, batch: &mut Vec<Span>, stop: &CancellationToken) {
        while stop.run_until_cancelled(self.gather(batch)).await.is_some() {
            self.send(batch).await;
        }
        loop {
            while batch.len() < limits::SPANS_AT_ONCE
                && let Ok(span) = self.queue.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() || !self.send(batch).await {
                return;
            }
        }
    }

    /// Waits for a span, and a little for others.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        let queue = &mut self.queue;
        let mut more = async || {
            let room = limits::SPANS_AT_ONCE - batch.len();
            room > 0 && queue.recv_many(batch, room).await > 0
        };
        if more().await {
            let _ = timeout(limits::SPANS_LINGER, async { while more().await {} }).await;
        }
    }

    /// Sends a batch, once; tells whether the collector took it.
    async fn send(&mut self, batch: &mut Vec<Span>) -> bool {
        let body = self.form.write(batch, &self.service);
        let sent = timeout(limits::SPANS_SEND_TIME, self.collector.post(body.into())).await;
        let sent = sent.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let sent = sent.map(|answer| self.form.rejected(&answer));
        let now = self.clock.elapsed();
        self.telemetry.batch_ended(batch.len() as u64, &sent, &mut self.told, now);
        batch.clear();
        sent.is_ok()
    }
}
