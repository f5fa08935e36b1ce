//! Lines of a reader, numbered, none longer than a limit.

use futures::Stream;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// The longest line taken: far above what any bus takes as one event (1 MiB by default), and small
/// enough to hold `--concurrency` of them.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// What is read at once: each read of standard input goes to another thread and back.
const READ_BYTES: usize = 256 * 1024;

/// One line that is not blank.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Counted from one, blank lines too.
    pub(super) number: u64,
    /// The line, or why it cannot be sent.
    pub(super) text: Result<String, String>,
}

/// The lines of `reader` that are not blank.
pub(super) fn of(reader: impl AsyncRead + Unpin) -> impl Stream<Item = Line> {
    let start = Some((BufReader::with_capacity(READ_BYTES, reader), 0));
    futures::stream::unfold(start, async |state| {
        let (mut reader, mut number) = state?;
        loop {
            number += 1;
            match read(&mut reader, LINE_BYTES).await {
                Ok(None) => return None,
                Ok(Some(Ok(text))) if text.trim().is_empty() => {}
                Ok(Some(text)) => return Some((Line { number, text }, Some((reader, number)))),
                Err(error) => {
                    let text = Err(format!("{error}; the rest of the input is not read"));
                    return Some((Line { number, text }, None));
                }
            }
        }
    })
}

/// The next line, or why it cannot be sent; none at the end.
async fn read(
    reader: &mut (impl AsyncBufRead + Unpin),
    limit_bytes: u64,
) -> std::io::Result<Option<Result<String, String>>> {
    let mut bytes = Vec::new();
    (&mut *reader).take(limit_bytes + 1).read_until(b'\n', &mut bytes).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() as u64 > limit_bytes {
        // The rest of the line, a piece at a time.
        while !bytes.is_empty() && !bytes.ends_with(b"\n") {
            bytes.clear();
            (&mut *reader).take(limit_bytes).read_until(b'\n', &mut bytes).await?;
        }
        return Ok(Some(Err(format!("longer than {limit_bytes} bytes"))));
    }
    Ok(Some(String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())))
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
    async fn a_line_that_is_not_text_costs_itself_alone() {
        let lines: Vec<Line> = of(&b"{}\n\xff\n{}\n"[..]).collect().await;
        let fits: Vec<bool> = lines.iter().map(|line| line.text.is_ok()).collect();
        assert_eq!(fits, [true, false, true]);
    }

    #[tokio::test]
    async fn a_line_has_a_limit() {
        let mut input = &b"1234\n12345\n1234567890123456\n12\n123456"[..];
        for wanted in [Some("1234\n"), None, None, Some("12\n"), None] {
            let line = read(&mut input, 5).await.unwrap().unwrap();
            assert_eq!(line.ok().as_deref(), wanted);
        }
        assert_eq!(read(&mut input, 5).await.unwrap(), None);
    }
}
