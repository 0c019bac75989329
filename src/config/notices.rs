//! `[[notices]]` of an app's file: who is told elsewhere of what happens.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use sha2::{Digest, Sha256};

use super::error::ConfigError;
use super::remote::file;
use super::section::Value;
use crate::deploy::Topic;

/// A receiver, as it is shown to whoever wrote none.
const EXAMPLE: &str = "\"https://example.org/hooks/slot\"";

/// A file of root's, as it is shown to whoever wrote another.
const SECRET: &str = "\"/etc/slot/keys/notices\"";

/// Somebody who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// `url = "https://example.org/hooks/slot"`.
    pub url: String,
    /// `events = ["ended", "rolled-back"]`: of what.
    pub topics: BTreeSet<Topic>,
    /// `secret_file = "/etc/slot/keys/notices"`: with what its notices are signed, which PID 1 reads for whoever sends them.
    pub secret_file: Option<String>,
}

impl Receiver {
    /// By what it is known between slotd and whoever sends, and on disk: the same as long as its URL is.
    #[must_use]
    pub fn key(&self) -> String {
        use std::fmt::Write as _;
        let digest = Sha256::digest(self.url.as_bytes());
        digest.iter().take(8).fold(String::new(), |mut key, byte| {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
            key
        })
    }

    /// Where it is, without what of its URL may be for its own eyes: `https://example.org`.
    #[must_use]
    pub fn place(&self) -> &str {
        let host = self.url.find("://").map_or(0, |at| at + 3);
        let end = self.url[host..].find(['/', '?', '#']);
        end.map_or(&self.url, |end| &self.url[..host + end])
    }

    /// Why its secret may be known to others, if that can be seen.
    #[must_use]
    pub fn secret_problem(&self) -> Option<String> {
        let path = self.secret_file.as_deref()?;
        let about = fs::metadata(path).ok()?;
        (about.permissions().mode() & 0o007 != 0).then(|| {
            format!(
                "everybody on this machine may read {path}, the secret of a receiver of notices; `chmod o= {path}`, and if it may have \
                 been read, make another"
            )
        })
    }
}

/// `[[notices]]`, if the file has it.
pub(super) fn notices(value: Option<Value<'_>>) -> Result<Vec<Receiver>, ConfigError> {
    let mut found: Vec<Receiver> = Vec::new();
    let Some(value) = value else {
        return Ok(found);
    };
    if value.is_table() {
        return Err(value.error(
            "it is one table",
            "write it as one of several: `[[notices]]`",
        ));
    }
    for item in value.list("[[notices]]")? {
        let at = item.place();
        let receiver = receiver(item)?;
        if found.iter().any(|other| other.url == receiver.url) {
            return Err(at.error(
                "its `url` is there twice",
                "name all of its `events` in one",
            ));
        }
        found.push(receiver);
    }
    Ok(found)
}

fn receiver(value: Value<'_>) -> Result<Receiver, ConfigError> {
    let at = value.place();
    let mut keys = value.section("[[notices]]")?;
    let url = keys.take("url").map(|value| url(&value)).transpose()?;
    let topics = keys
        .take("events")
        .map(|value| topics(&value))
        .transpose()?;
    let secret_file = keys.take("secret_file");
    let secret_file = secret_file.map(|value| file(&value, SECRET)).transpose()?;
    keys.finish()?;
    let Some(url) = url else {
        return Err(at.error(
            "it does not say who is told",
            format!("write `url = {EXAMPLE}` in it"),
        ));
    };
    Ok(Receiver {
        url,
        topics: topics.unwrap_or_else(|| BTreeSet::from(Topic::USUAL)),
        secret_file,
    })
}

fn topics(value: &Value<'_>) -> Result<BTreeSet<Topic>, ConfigError> {
    let items = value.list("[\"ended\", \"rolled-back\"]")?;
    if items.is_empty() {
        return Err(value.error("it is empty", "name at least one, or remove the key"));
    }
    items.iter().map(|item| item.word(&Topic::ALL)).collect()
}

fn url(value: &Value<'_>) -> Result<String, ConfigError> {
    let url = value.text(EXAMPLE)?;
    match url_problem(&url) {
        None => Ok(url),
        Some(problem) => Err(value.error(problem, format!("write `url = {EXAMPLE}`"))),
    }
}

/// Why nothing is to be sent to a URL, if it is not. It is not repeated: it may have a token. A password has no place in it: it would be read by `ps`, and by whoever may read the
/// file.
fn url_problem(url: &str) -> Option<String> {
    let rest = url.strip_prefix("https://").or(url.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Some("it is no URL of http or https".to_owned());
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let plain = url
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\"\\#".contains(&byte));
    if host.contains('@') {
        return Some("it has a user in it, and others may read that".to_owned());
    }
    let port = host.rsplit_once(':').filter(|_| !host.ends_with(']'));
    let port_is_one = port.is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|it| it > 0));
    let name = port.map_or(host, |(name, _)| name);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    if !plain || !port_is_one || name.is_empty() || !name.bytes().all(named) {
        return Some("it is no URL".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_no_user() {
        for url in [
            "https://example.org/hooks/slot?a=b%20c",
            "http://127.0.0.1:9000",
            "http://[::1]:9000/x",
            "https://[::1]/x",
            "https://example.org",
        ] {
            assert_eq!(url_problem(url), None, "{url}");
        }
        for url in [
            "",
            "ftp://example.org/",
            "https://",
            "https:///x",
            "https://me:secret@example.org/",
            "https://example.org/two words",
            "https://example.org:0/",
            "https://example.org:x/",
            "https://example.org/\u{e4}",
            "example.org",
        ] {
            assert!(url_problem(url).is_some(), "{url}");
        }
    }

    #[test]
    fn only_the_host_of_a_receiver_is_shown() {
        let place = |url: &str| {
            let receiver = Receiver {
                url: url.to_owned(),
                topics: BTreeSet::new(),
                secret_file: None,
            };
            receiver.place().to_owned()
        };
        assert_eq!(place("https://example.org/t/secret"), "https://example.org");
        assert_eq!(place("https://example.org?t=secret"), "https://example.org");
        assert_eq!(place("http://[::1]:80"), "http://[::1]:80");
    }
}
