//! The built program as a child process that dies with its test.

use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;

/// No test waits longer than this for the program; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a run ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A run that goes on.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdout: Lines<BufReader<ChildStdout>>,
    stderr: Option<Lines<BufReader<ChildStderr>>>,
}

/// Runs the program to its end with `input` as its standard input.
pub(crate) async fn run(args: &[&str], input: &str) -> Ended {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Not every command reads its input.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    within(child.wait_with_output()).await.unwrap().into()
}

/// Starts the program and leaves it running.
pub(crate) fn start(args: &[&str]) -> Running {
    let mut child = command(args).stdin(Stdio::null()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    Running { child, stdout, stderr: Some(stderr) }
}

/// Starts the program with `input` as its standard input and leaves it running.
pub(crate) async fn start_with(args: &[&str], input: &str) -> Running {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    Running { child, stdout, stderr: Some(stderr) }
}

/// Starts the program with a terminal as its standard error.
pub(crate) fn start_seen(args: &[&str], terminal: OwnedFd) -> Child {
    command(args).env("TERM", "xterm").stdin(Stdio::null()).stderr(terminal).spawn().unwrap()
}

/// Starts the program with a standard error that takes no byte.
pub(crate) fn start_unheard(args: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = command(args).stdin(Stdio::null()).stderr(full).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, stdout)
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eventbus"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Waits for something the program does; panics when it never does it.
pub(crate) async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("the program hangs"))
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Running {
    /// The next line of standard error.
    pub(crate) async fn note(&mut self) -> String {
        within(self.stderr.as_mut().unwrap().next_line()).await.unwrap().unwrap()
    }

    /// Reads standard error to its end.
    pub(crate) fn notes(&mut self) -> JoinHandle<String> {
        let mut stderr = self.stderr.take().unwrap().into_inner();
        tokio::spawn(async move {
            let mut notes = String::new();
            stderr.read_to_string(&mut notes).await.unwrap();
            notes
        })
    }

    /// The next line of standard output.
    pub(crate) async fn line(&mut self) -> String {
        within(self.stdout.next_line()).await.unwrap().unwrap()
    }

    /// Asks the program to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Does what Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Asks it to read its settings again.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().unwrap().try_into().unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// `kill -9`, and waits until the process is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for the end; returns how it ended and what it said since the last line read.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String, String) {
        let status = within(self.child.wait()).await.unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.into_inner().read_to_string(&mut stdout).await.unwrap();
        if let Some(rest) = self.stderr {
            rest.into_inner().read_to_string(&mut stderr).await.unwrap();
        }
        (status, stdout, stderr)
    }
}
