//! Environment files as systemd reads them (`EnvironmentFile=` in systemd.exec(5)), save that a line which makes no
//! sense is an error: systemd ignores it, and the app starts without its password.

use crate::config::is_env_name;

/// A line that is no assignment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// From 1; where a quote stays open, the line it was opened on.
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

/// The assignments in order; a later one of the same name wins.
///
/// `#` and `;` begin comments at the start of a line only. Values may be quoted, in parts, over lines. Single quotes
/// keep everything; in double quotes a backslash escapes `"`, `\`, `` ` ``, `$`; outside of quotes it escapes anything. A
/// backslash at the end of a line joins it with the next. `export ` before a name is passed over, since files that shells read have it.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, BadLine> {
    let mut pairs = Vec::new();
    let mut chars = Chars {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text).chars(),
        line: 1,
    };
    while let Some(first) = chars.next() {
        if first.is_whitespace() {
            continue;
        }
        let line = chars.line;
        let bad = |problem| BadLine { line, problem };
        if matches!(first, '#' | ';') {
            while chars.next().is_some_and(|c| c != '\n') {}
            continue;
        }
        let mut name = String::from(first);
        loop {
            match chars.next() {
                Some('=') => break,
                None | Some('\n') => return Err(bad("there is no =")),
                Some(c) => name.push(c),
            }
        }
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim_start);
        if !is_env_name(name) {
            return Err(bad("what stands before = is not the name of a variable"));
        }
        let value = value(&mut chars).map_err(bad)?;
        if value.contains('\0') {
            return Err(bad("the value has a zero byte"));
        }
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

/// A value up to the end of its line, which it takes.
fn value(chars: &mut Chars<'_>) -> Result<String, &'static str> {
    let mut value = String::new();
    // Blanks outside of quotes count only between what is not blank.
    let mut blanks = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\n' => break,
            ' ' | '\t' | '\r' => {
                if !value.is_empty() {
                    blanks.push(c);
                }
                continue;
            }
            _ => value.push_str(&std::mem::take(&mut blanks)),
        }
        match c {
            '\'' => loop {
                match chars.next().ok_or("a quote is not closed")? {
                    '\'' => break,
                    c => value.push(c),
                }
            },
            '"' => loop {
                match chars.next().ok_or("a quote is not closed")? {
                    '"' => break,
                    '\\' => match chars.next().ok_or("a quote is not closed")? {
                        '\n' => {}
                        c @ ('"' | '\\' | '`' | '$') => value.push(c),
                        c => value.extend(['\\', c]),
                    },
                    c => value.push(c),
                }
            },
            '\\' => match chars.next() {
                None | Some('\n') => {}
                Some(c) => value.push(c),
            },
            c => value.push(c),
        }
    }
    Ok(value)
}

struct Chars<'t> {
    rest: std::str::Chars<'t>,
    line: usize,
}

impl Chars<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_systemd_reads_them() {
        for (line, value) in [
            ("A=plain", "plain"),
            ("A=", ""),
            ("  A = spaced out  ", "spaced out"),
            ("export A=1", "1"),
            ("A=not # a comment", "not # a comment"),
            ("A='single $x \\n'", "single $x \\n"),
            ("A=\"double \\\"q\\\" \\$x \\n\"", "double \"q\" $x \\n"),
            ("A=one' two '\"three\"", "one two three"),
            ("A=\"  kept  \"  ", "  kept  "),
            ("A=two \\\nlines", "two lines"),
            ("A='two\nlines'", "two\nlines"),
            ("A=back\\\\slash", "back\\slash"),
            ("A=https://u:p@h/?a=b&c=d", "https://u:p@h/?a=b&c=d"),
            ("A=windows\r", "windows"),
        ] {
            let pairs = parse(line).unwrap();
            assert_eq!(pairs, [("A".to_owned(), value.to_owned())], "{line:?}");
        }
    }

    #[test]
    fn comments_and_empty_lines_are_none() {
        let text = "\u{feff}# one\n\n; two\n  # three\nA=1\nB=2\nA=3";
        let pairs = [("A", "1"), ("B", "2"), ("A", "3")];
        assert_eq!(
            parse(text).unwrap(),
            pairs.map(|(n, v)| (n.to_owned(), v.to_owned()))
        );
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        for (text, line, problem) in [
            ("A=1\nB", 2, "there is no ="),
            (
                "\n\nB C=1\n",
                3,
                "what stands before = is not the name of a variable",
            ),
            (
                "1A=1",
                1,
                "what stands before = is not the name of a variable",
            ),
            ("A=1\nB='open\n\n", 2, "a quote is not closed"),
            ("A=\"open\\", 1, "a quote is not closed"),
            ("A=\0", 1, "the value has a zero byte"),
        ] {
            assert_eq!(
                parse(text).unwrap_err(),
                BadLine { line, problem },
                "{text:?}"
            );
        }
    }
}
