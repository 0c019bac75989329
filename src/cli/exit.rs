//! What slotctl's exit status says.

use std::fmt::Write;
use std::process::ExitCode;

use super::client::ClientError;
use crate::config::ConfigError;

/// Every exit status of slotctl. They never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// The deployment failed, another one is in progress, or slotd refused or failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// slotd cannot be reached.
    Unreachable,
    /// Not allowed: root or the group `slot` is needed.
    Forbidden,
    /// Another deployment is in progress: a refusal like others for a script that looks at the status alone, and `busy` in JSON.
    Busy,
    /// A file, a path or a name was refused before anything began.
    Input,
    /// There is no such app, slot or release.
    NotFound,
    /// The app is not as `--expected-generation` or `--expected-active` said; nothing was done.
    Unexpected,
    /// Ctrl-C; the deployment that was watched goes on.
    Interrupted,
}

/// What each status means, as `--help` and slotctl(1) show it.
pub const MEANINGS: [(Exit, &str); 9] = [
    (Exit::Ok, "done"),
    (
        Exit::Failed,
        "failed: the deployment, slotd, or what `doctor` looked at; or slotd refused",
    ),
    (Exit::Usage, "usage: the command line makes no sense"),
    (Exit::Unreachable, "slotd cannot be reached"),
    (
        Exit::Forbidden,
        "not allowed: root or the group `slot` is needed",
    ),
    (
        Exit::Input,
        "a file, a path or a name was refused before anything began",
    ),
    (Exit::NotFound, "there is no such app, slot or release"),
    (
        Exit::Unexpected,
        "the app is not as it was expected, and nothing was done",
    ),
    (
        Exit::Interrupted,
        "interrupted by Ctrl-C; a deployment that was watched goes on",
    ),
];

/// The table at the end of `--help`.
#[must_use]
pub fn table() -> String {
    let mut text = "Exit status:".to_owned();
    for (exit, meaning) in MEANINGS {
        let _ = write!(text, "\n  {:<3}  {meaning}", exit.status());
    }
    text
}

/// An error that slotctl itself finds: one sentence or more, with what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    /// What the process exits with.
    pub exit: Exit,
    /// For people.
    pub text: String,
}

/// How a command that has more to say than an error has ended: the first fields of its JSON.
#[derive(Debug, serde::Serialize)]
pub struct Ended {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Exit {
    /// It ended with this status, because of this if it is one of failure.
    #[must_use]
    pub fn ended(self, error: impl FnOnce() -> String) -> Ended {
        let failed = self != Self::Ok;
        Ended {
            success: !failed,
            code: failed.then(|| self.code()),
            error: failed.then(error),
        }
    }

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

    /// The number.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed | Self::Busy => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Forbidden => 4,
            Self::Input => 6,
            Self::NotFound => 7,
            Self::Unexpected => 8,
            Self::Interrupted => 130,
        }
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
            Self::Unexpected => "unexpected",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_found_below_the_context() {
        let error = Exit::Busy.because("busy").context("cannot deploy");
        assert_eq!(Exit::of(&error), Exit::Busy);
        assert_eq!(Exit::of(&anyhow::anyhow!("else")), Exit::Failed);
    }
}
