//! What people read of a run: log lines for journald or a terminal, and errors with all their causes.
//!
//! Fields are written in lower case where a line is logged (`slot_app = %app`); journald has them in upper case, so that
//! `journalctl SLOT_APP=web` tells the whole story of an app:
//!
//! | field | what |
//! |---|---|
//! | `slot_app` | the app's name |
//! | `slot_name` | the slot's |
//! | `slot_release` | the release id |
//! | `slot_generation` | the attempt's number |
//! | `slot_phase` | `preparing`, `starting`, … |
//! | `slot_cause` | why an attempt ended: `switched`, `start-timeout`, … |
//! | `message_id` | what kind of line it is, where that is explained ([`message`]) |
//!
//! What slotd tells of an app also has how it stands then ([`Standing`](crate::wire::api::Standing)): `slot_state`; `slot_active`,
//! `slot_candidate` and `slot_old`, each with `…_release` and `…_boot_id`; `slot_switched_at_ms`, `slot_health_fail_streak`,
//! `slot_rollback_cause`, `slot_rollback_at_ms`, `slot_initiated_by`, `slot_commit`, `slot_previous_commit`.
//!
//! Who changed what by the API has fields of its own, from `slot_audit` on; `src/api/audit.rs` lists them.
//!
//! **Invariant:** nothing here decides anything, and no line is needed for correctness.

pub mod message;

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::linux::fs::MetadataExt;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Names what is logged when the default, `info`, is not enough: `SLOT_LOG=debug`, `SLOT_LOG=slot::router=trace`.
pub const LEVEL_VARIABLE: &str = "SLOT_LOG";

/// Reports an error where no journal may run yet: to standard error, and to the kernel's log, which early in a boot is the only one
/// (systemd.generator(7)).
pub fn tell_kernel(name: &str, message: &str) {
    eprintln!("{name}: {message}");
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        // Priority 3 of facility 3, a daemon's error (syslog(3)). There is nowhere left to report that this failed.
        let _ = log.write_all(format!("<27>{name}: {message}\n").as_bytes());
    }
}

/// Sends log lines to journald if this process was started by systemd, else to stderr. `name` is the SYSLOG_IDENTIFIER.
///
/// # Errors
/// If logging was set up before.
pub fn init(name: &str) -> Result<(), TryInitError> {
    let level = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var(LEVEL_VARIABLE)
        .from_env_lossy();
    let lines = tracing_subscriber::registry().with(level);
    let journal = stderr_is_journal()
        .then(tracing_journald::layer)
        .and_then(Result::ok)
        .map(|layer| {
            layer
                .with_field_prefix(None)
                .with_syslog_identifier(name.to_owned())
        });
    match journal {
        Some(journal) => lines.with(journal).try_init(),
        // journald stamps the time by itself when it reads stderr; a terminal's reader wants it.
        None => lines
            .with(
                fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(is_colourful(&std::io::stderr()))
                    .with_target(false),
            )
            .try_init(),
    }
}

/// Whether stderr goes to journald (systemd.exec(5), `$JOURNAL_STREAM`): the variable alone is inherited by children
/// whose stderr is something else.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stderr) = std::fs::metadata("/dev/stderr") else {
        // Under a sandbox without /dev/stderr the variable is the best there is.
        return true;
    };
    stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino())
}

/// Whether colours may be used: a terminal that knows them, and the user did not set `NO_COLOR` (no-color.org).
#[must_use]
pub fn is_colourful(stream: &impl IsTerminal) -> bool {
    stream.is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// An error and its causes in one line, outermost first. A cause whose words the error before it already has is left out.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !line.ends_with(&words) {
            line.push_str(": ");
            line.push_str(&words);
        }
        cause = error.source();
    }
    line
}

/// `1.5 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // Three digits are shown.
    let scaled = |unit: u64| count as f64 / unit as f64;
    match count {
        0..0x400 => format!("{count} B"),
        0x400..0x10_0000 => format!("{:.1} KiB", scaled(0x400)),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", scaled(0x10_0000)),
        _ => format!("{:.1} GiB", scaled(0x4000_0000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Layered {
        words: &'static str,
        #[source]
        source: Option<Box<Layered>>,
    }

    fn layered(words: &[&'static str]) -> Option<Box<Layered>> {
        let (words, rest) = words.split_first()?;
        Some(Box::new(Layered {
            words,
            source: layered(rest),
        }))
    }

    #[test]
    fn a_chain_reads_from_the_operation_to_the_root_cause() {
        let error = layered(&["cannot write /etc/x", "cannot rename", "disk full"]).unwrap();
        assert_eq!(
            chain(&*error),
            "cannot write /etc/x: cannot rename: disk full"
        );
    }

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again() {
        let error = layered(&["cannot rename: disk full", "disk full"]).unwrap();
        assert_eq!(chain(&*error), "cannot rename: disk full");
    }
}
