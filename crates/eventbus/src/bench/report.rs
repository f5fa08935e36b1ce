//! What a run says in the end: for people a table, for programs one JSON object, and in both the
//! machine and the version of the program that measured.

use serde::Serialize;

use super::args::{Mode, Target};
use super::isolation::Isolation;
use super::kill::Killed;
use super::measured::{Flow, Measured};
use super::plan::Plan;
use super::ramp::{Ramp, Step};
use crate::cli::Fault;
use crate::output;

/// A result and the circumstances it was found in.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a, T> {
    pub(super) mode: Mode,
    pub(super) target: Target,
    /// How the run was asked for.
    pub(super) command: String,
    /// Of the program that measured; what is measured may be another.
    pub(super) version: &'static str,
    pub(super) machine: String,
    pub(super) result: &'a T,
}

/// A result that can be printed.
pub(super) trait Table: Serialize {
    /// The lines for people.
    fn lines(&self) -> Vec<String>;
}

impl<'a, T: Table> Report<'a, T> {
    /// The report of a run just done.
    pub(super) fn of(plan: &Plan, result: &'a T) -> Self {
        Self {
            mode: plan.mode,
            target: plan.load.target,
            command: command(),
            version: env!("CARGO_PKG_VERSION"),
            machine: machine(),
            result,
        }
    }

    /// Prints it.
    pub(super) fn print(&self, as_json: bool) -> Result<(), Fault> {
        if as_json {
            let json = serde_json::to_string(self);
            return output::line(&json.map_err(|error| Fault::Failed(error.to_string()))?);
        }
        output::line(&format!("eventbus {}", self.command))?;
        output::line(&format!("eventbus bench {}, {}", self.version, self.machine))?;
        self.result.lines().iter().try_for_each(|line| output::line(line))
    }
}

const HEADINGS: &str =
    "              events    events/s     p50 µs     p90 µs     p99 µs   p99.9 µs     max µs";

fn row(name: &str, flow: &Flow) -> String {
    let Flow { events, rate_per_s, latency, .. } = flow;
    let figures = [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
    let figures: String = figures.iter().map(|figure| format!("{figure:>11}")).collect();
    format!("{name:<9} {events:>10} {rate_per_s:>11.0}{figures}")
}

impl Table for Measured {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![HEADINGS.to_owned(), row("published", &self.published)];
        lines.extend(self.delivered.as_ref().map(|delivered| row("delivered", delivered)));
        lines.extend(self.notes());
        lines
    }
}

impl Measured {
    /// What there is to say beside the figures.
    pub(super) fn notes(&self) -> Vec<String> {
        let stored = self.durability.map(|level| format!(", {level}")).unwrap_or_default();
        let mut notes = vec![match self.batch {
            1 => format!("events alone{stored}"),
            batch => format!("batches of {batch}, {:.0} requests/s{stored}", self.requests_per_s),
        }];
        if self.delivered.is_some() {
            let (backlog, most) = (self.backlog, self.backlog_max);
            notes.push(format!("at the end {backlog} deliveries were under way, at most {most}"));
        }
        if self.failed > 0 {
            notes.push(format!("{} deliveries failed as told, and came again", self.failed));
        }
        if let Some(slow) = self.slow {
            notes.push(format!("{slow} deliveries besides, at the slow endpoints"));
        }
        let arrived = match self.is_checked {
            true => format!("{} deliveries in all, each once", self.deliveries),
            false => "no deliveries: what becomes of them was not looked at".to_owned(),
        };
        notes.push(format!(
            "{:.1} s measured; {} events and {arrived}; drained in {:.2} s; {:.1} s of CPU for the \
             load",
            self.seconds, self.events, self.drain_s, self.generator_cpu_s,
        ));
        notes
    }
}

impl Table for Ramp {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![HEADINGS.to_owned()];
        for step in &self.steps {
            lines.extend(step.flow.as_ref().map(|flow| row(&step.name(), flow)));
            lines.extend(step.note());
        }
        lines.push(self.verdict());
        lines
    }
}

impl Ramp {
    /// What was found.
    pub(super) fn verdict(&self) -> String {
        match self.highest_rate_per_s {
            Some(rate) => format!("{rate:.0}/s held: p99 at most {} µs", self.p99_max_us),
            None => format!("no rate held: p99 at most {} µs", self.p99_max_us),
        }
    }
}

impl Step {
    /// Its rate.
    pub(super) fn name(&self) -> String {
        format!("{:.0}/s", self.rate_per_s)
    }

    /// What there is to say beside its figures.
    pub(super) fn note(&self) -> Option<String> {
        self.broke.as_ref().map(|why| format!("{:<9} broke: {why}", self.name()))
    }
}

impl Table for Isolation {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![HEADINGS.to_owned()];
        for pair in &self.pairs {
            let flows = [("without", &pair.without), ("with bad", &pair.with)];
            let all = flows.iter().filter_map(|(name, run)| Some((name, run.delivered.as_ref()?)));
            lines.extend(all.map(|(name, flow)| row(name, flow)));
        }
        let summary = &self.summary;
        lines.push(format!(
            "medians over {} pairs, healthy endpoints: {:.0}/s without bad ones, {:.0}/s with (× \
             {:.3}); p99 {:.0} µs without, {:.0} µs with (× {:.2})",
            self.pairs.len(),
            summary.without_rate_per_s,
            summary.with_rate_per_s,
            summary.throughput_ratio,
            summary.without_p99_us,
            summary.with_p99_us,
            summary.p99_ratio,
        ));
        lines
    }
}

impl Table for Killed {
    fn lines(&self) -> Vec<String> {
        let verdict = &self.verdict;
        vec![
            format!("seed {}, {} kills, {:.1} s", self.seed, self.kills, self.seconds),
            format!(
                "{} events sent, {} acknowledged, {} delivered, {} lost",
                verdict.sent, verdict.acknowledged, verdict.delivered, verdict.lost
            ),
            format!(
                "{} duplicates (at most {} in flight), {} delivered without an acknowledgement, {} \
                 never sent",
                verdict.duplicates,
                self.in_flight_max,
                verdict.unacknowledged_delivered,
                verdict.never_sent
            ),
            format!(
                "ready at most {} ms after a start; drained in {:.2} s; records in {}",
                self.ready_max_ms,
                self.drain_s,
                self.records.display()
            ),
        ]
    }
}

/// The arguments in a line; paths need not be text.
fn command() -> String {
    let arguments = std::env::args_os().skip(1);
    arguments.map(|one| one.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// The machine in a line, as far as it says.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let processor = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let memory_kib: Option<u64> =
        memory.and_then(|memory| memory.strip_suffix(" kB")?.parse().ok());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores of {}, {:.1} GiB of memory, {} {}",
        processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        memory_kib.unwrap_or_default() as f64 / 1024.0 / 1024.0,
        std::env::consts::OS,
        read("/proc/sys/kernel/osrelease").trim(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::latency::Percentiles;
    use super::*;

    #[test]
    fn columns_stand_under_their_headings() {
        let latency = Percentiles { p50_us: 1, p90_us: 2, p99_us: 3, p999_us: 4, max_us: 5 };
        let (curve, distribution) = (Vec::new(), Vec::new());
        let flow = Flow { events: 1_234_567, rate_per_s: 61_728.4, latency, curve, distribution };
        let row = row("published", &flow);
        assert_eq!(row.chars().count(), HEADINGS.chars().count(), "{row}");
        let place = |text: &str, what: &str| text.find(what).map(|at| at + what.len());
        assert_eq!(place(&row, "1234567"), place(HEADINGS, "    events"), "{row}");
        assert_eq!(place(&row, "61728"), place(HEADINGS, "events/s"), "{row}");
    }
}
