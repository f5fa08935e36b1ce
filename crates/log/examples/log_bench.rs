//! Measures the log against the bare disk below it, in one run.
//!
//! ```sh
//! cargo run --release -p eventbus-log --example log_bench -- DIRECTORY [SECONDS]
//! ```
//!
//! The yardstick is what a group commit can cost at least: one thread copies as many records as are
//! in flight into a buffer, writes them to a pre-written file and syncs.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a yardstick, not the product")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use eventbus_core::broker::{CursorId, CursorSpec, Start};
use eventbus_core::delivery::Verdict;
use eventbus_core::testing;
use eventbus_core::{
    Batch, Broker, Clock, Cursor, Durability, Entropy, Event, Settled, Source, limits,
};
use eventbus_log::{Log, LogConfig, TraceObserver};

const PAYLOAD_BYTES: usize = 1024;
const TURN: usize = 64;

/// Yardstick and log take turns, so that what else the machine does hits both.
const ROUNDS: u32 = 7;

struct SystemClock(Instant);

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

struct FixedEntropy;

impl Entropy for FixedEntropy {
    fn next_u64(&self) -> u64 {
        0x5eed
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".into());
    match directory.as_str() {
        FILL => fill_and_abort(Path::new(&arguments.next().unwrap())),
        IDLE => return measure_idle(Path::new(&arguments.next().unwrap())),
        _ => {}
    }
    let seconds = arguments.next().map_or(3, |seconds| seconds.parse().unwrap());
    let time = Duration::from_secs(seconds);
    let directory = tempfile::Builder::new().prefix("log-bench-").tempdir_in(directory).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    println!("| what | in flight | events/s | of the yardstick | CPU µs an event |");
    println!("|---|---|---|---|---|");
    for in_flight in [1, 16, 64, 256, 1024] {
        let log = open(&directory.path().join(format!("append-{in_flight}")));
        let (mut bare, mut ours, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(yardstick(directory.path(), in_flight, time / ROUNDS));
            let before = cpu_time();
            ours.push(runtime.block_on(appends(&log, in_flight, time / ROUNDS)));
            let took = (cpu_time() - before).as_secs_f64() * 1e6;
            cpu.push(took / (ours[ours.len() - 1] * (time / ROUNDS).as_secs_f64()));
        }
        let (bare, ours, cpu) = (median(bare), median(ours), median(cpu));
        let share = ours / bare;
        println!("| bare write + fdatasync | {in_flight} | {bare:.0} | 1 | |");
        println!("| append, synced | {in_flight} | {ours:.0} | {share:.2} | {cpu:.1} |");
        describe(&log);
        runtime.block_on(log.close()).unwrap();
    }
    let log = open(&directory.path().join("settle"));
    let (leased, settled) = runtime.block_on(settles(log, 400_000));
    println!("| lease + settle, turns of {TURN}, mostly from disk | | {leased:.0} | | |");
    println!("| settle alone, turns of {TURN} | | {settled:.0} | | |");
    let log = open(&directory.path().join("road"));
    let cpu = cpu_time();
    let road = runtime.block_on(road(log, 64, time));
    let cpu = (cpu_time() - cpu).as_secs_f64() * 1e6 / (road * time.as_secs_f64());
    println!("| append, synced → lease → settle | 64 | {road:.0} | | {cpu:.1} |\n");
    child(IDLE, &directory.path().join("idle"));
    let took = recovery(&directory.path().join("recovery"));
    println!("opened with 1 GiB of log after the process was aborted: {} ms", took.as_millis());
}

/// The word that makes this program fill a log and abort.
const FILL: &str = "--fill";

/// The word that makes this program measure cursors in a process of their own.
const IDLE: &str = "--idle";

/// Runs this program with a word; true when it ended well.
fn child(word: &str, path: &Path) -> bool {
    let program = std::env::current_exe().unwrap();
    std::process::Command::new(program).arg(word).arg(path).status().unwrap().success()
}

/// Processor time of this process, user and system, to 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Writes 1 GiB and ends as if killed.
fn fill_and_abort(path: &Path) -> ! {
    let log = open(path);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let events: Vec<Event> = (0..1_000).map(event).collect();
    runtime.block_on(async {
        cursor(&log).await;
        for _ in 0..800 {
            let batch = Batch { events: events.clone(), atomic: false };
            log.append(batch, Durability::Written).await.unwrap();
        }
    });
    std::process::abort()
}

/// How long a log takes to open after such an end.
fn recovery(path: &Path) -> Duration {
    assert!(!child(FILL, path), "it aborts");
    let began = now();
    drop(open(path));
    began.elapsed()
}

/// Resident memory, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn measure_idle(path: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (alone, waited_on) = runtime.block_on(idle_cursors(path));
    println!("10,000 idle cursors: {alone} KiB of memory; a task waiting on each: {waited_on} KiB");
}

/// Opens many cursors, each with an interest of its own and a dispatcher that waits for events.
/// Says what both cost in KiB: the cursors alone, and with the tasks.
async fn idle_cursors(path: &Path) -> (u64, u64) {
    const CURSORS: usize = 10_000;
    let log = open(path);
    let before = resident_kib();
    let mut cursors = Vec::new();
    for n in 0..CURSORS / 100 {
        let opening = (0..100).map(|m| {
            let mut interest = event(1).interest();
            interest.event_type = format!("type.{}", n * 100 + m).into();
            log.open(CursorSpec {
                id: CursorId(format!("{:08x}-0000-4000-8000-{:012x}", n, m).into()),
                interest,
                start: Start::AtMs(0),
                waiting_max: limits::WAITING_EVENTS,
            })
        });
        for opened in futures::future::join_all(opening).await {
            cursors.push(opened.unwrap());
        }
    }
    let alone = resident_kib() - before;
    let waiting: Vec<_> = cursors
        .into_iter()
        .map(|cursor| tokio::spawn(async move { cursor.lease(NonZeroUsize::MIN).await.map(drop) }))
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let waited_on = resident_kib() - before;
    log.close().await.unwrap();
    drop(waiting);
    (alone, waited_on)
}

fn open(path: &Path) -> Arc<Log> {
    let clock = Arc::new(SystemClock(now()));
    let config = LogConfig::in_dir(path);
    Arc::new(Log::open(config, clock, &FixedEntropy, Arc::new(TraceObserver)).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a yardstick measures time")]
fn now() -> Instant {
    Instant::now()
}

fn event(id: u64) -> Event {
    Event {
        source: Source::from_id("shop.example".into()),
        id: format!("{id:036}").into(),
        ..testing::event("order.created", vec![b'x'; PAYLOAD_BYTES])
    }
}

/// Records a second that one thread copies, writes and syncs, `in_flight` at a time.
fn yardstick(directory: &Path, in_flight: usize, time: Duration) -> f64 {
    const FILE_BYTES: u64 = 64 * 1024 * 1024;
    let path = directory.join("yardstick");
    let file = File::options().create(true).truncate(true).write(true).open(&path).unwrap();
    for at in 0..FILE_BYTES / (1 << 20) {
        file.write_all_at(&vec![0; 1 << 20], at << 20).unwrap();
    }
    file.sync_all().unwrap();
    let record = vec![b'x'; PAYLOAD_BYTES + 192];
    let mut buffer = Vec::new();
    let (began, mut at, mut records) = (now(), 0, 0);
    while began.elapsed() < time {
        buffer.clear();
        for _ in 0..in_flight {
            buffer.extend_from_slice(&record);
        }
        at = if at + buffer.len() as u64 > FILE_BYTES { 0 } else { at };
        file.write_all_at(&buffer, at).unwrap();
        file.sync_data().unwrap();
        at += buffer.len() as u64;
        records += in_flight;
    }
    let rate = records as f64 / began.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path).unwrap();
    rate
}

/// Appends a second that `in_flight` publishers make, each waiting for its answer.
async fn appends(log: &Arc<Log>, in_flight: usize, time: Duration) -> f64 {
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let began = now();
    let publishers: Vec<_> = (0..in_flight)
        .map(|_| tokio::spawn(publish(log.clone(), done.clone(), count.clone())))
        .collect();
    tokio::time::sleep(time).await;
    let rate = count.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    rate
}

/// How large commits and syncs were.
fn describe(log: &Log) {
    let telemetry = log.telemetry();
    let commits = telemetry.commits.count() as f64;
    let events = telemetry.commits.total() as f64;
    let syncs = telemetry.syncs.count() as f64;
    let (commit, sync) = (events / commits, events / syncs);
    let took_us = telemetry.syncs.total() as f64 / syncs;
    println!("<!-- {commit:.0} events a commit, {sync:.0} a sync of {took_us:.0} µs -->");
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

async fn publish(log: Arc<Log>, done: Arc<AtomicBool>, count: Arc<AtomicU64>) {
    let event = event(1);
    while !done.load(Ordering::Relaxed) {
        log.append(Batch::of_one(event.clone()), Durability::Synced).await.unwrap();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

async fn cursor(log: &Log) -> Arc<dyn Cursor> {
    let spec = CursorSpec {
        id: CursorId("bench".into()),
        interest: event(1).interest(),
        start: Start::AtMs(0),
        waiting_max: limits::WAITING_EVENTS,
    };
    log.open(spec).await.unwrap()
}

fn acks(leases: Vec<eventbus_core::Lease>) -> Vec<Settled> {
    let ack = |lease| Settled { lease, attempt: None, verdict: Verdict::Ack };
    leases.into_iter().map(ack).collect()
}

/// Events a second through lease and settle, and through settle alone.
async fn settles(log: Arc<Log>, events: usize) -> (f64, f64) {
    let cursor = cursor(&log).await;
    let batch: Vec<Event> = (0..1_000).map(event).collect();
    for _ in 0..events / 1_000 {
        let batch = Batch { events: batch.clone(), atomic: false };
        log.append(batch, Durability::Written).await.unwrap();
    }
    let limit = NonZeroUsize::new(TURN).unwrap();
    let (began, mut settling, mut done) = (now(), Duration::ZERO, 0);
    while done < events {
        let leases = cursor.lease(limit).await.unwrap();
        done += leases.len();
        let from = now();
        cursor.settle(acks(leases)).await.unwrap();
        settling += from.elapsed();
    }
    let all = began.elapsed();
    log.close().await.unwrap();
    (events as f64 / all.as_secs_f64(), events as f64 / settling.as_secs_f64())
}

/// Events a second from publishers through to settled.
async fn road(log: Arc<Log>, in_flight: usize, time: Duration) -> f64 {
    let cursor = cursor(&log).await;
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    for _ in 0..in_flight {
        tokio::spawn(publish(log.clone(), done.clone(), count.clone()));
    }
    let limit = NonZeroUsize::new(TURN).unwrap();
    let (began, mut settled) = (now(), 0);
    while began.elapsed() < time {
        let leases = cursor.lease(limit).await.unwrap();
        settled += leases.len();
        cursor.settle(acks(leases)).await.unwrap();
    }
    let rate = settled as f64 / began.elapsed().as_secs_f64();
    done.store(true, Ordering::Relaxed);
    log.close().await.unwrap();
    rate
}
