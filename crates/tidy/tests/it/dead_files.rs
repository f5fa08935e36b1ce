//! Every Rust file is reached by a `mod` from something cargo builds.
//!
//! The compiler warns of dead code, but never opens a file that nothing names.

use std::collections::{BTreeMap, BTreeSet};

use crate::repo::{Source, holds, packages, tracked_rust};

#[test]
fn every_file_is_reached_from_a_root() {
    let packages = packages();
    let roots = packages.iter().flat_map(|package| &package.roots).map(|root| root.path.as_str());
    holds(check(&roots.collect::<Vec<_>>(), tracked_rust()));
}

#[test]
fn a_file_no_mod_names_is_seen() {
    let sources = [
        Source::new("a/src/lib.rs", "mod b; mod inline { mod c; }"),
        Source::new("a/src/b.rs", "mod d; #[cfg(test)] mod tests;"),
        Source::new("a/src/b/d.rs", ""),
        Source::new("a/src/b/tests.rs", ""),
        Source::new("a/src/inline/c/mod.rs", "mod e;"),
        Source::new("a/src/inline/c/e.rs", ""),
        Source::new("a/src/d.rs", ""),
    ];
    let found = check(&["a/src/lib.rs"], sources);
    assert_eq!(found, ["a/src/d.rs:1: no `mod` leads here from anything cargo builds: delete it"]);
}

fn check(roots: &[&str], sources: impl IntoIterator<Item = Source>) -> Vec<String> {
    let sources: BTreeMap<_, _> =
        sources.into_iter().map(|source| (source.path.clone(), source)).collect();
    let mut reached = BTreeSet::new();
    for root in roots {
        let folder = root.rsplit_once('/').map_or("", |(folder, _)| folder);
        reach(root, folder, &sources, &mut reached);
    }
    let dead = sources.values().filter(|source| !reached.contains(&source.path));
    let what = "no `mod` leads here from anything cargo builds: delete it";
    dead.map(|source| source.finding(1, what)).collect()
}

/// Marks the file at `path`, whose child modules lie in `folder`, and all that it names.
fn reach(
    path: &str,
    folder: &str,
    sources: &BTreeMap<String, Source>,
    reached: &mut BTreeSet<String>,
) {
    let Some(source) = sources.get(path) else { return };
    if reached.insert(path.to_owned()) {
        reach_items(&source.syntax().items, folder, sources, reached);
    }
}

fn reach_items(
    items: &[syn::Item],
    folder: &str,
    sources: &BTreeMap<String, Source>,
    reached: &mut BTreeSet<String>,
) {
    for item in items {
        let syn::Item::Mod(module) = item else { continue };
        let below = format!("{folder}/{}", module.ident);
        match &module.content {
            Some((_, items)) => reach_items(items, &below, sources, reached),
            None => {
                reach(&format!("{below}.rs"), &below, sources, reached);
                reach(&format!("{below}/mod.rs"), &below, sources, reached);
            }
        }
    }
}
