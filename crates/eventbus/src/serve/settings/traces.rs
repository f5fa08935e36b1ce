//! The settings of traces as what the export takes.

use clap::ValueEnum;
use eventbus_traces::{CollectorUrl, Config, Form};
use serde::Deserialize;

use super::Given;
use crate::cli::Fault;

/// How traces are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TraceExport {
    /// As OTLP, over HTTP.
    Otlp,
    /// As Zipkin's JSON, version 2.
    Zipkin,
}

/// The traces to be recorded.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    /// Where they go.
    pub(crate) config: Config,
    /// The share of publishes, from 0 to 1, that is recorded where the publisher did not decide.
    pub(crate) ratio: f64,
}

impl Given {
    /// The traces to be recorded, if any are.
    pub(super) fn traces(&self) -> Result<Option<Traces>, Fault> {
        let wrong = |why: String| Err(Fault::Usage(why));
        let ratio = self.trace_ratio.unwrap_or(0.0);
        if !(0.0..=1.0).contains(&ratio) {
            return wrong(format!("trace_ratio is {ratio}: it must be from 0 to 1"));
        }
        let service = self.trace_service_name.clone().unwrap_or_else(|| "eventbus".to_owned());
        if service.is_empty() {
            return wrong("trace_service_name is empty: give a name, or leave it out".to_owned());
        }
        let Some(export) = self.trace_export else {
            if self.trace_url.is_some() || ratio > 0.0 {
                let given = if self.trace_url.is_some() { "trace_url" } else { "trace_ratio" };
                let why = "is said without trace_export: say otlp or zipkin";
                return wrong(format!("{given} {why}"));
            }
            return Ok(None);
        };
        let (form, usual) = match export {
            TraceExport::Otlp => (Form::Otlp, "http://127.0.0.1:4318"),
            TraceExport::Zipkin => (Form::Zipkin, "http://127.0.0.1:9411"),
        };
        let url = CollectorUrl::parse(self.trace_url.as_deref().unwrap_or(usual), form)
            .map_err(|error| Fault::Usage(format!("trace_url {error}")))?;
        Ok(Some(Traces { config: Config { form, url, service }, ratio }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<Option<Traces>, String> {
        let given: Given = toml::from_str(text).unwrap();
        given.traces().map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_collector_has_its_usual_place_and_path() {
        assert!(given("").unwrap().is_none());
        for (text, wanted) in [
            ("trace_export = 'otlp'", "http://127.0.0.1:4318/v1/traces"),
            ("trace_export = 'zipkin'", "http://127.0.0.1:9411/api/v2/spans"),
            ("trace_export = 'zipkin'\ntrace_url = 'https://z'", "https://z/api/v2/spans"),
            ("trace_export = 'zipkin'\ntrace_url = 'http://z:1/'", "http://z:1/api/v2/spans"),
            ("trace_export = 'otlp'\ntrace_url = 'http://o:1/here?a=b'", "http://o:1/here?a=b"),
        ] {
            let traces = given(text).unwrap().unwrap();
            assert_eq!(traces.config.url.to_string(), wanted);
            assert_eq!((traces.config.service.as_str(), traces.ratio), ("eventbus", 0.0));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (wrong, complaint) in [
            ("trace_url = 'http://a'", "trace_url is said without trace_export"),
            ("trace_ratio = 0.5", "trace_ratio is said without trace_export"),
            ("trace_export = 'otlp'\ntrace_ratio = 1.5", "trace_ratio is 1.5"),
            ("trace_export = 'otlp'\ntrace_ratio = nan", "trace_ratio is NaN"),
            ("trace_export = 'otlp'\ntrace_url = 'o:4318'", "trace_url must start with http://"),
            ("trace_export = 'otlp'\ntrace_url = 'http://'", "name a host"),
            ("trace_export = 'otlp'\ntrace_service_name = ''", "trace_service_name is empty"),
        ] {
            let told = given(wrong).unwrap_err();
            assert!(told.contains(complaint), "{wrong}: {told}");
        }
        let secret = given("trace_export = 'otlp'\ntrace_url = 'http://me:geheim@o/'").unwrap_err();
        assert!(secret.contains("no user") && !secret.contains("geheim"), "{secret}");
    }
}
