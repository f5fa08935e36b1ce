//! How the broker is reached and what it keeps, and why it is not taken.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use eventbus_core::limits;

/// How the broker is reached and what it keeps there.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// Servers, as `nats://host:port` or `tls://host:port`; those of a cluster find each other.
    pub urls: Vec<String>,
    /// Who we are.
    pub access: Access,
    /// What TLS needs that is not the system's.
    pub tls: Tls,
    /// Servers that have each event: 1, 3 or 5.
    pub replicas: usize,
    /// What is known of the servers' disks.
    pub sync: Sync,
    /// Bytes of settled events kept for replay.
    pub history_bytes: u64,
    /// Bytes of the stream of events beyond which publishing is refused.
    pub max_bytes: u64,
    /// Bytes that one cursor may hold back before it loses its oldest events; `None`: a quarter of
    /// `max_bytes`.
    pub backlog_max_bytes: Option<u64>,
    /// After this time an event is gone, settled or not.
    pub age: Duration,
    /// How long ids are remembered.
    pub deduplication_time: Duration,
}

/// Who we are on the server. Shown, it hides what is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    #[default]
    Anonymous,
    /// A user with a password.
    User {
        /// Its name.
        name: String,
        /// Its password.
        password: String,
    },
    /// A token.
    Token(String),
    /// The seed of an nkey.
    Nkey(String),
    /// A file with a JWT and the seed of its nkey.
    Credentials(PathBuf),
}

/// What TLS needs that is not the system's.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Roots to trust instead (PEM).
    pub roots: Option<PathBuf>,
    /// Our own certificate and its key (PEM).
    pub client: Option<(PathBuf, PathBuf)>,
    /// Refuse a server that does not offer TLS.
    pub required: bool,
}

/// What is known of the servers' disks: an acknowledgement of theirs is worth as much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// Nothing: they are taken not to sync before they acknowledge, as is their default.
    #[default]
    Unknown,
    /// Somebody vouches that each of them runs with `sync_interval: always`, or that none does.
    Stated {
        /// Do they?
        always: bool,
    },
    /// Their monitoring ports tell, as `http://host:port`: one a server.
    Monitored(Vec<String>),
    /// They tell their system account, of which this is a user.
    System(Access),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::User { name, .. } => write!(f, "User({name:?})"),
            Self::Token(_) => f.write_str("Token"),
            Self::Nkey(_) => f.write_str("Nkey"),
            Self::Credentials(file) => write!(f, "Credentials({file:?})"),
        }
    }
}

impl NatsConfig {
    /// The defaults, on the server at `url`.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            access: Access::default(),
            tls: Tls::default(),
            replicas: 1,
            sync: Sync::default(),
            history_bytes: limits::HISTORY_BYTES,
            max_bytes: limits::NATS_MAX_BYTES,
            backlog_max_bytes: None,
            age: limits::EVENT_AGE,
            deduplication_time: limits::DEDUPLICATION_TIME,
        }
    }

    /// Refuses what makes no sense.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |setting, reason: String| Err(OpenError::Setting { setting, reason });
        if self.urls.is_empty() {
            return wrong("nats_url", "name a server: nats://host:port".to_owned());
        }
        // Not shown: what stands before the @ may be a secret.
        if self.urls.iter().any(|url| url.contains('@')) {
            let why = "what stands before an @ in it is not used: set nats_user and nats_password, \
                       or nats_token";
            return wrong("nats_url", why.to_owned());
        }
        if ![1, 3, 5].contains(&self.replicas) {
            return wrong("nats_replicas", format!("{}: it must be 1, 3 or 5", self.replicas));
        }
        if self.max_bytes == 0 || i64::try_from(self.max_bytes).is_err() {
            return wrong("max_bytes", format!("{}: it must be 1 to 2^63-1", self.max_bytes));
        }
        if let Some(bytes) = self.backlog_max_bytes.filter(|bytes| *bytes == 0) {
            return wrong("backlog_max_bytes", format!("{bytes}: nothing would be kept"));
        }
        Ok(())
    }

    /// Bytes to the end of the stream within which settled events stay. New ones come first: what
    /// is settled is gone before the stream is full.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.history_bytes.min(self.max_bytes / 4 * 3)
    }

    /// Bytes that one cursor may hold back.
    pub(crate) fn backlog_max_bytes(&self) -> u64 {
        self.backlog_max_bytes.unwrap_or(self.max_bytes / 4)
    }
}

/// Why the broker is not used. A server that does not answer is no such reason: it is waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A setting makes no sense.
    #[error("{setting}: {reason}")]
    Setting {
        /// Which one.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A stream of our name is not ours, or cannot be made what it must be.
    #[error("the stream {stream} on the NATS server cannot be used: {reason}")]
    Stream {
        /// Which one.
        stream: &'static str,
        /// Why.
        reason: String,
    },
    /// The server lacks something.
    #[error("the NATS server cannot be used: {reason}")]
    Server {
        /// What.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_url_is_refused_and_not_shown() {
        let wrong = NatsConfig::at("nats://bus:secret@localhost:4222").check().unwrap_err();
        let text = wrong.to_string();
        assert!(text.contains("nats_user") && !text.contains("secret"), "{text}");
        assert_eq!(NatsConfig::at("nats://localhost:4222").check(), Ok(()));
    }
}
