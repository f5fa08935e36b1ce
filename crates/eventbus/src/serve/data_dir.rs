//! The data directory: made where there is none, refused where it is somebody else's.
//!
//! Events and tokens must not land among a stranger's files because of a slip in a path, nor a
//! kubeconfig on theirs. So a directory is looked at before anything is made in it. Once a log was
//! made there it is the bus's, and what its owner lays beside is the owner's affair: a note must
//! not keep the bus from starting again.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use eventbus_apiserver::ApiServer;

use super::kubeconfig::is_full;
use crate::cli::Fault;

/// The directory of the log, which is made first.
pub(super) const LOG: &str = "log";

/// A file in it, made before all others: where it is, a bus was.
const LOCK: &str = "log/lock";

/// The store of the embedded API.
pub(super) const RESOURCES: &str = "resources.db";

/// The other files of a bus. They are there without a log when somebody removed it to be rid of
/// the events, or made a token before the first start.
const FILES: [&str; 12] = [
    RESOURCES,
    "api-authority.key",
    "api-authority.new",
    "audit.log",
    "kubeconfig",
    "kubeconfig.new",
    "resources.key",
    "token",
    "token.new",
    "users",
    "users.lock",
    "users.new",
];

/// How names of a bus's other files begin: what SQLite lays beside the store, audit logs that are
/// full, users' kubeconfigs.
const FILES_BEGIN: [&str; 5] =
    ["resources.db-", "resources.db.new", "resources.key.new", "audit.log.", "kubeconfig-"];

/// Makes the directory, or sees that it is nobody else's. What is there is not changed.
pub(super) fn open(path: &Path) -> Result<(), Fault> {
    let unusable = |error| unusable(path, &error);
    // Events and tokens are nobody else's.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(unusable)?;
    if path.join(LOCK).exists() {
        return Ok(());
    }
    check(path)?;
    ApiServer::check(&path.join(RESOURCES)).map_err(|error| super::resources::fault(&error))
}

/// Sees that the directory is nobody else's, if it is there.
pub(crate) fn check(path: &Path) -> Result<(), Fault> {
    let unusable = |error| unusable(path, &error);
    if !path.exists() || path.join(LOCK).exists() {
        return Ok(());
    }
    if let Some(name) = stranger(path).map_err(unusable)? {
        return Err(Fault::Usage(format!(
            "the data directory {} holds {name}, which is not of a bus: name an empty directory \
             with --data-dir, or one that the bus made; nothing was changed",
            path.display()
        )));
    }
    Ok(())
}

/// Why the directory is of no use.
pub(super) fn unusable(path: &Path, error: &io::Error) -> Fault {
    let path = path.display();
    if is_full(error) {
        return Fault::Failed(format!(
            "the data directory {path} has no room for what every start needs: {error}; make some"
        ));
    }
    Fault::Usage(format!(
        "the data directory {path} cannot be used: {error}; name one with --data-dir that this \
         user may write"
    ))
}

/// The first name in the directory that no bus would have made there, nor its owner for it.
fn stranger(path: &Path) -> io::Result<Option<String>> {
    let mut strangers = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // The log may lie elsewhere, behind a symbolic link.
        if !is_welcome(&name, entry.path().is_dir()) {
            strangers.push(name);
        }
    }
    Ok(strangers.into_iter().min())
}

fn is_welcome(name: &str, is_directory: bool) -> bool {
    // What volumes carry, and tools hide; and the settings file.
    let is_aside = name.starts_with('.') || name == "lost+found" || name.ends_with(".toml");
    let is_ours = match is_directory {
        true => name == LOG,
        false => FILES.contains(&name) || FILES_BEGIN.iter().any(|begin| name.starts_with(begin)),
    };
    is_aside || is_ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_room_the_advice_is_to_make_some() {
        let said = |kind: io::ErrorKind| unusable(Path::new("/d"), &kind.into());
        let full = said(io::ErrorKind::StorageFull);
        assert!(full.to_string().ends_with("make some") && full.exit_code() == 1, "{full}");
        let denied = said(io::ErrorKind::PermissionDenied);
        assert!(denied.to_string().ends_with("this user may write"), "{denied}");
    }

    #[test]
    fn a_bus_knows_its_own_by_name_and_kind() {
        for file in ["token", "audit.log.3", "resources.db-wal", "kubeconfig-ada", "users.new"] {
            assert!(is_welcome(file, false), "{file}");
            assert!(!is_welcome(file, true), "a directory {file}");
        }
        for aside in [".snapshot", "lost+found", "eventbus.toml"] {
            assert!(is_welcome(aside, true) && is_welcome(aside, false), "{aside}");
        }
        assert!(is_welcome("log", true) && !is_welcome("log", false));
        for file in ["notes.txt", "resources.json", "audit", "tokens", "toml"] {
            assert!(!is_welcome(file, false), "{file}");
        }
    }
}
