//! Which package may import which, and what each package looks like from cargo's side.
//!
//! The floors of ARCHITECTURE.md are kept by the compiler only as long as the `Cargo.toml`s keep
//! them: one line there, and push calls publish. Dev-dependencies are free.

use crate::repo::{Package, Root, Source, holds, packages, tracked_rust};

/// Every package, bottom floor first, and those of ours its product code may import.
const FLOORS: &[(&str, &[&str])] = &[
    ("eventbus-core", &[]),
    ("eventbus-log", &["eventbus-core"]),
    ("eventbus-nats", &["eventbus-core"]),
    ("eventbus-resources", &["eventbus-core"]),
    ("eventbus-apiserver", &["eventbus-core"]),
    ("eventbus-traces", &["eventbus-core"]),
    ("eventbus-push", &["eventbus-core", "eventbus-resources"]),
    ("eventbus-server", &["eventbus-core", "eventbus-resources"]),
    (
        "eventbus",
        &[
            "eventbus-apiserver",
            "eventbus-core",
            "eventbus-log",
            "eventbus-nats",
            "eventbus-push",
            "eventbus-resources",
            "eventbus-server",
            "eventbus-traces",
        ],
    ),
    ("eventbus-bench", &["eventbus-core", "eventbus-log"]),
    (
        "eventbus-fuzz",
        &["eventbus-apiserver", "eventbus-core", "eventbus-log", "eventbus-resources"],
    ),
    ("eventbus-tidy", &[]),
    ("eventbus-yardstick", &[]),
];

/// Runtimes and I/O: the bottom floor is pure, so these stay above it.
const NOT_IN_CORE: &[&str] =
    &["axum", "hyper", "hyper-util", "kube", "rand", "rusqlite", "rustix", "tokio", "tracing"];

#[test]
fn every_package_keeps_to_its_floor() {
    holds(packages().iter().flat_map(check_floor));
}

#[test]
fn every_package_is_shaped_alike() {
    holds(packages().iter().flat_map(check_shape));
}

#[test]
fn every_file_says_what_it_is() {
    holds(tracked_rust().filter_map(|source| check_module_doc(&source)));
}

#[test]
fn an_import_of_a_higher_floor_is_seen() {
    let found = check_floor(&package("eventbus-push", &["eventbus-server", "eventbus-core"]));
    assert_eq!(found, ["crates/a/Cargo.toml:1: `eventbus-push` must not import `eventbus-server`"]);
    let found = check_floor(&package("eventbus-core", &["bytes", "tokio"]));
    let pure = "crates/a/Cargo.toml:1: `tokio` does I/O: take a seam as an argument";
    assert_eq!(found, [pure]);
    let found = check_floor(&package("eventbus-new", &[]));
    assert_eq!(
        found,
        ["crates/a/Cargo.toml:1: `eventbus-new` has no floor: give it one in FLOORS"]
    );
}

#[test]
fn an_odd_package_is_seen() {
    let mut odd = package("eventbus-log", &[]);
    odd.roots.push(Root { kind: "test".to_owned(), path: "crates/a/tests/more.rs".to_owned() });
    assert_eq!(
        check_shape(&odd),
        [
            "crates/a/Cargo.toml:1: `[lints] workspace = true` is missing",
            "crates/a/Cargo.toml:1: tests/more.rs: one test binary a package, tests/it/main.rs",
        ]
    );
}

#[test]
fn a_file_without_a_module_doc_is_seen() {
    let found = check_module_doc(&Source::new("a.rs", "/// Of the function.\nfn a() {}\n"));
    assert_eq!(found.as_deref(), Some("a.rs:1: begin with `//!`: what this file is, then why"));
    assert_eq!(check_module_doc(&Source::new("a.rs", "//! The letter a.\nfn a() {}\n")), None);
}

fn check_floor(package: &Package) -> Vec<String> {
    let name = package.name.as_str();
    let Some((_, legal)) = FLOORS.iter().find(|(floor, _)| *floor == name) else {
        let what = format!("`{name}` has no floor: give it one in FLOORS");
        return vec![package.manifest.finding(1, &what)];
    };
    let judge = |dependency: &String| {
        let dependency = dependency.as_str();
        if FLOORS.iter().any(|(ours, _)| *ours == dependency) && !legal.contains(&dependency) {
            let what = format!("`{name}` must not import `{dependency}`");
            Some(package.manifest.finding(1, &what))
        } else if name == "eventbus-core" && NOT_IN_CORE.contains(&dependency) {
            let what = format!("`{dependency}` does I/O: take a seam as an argument");
            Some(package.manifest.finding(1, &what))
        } else {
            None
        }
    };
    package.dependencies.iter().filter_map(judge).collect()
}

fn check_shape(package: &Package) -> Vec<String> {
    let mut findings = Vec::new();
    if !package.manifest.text.contains("\n[lints]\nworkspace = true\n") {
        findings.push(package.manifest.finding(1, "`[lints] workspace = true` is missing"));
    }
    let folder = package.manifest.path.trim_end_matches("Cargo.toml");
    for root in package.roots.iter().filter(|root| root.kind == "test") {
        let path = root.path.trim_start_matches(folder);
        if path != "tests/it/main.rs" {
            let what = format!("{path}: one test binary a package, tests/it/main.rs");
            findings.push(package.manifest.finding(1, &what));
        }
    }
    findings
}

fn check_module_doc(source: &Source) -> Option<String> {
    let missing = !source.text.starts_with("//! ");
    missing.then(|| source.finding(1, "begin with `//!`: what this file is, then why"))
}

fn package(name: &str, dependencies: &[&str]) -> Package {
    Package {
        name: name.to_owned(),
        manifest: Source::new("crates/a/Cargo.toml", "[package]\n"),
        dependencies: dependencies.iter().map(|name| (*name).to_owned()).collect(),
        roots: Vec::new(),
    }
}
