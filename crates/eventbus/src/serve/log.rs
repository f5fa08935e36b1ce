//! The log of the process: which lines there are, and how to have others while it runs.

mod lines;

use std::io::IsTerminal;
use std::panic;

use tracing::{Level, enabled, error};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::settings::LogFormat;
use crate::cli::Fault;
use lines::Lines;

/// What is logged, as long as the process lives.
pub(super) struct Log {
    filter: Handle<EnvFilter, Registry>,
}

impl Log {
    /// Begins to log on standard error.
    pub(super) fn start(log_level: &str, format: LogFormat) -> Result<Self, Fault> {
        let (filter, handle) = reload::Layer::new(filter(log_level)?);
        let lines = Lines { format, is_coloured: std::io::stderr().is_terminal() };
        let layer = fmt::layer()
            .event_format(lines)
            // A line that cannot be written would be told by `eprintln!`, which panics.
            .log_internal_errors(false)
            .with_writer(std::io::stderr);
        tracing_subscriber::registry().with(filter).with(layer).init();
        log_panics();
        Ok(Self { filter: handle })
    }

    /// Logs this from now on.
    pub(super) fn set_level(&self, log_level: &str) -> Result<(), Fault> {
        let gone = |error: reload::Error| Fault::Failed(error.to_string());
        self.filter.reload(filter(log_level)?).map_err(gone)
    }
}

/// Makes a panic a line of the log: its text may quote what a client sent. Rust says it as ever
/// where no errors are logged.
fn log_panics() {
    let unlogged = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !enabled!(Level::ERROR) {
            return unlogged(panic);
        }
        let at = panic.location().map(ToString::to_string);
        error!(at, error = panic.payload_as_str(), "a part of the process panicked");
    }));
}

/// What is logged. A bare word must be a level: by itself the filter would take any other for the
/// name of a part of the program, and log nothing at all where there is no such part.
fn filter(log_level: &str) -> Result<EnvFilter, Fault> {
    let refused = |why: String| {
        Fault::Usage(format!(
            "log_level {log_level:?} cannot be used: {why}; say error, warn, info, debug, trace, \
             off, or a filter such as info,eventbus_push=debug"
        ))
    };
    let is_bare = |word: &&str| !word.contains(['=', '[', '{', '}']);
    for word in log_level.split(',').filter(is_bare) {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(refused(format!("{word:?} is no level")));
        }
    }
    EnvFilter::try_new(log_level).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use eventbus_core::testing::Page;

    use super::*;

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let page = Page::default();
        let writer = page.clone();
        let lines = Lines { format: LogFormat::Json, is_coloured: false };
        let layer = fmt::layer().event_format(lines).with_writer(move || writer.clone());
        let subscriber = Registry::default().with(layer);
        // Others that panic meanwhile have no log, and so the hook that was there.
        log_panics();
        let panicked = tracing::subscriber::with_default(subscriber, || {
            panic::catch_unwind(|| panic!("so {}", "it\nis"))
        });
        let _ = panic::take_hook();
        assert!(panicked.is_err());
        let line: serde_json::Value = serde_json::from_str(&page.text()).unwrap();
        assert_eq!(
            (line["level"].as_str(), line["error"].as_str()),
            (Some("ERROR"), Some("so it\nis"))
        );
        assert!(line["at"].as_str().unwrap().contains("log.rs:"), "{line}");
    }

    #[test]
    fn a_bare_word_of_a_filter_is_a_level() {
        for good in ["info", "OFF", "warn,eventbus_push=debug", "hyper=error,info", "[span]=info"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, word) in [("loud", "loud"), ("7", "7"), ("", ""), ("info,hyper", "hyper")] {
            let Err(Fault::Usage(complaint)) = filter(bad) else { panic!("{bad:?} was taken") };
            assert!(complaint.contains(&format!("{word:?} is no level; say error")), "{complaint}");
        }
        assert!(filter("eventbus_push=loud").is_err());
    }
}
