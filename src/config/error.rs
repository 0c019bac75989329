//! What is wrong with a file, where, and what to write instead.

use std::ops::Range;

/// A file that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// As it was given to the parser, usually a path.
    pub file: Box<str>,
    /// The line, from 1; absent where the trouble is a key that is missing.
    pub line: Option<usize>,
    /// The character in it, from 1; absent with the line, and where a file's own parser does not say.
    pub column: Option<u32>,
    /// The key as TOML spells it (`ports.blue`); empty where the file is not TOML at all, or the key is none that there is.
    pub key: Box<str>,
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// The line and the character of a byte of a text, both from 1.
pub(super) fn place(text: &str, byte: usize) -> (usize, u32) {
    let before = &text.as_bytes()[..byte.min(text.len())];
    let line = before.iter().filter(|b| **b == b'\n').count();
    let own = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let column = String::from_utf8_lossy(own).chars().count() + 1;
    (line + 1, u32::try_from(column).unwrap_or(u32::MAX))
}

/// A file's name and text, from which errors take their line.
#[derive(Clone, Copy, Debug)]
pub struct Source<'t> {
    /// Its path, as people are to see it.
    pub file: &'t str,
    /// What is in it.
    pub text: &'t str,
}

impl Source<'_> {
    /// An error at a byte range of the text.
    pub(super) fn at(
        self,
        span: Range<usize>,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        let (line, column) = place(self.text, span.start);
        ConfigError {
            line: Some(line),
            column: Some(column),
            ..self.whole(key, problem, remedy)
        }
    }

    /// An error about something that is not there.
    pub(super) fn whole(
        self,
        key: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        ConfigError {
            file: self.file.into(),
            line: None,
            column: None,
            key: key.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}
