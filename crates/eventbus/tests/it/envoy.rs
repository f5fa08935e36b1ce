//! A real Envoy, as the sidecars of a mesh are: it ends with the test.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::program::within;
use crate::served::Bus;

/// The type of a piece of Envoy's configuration.
fn of_type(name: &str) -> String {
    format!("type.googleapis.com/envoy.{name}")
}

const HTTP: &str = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// An Envoy that runs.
pub(crate) struct Envoy {
    listeners: Value,
    _process: Child,
    _directory: TempDir,
}

/// One way through an Envoy.
pub(crate) struct Way {
    /// Its name, and that of its spans.
    pub(crate) name: &'static str,
    /// `INBOUND` or `OUTBOUND`.
    pub(crate) direction: &'static str,
    /// `127.0.0.1:PORT`
    pub(crate) to: String,
    /// Takes TLS from clients that its authority vouches for.
    pub(crate) tls_in: Option<Value>,
    /// Speaks TLS to who it leads to.
    pub(crate) tls_out: Option<Value>,
}

/// The authority of a mesh.
pub(crate) struct Mesh {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// The program, where `./test` has put it; says so where it is not.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("EVENTBUS_ENVOY").map(PathBuf::from);
    let path = path.filter(|path| path.exists());
    if path.is_none() {
        println!("SKIPPED: no Envoy; ./test fetches one, EVENTBUS_ENVOY names it");
    }
    path
}

impl Mesh {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mesh");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), root }
    }

    /// What a sidecar of `name` needs to be known, and to know others.
    pub(crate) fn identity(&self, name: &str) -> Value {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        json!({
            "tls_certificates": [{
                "certificate_chain": { "inline_string": certificate },
                "private_key": { "inline_string": key.serialize_pem() },
            }],
            "validation_context": { "trusted_ca": { "inline_string": self.root } },
        })
    }
}

impl Envoy {
    /// Starts one whose spans are of `service` and go to the collector at `collector`; `None` where
    /// there is no program.
    pub(crate) async fn start(service: &str, collector: &str, ways: &[Way]) -> Option<Self> {
        let program = program()?;
        let directory = tempfile::tempdir().unwrap();
        let (config, admin) = (directory.path().join("envoy.json"), directory.path().join("admin"));
        std::fs::write(&config, settings(collector, ways).to_string()).unwrap();
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(program)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"])
            .args(["--service-cluster", service, "--service-node", service])
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut envoy = Self { listeners: json!({}), _process: process, _directory: directory };
        within(async {
            while envoy.listeners["listener_statuses"].as_array().map_or(0, Vec::len) < ways.len() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                assert!(envoy._process.try_wait().unwrap().is_none(), "{}", envoy.log());
                let Ok(address) = std::fs::read_to_string(&admin) else { continue };
                envoy.listeners = listeners(&address).await.unwrap_or_default();
            }
        })
        .await;
        Some(envoy)
    }

    /// `127.0.0.1:PORT`, where this way begins.
    pub(crate) fn address(&self, name: &str) -> String {
        let listeners = self.listeners["listener_statuses"].as_array().unwrap();
        let listener = listeners.iter().find(|listener| listener["name"] == name).unwrap();
        let port = &listener["local_address"]["socket_address"]["port_value"];
        format!("127.0.0.1:{port}")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self._directory.path().join("log")).unwrap()
    }
}

/// What the admin port at `address` says of the listeners, once it speaks.
async fn listeners(address: &str) -> Option<Value> {
    let url = format!("http://{}/listeners?format=json", address.trim());
    let answer = Bus::get(&url).await?;
    serde_json::from_str(&answer).ok()
}

fn settings(collector: &str, ways: &[Way]) -> Value {
    let collector = collector.trim_start_matches("http://");
    let clusters = ways.iter().map(|way| cluster(way.name, &way.to, way.tls_out.as_ref()));
    let clusters: Vec<_> = clusters.chain([cluster("collector", collector, None)]).collect();
    json!({
        "admin": { "address": socket("127.0.0.1:0") },
        // Spans are told at once.
        "layered_runtime": { "layers": [{
            "name": "test",
            "static_layer": { "tracing.zipkin.min_flush_spans": 1 },
        }] },
        "static_resources": {
            "listeners": ways.iter().map(listener).collect::<Vec<_>>(),
            "clusters": clusters,
        },
    })
}

fn socket(address: &str) -> Value {
    let (host, port) = address.rsplit_once(':').unwrap();
    let port: u16 = port.trim_end_matches('/').parse().unwrap();
    json!({ "socket_address": { "address": host, "port_value": port } })
}

fn listener(way: &Way) -> Value {
    let http = json!({
        "@type": of_type(HTTP),
        "stat_prefix": way.name,
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": { "subject": true },
        "tracing": {
            "random_sampling": { "value": 100.0 },
            "provider": {
                "name": "envoy.tracers.zipkin",
                "typed_config": {
                    "@type": of_type("config.trace.v3.ZipkinConfig"),
                    "collector_cluster": "collector",
                    "collector_endpoint": "/api/v2/spans",
                    "collector_endpoint_version": "HTTP_JSON",
                    "shared_span_context": false,
                    "trace_id_128bit": true,
                },
            },
        },
        "route_config": { "virtual_hosts": [{
            "name": way.name,
            "domains": ["*"],
            "routes": [{
                "match": { "prefix": "/" },
                "route": { "cluster": way.name, "timeout": "9s" },
                "decorator": { "operation": way.name },
            }],
        }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": of_type("extensions.filters.http.router.v3.Router") },
        }],
    });
    let mut chain = json!({
        "filters": [{ "name": "http", "typed_config": http }],
    });
    if let Some(identity) = &way.tls_in {
        let tls = of_type("extensions.transport_sockets.tls.v3.DownstreamTlsContext");
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": tls,
                "require_client_certificate": true,
                "common_tls_context": identity,
            },
        });
    }
    json!({
        "name": way.name,
        "traffic_direction": way.direction,
        "address": socket("127.0.0.1:0"),
        "filter_chains": [chain],
    })
}

fn cluster(name: &str, to: &str, tls: Option<&Value>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(to) } }] }],
        },
    });
    if let Some(identity) = tls {
        let tls = of_type("extensions.transport_sockets.tls.v3.UpstreamTlsContext");
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": { "@type": tls, "sni": "orders", "common_tls_context": identity },
        });
    }
    cluster
}
