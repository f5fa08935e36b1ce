//! Sealing: what the values of Secrets look like on disk.
//!
//! A sealed body is a version byte, a nonce and the object under AES-256-GCM-SIV, bound to its
//! place, so that no body can be put in another's. The key lies beside the store: a copy of the
//! store alone, such as a backup, tells nothing.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use eventbus_core::Entropy;

use super::StoreError;
use crate::status::ApiError;

/// Only the owner of the process may read the key.
const MODE: u32 = 0o600;

/// The first byte of every sealed body.
const VERSION: u8 = 1;

const KEY_BYTES: usize = 32;

/// Seals and opens bodies.
pub(super) struct Seal {
    key: LessSafeKey,
    entropy: Arc<dyn Entropy>,
}

impl Seal {
    /// Reads the key beside the store at `path`. It is made if it is not there and nothing `sealed`
    /// is.
    pub(super) fn read(
        path: &Path,
        entropy: Arc<dyn Entropy>,
        sealed: bool,
    ) -> Result<Self, StoreError> {
        let path = path.with_extension("key");
        let io = |source| StoreError::Io { path: path.clone(), source };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !sealed => {
                make(&path, &*entropy).map_err(io)?
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::Key { path, reason: "it is missing" });
            }
            Err(error) => return Err(io(error)),
        };
        let key =
            bytes(text.trim()).and_then(|bytes| UnboundKey::new(&AES_256_GCM_SIV, &bytes).ok());
        let Some(key) = key else {
            return Err(StoreError::Key { path, reason: "it is no key" });
        };
        Ok(Self { key: LessSafeKey::new(key), entropy })
    }

    /// Seals a body for its place.
    pub(super) fn seal(&self, place: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
        let random = [self.entropy.next_u64(), self.entropy.next_u64()].map(u64::to_le_bytes);
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(random.as_flattened()).for_each(|(byte, random)| *byte = *random);
        let mut sealed = body.to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| ApiError::internal("a Secret could not be sealed".into()))?;
        Ok([&[VERSION][..], &nonce, &sealed].concat())
    }

    /// Opens the body that was sealed for this place.
    pub(super) fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, ApiError> {
        let opened = sealed.split_first().and_then(|(version, rest)| {
            let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
            let mut body = (*version == VERSION).then(|| body.to_vec())?;
            let aad = Aad::from(place.as_bytes());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = self.key.open_in_place(nonce, aad, &mut body).ok()?.len();
            body.truncate(length);
            Some(body)
        });
        opened.ok_or_else(|| {
            ApiError::internal("a stored Secret does not open with the key beside the store".into())
        })
    }
}

/// The place to which a body is bound.
pub(super) fn place(namespace: &str, name: &str) -> String {
    format!("secrets/{namespace}/{name}")
}

/// Makes the key, whole or not at all.
fn make(path: &PathBuf, entropy: &dyn Entropy) -> io::Result<String> {
    let mut text = String::new();
    for _ in 0..KEY_BYTES / 8 {
        // Writing to a text cannot fail.
        let _ = write!(text, "{:016x}", entropy.next_u64());
    }
    let fresh = path.with_extension("key.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&fresh)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())?;
    Ok(text)
}

fn bytes(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut bytes = [0; KEY_BYTES];
    if text.len() != KEY_BYTES * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use eventbus_core::testing::SeededEntropy;

    use super::*;

    fn read(path: &Path, seed: u64, sealed: bool) -> Result<Seal, StoreError> {
        Seal::read(path, Arc::new(SeededEntropy::new(seed)), sealed)
    }

    #[test]
    fn bodies_open_in_their_place_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("resources.db");
        let seal = read(&store, 1, false).unwrap();
        let sealed = seal.seal("a", b"hidden words").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"hidden"));
        assert_ne!(seal.seal("a", b"hidden words").unwrap(), sealed);
        let again = read(&store, 2, true).unwrap();
        assert_eq!(again.open("a", &sealed).unwrap(), b"hidden words");
        assert!(again.open("b", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(again.open("a", &broken).is_err(), "{at}");
            assert!(again.open("a", &sealed[..at]).is_err(), "{at}");
        }
        let mode = fs::metadata(folder.path().join("resources.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn a_lost_key_is_not_replaced_while_something_is_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("resources.db");
        assert!(matches!(read(&store, 1, true), Err(StoreError::Key { .. })));
        fs::write(folder.path().join("resources.key"), "short\n").unwrap();
        assert!(matches!(read(&store, 1, false), Err(StoreError::Key { .. })));
    }
}
