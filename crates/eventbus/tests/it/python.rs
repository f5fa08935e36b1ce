//! The official Python client against the running program.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::program::within;
use crate::served::Bus;

#[tokio::test]
async fn a_controller_in_python_lists_watches_and_writes() {
    let python = std::env::var_os("EVENTBUS_PYTHON").map(PathBuf::from);
    let Some(python) = python.filter(|python| Path::exists(python)) else {
        println!("SKIPPED: no Python with the Kubernetes client; ./test fetches and names it");
        return;
    };
    let bus = Bus::start().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let ended = Command::new(python)
        .arg(script)
        .arg(bus.data_dir().join("kubeconfig"))
        .kill_on_drop(true)
        .output();
    let ended = within(ended).await.unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "done\n", "{stderr}");
}
