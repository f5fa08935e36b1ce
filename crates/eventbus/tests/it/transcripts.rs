//! Scripts of kubectl commands, and what is printed: `tests/transcripts/*.txt` against the answers
//! kept beside them. `EVENTBUS_ACCEPT=1` writes the answers anew.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use regex::Regex;
use tokio::process::Command;

use crate::program::within;
use crate::served::{Bus, kubectl_path, old_kubectl_path};

/// What differs from run to run, and what stands for it.
const DIFFERS: [(&str, &str); 6] = [
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
    (r#"(resourceVersion"?: ?"?)\d+"#, "${1}VERSION"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"(\s)\d+m?s(\s)", "${1}AGE${2}"),
    (r"[ \t]+\n", "\n"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Plays the commands of `script` with `kubectl`, and compares with `answers`.
async fn play(kubectl: &Path, script: &str, answers: &str) {
    let bus = Bus::start().await;
    let home = tempfile::tempdir().unwrap();
    symlink(kubectl, home.path().join("kubectl")).unwrap();
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
    let differs = DIFFERS.map(|(pattern, word)| (Regex::new(pattern).unwrap(), word));
    let mut said = String::new();
    for line in std::fs::read_to_string(folder().join(script)).unwrap().lines() {
        if line.starts_with('#') {
            continue;
        }
        let ended = Command::new("sh")
            .args(["-c", line])
            .current_dir(folder())
            .env("HOME", home.path())
            .env("PATH", &path)
            .env("KUBECONFIG", bus.data_dir().join("kubeconfig"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ended = within(ended).await.unwrap();
        let mut printed = String::from_utf8(ended.stdout).unwrap();
        printed.push_str(&String::from_utf8(ended.stderr).unwrap());
        for (pattern, word) in &differs {
            printed = pattern.replace_all(&printed, *word).into_owned();
        }
        said.push_str(&format!("$ {line}\n{printed}"));
        if !ended.status.success() {
            said.push_str(&format!("exit code {}\n", ended.status.code().unwrap_or(-1)));
        }
    }
    let path = folder().join(answers);
    if std::env::var_os("EVENTBUS_ACCEPT").is_some() {
        std::fs::write(&path, &said).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let first = kept.lines().zip(said.lines()).position(|(kept, said)| kept != said);
    assert!(
        kept == said,
        "{answers} differs from line {} on (EVENTBUS_ACCEPT=1 accepts what is said now):\n{}",
        first.unwrap_or(kept.lines().count().min(said.lines().count())) + 1,
        said.lines()
            .skip(first.unwrap_or(0).saturating_sub(3))
            .take(12)
            .collect::<Vec<_>>()
            .join("\n")
    );
}

#[tokio::test]
async fn todays_kubectl_says_what_it_always_said() {
    if let Some(kubectl) = kubectl_path() {
        play(&kubectl, "both.txt", "both.1.37.answers").await;
    }
}

#[tokio::test]
async fn todays_kubectl_does_what_only_it_can() {
    if let Some(kubectl) = kubectl_path() {
        play(&kubectl, "modern.txt", "modern.1.37.answers").await;
    }
}

#[tokio::test]
async fn todays_kubectl_knows_whose_a_field_is() {
    if let Some(kubectl) = kubectl_path() {
        play(&kubectl, "owners.txt", "owners.1.37.answers").await;
    }
}

#[tokio::test]
async fn a_kubectl_of_2020_works_as_well() {
    if let Some(kubectl) = old_kubectl_path() {
        play(&kubectl, "both.txt", "both.1.20.answers").await;
    }
}
