//! The short form of the fault harnesses, on the program that was built for the tests.
//!
//! The long forms and their results are in `docs/reliability/`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Dozens of starts under strace: on a busy machine that takes a while. A hang is a failure.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a harness; says aloud when it cannot run here, and shows what it said when it failed.
async fn harness(name: &str, args: &[&str]) {
    let harnesses = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../harness");
    let directory = tempfile::tempdir().unwrap();
    let run = Command::new("python3")
        .arg(harnesses.join(name))
        .args(["--program", env!("CARGO_BIN_EXE_eventbus")])
        .arg("--dir")
        .arg(directory.path())
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = match tokio::time::timeout(PATIENCE, run).await.unwrap() {
        Ok(ended) => ended,
        Err(error) => {
            println!("SKIPPED: no python3 ({error})");
            return;
        }
    };
    let said = String::from_utf8_lossy(&ended.stdout);
    if let Some(line) = said.lines().find(|line| line.starts_with("SKIPPED: ")) {
        println!("{line}");
        return;
    }
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{errors}");
}

#[tokio::test]
async fn a_kill_at_a_system_call_loses_nothing() {
    let workload = ["--events", "80", "--payload", "60000", "--step", "48"];
    harness("kill-each-syscall", &workload).await;
}

#[tokio::test]
async fn a_failed_write_or_sync_is_never_acknowledged() {
    harness("failing-disk", &["--only", "error", "--events", "40", "--step", "12"]).await;
}

#[tokio::test]
async fn without_room_the_bus_refuses_until_there_is_room() {
    let workload = ["--only", "full writes", "--events", "100", "--payload", "60000"];
    harness("failing-disk", &workload).await;
}

#[tokio::test]
async fn nothing_depends_on_a_log_line() {
    harness("failing-disk", &["--only", "deaf"]).await;
}

#[tokio::test]
async fn five_faults_of_three_nats_servers_lose_nothing() {
    let faults = ["cluster", "--faults", "5", "--pause-s", "6", "--seed", "1", "--rate", "100"];
    harness("nats-faults", &faults).await;
}

#[tokio::test]
async fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
    harness("nats-power-cut", &["--cuts", "1", "--seed", "1"]).await;
}
