//! The authority that vouches for the API port: `kubectl` keeps its token to itself without TLS.
//!
//! Its key is made at the first start and kept in the data directory; its certificate, made of
//! nothing but that key, and the port's are made anew with each start. So a kubeconfig stays true
//! over restarts, and nothing ever has to be renewed.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use eventbus_server::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::kubeconfig::replace;

/// The file of the key.
const FILE: &str = "api-authority.key";

/// Who signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// The authority of a data directory.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(FILE);
        let key = match std::fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| unusable(&path, &error))?,
            Err(error) if error.kind() == ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(error),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "eventbus API authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(io::Error::other)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The certificate that clients are to trust, as PEM.
    pub(super) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The identity of a port that listens at `ip` and is also reached under `hosts`.
    pub(super) fn identity(&self, ip: IpAddr, hosts: &[String]) -> io::Result<Identity> {
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), ip];
        let names = loopback.iter().map(IpAddr::to_string).chain(["localhost".to_owned()]);
        let mut params =
            CertificateParams::new(names.chain(hosts.iter().cloned()).collect::<Vec<_>>())
                .map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, "eventbus API");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Identity::new(certificate.into(), key.into()).map_err(io::Error::other)
    }
}

/// Whether two certificates of authorities (PEM in base64) say the same, whatever their signatures,
/// which are others each time.
pub(super) fn is_same(left: &str, right: &str) -> bool {
    left == right || signed_part(left).is_some_and(|part| Some(part) == signed_part(right))
}

fn signed_part(certificate: &str) -> Option<Vec<u8>> {
    let pem = String::from_utf8(BASE64_STANDARD.decode(certificate).ok()?).ok()?;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(body).ok()?;
    // It is the first value in the certificate's.
    let (start, _) = extent(&der)?;
    let (head, content) = extent(der.get(start..)?)?;
    Some(der.get(start..start + head + content)?.to_vec())
}

/// Bytes of the head of a value in DER, and of its content.
fn extent(der: &[u8]) -> Option<(usize, usize)> {
    match *der {
        [_, bytes @ ..=0x7f, ..] => Some((2, bytes.into())),
        [_, 0x81, bytes, ..] => Some((3, bytes.into())),
        [_, 0x82, high, low, ..] => Some((4, u16::from_be_bytes([high, low]).into())),
        _ => None,
    }
}

fn make(path: &Path) -> io::Result<KeyPair> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    replace(path, &key.serialize_pem())?;
    Ok(key)
}

fn unusable(path: &Path, error: &rcgen::Error) -> io::Error {
    let why = format!("{} is no key ({error}): remove it, and a new one is made", path.display());
    io::Error::new(ErrorKind::InvalidData, why)
}
