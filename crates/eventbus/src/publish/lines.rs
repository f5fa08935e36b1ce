//! Lines of a reader, numbered, none longer than a limit.

use futures::Stream;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// The longest line taken: far above what any bus takes as one event (1 MiB by default), and small
/// enough to hold `--concurrency` of them.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// One line that is not blank.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Counted from one, blank lines too.
    pub(super) number: u64,
    /// The line, or why it cannot be read. Nothing comes after one that cannot be read.
    pub(super) text: Result<String, String>,
}

/// The lines of `reader` that are not blank.
pub(super) fn of(reader: impl AsyncRead + Unpin) -> impl Stream<Item = Line> {
    let start = Some((BufReader::new(reader), 0));
    futures::stream::unfold(start, async |state| {
        let (mut reader, mut number) = state?;
        loop {
            number += 1;
            match read(&mut reader, LINE_BYTES).await {
                Ok(None) => return None,
                Ok(Some(text)) if text.trim().is_empty() => {}
                Ok(Some(text)) => {
                    return Some((Line { number, text: Ok(text) }, Some((reader, number))));
                }
                Err(why) => return Some((Line { number, text: Err(why) }, None)),
            }
        }
    })
}

/// The next line; none at the end.
async fn read(
    reader: &mut (impl AsyncBufRead + Unpin),
    limit_bytes: u64,
) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    let mut limited = reader.take(limit_bytes + 1);
    limited.read_until(b'\n', &mut bytes).await.map_err(|error| error.to_string())?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() as u64 > limit_bytes {
        return Err(format!("longer than {limit_bytes} bytes; the rest of the input is not read"));
    }
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| "not UTF-8; the rest of the input is not read".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn blank_lines_are_counted_and_left_out() {
        let lines: Vec<Line> = of(&b"{\"a\":1}\n\n  \r\n{}"[..]).collect().await;
        let text = |number, text: &str| Line { number, text: Ok(text.to_owned()) };
        assert_eq!(lines, [text(1, "{\"a\":1}\n"), text(4, "{}")]);
    }

    #[tokio::test]
    async fn reading_ends_at_a_line_that_is_not_text() {
        let lines: Vec<Line> = of(&b"{}\n\xff\n{}\n"[..]).collect().await;
        assert_eq!(lines.len(), 2);
        assert!(lines[1].text.is_err());
    }

    #[tokio::test]
    async fn a_line_has_a_limit() {
        assert_eq!(read(&mut &b"1234\n"[..], 5).await, Ok(Some("1234\n".to_owned())));
        assert!(read(&mut &b"12345\n"[..], 5).await.is_err());
    }
}
