//! Who we are, as a connection says it; and why a server does not take it, in words that help.

use std::path::Path;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions};
use eventbus_core::limits;

use crate::config::{Access, OpenError, Tls};

/// How a connection is made.
pub(crate) async fn options(access: &Access, tls: &Tls) -> Result<ConnectOptions, OpenError> {
    let mut options = ConnectOptions::new()
        .name("eventbus")
        .ping_interval(limits::NATS_PING_EVERY)
        .connection_timeout(limits::NATS_CALL_TIME)
        .request_timeout(Some(limits::NATS_CALL_TIME))
        .require_tls(tls.required);
    options = match access {
        Access::Anonymous => options,
        Access::User { name, password } => {
            options.user_and_password(name.clone(), password.clone())
        }
        Access::Token(token) => options.token(token.clone()),
        Access::Nkey(seed) => options.nkey(seed.clone()),
        Access::Credentials(file) => {
            let read = options.credentials_file(file).await;
            read.map_err(|error| unreadable("nats_credentials", file, &error))?
        }
    };
    if let Some(roots) = &tls.roots {
        check("nats_ca", roots)?;
        options = options.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &tls.client {
        check("nats_cert", certificate)?;
        check("nats_key", key)?;
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// Why there is no connection.
pub(crate) fn explain(access: &Access, error: &ConnectError) -> String {
    let ours = match access {
        Access::Anonymous => {
            "it wants to know who we are: set nats_user and nats_password, nats_token, nats_nkey \
             or nats_credentials"
        }
        Access::User { .. } => "check nats_user and nats_password",
        Access::Token(_) => "check nats_token",
        Access::Nkey(_) => "check nats_nkey",
        Access::Credentials(_) => "check nats_credentials",
    };
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            format!("the NATS server refuses us ({}); {ours}", error.kind())
        }
        // Its own text says what a seed was expected to be, and may show it.
        ConnectErrorKind::Authentication => {
            format!("nothing can be signed with what should be a seed; {ours}")
        }
        _ => format!("the NATS server is not reached: {error}"),
    }
}

/// Is the file there? What it holds is read with each connection.
fn check(setting: &'static str, file: &Path) -> Result<(), OpenError> {
    file.metadata().map(drop).map_err(|error| unreadable(setting, file, &error))
}

fn unreadable(setting: &'static str, file: &Path, error: &std::io::Error) -> OpenError {
    OpenError::Setting { setting, reason: format!("{}: {error}", file.display()) }
}
