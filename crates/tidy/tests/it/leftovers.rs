//! What must not be left behind: unfinished places, tests switched off, paths of one machine.

use crate::repo::{Source, holds, tracked};

/// A mark, and what to do instead. In halves, so that this list does not find itself.
const MARKS: &[(&str, &str, &str)] = &[
    ("to", "do!(", "finish it or leave it out"),
    ("unimple", "mented!(", "finish it or leave it out"),
    ("FIX", "ME", "mend it, or open an issue"),
    ("XX", "X", "mend it, or open an issue"),
    ("TO", "DO", "do it, or open an issue"),
    ("#[ign", "ore", "a test that cannot run here prints `SKIPPED: why` and returns"),
    ("/wo", "rk/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("/ho", "me/", "a path of one machine"),
    ("/Us", "ers/", "a path of one machine"),
];

/// Not ours to word.
const EXEMPT: &[&str] = &["Cargo.lock", "LICENSE"];

#[test]
fn nothing_is_left_behind() {
    holds(tracked().iter().flat_map(check));
}

#[test]
fn each_mark_is_seen() {
    for (one, other, instead) in MARKS {
        let found = check(&Source::new("a.txt", &format!("first\nsecond {one}{other} end\n")));
        assert_eq!(found, [format!("a.txt:2: `{one}{other}`: {instead}")]);
    }
}

fn check(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    if EXEMPT.contains(&source.path.as_str()) {
        return findings;
    }
    for (index, line) in source.text.lines().enumerate() {
        for (one, other, instead) in MARKS {
            let mark = format!("{one}{other}");
            if line.contains(&mark) {
                findings.push(source.finding(index + 1, &format!("`{mark}`: {instead}")));
            }
        }
    }
    findings
}
