//! Every Rust file is reached by a `mod` from something cargo builds.
//!
//! The compiler warns of dead code, but never opens a file that nothing names.

use std::collections::{BTreeMap, BTreeSet};

use crate::repo::{Source, holds, packages, text_of, tracked_rust};

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
        Source::new("a/src/b.rs", "mod d; #[cfg(test)] #[path = \"b_tests.rs\"] mod tests;"),
        Source::new("a/src/b/d.rs", "#[cfg(test)] mod tests;"),
        Source::new("a/src/b/d/tests.rs", ""),
        Source::new("a/src/b_tests.rs", ""),
        Source::new("a/src/inline/c/mod.rs", "mod e;"),
        Source::new("a/src/inline/c/e.rs", ""),
        Source::new("a/src/d.rs", ""),
    ];
    let found = check(&["a/src/lib.rs"], sources);
    assert_eq!(found, ["a/src/d.rs:1: no `mod` leads here from anything cargo builds: delete it"]);
}

fn check(roots: &[&str], sources: impl IntoIterator<Item = Source>) -> Vec<String> {
    let sources = sources.into_iter().map(|source| (source.path.clone(), source)).collect();
    let mut walk = Walk { sources, reached: BTreeSet::new() };
    for root in roots {
        walk.file(root, folder_of(root));
    }
    let dead = walk.sources.values().filter(|source| !walk.reached.contains(&source.path));
    let what = "no `mod` leads here from anything cargo builds: delete it";
    dead.map(|source| source.finding(1, what)).collect()
}

struct Walk {
    sources: BTreeMap<String, Source>,
    reached: BTreeSet<String>,
}

impl Walk {
    /// Reaches the file at `path`, whose child modules lie in `folder`, and all that it names.
    fn file(&mut self, path: &str, folder: &str) {
        let Some(source) = self.sources.get(path) else { return };
        let syntax = source.syntax();
        if self.reached.insert(path.to_owned()) {
            self.modules(&syntax.items, folder_of(path), folder);
        }
    }

    /// Follows the modules among `items`, which stand in a file of the folder `here`.
    fn modules(&mut self, items: &[syn::Item], here: &str, folder: &str) {
        for item in items {
            let syn::Item::Mod(module) = item else { continue };
            let below = format!("{folder}/{}", module.ident);
            if let Some((_, items)) = &module.content {
                self.modules(items, here, &below);
            } else if let Some(path) = module.attrs.iter().find_map(|one| text_of("path", one)) {
                self.file(&format!("{here}/{path}"), here);
            } else {
                self.file(&format!("{below}.rs"), &below);
                self.file(&format!("{below}/mod.rs"), &below);
            }
        }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
