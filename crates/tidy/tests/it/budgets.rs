//! Sizes a reader can hold: lines of a file and a function, columns, parameters.
//!
//! The limits are rustfmt's and clippy's where those have one; here they hold for tests, comments
//! and strings too, and for files, which no lint measures.

use syn::visit::Visit;

use crate::repo::{Source, holds, is_test, tracked_rust};

/// A file's lines up to its closing `#[cfg(test)]` module.
const FILE_LINES_MAX: usize = 600;
/// A function's lines from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
const LINE_COLUMNS_MAX: usize = 100;
/// Parameters of a function, `self` included; an implementation of a trait has no choice.
const PARAMETERS_MAX: usize = 5;

#[test]
fn every_file_keeps_its_budgets() {
    holds(tracked_rust().flat_map(|source| check(&source)));
}

#[test]
fn a_file_over_each_budget_is_seen() {
    let long_file = Source::new("a.rs", &"// one line\n".repeat(601));
    assert_eq!(check(&long_file), ["a.rs:601: 601 lines, at most 600: split the file"]);

    let long_line = Source::new("a.rs", &format!("// {}", "ä".repeat(98)));
    assert_eq!(check(&long_line), ["a.rs:1: 101 columns, at most 100"]);

    let body = "    step();\n".repeat(69);
    let long_function = Source::new("a.rs", &format!("mod m {{\nfn run() {{\n{body}}}\n}}"));
    let found = check(&long_function);
    assert_eq!(found, ["a.rs:2: `run` has 71 lines, at most 70: name its parts"]);

    let method = "impl A { fn go(&self, b: u8, c: u8, d: u8, e: u8, f: u8) {} }";
    let found = check(&Source::new("a.rs", method));
    assert_eq!(found, ["a.rs:1: `go` has 6 parameters, at most 5: give them a type"]);
}

#[test]
fn tests_at_the_end_and_implemented_traits_are_not_counted() {
    let tests = "    fn t() {}\n".repeat(700);
    let source = format!("fn a() {{}}\n\n#[cfg(test)]\nmod tests {{\n{tests}}}\n");
    assert!(check(&Source::new("a.rs", &source)).is_empty());
    let given = "impl T for A { fn go(&self, b: u8, c: u8, d: u8, e: u8, f: u8) {} }";
    assert!(check(&Source::new("a.rs", given)).is_empty());
}

fn check(source: &Source) -> Vec<String> {
    let syntax = source.syntax();
    let mut findings = Vec::new();
    let lines = product_lines(source, &syntax);
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, at most {FILE_LINES_MAX}: split the file");
        findings.push(source.finding(lines, &what));
    }
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > LINE_COLUMNS_MAX {
            let what = format!("{columns} columns, at most {LINE_COLUMNS_MAX}");
            findings.push(source.finding(index + 1, &what));
        }
    }
    let mut functions = Functions { source, findings };
    functions.visit_file(&syntax);
    functions.findings
}

fn product_lines(source: &Source, syntax: &syn::File) -> usize {
    match syntax.items.last() {
        Some(syn::Item::Mod(last)) if is_test(&last.attrs) && last.content.is_some() => {
            last.attrs[0].pound_token.spans[0].start().line - 1
        }
        _ => source.text.lines().count(),
    }
}

struct Functions<'a> {
    source: &'a Source,
    findings: Vec<String>,
}

impl Functions<'_> {
    fn measure(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.fn_token.span.start().line;
        let lines = body.brace_token.span.close().end().line - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = &signature.ident;
            let what =
                format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: name its parts");
            self.findings.push(self.source.finding(first, &what));
        }
    }

    fn count_parameters(&mut self, signature: &syn::Signature) {
        let count = signature.inputs.len();
        if count > PARAMETERS_MAX {
            let name = &signature.ident;
            let what = format!(
                "`{name}` has {count} parameters, at most {PARAMETERS_MAX}: give them a type"
            );
            self.findings.push(self.source.finding(signature.fn_token.span.start().line, &what));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.measure(&function.sig, &function.block);
        self.count_parameters(&function.sig);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        for item in &block.items {
            if let syn::ImplItem::Fn(method) = item {
                self.measure(&method.sig, &method.block);
                if block.trait_.is_none() {
                    self.count_parameters(&method.sig);
                }
            }
        }
        syn::visit::visit_item_impl(self, block);
    }

    fn visit_trait_item_fn(&mut self, method: &'ast syn::TraitItemFn) {
        self.count_parameters(&method.sig);
        if let Some(body) = &method.default {
            self.measure(&method.sig, body);
        }
        syn::visit::visit_trait_item_fn(self, method);
    }
}
