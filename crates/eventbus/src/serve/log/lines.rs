//! How a line of the log is written: for people, or as a JSON object.
//!
//! Whatever a client wrote may be in a field of it, or in the text of a library. So nothing is
//! written as it is: what is not printed is escaped, each value ends at a limit, and for people a
//! text stands in quotes. Nobody forges a line, a field, or a colour.

use std::fmt::{self, Write};

use eventbus_core::limits;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::super::settings::LogFormat;

/// What stands where a value was cut.
const CUT: &str = "…";

/// Writes lines.
pub(super) struct Lines {
    pub(super) format: LogFormat,
    pub(super) is_coloured: bool,
}

/// The parts of a line.
struct Parts {
    format: LogFormat,
    /// Its text, escaped.
    said: String,
    /// Its fields, escaped, each with what stands before it.
    fields: String,
    /// Where it comes from, when that is another place than the line itself says.
    target: Option<String>,
}

/// Takes text in and escapes it.
struct Escape<'a> {
    out: &'a mut String,
    format: LogFormat,
    /// Bytes that may still be written.
    left: usize,
    is_cut: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut parts =
            Parts { format: self.format, said: String::new(), fields: String::new(), target: None };
        event.record(&mut parts);
        let level = *event.metadata().level();
        let target = parts.target.as_deref().unwrap_or_else(|| event.metadata().target());
        let Parts { said, fields, .. } = &parts;
        match self.format {
            LogFormat::Json => {
                write!(writer, r#"{{"timestamp":"{time}","level":"{level}","target":"{target}""#)?;
                writeln!(writer, r#","message":"{said}"{fields}}}"#)
            }
            LogFormat::Human if self.is_coloured => {
                let colour = colour(level);
                writeln!(writer, "{time} \x1b[{colour}m{level:>5}\x1b[0m {target}: {said}{fields}")
            }
            LogFormat::Human => writeln!(writer, "{time} {level:>5} {target}: {said}{fields}"),
        }
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

impl Parts {
    fn begin(&mut self, name: &str) {
        let _ = match self.format {
            LogFormat::Human => write!(self.fields, " {name}="),
            LogFormat::Json => write!(self.fields, r#","{name}":"#),
        };
    }

    /// A value that is neither text nor made of any.
    fn plain(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.begin(field.name());
        let _ = self.fields.write_fmt(value);
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        match field.name() {
            "message" => escape(&mut self.said, self.format, value),
            "log.target" => {
                escape(self.target.insert(String::new()), self.format, value);
            }
            name if name.starts_with("log.") => {}
            name => {
                self.begin(name);
                self.fields.push('"');
                escape(&mut self.fields, self.format, value);
                self.fields.push('"');
            }
        }
    }
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.plain(field, format_args!("{value}")),
            false => self.text(field, format_args!("{value}")),
        }
    }
}

/// Appends a value, escaped, at most [`limits::LOG_VALUE_BYTES`] of it.
fn escape(out: &mut String, format: LogFormat, value: fmt::Arguments<'_>) {
    let left = limits::LOG_VALUE_BYTES - CUT.len();
    // It ends by an error when it is cut.
    let _ = Escape { out, format, left, is_cut: false }.write_fmt(value);
}

impl Write for Escape<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|char| self.write_char(char))
    }

    fn write_char(&mut self, char: char) -> fmt::Result {
        if self.is_cut {
            return Err(fmt::Error);
        }
        let before = self.out.len();
        match char {
            '"' | '\\' => {
                self.out.push('\\');
                self.out.push(char);
            }
            '\n' => self.out.push_str("\\n"),
            '\r' => self.out.push_str("\\r"),
            '\t' => self.out.push_str("\\t"),
            char if is_seen(char) => self.out.push(char),
            char => self.escaped(char)?,
        }
        let bytes = self.out.len() - before;
        if bytes > self.left {
            self.out.truncate(before);
            self.out.push_str(CUT);
            self.is_cut = true;
            return Err(fmt::Error);
        }
        self.left -= bytes;
        Ok(())
    }
}

impl Escape<'_> {
    /// By its number: one in Rust's way, or in JSON's the one or two that UTF-16 has for it.
    fn escaped(&mut self, char: char) -> fmt::Result {
        match self.format {
            LogFormat::Human => write!(self.out, "\\u{{{:x}}}", u32::from(char)),
            LogFormat::Json => {
                let mut units = [0; 2];
                let units = char.encode_utf16(&mut units).iter();
                units.into_iter().try_for_each(|unit| write!(self.out, "\\u{unit:04x}"))
            }
        }
    }
}

/// Does it show itself, and only itself? Not what steers a terminal, begins a line, or turns the
/// direction in which text is read.
fn is_seen(char: char) -> bool {
    !char.is_control()
        && !matches!(
            char,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use eventbus_core::testing::Page;
    use proptest::prelude::*;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{Registry, fmt};

    use super::*;

    /// What is logged meanwhile.
    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let lines = Lines { format, is_coloured: false };
        let layer = fmt::layer().event_format(lines).with_writer(move || writer.clone());
        tracing::subscriber::with_default(Registry::default().with(layer), log);
        page.text()
    }

    /// A line with this text in every kind of field.
    fn say(text: &str) {
        let error = std::io::Error::other(text.to_owned());
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::warn!(
            said = text,
            shown = %text,
            debugged = ?text,
            error,
            count = 7,
            share = 0.5,
            is_so = true,
            "it happened: {text}"
        );
    }

    #[test]
    fn a_line_for_people_names_what_it_tells() {
        let page = logged(LogFormat::Human, || say("all \"well\""));
        let (time, rest) = page.split_once(' ').unwrap();
        assert_eq!((time.len(), &time[10..11], &time[26..]), (27, "T", "Z"));
        let target = module_path!();
        assert_eq!(
            rest,
            format!(
                " WARN {target}: it happened: all \\\"well\\\" said=\"all \\\"well\\\"\" \
                 shown=\"all \\\"well\\\"\" debugged=\"\\\"all \\\\\\\"well\\\\\\\"\\\"\" \
                 error=\"all \\\"well\\\"\" count=7 share=0.5 is_so=true\n"
            )
        );
    }

    #[test]
    fn an_object_of_json_has_the_same() {
        let page = logged(LogFormat::Json, || say("all \"well\"\u{1b}[31m\u{e0041}"));
        let mut line: Value = serde_json::from_str(&page).unwrap();
        assert_eq!(line["timestamp"].take().as_str().unwrap().len(), 27);
        let text = "all \"well\"\u{1b}[31m\u{e0041}";
        let wanted = serde_json::json!({
            "timestamp": null, "level": "WARN", "target": module_path!(),
            "message": format!("it happened: {text}"), "said": text, "shown": text,
            "debugged": format!("{text:?}"), "error": text, "count": 7, "share": 0.5,
            "is_so": true,
        });
        assert_eq!(line, wanted);
        assert!(page.contains("\\u001b[31m\\udb40\\udc41"), "{page}");
    }

    #[test]
    fn a_value_ends_at_its_limit() {
        for format in [LogFormat::Human, LogFormat::Json] {
            let page = logged(format, || say(&"\u{1b}".repeat(1 << 20)));
            assert!(page.len() < 6 * limits::LOG_VALUE_BYTES, "{}", page.len());
            assert_eq!(page.matches(CUT).count(), 5);
            let short = "x".repeat(limits::LOG_VALUE_BYTES - CUT.len());
            let page = logged(format, || tracing::info!(short, "so"));
            assert!(!page.contains(CUT) && page.contains(&short), "{page}");
        }
    }

    proptest! {
        #[test]
        fn nobody_forges_a_line_or_a_field(text in "(?s)(\\PC|[\"\\\\ \n\r\u{1b}={},:]|.){0,80}") {
            let page = logged(LogFormat::Json, || say(&text));
            let lines: Vec<_> = page.split_terminator('\n').collect();
            prop_assert_eq!(lines.len(), 1);
            let line: Value = serde_json::from_str(lines[0]).unwrap();
            prop_assert_eq!(line.as_object().unwrap().len(), 11);
            prop_assert_eq!(&line["said"], &Value::from(text.as_str()));

            let page = logged(LogFormat::Human, || say(&text));
            prop_assert!(page.ends_with('\n') && page.trim_end_matches('\n').chars().all(is_seen));
            prop_assert_eq!(page.matches('\n').count(), 1);
            // Outside quotes there are only our own names.
            let mut unquoted = String::new();
            let (mut is_quoted, mut is_escaped) = (false, false);
            for char in page.chars() {
                match char {
                    '"' if !is_escaped => is_quoted = !is_quoted,
                    char if !is_quoted => unquoted.push(char),
                    _ => {}
                }
                is_escaped = char == '\\' && !is_escaped;
            }
            let fields = " said= shown= debugged= error= count=7 share=0.5 is_so=true\n";
            prop_assert!(unquoted.ends_with(fields), "{unquoted}");
        }
    }
}
