//! The audit log: a line of JSON for each write that somebody asked for, done or refused.
//!
//! A line says who did what to which object, and never what stood in it. One thread writes; whoever
//! asks waits for it only when many lines wait already. The program's own writes are not told: no
//! user asked for them, and the objects say what they were.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
};

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{access::Wish, limits};

/// Only the owner of the process may read it.
const MODE: u32 = 0o600;

/// The open log. Dropping it, or [`Audit::close`], ends the writer after the queued lines.
pub(crate) struct Audit {
    lines: Mutex<Option<mpsc::Sender<String>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What a line tells beside the wish.
pub(crate) struct Deed<'d> {
    pub(crate) now_ms: u64,
    pub(crate) user: &'d str,
    pub(crate) dry: bool,
    pub(crate) code: StatusCode,
}

impl Audit {
    /// Opens the log at `path`, which is made if it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = Rotated::open(path.into())?;
        let (lines, mut waiting) = mpsc::channel::<String>(limits::AUDIT_QUEUE);
        let write = move || {
            while let Some(line) = waiting.blocking_recv() {
                if let Err(error) = file.write(&line) {
                    tracing::error!(%error, line, "the audit log could not be written");
                }
            }
        };
        let writer = std::thread::Builder::new().name("audit-writer".into()).spawn(write)?;
        Ok(Self { lines: Mutex::new(Some(lines)), writer: Mutex::new(Some(writer)) })
    }

    /// Notes what was done, or refused.
    pub(crate) async fn note(&self, wish: &Wish<'_>, deed: &Deed<'_>) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(lines) = lines {
            // The writer ends only after its last sender.
            let _ended = lines.send(line(wish, deed)).await;
        }
    }

    /// Writes what waits, and ends.
    pub(crate) async fn close(&self) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let ended = tokio::task::spawn_blocking(move || writer.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("the audit log's writer ended by a panic");
            }
        }
    }
}

fn line(wish: &Wish<'_>, deed: &Deed<'_>) -> String {
    let now_ms = i64::try_from(deed.now_ms).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(now_ms).unwrap_or(Timestamp::MAX);
    let resource = match (wish.group, wish.subresource) {
        ("", "") => wish.resource.to_owned(),
        (group, "") => format!("{}.{group}", wish.resource),
        ("", part) => format!("{}/{part}", wish.resource),
        (group, part) => format!("{}.{group}/{part}", wish.resource),
    };
    let line: Value = json!({
        "time": format!("{time:.3}"), "user": deed.user, "verb": wish.verb, "resource": resource,
        "namespace": wish.namespace, "name": wish.name, "code": deed.code.as_u16(),
        "dryRun": deed.dry,
    });
    format!("{line}\n")
}

/// A file that is put aside when it is full; of those put aside only the newest stay.
struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Rotated {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(MODE).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > limits::AUDIT_BYTES {
            self.rotate()?;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line.as_bytes())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..limits::AUDIT_FILES).rev() {
            match fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.aside(1))?;
        *self = Self::open(self.path.clone())?;
        Ok(())
    }

    fn aside(&self, number: usize) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_never_outgrows_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let name = "n".repeat(60_000);
        for _ in 0..2 {
            let audit = Audit::open(&path).unwrap();
            let wish = Wish { verb: "create", resource: "widgets", name: &name, ..Wish::default() };
            let deed =
                Deed { now_ms: 1_500_000_000_999, user: "ada", dry: false, code: StatusCode::OK };
            for _ in 0..800 {
                audit.note(&wish, &deed).await;
            }
            audit.close().await;
        }
        let mut sizes = Vec::new();
        for entry in fs::read_dir(folder.path()).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                assert_eq!(line["time"], "2017-07-14T02:40:00.999Z");
            }
            sizes.push(text.len() as u64);
        }
        assert_eq!(sizes.len(), limits::AUDIT_FILES + 1);
        assert!(sizes.iter().all(|size| *size <= limits::AUDIT_BYTES), "{sizes:?}");
    }
}
