//! One word for a thing: the vocabulary of ARCHITECTURE.md, kept in names and in docs.
//!
//! What is read: every name this repository gives (not the foreign names it uses), file and folder
//! names, and doc comments outside `code spans`. Names that a wire format or Kubernetes fixes are
//! exceptions, by folder and with the reason.

use syn::Attribute;
use syn::ext::IdentExt as _;
use syn::visit::Visit;

use crate::ratchet::{Exception, Found, judge};
use crate::repo::{Source, holds, text_of, tracked_rust};

struct Banned {
    word: &'static str,
    instead: &'static str,
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// Any name, and docs: the word stands for another thing, or for nothing.
    Everywhere,
    /// Any name; in docs it is an ordinary word.
    Names,
    /// Types and files, where it says nothing; elsewhere it is an ordinary word.
    TypesAndFiles,
}

/// Where a word stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Doc,
    File,
    Name,
    Type,
}

const BANNED: &[Banned] = &[
    everywhere("bury", "dead-letter"),
    everywhere("channel", "queue"),
    everywhere("handler", "the verb it does"),
    everywhere("helper", "what it does"),
    everywhere("manager", "what it does"),
    everywhere("message", "event"),
    everywhere("nack", "retry or release"),
    everywhere("offset", "position, or byte offset"),
    everywhere("topic", "type, or topic hash for the log's"),
    everywhere("util", "what it holds"),
    Banned { word: "impl", instead: "what sets it apart", reach: Reach::Names },
    Banned { word: "data", instead: "what the data are", reach: Reach::TypesAndFiles },
    Banned { word: "info", instead: "what it tells", reach: Reach::TypesAndFiles },
];

/// A banned word that is legal beside another.
const PHRASES: &[(&str, &str)] = &[
    ("byte", "offset"),
    ("data", "dir"),
    ("error", "message"),
    ("field", "manager"),
    ("hyper", "util"),
    ("topic", "hash"),
];

/// Where a banned word is a term of the thing that is spoken to.
const FOREIGN: &[(&str, &str)] =
    &[("bench/yardstick/src/bridge.rs", "message"), ("crates/nats/", "message")];

/// Names that are not ours to choose.
const ALLOWED: &[Exception] = &[
    ("crates/core/src/manifest/status.rs", "message", "a member of Kubernetes' conditions"),
    ("crates/core/src/reconcile.rs", "message", "a member of the conditions it computes"),
    ("crates/core/src/wire/error.rs", "message", "a member of the contract's error bodies"),
];

#[test]
fn names_and_docs_keep_the_vocabulary() {
    let found = tracked_rust().flat_map(|source| check(&source));
    holds(judge(&found.collect::<Vec<_>>(), ALLOWED));
}

#[test]
fn a_banned_word_is_seen_wherever_a_name_is_given() {
    let text = "
        mod utils {}
        struct MessageStore { last_offset: u64 }
        enum Way { Channel }
        fn bury(topics: u8) { let helper = 1; }
        impl Foreign for A { fn message(&self, offset: u8) { let nack = 1; } }
        use std::fmt::Debug as Handler;
        struct EventInfo;
        type Data = ();
        macro_rules! impl_all { () => {} }
    ";
    let found = check(&Source::new("a/src/manager.rs", text));
    let expected = [
        "1: `a/src/manager`: say what it does",
        "2: `utils`: say what it holds",
        "3: `MessageStore`: say event",
        "3: `last_offset`: say position, or byte offset",
        "4: `Channel`: say queue",
        "5: `bury`: say dead-letter",
        "5: `topics`: say type, or topic hash for the log's",
        "5: `helper`: say what it does",
        "6: `nack`: say retry or release",
        "7: `Handler`: say the verb it does",
        "8: `EventInfo`: say what it tells",
        "9: `Data`: say what the data are",
        "10: `impl_all`: say what sets it apart",
    ];
    let expected = expected.map(|what| format!("a/src/manager.rs:{what}"));
    assert_eq!(found.iter().map(|one| &one.finding).collect::<Vec<_>>(), expected.each_ref());
}

#[test]
fn a_banned_word_in_docs_is_seen() {
    let text = "//! Sends messages.\n\n/// An `offset`, no error message.\n/// A topic.\nfn a() {}";
    let found = check(&Source::new("a.rs", text));
    let second = "a.rs:4: `topic`: say type, or topic hash for the log's";
    let found: Vec<_> = found.iter().map(|one| one.finding.as_str()).collect();
    assert_eq!(found, ["a.rs:1: `messages`: say event", second]);
}

#[test]
fn phrases_and_foreign_names_are_legal() {
    let text = "
        /// Topic hashes and byte offsets.
        struct DataDir { topic_hash: u64, byte_offset: u64, data: u8, error_message: u8 }
        fn a(b: Message) { c.message(channel()); let information = HANDLER; }
    ";
    assert!(check(&Source::new("a/wire.rs", text)).is_empty());
}

const fn everywhere(word: &'static str, instead: &'static str) -> Banned {
    Banned { word, instead, reach: Reach::Everywhere }
}

fn check(source: &Source) -> Vec<Found> {
    let mut names = Names { found: Vec::new() };
    names.words(Place::File, 1, source.path.trim_end_matches(".rs"));
    names.visit_file(&source.syntax());
    let is_foreign =
        |word| FOREIGN.iter().any(|(at, its)| word == *its && source.path.starts_with(at));
    let found = names.found.into_iter().filter(|(_, _, banned)| !is_foreign(banned.word)).map(
        |(line, name, banned)| Found {
            path: source.path.clone(),
            kind: banned.word,
            finding: source.finding(line, &format!("`{name}`: say {}", banned.instead)),
        },
    );
    found.collect()
}

/// Collects what breaks the vocabulary: line, name, rule.
struct Names {
    found: Vec<(usize, String, &'static Banned)>,
}

impl Names {
    fn name(&mut self, place: Place, ident: &syn::Ident) {
        self.words(place, ident.span().start().line, &ident.unraw().to_string());
    }

    /// Looks at each word of a name, or of a line of text, with its neighbours.
    fn words(&mut self, place: Place, line: usize, text: &str) {
        let words = split(text);
        let singular: Vec<_> = words.iter().map(|word| singular(word)).collect();
        let is_phrase = |pair: &[String]| PHRASES.iter().any(|(one, other)| pair == [*one, *other]);
        for (index, word) in words.iter().enumerate() {
            let Some(banned) = banned(&singular[index], place) else { continue };
            let around = &singular[index.saturating_sub(1)..words.len().min(index + 2)];
            if !around.windows(2).any(is_phrase) {
                let shown = if place == Place::Doc { word } else { text };
                self.found.push((line, shown.to_owned(), banned));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Some(text) = text_of("doc", attribute) {
            let line = attribute.pound_token.spans[0].start().line;
            for (index, text) in text.lines().enumerate() {
                self.words(Place::Doc, line + index, &without_code(text));
            }
        }
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.name(Place::Name, &signature.ident);
        syn::visit::visit_signature(self, signature);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(ident) = &field.ident {
            self.name(Place::Name, ident);
        }
        syn::visit::visit_field(self, field);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.name(Place::Name, &variant.ident);
        syn::visit::visit_variant(self, variant);
    }

    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        self.name(Place::Name, &pattern.ident);
        syn::visit::visit_pat_ident(self, pattern);
    }

    fn visit_type_param(&mut self, parameter: &'ast syn::TypeParam) {
        self.name(Place::Type, &parameter.ident);
        syn::visit::visit_type_param(self, parameter);
    }

    fn visit_use_rename(&mut self, rename: &'ast syn::UseRename) {
        self.name(Place::Name, &rename.rename);
    }

    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Struct(item) => self.name(Place::Type, &item.ident),
            syn::Item::Enum(item) => self.name(Place::Type, &item.ident),
            syn::Item::Trait(item) => self.name(Place::Type, &item.ident),
            syn::Item::Type(item) => self.name(Place::Type, &item.ident),
            syn::Item::Const(item) => self.name(Place::Name, &item.ident),
            syn::Item::Static(item) => self.name(Place::Name, &item.ident),
            syn::Item::Mod(item) => self.name(Place::File, &item.ident),
            syn::Item::Macro(item) => {
                if let Some(ident) = &item.ident {
                    self.name(Place::Name, ident);
                }
            }
            _ => {}
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.name(Place::Name, &item.ident);
        syn::visit::visit_impl_item_const(self, item);
    }

    fn visit_trait_item_type(&mut self, item: &'ast syn::TraitItemType) {
        self.name(Place::Type, &item.ident);
        syn::visit::visit_trait_item_type(self, item);
    }

    /// In `impl Trait for`, the trait chose the names; a trait of ours is read where it stands.
    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        for item in &block.items {
            match item {
                syn::ImplItem::Fn(method) if block.trait_.is_some() => {
                    self.visit_block(&method.block);
                }
                item => self.visit_impl_item(item),
            }
        }
    }
}

fn banned(word: &str, place: Place) -> Option<&'static Banned> {
    let in_reach = |banned: &&Banned| match banned.reach {
        Reach::Everywhere => true,
        Reach::Names => place != Place::Doc,
        Reach::TypesAndFiles => matches!(place, Place::Type | Place::File),
    };
    BANNED.iter().filter(in_reach).find(|banned| banned.word == word)
}

/// The words of a name or a text, as they were written.
fn split(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for part in text.split(|letter: char| !letter.is_alphanumeric()) {
        let mut start = 0;
        let letters: Vec<_> = part.char_indices().collect();
        for pair in letters.windows(2) {
            let [(_, one), (at, other)] = [pair[0], pair[1]];
            if one.is_lowercase() && other.is_uppercase() {
                words.push(&part[start..at]);
                start = at;
            }
        }
        words.push(&part[start..]);
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A word in lower case, without the `s` or `es` of its plural.
fn singular(word: &str) -> String {
    let word = word.to_lowercase();
    let stem =
        if word.ends_with("shes") { word.strip_suffix("es") } else { word.strip_suffix('s') };
    stem.unwrap_or(&word).to_owned()
}

/// A line of a doc comment without its `code spans`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}
