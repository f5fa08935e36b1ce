//! `eventbus listen`: a subscriber that prints what it gets, and answers badly when asked to.

mod delivery;
mod hint;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::limits;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{self, Fault, World};
use crate::output;
use delivery::Delivery;

/// The largest delivery taken. The bus takes 1 MiB an event unless it is told otherwise.
const BODY_BYTES: usize = 16 * 1024 * 1024;

/// Connections served at once: twice what a Subscription may have in flight, and few enough for the
/// descriptors of any machine.
const CONNECTIONS: usize = 800;

/// How long the answers under way may take once the end has come.
const FAREWELL_TIME: Duration = Duration::from_secs(5);

/// What `eventbus listen` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address to listen on; port 0 chooses a free one and says which
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Print each delivery as one JSON object: when, what was answered, headers, body
    #[arg(long, conflicts_with = "quiet")]
    json: bool,

    /// Print no deliveries, only how many there were
    #[arg(long)]
    quiet: bool,

    /// Answer this share of the deliveries with a failure, chosen at random
    #[arg(long, value_parser = share, value_name = "0..1")]
    fail_rate: Option<f64>,

    /// Wait so long before each answer, for example 200ms
    #[arg(long, default_value = "0s", value_parser = cli::duration, value_name = "TIME")]
    delay: Duration,

    /// The status to answer with: always, or with --fail-rate (then 500 if left out) as the failure
    #[arg(long, value_parser = status, value_name = "STATUS")]
    status: Option<StatusCode>,

    /// End after so many deliveries
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    count: Option<u64>,
}

/// What a connection needs to know.
struct Subscriber {
    args: Args,
    world: World,
    received: AtomicU64,
    failed: AtomicU64,
    /// Cancelled when enough has come, or nobody reads what is printed.
    end: CancellationToken,
}

/// Listens until a signal, or until `--count` deliveries have come.
pub(crate) async fn run(args: Args, world: World) -> Result<(), Fault> {
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        let address = args.listen;
        Fault::Failed(format!(
            "cannot listen on {address}: {error}; --listen names another address"
        ))
    })?;
    let address = listener.local_addr().map_err(|error| Fault::Failed(error.to_string()))?;
    output::note(&hint::text(address));
    let subscriber = Arc::new(Subscriber {
        args,
        world,
        received: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        end: CancellationToken::new(),
    });
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| Fault::Failed(format!("cannot wait for signals: {error}")))?;
    let connections = TaskTracker::new();
    tokio::select! {
        () = accept(&listener, &subscriber, &connections) => {}
        () = subscriber.end.cancelled() => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    subscriber.end.cancel();
    connections.close();
    let _ = tokio::time::timeout(FAREWELL_TIME, connections.wait()).await;
    output::note(&subscriber.summary());
    Ok(())
}

async fn accept(listener: &TcpListener, subscriber: &Arc<Subscriber>, tasks: &TaskTracker) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(slot) = free.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let subscriber = subscriber.clone();
                tasks.spawn(async move {
                    serve(stream, subscriber).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Most likely no descriptor is free; one will be, once a connection ends.
                output::note(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, subscriber: Arc<Subscriber>) {
    let _ = stream.set_nodelay(true);
    let end = subscriber.end.clone();
    let answer = service_fn(move |request| {
        let subscriber = subscriber.clone();
        async move { Ok::<_, Infallible>(subscriber.answer(request).await) }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits::HEAD_TIME)
            .serve_connection(TokioIo::new(stream), answer)
    );
    // A connection that breaks is the other side's to report.
    tokio::select! {
        _ = &mut connection => {}
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

// === impl Subscriber ===

impl Subscriber {
    async fn answer(&self, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                output::note(&format!("a delivery that cannot be read: {error}"));
                return empty(StatusCode::PAYLOAD_TOO_LARGE);
            }
        };
        let number = self.received.fetch_add(1, Ordering::Relaxed) + 1;
        if self.args.count.is_some_and(|count| number > count) {
            return empty(StatusCode::SERVICE_UNAVAILABLE);
        }
        tokio::time::sleep(self.args.delay).await;
        let status = self.status();
        if !status.is_success() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        let now_ms = self.world.clock.now_ms();
        let delivery = Delivery { number, now_ms, head: &head, body: &body, status };
        let closed = self.print(&delivery).is_err();
        if closed || self.args.count == Some(number) {
            self.end.cancel();
        }
        empty(status)
    }

    fn print(&self, delivery: &Delivery<'_>) -> Result<(), Fault> {
        match (self.args.quiet, self.args.json) {
            (true, _) => Ok(()),
            (false, true) => output::line(&delivery.json()),
            (false, false) => output::line(&delivery.to_string()),
        }
    }

    fn status(&self) -> StatusCode {
        let Some(rate) = self.args.fail_rate else {
            return self.args.status.unwrap_or(StatusCode::OK);
        };
        if unit(self.world.entropy.next_u64()) < rate {
            self.args.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            StatusCode::OK
        }
    }

    fn summary(&self) -> String {
        let received = self.received.load(Ordering::Relaxed);
        let received = self.args.count.map_or(received, |count| received.min(count));
        let failed = self.failed.load(Ordering::Relaxed);
        format!("{received} deliveries, {failed} answered with a failure")
    }
}

fn empty(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

/// A number from 0 up to, not including, 1, out of 64 random bits.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a share from 0 (never) to 1 (always)".to_owned()),
    }
}

fn status(text: &str) -> Result<StatusCode, String> {
    match text.parse() {
        Ok(status @ 200..=599) => StatusCode::from_u16(status).map_err(|error| error.to_string()),
        _ => Err("give a status from 200 to 599".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dice_stay_below_one() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u64::MAX) < 1.0);
        assert_eq!(unit(1 << 63), 0.5);
    }

    #[test]
    fn shares_and_statuses_have_bounds() {
        assert_eq!(share("0.3"), Ok(0.3));
        for wrong in ["-0.1", "1.1", "NaN", "x"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert_eq!(status("503"), Ok(StatusCode::SERVICE_UNAVAILABLE));
        for wrong in ["100", "199", "600", "x"] {
            assert!(status(wrong).is_err(), "{wrong}");
        }
    }
}
