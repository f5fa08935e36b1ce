//! Subscribers: one that answers as it is told and remembers what it got, and one that misbehaves
//! byte by byte.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A subscriber with a mind of its own.
pub(crate) struct Subscriber {
    pub(crate) shared: Arc<Shared>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

/// What a subscriber remembers.
pub(crate) struct Shared {
    /// Every request, in the order of arrival.
    pub(crate) got: Mutex<Vec<Got>>,
    /// Statuses to answer by payload, the next one first; an empty list answers 204.
    pub(crate) statuses: Mutex<HashMap<String, Vec<u16>>>,
    /// The status where no list is.
    pub(crate) default_status: AtomicUsize,
    /// An answer takes one permit; closed until permits are added, when `is_gated`.
    pub(crate) gate: Semaphore,
    pub(crate) is_gated: std::sync::atomic::AtomicBool,
    /// Requests in work, now and at most.
    pub(crate) in_work: AtomicUsize,
    pub(crate) in_work_max: AtomicUsize,
    /// Connections accepted.
    pub(crate) connections: AtomicUsize,
    /// Connections that ended.
    pub(crate) closed: AtomicUsize,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: String,
}

impl Subscriber {
    /// A subscriber that answers 204.
    pub(crate) async fn start() -> Self {
        Self::start_over(|stream| async { Some(stream) }).await
    }

    /// The same over what `wrap` makes of a connection.
    pub(crate) async fn start_over<S, F, W>(wrap: W) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
        W: Fn(TcpStream) -> F + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            got: Mutex::default(),
            statuses: Mutex::default(),
            default_status: AtomicUsize::new(204),
            gate: Semaphore::new(0),
            is_gated: false.into(),
            in_work: AtomicUsize::new(0),
            in_work_max: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, shared.clone(), wrap));
        Self { shared, address, _tasks: tasks }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Lets no request be answered until [`Self::open_gate`].
    pub(crate) fn close_gate(&self) {
        self.shared.is_gated.store(true, Ordering::SeqCst);
    }

    /// Lets `count` requests be answered.
    pub(crate) fn open_gate(&self, count: usize) {
        self.shared.gate.add_permits(count);
    }

    /// Answers requests with this payload with these statuses, then 204.
    pub(crate) fn answer(&self, payload: &str, mut statuses: Vec<u16>) {
        statuses.reverse();
        self.shared.statuses.lock().unwrap().insert(payload.to_owned(), statuses);
    }

    /// Answers every other request so.
    pub(crate) fn answer_all(&self, status: u16) {
        self.shared.default_status.store(status.into(), Ordering::SeqCst);
    }

    /// The payloads that arrived, in order.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.shared.got.lock().unwrap().iter().map(|got| got.payload.clone()).collect()
    }

    /// Requests that arrived.
    pub(crate) fn count(&self) -> usize {
        self.shared.got.lock().unwrap().len()
    }

    /// Requests in work now.
    pub(crate) fn in_work(&self) -> usize {
        self.shared.in_work.load(Ordering::SeqCst)
    }

    /// Requests in work at most.
    pub(crate) fn in_work_max(&self) -> usize {
        self.shared.in_work_max.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.connections() - self.shared.closed.load(Ordering::SeqCst)
    }

    /// Connections accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn serve<S, F, W>(listener: TcpListener, shared: Arc<Shared>, wrap: W)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Option<S>> + Send + 'static,
    W: Fn(TcpStream) -> F + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (shared, stream) = (shared.clone(), wrap(stream));
        connections.spawn(async move {
            if let Some(stream) = stream.await {
                let service = service_fn(|request| answer(shared.clone(), request));
                let io = TokioIo::new(stream);
                let _ = http1::Builder::new().serve_connection(io, service).await;
            }
            shared.closed.fetch_add(1, Ordering::SeqCst);
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let payload = String::from_utf8_lossy(&body).into_owned();
    let _in_work = InWork::begin(shared.clone());
    let path = head.uri.to_string();
    let got = Got { path, headers: head.headers, payload: payload.clone() };
    shared.got.lock().unwrap().push(got);
    if shared.is_gated.load(Ordering::SeqCst) {
        shared.gate.acquire().await.unwrap().forget();
    }
    let listed = shared.statuses.lock().unwrap().get_mut(&payload).map(|list| list.pop());
    let default = shared.default_status.load(Ordering::SeqCst) as u16;
    let status = listed.map_or(default, |status| status.unwrap_or(204));
    Ok(Response::builder().status(status).body(Full::default()).unwrap())
}

/// A request in work, also when its connection is closed before it is answered.
struct InWork(Arc<Shared>);

impl InWork {
    fn begin(shared: Arc<Shared>) -> Self {
        let now = shared.in_work.fetch_add(1, Ordering::SeqCst) + 1;
        shared.in_work_max.fetch_max(now, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.in_work.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A subscriber that does with each connection what it is told. Tells its URL; it ends with the
/// returned set.
pub(crate) async fn raw<F, B>(behave: B) -> (String, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
    B: Fn(usize, TcpStream) -> F + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/in", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(behave(number, stream));
            number += 1;
        }
    });
    (url, tasks)
}

/// Reads one request, head and body; `None` at the end of the stream.
pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                return Some(text);
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}
