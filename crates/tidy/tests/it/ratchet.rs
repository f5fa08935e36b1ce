//! Exceptions to a rule: each with its reason, and none that is not needed.

/// What a rule found, in a form that an exception can excuse.
pub(crate) struct Found {
    pub(crate) path: String,
    /// The rule's name for it: a banned word, a seam.
    pub(crate) kind: &'static str,
    pub(crate) finding: String,
}

/// File or folder, kind, and why it is right there.
pub(crate) type Exception = (&'static str, &'static str, &'static str);

/// The findings nothing excuses, and the exceptions that excuse nothing.
pub(crate) fn judge(found: &[Found], allowed: &[Exception]) -> Vec<String> {
    let excuses = |(path, kind, _): &Exception, found: &Found| {
        found.path.starts_with(path) && found.kind == *kind
    };
    let unexcused = found.iter().filter(|one| !allowed.iter().any(|entry| excuses(entry, one)));
    let stale = allowed.iter().filter(|entry| !found.iter().any(|one| excuses(entry, one)));
    let stale =
        stale.map(|(path, kind, _)| format!("{path} needs no `{kind}`: take it off ALLOWED"));
    unexcused.map(|one| one.finding.clone()).chain(stale).collect()
}

#[test]
fn an_exception_excuses_its_own_place_and_kind_and_must_be_needed() {
    let found = |path: &str| Found {
        path: path.to_owned(),
        kind: "clock",
        finding: format!("{path}: reads the clock"),
    };
    let found = [found("a/src/clock.rs"), found("b/src/clock.rs")];
    let allowed = [("a/", "clock", "it is the clock"), ("b/", "files", "it was once")];
    assert_eq!(
        judge(&found, &allowed),
        ["b/src/clock.rs: reads the clock", "b/ needs no `files`: take it off ALLOWED"]
    );
}
