//! The machine's settings as a router takes them that has to start whatever they are: clients wait for it.
//!
//! **Invariant:** a wrong file is never taken in part. What holds instead is whole too: the last settings that were right, else the
//! defaults.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Machine, MachineError};
use crate::telemetry::chain;

/// What a router starts with.
#[derive(Debug, Default)]
pub struct Settings {
    /// What holds.
    pub machine: Machine,
    /// Why that is not what the file says, for people.
    pub problem: Option<String>,
}

impl Settings {
    /// Those of `file`, for a router with these listeners. Right ones are kept in the unit's own directory (`STATE_DIRECTORY`,
    /// systemd.exec(5)) for a start that finds wrong ones.
    ///
    /// # Errors
    /// The file is wrong, and this is no unit: whoever has started it by hand reads the error.
    pub fn read(file: &Path, listeners: &[&str]) -> Result<Self, MachineError> {
        let kept = std::env::var_os("STATE_DIRECTORY");
        match kept.map(|directory| PathBuf::from(directory).join("machine.toml")) {
            Some(kept) => Ok(Self::read_or(file, &kept, listeners)),
            None => parsed(file, Some(listeners)).map(|(machine, _)| Self {
                machine,
                problem: None,
            }),
        }
    }

    fn read_or(file: &Path, kept: &Path, listeners: &[&str]) -> Self {
        let error = match parsed(file, Some(listeners)) {
            Ok((machine, text)) => {
                if let Err(error) = keep(kept, &text) {
                    tracing::warn!(
                        "the settings are not kept in {} for a start that finds wrong ones: {error}",
                        kept.display()
                    );
                }
                return Self {
                    machine,
                    problem: None,
                };
            }
            Err(error) => chain(&error),
        };
        // A listener of then that is missing now is no reason to forget everything else.
        let (machine, which) = match parsed(kept, None) {
            Ok((machine, _)) if kept.exists() => (machine, "the last settings that were right"),
            _ => (Machine::default(), "the defaults"),
        };
        let problem = format!(
            "{error}. Until that is right, and `slotctl router upgrade` has had it read again, {which} hold"
        );
        Self {
            machine,
            problem: Some(problem),
        }
    }
}

fn parsed(file: &Path, listeners: Option<&[&str]>) -> Result<(Machine, String), MachineError> {
    let text = Machine::text(file)?;
    let machine = Machine::parse(&text, &file.display().to_string(), listeners)?;
    Ok((machine, text))
}

/// Replaces what is kept, if it is something else.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    // Instances that start at the same time do not write the same file.
    let new = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&new, text)?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_settings_that_were_right_hold_while_the_file_is_wrong() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name| directory.path().join(name);
        let (file, kept) = (at("file"), at("kept"));
        let read = |text: &str| {
            std::fs::write(&file, text).expect("a file");
            Settings::read_or(&file, &kept, &["http"])
        };
        let wrong = read("[limits]\nhead_bites = 1\n");
        assert_eq!(wrong.machine, Machine::default());
        let problem = wrong.problem.expect("it is wrong");
        let line = format!("{}:2: unknown key `limits.head_bites`", file.display());
        assert!(problem.starts_with(&line), "{problem}");
        assert!(problem.ends_with("the defaults hold"), "{problem}");

        let right = read("[limits]\nconnections = 7\n");
        assert_eq!(
            (right.machine.limits.connections, right.problem),
            (Some(7), None)
        );
        for text in ["[limits]\nconnections = 8\nx = 1\n", "not TOML"] {
            let wrong = read(text);
            assert_eq!(wrong.machine, right.machine);
            let problem = wrong.problem.expect("it is wrong");
            assert!(
                problem.ends_with("the last settings that were right hold"),
                "{problem}"
            );
        }
        assert_eq!(read("").machine, Machine::default(), "right again");
        let proxied = |name: &str| {
            read(&format!(
                "[router]\ntrusted_peers = [\"10.0.0.0/8\"]\nproxy_protocol = [\"{name}\"]\n"
            ))
        };
        let right = proxied("http").machine;
        let wrong = proxied("htpp");
        assert_eq!(wrong.machine, right);
        let problem = wrong.problem.expect("there is no such listener");
        assert!(
            problem.contains(
                ":3: router.proxy_protocol: the router has no listener \"htpp\"; write the FileDescriptorName= of one of its sockets: [\"http\"]"
            ),
            "{problem}"
        );
        let text = "[router]\ntrusted_peers = [\"10.0.0.0/8\"]\nproxy_protocol = [\"http\"]\n";
        std::fs::write(&file, text).expect("a file");
        let gone = Settings::read_or(&file, &kept, &["https"]);
        assert_eq!(
            gone.machine, right,
            "what is kept names a listener that was there"
        );
        assert!(gone.problem.is_some());
        std::fs::remove_file(&file).expect("it was there");
        assert_eq!(
            Settings::read_or(&file, &kept, &[]).problem,
            None,
            "none is needed"
        );
        let left = std::fs::read_dir(directory.path()).expect("it is there");
        assert_eq!(left.count(), 1, "only what is kept");
    }
}
