//! `slotctl launch`: the `ExecStart=` of an app's unit. It becomes the app.
//!
//! It runs as the app's own user, so that no file of a release is ever read with more rights than the app has. An env file outside of
//! the release is one that only root can replace, and comes as a credential.
//!
//! **Invariant:** it execs, or it fails; it makes no process, so the app keeps the PID that systemd knows (and that
//! `LISTEN_PID` names).

use std::convert::Infallible;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow};

use super::term::note;
use crate::config::is_reserved;
use crate::deploy::{AppName, SlotName};
use crate::launch::{Env, EnvFile, Launch, Order, launch as compute};
use crate::release::{seed, shared};
use crate::units::CREDENTIAL;

/// What the unit's `ExecStart=` says.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--app`.
    pub app: AppName,
    /// `--slot`.
    pub slot: SlotName,
    /// `--root`: the directory of all apps, `/var/lib/slot`.
    pub root: PathBuf,
    /// `--env-file`: absolute, read by PID 1 as a credential of the unit, or relative to the release.
    pub env_file: Option<PathBuf>,
    /// `--shared-dir`, each: a directory of the release that is in `$STATE_DIRECTORY/shared` instead.
    pub shared_dirs: Vec<String>,
    /// What follows `--`.
    pub command: Vec<String>,
}

/// Why the app did not come to run.
#[derive(Debug)]
pub struct Failure {
    /// The exit status, one that systemd shows by name (systemd.exec(5), "Process exit codes").
    pub code: u8,
    /// What to tell.
    pub error: anyhow::Error,
}

/// `CHDIR`: the slot has no release.
const NO_RELEASE: u8 = 200;
/// `EXEC`: the program cannot be run.
const NO_PROGRAM: u8 = 203;
/// `STATE_DIRECTORY`: the app's own data cannot be had.
const NO_STATE: u8 = 238;
/// `CONFIG`: the app's file or its env file is wrong.
const BAD_CONFIG: u8 = 78;

/// Becomes the app of a slot.
///
/// # Errors
/// If there is no release, the env file or the command makes no sense, or the program cannot be run.
pub fn launch(request: &Request) -> Result<Infallible, Failure> {
    let link = request
        .root
        .join(request.app.as_str())
        .join(request.slot.as_str());
    // The symlink may move on while the app runs; its directory must not.
    let release = link.canonicalize().map_err(|error| Failure {
        code: NO_RELEASE,
        error: anyhow!(error).context(format!(
            "{} leads to no release; `slotctl deploy` puts one there",
            link.display()
        )),
    })?;
    share(&release, &request.shared_dirs)?;
    let launch = launch_of(
        &request.command,
        &release,
        request.env_file.as_deref(),
        Env::new(),
    )?;
    std::env::set_current_dir(&launch.cwd)
        .with_context(|| format!("cannot enter {}", launch.cwd.display()))
        .map_err(|error| Failure {
            code: NO_RELEASE,
            error,
        })?;
    Err(Failure {
        code: NO_PROGRAM,
        error: become_app(&launch),
    })
}

/// How a command is executed in a release, in the environment that systemd has given to this process, with these facts besides.
pub(super) fn launch_of(
    command: &[String],
    release: &Path,
    env_file: Option<&Path>,
    facts: Env,
) -> Result<Launch, Failure> {
    let config = |error| Failure {
        code: BAD_CONFIG,
        error,
    };
    let path = env_file.map(|path| release.join(path));
    let text = path
        .as_deref()
        .map(|path| read_env_file(path, env_file == Some(path)))
        .transpose()
        .map_err(config)?;
    // What systemd put into the environment of this process is this run's own.
    let (mut injected, inherited): (Env, Env) =
        std::env::vars_os().partition(|(name, _)| name.to_str().is_some_and(is_reserved));
    injected.extend(facts);
    compute(&Order {
        command,
        release,
        inherited: &inherited,
        env: &std::collections::BTreeMap::new(),
        env_file: path
            .as_deref()
            .zip(text.as_deref())
            .map(|(path, text)| EnvFile { path, text }),
        injected: &injected,
    })
    .map_err(|error| config(error.into()))
}

/// Makes the app's shared directories where they are not there yet, as the app's own user.
fn share(release: &Path, directories: &[String]) -> Result<(), Failure> {
    if directories.is_empty() {
        return Ok(());
    }
    let failed = |error| Failure {
        code: NO_STATE,
        error,
    };
    let data = std::env::var_os("STATE_DIRECTORY").ok_or_else(|| {
        failed(anyhow!(
            "there is no STATE_DIRECTORY for shared_dirs; the app's unit sets it"
        ))
    })?;
    for directory in directories {
        if !release.join(directory).is_symlink() {
            note(&format!(
                "slotctl: {directory} of this release is its own, and is lost with it: the release was put on disk before shared_dirs \
                 named it\n"
            ));
        }
    }
    seed(release, directories, &shared(Path::new(&data))).map_err(|error| failed(error.into()))
}

/// An absolute one is where PID 1 put its copy (systemd.exec(5), `LoadCredential=`), unless the unit is from before it did so.
fn read_env_file(path: &Path, absolute: bool) -> anyhow::Result<String> {
    let copy = std::env::var_os("CREDENTIALS_DIRECTORY")
        .filter(|_| absolute)
        .map(|directory| Path::new(&directory).join(CREDENTIAL))
        .filter(|copy| copy.exists());
    std::fs::read_to_string(copy.as_deref().unwrap_or(path)).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied if absolute => {
                "; `systemctl daemon-reload` lets root read it for the app"
            }
            ErrorKind::PermissionDenied => "; let every user read it in the release",
            ErrorKind::NotFound => "; make it, or remove `env_file`",
            _ => "",
        };
        anyhow!(error).context(format!("cannot read env_file {}{remedy}", path.display()))
    })
}

/// Returns only when it failed.
fn become_app(launch: &Launch) -> anyhow::Error {
    let Some((program, arguments)) = launch.argv.split_first() else {
        return anyhow!("the command is empty");
    };
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&launch.env)
        .exec();
    let path = Path::new(program);
    let remedy = match error.kind() {
        // execve(2) says the same of a script whose interpreter is not there.
        ErrorKind::NotFound if path.is_absolute() && path.exists() => {
            "; the file is there, but not the interpreter or loader that it names"
        }
        // The working directory is the release.
        ErrorKind::NotFound if !path.is_absolute() && path.exists() => {
            "; it is in no directory of PATH, but in the release: write ./ before it in `command`"
        }
        ErrorKind::NotFound if !path.is_absolute() => {
            "; it is in no directory of PATH (write ./ before a program of the release)"
        }
        ErrorKind::NotFound => "; the release has no such file",
        ErrorKind::PermissionDenied => "; make it executable (chmod +x)",
        _ => "",
    };
    anyhow!(error).context(format!("cannot run {}{remedy}", path.display()))
}
