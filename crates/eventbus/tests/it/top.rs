//! `eventbus top` beside a running bus: as a table, as JSON, and on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::program::{run, within};
use crate::served::Bus;
use crate::subscriber::Subscriber;

/// A bus that delivers to one Subscription and fails to deliver to another.
async fn bus() -> (Bus, [Subscriber; 2]) {
    let bus = Bus::start().await;
    let (well, fails) = (Subscriber::start().await, Subscriber::answering(|_| 503).await);
    bus.activate().await;
    bus.subscribe("well", "order.created", &well.url()).await;
    bus.subscribe("fails", "order.paid", &fails.url()).await;
    assert_eq!(bus.publish("order.paid", &json!(1)).await, "published");
    bus.metrics_with("subscription=\"fails\"} 1").await;
    (bus, [well, fails])
}

async fn top(bus: &Bus, args: &[&str]) -> crate::program::Ended {
    let kubeconfig = bus.data_dir().join("kubeconfig");
    let place = ["top", "--kubeconfig", kubeconfig.to_str().unwrap(), "--interval", "300ms"];
    run(&[&place, args].concat(), "").await
}

#[tokio::test]
async fn where_no_terminal_is_it_prints_one_table() {
    let (bus, _subscribers) = bus().await;
    // The last is for a terminal, and says the same here.
    for args in [&[][..], &["--once"]] {
        let ended = top(&bus, args).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stdout.contains("broker up, API up, ready\n"), "{ended:?}");
        let lagging = ended.stdout.lines().find(|line| line.contains("fails")).unwrap();
        assert!(lagging.starts_with("stage      fails                  1 "), "{ended:?}");
        assert!(!ended.stdout.contains("well") && !ended.stdout.contains('\u{1b}'), "{ended:?}");
    }
}

#[tokio::test]
async fn as_json_it_tells_what_happened_meanwhile() {
    let (bus, _subscribers) = bus().await;
    let publishing = async {
        loop {
            assert_eq!(bus.publish("order.created", &json!("abc")).await, "published");
        }
    };
    let ended = tokio::select! {
        ended = top(&bus, &["--json"]) => ended,
        () = publishing => unreachable!(),
    };
    assert_eq!(ended.code, 0, "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let number = |pointer: &str| told.pointer(pointer).and_then(Value::as_f64).unwrap_or(-1.0);
    assert!(number("/published/events_per_s") > 1.0, "{told}");
    let payload = number("/published/bytes_per_s") / number("/published/events_per_s");
    assert!((payload - 5.0).abs() < 1e-6, "{told}");
    assert_eq!(number("/published/failed_share"), 0.0, "{told}");
    let (p50, p99) = (number("/published/p50_s"), number("/published/p99_s"));
    assert!(p50 > 0.0 && p50 <= p99, "{told}");
    assert!(number("/end_to_end/p99_s") > 0.0 && number("/cpus") > 0.0, "{told}");
    assert!(number("/commits/events_each") >= 1.0, "{told}");
    assert_eq!(told["worst"][0]["subscription"], "fails", "{told}");
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_said() {
    let gone = run(&["top", "--once", "--url", "http://127.0.0.1:1"], "").await;
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(gone.stderr.starts_with("error: /metrics: "), "{gone:?}");
    for args in [
        &["--kubeconfig", "/nowhere"][..],
        &["--url", "ftp://a"],
        &["--url", "http://a", "--token-file", "/nowhere"],
    ] {
        let ended = run(&[&["top", "--once"], args].concat(), "").await;
        assert!(ended.code > 0 && ended.stderr.starts_with("error: "), "{ended:?}");
    }
    let often = run(&["top", "--interval", "1ms"], "").await;
    assert_eq!((often.code, often.stderr.contains("100ms or more")), (2, true), "{often:?}");
    let bus = Bus::start().await;
    let url = bus.api.clone();
    let closed = run(&["top", "--once", "--url", &url], "").await;
    assert!(closed.code == 1 && closed.stderr.contains("Unauthorized"), "{closed:?}");
    let token = bus.data_dir().join("token");
    let token = ["--token-file", token.to_str().unwrap(), "--interval", "100ms"];
    let open = run(&[&["top", "--once", "--url", &url], &token[..]].concat(), "").await;
    assert_eq!(open.code, 0, "{open:?}");
}

/// The program on a terminal of its own.
struct Terminal {
    child: Child,
    keys: File,
    /// Everything that it was made to show.
    shown: tokio::sync::watch::Receiver<String>,
}

impl Terminal {
    fn start(args: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = openpt(flags).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&near, size).unwrap();
        let name = ptsname(&near, Vec::new()).unwrap();
        let far: OwnedFd =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_eventbus"));
        program.args(args).stdin(far.try_clone().unwrap()).stdout(far).stderr(Stdio::piped());
        let child = program.kill_on_drop(true).spawn().unwrap();
        // It holds the far end, and its end would not be noticed.
        drop(program);
        let (sender, shown) = tokio::sync::watch::channel(String::new());
        let keys = File::from(near);
        let mut screen = keys.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                sender.send_modify(|all| all.push_str(&text));
            }
        });
        Self { child, keys, shown }
    }

    /// Waits until it shows this, after what it showed at `from`; gives where that ends.
    async fn shows(&self, wanted: &str, from: usize) -> usize {
        let found = |all: &String| Some(all.get(from..)?.find(wanted)? + from + wanted.len());
        let mut shown = self.shown.clone();
        let all = shown.wait_for(|all| found(all).is_some());
        let all = tokio::time::timeout(Duration::from_secs(60), all).await;
        let end = all.ok().and_then(|all| found(&all.unwrap()));
        end.unwrap_or_else(|| panic!("no {wanted:?} in {:?}", &self.shown.borrow()[from..]))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_it_goes_on_across_a_restart_and_a_key_ends_it() {
    let (mut bus, _subscribers) = bus().await;
    let kubeconfig = bus.data_dir().join("kubeconfig");
    let kubeconfig = kubeconfig.to_str().unwrap();
    let mut top = Terminal::start(&["top", "--kubeconfig", kubeconfig, "--interval", "100ms"]);
    let at = top.shows("\u{1b}[?1049h\u{1b}[?25l", 0).await;
    let at = top.shows("broker up, API up, ready\u{1b}[K\r\n", at).await;
    let at = top.shows("fails", at).await;
    let at = top.shows("every 0.1 s; q ends", at).await;
    bus.kill().await;
    let at = top.shows("the bus does not answer", at).await;
    // At another port.
    bus.start_again(&[]).await;
    let at = top.shows("broker up, API up, ready", at).await;
    top.keys.write_all(b"xq").unwrap();
    let status = within(top.child.wait()).await.unwrap();
    assert!(status.success(), "{status:?}");
    top.shows("\u{1b}[?25h\u{1b}[?1049l", at).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_key_ends_it_the_terminal_is_as_it_was() {
    for key in ["q", "Q", "\u{3}", "\u{1c}", "\u{4}"] {
        let mut top = Terminal::start(&["top", "--url", "http://127.0.0.1:1"]);
        let at = top.shows("; q ends", 0).await;
        // Ctrl-Z stops nothing.
        top.keys.write_all(format!("\u{1a}{key}").as_bytes()).unwrap();
        let status = within(top.child.wait()).await.unwrap();
        assert!(status.success(), "{key:?}: {status:?}");
        top.shows("\u{1b}[?25h\u{1b}[?1049l", at).await;
    }
}
