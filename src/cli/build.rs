//! `slotctl build`: the `ExecStart=` of `slot-setup@`. It makes a release ready where slotd cannot: as the build's own user.
//!
//! It is handed the release by slotd, runs the app's `setup_command` in it, under the path that the release will have, and hands back
//! what has become of it. What the command prints is the unit's, and so the journal's.
//!
//! **Invariant:** nothing is handed back but what a command left that ended with status 0.
//! **Invariant:** it ends when slotd's side is closed, and the unit ends with it: a build that nobody waits for does not go on.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;

use super::launch::Failure;
use super::term::note;
use crate::config::is_reserved;
use crate::deploy::{AppName, ReleaseId};
use crate::launch::{Env, Launch, Order, launch};
use crate::release;
use crate::wire::setup;

/// What the unit's `ExecStart=` says.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--app`.
    pub app: AppName,
    /// `--root`: the directory of all apps, `/var/lib/slot`.
    pub root: PathBuf,
    /// `--socket`: where slotd waits.
    pub socket: PathBuf,
    /// What follows `--`.
    pub command: Vec<String>,
}

/// Nothing more particular is known.
const FAILED: u8 = 1;
/// `EXEC` (systemd.exec(5), "Process exit codes"): the program cannot be run.
const NO_PROGRAM: u8 = 203;
/// `CONFIG`: the unit is not of the app's file.
pub(super) const BAD_CONFIG: u8 = 78;

/// Builds one release.
///
/// # Errors
/// The command did not end with status 0, or something around it failed.
pub fn build(request: &Request) -> Result<(), Failure> {
    let releases = request.root.join(request.app.as_str()).join("releases");
    // ExecStopPost= does it after a build, unless the machine went down.
    release::clear(&releases).map_err(|error| failed(error.into()))?;
    let (stream, order) = called::<setup::Order>(&request.socket, "build").map_err(failed)?;
    if order.command != request.command {
        return Err(Failure {
            code: BAD_CONFIG,
            error: anyhow!(
                "slotd says that setup_command is {:?}, and the unit {:?}; `systemctl daemon-reload` makes the unit anew, then deploy again",
                order.command,
                request.command
            ),
        });
    }
    let id: ReleaseId = order
        .release
        .parse()
        .map_err(|error| failed(anyhow!("{error}")))?;
    let directory = releases.join(id.as_str());
    let mut from = BufReader::with_capacity(1 << 16, stream);
    let taken = fs::create_dir(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))
        .and_then(|()| Ok(release::unpack_own(&mut from, &directory)?));
    taken.map_err(failed)?;
    let to = from.get_ref().try_clone();
    let to = to.context("cannot answer slotd").map_err(failed)?;
    let handed_back = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&handed_back);
    std::thread::spawn(move || end_with(from, &done));
    run(&request.command, &directory)?;
    let mut out = BufWriter::with_capacity(1 << 16, &to);
    release::pack(&directory, &mut out)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(out.flush()?))
        .and_then(|()| {
            // slotd closes its side when it has read the end.
            handed_back.store(true, Ordering::SeqCst);
            Ok(to.shutdown(Shutdown::Write)?)
        })
        .context("cannot hand the release back to slotd")
        .map_err(failed)
}

pub(super) fn failed(error: anyhow::Error) -> Failure {
    Failure {
        code: FAILED,
        error,
    }
}

/// Asks slotd what there is to do.
pub(super) fn called<T: DeserializeOwned>(
    socket: &Path,
    what: &str,
) -> anyhow::Result<(UnixStream, T)> {
    let cannot = || {
        format!(
            "cannot ask slotd at {} what to {what}; deploy, which starts this unit",
            socket.display()
        )
    };
    let mut stream = UnixStream::connect(socket).with_context(cannot)?;
    let mut line = Vec::new();
    // Byte by byte: what comes after the line is the archive.
    let mut byte = [0];
    while stream.read_exact(&mut byte).with_context(cannot).is_ok() && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let order = serde_json::from_slice(&line).with_context(cannot)?;
    Ok((stream, order))
}

/// slotd says nothing more; when its side is closed, nobody waits any more. PID 1 then ends what else the unit has.
pub(super) fn end_with(mut slotd: BufReader<UnixStream>, handed_back: &AtomicBool) {
    loop {
        match slotd.fill_buf().map(<[u8]>::len) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(more) => slotd.consume(more),
        }
    }
    if handed_back.load(Ordering::SeqCst) {
        return;
    }
    note("slotctl: the deployment has ended, and so this does\n");
    std::process::exit(FAILED.into());
}

/// Runs the app's command to its end.
fn run(command: &[String], release: &Path) -> Result<(), Failure> {
    let (injected, inherited): (Env, Env) =
        std::env::vars_os().partition(|(name, _)| name.to_str().is_some_and(is_reserved));
    let launch = launch(&Order {
        command,
        release,
        inherited: &inherited,
        env: &std::collections::BTreeMap::new(),
        env_file: None,
        injected: &injected,
    })
    .map_err(|error| Failure {
        code: BAD_CONFIG,
        error: error.into(),
    })?;
    execute(&launch, "setup_command")
}

/// Runs a command of the app's to its end; `what` is what the app's file calls it.
pub(super) fn execute(launch: &Launch, what: &str) -> Result<(), Failure> {
    let (program, arguments) = launch
        .argv
        .split_first()
        .expect("a launch has a program, or it is an error");
    let ended = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&launch.env)
        .current_dir(&launch.cwd)
        .stdin(Stdio::null())
        .status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ended_badly(status, what)),
        Err(error) => {
            let program = Path::new(program);
            let remedy = match error.kind() {
                ErrorKind::NotFound if program.is_absolute() => "; the release has no such file",
                ErrorKind::NotFound => {
                    "; it is in no directory of PATH: install it, or write ./ before a program of the release"
                }
                ErrorKind::PermissionDenied => "; make it executable (chmod +x)",
                _ => "",
            };
            Err(Failure {
                code: NO_PROGRAM,
                error: anyhow!(error).context(format!("cannot run {}{remedy}", program.display())),
            })
        }
    }
}

/// The command's own status, or that of a shell whose last command was killed: 128 and the signal.
fn ended_badly(status: ExitStatus, what: &str) -> Failure {
    let (code, how) = match (status.code(), status.signal()) {
        (Some(code), _) => (code, format!("exited with status {code}")),
        (None, signal) => {
            let number = signal.unwrap_or_default();
            let name = Signal::try_from(number)
                .map_or_else(|_| format!("signal {number}"), |signal| signal.to_string());
            (128 + number, format!("was killed by {name}"))
        }
    };
    Failure {
        code: u8::try_from(code).unwrap_or(FAILED),
        error: anyhow!("{what} {how}"),
    }
}
