//! One word for a thing: the vocabulary of ARCHITECTURE.md, kept in names and in docs.
//!
//! What is read: every name this repository gives (not the foreign names it uses), file and folder
//! names, and doc comments outside `code spans`. Names that a wire format or Kubernetes fixes are
//! exceptions, by folder and with the reason.

use syn::Attribute;
use syn::ext::IdentExt as _;
use syn::visit::Visit;

use crate::repo::{Source, doc_text, holds, tracked_rust};

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

/// A place where a name looks up to see what it is.
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
    everywhere("utils", "what it holds"),
    Banned { word: "impl", instead: "what sets it apart", reach: Reach::Names },
    Banned { word: "data", instead: "what the data are", reach: Reach::TypesAndFiles },
    Banned { word: "info", instead: "what it tells", reach: Reach::TypesAndFiles },
];

/// A banned word that is legal beside another.
const PHRASES: &[(&str, &str)] =
    &[("byte", "offset"), ("data", "dir"), ("error", "message"), ("topic", "hash")];

/// Folder or file, word, and why the name is not ours to choose.
const ALLOWED: &[(&str, &str, &str)] = &[(
    "crates/core/src/wire/error.rs",
    "message",
    "the contract's error bodies have a member of that name",
)];

#[test]
fn names_and_docs_keep_the_vocabulary() {
    let sources: Vec<_> = tracked_rust().collect();
    let mut used = vec![false; ALLOWED.len()];
    let found = sources.iter().flat_map(|source| check(source, ALLOWED, &mut used));
    let mut findings: Vec<_> = found.collect();
    for ((path, word, _), used) in ALLOWED.iter().zip(used) {
        if !used {
            findings
                .push(format!("words.rs: nothing in {path} needs `{word}`: take it off ALLOWED"));
        }
    }
    holds(findings);
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
    let found = check(&Source::new("a/src/manager.rs", text), &[], &mut []);
    let expected = [
        "1: `manager`: say what it does",
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
    assert_eq!(found, expected);
}

#[test]
fn a_banned_word_in_docs_is_seen() {
    let text = "//! Sends messages.\n\n/// An `offset`, no error message.\n/// A topic.\nfn a() {}";
    let found = check(&Source::new("a.rs", text), &[], &mut []);
    let second = "a.rs:4: `topic`: say type, or topic hash for the log's";
    assert_eq!(found, ["a.rs:1: `messages`: say event", second]);
}

#[test]
fn phrases_foreign_names_and_exceptions_are_legal() {
    let text = "
        struct DataDir { topic_hash: u64, byte_offset: u64, data: u8, error_message: u8 }
        fn a(b: Message) { c.message(channel()); let information = HANDLER; }
        struct Wire { message: u8 }
    ";
    let source = Source::new("a/wire.rs", text);
    let mut used = [false];
    assert!(check(&source, &[("a/", "message", "on the wire")], &mut used).is_empty());
    assert_eq!(used, [true]);
    assert_eq!(check(&source, &[("b/", "message", "on the wire")], &mut [false]).len(), 1);
}

const fn everywhere(word: &'static str, instead: &'static str) -> Banned {
    Banned { word, instead, reach: Reach::Everywhere }
}

/// Findings in `source`; `used` marks the exceptions of `allowed` that were needed.
fn check(source: &Source, allowed: &[(&str, &str, &str)], used: &mut [bool]) -> Vec<String> {
    let mut names = Names { found: Vec::new() };
    names.words(Place::File, 1, source.path.trim_end_matches(".rs"));
    names.visit_file(&source.syntax());
    let mut findings = Vec::new();
    for (line, name, banned) in names.found {
        let exception = allowed
            .iter()
            .position(|(path, word, _)| source.path.starts_with(path) && *word == banned.word);
        match exception {
            Some(index) => used[index] = true,
            None => {
                findings.push(source.finding(line, &format!("`{name}`: say {}", banned.instead)))
            }
        }
    }
    findings
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
        for (index, (word, shown)) in words.iter().enumerate() {
            let Some(banned) = banned(word, place) else { continue };
            let before = index.checked_sub(1).map_or("", |before| &words[before].0);
            let after = words.get(index + 1).map_or("", |(after, _)| after);
            let is_phrase = |(one, other): &(&str, &str)| {
                let is_it = |word: &str, one: &str| word.strip_suffix('s').unwrap_or(word) == one;
                is_it(before, one) && *other == banned.word
                    || *one == banned.word && (is_it(after, other) || after == "hashes")
            };
            if !PHRASES.iter().any(is_phrase) {
                let shown = if place == Place::Doc { shown } else { text };
                let name = shown.rsplit('/').next().unwrap_or(shown).to_owned();
                self.found.push((line, name, banned));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Some((line, text)) = doc_text(attribute) {
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
    let plural = word.strip_suffix('s').unwrap_or(word);
    BANNED.iter().filter(in_reach).find(|banned| banned.word == word || banned.word == plural)
}

/// The words of a name or a text, in lower case, each with how it was written.
fn split(text: &str) -> Vec<(String, String)> {
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
    words.into_iter().map(|word| (word.to_lowercase(), word.to_owned())).collect()
}

/// A line of a doc comment without its `code spans`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}
