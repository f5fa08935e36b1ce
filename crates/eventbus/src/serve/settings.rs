//! The settings of `eventbus serve`: each declared once, for the command line, the environment and
//! the file. A flag rules over the environment, the environment over the file, the file over the
//! default.

mod file;
mod nats;
mod traces;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use eventbus_core::durability::UnknownDurability;
use eventbus_core::wire::error::FrontDialect;
use eventbus_core::{Durability, limits};
use eventbus_nats::NatsConfig;
use eventbus_server::publish::{ApplicationSource, Applications};
use serde::{Deserialize, Deserializer};

pub(super) use self::traces::Traces;

use self::traces::TraceExport;
use super::resources::Cluster;
use crate::cli::Fault;

/// The settings as they are given in one place: a command line, an environment, a file.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Given {
    /// A TOML file with settings, under the names of these flags with _ for -
    #[arg(long, value_name = "FILE", env = "EVENTBUS_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,

    /// Where events and resources are kept; made if it is not there [default: ./eventbus-data]
    #[arg(long, value_name = "DIR", env = "EVENTBUS_DATA_DIR")]
    data_dir: Option<PathBuf>,

    /// Address of the publish port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "EVENTBUS_PUBLISH_LISTEN", value_parser = address)]
    publish_listen: Option<SocketAddr>,

    /// Address of the API port, for kubectl and operators [default: 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESS", env = "EVENTBUS_API_LISTEN", value_parser = address)]
    api_listen: Option<SocketAddr>,

    /// Take the resources from the API server of this kubeconfig's current context, instead of the
    /// embedded API; the API port then serves probes alone
    #[arg(long, value_name = "FILE", env = "EVENTBUS_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use, in place of its current one
    #[arg(long, value_name = "NAME", env = "EVENTBUS_CONTEXT")]
    context: Option<String>,

    /// Take the resources from the API server of the cluster this process runs in
    #[arg(
        long,
        env = "EVENTBUS_IN_CLUSTER",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    in_cluster: Option<bool>,

    /// What this process does, as a list; the rest is done by others, over one NATS and one API
    /// server [default: all]
    #[arg(long, value_name = "ROLES", env = "EVENTBUS_ROLE", value_delimiter = ',')]
    role: Option<Vec<Role>>,

    /// Where events are kept: in the embedded log, or in NATS JetStream [default: log]
    #[arg(long, value_name = "BROKER", env = "EVENTBUS_BROKER")]
    broker: Option<BrokerKind>,

    /// NATS servers, as nats://HOST:PORT or tls://HOST:PORT; may be repeated
    /// [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL", env = "EVENTBUS_NATS_URL", value_delimiter = ',')]
    nats_url: Option<Vec<String>>,

    /// The user on the NATS servers
    #[arg(long, value_name = "NAME", env = "EVENTBUS_NATS_USER")]
    nats_user: Option<String>,

    /// Its password; the environment and the file keep it out of the list of processes
    #[arg(long, value_name = "PASSWORD", env = "EVENTBUS_NATS_PASSWORD", hide_env_values = true)]
    nats_password: Option<String>,

    /// A token for the NATS servers
    #[arg(long, value_name = "TOKEN", env = "EVENTBUS_NATS_TOKEN", hide_env_values = true)]
    nats_token: Option<String>,

    /// A file with the seed of an nkey for the NATS servers
    #[arg(long, value_name = "FILE", env = "EVENTBUS_NATS_NKEY")]
    nats_nkey: Option<PathBuf>,

    /// A credentials file (JWT and seed) for the NATS servers
    #[arg(long, value_name = "FILE", env = "EVENTBUS_NATS_CREDENTIALS")]
    nats_credentials: Option<PathBuf>,

    /// Certificates (PEM) by which the NATS servers are trusted, in place of the system's;
    /// with it, or with a certificate of our own, TLS is required
    #[arg(long, value_name = "FILE", env = "EVENTBUS_NATS_CA")]
    nats_ca: Option<PathBuf>,

    /// Our own certificate (PEM) for the NATS servers
    #[arg(long, value_name = "FILE", env = "EVENTBUS_NATS_CERT")]
    nats_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, value_name = "FILE", env = "EVENTBUS_NATS_KEY")]
    nats_key: Option<PathBuf>,

    /// NATS servers that keep each event: 1, 3 or 5 [default: 1]
    #[arg(
        long,
        value_name = "COUNT",
        env = "EVENTBUS_NATS_REPLICAS",
        value_parser = whole::<usize>
    )]
    nats_replicas: Option<usize>,

    /// Vouch for how the NATS servers sync, where no monitoring port tells [default: interval]
    #[arg(long, value_name = "HOW", env = "EVENTBUS_NATS_SYNC")]
    nats_sync: Option<NatsSync>,

    /// The monitoring ports of the NATS servers, as http://HOST:PORT, one a server: they tell how
    /// it syncs, and so what its acknowledgement is worth
    #[arg(long, value_name = "URL", env = "EVENTBUS_NATS_MONITOR_URL", value_delimiter = ',')]
    nats_monitor_url: Option<Vec<String>>,

    /// A user of the NATS servers' system account, which tells how they sync as well
    #[arg(long, value_name = "NAME", env = "EVENTBUS_NATS_SYSTEM_USER")]
    nats_system_user: Option<String>,

    /// Its password
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "EVENTBUS_NATS_SYSTEM_PASSWORD",
        hide_env_values = true
    )]
    nats_system_password: Option<String>,

    /// A credentials file of a user of the system account
    #[arg(long, value_name = "FILE", env = "EVENTBUS_NATS_SYSTEM_CREDENTIALS")]
    nats_system_credentials: Option<PathBuf>,

    /// The durability of a publish that asks for none: accepted, written, synced or replicated
    /// [default: the strongest that the broker can promise]
    #[arg(long, value_name = "LEVEL", env = "EVENTBUS_DURABILITY", value_parser = level)]
    #[serde(default, deserialize_with = "level_word")]
    durability: Option<Durability>,

    /// A host name by which the API port may be asked, besides loopback and its own address; may be
    /// repeated
    #[arg(long, value_name = "HOST", env = "EVENTBUS_API_HOST", value_delimiter = ',')]
    api_host: Option<Vec<String>>,

    /// Let anybody who reaches the publish port publish, when it listens beyond loopback
    #[arg(
        long,
        env = "EVENTBUS_ALLOW_UNAUTHENTICATED_PUBLISH",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    allow_unauthenticated_publish: Option<bool>,

    /// Bytes that the request body of an event may have, at most 16777216 [default: 1048576]
    #[arg(
        long,
        value_name = "BYTES",
        env = "EVENTBUS_MAX_EVENT_BYTES",
        value_parser = whole::<usize>
    )]
    max_event_bytes: Option<usize>,

    /// Bytes that the request body of a batch may have, at most 16777216 [default: 16777216]
    #[arg(
        long,
        value_name = "BYTES",
        env = "EVENTBUS_MAX_BATCH_BYTES",
        value_parser = whole::<usize>
    )]
    max_batch_bytes: Option<usize>,

    /// Events that a batch may have, at most 10000 [default: 10000]
    #[arg(
        long,
        value_name = "COUNT",
        env = "EVENTBUS_MAX_BATCH_EVENTS",
        value_parser = whole::<usize>
    )]
    max_batch_events: Option<usize>,

    /// In whose words /{application}/v1/events answers [default: connector]
    #[arg(long, value_name = "WHOSE", env = "EVENTBUS_APPLICATION_FRONT")]
    application_front: Option<ApplicationFront>,

    /// Publish requests that may be in work at once; one more is answered 429 [default: 1024]
    #[arg(long, value_name = "COUNT", env = "EVENTBUS_MAX_REQUESTS", value_parser = whole::<usize>)]
    max_requests: Option<usize>,

    /// Subscriptions that have series of their own in /metrics, at most 100000: the worst by lag
    /// where there are more; 0: none [default: 1000]
    #[arg(long, value_name = "COUNT", env = "EVENTBUS_METRICS_SUBSCRIPTIONS",
        value_parser = whole::<usize>)]
    metrics_subscriptions: Option<usize>,

    /// Bytes of settled events kept for replay [default: 1073741824]
    #[arg(long, value_name = "BYTES", env = "EVENTBUS_HISTORY_BYTES", value_parser = whole::<u64>)]
    history_bytes: Option<u64>,

    /// Bytes of storage beyond which publishing is answered 507 [default: 80 % of the volume;
    /// over NATS 8 GiB]
    #[arg(long, value_name = "BYTES", env = "EVENTBUS_MAX_BYTES", value_parser = whole::<u64>)]
    max_bytes: Option<u64>,

    /// Bytes that one Subscription may hold back before it loses its own oldest events [default: a
    /// quarter of max-bytes]
    #[arg(
        long,
        value_name = "BYTES",
        env = "EVENTBUS_BACKLOG_MAX_BYTES",
        value_parser = whole::<u64>
    )]
    backlog_max_bytes: Option<u64>,

    /// Seconds after which an event is gone, delivered or not [default: 86400]
    #[arg(long, value_name = "SECONDS", env = "EVENTBUS_AGE_S", value_parser = whole::<u64>)]
    age_s: Option<u64>,

    /// Seconds for which the ids of publishers are remembered, so that a repeat is not stored
    /// again; 0 for not at all [default: 120]
    #[arg(
        long,
        value_name = "SECONDS",
        env = "EVENTBUS_DEDUPLICATION_S",
        value_parser = whole::<u64>
    )]
    deduplication_s: Option<u64>,

    /// What is logged: error, warn, info, debug, trace, or a filter such as
    /// info,eventbus_push=debug [default: info, and warn for the NATS client]
    #[arg(long, value_name = "LEVEL", env = "EVENTBUS_LOG_LEVEL")]
    log_level: Option<String>,

    /// How a line of the log looks [default: human]
    #[arg(long, value_name = "FORMAT", env = "EVENTBUS_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// Export traces, as OTLP or as Zipkin's JSON [default: none are recorded]
    #[arg(long, value_name = "FORM", env = "EVENTBUS_TRACE_EXPORT")]
    trace_export: Option<TraceExport>,

    /// Where the collector takes them [default: http://127.0.0.1:4318/v1/traces; of Zipkin
    /// http://127.0.0.1:9411/api/v2/spans]
    #[arg(long, value_name = "URL", env = "EVENTBUS_TRACE_URL")]
    trace_url: Option<String>,

    /// By which name the bus is known there [default: eventbus]
    #[arg(long, value_name = "NAME", env = "EVENTBUS_TRACE_SERVICE_NAME")]
    trace_service_name: Option<String>,

    /// The share of publishes, from 0 to 1, that is recorded where the publisher did not decide
    /// [default: 0]
    #[arg(long, value_name = "RATIO", env = "EVENTBUS_TRACE_RATIO", value_parser = share)]
    trace_ratio: Option<f64>,

    /// The sources of applications; in the file only.
    #[arg(skip)]
    applications: BTreeMap<String, ApplicationSource>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// In whose words the Application Connector's front answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ApplicationFront {
    /// Those of the front of 2018.
    #[default]
    Connector,
    /// Those of Kyma's event publisher proxy.
    PublisherProxy,
}

impl From<ApplicationFront> for FrontDialect {
    fn from(front: ApplicationFront) -> Self {
        match front {
            ApplicationFront::Connector => Self::Connector,
            ApplicationFront::PublisherProxy => Self::PublisherProxy,
        }
    }
}

/// Something that a process of the bus does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Takes events in.
    Publish,
    /// Delivers them.
    Push,
    /// Keeps the statuses of Subscriptions true.
    SubValidator,
}

impl Role {
    /// Its name.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Push => "push",
            Self::SubValidator => "sub-validator",
        }
    }
}

/// Where events are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BrokerKind {
    /// In the embedded log.
    #[default]
    Log,
    /// In NATS JetStream.
    Nats,
}

/// How NATS servers sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NatsSync {
    /// Before they acknowledge (`sync_interval: always`).
    Always,
    /// From time to time, as is their default.
    Interval,
}

/// The settings in force, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) publish_listen: SocketAddr,
    pub(crate) api_listen: SocketAddr,
    /// Where the resources are, when not in the embedded API.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) api_hosts: Vec<String>,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) max_batch_events: usize,
    pub(crate) application_front: FrontDialect,
    pub(crate) max_requests: usize,
    pub(crate) metrics_subscriptions: usize,
    pub(crate) roles: Vec<Role>,
    /// The NATS servers, when events are not in the embedded log.
    pub(crate) nats: Option<NatsConfig>,
    pub(crate) durability: Option<Durability>,
    pub(crate) history_bytes: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) backlog_max_bytes: Option<u64>,
    pub(crate) age: Option<Duration>,
    pub(crate) deduplication: Option<Duration>,
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    /// The traces to be recorded, if any are.
    pub(crate) traces: Option<Traces>,
    pub(crate) applications: Applications,
}

impl Settings {
    /// Does this process do that?
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an address and a port, such as 127.0.0.1:8080".to_owned())
}

fn whole<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "give a whole number, such as 1024".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "give a number from 0 to 1, such as 0.01".to_owned())
}

/// What is logged unasked. Each attempt to connect that fails is a line of the NATS client; the
/// broker says why, once.
const DEFAULT_LOG_LEVEL: &str = "info,async_nats=warn,async_nats::connector=off";

/// The largest `max_event_bytes`: what is read of a body that is refused.
const EVENT_BYTES_MAX: usize = limits::REFUSED_BODY_BYTES as usize;

/// The largest `max_requests`: beyond it memory for the bodies is no longer small.
const REQUESTS_MAX: usize = 65_536;

/// The largest `metrics_subscriptions`: beyond it a page has more than some 30 MiB.
const TOLD_MAX: usize = 100_000;

impl Given {
    /// The settings in force: these, over those of the file that they name.
    pub(crate) fn settings(self) -> Result<Settings, Fault> {
        let file = match &self.config {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        self.over(file).check()
    }

    /// Is there a file that may say something else by now?
    pub(super) fn has_file(&self) -> bool {
        self.config.is_some()
    }

    fn over(self, below: Self) -> Self {
        macro_rules! first_given {
            ($($setting:ident)*) => {
                Self {
                    config: self.config,
                    applications: below.applications,
                    $($setting: self.$setting.or(below.$setting),)*
                }
            };
        }
        first_given! {
            data_dir publish_listen api_listen kubeconfig context in_cluster role broker
            nats_url nats_user nats_password nats_token nats_nkey nats_credentials nats_ca
            nats_cert nats_key nats_replicas nats_sync nats_monitor_url nats_system_user
            nats_system_password nats_system_credentials durability api_host
            allow_unauthenticated_publish max_event_bytes max_batch_bytes max_batch_events
            application_front max_requests metrics_subscriptions history_bytes max_bytes
            backlog_max_bytes age_s deduplication_s log_level log_format trace_export trace_url
            trace_service_name trace_ratio
        }
    }

    fn check(mut self) -> Result<Settings, Fault> {
        let roles = self.roles()?;
        let nats = self.nats()?;
        let traces = self.traces()?;
        let publish_listen =
            self.publish_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
        let api_listen =
            self.api_listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8001)));
        if !publish_listen.ip().is_loopback() && self.allow_unauthenticated_publish != Some(true) {
            return Err(Fault::Usage(format!(
                "publish_listen {publish_listen} is beyond loopback, where anybody who reaches it \
                 could publish: listen on 127.0.0.1, or say --allow-unauthenticated-publish"
            )));
        }
        if self.context.is_some() && self.kubeconfig.is_none() {
            let why = "context chooses from a kubeconfig: name that as well, with kubeconfig";
            return Err(Fault::Usage(why.to_owned()));
        }
        let cluster = match (self.kubeconfig.take(), self.in_cluster == Some(true)) {
            (Some(_), true) => {
                let why = "kubeconfig and in_cluster each name an API server: say one of them";
                return Err(Fault::Usage(why.to_owned()));
            }
            (Some(path), false) => Some(Cluster::Kubeconfig(path, self.context.take())),
            (None, true) => Some(Cluster::Incluster),
            (None, false) => None,
        };
        let max_event_bytes = self.max_event_bytes.unwrap_or(limits::EVENT_BYTES);
        let max_batch_bytes = self.max_batch_bytes.unwrap_or(limits::BATCH_BYTES);
        let max_batch_events = self.max_batch_events.unwrap_or(limits::BATCH_EVENTS);
        let max_requests = self.max_requests.unwrap_or(limits::REQUESTS_IN_WORK);
        let told = self.metrics_subscriptions.unwrap_or(limits::TOLD_SUBSCRIPTIONS);
        self.check_storage()?;
        let data_dir = self.data_dir.unwrap_or_else(|| PathBuf::from("eventbus-data"));
        if data_dir.as_os_str().is_empty() {
            let why = "data_dir is empty: name a directory, or leave it out for ./eventbus-data";
            return Err(Fault::Usage(why.to_owned()));
        }
        Ok(Settings {
            data_dir,
            publish_listen,
            api_listen,
            cluster,
            api_hosts: self.api_host.unwrap_or_default(),
            max_event_bytes: within("max_event_bytes", max_event_bytes, 1..=EVENT_BYTES_MAX)?,
            max_batch_bytes: within("max_batch_bytes", max_batch_bytes, 1..=limits::BATCH_BYTES)?,
            max_batch_events: within(
                "max_batch_events",
                max_batch_events,
                1..=limits::BATCH_EVENTS,
            )?,
            application_front: self.application_front.unwrap_or_default().into(),
            max_requests: within("max_requests", max_requests, 1..=REQUESTS_MAX)?,
            metrics_subscriptions: within("metrics_subscriptions", told, 0..=TOLD_MAX)?,
            roles,
            nats,
            durability: self.durability,
            history_bytes: self.history_bytes,
            max_bytes: self.max_bytes,
            backlog_max_bytes: self.backlog_max_bytes,
            age: self.age_s.map(Duration::from_secs),
            deduplication: self.deduplication_s.map(Duration::from_secs),
            log_level: self.log_level.unwrap_or_else(|| DEFAULT_LOG_LEVEL.to_owned()),
            log_format: self.log_format.unwrap_or_default(),
            traces,
            applications: Applications::new(self.applications)
                .map_err(|error| Fault::Usage(error.to_string()))?,
        })
    }
}

fn within(name: &str, value: usize, allowed: RangeInclusive<usize>) -> Result<usize, Fault> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (least, most) = allowed.into_inner();
    Err(Fault::Usage(format!("{name} is {value}: it must be from {least} to {most}")))
}

impl Given {
    /// What may be kept, and for how long.
    fn check_storage(&self) -> Result<(), Fault> {
        let of_storage =
            [("history_bytes", self.history_bytes), ("backlog_max_bytes", self.backlog_max_bytes)];
        for (name, value) in of_storage {
            if let (Some(value), Some(most)) = (value, self.max_bytes)
                && value > most
            {
                return Err(Fault::Usage(format!(
                    "{name} is {value}: it must be at most max_bytes, which is {most}"
                )));
            }
        }
        if self.age_s == Some(0) {
            return Err(Fault::Usage("age_s is 0: it must be at least 1".to_owned()));
        }
        Ok(())
    }

    /// What this process does.
    fn roles(&self) -> Result<Vec<Role>, Fault> {
        const ALL: [Role; 3] = [Role::Publish, Role::Push, Role::SubValidator];
        let roles = self.role.clone().unwrap_or_else(|| ALL.to_vec());
        let has = |role| roles.contains(&role);
        if roles.is_empty() {
            let why = "role names nothing: say publish, push, sub-validator, or some of them";
            return Err(Fault::Usage(why.to_owned()));
        }
        let kind = self.broker.unwrap_or_default();
        if kind == BrokerKind::Log && !(has(Role::Publish) && has(Role::Push)) {
            let why = "with --broker log the events are in this process, so it must both publish \
                       and push: add the other role, or use --broker nats";
            return Err(Fault::Usage(why.to_owned()));
        }
        Ok(ALL.into_iter().filter(|role| has(*role)).collect())
    }
}

fn level(text: &str) -> Result<Durability, String> {
    text.parse().map_err(|error: UnknownDurability| error.to_string())
}

fn level_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Durability>, D::Error> {
    let word: Option<String> = Option::deserialize(deserializer)?;
    word.map(|word| word.parse().map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Settings, Fault> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("eventbus.toml");
        std::fs::write(&path, text).unwrap();
        Given { config: Some(path), max_requests: Some(7), ..Given::default() }.settings()
    }

    #[test]
    fn a_flag_rules_over_the_file_and_the_file_over_the_default() {
        let settings = file(
            "max_requests = 9\nmax_event_bytes = 10\n\
             [applications.shop]\nsource_id = \"other\"\n",
        )
        .unwrap();
        assert_eq!((settings.max_requests, settings.max_event_bytes), (7, 10));
        assert_eq!(settings.publish_listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn a_bad_setting_is_named_with_what_is_allowed() {
        let complaint = |text: &str| match file(text) {
            Err(Fault::Usage(complaint)) => complaint,
            other => panic!("{other:?}"),
        };
        assert!(complaint("max_event_bytes = 0").contains("must be from 1 to 16777216"));
        assert!(complaint("max_event = 1").contains("max_event"));
        assert!(complaint("publish_listen = \"0.0.0.0:80\"").contains("beyond loopback"));
        assert!(complaint("[applications.1a]\n").contains("applications.1a"));
        assert!(complaint("age_s = 0").contains("at least 1"));
        for wrong in ["age_s = true", "age_s = \"9\"", "max_bytes = 1.5", "log_level = 1"] {
            assert!(complaint(wrong).contains("invalid type"), "{wrong}");
        }
        assert!(complaint("data_dir = \"\"").contains("data_dir is empty"));
        assert!(complaint("context = \"a\"").contains("with kubeconfig"));
        for name in ["history_bytes", "backlog_max_bytes"] {
            let complaint = complaint(&format!("{name} = 1000001\nmax_bytes = 1000000"));
            assert!(complaint.starts_with(&format!("{name} is 1000001")), "{complaint}");
            assert!(complaint.contains("at most max_bytes, which is 1000000"), "{complaint}");
        }
    }
}
