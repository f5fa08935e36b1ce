//! `tools/tally` counts a test run rightly: what it lets through, `./test` lets through.

use std::process::Command;

use crate::repo::root;

const JUNIT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="a">
  <testcase name="good"><system-out>ok</system-out><system-err></system-err></testcase>
  <testcase name="away"><system-err>SKIPPED: KUBECONFIG is not set
</system-err></testcase>
  <testcase name="bad"><failure type="panic">no</failure><system-err>SKIPPED: too late
</system-err></testcase>
</testsuite></testsuites>
"#;

const LIBTEST: &str = "\
test good ... ok
test away ... ok
test bad ... FAILED
successes:

---- away stdout ----
SKIPPED: strace is missing

failures:

---- bad stdout ----
SKIPPED: too late

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out
";

#[test]
fn a_nextest_report_is_counted() {
    let said = "skipped away: KUBECONFIG is not set\n1 passed, 1 failed, 1 skipped\n";
    assert_eq!(tally("a.xml", JUNIT, "true"), (true, said.to_owned()));
}

#[test]
fn a_libtest_report_is_counted() {
    let said = "skipped away: strace is missing\n4 passed, 1 failed, 1 skipped\n";
    assert_eq!(tally("a.txt", LIBTEST, "false"), (true, said.to_owned()));
}

#[test]
fn ci_refuses_a_skip_for_any_other_reason() {
    let (passed, said) = tally("a.txt", LIBTEST, "true");
    assert!(!passed, "{said}");
    assert!(said.starts_with("skipped away: strace is missing (not allowed in CI)\n"), "{said}");
    let ignored = "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured\n";
    assert!(!tally("a.txt", ignored, "true").0);
}

/// Whether `tools/tally` is content with one report, and what it prints.
fn tally(name: &str, report: &str, ci: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join(name), report).expect("the report can be written");
    let tally = root().join("tools/tally");
    let ran = Command::new(tally).arg(folder.path()).env("CI", ci).output().expect("it runs");
    (ran.status.success(), String::from_utf8(ran.stdout).expect("UTF-8"))
}
