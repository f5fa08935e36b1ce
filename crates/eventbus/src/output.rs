//! The only place that writes to standard output and standard error.
//!
//! Results go to standard output, one line each, so that they can be piped. Everything said to the
//! person at the terminal goes to standard error.

use std::io::{self, Write};

use crate::cli::Fault;

/// Writes one result line to standard output.
///
/// Fails when nobody reads any more (a closed pipe): there is no use in going on.
pub(crate) fn line(text: &str) -> Result<(), Fault> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes bytes to standard output as they are.
pub(crate) fn bytes(content: &[u8]) -> Result<(), Fault> {
    written(io::stdout().lock().write_all(content))
}

/// Writes one line to standard error. That it cannot be read is not worth failing for.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// `text` with every control character escaped: what others send must not steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

fn written(result: io::Result<()>) -> Result<(), Fault> {
    result.map_err(|error| Fault::Failed(format!("cannot write to standard output: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\r\n\u{1b}[31mé"), "a\\r\\n\\u{1b}[31mé");
    }
}
