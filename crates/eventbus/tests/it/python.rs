//! Python against the running program: the Kubernetes client here, other scripts for other tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::program::within;
use crate::served::Bus;

/// The Python to test with; says aloud when there is none.
pub(crate) fn python() -> Option<PathBuf> {
    let path = std::env::var_os("EVENTBUS_PYTHON").map(PathBuf::from).filter(|p| Path::exists(p));
    if path.is_none() {
        println!("SKIPPED: no Python with what tests need; ./test fetches and names it");
    }
    path
}

/// What a script of `tests/python` prints, given `input`; a script that fails fails the test.
pub(crate) async fn script(python: &Path, name: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // Not every script reads its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let ended = within(child.wait_with_output()).await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap()
}

#[tokio::test]
async fn a_controller_in_python_lists_watches_and_writes() {
    let Some(python) = python() else { return };
    let bus = Bus::start().await;
    let kubeconfig = bus.data_dir().join("kubeconfig");
    let printed = script(&python, "client.py", &[kubeconfig.to_str().unwrap()], "").await;
    assert_eq!(printed, "done\n");
}
