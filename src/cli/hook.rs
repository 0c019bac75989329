//! `slotctl hook`: the `ExecStart=` of `slot-hook@`. It asks slotd which hook it is, and runs the app's command for that in the release.
//!
//! **Invariant:** it runs nothing but what its own command line says, whatever slotd asks for.
//! **Invariant:** it ends when slotd's side is closed, and the unit ends with it: a hook that nobody waits for does not go on.

use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};

use super::build::{BAD_CONFIG, called, end_with, execute, failed};
use super::launch::{Failure, launch_of};
use crate::deploy::{AppName, ReleaseId};
use crate::wire::hook;

/// What the unit's `ExecStart=` says.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--app`.
    pub app: AppName,
    /// `--root`: the directory of all apps, `/var/lib/slot`.
    pub root: PathBuf,
    /// `--socket`: where slotd waits.
    pub socket: PathBuf,
    /// `--env-file`, as for the app itself.
    pub env_file: Option<PathBuf>,
    /// Each hook's name and command.
    pub commands: Vec<(&'static str, Vec<String>)>,
}

/// Runs one hook.
///
/// # Errors
/// The command did not end with status 0, or something around it failed.
pub fn run(request: &Request) -> Result<(), Failure> {
    let (stream, order) = called::<hook::Order>(&request.socket, "run").map_err(failed)?;
    let mut own = request.commands.iter();
    if !own.any(|(name, command)| *name == order.hook && *command == order.command) {
        return Err(Failure {
            code: BAD_CONFIG,
            error: anyhow!(
                "slotd says that {} is {:?}, and the unit says otherwise; `systemctl daemon-reload` makes the unit anew",
                order.hook,
                order.command
            ),
        });
    }
    let id: ReleaseId = (order.release.parse())
        .map_err(|error| failed(anyhow!("there is no release to run in: {error}")))?;
    let app = request.root.join(request.app.as_str());
    let release = app.join("releases").join(id.as_str());
    let facts = order.facts.iter();
    let facts = facts.map(|(name, value)| (name.into(), value.into()));
    let launch = launch_of(
        &order.command,
        &release,
        request.env_file.as_deref(),
        facts.collect(),
    )?;
    let mut to = stream
        .try_clone()
        .context("cannot answer slotd")
        .map_err(failed)?;
    let answered = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&answered);
    std::thread::spawn(move || end_with(BufReader::new(stream), &done));
    execute(&launch, &order.hook)?;
    answered.store(true, Ordering::SeqCst);
    to.write_all(hook::DONE.as_bytes())
        .and_then(|()| to.shutdown(Shutdown::Write))
        .context("cannot answer slotd")
        .map_err(failed)
}
