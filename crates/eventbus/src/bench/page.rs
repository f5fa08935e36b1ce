//! The result as one page: figures, plots, and the circumstances. It needs nothing but itself.

use std::path::Path;

use super::chart::{Axis, Chart, Look, Series, escaped};
use super::latency::Bar;
use super::measured::{Flow, Measured};
use super::report::Report;
use crate::cli::Fault;

const STYLE: &str = include_str!("page.css");

/// The most points of a line: more than there are pixels for help nobody.
const POINTS_MAX: usize = 300;

/// Writes the page of a run.
pub(super) fn write(file: &Path, report: &Report<'_, Measured>) -> Result<(), Fault> {
    let failed = |error| Fault::Failed(format!("--html {}: {error}", file.display()));
    std::fs::write(file, page(report)).map_err(failed)
}

fn page(report: &Report<'_, Measured>) -> String {
    let run = report.result;
    let flows = flows(run);
    let notes = run.notes();
    let notes: String = notes.iter().map(|note| format!("<li>{}</li>\n", escaped(note))).collect();
    let (mode, target) = (escaped(&report.mode.name()), escaped(&report.target.name()));
    let [command, commit, machine] =
        [&report.command, &report.commit, &report.machine].map(|text| escaped(text));
    let (table, plots) = (table(&flows), plots(run, &flows));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>eventbus bench: {mode}, {target}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>{mode}, {target}</h1>\n<p><code>eventbus {command}</code></p>\n\
         <p>commit {commit}, {machine}</p>\n{table}\n<ul>\n{notes}</ul>\n{plots}</body>\n</html>\n"
    )
}

/// What was published, and what was delivered meanwhile.
fn flows(run: &Measured) -> Vec<(&'static str, &Flow)> {
    let delivered = run.delivered.as_ref().map(|flow| ("delivered", flow));
    [("published", &run.published)].into_iter().chain(delivered).collect()
}

fn table(flows: &[(&str, &Flow)]) -> String {
    let headings = ["events", "events/s", "p50", "p90", "p99", "p99.9", "max"];
    let headings: String = headings.map(|one| format!("<th scope=\"col\">{one}</th>")).concat();
    let mut rows = String::new();
    for (number, (name, flow)) in flows.iter().enumerate() {
        let latency = &flow.latency;
        let times =
            [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
        let figures = [grouped(flow.events as f64), grouped(flow.rate_per_s)];
        let figures = figures.into_iter().chain(times.map(|us| time(us as f64)));
        let cells: String = figures.map(|figure| format!("<td>{figure}</td>")).collect();
        rows += &format!(
            "<tr><th scope=\"row\"><span class=\"key series-{number}\"></span>{name}</th>\
             {cells}</tr>\n"
        );
    }
    format!(
        "<table>\n<thead><tr><td></td>{headings}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>"
    )
}

fn plots(run: &Measured, flows: &[(&str, &Flow)]) -> String {
    let mut plots = vec![("Throughput", throughput(run).svg())];
    if flows.iter().any(|(_, flow)| !flow.curve.is_empty()) {
        plots.push(("How latencies are spread", spread(flows).svg()));
        plots.push(("Latency by share of the events", percentiles(flows).svg()));
    }
    let names = if run.is_checked { &["published", "delivered"][..] } else { &["published"] };
    let key = |(number, name): (usize, &&str)| {
        format!("<span><span class=\"key series-{number}\"></span>{name}</span> ")
    };
    let keys: String = names.iter().enumerate().map(key).collect();
    let figure = |(title, svg): (&str, String)| {
        format!(
            "<figure>\n<figcaption>{title} <span class=\"keys\">{keys}</span></figcaption>\n\
             {svg}\n</figure>\n"
        )
    };
    plots.into_iter().map(figure).collect()
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
    let line = |points| Series { points, look: Look::Plain };
    let mut series = vec![line(published)];
    if run.is_checked {
        series.push(line(delivered));
    }
    Chart {
        label: "events published and delivered a second, over time",
        x: Axis::even("seconds", end, plain).ending_at(end),
        y: Axis::even("events/s", most, grouped),
        series,
        mark: (end > run.seconds * 1.02).then_some((run.seconds, "measured until here")),
    }
}

fn spread(flows: &[(&str, &Flow)]) -> Chart<'static> {
    let share = |flow: &Flow| {
        let all = flow.distribution.iter().map(|bar| bar.events).sum::<u64>().max(1) as f64;
        let bar = |bar: &Bar| (bar.upto_us, 100.0 * bar.events as f64 / all);
        flow.distribution.iter().map(bar).collect::<Vec<_>>()
    };
    let series: Vec<_> =
        flows.iter().map(|(_, flow)| Series { points: share(flow), look: Look::Filled }).collect();
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

fn percentiles(flows: &[(&str, &Flow)]) -> Chart<'static> {
    let last = 200_000.0_f64.log10();
    // Each mark is ten times fewer events than the one before; the last point is the slowest.
    let place = |percent: f64| (-(1.0 - percent / 100.0).log10()).min(last);
    let series: Vec<_> = flows
        .iter()
        .map(|(_, flow)| {
            let points = flow.curve.iter().map(|point| (place(point.percent), point.us as f64));
            Series { points: points.collect(), look: Look::Dotted }
        })
        .collect();
    let times = || series.iter().flat_map(|series| &series.points).map(|(_, us)| *us);
    let (least, longest) = (times().fold(f64::MAX, f64::min), times().fold(1.0, f64::max));
    let shares = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99];
    let mut marks: Vec<_> =
        shares.iter().map(|share| (place(*share), format!("{share} %"))).collect();
    marks.push((last, "all".to_owned()));
    Chart {
        label: "latency that a share of the events keeps, from half of them to all",
        x: Axis::marked("share of the events, by nines", marks),
        y: Axis::logarithmic("latency", (least, longest), time),
        series,
        mark: None,
    }
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
