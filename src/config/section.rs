//! A TOML table being read: every key is asked for by name, and one that nobody asked for is an error.
//!
//! serde's `deny_unknown_fields` says which word it did not expect, but neither which line a value that
//! parses and makes no sense stands on, nor what to write instead; hence the walk by hand.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Source};
use super::span;

/// A table whose keys are taken one by one.
pub(super) struct Section<'t> {
    source: Source<'t>,
    /// `env.` for the table `[env]`; empty for the file itself.
    prefix: String,
    entries: DeTable<'t>,
    asked: Vec<&'static str>,
}

/// One value and where it stands.
pub(super) struct Value<'t> {
    source: Source<'t>,
    /// Spelled in full: `ports.blue`.
    pub(super) key: String,
    /// Where the last part of the key begins, which may itself have dots in quotes.
    own: usize,
    span: Range<usize>,
    value: DeValue<'t>,
}

impl<'t> Section<'t> {
    /// The file's own table.
    pub(super) fn of_file(source: Source<'t>) -> Result<Self, ConfigError> {
        let entries = DeTable::parse(source.text).map_err(|error| no_toml(source, &error))?;
        Ok(Self::of_table(source, entries.into_inner()))
    }

    /// A file's table that was parsed before.
    pub(super) fn of_table(source: Source<'t>, entries: DeTable<'t>) -> Self {
        Self {
            source,
            prefix: String::new(),
            entries,
            asked: Vec::new(),
        }
    }

    /// The file that it is of.
    pub(super) fn source(&self) -> Source<'t> {
        self.source
    }

    /// The value of a key, if the file has it.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value<'t>> {
        self.asked.push(key);
        let value = self.entries.remove(key)?;
        Some(self.value(key.to_owned(), value))
    }

    /// Every key and value, where the keys are the user's own words.
    pub(super) fn into_entries(self) -> Vec<Value<'t>> {
        let Self {
            source,
            prefix,
            entries,
            ..
        } = self;
        entries
            .into_iter()
            .map(|(key, value)| Value {
                source,
                key: format!("{prefix}{}", key.get_ref()),
                own: prefix.len(),
                // A table's own span is that of its header; the key is where the reader looks.
                span: key.span(),
                value: value.into_inner(),
            })
            .collect()
    }

    /// That nothing is left which nobody asked for.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let Some((key, _)) = self.entries.iter().min_by_key(|(key, _)| key.span().start) else {
            return Ok(());
        };
        let known = self.asked.join(", ");
        let remedy = match closest(key.get_ref(), &self.asked) {
            Some(near) => format!("did you mean `{near}`? (the keys are {known})"),
            None => format!("remove it; the keys are {known}"),
        };
        let problem = format!("unknown key `{}{}`", self.prefix, key.get_ref());
        Err(self.source.at(key.span(), "", problem, remedy))
    }

    fn value(&self, key: String, value: Spanned<DeValue<'t>>) -> Value<'t> {
        Value {
            source: self.source,
            key: format!("{}{key}", self.prefix),
            own: self.prefix.len(),
            span: value.span(),
            value: value.into_inner(),
        }
    }
}

/// Where a value stood that has been taken apart.
pub(super) struct Place<'t> {
    source: Source<'t>,
    key: String,
    span: Range<usize>,
}

impl Place<'_> {
    /// An error about the value that stood there.
    pub(super) fn error(
        &self,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        self.source
            .at(self.span.clone(), &self.key, problem, remedy)
    }
}

impl<'t> Value<'t> {
    /// Where it stands.
    pub(super) fn place(&self) -> Place<'t> {
        Place {
            source: self.source,
            key: self.key.clone(),
            span: self.span.clone(),
        }
    }

    /// An error about this value.
    pub(super) fn error(
        &self,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        self.place().error(problem, remedy)
    }

    /// The last part of the key: `blue` of `ports.blue`.
    pub(super) fn own_key(&self) -> &str {
        &self.key[self.own..]
    }

    fn wrong_type(&self, remedy: impl Into<String>) -> ConfigError {
        self.error(
            format!("{} is not what belongs here", article(&self.value)),
            remedy,
        )
    }

    /// A string; `example` shows one.
    pub(super) fn text(&self, example: &str) -> Result<String, ConfigError> {
        match &self.value {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            _ => Err(self.wrong_type(format!("write text in quotes: `{}`", self.line(example)))),
        }
    }

    /// A string that some type can be parsed from.
    pub(super) fn parsed<T>(&self, example: &str) -> Result<T, ConfigError>
    where
        T: std::str::FromStr<Err = crate::deploy::NameError>,
    {
        let text = self.text(example)?;
        text.parse().map_err(|error: crate::deploy::NameError| {
            self.error(format!("{:?} is no {}", text, error.what), error.rule)
        })
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&'static str, T)]) -> Result<T, ConfigError> {
        let known = || {
            let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            format!("write {}", quoted.join(" or "))
        };
        let DeValue::String(text) = &self.value else {
            return Err(self.wrong_type(known()));
        };
        words
            .iter()
            .find(|(word, _)| word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| self.error(format!("{text:?} is not one of its values"), known()))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        match self.value {
            DeValue::Boolean(flag) => Ok(flag),
            _ => Err(self.wrong_type("write true or false, without quotes")),
        }
    }

    /// A number as it is written, if it is one without sign and exponent.
    pub(super) fn decimal(&self) -> Option<String> {
        let written = match &self.value {
            DeValue::Integer(digits) if digits.radix() == 10 => digits.as_str(),
            DeValue::Float(digits) => digits.as_str(),
            _ => return None,
        };
        let plain = |b: u8| b.is_ascii_digit() || b == b'.';
        written.bytes().all(plain).then(|| written.to_owned())
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, from: u32, to: u32) -> Result<u32, ConfigError> {
        let remedy = || format!("write a whole number from {from} to {to}, without quotes");
        let DeValue::Integer(digits) = &self.value else {
            return Err(self.wrong_type(remedy()));
        };
        u32::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .filter(|number| (from..=to).contains(number))
            .ok_or_else(|| self.error(format!("{digits} is out of range"), remedy()))
    }

    /// A whole number that is not negative, as large as TOML has them; nothing if it is none.
    pub(super) fn bytes(&self) -> Option<u64> {
        let DeValue::Integer(digits) = &self.value else {
            return None;
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok()?;
        u64::try_from(number).ok()
    }

    /// A span of time.
    pub(super) fn span(&self, example: &str) -> Result<std::time::Duration, ConfigError> {
        let remedy = || {
            format!(
                "write a number and ms, s, m, h or d: `{}`",
                self.line(example)
            )
        };
        let text = match &self.value {
            DeValue::String(text) => text,
            DeValue::Integer(digits) => {
                return Err(self.error(format!("{digits} has no unit"), remedy()));
            }
            _ => return Err(self.wrong_type(remedy())),
        };
        span::parse(text)
            .ok_or_else(|| self.error(format!("{text:?} is not a span of time"), remedy()))
    }

    /// A span of time that is not nothing; `example` shows one.
    pub(super) fn lasting(&self, example: &str) -> Result<std::time::Duration, ConfigError> {
        let example = format!("\"{example}\"");
        let span = self.span(&example)?;
        if span.is_zero() {
            return Err(self.error(
                "no time at all is not enough",
                format!("write for instance `{} = {example}`", self.own_key()),
            ));
        }
        Ok(span)
    }

    /// An array of strings, each with its own place.
    pub(super) fn list(&self, example: &str) -> Result<Vec<Value<'t>>, ConfigError> {
        let DeValue::Array(items) = &self.value else {
            return Err(self.wrong_type(format!("write an array: `{}`", self.line(example))));
        };
        Ok(items
            .iter()
            .map(|item| Value {
                source: self.source,
                key: self.key.clone(),
                own: self.own,
                span: item.span(),
                value: item.get_ref().clone(),
            })
            .collect())
    }

    /// Whether it is a string.
    pub(super) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Whether it is a whole number.
    pub(super) fn is_number(&self) -> bool {
        self.value.is_integer()
    }

    /// A table of its own.
    pub(super) fn section(self, example: &str) -> Result<Section<'t>, ConfigError> {
        let refusal = self.wrong_type(format!("write a table: `{example}`"));
        let DeValue::Table(entries) = self.value else {
            return Err(refusal);
        };
        Ok(Section {
            source: self.source,
            prefix: format!("{}.", self.key),
            entries,
            asked: Vec::new(),
        })
    }

    fn line(&self, example: &str) -> String {
        format!("{} = {example}", self.own_key())
    }
}

/// The text is no TOML.
pub(super) fn no_toml(source: Source<'_>, error: &toml::de::Error) -> ConfigError {
    source.at(
        error.span().unwrap_or(0..0),
        "",
        error.message(),
        "write TOML: `key = \"value\"` on each line (https://toml.io)",
    )
}

fn article(value: &DeValue<'_>) -> String {
    let kind = value.type_str();
    let article = if matches!(value, DeValue::Integer(_) | DeValue::Array(_)) {
        "an"
    } else {
        "a"
    };
    format!("{article} {kind}")
}

/// The known word that differs in at most two letters, if there is one.
pub fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, by rows.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
