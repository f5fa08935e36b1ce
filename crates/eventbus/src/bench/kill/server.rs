//! The bus that is killed: this program's `serve` as a child process.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use eventbus_core::Clock;
use http::Uri;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cli::Fault;

/// How long a start may take. The bar is two seconds a GiB of log; this is to find a hang.
const READY_TIME: Duration = Duration::from_secs(60);

/// How long an asked-for end may take.
const END_TIME: Duration = Duration::from_secs(10);

/// Pause between two questions whether it is ready.
const PAUSE: Duration = Duration::from_millis(2);

/// A bus with a data directory and addresses of its own. Killed when dropped.
pub(super) struct Server {
    program: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    publish: SocketAddr,
    api: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// A bus that is not started yet. What it says goes to the file `log`.
    pub(super) fn new(data_dir: &Path, log: PathBuf) -> Result<Self, Fault> {
        let wrong = |error| Fault::Failed(format!("cannot prepare the bus: {error}"));
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(wrong);
        // Held together, so that they differ. The same ones serve every start.
        let (publish, api) = (listen()?, listen()?);
        Ok(Self {
            program: std::env::current_exe().map_err(wrong)?,
            data_dir: data_dir.to_owned(),
            log,
            publish: publish.local_addr().map_err(wrong)?,
            api: api.local_addr().map_err(wrong)?,
            child: None,
        })
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    pub(super) fn publish_url(&self) -> Uri {
        let url = format!("http://{}/v1/events", self.publish);
        // An address always makes a URL.
        url.parse().unwrap_or_default()
    }

    /// Starts it, and waits until it is ready; returns how long that took.
    pub(super) async fn start(&mut self, clock: &dyn Clock) -> Result<Duration, Fault> {
        let start = clock.elapsed();
        let log = File::options().create(true).append(true).open(&self.log);
        let output = || -> std::io::Result<_> {
            let log = log?;
            Ok((Stdio::from(log.try_clone()?), Stdio::from(log)))
        };
        let (stdout, stderr) = output().map_err(|error| self.failed(&error.to_string()))?;
        let child = Command::new(&self.program)
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--publish-listen", &self.publish.to_string()])
            .args(["--api-listen", &self.api.to_string()])
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failed(&error.to_string()))?;
        let child = self.child.insert(child);
        let ready = tokio::select! {
            ended = child.wait() => Err(format!("it ended by itself: {ended:?}")),
            ready = tokio::time::timeout(READY_TIME, until_ready(self.publish)) => {
                ready.map_err(|_| format!("not ready within {}s", READY_TIME.as_secs()))
            }
        };
        ready.map_err(|why| self.failed(&why))?;
        Ok(clock.elapsed() - start)
    }

    /// Kills it: no warning, no farewell.
    pub(super) async fn kill(&mut self) -> Result<(), Fault> {
        let killed = match &mut self.child {
            Some(child) => child.kill().await,
            None => Ok(()),
        };
        killed.map_err(|error| self.failed(&error.to_string()))
    }

    /// Asks it to end, which it must do well.
    pub(super) async fn terminate(&mut self) -> Result<(), Fault> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Some(id) = child.id().and_then(|id| Pid::from_raw(id as i32)) {
            let asked = kill_process(id, Signal::TERM);
            asked.map_err(|error| self.failed(&error.to_string()))?;
        }
        match tokio::time::timeout(END_TIME, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(ended) => Err(self.failed(&format!("asked to end, it ended badly: {ended:?}"))),
            Err(_) => Err(self.failed(&format!("still there {}s later", END_TIME.as_secs()))),
        }
    }

    fn failed(&self, why: &str) -> Fault {
        Fault::Failed(format!("the bus: {why}; what it said: {}", self.log.display()))
    }
}

/// Asks until the answer is 200.
async fn until_ready(address: SocketAddr) {
    while !is_ready(address).await.unwrap_or(false) {
        tokio::time::sleep(PAUSE).await;
    }
}

async fn is_ready(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let question =
        format!("GET /v1/status/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(answer == *b"HTTP/1.1 200")
}
