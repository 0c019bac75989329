//! slotd's API over TCP: where it listens, and for whom.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::super::app::systemctl;
use super::super::listeners::holders;
use super::apps::unseen;
use crate::doctor::{Seen, Tcp, Tokens, UnitFacts};
use crate::telemetry::chain;
use crate::wire::token::stored;

/// The unit.
const SOCKET: &str = "slotd-tcp.socket";

/// What systemd has handed to the slotd that runs (systemd.exec(5), "Credentials").
const GIVEN: &str = "/run/credentials/slotd.service/api-tokens";

/// Looks at it.
pub fn facts(root: bool, units: &BTreeMap<String, UnitFacts>) -> Tcp {
    let listen = systemctl(&["show", "--property=Listen", "--value", SOCKET]).unwrap_or_default();
    let words = listen.lines().filter_map(|line| line.split(' ').next());
    let addresses: Vec<_> = words.filter_map(|word| word.parse().ok()).collect();
    let has_failed = units.get(SOCKET).is_some_and(UnitFacts::has_failed);
    let wanted = addresses.iter().filter(|_| has_failed);
    let held = wanted.flat_map(|at: &std::net::SocketAddr| holders(at.port()));
    Tcp {
        holders: held.map(|holder| holder.to_string()).collect(),
        tokens: match root {
            true => tokens(),
            false => Err("only root may look at tokens: use sudo".to_owned()),
        },
        addresses,
    }
}

fn tokens() -> Seen<Tokens> {
    let settings = systemctl(&["cat", "slotd.service"]).map_err(|error| format!("{error:#}"))?;
    let given = fs::read_to_string(GIVEN).ok();
    let (text, changed) = match source(&settings) {
        Source::Encrypted => match given {
            Some(given) => (given, false),
            None => return Err("they are encrypted, and slotd does not run".to_owned()),
        },
        Source::File(path) => {
            let text = match fs::read_to_string(path) {
                Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
                read => read.map_err(|error| unseen(&error))?,
            };
            let changed = given.is_some_and(|given| lines(&given) != lines(&text));
            (text, changed)
        }
    };
    let known = stored(&text).map_err(|error| chain(&error));
    Ok(Tokens {
        known: known.map(|all| all.len()),
        changed,
    })
}

/// Where slotd's tokens come from.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    File(&'a Path),
    Encrypted,
}

/// By the settings of slotd's unit with its drop-ins, in their order: an encrypted one wins, else the last.
fn source(settings: &str) -> Source<'_> {
    let lines = || settings.lines().map(str::trim);
    if lines().any(|line| line.starts_with("LoadCredentialEncrypted=api-tokens")) {
        return Source::Encrypted;
    }
    let mut paths = lines().filter_map(|line| line.strip_prefix("LoadCredential=api-tokens:"));
    Source::File(Path::new(paths.next_back().unwrap_or(super::paths::TOKENS)))
}

/// The lines of a file of tokens that say something.
fn lines(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_from_the_file_that_the_unit_names_or_are_encrypted() {
        let unit = "# /usr/lib/systemd/system/slotd.service\n[Service]\nLoadCredential=api-tokens:/etc/slot/api-tokens\n\
                    SetCredential=api-tokens:#\n";
        let file = |path| Source::File(Path::new(path));
        assert_eq!(source(unit), file("/etc/slot/api-tokens"));
        let moved = format!("{unit}# drop-in\n[Service]\nLoadCredential=api-tokens:/srv/tokens\n");
        assert_eq!(source(&moved), file("/srv/tokens"));
        let encrypted =
            format!("{unit}LoadCredentialEncrypted=api-tokens:/etc/slot/api-tokens.cred\n");
        assert_eq!(source(&encrypted), Source::Encrypted);
    }

    #[test]
    fn a_comment_is_no_change() {
        assert_eq!(lines("#"), lines("\n# a token of CI\n"));
        assert_ne!(lines("#"), lines("ci:act:00\n"));
    }
}
