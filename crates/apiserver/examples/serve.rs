//! Serves the definitions of a file on a port, for a try with `kubectl`:
//! `cargo run -p eventbus-apiserver --example serve -- DEFINITIONS.json FOLDER PORT [TOKEN]`.
//! Without a token the gate is left out; with one, `FOLDER/users` names who else comes in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use eventbus_apiserver::{ApiServer, Config, Gate, Users};
use eventbus_core::{Clock, testing::SeededEntropy};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tower::Layer;

struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "an example is its own program: it reads the clock")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        u64::try_from(since_epoch().as_millis()).unwrap_or_default()
    }

    fn elapsed(&self) -> Duration {
        since_epoch()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [definitions, folder, port, token @ ..] = arguments.as_slice() else {
        return Err("usage: serve DEFINITIONS.json FOLDER PORT [TOKEN]".into());
    };
    let seed = SystemClock.now_ms();
    let server = ApiServer::open(Config {
        path: PathBuf::from(folder).join("resources.db"),
        definitions: serde_json::from_slice(&std::fs::read(definitions)?)?,
        audit: Some(PathBuf::from(folder).join("audit.log")),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SeededEntropy::new(seed)),
    })
    .await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    let listener = tokio::net::TcpListener::bind(address).await?;
    let users = PathBuf::from(folder).join("users");
    let users = |token: &String| Users::new(token.clone(), Some(users));
    let gate = token.first().map(users).map(|users| Gate::new(users, address, Vec::new()));
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            _ = tokio::signal::ctrl_c() => break,
        };
        let (io, service, gate) = (TokioIo::new(stream), server.service(), gate.clone());
        tokio::spawn(async move {
            let connection = auto::Builder::new(TokioExecutor::new());
            let served = match gate {
                Some(gate) => {
                    let service = TowerToHyperService::new(gate.layer(service));
                    connection.serve_connection(io, service).await
                }
                None => {
                    let service = TowerToHyperService::new(service);
                    connection.serve_connection(io, service).await
                }
            };
            drop(served);
        });
    }
    server.close().await;
    Ok(())
}
