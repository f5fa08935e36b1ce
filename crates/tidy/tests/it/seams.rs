//! Files, clocks, randomness, tasks and queues are touched in few places, and those are named.
//!
//! Everything else takes them as arguments, so that a test can crash the disk, turn the clock and
//! repeat the dice. Only product code is read: `src/` without its `#[cfg(test)]` modules. Paths
//! are resolved through the file's imports and looked for inside macro calls too; what only a type
//! reveals (`now` on a renamed type) is left to clippy's `disallowed-methods`.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;

use crate::ratchet::{Exception, Found, judge};
use crate::repo::{Source, holds, is_test, names, tracked_rust};

struct Seam {
    name: &'static str,
    paths: &'static [&'static str],
    instead: &'static str,
}

const SEAMS: &[Seam] = &[
    Seam { name: "files", paths: &["std::fs", "tokio::fs"], instead: "take a seam as an argument" },
    Seam {
        name: "clock",
        paths: &[
            "std::time::SystemTime::now",
            "std::time::Instant::now",
            "jiff::Timestamp::now",
            "jiff::Zoned::now",
        ],
        instead: "take a `Clock`, or the time, as an argument",
    },
    Seam {
        name: "entropy",
        paths: &["rand", "getrandom", "uuid::Uuid::new_v4", "uuid::Uuid::now_v7"],
        instead: "take `Entropy` as an argument",
    },
    Seam {
        name: "task",
        paths: &["tokio::spawn", "tokio::task::spawn", "std::thread::spawn"],
        instead: "give it an owner that drains it: a `TaskTracker` or a `JoinSet`",
    },
    Seam {
        name: "queue",
        paths: &[
            "tokio::sync::mpsc::unbounded_channel",
            "futures::channel::mpsc::unbounded",
            "std::sync::mpsc::channel",
        ],
        instead: "give it a limit, from `core::limits`",
    },
];

const ALLOWED: &[Exception] = &[
    ("crates/apiserver/src/audit.rs", "files", "the audit log"),
    ("crates/apiserver/src/lib.rs", "task", "the collector, which `ApiServer::close` waits for"),
    ("crates/apiserver/src/store/seal.rs", "files", "the key that Secrets are sealed with"),
    ("crates/apiserver/src/store/open.rs", "files", "looks at a file before SQLite may touch it"),
    ("crates/apiserver/src/store/seal.rs", "files", "the key that lies beside the store"),
    ("crates/apiserver/src/users.rs", "files", "looks at the users' file with their requests"),
    ("crates/eventbus/src/bench/", "files", "the journals of a kill run, and `/proc`"),
    (
        "crates/eventbus/src/serve/",
        "files",
        "the data directory, the kubeconfig, the settings file, `/proc`",
    ),
    ("crates/log/src/disk/file.rs", "files", "the one `Disk` that is a real one"),
    ("crates/log/src/vault/database.rs", "files", "looks at a file before SQLite may touch it"),
    ("crates/eventbus/src/publish/args.rs", "files", "the command reads the file its user names"),
    ("crates/eventbus/src/top/mod.rs", "files", "the command reads the file its user names"),
    ("crates/eventbus/src/token.rs", "files", "the command changes the users' file"),
    ("crates/eventbus/src/system.rs", "clock", "the clock that all others ask"),
    ("crates/eventbus/src/system.rs", "entropy", "the dice that all others roll"),
];

#[test]
fn seams_are_touched_only_where_they_may_be() {
    let product = tracked_rust().filter(Source::is_product);
    holds(judge(&product.flat_map(|source| check(&source)).collect::<Vec<_>>(), ALLOWED));
}

#[test]
fn each_seam_is_seen_however_it_is_written() {
    let text = "
        use std::{fs::File, time::{Instant, SystemTime as Wall}};
        use tokio::sync::mpsc;
        fn a() { Wall::now(); }
        fn b() { tokio::select! { _ = x() => { tokio::spawn(y()); } } }
        fn c() { mpsc::unbounded_channel::<u8>(); }
        fn d() { assert!(rand::random()); }
    ";
    let found = check(&Source::new("a/src/b.rs", text)).into_iter().map(|one| one.finding);
    assert_eq!(
        found.collect::<Vec<_>>(),
        [
            "a/src/b.rs:2: `std::fs::File`: take a seam as an argument",
            "a/src/b.rs:4: `std::time::SystemTime::now`: take a `Clock`, or the time, as an \
             argument",
            "a/src/b.rs:7: `rand::random`: take `Entropy` as an argument",
            "a/src/b.rs:5: `tokio::spawn`: give it an owner that drains it: a `TaskTracker` or a \
             `JoinSet`",
            "a/src/b.rs:6: `tokio::sync::mpsc::unbounded_channel`: give it a limit, from \
             `core::limits`",
        ]
    );
}

#[test]
fn tests_and_harmless_neighbours_are_legal() {
    let text = "
        use tokio::{sync::mpsc, time::Instant};
        fn a() { Instant::now(); mpsc::channel::<u8>(1); self.spawn(); }
        #[cfg(test)]
        mod tests { fn b() { std::fs::read(\"a\"); } }
    ";
    assert!(check(&Source::new("a/src/b.rs", text)).is_empty());
}

/// The first use of each seam in a file.
fn check(source: &Source) -> Vec<Found> {
    let syntax = source.syntax();
    let mut imports = Imports::default();
    imports.visit_file(&syntax);
    let mut paths = Paths { imports: &imports.by_name, seen: imports.seen.clone() };
    paths.visit_file(&syntax);
    let first_use = |seam: &Seam| {
        let (line, path) = paths.seen.iter().find(|(_, path)| is_under(path, seam.paths))?;
        let finding = source.finding(*line, &format!("`{path}`: {}", seam.instead));
        Some(Found { path: source.path.clone(), kind: seam.name, finding })
    };
    SEAMS.iter().filter_map(first_use).collect()
}

fn is_under(path: &str, seams: &[&str]) -> bool {
    let is_end = |rest: &str| rest.is_empty() || rest.starts_with("::");
    seams.iter().any(|seam| path.strip_prefix(seam).is_some_and(is_end))
}

/// The `use` declarations of a file: what each name stands for, and each path by itself.
#[derive(Default)]
struct Imports {
    by_name: BTreeMap<String, String>,
    seen: Vec<(usize, String)>,
}

impl Imports {
    fn flatten(&mut self, prefix: &str, tree: &syn::UseTree) {
        let mut import = |name: &syn::Ident, last: &syn::Ident| {
            let path = join(prefix, last).trim_end_matches("::self").to_owned();
            self.seen.push((last.span().start().line, path.clone()));
            self.by_name.insert(name.to_string(), path);
        };
        match tree {
            syn::UseTree::Path(path) => self.flatten(&join(prefix, &path.ident), &path.tree),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.flatten(prefix, tree));
            }
            syn::UseTree::Name(name) if name.ident == "self" => {
                let line = name.ident.span().start().line;
                let last = prefix.rsplit("::").next().unwrap_or(prefix).to_owned();
                self.seen.push((line, prefix.to_owned()));
                self.by_name.insert(last, prefix.to_owned());
            }
            syn::UseTree::Name(name) => import(&name.ident, &name.ident),
            syn::UseTree::Rename(rename) => import(&rename.rename, &rename.ident),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.seen.push((line, prefix.to_owned()));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.flatten("", &item.tree);
        }
    }
}

/// Every path of a file's product code, resolved through its imports.
struct Paths<'a> {
    imports: &'a BTreeMap<String, String>,
    seen: Vec<(usize, String)>,
}

impl Paths<'_> {
    fn see(&mut self, line: usize, segments: &[String]) {
        let Some((first, rest)) = segments.split_first() else { return };
        let first = self.imports.get(first).unwrap_or(first);
        let path = [std::slice::from_ref(first), rest].concat().join("::");
        self.seen.push((line, path));
    }

    /// Inside a macro call there is no syntax, only tokens: a path is names joined by `::`.
    fn see_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.see(line, &std::mem::take(&mut path));
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.see(line, &std::mem::take(&mut path));
                    self.see_tokens(group.stream());
                }
                _ => self.see(line, &std::mem::take(&mut path)),
            }
        }
        self.see(line, &path);
    }
}

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if !is_test(&function.attrs) {
            syn::visit::visit_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            self.see(first.ident.span().start().line, &names(&path.segments));
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.see_tokens(call.tokens.clone());
    }
}

fn join(prefix: &str, last: &syn::Ident) -> String {
    if prefix.is_empty() { last.to_string() } else { format!("{prefix}::{last}") }
}
