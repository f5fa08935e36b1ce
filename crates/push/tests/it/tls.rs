//! Endpoints behind TLS: verified always, trusted when told so.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::subscriber::Subscriber;
use crate::world::{World, eventually, subscription};

/// A certificate authority and a server certificate of it for `name`.
fn certificates(name: &str) -> (CertificateDer<'static>, ServerConfig) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![server.der().clone()], key)
        .unwrap();
    (root.der().clone(), config)
}

async fn subscriber(mut config: ServerConfig) -> Subscriber {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Subscriber::start_over(move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await.ok() }
    })
    .await
}

fn world_that_trusts(root: CertificateDer<'static>) -> World {
    World::with(|parts| parts.trusted = vec![root])
}

#[tokio::test]
async fn a_trusted_endpoint_gets_its_events_over_one_connection() {
    let (root, config) = certificates("localhost");
    let subscriber = subscriber(config).await;
    let mut world = world_that_trusts(root);
    let mut narrow = subscription("a", &format!("https://localhost:{}/", subscriber.port()));
    narrow.max_inflight = 1;
    world.declare_open(narrow).await;
    world.publish((0..20).map(|number| number.to_string()));
    eventually("all is settled", || world.lag("a") == 0).await;
    assert_eq!(world.outcomes("a"), ["success"; 20]);
    assert_eq!(subscriber.connections(), 1);
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let (_, config) = certificates("localhost");
    let (other_root, _) = certificates("localhost");
    let subscriber = subscriber(config).await;
    let mut world = world_that_trusts(other_root);
    let endpoint = format!("https://localhost:{}/", subscriber.port());
    world.declare_open(subscription("a", &endpoint)).await;
    world.publish(["1"]);
    eventually("an attempt ended", || !world.outcomes("a").is_empty()).await;
    assert_eq!((world.outcomes("a")[0], subscriber.count()), ("tls", 0));
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (root, config) = certificates("example.org");
    let subscriber = subscriber(config).await;
    let mut world = world_that_trusts(root);
    let endpoint = format!("https://localhost:{}/", subscriber.port());
    world.declare_open(subscription("a", &endpoint)).await;
    world.publish(["1"]);
    eventually("an attempt ended", || !world.outcomes("a").is_empty()).await;
    assert_eq!((world.outcomes("a")[0], subscriber.count()), ("tls", 0));
}

#[tokio::test]
async fn an_endpoint_that_does_not_speak_tls_is_told() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    let endpoint = format!("https://127.0.0.1:{}/", subscriber.port());
    world.declare_open(subscription("a", &endpoint)).await;
    world.publish(["1"]);
    eventually("an attempt ended", || !world.outcomes("a").is_empty()).await;
    assert_eq!(world.outcomes("a")[0], "tls");
}
