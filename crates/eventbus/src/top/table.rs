//! A view as text: what `eventbus top` shows.

use super::view::{Commits, Flow, Latency, Subscription, View};
use crate::output::printable;

/// Subscriptions that are told where nobody says how many fit.
pub(super) const WORST: usize = 10;

/// The lines of a view, with up to `worst` Subscriptions.
pub(super) fn lines(view: &View, worst: usize) -> Vec<String> {
    let mut lines = vec![
        health(view),
        String::new(),
        "              events/s   payload/s        p50        p99    failed".to_owned(),
        flow("publish", &view.published),
        flow("deliver", &view.delivered),
        format!("{:<12}{:>32}{}", "end to end", "", latency(&view.end_to_end)),
        commits(&view.commits),
        String::new(),
        format!(
            "lag            {}, {} waiting for a retry; the oldest is {} old",
            events(view.lag_events),
            number(view.waiting_events),
            time(view.oldest_unsettled_s)
        ),
        format!(
            "not delivered  {}/s ignored, {}/s dropped; {} delayed",
            number(view.ignored_per_s),
            number(view.dropped_per_s),
            events(view.delayed_events)
        ),
        format!(
            "storage        {} in use, {} left",
            bytes(view.storage_bytes),
            bytes(view.storage_free_bytes)
        ),
        format!("subscriptions  {}", subscriptions(&view.subscriptions)),
        format!(
            "process        {:.2} processors, {} of memory, {} descriptors",
            view.cpus,
            bytes(view.resident_bytes),
            number(view.open_fds)
        ),
        String::new(),
    ];
    lines.extend(lagging(&view.worst, worst));
    lines
}

fn health(view: &View) -> String {
    let word = |is_up: bool| if is_up { "up" } else { "DOWN" };
    let mut health = format!(
        "eventbus {}, up {}; broker {}, API {}",
        printable(&view.version),
        time(view.up_s),
        word(view.broker_up),
        word(view.api_up)
    );
    if view.storage_full {
        health += ", storage FULL";
    }
    match &view.components_down[..] {
        [] => health + ", ready",
        down => health + &format!(", NOT READY: {}", printable(&down.join(", "))),
    }
}

fn flow(name: &str, flow: &Flow) -> String {
    let failed =
        flow.failed_share.map_or("–".to_owned(), |share| format!("{:.1} %", share * 100.0));
    let payload = format!("{}/s", bytes(flow.bytes_per_s));
    format!(
        "{name:<12}{:>10}{payload:>14}{}{failed:>10}",
        number(flow.events_per_s),
        latency(&flow.latency)
    )
}

fn commits(commits: &Commits) -> String {
    let each = commits.events_each.map(|each| format!("   {each:.1} events each"));
    format!(
        "{:<12}{:>10}{:>14}{}{}",
        "commit",
        number(commits.per_s),
        "",
        latency(&commits.latency),
        each.unwrap_or_default()
    )
}

fn latency(latency: &Latency) -> String {
    let [p50, p99] = [latency.p50_s, latency.p99_s];
    let told = |seconds: Option<f64>| seconds.map_or("–".to_owned(), time);
    format!("{:>11}{:>11}", told(p50), told(p99))
}

fn subscriptions(states: &[(String, f64)]) -> String {
    if states.is_empty() {
        return "–".to_owned();
    }
    let told =
        states.iter().map(|(state, count)| format!("{} {}", number(*count), printable(state)));
    told.collect::<Vec<_>>().join(", ")
}

/// The worst in columns; their API groups stand there only where they are of more than one.
fn lagging(worst: &[Subscription], most: usize) -> Vec<String> {
    if worst.is_empty() {
        return vec!["no Subscription lags".to_owned()];
    }
    type Word = fn(&Subscription) -> &String;
    let mut columns: Vec<(&str, Word)> =
        vec![("NAMESPACE", |one| &one.namespace), ("SUBSCRIPTION", |one| &one.subscription)];
    if worst.iter().any(|one| one.group != worst[0].group) {
        columns.push(("GROUP", |one| &one.group));
    }
    let (mut heading, mut rows) = (String::new(), vec![String::new(); worst.len().min(most)]);
    for (name, of) in columns {
        let words: Vec<_> = worst.iter().take(most).map(|one| printable(of(one))).collect();
        let widths = words.iter().map(|word| word.chars().count());
        let width = widths.chain([name.len()]).max().unwrap_or_default();
        heading += &format!("{name:<width$}  ");
        for (row, word) in rows.iter_mut().zip(words) {
            *row += &format!("{word:<width$}  ");
        }
    }
    let mut lines = vec![format!("{heading}{:>10}  {:>10}  {:>10}", "LAG", "OLDEST", "RETRIES")];
    lines.extend(rows.into_iter().zip(worst).map(|(row, one)| {
        format!(
            "{row}{:>10}  {:>10}  {:>10}",
            number(one.lag_events),
            time(one.oldest_unsettled_s),
            number(one.waiting_events)
        )
    }));
    if worst.len() > most {
        lines.push(format!("and {} more", worst.len() - most));
    }
    lines
}

fn events(count: f64) -> String {
    let plural = if count == 1.0 { "" } else { "s" };
    format!("{} event{plural}", number(count))
}

/// A number with its thousands apart; with a place behind the point where it is small.
fn number(value: f64) -> String {
    if value > 0.0 && value < 10.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1024.0 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let unit = units[unit];
    if value < 10.0 && unit != "B" {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A duration with the unit that suits it.
fn time(seconds: f64) -> String {
    match seconds {
        0.0 => "0 s".to_owned(),
        ..0.001 => format!("{:.0} µs", seconds * 1e6),
        ..0.01 => format!("{:.1} ms", seconds * 1e3),
        ..1.0 => format!("{:.0} ms", seconds * 1e3),
        ..60.0 => format!("{seconds:.1} s"),
        ..3_600.0 => format!("{:.0} min", (seconds / 60.0).floor()),
        ..172_800.0 => format!("{:.0} h", (seconds / 3_600.0).floor()),
        _ => format!("{:.0} d", (seconds / 86_400.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_have_units() {
        for (value, text) in [(0.0, "0"), (0.25, "0.2"), (9.0, "9"), (999.4, "999")] {
            assert_eq!(number(value), text);
        }
        assert_eq!((number(1234.0), number(1_234_567.0)), ("1,234".into(), "1,234,567".into()));
        for (value, text) in [
            (0.0, "0 s"),
            (0.000_25, "250 µs"),
            (0.0042, "4.2 ms"),
            (0.25, "250 ms"),
            (2.0, "2.0 s"),
            (119.0, "1 min"),
            (7_300.0, "2 h"),
            (259_200.0, "3 d"),
        ] {
            assert_eq!(time(value), text);
        }
        for (value, text) in
            [(0.0, "0 B"), (1023.0, "1023 B"), (1536.0, "1.5 KiB"), (53_687_091_200.0, "50 GiB")]
        {
            assert_eq!(bytes(value), text);
        }
    }

    fn lag(namespace: &str, subscription: &str, lag_events: f64) -> Subscription {
        Subscription {
            group: "one".to_owned(),
            namespace: namespace.to_owned(),
            subscription: subscription.to_owned(),
            lag_events,
            oldest_unsettled_s: 3.0,
            waiting_events: 1.0,
        }
    }

    #[test]
    fn the_worst_stand_in_columns_and_steer_no_terminal() {
        let worst = [lag("stage", "a-rather-long-name", 1234.0), lag("s", "b\u{1b}[2J", 7.0)];
        let lines = lagging(&worst, 2);
        let wanted = [
            "NAMESPACE  SUBSCRIPTION               LAG      OLDEST     RETRIES",
            "stage      a-rather-long-name       1,234       3.0 s           1",
            "s          b\\u{1b}[2J                   7       3.0 s           1",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(lagging(&worst, 1)[2], "and 1 more");
        assert_eq!(lagging(&[], 1), ["no Subscription lags"]);
    }

    #[test]
    fn two_of_one_name_are_told_apart() {
        let other = Subscription { group: "other".to_owned(), ..lag("stage", "orders", 2.0) };
        let wanted = [
            "NAMESPACE  SUBSCRIPTION  GROUP         LAG      OLDEST     RETRIES",
            "stage      orders        one             3       3.0 s           1",
            "stage      orders        other           2       3.0 s           1",
        ];
        assert_eq!(lagging(&[lag("stage", "orders", 3.0), other], 2), wanted);
    }
}
