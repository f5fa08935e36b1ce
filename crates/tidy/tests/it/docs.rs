//! The documents: links lead somewhere, and every decision says what was weighed.

use std::collections::{BTreeMap, BTreeSet};

use crate::repo::{Source, holds, tracked};

/// What every decision record has, as lines that begin so.
const DECISION_PARTS: &[&str] =
    &["# ", "Status: ", "## Goals", "## Non-goals", "## Decision", "## Alternatives"];

#[test]
fn every_link_leads_somewhere() {
    holds(check_links(&tracked()));
}

#[test]
fn every_decision_says_what_was_weighed() {
    let sources = tracked();
    let decisions = sources.iter().filter(|source| source.path.starts_with("docs/decisions/"));
    let decisions: Vec<_> = decisions.collect();
    assert!(!decisions.is_empty(), "docs/decisions is empty");
    holds(check_decisions(&decisions));
}

#[test]
fn a_dead_link_is_seen() {
    let sources = [
        Source::new(
            "docs/a.md",
            "# A\n[b](../b.md#second-part) [web](https://example.org/x) [here](#a)\n\
             [gone](gone.md) and [`c`](../b.md#third)\n```\n[not](a-link)\n```\n",
        ),
        Source::new("b.md", "# B\n## Second part!\n"),
    ];
    assert_eq!(
        check_links(&sources),
        ["docs/a.md:3: gone.md leads nowhere", "docs/a.md:3: ../b.md#third leads nowhere"]
    );
}

#[test]
fn a_thin_decision_is_seen() {
    let whole = "# 1. Use it\n\nStatus: accepted\n\n## Goals\n## Non-goals\n## Decision\n";
    let good = Source::new("docs/decisions/0001-use-it.md", &format!("{whole}## Alternatives\n"));
    let thin = Source::new("docs/decisions/0001-thin.md", whole);
    let name = Source::new("docs/decisions/notes.md", &good.text);
    assert_eq!(
        check_decisions(&[&good, &thin, &name]),
        [
            "docs/decisions/0001-thin.md:1: no line begins with `## Alternatives`",
            "docs/decisions/0001-thin.md:1: the number is taken: use the next",
            "docs/decisions/notes.md:1: name it NNNN-title.md",
        ]
    );
}

fn check_links(sources: &[Source]) -> Vec<String> {
    let by_path: BTreeMap<_, _> = sources.iter().map(|one| (one.path.as_str(), one)).collect();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        for (line, text) in prose(&source.text) {
            for target in link_targets(text).filter(|target| !target.contains("://")) {
                if !resolves(&source.path, target, &by_path) {
                    findings.push(source.finding(line, &format!("{target} leads nowhere")));
                }
            }
        }
    }
    findings
}

fn check_decisions(decisions: &[&Source]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut numbers = BTreeSet::new();
    for decision in decisions {
        let name = decision.path.trim_start_matches("docs/decisions/");
        let number = name.split_once('-').map_or("", |(number, _)| number);
        if number.len() != 4 || number.parse::<u16>().is_err() || !name.ends_with(".md") {
            findings.push(decision.finding(1, "name it NNNN-title.md"));
            continue;
        }
        for part in DECISION_PARTS {
            if !decision.text.lines().any(|line| line.starts_with(part)) {
                findings.push(decision.finding(1, &format!("no line begins with `{part}`")));
            }
        }
        if !numbers.insert(number) {
            findings.push(decision.finding(1, "the number is taken: use the next"));
        }
    }
    findings
}

/// The numbered lines of a Markdown text outside its fenced code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        (!fenced && !is_fence).then_some((index + 1, line))
    })
}

/// `target` of each `[words](target)` in a line.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

fn resolves(from: &str, target: &str, by_path: &BTreeMap<&str, &Source>) -> bool {
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let mut folders: Vec<_> = from.split('/').collect();
    if !file.is_empty() {
        folders.pop();
    }
    for step in file.split('/').filter(|step| !step.is_empty() && *step != ".") {
        if step == ".." {
            folders.pop();
        } else {
            folders.push(step);
        }
    }
    let path = folders.join("/");
    let is_folder = || by_path.keys().any(|known| known.starts_with(&format!("{path}/")));
    match by_path.get(path.as_str()) {
        Some(found) => anchor.is_empty() || has_heading(&found.text, anchor),
        None => anchor.is_empty() && is_folder(),
    }
}

/// Whether a heading of the text has this anchor: its words in lower case, joined by `-`.
fn has_heading(text: &str, anchor: &str) -> bool {
    let slug = |heading: &str| {
        let kept = heading
            .trim()
            .chars()
            .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    prose(text)
        .any(|(_, line)| line.starts_with('#') && slug(line.trim_start_matches('#')) == anchor)
}
