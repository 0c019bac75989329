//! One line of what the doctor says.

use std::path::PathBuf;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It could not be looked at, which is neither good nor bad.
    Unseen,
    /// It serves, and somebody should do something about it.
    Warning,
    /// Something does not work, or will not when it is needed.
    Problem,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unseen => "unseen",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What `--fix` does: only what takes nothing away from anybody, and comes to the same when it is done twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mend {
    /// `systemctl daemon-reload`.
    Reload,
    /// `systemctl reset-failed UNIT`: a unit that nothing needs now.
    ResetFailed(String),
    /// `systemd-tmpfiles --create slot.conf`: the package's own directories, with their owners and modes.
    Directories,
    /// Removes a file that a crash left and that no process has open.
    Remove(PathBuf),
}

impl Mend {
    /// What it does, as a command.
    #[must_use]
    pub fn command(&self) -> String {
        match self {
            Self::Reload => "systemctl daemon-reload".to_owned(),
            Self::ResetFailed(unit) => format!("systemctl reset-failed {unit}"),
            Self::Directories => "systemd-tmpfiles --create slot.conf".to_owned(),
            Self::Remove(path) => format!("rm {}", path.display()),
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was looked at, in a word that never changes: `unit-stale`.
    pub check: &'static str,
    /// On what: a unit, a path, a port.
    pub object: String,
    /// How it is, in a sentence that begins with the object.
    pub text: String,
    /// Why that matters; empty where the text says it.
    pub why: String,
    /// What to do; empty where there is nothing to do.
    pub remedy: String,
    /// The command that says more; empty where there is none.
    pub journal: String,
    /// What `--fix` does about it, if that is safe.
    pub mend: Option<Mend>,
}

impl Finding {
    fn new(level: Level, check: &'static str, object: &str, text: impl Into<String>) -> Self {
        Self {
            level,
            check,
            object: object.to_owned(),
            text: text.into(),
            why: String::new(),
            remedy: String::new(),
            journal: String::new(),
            mend: None,
        }
    }

    pub(super) fn ok(check: &'static str, object: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, object, text)
    }

    pub(super) fn unseen(check: &'static str, object: &str, why: impl Into<String>) -> Self {
        Self::new(Level::Unseen, check, object, "could not be looked at").because(why)
    }

    pub(super) fn warning(check: &'static str, object: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Warning, check, object, text)
    }

    pub(super) fn problem(check: &'static str, object: &str, text: impl Into<String>) -> Self {
        Self::new(Level::Problem, check, object, text)
    }

    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    pub(super) fn mended_by(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    pub(super) fn told_by(mut self, journal: impl Into<String>) -> Self {
        self.journal = journal.into();
        self
    }

    /// The remedy is a command that `--fix` runs as well.
    pub(super) fn fixed_by(mut self, mend: Mend) -> Self {
        self.remedy = format!("`{}` (or `slotctl doctor --fix`)", mend.command());
        self.mend = Some(mend);
        self
    }
}
