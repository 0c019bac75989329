//! The environment of an app: which variables are whose, and `env_file` and `[env]` of its file.

use std::collections::BTreeMap;
use std::path::Path;

use super::error::ConfigError;
use super::section::Value;

/// Whether the shell and systemd take it for the name of a variable (environ(7), "portable" names).
#[must_use]
pub fn is_env_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether slot or systemd sets the variable for each run of a slot, so that no file may.
///
/// systemd's are those of its protocols (sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), systemd.exec(5)): an
/// app that got another's would talk to the wrong socket.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("SLOT_")
        || matches!(
            name,
            "PORT"
                | "INTERNAL_PORT"
                | "SOCKET"
                | "LISTEN_FDS"
                | "LISTEN_FDNAMES"
                | "LISTEN_PID"
                | "NOTIFY_SOCKET"
                | "WATCHDOG_PID"
                | "WATCHDOG_USEC"
                | "CREDENTIALS_DIRECTORY"
                | "INVOCATION_ID"
                | "JOURNAL_STREAM"
        )
}

/// Directories in which slotd's user, or an app's, writes: PID 1 reads nothing there as root (design rule 12).
const NOT_FOR_ROOT: [&str; 4] = [
    "/var/lib/slot",
    "/run/slot",
    "/var/lib/slot-app",
    "/var/lib/private",
];

/// Whether only root writes where a path leads, as far as the path tells.
pub(super) fn roots_alone(path: &Path) -> bool {
    !path.components().any(|part| part.as_os_str() == "..")
        && !NOT_FOR_ROOT.iter().any(|place| path.starts_with(place))
}

/// `env_file`, as far as its path tells; [`super::App::check_installed`] looks at the file.
pub(super) fn env_file(value: &Value<'_>) -> Result<String, ConfigError> {
    const EXAMPLE: &str = "\"/etc/slot/web.env\"";
    let text = value.text(EXAMPLE)?;
    let path = Path::new(&text);
    if !text.starts_with('/') && !text.starts_with("./") {
        return Err(value.error(
            format!("{text:?} is relative to nothing"),
            "write an absolute path, or begin it with ./ for a file of the release",
        ));
    }
    // It stands in a unit as it is (LoadCredential=), where quotes mean nothing and the end of a line a lot.
    if text.contains(|c: char| c.is_control() || c == '\\') || text.trim_end() != text {
        return Err(value.error(
            format!("{text:?} has a character that no unit takes"),
            format!("give the file a plain name: `{EXAMPLE}`"),
        ));
    }
    if path.is_absolute() && !roots_alone(path) {
        return Err(value.error(
            format!("root reads {text} for the app, and not only root writes there"),
            format!("put it where only root writes, and write its path without `..`: `{EXAMPLE}`"),
        ));
    }
    Ok(text)
}

/// `[env]`.
pub(super) fn environment(
    value: Option<Value<'_>>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut env = BTreeMap::new();
    let Some(value) = value else {
        return Ok(env);
    };
    for value in value.section("[env]")?.into_entries() {
        let name = value.own_key().to_owned();
        if !is_env_name(&name) {
            return Err(value.error(
                "it is not the name of a variable",
                "use letters, digits and underscores, beginning with no digit",
            ));
        }
        if is_reserved(&name) {
            return Err(value.error(
                "slot sets it itself, for each slot",
                "remove it; for another variable with the same value write `$PORT` in the command",
            ));
        }
        let text = value.text("\"value\"")?;
        if unprintable(&text) {
            return Err(value.error(
                "its value has a control character",
                "write it without; only tabs and line breaks may be in a value",
            ));
        }
        env.insert(name, text);
    }
    Ok(env)
}

/// Control characters that systemd takes neither in a unit nor in an environment (string_has_cc in its sources).
pub(super) fn unprintable(text: &str) -> bool {
    text.chars()
        .any(|c| c.is_control() && c != '\t' && c != '\n')
}
