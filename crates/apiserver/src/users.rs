//! The users: the owner, whose token is given at start, and those whom a file names.
//!
//! The file holds marks of the tokens, not the tokens: whoever reads it can still not come in. It
//! is looked at anew with each request of a user, so that whoever is revoked is so at once.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, Metadata},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;

use crate::{
    access::{Role, Scope, User},
    status::ApiError,
};

/// Bytes of a name: as many as of a label.
const NAME_BYTES: usize = 63;

/// The owner's name, as Kubernetes' own kubeconfigs have it.
const OWNER: &str = "kubernetes-admin";

/// Why a line of the users' file, or a name in it, cannot be used.
#[derive(Debug, Error)]
pub enum AccountError {
    /// The line is not of the form.
    #[error("line {0}: a line is NAME ROLE NAMESPACES MARK, and each name comes once")]
    Line(usize),
    /// The name has other characters, or too many.
    #[error("{0:?} is no name: up to 63 small letters, digits, '-', '.', '_' and '@'")]
    Name(String),
    /// The name is the owner's.
    #[error("{OWNER} is the owner of the bus, whose token stands in its kubeconfig")]
    Owner,
    /// The name is taken.
    #[error("there is a token of {0} already: revoke it first")]
    Taken(String),
}

/// A user of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// Who it is, and what the user may do.
    pub user: User,
    /// SHA-256 of the token: tokens are as long and as random as it is, so nothing is gained by a
    /// slower or salted one.
    mark: String,
}

/// All users of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Accounts(Vec<Account>);

/// Tells users by their tokens.
pub struct Users {
    owner: String,
    path: Option<PathBuf>,
    seen: Mutex<Seen>,
}

/// How a user came in; an extension of their requests, for answers that last.
#[derive(Clone)]
pub(crate) struct Standing {
    users: Arc<Users>,
    mark: String,
    user: User,
}

/// The file as it was when it was read last.
#[derive(Default)]
struct Seen {
    version: Option<(u64, i64, i64, u64)>,
    accounts: Accounts,
}

impl Users {
    /// The owner has the token `owner`; the file at `path` names the others. It may come later.
    pub fn new(owner: String, path: Option<PathBuf>) -> Self {
        Self { owner, path, seen: Mutex::default() }
    }

    /// The user with this token, and what may take the token away again: nothing can do so with
    /// the owner's.
    pub(crate) fn find(self: &Arc<Self>, token: &[u8]) -> Option<(User, Option<Standing>)> {
        if same(token, self.owner.as_bytes()) {
            let owner = User { name: OWNER.into(), role: Role::Admin };
            return Some((owner, None));
        }
        let mark = mark(token);
        let user = self.marked(&mark)?;
        let standing = Standing { users: Arc::clone(self), mark, user: user.clone() };
        Some((user, Some(standing)))
    }

    /// The user of the file with this mark, as the file is now.
    fn marked(&self, mark: &str) -> Option<User> {
        let path = self.path.as_ref()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::metadata(path) {
            Ok(present) if seen.version == Some(version(&present)) => {}
            Ok(present) => {
                let read = fs::read_to_string(path).map_err(|error| error.to_string());
                let read =
                    read.and_then(|text| Accounts::parse(&text).map_err(|error| error.to_string()));
                let accounts = read.unwrap_or_else(|error| {
                    tracing::error!(path = %path.display(), error, "nobody of this file comes in");
                    Accounts::default()
                });
                *seen = Seen { version: Some(version(&present)), accounts };
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), %error, "nobody of this file comes in");
                }
                *seen = Seen::default();
            }
        }
        seen.accounts.find(mark)
    }
}

impl Standing {
    /// Whether the token still says of its user what it said when they came in; 401 when it says
    /// nothing any more.
    pub(crate) fn is_kept(&self) -> Result<bool, ApiError> {
        let user = self.users.marked(&self.mark).ok_or_else(ApiError::unauthorized)?;
        Ok(user == self.user)
    }
}

impl Accounts {
    /// Reads the file: a line a user, and comments behind `#`.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let mut accounts = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let account = Account::parse(line).ok_or(AccountError::Line(index + 1))?;
            accounts.add(account).map_err(|_| AccountError::Line(index + 1))?;
        }
        Ok(accounts)
    }

    /// Adds a user.
    pub fn add(&mut self, account: Account) -> Result<(), AccountError> {
        let name = &account.user.name;
        if self.iter().any(|known| known.user.name == *name) {
            return Err(AccountError::Taken(name.clone()));
        }
        self.0.push(account);
        Ok(())
    }

    /// Removes a user; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|account| account.user.name != name);
        self.0.len() < before
    }

    /// The users, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.0.iter()
    }

    fn find(&self, mark: &str) -> Option<User> {
        self.iter().find(|account| account.mark == mark).map(|account| account.user.clone())
    }
}

impl fmt::Display for Accounts {
    /// The file.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "# name role namespaces mark (written by `eventbus token`)")?;
        self.iter().try_for_each(|Account { user, mark }| {
            writeln!(out, "{} {} {} {mark}", user.name, user.role, user.role.namespaces())
        })
    }
}

impl Account {
    /// A user who comes in with `token`, under any name but the owner's: the audit log would not
    /// tell them apart.
    pub fn new(name: &str, role: Role, token: &str) -> Result<Self, AccountError> {
        if name == OWNER {
            return Err(AccountError::Owner);
        }
        Self::of(name, role, mark(token.as_bytes()))
    }

    fn of(name: &str, role: Role, mark: String) -> Result<Self, AccountError> {
        let legal = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._@".contains(&byte)
        };
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(legal) {
            return Err(AccountError::Name(name.into()));
        }
        Ok(Self { user: User { name: name.into(), role }, mark })
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let [name, role, namespaces, mark] = [(); 4].map(|()| words.next().unwrap_or_default());
        let scope = match namespaces {
            "*" => Scope::Everywhere,
            named => Scope::Within(named.split(',').map(str::to_owned).collect::<BTreeSet<_>>()),
        };
        let role = match role {
            "admin" if scope == Scope::Everywhere => Role::Admin,
            "editor" => Role::Editor(scope),
            "viewer" => Role::Viewer(scope),
            _ => return None,
        };
        let whole = mark.len() == 64 && mark.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !whole || words.next().is_some() {
            return None;
        }
        Self::of(name, role, mark.to_lowercase()).ok()
    }
}

fn mark(token: &[u8]) -> String {
    digest(&SHA256, token).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What changes whenever the file does: it is replaced, not written over.
fn version(file: &Metadata) -> (u64, i64, i64, u64) {
    (file.ino(), file.mtime(), file.mtime_nsec(), file.len())
}

/// Compares in a time that does not tell where the difference is.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let differing = given.iter().zip(wanted).fold(0, |differing, (a, b)| differing | (a ^ b));
    !wanted.is_empty() && given.len() == wanted.len() && std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn within(names: &[&str]) -> Scope {
        Scope::Within(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn accounts() -> Accounts {
        let mut accounts = Accounts::default();
        for (name, role) in [
            ("ada", Role::Editor(within(&["shop", "stage"]))),
            ("bob@x.y", Role::Viewer(Scope::Everywhere)),
            ("root", Role::Admin),
        ] {
            accounts.add(Account::new(name, role, &format!("token of {name}")).unwrap()).unwrap();
        }
        accounts
    }

    #[test]
    fn what_is_written_is_read() {
        let text = accounts().to_string();
        assert!(!text.contains("token of"));
        assert!(text.contains("\nada editor shop,stage "), "{text}");
        assert_eq!(Accounts::parse(&text).unwrap(), accounts());
        let broken =
            ["ada", "ada king * ", "ada admin shop ", "Ada editor shop ", "a editor s,t x "];
        for line in broken {
            let text = format!("# comment\n\n{line}{}", "0".repeat(64));
            assert!(matches!(Accounts::parse(&text), Err(AccountError::Line(3))), "{line}");
        }
        let twice = format!("{text}{}", text.lines().last().unwrap());
        assert!(Accounts::parse(&twice).is_err());
    }

    #[test]
    fn the_file_counts_from_the_moment_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let users = Arc::new(Users::new("s3cret".into(), Some(path.clone())));
        let find = |token: &str| users.find(token.as_bytes());
        let found = |token: &str| find(token).map(|(user, _)| user.name);
        assert_eq!(found("s3cret").as_deref(), Some("kubernetes-admin"));
        assert_eq!(found("token of ada"), None);
        let mut all = accounts();
        let write = |text: &str| {
            fs::write(path.with_extension("new"), text).unwrap();
            fs::rename(path.with_extension("new"), &path).unwrap();
        };
        write(&all.to_string());
        assert_eq!(found("token of ada").as_deref(), Some("ada"));
        assert_eq!(found("token of eve"), None);
        assert!(all.remove("ada") && !all.remove("ada"));
        write(&all.to_string());
        assert_eq!(found("token of ada"), None);
        assert_eq!(found("token of root").as_deref(), Some("root"));
        write("nonsense");
        assert_eq!(found("token of root"), None);
        assert_eq!(found("s3cret").as_deref(), Some("kubernetes-admin"));
        fs::remove_file(&path).unwrap();
        assert_eq!(found("token of root"), None);
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "([a-z*,#. \n0-9]|admin |editor |viewer ){0,80}") {
            let _read = Accounts::parse(&text);
        }
    }
}
