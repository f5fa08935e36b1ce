//! Counting and measuring: what the telemetry of every crate is made of.
//!
//! What happens is counted in plain atomics, by whoever does it: no lock, and no allocation an
//! event. They are read, and written down in the words of Prometheus, when somebody asks.

use std::array;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The name and the help of a family that each broker has of its own.
pub const COMMIT_EVENTS: (&str, &str) = (
    "eventbus_commit_events",
    "Events that were made durable at once: a commit of the log; over NATS, what was appended.",
);

/// The name and the help of a family that each broker has of its own.
pub const COMMIT_DURATION: (&str, &str) = (
    "eventbus_commit_duration_seconds",
    "How long it took to make durable what was written: a sync of the log; over NATS, until the \
     server acknowledged what was appended.",
);

/// What the values of a [`Histogram`] are, and into which buckets they fall.
pub trait Scale: fmt::Debug + Send + Sync + 'static {
    /// The largest value of each bucket but the last, which takes everything beyond.
    const BOUNDS: &'static [u64];
    /// How many of a value make one of the unit that is told.
    const PER_UNIT: f64;
}

/// Durations: kept in microseconds, told in seconds. From what a sync of a good disk takes to the
/// day after which an event is too old.
#[derive(Clone, Copy, Debug)]
pub struct Times;

impl Scale for Times {
    const BOUNDS: &'static [u64] = &[
        100,
        200,
        500,
        1_000,
        2_000,
        5_000,
        10_000,
        20_000,
        50_000,
        100_000,
        200_000,
        500_000,
        1_000_000,
        2_000_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        600_000_000,
        3_600_000_000,
        86_400_000_000,
    ];
    const PER_UNIT: f64 = 1e6;
}

/// Durations between two wall clocks that tell milliseconds: as [`Times`], from what such clocks
/// can tell apart.
#[derive(Clone, Copy, Debug)]
pub struct ClockTimes;

impl Scale for ClockTimes {
    // Those of `Times` below a millisecond are left out.
    const BOUNDS: &'static [u64] = Times::BOUNDS.split_at(3).1;
    const PER_UNIT: f64 = Times::PER_UNIT;
}

/// How many events there are in something, up to what one commit takes.
#[derive(Clone, Copy, Debug)]
pub struct Events;

impl Scale for Events {
    const BOUNDS: &'static [u64] =
        &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000];
    const PER_UNIT: f64 = 1.0;
}

/// Buckets of any scale, the last one included.
const BUCKETS: usize = 22;

/// How often values of which size came: two atomic additions each.
#[derive(Debug)]
pub struct Histogram<S> {
    buckets: [AtomicU64; BUCKETS],
    total: AtomicU64,
    scale: PhantomData<S>,
}

impl<S: Scale> Histogram<S> {
    /// Counts a value.
    pub fn record(&self, value: u64) {
        const { assert!(S::BOUNDS.len() < BUCKETS, "the last bucket takes what is beyond") };
        let bucket = S::BOUNDS.partition_point(|bound| *bound < value);
        add(&self.buckets[bucket], 1);
        add(&self.total, value);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(load).sum()
    }

    /// All values together.
    pub fn total(&self) -> u64 {
        load(&self.total)
    }
}

impl Histogram<Times> {
    /// Counts a duration.
    pub fn took(&self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

impl<S> Default for Histogram<S> {
    fn default() -> Self {
        let buckets = array::from_fn(|_| AtomicU64::default());
        Self { buckets, total: AtomicU64::default(), scale: PhantomData }
    }
}

impl<S: Scale> EncodeMetric for Histogram<S> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // The total first: an average told too small for a moment is better than one too large.
        let total = self.total() as f64 / S::PER_UNIT;
        let bounds = S::BOUNDS.iter().map(|bound| *bound as f64 / S::PER_UNIT);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(load)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(total, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Writes families down, each with its help.
#[derive(Debug)]
pub struct Families<'e>(DescriptorEncoder<'e>);

impl<'e> Families<'e> {
    /// Where a collector is to write.
    pub fn to(encoder: DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// What only grows. The name is told with `_total` behind it.
    pub fn counter(&mut self, name: &'static str, help: &str, count: u64) -> fmt::Result {
        ConstCounter::new(count).encode(self.family(name, help, MetricType::Counter)?)
    }

    /// The same in fractions.
    pub fn counter_of(&mut self, name: &'static str, help: &str, count: f64) -> fmt::Result {
        ConstCounter::new(count).encode(self.family(name, help, MetricType::Counter)?)
    }

    /// One count for each word that the label may have.
    pub fn counters<'w>(
        &mut self,
        name: &'static str,
        help: &str,
        label: &'static str,
        counts: impl IntoIterator<Item = (&'w str, u64)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Counter)?;
        for (word, count) in counts {
            ConstCounter::new(count).encode(family.encode_family(&[(label, word)])?)?;
        }
        Ok(())
    }

    /// What is now.
    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &str,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        ConstGauge::new(value).encode(self.family(name, help, MetricType::Gauge)?)
    }

    /// What is now, under these labels each.
    pub fn gauges<'w, const LABELS: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &'static str,
        help: &str,
        labels: [&'static str; LABELS],
        values: impl IntoIterator<Item = ([&'w str; LABELS], V)>,
    ) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Gauge)?;
        for (words, value) in values {
            let set: [(&str, &str); LABELS] = array::from_fn(|at| (labels[at], words[at]));
            ConstGauge::new(value).encode(family.encode_family(&set)?)?;
        }
        Ok(())
    }

    /// How often values of which size came.
    pub fn histogram<S: Scale>(
        &mut self,
        name: &'static str,
        help: &str,
        values: &Histogram<S>,
    ) -> fmt::Result {
        values.encode(self.family(name, help, MetricType::Histogram)?)
    }

    /// Facts as words; none where there are none to tell. The name is told with `_info` behind it.
    pub fn facts(&mut self, name: &'static str, help: &str, facts: &[(&str, &str)]) -> fmt::Result {
        let mut family = self.family(name, help, MetricType::Info)?;
        if facts.is_empty() { Ok(()) } else { family.encode_info(&facts) }
    }

    fn family(
        &mut self,
        name: &'static str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

/// Adds to a count. Nothing else is told by it, so no order is asked for.
pub fn add(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

/// Reads a count.
pub fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug, Default)]
    struct Everything {
        times: Histogram<Times>,
        events: Histogram<Events>,
    }

    impl Collector for Everything {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut families = Families::to(encoder);
            families.counter("a", "Counted.", 7)?;
            families.counters("b", "By word.", "word", [("x", 1), ("y\"", 0)])?;
            families.gauge("c", "Now.", u64::MAX)?;
            let values = [(["n", "m"], 1.5), (["n", "o"], 2.5)];
            families.gauges("d_seconds", "Each.", ["namespace", "name"], values)?;
            families.facts("e", "Facts.", &[("version", "1")])?;
            families.facts("f", "None.", &[])?;
            families.histogram("g_events", "Sizes.", &self.events)?;
            families.histogram("h_seconds", "Times.", &self.times)
        }
    }

    fn page(everything: Everything) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(everything));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        page
    }

    #[test]
    fn each_kind_is_written_in_its_words() {
        let page = page(Everything::default());
        for line in [
            "a_total 7",
            "b_total{word=\"x\"} 1",
            "b_total{word=\"y\\\"\"} 0",
            "c 18446744073709551615",
            "d_seconds{namespace=\"n\",name=\"o\"} 2.5",
            "e_info{version=\"1\"} 1",
            "# TYPE f info",
            "g_events_bucket{le=\"50000.0\"} 0",
            "h_seconds_bucket{le=\"0.0001\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }

    #[test]
    fn a_value_is_in_the_first_bucket_that_holds_it_and_in_all_beyond() {
        let everything = Everything::default();
        for us in [0, 100, 101, 5_000_000, u64::MAX / 2] {
            everything.times.record(us);
        }
        everything.times.took(Duration::from_micros(100));
        everything.events.record(3);
        assert_eq!((everything.times.count(), everything.events.total()), (6, 3));
        let page = page(everything);
        for line in [
            "h_seconds_bucket{le=\"0.0001\"} 3",
            "h_seconds_bucket{le=\"0.0002\"} 4",
            "h_seconds_bucket{le=\"2.0\"} 4",
            "h_seconds_bucket{le=\"5.0\"} 5",
            "h_seconds_bucket{le=\"86400.0\"} 5",
            "h_seconds_bucket{le=\"+Inf\"} 6",
            "h_seconds_count 6",
            "g_events_bucket{le=\"2.0\"} 0",
            "g_events_bucket{le=\"5.0\"} 1",
            "g_events_sum 3.0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }

    #[test]
    fn bounds_grow() {
        let grows = |bounds: &[u64]| bounds.is_sorted_by(|one, next| one < next);
        assert!(grows(Times::BOUNDS) && grows(Events::BOUNDS));
        assert_eq!(ClockTimes::BOUNDS[0], 1_000);
    }
}
