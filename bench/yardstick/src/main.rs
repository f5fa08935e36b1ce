//! `yardstick`: the least an HTTP server can do, to measure the bus against.
//!
//! `bare` reads each body and answers 204: what publishing would cost if nothing were done with the
//! event. `relay` also posts the body on and answers after the subscriber's 2xx: what delivering
//! would cost if nothing were stored. `bridge` stores each body in JetStream and delivers it from
//! there: what both would cost without any feature. `client` posts as fast as it is answered: what
//! deliveries are measured against. All use what a production server would (hyper, tokio with its
//! default number of threads, mimalloc), so that a ratio to them says what the bus costs.

mod bridge;
mod client;

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bridge::Bridge;
use bytes::Bytes;
use clap::{Parser, Subcommand};
use client::Client as BareClient;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Servers that do as little as possible.
#[derive(Debug, Parser)]
#[command(name = "yardstick", version)]
struct Cli {
    /// The address to listen on; port 0 chooses a free one. The first line printed names it
    #[arg(long, global = true, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,

    #[command(subcommand)]
    yardstick: Yardstick,
}

#[derive(Debug, Subcommand)]
enum Yardstick {
    /// Read the body, answer 204
    Bare {
        /// Speak HTTP/2 alone
        #[arg(long)]
        http2: bool,
    },
    /// Read the body, post it on, answer 204 after a 2xx, else 502
    Relay {
        /// Where to post each body
        #[arg(long, value_name = "URL")]
        to: Uri,
    },
    /// Store the body in JetStream, answer 204; deliver from there
    Bridge {
        /// The NATS server
        #[arg(long, value_name = "URL")]
        nats: String,
        /// Where to post each body; left out, nothing is delivered
        #[arg(long, value_name = "URL")]
        to: Option<Uri>,
        /// Requests under way at once
        #[arg(long, default_value_t = 400)]
        inflight: usize,
        /// Servers that keep each event
        #[arg(long, default_value_t = 1)]
        replicas: usize,
    },
    /// Post to a server, and print how many posts it answered in a second
    Client {
        /// Where to post
        #[arg(long, value_name = "URL")]
        to: Uri,
        /// Connections, each with one request under way
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Speak HTTP/2 over so many connections instead, with as many requests under way
        #[arg(long, value_name = "CONNECTIONS")]
        http2: Option<usize>,
        /// Bytes of each body
        #[arg(long, default_value_t = 1024)]
        payload: usize,
        /// For so long
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

/// What happens to a body once it is read.
enum Work {
    Drop,
    PostOn { client: Box<Client<HttpConnector, Full<Bytes>>>, to: Uri },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is ended.
async fn serve(cli: Cli) -> io::Result<()> {
    let listen = cli.listen;
    let http2 = matches!(cli.yardstick, Yardstick::Bare { http2: true });
    let work = Arc::new(match cli.yardstick {
        Yardstick::Bridge { nats, to, inflight, replicas } => {
            return Bridge { listen, nats, to, inflight, replicas }.serve().await;
        }
        Yardstick::Client { to, connections, http2, payload, seconds } => {
            let time = Duration::from_secs(seconds);
            let rate = BareClient { to, connections, http2, payload, time }.rate().await?;
            return writeln!(io::stdout(), "{rate:.0}");
        }
        Yardstick::Bare { .. } => Work::Drop,
        Yardstick::Relay { to } => {
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            let client = Client::builder(TokioExecutor::new()).build(connector);
            Work::PostOn { client: Box::new(client), to }
        }
    });
    let listener = TcpListener::bind(listen).await?;
    writeln!(io::stdout(), "http://{}/", listener.local_addr()?)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(serve_connection(stream, work.clone(), http2));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, work: Arc<Work>, http2: bool) {
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let work = work.clone();
        async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = work.on(request).await;
            Ok::<_, Infallible>(response)
        }
    });
    // A client that goes away is no event here.
    if http2 {
        let server = http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), answer).await;
    } else {
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
    }
}

// === impl Work ===

impl Work {
    async fn on(&self, request: Request<Incoming>) -> StatusCode {
        let Ok(body) = request.into_body().collect().await else {
            return StatusCode::BAD_REQUEST;
        };
        match self {
            Self::Drop => StatusCode::NO_CONTENT,
            Self::PostOn { client, to } => post_on(client, to, body.to_bytes()).await,
        }
    }
}

async fn post_on(client: &Client<HttpConnector, Full<Bytes>>, to: &Uri, body: Bytes) -> StatusCode {
    let request = Request::post(to).header(CONTENT_TYPE, "application/json").body(Full::new(body));
    let Ok(request) = request else {
        return StatusCode::BAD_GATEWAY;
    };
    match client.request(request).await {
        Ok(response) if response.status().is_success() => {
            // Read to its end, so that the connection can be used again.
            match response.into_body().collect().await {
                Ok(_) => StatusCode::NO_CONTENT,
                Err(_) => StatusCode::BAD_GATEWAY,
            }
        }
        _ => StatusCode::BAD_GATEWAY,
    }
}
