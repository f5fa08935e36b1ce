//! The settings of NATS as what the broker takes.

use std::time::Duration;

use eventbus_nats::{Access, NatsConfig, Sync, Tls};

use super::{BrokerKind, Given, NatsSync};
use crate::cli::Fault;

impl Given {
    /// The NATS servers.
    pub(super) fn nats(&self) -> Result<Option<NatsConfig>, Fault> {
        let named = self.nats_url.clone().unwrap_or_default();
        if self.broker.unwrap_or_default() == BrokerKind::Log {
            if named.is_empty() {
                return Ok(None);
            }
            let why = "nats_url names servers, and the broker is log: say --broker nats as well";
            return Err(Fault::Usage(why.to_owned()));
        }
        let defaults = NatsConfig::at("nats://127.0.0.1:4222");
        let client = both(("nats_cert", &self.nats_cert), ("nats_key", &self.nats_key))?;
        Ok(Some(NatsConfig {
            urls: if named.is_empty() { defaults.urls } else { named },
            access: self.nats_access()?,
            tls: Tls {
                roots: self.nats_ca.clone(),
                required: self.nats_ca.is_some() || client.is_some(),
                client,
            },
            replicas: self.nats_replicas.unwrap_or(defaults.replicas),
            sync: self.nats_sync()?,
            history_bytes: self.history_bytes.unwrap_or(defaults.history_bytes),
            max_bytes: self.max_bytes.unwrap_or(defaults.max_bytes),
            backlog_max_bytes: self.backlog_max_bytes,
            age: self.age_s.map_or(defaults.age, Duration::from_secs),
            deduplication_time: self
                .deduplication_s
                .map_or(defaults.deduplication_time, Duration::from_secs),
        }))
    }

    /// Who we are on the NATS servers.
    fn nats_access(&self) -> Result<Access, Fault> {
        let mut ways = Vec::new();
        let password = ("nats_password", &self.nats_password);
        let user = both(("nats_user", &self.nats_user), password)?;
        ways.extend(user.map(|(name, password)| Access::User { name, password }));
        ways.extend(self.nats_token.clone().map(Access::Token));
        if let Some(path) = &self.nats_nkey {
            let seed = std::fs::read_to_string(path).map_err(|error| {
                Fault::Usage(format!("nats_nkey {} cannot be read: {error}", path.display()))
            })?;
            ways.push(Access::Nkey(seed.trim().to_owned()));
        }
        ways.extend(self.nats_credentials.clone().map(Access::Credentials));
        if ways.len() > 1 {
            let why = "nats_user, nats_token, nats_nkey and nats_credentials each say who we are: \
                       say one of them";
            return Err(Fault::Usage(why.to_owned()));
        }
        Ok(ways.pop().unwrap_or_default())
    }

    /// What is known of how they sync.
    fn nats_sync(&self) -> Result<Sync, Fault> {
        let mut ways = Vec::new();
        ways.extend(self.nats_monitor_url.clone().map(Sync::Monitored));
        let password = ("nats_system_password", &self.nats_system_password);
        let user = both(("nats_system_user", &self.nats_system_user), password)?;
        ways.extend(user.map(|(name, password)| Sync::System(Access::User { name, password })));
        let credentials = self.nats_system_credentials.clone();
        ways.extend(credentials.map(|file| Sync::System(Access::Credentials(file))));
        ways.extend(self.nats_sync.map(|how| Sync::Stated { always: how == NatsSync::Always }));
        if ways.len() > 1 {
            let why = "nats_monitor_url, nats_system_user, nats_system_credentials and nats_sync \
                       each say how the servers sync: say one of them";
            return Err(Fault::Usage(why.to_owned()));
        }
        Ok(ways.pop().unwrap_or_default())
    }
}

/// Two settings of which one is worth nothing without the other, wherever each was given.
fn both<T: Clone>(
    (first, one): (&str, &Option<T>),
    (second, other): (&str, &Option<T>),
) -> Result<Option<(T, T)>, Fault> {
    match (one, other) {
        (Some(_), None) => Err(Fault::Usage(format!("{first} is said without {second}"))),
        (None, Some(_)) => Err(Fault::Usage(format!("{second} is said without {first}"))),
        (one, other) => Ok(one.clone().zip(other.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<Option<NatsConfig>, String> {
        let given: Given = toml::from_str(text).unwrap();
        given.nats().map_err(|fault| fault.to_string())
    }

    #[test]
    fn who_we_are_and_how_servers_sync_is_said_once() {
        assert!(given("").unwrap().is_none());
        let config = given("broker = 'nats'").unwrap().unwrap();
        assert_eq!(
            (config.urls, config.sync),
            (vec!["nats://127.0.0.1:4222".to_owned()], Sync::Unknown)
        );
        let config =
            given("broker = 'nats'\nnats_token = 't'\nnats_sync = 'always'").unwrap().unwrap();
        assert!(matches!(config.access, Access::Token(token) if token == "t"));
        assert_eq!(config.sync, Sync::Stated { always: true });
        let config = given("broker = 'nats'\nnats_system_credentials = 'f'").unwrap().unwrap();
        assert!(matches!(config.sync, Sync::System(Access::Credentials(_))));
        for (wrong, complaint) in [
            ("nats_url = ['nats://a:1']", "the broker is log"),
            ("broker = 'nats'\nnats_token = 't'\nnats_credentials = 'f'", "say one of them"),
            (
                "broker = 'nats'\nnats_sync = 'always'\nnats_monitor_url = ['http://a:1']",
                "say one of them",
            ),
            ("broker = 'nats'\nnats_nkey = '/not/there'", "/not/there cannot be read"),
            ("broker = 'nats'\nnats_user = 'u'", "nats_user is said without nats_password"),
            ("broker = 'nats'\nnats_password = 'p'", "nats_password is said without nats_user"),
            ("broker = 'nats'\nnats_key = 'k'", "nats_key is said without nats_cert"),
            ("broker = 'nats'\nnats_system_user = 'u'", "without nats_system_password"),
        ] {
            let told = given(wrong).unwrap_err();
            assert!(told.contains(complaint), "{wrong}: {told}");
        }
    }
}
