//! What lies in `deploy/`: every metric and every label in it is one that the bus tells, as
//! `docs/metrics.md` has them, which a test writes from a running bus.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use regex::Regex;
use serde_json::Value;

use crate::served::Bus;

/// Labels that Prometheus gives to whatever it scrapes, and that of histograms.
const ALWAYS: [&str; 3] = ["instance", "job", "le"];

/// Words of PromQL before a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// Words of PromQL that are no metric.
const WORDS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

/// A file of this repository.
fn file(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every series that the bus tells, with its labels.
fn told() -> BTreeMap<String, BTreeSet<String>> {
    let row = Regex::new(r"^\| `(\w+)` \| (\w+) \| (.*?) \|").unwrap();
    let mut told = BTreeMap::new();
    for line in file("docs/metrics.md").lines() {
        let Some(row) = row.captures(line) else { continue };
        let labels: BTreeSet<_> =
            row[3].split(", ").map(|label| label.trim_matches('`').to_owned()).collect();
        let suffixes: &[&str] =
            if &row[2] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for suffix in suffixes {
            told.insert(format!("{}{suffix}", &row[1]), labels.clone());
        }
    }
    assert!(told.contains_key("eventbus_publish_duration_seconds_bucket"), "{told:?}");
    // Prometheus' own, of every process that it scrapes.
    told.insert("up".to_owned(), BTreeSet::new());
    told
}

/// The metrics of an expression, and the labels it speaks of.
fn spoken_of(expression: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    // Neither strings, nor ranges, nor what Grafana puts in, name anything.
    let strange = Regex::new(r#""[^"]*"|\[[^\]]*\]|\$\w+|\b\d[\w.]*"#).unwrap();
    let text = strange.replace_all(expression, " ");
    let token = Regex::new(r"[a-zA-Z_:][\w:]*|[{}()]").unwrap();
    let tokens: Vec<&str> = token.find_iter(&text).map(|found| found.as_str()).collect();
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let (mut in_braces, mut in_list) = (false, false);
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => in_braces = true,
            "}" => in_braces = false,
            "(" => in_list = at > 0 && BEFORE_LABELS.contains(&tokens[at - 1]),
            ")" => in_list = false,
            word if in_braces || in_list => {
                labels.insert(word.to_owned());
            }
            word if WORDS.contains(&word) || BEFORE_LABELS.contains(&word) => {}
            // A function, or an aggregation before its labels.
            _ if tokens.get(at + 1) == Some(&"(") => {}
            word if !word.contains('_')
                && tokens.get(at + 1).is_some_and(|next| BEFORE_LABELS.contains(next)) => {}
            word => {
                metrics.insert(word.to_owned());
            }
        }
    }
    (metrics, labels)
}

/// What of an expression, and of the words beside it, the bus does not tell.
fn unknown(expression: &str, words: &str) -> Vec<String> {
    let told = told();
    let (metrics, mut labels) = spoken_of(expression);
    let label = Regex::new(r"\{\{ *(?:\$labels\.)?(\w+)").unwrap();
    labels.extend(label.captures_iter(words).map(|found| found[1].to_owned()));
    let known: BTreeSet<&String> =
        metrics.iter().filter_map(|metric| told.get(metric)).flatten().collect();
    let strange = metrics.iter().filter(|metric| !told.contains_key(*metric));
    let strange_labels =
        labels.iter().filter(|label| !known.contains(label) && !ALWAYS.contains(&label.as_str()));
    let mut found: Vec<String> = strange.chain(strange_labels).cloned().collect();
    if metrics.is_empty() {
        found.push(format!("no metric in {expression}"));
    }
    found
}

/// Every value that an expression asks a label of a metric for, one by one: not those that Grafana
/// puts in.
fn asked_for(expression: &str) -> Vec<[String; 3]> {
    let series = Regex::new(r"(\w+)\{([^}]*)\}").unwrap();
    let label = Regex::new(r#"(\w+)(?:=|!=|=~|!~)"([^"$]+)""#).unwrap();
    let mut asked = Vec::new();
    for series in series.captures_iter(expression) {
        for label in label.captures_iter(&series[2]) {
            let values = label[2].split('|');
            asked.extend(values.map(|value| [&series[1], &label[1], value].map(str::to_owned)));
        }
    }
    asked
}

/// Every object in a document that has this member.
fn with_member<'v>(value: &'v Value, member: &str, found: &mut Vec<&'v Value>) {
    if value.get(member).is_some() {
        found.push(value);
    }
    match value {
        Value::Array(values) => values.iter().for_each(|one| with_member(one, member, found)),
        Value::Object(members) => {
            members.values().for_each(|one| with_member(one, member, found));
        }
        _ => {}
    }
}

/// Every query of the dashboard, with its legend.
pub(crate) fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/eventbus.json")).unwrap();
    let mut targets = Vec::new();
    with_member(&dashboard, "expr", &mut targets);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let queries = targets.iter().map(|one| (text(&one["expr"]), text(&one["legendFormat"])));
    queries.collect()
}

#[test]
fn what_an_expression_speaks_of_is_found() {
    let (metrics, labels) = spoken_of(
        "sum by (a, b) (rate(x_total{c=~\"d|e\",f!=\"{g}\"}[5m])) / on (h) group_left max(y) > 1e3 \
         and z{i=\"$j\"} offset 5m unless histogram_quantile(0.9, w_bucket)",
    );
    let words = |all: &[&str]| all.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(metrics, words(&["x_total", "y", "z", "w_bucket"]));
    assert_eq!(labels, words(&["a", "b", "c", "f", "h", "i"]));
    assert_eq!(
        unknown("eventbus_api_up{state=\"x\"} > eventbus_nothing", "{{ $labels.reason }}"),
        ["eventbus_nothing", "reason", "state"]
    );
}

/// Every rule of an alert.
fn alerts() -> Vec<Value> {
    let alerts: Value = serde_saphyr::from_str(&file("deploy/prometheus/alerts.yaml")).unwrap();
    let mut rules = Vec::new();
    with_member(&alerts, "expr", &mut rules);
    rules.into_iter().cloned().collect()
}

#[tokio::test]
async fn each_value_that_a_label_is_asked_for_is_told() {
    let page = Bus::start().await.metrics().await;
    let rules = alerts().into_iter().map(|rule| rule["expr"].as_str().unwrap().to_owned());
    let expressions = rules.chain(dashboard().into_iter().map(|(query, _)| query));
    let asked: BTreeSet<_> = expressions.flat_map(|one| asked_for(&one)).collect();
    assert!(asked.len() >= 8, "{asked:?}");
    for [metric, label, value] in asked {
        let series = format!(r#"(?m)^{metric}\{{(?:.*,)?{label}="(?:{value})"[,}}]"#);
        let is_told = Regex::new(&series).unwrap().is_match(&page);
        assert!(is_told, "{metric} has no {label} of {value}: {page}");
    }
}

#[test]
fn alerts_use_what_the_bus_tells() {
    let rules = alerts();
    assert!(rules.len() >= 12, "{}", rules.len());
    for rule in rules {
        let found = unknown(rule["expr"].as_str().unwrap(), &rule["annotations"].to_string());
        assert!(found.is_empty(), "{}: the bus does not tell {found:?}", rule["alert"]);
        assert!(rule["labels"]["severity"].is_string(), "{rule}");
        let name = format!("`{}`", rule["alert"].as_str().unwrap());
        assert!(file("docs/operate.md").contains(&name), "{name} is not documented");
    }
}

#[test]
fn the_dashboard_uses_what_the_bus_tells() {
    let queries = dashboard();
    assert!(queries.len() >= 40, "{}", queries.len());
    for (query, legend) in &queries {
        let found = unknown(query, legend);
        assert!(found.is_empty(), "{query}: the bus does not tell {found:?}");
    }
    // What an operator looks for first.
    for wanted in [
        "eventbus_publish_duration_seconds_bucket",
        "eventbus_delivery_attempts_total",
        "eventbus_end_to_end_duration_seconds_bucket",
        "eventbus_subscription_lag_events",
        "eventbus_subscription_oldest_unsettled_seconds",
        "eventbus_commit_events_sum",
        "eventbus_log_free_bytes",
    ] {
        assert!(queries.iter().any(|(query, _)| query.contains(wanted)), "{wanted}");
    }
}
