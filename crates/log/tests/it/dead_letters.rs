//! Events that are given up: kept whole, once, whatever happens.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::broker::CursorId;
use eventbus_core::dead_letters::{DeadLetter, DeadLetterError, DeadLetterKey};
use eventbus_core::delivery::{DeadLetterReason, Tried, Verdict};
use eventbus_core::{Batch, Broker, Durability, Position};
use eventbus_log::disk::MemoryDisk;
use eventbus_log::{Log, LogConfig};

use crate::support::*;

async fn page(log: &Log, id: &str, after: u64, limit: usize) -> Vec<DeadLetter> {
    let (of, limit) = (CursorId(id.into()), NonZeroUsize::new(limit).unwrap());
    log.dead_letters().page(of, Position(after), limit).await.unwrap()
}

async fn all(log: &Log, id: &str) -> Vec<(Position, DeadLetterReason)> {
    let page = page(log, id, 0, 100).await;
    page.into_iter().map(|letter| (letter.key.position, letter.reason)).collect()
}

fn key(id: &str, position: Position) -> DeadLetterKey {
    DeadLetterKey { cursor: CursorId(id.into()), position }
}

fn vault(path: &Path) -> std::path::PathBuf {
    path.join("vault.db")
}

#[tokio::test]
async fn a_dead_letter_is_kept_whole_with_its_attempts_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let log = open(dir.path(), &clock);
    let orders = cursor(&log, "orders", "a").await;
    let mut published = event("a", "x");
    (published.id, published.id_given) = ("given".into(), true);
    log.append(Batch::of_one(published.clone()), Durability::Synced).await.unwrap();
    for round in 0..2 {
        let leased = lease(&orders, 1).await.remove(0);
        assert_eq!(leased.attempts(), round);
        let retry = Verdict::Retry { due_ms: START_MS };
        orders.settle(vec![settled(leased, retry)]).await.unwrap();
    }
    clock.advance(Duration::from_secs(5));
    let leased = lease(&orders, 1).await.remove(0);
    let position = leased.position();
    let turn = vec![settled(leased, dead(DeadLetterReason::Exhausted))];
    let attempt = turn[0].attempt.unwrap();
    orders.settle(turn).await.unwrap();
    assert_eq!(orders.stats().lag_events, 0);
    let expected = DeadLetter {
        key: key("orders", position),
        event: Arc::new(published),
        reason: DeadLetterReason::Exhausted,
        dead_ms: START_MS + 5_000,
        tried: Tried { attempts: 3, last: vec![attempt; 3].into() },
    };
    assert_eq!(page(&log, "orders", 0, 9).await, std::slice::from_ref(&expected));
    log.close().await.unwrap();
    let closed = log.dead_letters().get(key("orders", position)).await;
    assert!(matches!(closed, Err(DeadLetterError::Unavailable(_))), "{closed:?}");

    let log = open(dir.path(), &clock);
    assert_eq!(log.dead_letters().get(key("orders", position)).await, Ok(Some(expected)));
    assert_eq!(cursor(&log, "orders", "a").await.stats().lag_events, 0);
}

#[tokio::test]
async fn dead_letters_are_paged_by_cursor_and_removed_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let mine = give_up(&log, "orders", "a", &["1", "2", "3"]).await;
    let other = give_up(&log, "others", "b", &["4"]).await;
    let letters = page(&log, "orders", 0, 2).await;
    assert_eq!(letters.iter().map(|l| l.key.position).collect::<Vec<_>>(), mine[..2]);
    let letters = page(&log, "orders", mine[1].0, 2).await;
    assert_eq!(letters.iter().map(|l| l.key.position).collect::<Vec<_>>(), mine[2..]);
    let remove = |key| log.dead_letters().remove(key);
    assert_eq!(remove(key("orders", mine[1])).await, Ok(true));
    assert_eq!(remove(key("orders", mine[1])).await, Ok(false));
    assert_eq!(log.dead_letters().get(key("orders", mine[1])).await, Ok(None));
    // Forgetting the cursor is not removing what it gave up.
    log.forget(CursorId("orders".into())).await.unwrap();
    assert_eq!(page(&log, "orders", 0, 9).await.len(), 2);
    assert_eq!(page(&log, "others", 0, 9).await[0].key.position, other[0]);
}

#[tokio::test]
async fn a_turn_without_dead_letters_makes_no_vault() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let orders = cursor(&log, "orders", "a").await;
    log.append(Batch::of_one(event("a", "x")), Durability::Synced).await.unwrap();
    orders.settle(acks(lease(&orders, 1).await)).await.unwrap();
    assert_eq!(all(&log, "orders").await, []);
    assert_eq!(log.dead_letters().remove(key("orders", Position(1))).await, Ok(false));
    assert!(!vault(dir.path()).exists());
    give_up(&log, "orders", "a", &["x"]).await;
    assert!(vault(dir.path()).exists());
}

#[tokio::test]
async fn a_forgotten_cursor_gives_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    let orders = cursor(&log, "orders", "a").await;
    log.append(Batch::of_one(event("a", "x")), Durability::Synced).await.unwrap();
    let leased = lease(&orders, 1).await.remove(0);
    log.forget(CursorId("orders".into())).await.unwrap();
    orders.settle(vec![settled(leased, dead(DeadLetterReason::Refused))]).await.unwrap();
    assert_eq!(all(&log, "orders").await, []);
}

#[tokio::test]
async fn the_vault_of_a_disk_in_memory_is_there_when_the_disk_is_opened_again() {
    let config = LogConfig::on_disk(Arc::new(MemoryDisk::new(1 << 30)));
    let log = open_with(config.clone(), &clock()).unwrap();
    let positions = give_up(&log, "orders", "a", &["x"]).await;
    log.close().await.unwrap();
    drop(log);
    let log = open_with(config, &clock()).unwrap();
    assert_eq!(all(&log, "orders").await, [(positions[0], DeadLetterReason::Refused)]);
}

#[tokio::test]
async fn a_position_of_a_dead_letter_is_not_used_again_though_all_else_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &clock());
    give_up(&log, "orders", "a", &["x", "y"]).await;
    log.close().await.unwrap();
    for name in ["segment-000001", "ledger-0", "ledger-1"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let log = open(dir.path(), &clock());
    assert_eq!(all(&log, "orders").await.len(), 2);
    give_up(&log, "orders", "a", &["z"]).await;
    assert_eq!(all(&log, "orders").await.len(), 3);
}
