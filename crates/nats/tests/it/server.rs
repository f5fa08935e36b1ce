//! A real nats-server, on loopback, on a port that the system chose; it ends with the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

/// A nats-server with a directory of its own.
pub(crate) struct NatsServer {
    program: PathBuf,
    dir: TempDir,
    options: Mutex<Options>,
    ports: Mutex<Ports>,
    process: Mutex<Option<Child>>,
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Its name, where there are several.
    pub(crate) name: Option<String>,
    /// More of its settings.
    pub(crate) settings: String,
    /// More of JetStream's.
    pub(crate) jetstream: String,
}

/// Where a server listens, as the system chose: it stays there when it is started again.
#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    clients: Option<u16>,
    monitoring: Option<u16>,
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
        let options = Mutex::new(options);
        let (ports, process) = (Mutex::default(), Mutex::default());
        let server = Self { program, dir, options, ports, process };
        server.run().await;
        Some(server)
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", locked(&self.ports).clients.expect("the server runs"))
    }

    /// Its monitoring port.
    pub(crate) fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", locked(&self.ports).monitoring.expect("the server runs"))
    }

    /// Starts it again with other options.
    pub(crate) async fn rerun(&self, options: Options) {
        self.kill();
        *locked(&self.options) = options;
        self.run().await;
    }

    /// Ends the server at once.
    pub(crate) fn kill(&self) {
        let process = locked(&self.process).take();
        if let Some(mut process) = process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts the server, on the port it had before.
    pub(crate) async fn run(&self) {
        let path = self.dir.path();
        let Ports { clients, monitoring } = *locked(&self.ports);
        let listen = |port: Option<u16>| port.map_or("-1".to_owned(), |port| port.to_string());
        let (clients, monitoring) = (listen(clients), listen(monitoring));
        let Options { name, settings, jetstream } = locked(&self.options).clone();
        let name = name.unwrap_or_else(|| "test".to_owned());
        let config = format!(
            "listen: \"127.0.0.1:{clients}\"\nhttp: \"127.0.0.1:{monitoring}\"\n\
             server_name: {name:?}\nports_file_dir: {path:?}\n\
             jetstream {{ store_dir: {path:?}, {jetstream} }}\n{settings}\n"
        );
        std::fs::write(path.join("server.conf"), config).unwrap();
        for _ in 0..100 {
            if self.runs().await {
                return;
            }
            // A connection of somebody's may stand on a port of ours: it will go.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let log = std::fs::read_to_string(path.join("log")).unwrap_or_default();
        panic!("the server did not start: {log}");
    }

    /// Starts the process, and reads its ports; false when it ends instead.
    async fn runs(&self) -> bool {
        let path = self.dir.path();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(path.join("server.conf")).arg("-l").arg(path.join("log"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let ports_file = path.join(format!("nats-server_{}.ports", process.id()));
        // It ends with the test from here on.
        *locked(&self.process) = Some(process);
        while self.lives() {
            let written = std::fs::read_to_string(&ports_file).unwrap_or_default();
            if let Some(ports) = ports_of(&written) {
                *locked(&self.ports) = ports;
                let _ = std::fs::remove_file(&ports_file);
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    fn lives(&self) -> bool {
        let mut process = locked(&self.process);
        process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }
}

/// What the server writes of its ports.
fn ports_of(written: &str) -> Option<Ports> {
    let written: serde_json::Value = serde_json::from_str(written).ok()?;
    let port = |what: &str| written[what][0].as_str()?.rsplit(':').next()?.parse().ok();
    Some(Ports { clients: Some(port("nats")?), monitoring: Some(port("monitoring")?) })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}
