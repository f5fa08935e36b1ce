//! The file: kept over restarts, and left alone when it is not ours.

use std::path::Path;

use eventbus_apiserver::{ApiServer, OpenError, StoreError};
use serde_json::{Value, json};

use crate::fixture::{Fixture, START_MS, WIDGETS, open};

async fn try_open(path: &Path) -> Result<ApiServer, OpenError> {
    let clock = std::sync::Arc::new(eventbus_core::testing::ManualClock::at(START_MS));
    open(path, &clock, 3).await
}

/// Opening this file must fail and leave its bytes.
async fn refused(bytes: &[u8]) -> StoreError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resources.db");
    std::fs::write(&path, bytes).unwrap();
    let error = match try_open(&path).await {
        Err(OpenError::Store(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was opened"),
    };
    assert!(std::fs::read(&path).unwrap() == bytes, "the file was changed");
    error
}

#[tokio::test]
async fn objects_and_revisions_are_kept() {
    let fixture = Fixture::new().await;
    let one = fixture.create("stage", "one", 1).await;
    let path = format!("{WIDGETS}/namespaces/stage/widgets/two");
    fixture.create("stage", "two", 1).await;
    fixture.send("DELETE", &path, Value::Null).await;
    let (_, before) = fixture.get(&format!("{WIDGETS}/widgets")).await;
    let fixture = fixture.reopen().await;
    let (_, after) = fixture.get(&format!("{WIDGETS}/widgets")).await;
    assert_eq!(after, before);
    assert_eq!(after["items"], json!([one]));
    let revision = |object: &Value| -> u64 {
        object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    };
    let two = fixture.create("stage", "two", 1).await;
    assert_eq!(revision(&two), revision(&before) + 1);
}

#[tokio::test]
async fn what_is_not_ours_stays_as_it_is() {
    let foreign = refused(b"some notes of somebody else").await;
    assert!(foreign.to_string().contains("is not a resource store of eventbus"), "{foreign}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('x')").unwrap();
    drop(other);
    let foreign = refused(&std::fs::read(&path).unwrap()).await;
    assert!(matches!(foreign, StoreError::Foreign(_)), "{foreign}");
}

/// A store of this version, closed.
async fn store_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resources.db");
    let server = try_open(&path).await.unwrap();
    server.close().await;
    drop(server);
    std::fs::read(&path).unwrap()
}

#[tokio::test]
async fn newer_and_damaged_stores_are_told_apart() {
    let mut bytes = store_bytes().await;
    bytes[63] = 2;
    let newer = refused(&bytes).await;
    assert!(newer.to_string().contains("format 2"), "{newer}");
    bytes[63] = 1;
    for byte in &mut bytes[4096..8192] {
        *byte = 0xaa;
    }
    let damaged = refused(&bytes).await;
    assert!(matches!(damaged, StoreError::Corrupted { .. }), "{damaged}");
    bytes.truncate(5000);
    let damaged = refused(&bytes).await;
    assert!(matches!(damaged, StoreError::Corrupted { .. }), "{damaged}");
}

#[tokio::test]
async fn an_empty_file_and_a_half_made_one_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resources.db");
    std::fs::write(&path, b"").unwrap();
    std::fs::write(folder.path().join("resources.db.new"), b"half").unwrap();
    try_open(&path).await.unwrap().close().await;
    let missing = try_open(&folder.path().join("no/such/folder/resources.db")).await;
    assert!(matches!(missing, Err(OpenError::Store(StoreError::Io { .. }))));
}
