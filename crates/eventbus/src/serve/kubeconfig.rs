//! The token of the API port, and the kubeconfig that carries it (docs/decisions/0006).

use std::fs::{OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use eventbus_core::Entropy;
use tracing::warn;

use super::authority;

/// The file in the data directory that names the users beside the owner.
pub(crate) const USERS: &str = "users";

/// Only the owner of the process may read either file.
const MODE: u32 = 0o600;

/// The token kept in `<data-dir>/token`; made at the first start, the same ever after.
pub(super) fn token(data_dir: &Path, entropy: &dyn Entropy) -> io::Result<String> {
    let path = data_dir.join("token");
    match std::fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => Ok(token.trim().to_owned()),
        Ok(_) => make(&path, entropy),
        Err(error) if error.kind() == ErrorKind::NotFound => make(&path, entropy),
        Err(error) => Err(error),
    }
}

/// A token that nobody guesses.
pub(crate) fn new_token(entropy: &dyn Entropy) -> String {
    (0..4).map(|_| format!("{:016x}", entropy.next_u64())).collect()
}

fn make(path: &Path, entropy: &dyn Entropy) -> io::Result<String> {
    let token = new_token(entropy);
    replace(path, &format!("{token}\n"))?;
    Ok(token)
}

/// Where clients find the API, and by which certificate they know it.
pub(super) struct Site {
    server: String,
    /// PEM in base64.
    authority: String,
}

impl Site {
    /// The API port at `address`, vouched for by the authority with this certificate (PEM).
    pub(super) fn new(address: SocketAddr, certificate: &str) -> Self {
        let authority = BASE64_STANDARD.encode(certificate);
        Self { server: reachable(address).to_string(), authority }
    }

    /// What stands in a kubeconfig of ours.
    fn read(text: &str) -> Option<Self> {
        let field =
            |name| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::to_owned);
        let (server, authority) =
            (field("server: https://")?, field("certificate-authority-data: ")?);
        Some(Self { server, authority })
    }

    /// Brings `<data-dir>/kubeconfig` up to date. Where there is no room for that, an older one
    /// stays, with a warning: only a bus that goes on makes room, by delivering.
    pub(super) fn write(mut self, data_dir: &Path, token: &str) -> io::Result<()> {
        let path = data_dir.join("kubeconfig");
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        let Some(older) = Self::read(&present) else {
            return replace(&path, &self.kubeconfig("eventbus", token));
        };
        let is_same = authority::is_same(&older.authority, &self.authority);
        if is_same {
            self.authority = older.authority;
        }
        let written = replace(&path, &self.kubeconfig("eventbus", token));
        let Err(error) = &written else { return Ok(()) };
        if !is_full(error) {
            return written;
        }
        let (names, at) = (older.server, self.server);
        let has_token = present.contains(token);
        warn!(
            path = %path.display(), names, at, is_same_authority = is_same, has_token, %error,
            "the kubeconfig is out of date, and there is no room for another: make room, and start \
             again"
        );
        Ok(())
    }

    /// `kubectl` sends a token over TLS only. The other context is for those who want to see what
    /// is said, or trust no certificate; client libraries send the token there, too.
    fn kubeconfig(&self, user: &str, token: &str) -> String {
        let Self { server, authority } = self;
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: eventbus\n\
             clusters:\n\
             - name: eventbus-http\n  \
               cluster:\n    \
                 server: http://{server}\n\
             - name: eventbus\n  \
               cluster:\n    \
                 server: https://{server}\n    \
                 certificate-authority-data: {authority}\n\
             contexts:\n\
             - name: eventbus-http\n  \
               context:\n    \
                 cluster: eventbus-http\n    \
                 namespace: default\n    \
                 user: {user}\n\
             - name: eventbus\n  \
               context:\n    \
                 cluster: eventbus\n    \
                 namespace: default\n    \
                 user: {user}\n\
             users:\n\
             - name: {user}\n  \
               user:\n    \
                 token: {token}\n"
        )
    }
}

/// The kubeconfig of another user, for the address at which the bus was served last.
pub(crate) fn of_user(data_dir: &Path, user: &str, token: &str) -> Result<String, String> {
    let path = data_dir.join("kubeconfig");
    let owners = std::fs::read_to_string(&path)
        .map_err(|error| format!("{} tells where the bus is: {error}", path.display()))?;
    let site = Site::read(&owners).ok_or_else(|| format!("{} names no server", path.display()))?;
    Ok(site.kubeconfig(user, token))
}

/// An address that a client on this machine can connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Writes a file whole or not at all. One that says the same already is left alone, so that a full
/// volume does not hinder a restart.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let same = std::fs::read_to_string(path).is_ok_and(|present| present == text);
    if same && std::fs::set_permissions(path, Permissions::from_mode(MODE)).is_ok() {
        return Ok(());
    }
    let beside = path.with_extension("new");
    let replaced = write_new(&beside, text).and_then(|()| std::fs::rename(&beside, path));
    if replaced.is_err() {
        // What is half written is of no use to anybody.
        let _ = std::fs::remove_file(&beside);
    }
    replaced
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    // The mode above counts only for a file that was not there.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whether there is no room, by which one that waits may be helped.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::authority::Authority;
    use super::*;

    fn site(data_dir: &Path, address: &str) -> Site {
        let authority = Authority::open(data_dir).unwrap();
        Site::new(address.parse().unwrap(), authority.certificate())
    }

    #[test]
    fn a_kubeconfig_that_says_the_same_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let written = |address, token| {
            site(directory.path(), address).write(directory.path(), token).unwrap();
            (std::fs::metadata(&path).unwrap().ino(), std::fs::read_to_string(&path).unwrap())
        };
        let first = written("127.0.0.1:1", "token");
        // Each start makes another certificate of the same key.
        assert_eq!(written("0.0.0.0:1", "token"), first);
        let moved = written("127.0.0.1:2", "token");
        assert!(moved.1.contains("server: https://127.0.0.1:2"), "{}", moved.1);
        assert!(written("127.0.0.1:2", "another").1.contains("token: another"));
        std::fs::remove_file(directory.path().join("api-authority.key")).unwrap();
        assert_ne!(written("127.0.0.1:2", "another").1, moved.1.replace("token\n", "another\n"));
    }

    #[test]
    fn what_cannot_be_replaced_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        // A file does not take the place of a directory.
        std::fs::create_dir(&path).unwrap();
        assert!(replace(&path, "text").is_err());
        assert!(!path.with_extension("new").exists());
    }
}
