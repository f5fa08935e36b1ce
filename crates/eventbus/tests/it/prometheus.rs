//! A real Prometheus: its tool finds no fault with what the bus tells, and it scrapes it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::deploy::dashboard;
use crate::program::within;
use crate::served::Bus;
use crate::subscriber::Subscriber;

/// Prometheus, where `./test` has put it; says so where it is not.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("EVENTBUS_PROMETHEUS").map(PathBuf::from);
    let path = path.filter(|path| path.exists());
    if path.is_none() {
        println!("SKIPPED: no prometheus; ./test fetches one, EVENTBUS_PROMETHEUS names it");
    }
    path
}

fn alerts(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus").join(file)
}

/// Runs promtool, which lies beside Prometheus.
async fn promtool(prometheus: &Path, args: &[&str], input: &str) -> Output {
    let mut tool = Command::new(prometheus.with_file_name("promtool"));
    tool.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Not every command reads its input.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    within(child.wait_with_output()).await.unwrap()
}

/// A Prometheus that scrapes a bus.
struct Prometheus {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    async fn start(program: &Path, bus: &Bus) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "global": { "scrape_interval": "200ms", "evaluation_interval": "200ms" },
            "rule_files": [alerts("alerts.yaml")],
            "scrape_configs": [{
                "job_name": "eventbus",
                "authorization": { "credentials_file": bus.data_dir().join("token") },
                "static_configs": [{ "targets": [bus.api.trim_start_matches("http://")] }],
            }],
        });
        let path = dir.path().join("prometheus.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut child = Command::new(program)
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("series").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = within(async {
            loop {
                let line = lines.next_line().await.unwrap().expect("Prometheus ended");
                let address = line.split_once("msg=\"Listening on\" address=");
                if let Some((_, address)) = address {
                    return format!("http://{}", address.trim());
                }
            }
        })
        .await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, url, _dir: dir }
    }

    /// Asks its API; `None` while it does not answer well.
    async fn ask(&self, bus: &Bus, path: &str) -> Option<Value> {
        let request = Request::get(format!("{}/api/v1/{path}", self.url)).body(Full::default());
        let answer = bus.ask(request.unwrap()).await;
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// What an expression gives: the value of each series.
    async fn query(&self, bus: &Bus, expression: &str) -> Option<Vec<f64>> {
        let expression: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = self.ask(bus, &format!("query?query={expression}")).await?;
        let value = |one: &Value| one["value"][1].as_str().unwrap().parse().unwrap();
        Some(found["result"].as_array()?.iter().map(value).collect())
    }

    /// Waits until an expression gives these.
    async fn shows(&self, bus: &Bus, expression: &str, wanted: &[f64]) {
        let mut found = None;
        let shown = async {
            while found.as_deref() != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(100)).await;
                found = self.query(bus, expression).await;
            }
        };
        let shown = tokio::time::timeout(Duration::from_secs(60), shown).await;
        assert!(shown.is_ok(), "{expression}: {found:?}, and not {wanted:?}");
    }
}

#[tokio::test]
async fn its_tool_finds_no_fault_with_the_metrics() {
    let Some(program) = program() else { return };
    let (bus, subscriber) = (Bus::start().await, Subscriber::start().await);
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    assert_eq!(bus.publish("order.created", &json!(1)).await, "published");
    let page = bus.metrics_with("subscription=\"orders\"").await;
    let checked = promtool(&program, &["check", "metrics"], &page).await;
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}\n{page}");
    let wrong = page.replace("eventbus_ignored_events_total", "eventbus_ignored_events");
    let checked = promtool(&program, &["check", "metrics"], &wrong).await;
    assert!(!checked.status.success(), "it would find one");
}

#[tokio::test]
async fn its_tool_finds_no_fault_with_the_alerts() {
    let Some(program) = program() else { return };
    for (what, file) in [("check", "alerts.yaml"), ("test", "alerts.test.yaml")] {
        let file = alerts(file);
        let checked = promtool(&program, &[what, "rules", file.to_str().unwrap()], "").await;
        assert!(checked.status.success(), "{checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_scrapes_the_bus_and_what_is_deployed_works_on_it() {
    let Some(program) = program() else { return };
    let (bus, subscriber) = (Bus::start().await, Subscriber::start().await);
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    for number in 0..3 {
        assert_eq!(bus.publish("order.created", &json!(number)).await, "published");
    }
    subscriber.wait_for(3).await;
    let mut prometheus = Prometheus::start(&program, &bus).await;
    for (series, wanted) in [
        ("up{job=\"eventbus\"}", 1.0),
        ("eventbus_broker_up", 1.0),
        ("eventbus_api_up", 1.0),
        ("eventbus_published_events_total", 3.0),
        ("eventbus_publish_duration_seconds_count", 3.0),
        ("eventbus_delivered_events_total", 3.0),
        ("eventbus_delivery_attempts_total{outcome=\"success\"}", 3.0),
        ("eventbus_end_to_end_duration_seconds_bucket{le=\"+Inf\"}", 3.0),
        ("eventbus_commit_events_sum", 3.0),
        ("eventbus_subscriptions{state=\"active\"}", 1.0),
        ("eventbus_subscription_lag_events{subscription=\"orders\"}", 0.0),
        ("eventbus_component_up{component=\"push\"}", 1.0),
    ] {
        prometheus.shows(&bus, series, &[wanted]).await;
    }
    // In OpenMetrics a counter is called by its name alone: that is what was agreed on.
    let metadata = prometheus.ask(&bus, "targets/metadata?metric=eventbus_published_events").await;
    assert_eq!(metadata.unwrap()[0]["type"], "counter");
    let targets = prometheus.ask(&bus, "targets").await.unwrap();
    assert_eq!(targets["activeTargets"][0]["lastError"], "", "{targets}");
    for (query, _) in dashboard() {
        let query = query.replace("$job", ".*").replace("$instance", ".*");
        let query = query.replace("$__rate_interval", "1m");
        assert!(prometheus.query(&bus, &query).await.is_some(), "{query}");
    }
    within(async {
        loop {
            let rules = prometheus.ask(&bus, "rules").await.unwrap_or_default();
            let rules = rules["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
            if !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok") {
                assert!(rules.iter().all(|rule| rule["state"] == "inactive"), "{rules:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    prometheus.child.kill().await.unwrap();
}
