//! Measures the API server in process, with the tests' definitions in FILE, in an empty FOLDER:
//! `cargo run --release -p eventbus-apiserver --example measure -- FILE FOLDER [COUNT]`.
//! Prints what each step took, and the process's memory after it.
#![expect(clippy::print_stdout, reason = "what it measures is for whoever started it")]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use eventbus_apiserver::{ApiServer, Config, Service};
use eventbus_core::testing::{ManualClock, SeededEntropy};
use futures::{StreamExt, future::join_all};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::Service as _;

const PATH: &str = "/apis/shop.example/v1";
const WRITERS: usize = 32;
const WATCHERS: usize = 100;
const ROUND: Duration = Duration::from_secs(5);

/// Makes every status another.
static MADE: AtomicU64 = AtomicU64::new(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [definitions, folder, count @ ..] = arguments.as_slice() else {
        return Err("usage: measure FILE FOLDER [COUNT]".into());
    };
    let count: usize = count.first().map_or(Ok(10_000), |count| count.parse())?;
    let server = ApiServer::open(Config {
        path: PathBuf::from(folder).join("resources.db"),
        definitions: serde_json::from_slice(&std::fs::read(definitions)?)?,
        audit: None,
        clock: Arc::new(ManualClock::at(1_700_000_000_000)),
        entropy: Arc::new(SeededEntropy::new(1)),
    })
    .await?;
    let service = server.service();
    say("open");
    let begun = Instant::now();
    join_all((0..WRITERS).map(|writer| create(service.clone(), writer, count))).await;
    rate("create", count, begun);
    let begun = Instant::now();
    let all = send(&service, "GET", &format!("{PATH}/widgets"), None).await;
    println!("list of {count}: {:?}, {} bytes", begun.elapsed(), all.len());
    drop(all);
    say("after the list");
    let begun = Instant::now();
    let page = send(&service, "GET", &format!("{PATH}/widgets?limit=500"), None).await;
    println!("page of 500: {:?}, {} bytes", begun.elapsed(), page.len());
    let begun = Instant::now();
    let written = statuses(&service, count).await;
    rate("status writes", written, begun);
    let watchers: Vec<_> = (0..WATCHERS).map(|_| tokio::spawn(watch(service.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    let written = statuses(&service, count).await;
    rate("status writes under 100 watchers", written, begun);
    let (mut seen, mut expired) = (Vec::new(), 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.close().await;
    for watcher in watchers {
        let (events, gone) = watcher.await?;
        seen.push(events);
        expired += usize::from(gone);
    }
    println!(
        "events seen by each watcher: {:?} to {:?}, {expired} expired",
        seen.iter().min(),
        seen.iter().max()
    );
    say("at the end");
    Ok(())
}

async fn create(service: Service, writer: usize, count: usize) {
    for number in (writer..count).step_by(WRITERS) {
        let widget = json!({
            "apiVersion": "shop.example/v1", "kind": "Widget",
            "metadata": { "name": format!("widget-{number}"), "labels": { "app": "measure" } },
            "spec": { "size": 3, "color": "red", "source_id": "x".repeat(300) },
        });
        let path = format!("{PATH}/namespaces/n{}/widgets", number % 50);
        send(&service, "POST", &path, Some(widget)).await;
    }
}

/// Writes statuses for a while; how many.
async fn statuses(service: &Service, count: usize) -> usize {
    let until = Instant::now() + ROUND;
    let writers = (0..WRITERS).map(|writer| async move {
        let mut written = 0;
        for number in (writer..count).step_by(WRITERS).cycle() {
            if Instant::now() >= until {
                break;
            }
            let path = format!("{PATH}/namespaces/n{}/widgets/widget-{number}/status", number % 50);
            written += 1;
            let made = MADE.fetch_add(1, Ordering::Relaxed);
            let status = json!({ "status": { "made": made, "conditions": [
                { "type": "ready", "status": "True", "reason": "Measured" },
            ] } });
            send(service, "PATCH", &path, Some(status)).await;
        }
        written
    });
    join_all(writers).await.into_iter().sum()
}

/// Counts the lines of a watch until it ends, and whether it was told to list again.
async fn watch(service: Service) -> (usize, bool) {
    let list = send(&service, "GET", &format!("{PATH}/widgets?limit=1"), None).await;
    let list: Value = serde_json::from_slice(&list).unwrap_or_default();
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let path = format!("{PATH}/widgets?watch=1&resourceVersion={revision}");
    let request = Request::get(path).body(http_body_util::Empty::<Bytes>::new());
    let Ok(request) = request else { return (0, false) };
    let Ok(answer) = service.clone().call(request).await;
    let mut lines = answer.into_body().into_data_stream();
    let (mut events, mut expired) = (0, false);
    while let Some(Ok(line)) = lines.next().await {
        expired |= line.starts_with(b"{\"type\":\"ERROR\"");
        events += 1;
    }
    (events, expired)
}

async fn send(service: &Service, method: &str, path: &str, body: Option<Value>) -> Bytes {
    let media_type =
        if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = http_body_util::Full::new(Bytes::from(
        body.map(|body| body.to_string()).unwrap_or_default(),
    ));
    let request = Request::builder().method(method).uri(path).header("content-type", media_type);
    let Ok(request) = request.body(body) else { return Bytes::new() };
    let Ok(answer) = service.clone().call(request).await;
    let code = answer.status();
    let Ok(body) = answer.into_body().collect().await;
    let body = body.to_bytes();
    if !code.is_success() {
        println!("{method} {path}: {code}: {}", String::from_utf8_lossy(&body));
    }
    body
}

fn rate(what: &str, count: usize, begun: Instant) {
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.2} s, {:.0}/s", count as f64 / seconds);
    say(what);
}

/// The process's memory, as Linux tells it.
fn say(what: &str) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory =
        status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    println!("  {what}: {}", memory.collect::<Vec<_>>().join(", ").replace('\t', " "));
}
