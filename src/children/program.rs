//! What a child executes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A listening socket that children are given as file descriptor 3 (`LISTEN_FDS`, sd_listen_fds(3)).
///
/// It stays open here while a child is started again, so that connections queue instead of being refused.
#[derive(Clone, Debug)]
pub struct Listener(pub Arc<OwnedFd>);

/// A program, ready to be executed.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments; the program is searched in the `PATH` of `env` unless it has a slash.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited beside it. `NOTIFY_SOCKET`, `INVOCATION_ID` and `LISTEN_*` are added for each run.
    pub env: BTreeMap<OsString, OsString>,
    /// The working directory, absolute; a relative program with a slash is looked up there.
    pub cwd: PathBuf,
    /// Up is when it says READY=1 (sd_notify(3)); else as soon as it is executed.
    pub notify: bool,
    /// A file that is removed before each run and after the last: the socket that a run makes for itself.
    pub leaves: Option<PathBuf>,
    /// Passed on as file descriptor 3.
    pub listener: Option<Listener>,
    /// How long it may take to be up; then the run is stopped, and fails with `timeout`.
    pub start_limit: Duration,
    /// From SIGTERM to SIGKILL.
    pub stop_limit: Duration,
    /// It is executed again when it ends by itself.
    pub restart: bool,
    /// SIGTERM is for the whole group, and SIGKILL comes when that limit is over, not when the main process is: that may be a shell,
    /// which passes no signal on.
    pub whole: bool,
}

impl Program {
    /// Removes what a run leaves.
    pub(super) fn clear(&self) -> io::Result<()> {
        let Some(path) = &self.leaves else {
            return Ok(());
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
