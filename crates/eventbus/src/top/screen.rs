//! The terminal, for as long as something is shown on it: a page of its own, which is gone in the
//! end, and keys that are heard one by one.

use std::io::{IsTerminal, stdin, stdout};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::cli::Fault;
use crate::output;

/// Another page, without a cursor; and the one before.
const OPEN: &[u8] = b"\x1b[?1049h\x1b[?25l";
const CLOSE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// The terminal is ours until this is dropped. No key can stop or end the process before that:
/// those that make signals elsewhere are heard as keys.
pub(super) struct Screen {
    /// How the keyboard was.
    before: Option<Termios>,
}

/// How many characters fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn open() -> Result<Self, Fault> {
        let before = if stdin().is_terminal() { tcgetattr(stdin()).ok() } else { None };
        if let Some(before) = &before {
            let mut alone = before.clone();
            alone.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            // Where that fails, a key is heard with the next line.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &alone);
        }
        let screen = Self { before };
        output::bytes(OPEN)?;
        Ok(screen)
    }

    /// Are keys heard?
    pub(super) fn has_keys(&self) -> bool {
        self.before.is_some()
    }

    /// How large it is now.
    pub(super) fn size(&self) -> Size {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                Size { rows: size.ws_row.into(), columns: size.ws_col.into() }
            }
            _ => Size { rows: 24, columns: 80 },
        }
    }

    /// Shows these lines, as far as they fit.
    pub(super) fn show(&self, lines: &[String]) -> Result<(), Fault> {
        output::bytes(picture(lines, self.size()).as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = output::bytes(CLOSE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

/// What makes a terminal of this size show these lines and nothing else. Each line clears the rest
/// of its row, so that nothing flickers.
fn picture(lines: &[String], size: Size) -> String {
    let mut picture = String::from("\x1b[H");
    for (row, line) in lines.iter().take(size.rows).enumerate() {
        if row > 0 {
            picture.push('\n');
        }
        picture.extend(line.chars().take(size.columns));
        picture.push_str("\x1b[K");
    }
    picture + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out() {
        let lines = ["héllo".to_owned(), "b".to_owned(), "c".to_owned()];
        let wanted = "\x1b[Hhél\x1b[K\nb\x1b[K\x1b[J";
        assert_eq!(picture(&lines, Size { rows: 2, columns: 3 }), wanted);
    }
}
