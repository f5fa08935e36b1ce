//! The log: opened on files that something has written into.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::broker::{Batch, CursorId, CursorSpec, Start};
use eventbus_core::delivery::Verdict;
use eventbus_core::event::SpecVersion;
use eventbus_core::wire::trace::Trace;
use eventbus_core::{Attributes, Broker, Cursor, Durability, Event, Settled, Source};
use eventbus_log::disk::{Disk, MemoryDisk};
use eventbus_log::{Log, LogConfig, LogEvent, Observer};
use tokio::runtime::Runtime;

use super::Still;

const EVENTS: usize = 60;
const SETTLED: usize = 20;
const SEGMENT_BYTES: u64 = 64 * 1024;
const VOLUME_BYTES: u64 = 16 * 1024 * 1024;
/// How long a damaged log may take to give what it still has, on a machine however busy.
const WAIT: Duration = Duration::from_secs(20);

struct Deaf;

impl Observer for Deaf {
    fn observe(&self, _: &LogEvent) {}
}

/// Files by name.
type Files = Vec<(String, Vec<u8>)>;

/// Damage: file (1 byte), place in it (3 bytes, little endian), length (1), that many bytes; again
/// and again. The log must open or say why not, give out nothing that was not stored, and go on.
pub fn log(bytes: &[u8]) {
    static TEMPLATE: OnceLock<Files> = OnceLock::new();
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
    });
    let mut files = TEMPLATE.get_or_init(|| runtime.block_on(template())).clone();
    damage(&mut files, bytes);
    runtime.block_on(open_and_use(&files));
}

fn damage(files: &mut Files, mut bytes: &[u8]) {
    while let [file, a, b, c, length, rest @ ..] = bytes {
        let (written, rest) = rest.split_at(rest.len().min(*length as usize));
        let count = files.len();
        let content = &mut files[*file as usize % count].1;
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % (content.len() + 1);
        let end = content.len().min(at + written.len());
        content[at..end].copy_from_slice(&written[..end - at]);
        bytes = rest;
    }
}

async fn open_and_use(files: &Files) {
    let disk = MemoryDisk::new(VOLUME_BYTES);
    for (name, content) in files {
        disk.create(name).and_then(|file| file.write_at(content, 0)).expect("memory does not fail");
    }
    let Ok(log) = open(&disk) else { return };
    let known: HashSet<Bytes> = (0..=EVENTS).map(|number| event(number).payload).collect();
    if log.append(Batch::of_one(event(EVENTS)), Durability::Synced).await.is_ok() {
        let cursor = log.open(spec()).await.expect("a usable log opens cursors");
        let found = read_up_to(&*cursor, &event(EVENTS).payload).await;
        assert!(found.iter().all(|payload| known.contains(payload)), "a payload nobody stored");
    }
    let _ = log.close().await;
}

/// Leases and settles until the event with the payload `last` has come; gives all payloads.
async fn read_up_to(cursor: &dyn Cursor, last: &Bytes) -> Vec<Bytes> {
    let mut found = Vec::new();
    let many = NonZeroUsize::new(1000).expect("not zero");
    while !found.contains(last) {
        let leased = tokio::time::timeout(WAIT, cursor.lease(many)).await;
        let leases = leased.expect("a new event is found").expect("a usable log leases");
        found.extend(leases.iter().map(|lease| lease.event().payload.clone()));
        let settled = leases.into_iter().map(acknowledged);
        cursor.settle(settled.collect()).await.expect("memory does not fail");
    }
    found
}

fn acknowledged(lease: eventbus_core::Lease) -> Settled {
    Settled { lease, attempt: None, verdict: Verdict::Ack }
}

/// The files of a log with several segments, some of its events settled.
async fn template() -> Files {
    let disk = MemoryDisk::new(VOLUME_BYTES);
    let log = open(&disk).expect("an empty disk opens");
    let cursor = log.open(spec()).await.expect("a cursor");
    for number in 0..EVENTS {
        let batch = Batch::of_one(event(number));
        log.append(batch, Durability::Synced).await.expect("there is room");
    }
    let some = NonZeroUsize::new(SETTLED).expect("not zero");
    let leases = cursor.lease(some).await.expect("there are events");
    let settled = leases.into_iter().map(acknowledged);
    cursor.settle(settled.collect()).await.expect("memory does not fail");
    log.close().await.expect("memory does not fail");
    drop(log);
    let names = disk.names().expect("memory does not fail");
    let content = |name: &String| {
        let file = disk.open(name).expect("it was listed");
        let mut bytes = vec![0; file.size().expect("memory does not fail") as usize];
        file.read_at(&mut bytes, 0).expect("memory does not fail");
        bytes
    };
    names.iter().map(|name| (name.clone(), content(name))).collect()
}

fn open(disk: &MemoryDisk) -> Result<Log, eventbus_log::OpenError> {
    let mut config = LogConfig::on_disk(Arc::new(disk.clone()));
    config.segment_bytes = SEGMENT_BYTES;
    config.tail_cache_bytes = 1024;
    let world = Arc::new(Still::default());
    Log::open(config, world.clone(), &*world, Arc::new(Deaf))
}

fn spec() -> CursorSpec {
    CursorSpec {
        id: CursorId("orders".into()),
        interest: event(0).interest(),
        start: Start::AtMs(0),
        waiting_max: 100,
    }
}

fn event(number: usize) -> Event {
    Event {
        source: Source::from_id("shop".into()),
        event_type: "order.created".into(),
        event_type_version: "v1".into(),
        id_given: false,
        id: number.to_string().into(),
        time: "2026-01-01T00:00:00Z".into(),
        content_type: "application/json".into(),
        attributes: Attributes::default(),
        spec_version: SpecVersion::V1,
        trace: Trace::default(),
        payload: Bytes::from(format!("\"{number:->2000}\"")),
        has_payload: true,
    }
}
