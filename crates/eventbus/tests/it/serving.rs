//! `eventbus serve` as a process: what it refuses, what it opens, how it ends.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::program::{run, start_unheard, within};
use crate::served::{Bus, kubectl_path};

async fn refused(args: &[&str]) -> String {
    let ended = run(&[&["serve", "--publish-listen", "127.0.0.1:0"], args].concat(), "").await;
    assert_eq!(ended.code, 2, "{ended:?}");
    ended.stderr
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().to_str().unwrap();
    let complaint = refused(&["--api-listen", &address, "--data-dir", directory]).await;
    assert!(complaint.contains(&address) && complaint.contains("Another program"), "{complaint}");
}

#[tokio::test]
async fn a_directory_that_is_in_use_or_foreign_is_named() {
    let bus = Bus::start().await;
    let in_use = bus.data_dir();
    let complaint =
        refused(&["--api-listen", "127.0.0.1:0", "--data-dir", in_use.to_str().unwrap()]).await;
    assert!(complaint.contains("in use by another process"), "{complaint}");
    let foreign = tempfile::tempdir().unwrap();
    std::fs::create_dir(foreign.path().join("log")).unwrap();
    std::fs::write(foreign.path().join("log/holiday.jpg"), "beach").unwrap();
    let path = foreign.path().to_str().unwrap();
    let complaint = refused(&["--api-listen", "127.0.0.1:0", "--data-dir", path]).await;
    assert!(complaint.contains("holiday.jpg"), "{complaint}");
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_left_as_it_was() {
    let foreign = tempfile::tempdir().unwrap();
    let path = foreign.path().to_str().unwrap();
    let args = ["--api-listen", "127.0.0.1:0", "--data-dir", path];
    for (name, text) in [("notes.txt", "milk"), ("resources.db", "an abacus"), ("log", "a day")] {
        let file = foreign.path().join(name);
        std::fs::write(&file, text).unwrap();
        let complaint = refused(&args).await;
        assert!(complaint.contains(name), "{complaint}");
        assert!(complaint.contains("name a"), "it says what to do: {complaint}");
        let names = std::fs::read_dir(file.parent().unwrap()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [name], "nothing was made");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        std::fs::remove_file(&file).unwrap();
    }
}

#[tokio::test]
async fn what_lies_beside_the_files_of_a_bus_does_not_keep_it_from_starting() {
    let mut bus = Bus::start().await;
    let (notes, log) = (bus.data_dir().join("notes.txt"), bus.data_dir().join("log"));
    std::fs::write(&notes, "milk").unwrap();
    assert_eq!(bus.stop().await, 0);
    bus.start_again(&[]).await;
    // Without a log only the names tell whose the directory is: one may be a stranger.
    assert_eq!(bus.stop().await, 0);
    std::fs::remove_dir_all(&log).unwrap();
    let path = bus.data_dir();
    let complaint =
        refused(&["--api-listen", "127.0.0.1:0", "--data-dir", path.to_str().unwrap()]).await;
    assert!(complaint.contains("notes.txt") && !log.exists(), "{complaint}");
    std::fs::remove_file(&notes).unwrap();
    std::fs::write(path.join("eventbus.toml"), "").unwrap();
    bus.start_again(&[]).await;
}

#[tokio::test]
async fn a_bad_setting_is_named_with_what_is_allowed() {
    let complaint = refused(&["--api-listen", "127.0.0.1:0", "--max-requests", "0"]).await;
    assert!(complaint.contains("max_requests is 0: it must be from 1 to 65536"), "{complaint}");
    let ended = run(&["serve", "--publish-listen", "0.0.0.0:0"], "").await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("--allow-unauthenticated-publish"), "{}", ended.stderr);
    for level in ["loud=louder", "loud", "7"] {
        let complaint = refused(&["--log-level", level]).await;
        assert!(complaint.contains("log_level") && complaint.contains("say error"), "{complaint}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let small = ["--api-listen", "127.0.0.1:0", "--data-dir", path, "--backlog-max-bytes", "0"];
    let complaint = refused(&small).await;
    assert!(complaint.contains("backlog_max_bytes is 0"), "{complaint}");
    assert!(complaint.contains("at least 67108864, the size of a segment"), "{complaint}");
}

#[tokio::test]
async fn the_kubeconfig_is_for_its_owner_and_the_token_stays() {
    let mut bus = Bus::start().await;
    let read = |name: &str| std::fs::read_to_string(bus.data_dir().join(name)).unwrap();
    let token = read("token");
    for name in ["kubeconfig", "token"] {
        let mode = std::fs::metadata(bus.data_dir().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let kubeconfig = read("kubeconfig");
    for server in [bus.api.clone(), bus.api.replace("http:", "https:")] {
        assert!(kubeconfig.contains(&format!("server: {server}\n")), "{kubeconfig}");
    }
    assert_eq!(bus.stop().await, 0);
    bus.start_again(&[]).await;
    assert_eq!(std::fs::read_to_string(bus.data_dir().join("token")).unwrap(), token);
}

#[tokio::test]
async fn a_kubeconfig_of_before_a_restart_is_still_true() {
    if kubectl_path().is_none() {
        return;
    }
    let mut bus = Bus::start().await;
    let path = bus.data_dir().join("kubeconfig");
    let (before, port) = (std::fs::read_to_string(&path).unwrap(), bus.api.clone());
    assert_eq!(bus.stop().await, 0);
    bus.start_again(&[]).await;
    // The port is another one, and nothing else: the certificate that it names stays, too.
    let address = |url: &str| url.rsplit_once('/').unwrap().1.to_owned();
    let before = before.replace(&address(&port), &address(&bus.api));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    let listed = bus.kubectl(&["get", "namespaces", "-o", "name"], "").await;
    assert_eq!((listed.stdout.as_str(), listed.stderr.as_str()), ("namespace/default\n", ""));
}

#[tokio::test]
async fn the_api_port_lets_in_who_has_the_token_and_asks_for_this_host() {
    let bus = Bus::start().await;
    let ask = |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(format!("{}{path}", bus.api));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        bus.ask(request.body(Full::<Bytes>::default()).unwrap())
    };
    assert_eq!(ask("/apis", &[]).await.status, 401);
    assert_eq!(ask("/apis", &[("authorization", "Bearer wrong")]).await.status, 401);
    for open in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(ask(open, &[]).await.status, 200, "{open}");
    }
    assert_eq!(ask("/healthz", &[("host", "evil.example")]).await.status, 403);
    assert_eq!(ask("/readyz", &[]).await.body, "ok\n");
    let verbose = ask("/readyz?verbose", &[]).await.body;
    let parts = ["lead", "catalog", "publish", "push", "sub-validator"];
    for part in parts.into_iter().chain(["shutdown", "broker"]) {
        assert!(verbose.contains(&format!("[+]{part} ok\n")), "{part}: {verbose}");
        assert_eq!(ask(&format!("/readyz/{part}"), &[]).await.body, "ok\n", "{part}");
    }
    assert_eq!(ask("/readyz/nothing", &[]).await.status, 404);
}

#[tokio::test]
async fn a_stop_answers_what_is_in_work_and_ends() {
    let mut bus = Bus::start().await;
    let address = bus.publish.trim_start_matches("http://").to_owned();
    // A request whose body comes in two halves, the second after the signal.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = crate::served::event("order.created", &serde_json::json!(1)).to_string();
    let (first, second) = body.split_at(10);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It is in work: one that the bus has not read yet may be closed.
    let mut wanted = [0; 25];
    within(stream.read_exact(&mut wanted)).await.unwrap();
    assert_eq!(&wanted, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(first.as_bytes()).await.unwrap();
    let stopping = async { bus.stop().await };
    let finishing = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        stream.write_all(second.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let (code, answer) = tokio::join!(stopping, finishing);
    assert_eq!(code, 0);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_hinders_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let ports = ["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
    let args = [&["serve", "--data-dir", path, "--log-level", "debug"], &ports[..]].concat();
    let (mut child, mut stdout) = start_unheard(&args);
    while within(stdout.next_line()).await.unwrap().unwrap() != "ready" {}
    let id = child.id().unwrap().try_into().unwrap();
    let process = rustix::process::Pid::from_raw(id).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(0));
}
