//! What slotctl's exit status says.

use std::process::ExitCode;

use super::client::ClientError;
use crate::config::ConfigError;

/// Every exit status of slotctl. They never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// The deployment failed, or slotd refused or could not do what was asked.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// slotd cannot be reached.
    Unreachable = 3,
    /// Not allowed: root or the group `slot` is needed.
    Forbidden = 4,
    /// Another deployment is in progress.
    Busy = 5,
    /// A file, a path or a name was refused before anything began.
    Input = 6,
    /// There is no such app or slot.
    NotFound = 7,
    /// Ctrl-C; the deployment that was watched goes on.
    Interrupted = 130,
}

/// As `--help` and slotctl(1) show it.
pub const TABLE: &str = "\
Exit status:
  0    done
  1    the deployment failed, or slotd refused or could not do what was asked
  2    the command line makes no sense
  3    slotd cannot be reached
  4    not allowed: root or the group `slot` is needed
  5    another deployment is in progress
  6    a file, a path or a name was refused before anything began
  7    there is no such app or slot
  130  interrupted by Ctrl-C; a deployment that was watched goes on";

/// An error that slotctl itself finds: one sentence or more, with what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// What the process exits with.
    pub exit: Exit,
    /// For people.
    pub text: String,
}

impl Exit {
    /// An error that ends slotctl with this status.
    pub fn because(self, text: impl Into<String>) -> anyhow::Error {
        Refused {
            exit: self,
            text: text.into(),
        }
        .into()
    }

    /// The status that an error stands for.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(|cause| {
                if let Some(refused) = cause.downcast_ref::<Refused>() {
                    Some(refused.exit)
                } else if let Some(client) = cause.downcast_ref::<ClientError>() {
                    Some(client.exit())
                } else {
                    cause.downcast_ref::<ConfigError>().map(|_| Self::Input)
                }
            })
            .unwrap_or(Self::Failed)
    }

    /// The word for it where JSON is asked for and slotd gave none.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
            Self::Busy => "busy",
            Self::Input => "refused-input",
            Self::NotFound => "not-found",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_in_the_table() {
        for exit in [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Forbidden,
            Exit::Busy,
            Exit::Input,
            Exit::NotFound,
            Exit::Interrupted,
        ] {
            let number = exit as u8;
            assert!(
                TABLE
                    .lines()
                    .any(|line| line.trim().starts_with(&format!("{number} "))),
                "{exit:?}"
            );
        }
    }

    #[test]
    fn the_status_is_found_below_the_context() {
        let error = Exit::Busy.because("busy").context("cannot deploy");
        assert_eq!(Exit::of(&error), Exit::Busy);
        assert_eq!(Exit::of(&anyhow::anyhow!("else")), Exit::Failed);
    }
}
