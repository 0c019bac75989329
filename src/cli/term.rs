//! Text on its way to people: stdout that may be closed, colours that may be off, spans that are read at a glance.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::telemetry::is_colourful;

/// Writes to stdout. A reader that has gone (`slotctl status | head -1`) is no error.
///
/// # Errors
/// Any other failure to write.
pub fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a value as one line of JSON to stdout.
///
/// # Errors
/// If it cannot be written.
pub fn say_json(value: &impl serde::Serialize) -> io::Result<()> {
    say(&format!("{}\n", serde_json::to_string(value)?))
}

/// Writes to stderr; there is nobody left to tell when that fails.
pub fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Whether what was written can be written over: a terminal, and one that knows how (`TERM=dumb` says that it does not). Colours are
/// another question, and `NO_COLOR` is about them alone (no-color.org).
#[must_use]
pub fn is_live(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// How wide text for stdout may be: a terminal's width; without one nothing is broken, for `grep` has no screen.
#[must_use]
pub fn width() -> usize {
    if !io::stdout().is_terminal() {
        return usize::MAX;
    }
    terminal_size::terminal_size_of(io::stdout())
        .map_or(80, |(width, _)| usize::from(width.0).max(40))
}

/// Breaks text between words into lines of at most `width` characters where that can be; each after the first begins with `indent`.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for (number, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if column > indent.len() && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.push_str(indent);
            column = indent.len();
        } else if number > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// Colours, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// For what is written to this stream.
    #[must_use]
    pub fn of(stream: &impl IsTerminal) -> Self {
        Self {
            on: is_colourful(stream),
        }
    }

    /// What went well.
    #[must_use]
    pub fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    /// What went wrong.
    #[must_use]
    pub fn bad(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    /// What deserves a look.
    #[must_use]
    pub fn odd(self, text: &str) -> String {
        self.wrap("33", text)
    }

    /// What may be skipped.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    /// What the eye should find first.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// `2m 15s`, `3.2s`, `180 ms`.
#[must_use]
pub fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0 => format!("{} ms", length.as_millis()),
        1..=9 => format!("{}.{}s", seconds, length.subsec_millis() / 100),
        _ => whole_span(length),
    }
}

/// `2m 15s`, `3s`, `1h 2m`: without fractions, for what is counted on a live line.
#[must_use]
pub fn whole_span(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..=86_399 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The lines of a table, its head first: each column as wide as its widest cell.
#[must_use]
pub fn aligned<const N: usize>(head: &[String; N], rows: &[[String; N]]) -> Vec<String> {
    let all = || std::iter::once(head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    all()
        .map(|row| {
            let cells = row.iter().zip(&widths);
            let line: String = cells
                .map(|(cell, width)| format!(" {cell:<width$} "))
                .collect();
            format!(" {}", line.trim_end())
        })
        .collect()
}

/// Text from an app or a file that goes to a terminal: control characters are shown, not performed.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (millis, text) in [
            (0, "0 ms"),
            (180, "180 ms"),
            (3_240, "3.2s"),
            (12_900, "12s"),
            (135_000, "2m 15s"),
            (3_720_000, "1h 2m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn an_app_cannot_write_escape_sequences_to_the_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\tc\r"), "a\u{fffd}[2Jb c\u{fffd}");
    }

    #[test]
    fn long_text_is_broken_between_words_and_long_words_are_left_whole() {
        assert_eq!(wrap("  one two three", 9, "    "), "  one two\n    three");
        assert_eq!(wrap("  one two three", usize::MAX, ""), "  one two three");
        assert_eq!(
            wrap("  /a/very/long/path x", 8, "  "),
            "  /a/very/long/path\n  x"
        );
    }

    #[test]
    fn without_a_terminal_there_are_no_colours() {
        assert_eq!(Paint::default().bad("no"), "no");
        assert_eq!(Paint { on: true }.bad("no"), "\x1b[1;31mno\x1b[0m");
    }
}
