//! What is written in one word: a slot, a span of time.

use std::str::FromStr;
use std::time::Duration;

use crate::config::parse_span;
use crate::deploy::{AppName, Label, NameError};

/// A slot as somebody names it: `green`, `v2`, `1a2b3c4d`, `api:v2`. Which it is, slotd knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The app, if it is named.
    pub app: Option<AppName>,
    /// A slot, a release's id, or its label.
    pub name: String,
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (app, name) = match text.split_once(':') {
            Some((app, name)) => (Some(app.parse()?), name),
            None => (None, text),
        };
        // Whatever a slot is called, a label could be called too.
        let name: Label = name.parse()?;
        Ok(Self {
            app,
            name: name.to_string(),
        })
    }
}

/// A span of time, and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The span.
    pub length: Duration,
    /// Sent to slotd: `30000ms`.
    pub text: String,
}

pub(super) fn span(text: &str) -> Result<Span, String> {
    let length = parse_span(text).ok_or_else(|| {
        format!("{text:?} is not a span of time; write for instance 500ms, 30s, 10m, 1h30m or 0")
    })?;
    Ok(Span {
        length,
        text: format!("{}ms", length.as_millis()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_may_be_named_with_its_app() {
        let named = |text: &str| text.parse::<Target>().map(|it| (it.app, it.name));
        let app = |name: &str| Some(name.parse::<AppName>().unwrap());
        assert_eq!(named("green"), Ok((None, "green".to_owned())));
        assert_eq!(named("api:v2"), Ok((app("api"), "v2".to_owned())));
        assert_eq!(named("api:v2:rc1"), Ok((app("api"), "v2:rc1".to_owned())));
        for wrong in ["", ":green", "web:", "Web:green", "a b", "a/b"] {
            assert!(named(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn spans_are_sent_in_milliseconds() {
        assert_eq!(span("1m 30s").unwrap().text, "90000ms");
        assert!(span("30").unwrap_err().contains("30s"));
    }
}
