//! Who we are: each way to say it works, the wrong secret is told of without being shown, and what
//! the server accepts in the end is accepted.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use eventbus_nats::{Access, NatsConfig, OpenError, Tls};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as TlsKey};
use serde_json::{Value, json};

use crate::server::{NatsServer, Options};
use crate::world::*;

/// The server knows another secret first and ours then.
async fn is_let_in_once_it_is_known(
    [others, ours]: [String; 2],
    access: Access,
    (words, secret): (&str, &str),
) {
    let options = |settings: &str| Options { settings: settings.to_owned(), ..Default::default() };
    let Some(server) = NatsServer::start(options(&others)).await else { return };
    let config = NatsConfig { access, ..NatsConfig::at(server.url()) };
    assert!(!format!("{config:?}").contains(secret), "the secret is not shown");
    let broker = open(config).await.unwrap();
    let reason = is_unusable(&broker, "refuses us").await;
    assert!(reason.contains(words) && !reason.contains(secret), "{reason}");
    let refused = publish(&broker, "x").await.unwrap_err().to_string();
    assert!(refused.contains(words) && !refused.contains(secret), "{refused}");
    server.rerun(options(&ours)).await;
    is_usable(&broker).await;
    publish(&broker, "y").await.unwrap();
    takes(&cursor(&broker, "orders").await, &["y"]).await;
}

#[tokio::test]
async fn a_user_with_a_password() {
    let settings = |password| {
        format!("authorization {{ users: [{{ user: \"bus\", password: {password:?} }}] }}")
    };
    let access = Access::User { name: "bus".into(), password: "our-secret".into() };
    let words = ("check nats_user and nats_password", "our-secret");
    let settings = ["another", "our-secret"].map(settings);
    is_let_in_once_it_is_known(settings, access, words).await;
}

#[tokio::test]
async fn a_token() {
    let settings =
        ["another", "our-secret"].map(|token| format!("authorization {{ token: {token:?} }}"));
    let access = Access::Token("our-secret".into());
    is_let_in_once_it_is_known(settings, access, ("check nats_token", "our-secret")).await;
}

#[tokio::test]
async fn nobody_where_somebody_is_wanted() {
    let settings = ["authorization { token: \"theirs\" }".to_owned(), String::new()];
    let words = ("set nats_user and nats_password, nats_token", "theirs");
    is_let_in_once_it_is_known(settings, Access::Anonymous, words).await;
}

#[tokio::test]
async fn an_nkey() {
    let (other, ours) = (KeyPair::new_user(), KeyPair::new_user());
    let settings = [&other, &ours]
        .map(|key| format!("authorization {{ users: [{{ nkey: {} }}] }}", key.public_key()));
    let seed = ours.seed().unwrap();
    let access = Access::Nkey(seed.clone());
    is_let_in_once_it_is_known(settings, access, ("check nats_nkey", &seed)).await;
}

#[tokio::test]
async fn what_is_no_seed_is_not_shown() {
    let settings =
        format!("authorization {{ users: [{{ nkey: {} }}] }}", KeyPair::new_user().public_key());
    let Some(server) = NatsServer::start(Options { settings, ..Options::default() }).await else {
        return;
    };
    let access = Access::Nkey("our-secret".into());
    let broker = open(NatsConfig { access, ..NatsConfig::at(server.url()) }).await.unwrap();
    let reason = is_unusable(&broker, "check nats_nkey").await;
    assert!(!reason.contains("our-secret"), "{reason}");
}

/// An operator, whom the server trusts, with an account for the bus.
pub(crate) struct Operator {
    key: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    pub(crate) fn new() -> Self {
        let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
        Self { key: KeyPair::new_operator(), account, system }
    }

    /// The settings of a server that trusts it, and knows its accounts.
    pub(crate) fn settings(&self) -> String {
        let account = |key: &KeyPair, jetstream: bool| {
            let mut limits = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
                "wildcards": true, "conn": -1, "leaf": -1,
            });
            if jetstream {
                limits["mem_storage"] = json!(-1);
                limits["disk_storage"] = json!(-1);
                limits["streams"] = json!(-1);
                limits["consumer"] = json!(-1);
            }
            let nats = json!({ "type": "account", "version": 2, "limits": limits });
            jwt(&self.key, key, nats)
        };
        let (us, system) = (self.account.public_key(), self.system.public_key());
        let operator = jwt(&self.key, &self.key, json!({ "type": "operator", "version": 2 }));
        format!(
            "operator: {operator}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {us}: {}, {system}: {} }}",
            account(&self.account, true),
            account(&self.system, false),
        )
    }

    /// A file with the credentials of a new user of the bus's account, and its seed.
    pub(crate) fn credentials(&self, dir: &Path) -> (PathBuf, String) {
        credentials(&self.account, dir, "bus")
    }

    /// The same of the system account.
    pub(crate) fn system_credentials(&self, dir: &Path) -> (PathBuf, String) {
        credentials(&self.system, dir, "system")
    }
}

fn credentials(account: &KeyPair, dir: &Path, name: &str) -> (PathBuf, String) {
    let user = KeyPair::new_user();
    let limits = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
    let (jwt, seed) = (jwt(account, &user, limits), user.seed().unwrap());
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    let file = dir.join(format!("{name}.creds"));
    std::fs::write(&file, text).unwrap();
    (file, seed)
}

/// What `issuer` says of `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let claims = json!({
        "jti": unique().to_string(), "iat": 1_700_000_000, "iss": issuer.public_key(),
        "name": "test", "sub": subject.public_key(), "nats": nats,
    });
    let part = |value: &Value| BASE64.encode(value.to_string());
    let head = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let signed = format!("{head}.{}", part(&claims));
    format!("{signed}.{}", BASE64.encode(issuer.sign(signed.as_bytes()).unwrap()))
}

#[tokio::test]
async fn a_file_with_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let (other, ours) = (Operator::new(), Operator::new());
    let (file, seed) = ours.credentials(dir.path());
    let settings = [other.settings(), ours.settings()];
    let words = ("check nats_credentials", seed.as_str());
    is_let_in_once_it_is_known(settings, Access::Credentials(file), words).await;
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named_at_once() {
    let gone = PathBuf::from("/nowhere/to/be.found");
    let tls = |tls: Tls| NatsConfig { tls, ..NatsConfig::at("nats://127.0.0.1:1") };
    let access = Access::Credentials(gone.clone());
    let here = PathBuf::from("/dev/null");
    for (setting, config) in [
        ("nats_credentials", NatsConfig { access, ..NatsConfig::at("nats://127.0.0.1:1") }),
        ("nats_ca", tls(Tls { roots: Some(gone.clone()), ..Tls::default() })),
        ("nats_cert", tls(Tls { client: Some((gone.clone(), here.clone())), ..Tls::default() })),
        ("nats_key", tls(Tls { client: Some((here, gone)), ..Tls::default() })),
    ] {
        let refused = open(config).await.err().expect("it is refused");
        assert!(matches!(refused, OpenError::Setting { setting: named, .. } if named == setting));
        assert!(refused.to_string().contains("/nowhere/to/be.found"), "{refused}");
    }
}

/// Puts a new authority's certificate, and one that it issued with its key, into files.
fn certificates(dir: &Path, name: &str) -> [PathBuf; 3] {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, TlsKey::generate().unwrap()).unwrap();
    let key = TlsKey::generate().unwrap();
    let issued = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let issued = issued.signed_by(&key, &authority).unwrap();
    let put = |what: &str, text: String| {
        let file = dir.join(format!("{name}-{what}.pem"));
        std::fs::write(&file, text).unwrap();
        file
    };
    let ca = put("ca", authority.pem());
    [ca, put("cert", issued.pem()), put("key", key.serialize_pem())]
}

#[tokio::test]
async fn a_certificate_of_an_authority_of_our_own() {
    let dir = tempfile::tempdir().unwrap();
    let [server_ca, server_cert, server_key] = certificates(dir.path(), "server");
    let [client_ca, client_cert, client_key] = certificates(dir.path(), "client");
    let [other_ca, other_cert, other_key] = certificates(dir.path(), "other");
    let settings = format!(
        "tls {{ cert_file: {server_cert:?}, key_file: {server_key:?}, ca_file: {client_ca:?}, \
         verify: true }}"
    );
    let Some(server) = NatsServer::start(Options { settings, ..Options::default() }).await else {
        return;
    };
    let config = |roots: &Path, client: Option<(&Path, &Path)>| NatsConfig {
        tls: Tls {
            roots: Some(roots.to_owned()),
            client: client.map(|(cert, key)| (cert.to_owned(), key.to_owned())),
            required: true,
        },
        ..NatsConfig::at(server.url())
    };
    let ours = Some((&*client_cert, &*client_key));
    let stranger = open(config(&other_ca, ours)).await.unwrap();
    is_unusable(&stranger, "invalid peer certificate").await;
    for client in [None, Some((&*other_cert, &*other_key))] {
        let stranger = open(config(&server_ca, client)).await.unwrap();
        is_unusable(&stranger, "is not reached").await;
    }
    let broker = usable(config(&server_ca, ours)).await;
    publish(&broker, "x").await.unwrap();
    takes(&cursor(&broker, "orders").await, &["x"]).await;
}

#[tokio::test]
async fn tls_is_not_done_without_where_it_is_required() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let tls = Tls { required: true, ..Tls::default() };
    let broker = open(NatsConfig { tls, ..NatsConfig::at(server.url()) }).await.unwrap();
    is_unusable(&broker, "is not reached").await;
    assert!(publish(&broker, "x").await.is_err());
}
