//! What the rules read: the tracked text files, their syntax, and the packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use syn::Attribute;
use syn::punctuated::Punctuated;

/// A tracked text file; `path` is relative to the repository and written with `/`.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Part of what users run, as against examples, build scripts and files named `…tests.rs`.
    pub(crate) fn is_product(&self) -> bool {
        self.path.contains("/src/") && !self.path.ends_with("tests.rs")
    }

    pub(crate) fn syntax(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path))
    }

    /// A finding about this file: where, what, and what to do instead.
    pub(crate) fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

/// A package of the repository, as cargo sees it; paths are relative to the repository.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest: Source,
    /// What its product code is built on; dev-dependencies are not here.
    pub(crate) dependencies: Vec<String>,
    pub(crate) roots: Vec<Root>,
}

/// The first file of something cargo builds.
pub(crate) struct Root {
    /// Cargo's word: `lib`, `bin`, `test`, `example`, `bench`, `custom-build`.
    pub(crate) kind: String,
    pub(crate) path: String,
}

/// Fails a test with every finding, one a line.
#[track_caller]
pub(crate) fn holds(findings: impl IntoIterator<Item = String>) {
    let findings: Vec<_> = findings.into_iter().collect();
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), findings.join("\n"));
}

/// Every tracked text file, or, without git, every file outside the ignored folders.
pub(crate) fn tracked() -> Vec<Source> {
    let root = root();
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(&root).output();
    let paths: Vec<String> = match listed {
        Ok(listed) if listed.status.success() => {
            let names = String::from_utf8(listed.stdout).expect("tracked names are UTF-8");
            names.split_terminator('\0').map(str::to_owned).collect()
        }
        _ => walk(&root, &root),
    };
    assert!(paths.len() > 20, "the repository looks empty: {paths:?}");
    let read = |path: String| {
        let text = std::fs::read_to_string(root.join(&path)).ok()?; // deleted, or not text
        Some(Source { path, text })
    };
    paths.into_iter().filter_map(read).collect()
}

pub(crate) fn tracked_rust() -> impl Iterator<Item = Source> {
    tracked().into_iter().filter(Source::is_rust)
}

/// The packages of every workspace in the repository.
pub(crate) fn packages() -> Vec<Package> {
    let is_workspace = |source: &Source| {
        source.path.ends_with("Cargo.toml") && source.text.lines().any(|line| line == "[workspace]")
    };
    tracked().iter().filter(|source| is_workspace(source)).flat_map(packages_of).collect()
}

/// `#[cfg(test)]` or `#[test]`: what stands under it is not product code.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        meta => meta.path().segments.last().is_some_and(|last| last.ident == "test"),
    })
}

/// The text of `#[name = "text"]`, if the attribute is that; a doc comment is `#[doc = "text"]`.
pub(crate) fn text_of(name: &str, attribute: &Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value else {
        return None;
    };
    pair.path.is_ident(name).then(|| text.value())
}

/// The names of a path, without generic arguments.
pub(crate) fn names<P>(segments: &Punctuated<syn::PathSegment, P>) -> Vec<String> {
    segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// The repository's folder.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("crates/tidy lies two folders deep").to_owned()
}

fn walk(root: &Path, folder: &Path) -> Vec<String> {
    const IGNORED: [&str; 4] = [".git", ".tools", "eventbus-data", "target"];
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the repository can be read").flatten() {
        let path = entry.path();
        if path.is_file() {
            paths.push(relative(root, &path));
        } else if !IGNORED.iter().any(|ignored| path.ends_with(ignored)) {
            paths.extend(walk(root, &path));
        }
    }
    paths
}

fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).expect("the file lies in the repository");
    below.to_str().expect("file names are UTF-8").to_owned()
}

fn packages_of(workspace: &Source) -> Vec<Package> {
    let root = root();
    let asked = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path"])
        .arg(root.join(&workspace.path))
        .output()
        .expect("cargo runs");
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&asked.stdout).expect("JSON");
    list(&answer["packages"]).iter().map(|package| read_package(&root, package)).collect()
}

fn read_package(root: &Path, package: &serde_json::Value) -> Package {
    let manifest = Path::new(word(&package["manifest_path"]));
    let of_product = |dependency: &&serde_json::Value| dependency["kind"] != "dev";
    let dependencies = list(&package["dependencies"]).iter().filter(of_product);
    let roots = list(&package["targets"]).iter().map(|target| Root {
        kind: word(&target["kind"][0]).to_owned(),
        path: relative(root, Path::new(word(&target["src_path"]))),
    });
    Package {
        name: word(&package["name"]).to_owned(),
        manifest: Source {
            path: relative(root, manifest),
            text: std::fs::read_to_string(manifest).expect("cargo has just read it"),
        },
        dependencies: dependencies.map(|one| word(&one["name"]).to_owned()).collect(),
        roots: roots.collect(),
    }
}

fn list(value: &serde_json::Value) -> &[serde_json::Value] {
    value.as_array().expect("cargo metadata's format 1 has a list here")
}

fn word(value: &serde_json::Value) -> &str {
    value.as_str().expect("cargo metadata's format 1 has a string here")
}
