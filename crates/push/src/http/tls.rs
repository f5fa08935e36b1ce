//! TLS to endpoints: the system's certificates and those the operator adds, always verified.

use std::sync::Arc;

use eventbus_core::delivery::Outcome;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::telemetry;

/// Makes TLS connections.
pub(super) struct Tls {
    /// Made for the first endpoint that needs it: reading the system's certificates takes longer
    /// than all else at the start of the process.
    connector: OnceCell<TlsConnector>,
    trusted: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// TLS that trusts these certificates beside the system's.
    pub(super) fn new(trusted: Vec<CertificateDer<'static>>) -> Self {
        Self { connector: OnceCell::new(), trusted }
    }

    /// Shakes hands with `host`.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Outcome> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Outcome::BadEndpoint)?;
        let connector = self.connector.get_or_init(|| self.make()).await;
        connector.connect(name, stream).await.map_err(|_| Outcome::Tls)
    }

    async fn make(&self) -> TlsConnector {
        // Files are read: not on a thread that serves others.
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let found = found.unwrap_or_default();
        telemetry::system_certificates_loaded(found.certs.len(), found.errors.len());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots.add_parsable_certificates(self.trusted.iter().cloned());
        #[expect(clippy::expect_used, reason = "the provider supports the default versions")]
        let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs supports TLS 1.2 and 1.3");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}
