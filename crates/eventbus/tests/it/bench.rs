//! `eventbus bench` against a stand-in for a bus: it measures a good one, and finds every flaw of a
//! bad one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bus::{Bus, Flaw};
use crate::program::{Ended, run, start, within};
use crate::server::{Server, answer};

const SHORT: &str = "--connections 4 --events 200 --warm-up 20ms --payload 200 --json";

async fn bench(args: &str) -> Ended {
    let args: Vec<&str> = ["bench"].into_iter().chain(args.split_whitespace()).collect();
    run(&args, "").await
}

async fn bench_bus(bus: &Bus, args: &str) -> Ended {
    let (url, kubeconfig) = (bus.publish_url(), &bus.kubeconfig);
    bench(&format!("--url {url} --kubeconfig {kubeconfig} {SHORT} {args}")).await
}

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
}

fn result(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["version"].is_string() && report["machine"].is_string(), "{report}");
    report["result"].clone()
}

/// The answers in the measured time: to the 200 asked for, and to those under way when it began.
fn assert_about_200(result: &Value) {
    let events = result["published"]["events"].as_u64().unwrap();
    assert!((200..=204).contains(&events), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_bus_is_measured_end_to_end() {
    let bus = Bus::start(Flaw::None).await;
    let ended = bench_bus(&bus, "--event-types 3 --fan-out 2 --subscriptions 8 --window 64").await;
    let result = result(&ended);
    assert_about_200(&result);
    assert_eq!(result["deliveries"].as_u64(), result["events"].as_u64().map(|all| all * 2));
    let latency = &result["delivered"]["latency"];
    assert!(latency["p99_us"].as_u64() >= latency["p50_us"].as_u64(), "{result}");
    assert!(bus.is_cleaned_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn open_loop_publishes_what_was_asked_for() {
    let bus = Bus::start(Flaw::None).await;
    let result = result(&bench_bus(&bus, "--rate 1000").await);
    assert_about_200(&result);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_mode_activates_afterwards_and_then_everything_arrives() {
    let bus = Bus::start(Flaw::None).await;
    let result = result(&bench_bus(&bus, "--mode publish").await);
    assert_eq!(result["delivered"], Value::Null);
    assert_eq!(result["deliveries"], result["events"]);
    assert!(result["backlog"].as_u64() >= Some(200), "nothing was delivered before: {result}");
    assert!(bus.is_cleaned_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_published_like_single_events() {
    for mode in ["--mode publish", "--mode end-to-end --window 80", "--rate 2000"] {
        let bus = Bus::start(Flaw::None).await;
        let result = result(&bench_bus(&bus, &format!("--batch 20 --event-types 3 {mode}")).await);
        let events = result["published"]["events"].as_u64().unwrap();
        // Of four connections: the batches under way when the measured time began.
        assert!((200..=280).contains(&events) && events.is_multiple_of(20), "{mode}: {result}");
        assert_eq!((&result["batch"], &result["durability"]), (&20.into(), &"synced".into()));
        assert!(result["requests_per_s"].as_f64() > Some(0.0), "{result}");
        assert_eq!(result["deliveries"], result["events"]);
        assert!(bus.is_cleaned_up());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flaw_is_found() {
    for (flaw, why) in [
        (Flaw::Ignores, "\"status\":\"ignored\""),
        (Flaw::Refuses, "503"),
        (Flaw::Loses, "1 of "),
        (Flaw::Repeats, "1 events arrived more than once"),
        (Flaw::Corrupts, "no payload of this run"),
        (Flaw::Confuses, "with the id of another"),
        (Flaw::Misdirects, "to Subscription"),
    ] {
        for mode in ["--mode end-to-end", "--mode publish", "--mode publish --batch 10"] {
            let bus = Bus::start(flaw).await;
            let ended = bench_bus(&bus, &format!("{mode} --event-types 2 --patience 1s")).await;
            assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{flaw:?} {mode}");
            assert!(ended.stderr.contains(why), "{flaw:?} {mode}: {}", ended.stderr);
            assert!(bus.is_cleaned_up(), "{flaw:?} {mode}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_grows_fails_an_end_to_end_run() {
    let bus = Bus::start(Flaw::Lags).await;
    let ended = bench_bus(&bus, "--duration 1s --rate 3000").await;
    assert_eq!(ended.code, 2, "--events and --duration exclude each other");
    let to = format!("--url {} --kubeconfig {}", bus.publish_url(), bus.kubeconfig);
    let load = "--connections 16 --duration 1s --warm-up 0s --rate 3000";
    let ended = bench(&format!("{to} {load}")).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("the backlog grew"), "{}", ended.stderr);
    assert!(bus.is_cleaned_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn isolation_has_five_bad_endpoints_of_five_kinds() {
    let bus = Bus::start(Flaw::None).await;
    let ended = bench_bus(&bus, "--mode isolation --subscriptions 10 --pairs 1 --rate 500").await;
    // Whether such a short run on a busy machine keeps the bounds says nothing; the figures count.
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let pair = &report["result"]["pairs"][0];
    assert_eq!((&pair["without"]["checked"], &pair["with"]["checked"]), (&10.into(), &5.into()));
    assert!(report["result"]["summary"]["p99_ratio"].is_number(), "{report}");
    assert!(bus.is_cleaned_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_cleans_up() {
    let bus = Bus::start(Flaw::None).await;
    let (url, kubeconfig) = (bus.publish_url(), &bus.kubeconfig);
    let args = format!("bench --url {url} --kubeconfig {kubeconfig} --duration 1h --rate 10");
    let running = start(&args.split_whitespace().collect::<Vec<_>>());
    bus.until_published(1).await;
    running.interrupt();
    let (status, _, stderr) = running.ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("interrupted"), "{stderr}");
    assert!(bus.is_cleaned_up());
}

#[tokio::test]
async fn the_bare_yardstick_is_measured_without_subscribers() {
    let bare = Server::start(async |_| answer(204, "")).await;
    let url = bare.url("/");
    let ended = bench(&format!("--target bare --mode publish --url {url} {SHORT}")).await;
    assert_about_200(&result(&ended));
    let wrong = Server::start(async |_| answer(200, "")).await;
    let url = wrong.url("/");
    let ended = bench(&format!("--target bare --mode publish --url {url} {SHORT}")).await;
    assert_eq!(ended.code, 1);
}

#[tokio::test]
async fn what_fell_due_before_the_end_is_charged_however_late_it_is() {
    // Fifty events are answered at once; then nothing is, for two seconds.
    let (taken, silent_from) = (Arc::new(AtomicU64::new(0)), Arc::new(OnceLock::new()));
    let server = Server::start(move |_| {
        let (taken, silent_from) = (taken.clone(), silent_from.clone());
        async move {
            if taken.fetch_add(1, Ordering::Relaxed) >= 50 {
                let from = *silent_from.get_or_init(Instant::now);
                tokio::time::sleep_until(from + Duration::from_secs(2)).await;
            }
            answer(204, "")
        }
    })
    .await;
    let load = "--connections 4 --rate 100 --warm-up 0s --duration 1s --json";
    let to = format!("--target bare --mode publish --url {}", server.url("/"));
    let result = result(&bench(&format!("{to} {load}")).await);
    // The silence goes on for more than a second after the last of them fell due.
    assert!(result["published"]["latency"]["p90_us"].as_u64() >= Some(1_000_000), "{result}");
    assert!(result["events"].as_u64() >= Some(100), "{result}");
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_opened_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(take_one_and_close(stream));
        }
    });
    let load = "--connections 4 --rate 20 --warm-up 0s --events 12 --json";
    let to = format!("--target bare --mode publish --url http://{address}/");
    // One may have been under way when the measured time began.
    assert!(result(&bench(&format!("{to} {load}")).await)["events"].as_u64() >= Some(12));
}

/// Answers as if the connection would stay, and closes it.
async fn take_one_and_close(mut stream: TcpStream) {
    if stream.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    }
}

#[tokio::test]
async fn what_goes_wrong_while_it_warms_up_ends_the_run() {
    let taken = Arc::new(AtomicU64::new(0));
    let counted = taken.clone();
    let server = Server::start(move |_| {
        let is_good = counted.fetch_add(1, Ordering::Relaxed) != 20;
        async move {
            if !is_good {
                return answer(500, "");
            }
            // The others still wait for theirs when the run has failed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer(204, "")
        }
    })
    .await;
    let load = "--connections 4 --warm-up 1h --duration 1h";
    let to = format!("--target bare --mode publish --url {}", server.url("/"));
    let ended = bench(&format!("{to} {load}")).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("was not published: 500"), "{ended:?}");
    // Each of the connections may have had one under way.
    assert!(taken.load(Ordering::Relaxed) <= 20 + 2 * 4, "{taken:?}");
}

#[tokio::test]
async fn an_argument_need_not_be_text() {
    let server = Server::start(async |_| answer(204, "")).await;
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join(OsStr::from_bytes(b"\xff.html"));
    let to = format!("bench --target bare --mode publish --url {} {SHORT}", server.url("/"));
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_eventbus"));
    command.args(to.split_whitespace()).arg("--html").arg(&page).kill_on_drop(true);
    let ended: Ended = within(command.output()).await.unwrap().into();
    assert_about_200(&result(&ended));
    assert!(page.exists());
}

#[tokio::test]
async fn wrong_usage_and_a_missing_kubeconfig_are_told_apart_from_failure() {
    for args in ["--rate 0", "--target bare", "--mode kill", "--kubeconfig /does/not/exist"] {
        let ended = bench(args).await;
        assert_eq!(ended.code, 2, "{args} {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_bus_is_measured_end_to_end_and_publishing_only() {
    let bus = crate::served::Bus::start().await;
    let kubeconfig = bus.data_dir().join("kubeconfig").display().to_string();
    for mode in ["--mode end-to-end --window 100", "--mode publish", "--mode publish --batch 100"] {
        let to = format!("--url {}/v1/events --kubeconfig {kubeconfig}", bus.publish);
        let ended = bench(&format!("{to} {SHORT} {mode} --event-types 2 --fan-out 2")).await;
        let result = result(&ended);
        assert_eq!(result["deliveries"].as_u64(), result["events"].as_u64().map(|all| all * 2));
        assert_eq!(result["durability"], "synced");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_and_durability_of_the_real_bus_is_measured() {
    let bus = crate::served::Bus::start().await;
    let kubeconfig = bus.data_dir().join("kubeconfig").display().to_string();
    let to = format!("--url {}/v1/events --kubeconfig {kubeconfig}", bus.publish);
    for (more, durability) in [
        ("--format cloudevents-binary --durability accepted", "accepted"),
        ("--format cloudevents-structured --durability written", "written"),
        ("--format cloudevents-structured --batch 50", "synced"),
        ("--format kyma --durability synced --batch 20", "synced"),
    ] {
        let result = result(&bench(&format!("{to} {SHORT} {more} --fan-out 2 --window 200")).await);
        assert_eq!(result["durability"], durability, "{more}");
        assert_eq!(result["deliveries"].as_u64(), result["events"].as_u64().map(|all| all * 2));
    }
    let ended = bench(&format!("{to} {SHORT} --durability replicated")).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("Eventbus-Durability"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_of_the_real_bus_behave_as_they_are_told() {
    let bus = crate::served::Bus::start().await;
    let kubeconfig = bus.data_dir().join("kubeconfig").display().to_string();
    let to = format!("--url {}/v1/events --kubeconfig {kubeconfig}", bus.publish);
    let failing = "--subscriber-failures 20% --subscriber-latency 2ms --window 64";
    let failed = result(&bench(&format!("{to} {SHORT} {failing}")).await);
    assert_eq!(failed["deliveries"], failed["events"]);
    let failures = failed["failed"].as_u64().unwrap();
    assert!((20..=100).contains(&failures), "a fifth of 200 and more: {failed}");
    let slow = "--fan-out 3 --slow-subscribers 1 --slow-latency 3s --max-inflight 2 --rate 500";
    let slowed = result(&bench(&format!("{to} {SHORT} {slow}")).await);
    assert_eq!(slowed["deliveries"].as_u64(), slowed["events"].as_u64().map(|all| all * 2));
    assert_eq!(slowed["checked"], 2);
    // Two at once, each for three seconds: the healthy ones are done long before.
    assert!(slowed["slow"].as_u64() >= Some(1) && slowed["slow"].as_u64() < Some(200), "{slowed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_rate_is_searched_for() {
    let bus = Bus::start(Flaw::None).await;
    // No latency is too long here: what is tried, and what is said, does not hang on the machine.
    let search = "--find-rate --p99 1h --rate 4000000";
    let ended = bench_bus(&bus, search).await;
    let report = report(&ended);
    let steps = report["result"]["steps"].as_array().unwrap();
    let held = |step: &Value| step["broke"].is_null();
    let highest = steps
        .iter()
        .filter(|step| held(step))
        .map(|step| &step["rate_per_s"])
        .max_by(|one, other| one.as_f64().partial_cmp(&other.as_f64()).unwrap());
    assert_eq!(report["result"]["highest_rate_per_s"], highest.cloned().unwrap_or_default());
    assert_eq!(ended.code, i32::from(highest.is_none()), "{report}");
    assert!(!held(&steps[0]), "4,000,000/s is too much: {report}");
    assert!(bus.is_cleaned_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_at_which_an_event_is_lost_does_not_hold() {
    let bus = Bus::start(Flaw::Loses).await;
    let search = "--find-rate --p99 1h --rate 500 --patience 500ms";
    let ended = bench_bus(&bus, search).await;
    let report = report(&ended);
    let broke = report["result"]["steps"][0]["broke"].as_str().unwrap();
    assert!(broke.contains("1 of "), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_how_it_goes_and_nobody_else_is_told() {
    let bus = Bus::start(Flaw::None).await;
    let to = format!("--url {} --kubeconfig {}", bus.publish_url(), bus.kubeconfig);
    let args = format!("bench {to} --connections 4 --warm-up 0s --duration 2s --rate 200");
    let command = format!("{} {args}", env!("CARGO_BIN_EXE_eventbus"));
    // Gives what it runs a terminal, and hands on what that shows.
    let mut terminal = tokio::process::Command::new("script");
    terminal.args(["-qec", &command, "/dev/null"]).kill_on_drop(true);
    let shown = within(terminal.stdin(std::process::Stdio::null()).output()).await.unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("measuring  ") && shown.contains("/s delivered, p99 "), "{shown}");
    let ended = bench(&args["bench ".len()..]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bus_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let ended = bench(&format!(
        "--mode kill --data-dir {} --kills 3 --seed 7 --connections 8 --json",
        data_dir.display()
    ))
    .await;
    let result = result(&ended);
    assert_eq!((&result["kills"], &result["verdict"]["lost"]), (&3.into(), &0.into()), "{result}");
    assert!(result["verdict"]["acknowledged"].as_u64() > Some(0));
    // What was judged is there for anyone to judge again.
    let published = std::fs::read_to_string(directory.path().join("data-records/published.log"));
    assert!(published.unwrap().starts_with("S "));
}
