//! The result as one page: figures, plots, and the circumstances. It needs nothing but itself.

use std::path::Path;

use super::chart::{Axis, Chart, Look, Series, escaped};
use super::latency::Bar;
use super::measured::{Flow, Measured};
use super::ramp::{Ramp, Step};
use super::report::{Report, Table};
use crate::cli::Fault;

const STYLE: &str = include_str!("page.css");

/// The most points of a line: more than there are pixels for help nobody.
const POINTS_MAX: usize = 300;

/// A result that a page can show.
pub(super) trait Shown: Table {
    /// What the page shows of it.
    fn content(&self) -> Content<'_>;
}

/// What a page shows of a result.
pub(super) struct Content<'a> {
    /// The rows of its table, by name.
    rows: Vec<(String, &'a Flow)>,
    /// What there is to say beside the figures.
    notes: Vec<String>,
    /// Its plots, by title.
    plots: Vec<(&'static str, Chart<'static>)>,
}

/// Writes the page of a result.
pub(super) fn write(file: &Path, report: &Report<'_, impl Shown>) -> Result<(), Fault> {
    let failed = |error| Fault::Failed(format!("--html {}: {error}", file.display()));
    std::fs::write(file, page(report)).map_err(failed)
}

// === impl Shown ===

impl Shown for Measured {
    fn content(&self) -> Content<'_> {
        let delivered = self.delivered.as_ref().map(|flow| ("delivered", flow));
        let flows: Vec<_> = [("published", &self.published)].into_iter().chain(delivered).collect();
        let mut plots = vec![("Throughput", throughput(self))];
        if flows.iter().any(|(_, flow)| !flow.curve.is_empty()) {
            plots.push(("How latencies are spread", spread(&flows)));
            plots.push(("Latency by share of the events", percentiles(&flows)));
        }
        let rows = flows.into_iter().map(|(name, flow)| (name.to_owned(), flow)).collect();
        Content { rows, notes: self.notes(), plots }
    }
}

impl Shown for Ramp {
    fn content(&self) -> Content<'_> {
        let steps = self.steps.iter();
        Content {
            rows: steps
                .clone()
                .filter_map(|step| Some((step.name(), step.flow.as_ref()?)))
                .collect(),
            notes: steps.filter_map(Step::note).chain([self.verdict()]).collect(),
            plots: climbed(self).map(|chart| ("Latency by rate", chart)).into_iter().collect(),
        }
    }
}

fn page(report: &Report<'_, impl Shown>) -> String {
    let Content { rows, notes, plots } = report.result.content();
    let notes: String = notes.iter().map(|note| format!("<li>{}</li>\n", escaped(note))).collect();
    let (mode, target) = (escaped(&report.mode.name()), escaped(&report.target.name()));
    let [command, version, machine] =
        [&report.command, report.version, &report.machine].map(escaped);
    let (table, plots) = (table(&rows), plots.iter().map(figure).collect::<String>());
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>eventbus bench: {mode}, {target}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>{mode}, {target}</h1>\n<p><code>eventbus {command}</code></p>\n\
         <p>eventbus bench {version}, {machine}</p>\n{table}\n<ul>\n{notes}</ul>\n{plots}\
         </body>\n</html>\n"
    )
}

fn table(rows: &[(String, &Flow)]) -> String {
    let headings = ["events", "events/s", "p50", "p90", "p99", "p99.9", "max"];
    let headings: String = headings.map(|one| format!("<th scope=\"col\">{one}</th>")).concat();
    let mut lines = String::new();
    for (name, flow) in rows {
        let latency = &flow.latency;
        let times =
            [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
        let figures = [grouped(flow.events as f64), grouped(flow.rate_per_s)];
        let figures = figures.into_iter().chain(times.map(|us| time(us as f64)));
        let cells: String = figures.map(|figure| format!("<td>{figure}</td>")).collect();
        lines += &format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escaped(name));
    }
    format!(
        "<table>\n<thead><tr><td></td>{headings}</tr></thead>\n\
         <tbody>\n{lines}</tbody>\n</table>"
    )
}

/// A chart under its title, with a key to each of its lines.
fn figure((title, chart): &(&str, Chart<'_>)) -> String {
    let key = |(number, series): (usize, &Series)| {
        format!("<span><span class=\"key series-{number}\"></span>{}</span> ", series.name)
    };
    let keys: String = chart.series.iter().enumerate().map(key).collect();
    format!(
        "<figure>\n<figcaption>{title} <span class=\"keys\">{keys}</span></figcaption>\n\
         {}\n</figure>\n",
        chart.svg()
    )
}

fn throughput(run: &Measured) -> Chart<'static> {
    // Thinned to the mean of so many samples each.
    let step = run.timeline.len().div_ceil(POINTS_MAX).max(1);
    let mut lines = [Vec::new(), Vec::new()];
    for some in run.timeline.chunks(step) {
        let mean = |sum: f64| sum / some.len() as f64;
        let at = some.last().map_or(0.0, |rates| rates.at_s);
        lines[0].push((at, mean(some.iter().map(|rates| rates.published_per_s).sum())));
        lines[1].push((at, mean(some.iter().map(|rates| rates.delivered_per_s).sum())));
    }
    let [published, delivered] = lines;
    let end = published.last().map_or(run.seconds, |(at, _)| at.max(run.seconds));
    let most = published.iter().chain(&delivered).map(|(_, rate)| *rate).fold(0.0, f64::max);
    let line = |name, points| Series { name, points, look: Look::Plain };
    let mut series = vec![line("published", published)];
    if run.is_checked {
        series.push(line("delivered", delivered));
    }
    Chart {
        label: "events published and delivered a second, over time",
        x: Axis::even("seconds", end, plain).ending_at(end),
        y: Axis::even("events/s", most, grouped),
        series,
        mark: (end > run.seconds * 1.02).then_some((run.seconds, "measured until here")),
    }
}

fn spread(flows: &[(&'static str, &Flow)]) -> Chart<'static> {
    let share = |flow: &Flow| {
        let all = flow.distribution.iter().map(|bar| bar.events).sum::<u64>().max(1) as f64;
        let bar = |bar: &Bar| (bar.upto_us, 100.0 * bar.events as f64 / all);
        flow.distribution.iter().map(bar).collect::<Vec<_>>()
    };
    let series: Vec<_> = flows
        .iter()
        .map(|(name, flow)| Series { name, points: share(flow), look: Look::Filled })
        .collect();
    let points = || series.iter().flat_map(|series| &series.points);
    let least = points().map(|(us, _)| *us).fold(f64::MAX, f64::min);
    let longest = points().map(|(us, _)| *us).fold(1.0, f64::max);
    let most = points().map(|(_, share)| *share).fold(0.0, f64::max);
    Chart {
        label: "share of the events over their latency",
        x: Axis::logarithmic("latency", (least / 1.2, longest), time),
        y: Axis::even("% of the events", most, plain),
        series,
        mark: None,
    }
}

fn percentiles(flows: &[(&'static str, &Flow)]) -> Chart<'static> {
    let last = 200_000.0_f64.log10();
    // Each mark is ten times fewer events than the one before; the last point is the slowest.
    let place = |percent: f64| (-(1.0 - percent / 100.0).log10()).min(last);
    let series: Vec<_> = flows
        .iter()
        .map(|(name, flow)| {
            let points = flow.curve.iter().map(|point| (place(point.percent), point.us as f64));
            Series { name, points: points.collect(), look: Look::Dotted }
        })
        .collect();
    let times = || series.iter().flat_map(|series| &series.points).map(|(_, us)| *us);
    let (least, longest) = (times().fold(f64::MAX, f64::min), times().fold(1.0, f64::max));
    let shares = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99];
    let mut marks: Vec<_> =
        shares.iter().map(|share| (place(*share), format!("{share} %"))).collect();
    marks.push((last, "all".to_owned()));
    Chart {
        label: "latency that a share of the events keeps, from a tenth of them to all",
        x: Axis::marked("share of the events, by nines", marks),
        y: Axis::logarithmic("latency", (least, longest), time),
        series,
        mark: None,
    }
}

/// The latency at each rate that has figures; none where no rate has any.
fn climbed(ramp: &Ramp) -> Option<Chart<'static>> {
    let p99 = |step: &Step| Some((step.rate_per_s, step.flow.as_ref()?.latency.p99_us.max(1)));
    let steps = ramp.steps.iter().filter_map(p99);
    let mut points: Vec<_> = steps.map(|(rate, us)| (rate, us as f64)).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (slowest, fastest) = (points.first()?.0, points.last()?.0);
    let bound = ramp.p99_max_us.max(1) as f64;
    let times = || points.iter().map(|(_, us)| *us);
    let (least, longest) = (times().fold(bound, f64::min), times().fold(bound, f64::max));
    let bounds = vec![(slowest, bound), (fastest, bound)];
    Some(Chart {
        label: "99th percentile of the latency over the rate, and the bound that it has to keep",
        x: Axis::logarithmic("events/s", (slowest, fastest), grouped),
        y: Axis::logarithmic("latency", (least, longest), time),
        series: vec![
            Series { name: "p99", points, look: Look::Dotted },
            Series { name: "bound", points: bounds, look: Look::Plain },
        ],
        mark: ramp.highest_rate_per_s.map(|rate| (rate, "the highest that held")),
    })
}

/// A latency, in the unit that suits it.
fn time(us: f64) -> String {
    let of = |value: f64, unit: &str| match value {
        value if value < 10.0 => format!("{} {unit}", (value * 100.0).round() / 100.0),
        value if value < 100.0 => format!("{} {unit}", (value * 10.0).round() / 10.0),
        value => format!("{value:.0} {unit}"),
    };
    match us {
        us if us < 1_000.0 => of(us, "µs"),
        us if us < 1_000_000.0 => of(us / 1e3, "ms"),
        us => of(us / 1e6, "s"),
    }
}

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    if number < 10.0 {
        return plain(number);
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plain(number: f64) -> String {
    format!("{}", (number * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [999.0, 1_234.0, 12_345_678.0, 0.5].map(grouped),
            ["999", "1,234", "12,345,678", "0.5"]
        );
        assert_eq!(
            [1.0, 2.5, 950.0, 1_500.0, 20_000.0, 2e6].map(time),
            ["1 µs", "2.5 µs", "950 µs", "1.5 ms", "20 ms", "2 s"]
        );
    }
}
