//! Directories that are not what they should be, and the one this version made.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use eventbus_core::Broker;
use eventbus_log::{LogConfig, OpenError};

use crate::support::*;

fn refused(path: &Path) -> OpenError {
    open_with(LogConfig::in_dir(path), &clock()).map(drop).unwrap_err()
}

#[tokio::test]
async fn a_directory_in_use_is_refused_and_free_at_once_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    let kept = cursor(&log, "orders", "a").await;
    log.close().await.unwrap();
    open(dir.path(), &clock());
    drop(kept);
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "mine").unwrap();
    let error = refused(dir.path());
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    let names: Vec<_> = names.iter().map(std::fs::DirEntry::file_name).collect();
    assert_eq!(names, ["thesis.txt"]);
}

#[tokio::test]
async fn what_is_made_is_nobody_else_s() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/log");
    let log = open(&path, &clock());
    give_up(&log, "orders", "a", &["x"]).await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().flatten().collect();
    assert!(files.len() >= 6, "lock, two of the ledger, a segment, two of the vault: {files:?}");
    for file in files {
        assert_eq!(mode(&file.path()), 0o600, "{:?}", file.file_name());
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "").unwrap();
    assert!(refused(&path).to_string().contains(&path.display().to_string()));
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { max_bytes: Some(1), ..LogConfig::in_dir(dir.path()) };
    let error = open_with(config, &clock()).map(drop).unwrap_err();
    assert!(error.to_string().contains("max_bytes"), "{error}");
}

/// Copies a directory, lock left out.
fn copied(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.file_name() != "lock" {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    dir
}

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/version-1")
}

#[tokio::test]
async fn the_log_of_version_1_opens() {
    let dir = copied(&fixture());
    let config = LogConfig { segment_bytes: 64 * 1024, ..LogConfig::in_dir(dir.path()) };
    let log = open_with(config, &clock()).unwrap();
    let orders = cursor(&log, "orders", "order.created").await;
    assert_eq!(orders.stats().lag_events, 3);
    assert_eq!(orders.stats().waiting_events, 1);
    assert_eq!(payloads(&lease(&orders, 10).await), ["two", "three"]);
}

#[test]
fn a_newer_version_is_refused_undamaged() {
    for name in ["segment-000001", "ledger-1"] {
        let dir = copied(&fixture());
        let path = dir.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        for slot in [0, 4096] {
            newer(&mut bytes[slot..slot + if name == "ledger-1" { 64 } else { 128 }], name);
        }
        std::fs::write(&path, &bytes).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{name}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name} was changed");
    }
}

#[tokio::test]
async fn a_vault_that_is_newer_or_another_s_is_refused_undamaged() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    give_up(&log, "orders", "a", &["x"]).await;
    log.close().await.unwrap();
    // The version and the mark of the program, in the header of every SQLite file.
    for (at, byte) in [(63, 3), (71, 0)] {
        let dir = copied(dir.path());
        let path = dir.path().join("vault.db");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] = byte;
        std::fs::write(&path, &bytes).unwrap();
        let before = names(dir.path());
        match refused(dir.path()) {
            OpenError::Newer { found: 3, known: 2, .. } if at == 63 => {}
            OpenError::Foreign { file, .. } if at == 71 && file == "vault.db" => {}
            error => panic!("{error}"),
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert!(names(dir.path()).iter().all(|name| before.contains(name) || name == "lock"));
    }
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Raises the version in a head and seals it again; an empty slot stays empty.
fn newer(slot: &mut [u8], name: &str) {
    if slot[..4] == [0; 4] {
        return;
    }
    slot[8] = 2;
    let part = if name == "ledger-1" { u64::MAX } else { 0 };
    let seed = crc32c::crc32c_append(crc32c::crc32c(&[0; 16]), &part.to_le_bytes());
    let checksum = crc32c::crc32c_append(seed, &slot[8..]);
    slot[4..8].copy_from_slice(&checksum.to_le_bytes());
}
