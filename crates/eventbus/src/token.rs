//! `eventbus token`: who else may use the API of this bus.
//!
//! The commands write `<data-dir>/users`, which a running bus looks at with each request: whoever
//! is added comes in at once, whoever is revoked no more.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use eventbus_apiserver::{Account, Accounts, Role, Scope};

use crate::cli::{Fault, World};
use crate::output;
use crate::serve::{data_dir, kubeconfig};

/// What `eventbus token` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory of the bus
    #[arg(long, global = true, value_name = "DIR", env = "EVENTBUS_DATA_DIR")]
    #[arg(default_value = "./eventbus-data")]
    data_dir: PathBuf,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let somebody in, and print the token: it is shown only this once
    Create {
        /// Who it is: small letters, digits, '-', '.', '_' and '@'
        name: String,
        /// What they may do. Nobody but an admin reads Secrets
        #[arg(long)]
        role: Title,
        /// Where: once for each namespace; all of them if never given
        #[arg(long, short, value_name = "NAME")]
        namespace: Vec<String>,
        /// Print a whole kubeconfig instead of the token
        #[arg(long)]
        kubeconfig: bool,
    },
    /// Print who may come in
    List,
    /// Let somebody in no more
    Revoke {
        /// Who it is
        name: String,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Title {
    /// Everything
    Admin,
    /// Read and write; of Secrets only write
    Editor,
    /// Read, but no Secrets
    Viewer,
}

/// Runs the command.
pub(crate) fn run(args: Args, world: &World) -> Result<(), Fault> {
    let Args { data_dir, command } = args;
    data_dir::check(&data_dir)?;
    match command {
        Command::Create { name, role, namespace, kubeconfig } => {
            let token = kubeconfig::new_token(&*world.entropy);
            let role = role.role(namespace)?;
            let account = Account::new(&name, role, &token);
            let account = account.map_err(|error| Fault::Usage(error.to_string()))?;
            let shown = match kubeconfig {
                true => kubeconfig::of_user(&data_dir, &name, &token).map_err(Fault::Failed)?,
                false => format!("{token}\n"),
            };
            change(&data_dir, |accounts| {
                accounts.add(account).map_err(|error| Fault::Failed(error.to_string()))
            })?;
            output::bytes(shown.as_bytes())
        }
        Command::List => {
            let accounts = read(&data_dir)?;
            let names = accounts.iter().map(|account| account.user.name.len());
            let width = names.max().unwrap_or_default().max("NAME".len());
            output::line(&format!("{:width$}  {:6}  NAMESPACES", "NAME", "ROLE"))?;
            accounts.iter().try_for_each(|account| {
                let (name, role) = (&account.user.name, account.user.role.to_string());
                let namespaces = account.user.role.namespaces();
                output::line(&format!("{name:width$}  {role:6}  {namespaces}"))
            })
        }
        Command::Revoke { name } => change(&data_dir, |accounts| match accounts.remove(&name) {
            true => Ok(()),
            false => Err(Fault::Failed(format!("there is no token of {name}"))),
        }),
    }
}

impl Title {
    fn role(self, namespaces: Vec<String>) -> Result<Role, Fault> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if let Some(wrong) =
            namespaces.iter().find(|name| name.is_empty() || !name.bytes().all(legal))
        {
            return Err(Fault::Usage(format!("{wrong:?} is no name of a namespace")));
        }
        let scope = match namespaces.is_empty() {
            true => Scope::Everywhere,
            false => Scope::Within(namespaces.into_iter().collect()),
        };
        match self {
            Self::Admin if scope == Scope::Everywhere => Ok(Role::Admin),
            Self::Admin => Err(Fault::Usage("an admin may do everything everywhere".into())),
            Self::Editor => Ok(Role::Editor(scope)),
            Self::Viewer => Ok(Role::Viewer(scope)),
        }
    }
}

fn read(data_dir: &Path) -> Result<Accounts, Fault> {
    let path = data_dir.join(kubeconfig::USERS);
    let failed = |error: &dyn std::fmt::Display| {
        Fault::Failed(format!("{} cannot be used: {error}", path.display()))
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Accounts::parse(&text).map_err(|error| failed(&error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Accounts::default()),
        Err(error) => Err(failed(&error)),
    }
}

/// Changes the file, one command after the other.
fn change(
    data_dir: &Path,
    change: impl FnOnce(&mut Accounts) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let failed = |error: std::io::Error| {
        Fault::Failed(format!("the data directory {} cannot be used: {error}", data_dir.display()))
    };
    let path = data_dir.join(kubeconfig::USERS);
    let lock = path.with_extension("lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(lock);
    let lock = lock.map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut accounts = read(data_dir)?;
    change(&mut accounts)?;
    kubeconfig::replace(&path, &accounts.to_string()).map_err(failed)
}
