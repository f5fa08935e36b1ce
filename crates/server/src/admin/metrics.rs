//! `/metrics`: what the bus counts and measures, as Prometheus reads it.
//!
//! A part of the bus exports its families by a [`Collector`], in which each is declared with its
//! type and its help. The part keeps its counters as it likes; they are read when somebody asks, so
//! that nobody who publishes or delivers pays for it.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Either;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{self, DescriptorEncoder};
use prometheus_client::registry::Registry;
use tokio::task::spawn_blocking;

use super::Body;
use super::pages::{Page, Pages};

/// What the process exports. Cheap to clone.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Exports>);

#[derive(Default)]
struct Exports {
    parts: Mutex<Vec<Part>>,
    pages: Pages,
    /// Pages are written one after the other: they cost what publishing and delivering need.
    writing: Mutex<()>,
}

/// A part of the bus, as a page has it.
#[derive(Clone, Debug)]
struct Part(Arc<dyn Collector>);

impl Collector for Part {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// How a page may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format, version 0.0.4, which every scraper reads.
    Prometheus,
}

impl Metrics {
    /// Adds the families of a part. Each family has one part that writes it.
    pub fn export(&self, part: impl Collector) {
        self.parts().push(Part(Arc::new(part)));
    }

    /// The page, in the format that the headers ask for. Written beside whatever publishes and
    /// delivers: thousands of series take a moment.
    pub async fn answer(&self, asked: &HeaderMap) -> Response<Body> {
        let format = Format::asked(asked);
        let Some(place) = self.0.pages.place() else {
            let full = "others have not taken their pages yet\n".to_owned();
            return super::text(StatusCode::TOO_MANY_REQUESTS, full).map(Either::Left);
        };
        let metrics = self.clone();
        // Who hangs up meanwhile does not end it: it has its place until then.
        let written = move || metrics.page(format).map(|page| Page::new(place, page));
        let Ok(Ok(page)) = spawn_blocking(written).await else {
            let failed = "a metric could not be written\n".to_owned();
            return super::text(StatusCode::INTERNAL_SERVER_ERROR, failed).map(Either::Left);
        };
        let mut response = Response::new(Either::Right(page));
        let content_type = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }

    fn page(&self, format: Format) -> Result<String, fmt::Error> {
        let _turn = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut registry = Registry::default();
        // No lock is held while the parts write.
        let parts = self.parts().clone();
        for part in parts {
            registry.register_collector(Box::new(part));
        }
        let mut page = String::new();
        encoding::text::encode(&mut page, &registry)?;
        match format {
            Format::OpenMetrics => Ok(page),
            Format::Prometheus => prometheus(&page),
        }
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Part>> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Format {
    fn asked(headers: &HeaderMap) -> Self {
        let open_metrics = wish(headers, "application/openmetrics-text");
        match open_metrics > 0.0 && open_metrics >= wish(headers, "text/plain") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// How much an `Accept` names a media type for, from 0 (not at all) to 1.
fn wish(headers: &HeaderMap, media_type: &str) -> f32 {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let weights = values.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next()?.eq_ignore_ascii_case(media_type);
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        is_named.then(|| weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
    });
    weights.fold(0.0, f32::max)
}

/// A page of OpenMetrics in Prometheus' own format: there a family is called what its samples are,
/// an information is a gauge, and nothing is said of units or of the end.
fn prometheus(page: &str) -> Result<String, fmt::Error> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: HashMap<_, _> = types.collect();
    let mut text = String::with_capacity(page.len());
    for line in page.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", what @ ("HELP" | "TYPE"), family, told] => {
                let (suffix, kind) = match types.get(family) {
                    Some(&"counter") => ("_total", "counter"),
                    Some(&"info") => ("_info", "gauge"),
                    Some(&"unknown") | None => ("", "untyped"),
                    Some(kind) => ("", *kind),
                };
                let told = if what == "TYPE" { kind } else { told };
                writeln!(text, "# {what} {family}{suffix} {told}")?;
            }
            ["#", ..] => {}
            _ => writeln!(text, "{line}")?,
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_METRICS: &str = "\
# HELP a_events Events, of any kind.
# TYPE a_events counter
a_events_total{kind=\"x y\"} 3
# HELP a Facts.
# TYPE a info
a_info{level=\"high\"} 1
# HELP b_seconds How long.
# TYPE b_seconds histogram
# UNIT b_seconds seconds
b_seconds_bucket{le=\"+Inf\"} 1
# HELP c Anything.
# TYPE c unknown
c 0.5
# EOF
";

    #[test]
    fn prometheus_is_told_the_same_in_its_own_words() {
        let told = prometheus(OPEN_METRICS).unwrap();
        let wanted = "\
# HELP a_events_total Events, of any kind.
# TYPE a_events_total counter
a_events_total{kind=\"x y\"} 3
# HELP a_info Facts.
# TYPE a_info gauge
a_info{level=\"high\"} 1
# HELP b_seconds How long.
# TYPE b_seconds histogram
b_seconds_bucket{le=\"+Inf\"} 1
# HELP c Anything.
# TYPE c untyped
c 0.5
";
        assert_eq!(told, wanted);
    }

    #[test]
    fn open_metrics_is_for_whoever_prefers_it() {
        for (accept, is_open) in [
            // Prometheus, as it comes; and told to prefer its own format.
            (
                "application/openmetrics-text;version=1.0.0,\
                 application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            (
                "text/plain;version=0.0.4;q=0.6, application/openmetrics-text;version=1.0.0;q=0.5",
                false,
            ),
            ("Application/OpenMetrics-Text", true),
            ("application/openmetrics-text; q=0", false),
            ("application/openmetrics-text; q=much", false),
            ("text/html, */*", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            let format = Format::asked(&headers);
            assert_eq!(format == Format::OpenMetrics, is_open, "{accept}");
        }
        assert_eq!(Format::asked(&HeaderMap::new()), Format::Prometheus);
    }
}
