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
        Ok(Some(NatsConfig {
            urls: if named.is_empty() { defaults.urls } else { named },
            access: self.nats_access()?,
            tls: Tls {
                roots: self.nats_ca.clone(),
                client: self.nats_cert.clone().zip(self.nats_key.clone()),
                required: self.nats_ca.is_some() || self.nats_cert.is_some(),
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
        if let (Some(name), Some(password)) = (&self.nats_user, &self.nats_password) {
            ways.push(Access::User { name: name.clone(), password: password.clone() });
        }
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
        if let (Some(name), Some(password)) = (&self.nats_system_user, &self.nats_system_password) {
            let (name, password) = (name.clone(), password.clone());
            ways.push(Sync::System(Access::User { name, password }));
        }
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
        ] {
            let told = given(wrong).unwrap_err();
            assert!(told.contains(complaint), "{wrong}: {told}");
        }
    }
}
