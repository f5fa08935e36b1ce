//! A real nats-server, on loopback, on a port that the system chose; it ends with the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

/// A nats-server with a directory of its own.
pub(crate) struct NatsServer {
    program: PathBuf,
    dir: TempDir,
    options: Options,
    port: Mutex<Option<u16>>,
    process: Mutex<Option<Child>>,
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// More of its settings.
    pub(crate) settings: String,
    /// More of JetStream's.
    pub(crate) jetstream: String,
}

/// The program, where `./test` has put it; says so where it is not.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("EVENTBUS_NATS_SERVER").map(PathBuf::from);
    let path = path.filter(|path| path.exists());
    if path.is_none() {
        println!("SKIPPED: no nats-server; ./test fetches one, EVENTBUS_NATS_SERVER names it");
    }
    path
}

impl NatsServer {
    /// Starts one; `None` where there is no program.
    pub(crate) async fn start(options: Options) -> Option<Self> {
        let program = program()?;
        let dir = tempfile::tempdir().unwrap();
        let (port, process) = (Mutex::default(), Mutex::default());
        let server = Self { program, dir, options, port, process };
        server.run().await;
        Some(server)
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        let port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        format!("nats://127.0.0.1:{}", port.expect("the server runs"))
    }

    /// Ends the server at once.
    pub(crate) fn kill(&self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut process) = process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts the server, on the port it had before.
    pub(crate) async fn run(&self) {
        let path = self.dir.path();
        let port = *self.port.lock().unwrap_or_else(PoisonError::into_inner);
        let listen = port.map_or("-1".to_owned(), |port| port.to_string());
        let Options { settings, jetstream } = &self.options;
        let config = format!(
            "listen: \"127.0.0.1:{listen}\"\nserver_name: \"test\"\nports_file_dir: {path:?}\n\
             jetstream {{ store_dir: {path:?}, {jetstream} }}\n{settings}\n"
        );
        std::fs::write(path.join("server.conf"), config).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(path.join("server.conf")).arg("-l").arg(path.join("log"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let ports = path.join(format!("nats-server_{}.ports", process.id()));
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        for _ in 0..1_000 {
            let written = std::fs::read_to_string(&ports).unwrap_or_default();
            if let Some(port) = port_of(&written) {
                *self.port.lock().unwrap_or_else(PoisonError::into_inner) = Some(port);
                let _ = std::fs::remove_file(&ports);
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let log = std::fs::read_to_string(path.join("log")).unwrap_or_default();
        panic!("the server did not start: {log}");
    }
}

/// The port of clients in what the server writes about its ports.
fn port_of(written: &str) -> Option<u16> {
    let (_, behind) = written.split_once("\"nats\"")?;
    let (_, behind) = behind.split_once("127.0.0.1:")?;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    behind.contains('}').then(|| digits.parse().ok())?
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
