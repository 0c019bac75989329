//! One run's processes: a process group that dies with this process.
//!
//! The leader of the group is not the app but a keeper, a shell that waits for the end of its standard input. The other end of that
//! pipe is here and nowhere else (it is close-on-exec), so the kernel closes it when this process ends, however it ends: the keeper
//! reads the end of the file and kills its group, itself included. The app joins the group between fork and exec, so there is no moment
//! at which it runs unguarded.
//!
//! `PR_SET_PDEATHSIG` (prctl(2)) would not do: it follows the *thread* that forked, is lost on exec of a set-uid program, and is not
//! inherited by the app's own children. As the keeper stays unreaped until the group is done with, the group's id cannot become
//! another's, and a signal to the group never goes astray.
//!
//! **Invariant:** dropping a [`Group`] kills every process in it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::program::Program;

/// Signals that an app may send to its whole group to end its own workers do not end the keeper.
const KEEPER: &str = "trap '' HUP INT QUIT TERM TSTP TTIN TTOU USR1 USR2 ALRM PIPE\n\
                      echo guarded\n\
                      read -r _\n\
                      kill -KILL 0";

/// Makes its standard input file descriptor 3 and becomes the app, whose process id is then what `LISTEN_PID` says. Between fork and
/// exec of this process nothing could put it into the environment: that is laid out before the fork.
const LISTENING: &str = "exec 3<&0 </dev/null\n\
                         export LISTEN_PID=$$\n\
                         exec \"$@\"";

/// How long the output of killed processes is waited for; only one that left the group can hold it for longer.
const OUTPUT_REST: Duration = Duration::from_millis(500);

/// How often it is looked whether a group is empty.
const LOOK: Duration = Duration::from_millis(20);

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    /// The keeper needs a shell.
    #[error("could not start /bin/sh, which guards the app's processes: {0}")]
    Keeper(io::Error),
    /// The app itself.
    #[error("could not execute {program}: {error}", program = program.display())]
    Program {
        /// `argv[0]`.
        program: PathBuf,
        /// Most often ENOENT or EACCES.
        error: io::Error,
    },
    /// No program at all.
    #[error("the command is empty")]
    Empty,
    /// The socket for `bind = "fd"`.
    #[error("could not duplicate the app's listening socket: {0}")]
    Listener(io::Error),
}

impl SpawnError {
    /// `$SERVICE_RESULT` for it (systemd.exec(5)): a program that cannot be executed is status 203/EXEC there.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::Program { .. } | Self::Empty => "exit-code",
            Self::Keeper(_) | Self::Listener(_) => "resources",
        }
    }
}

/// The processes of a run.
#[derive(Debug)]
pub(super) struct Group {
    keeper: Child,
    main: Child,
    id: Pid,
}

impl Group {
    /// Executes a program in a group of its own; `more` is added to its environment.
    pub(super) async fn spawn(
        program: &Program,
        more: &[(&str, String)],
    ) -> Result<(Self, ChildStdout, ChildStderr), SpawnError> {
        let mut keeper = Command::new("/bin/sh");
        keeper
            .args(["-c", KEEPER, "slot-keeper"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let mut keeper = keeper.spawn().map_err(SpawnError::Keeper)?;
        let mut guards = keeper.stdout.take().expect("stdout is piped");
        // The app may signal the group as soon as it is there.
        guards.read_u8().await.map_err(SpawnError::Keeper)?;
        let id = pid(&keeper).expect("a child that was not waited for has an id");

        let mut command = command(program, more)?;
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(id.as_raw())
            .kill_on_drop(true);
        let mut main = command.spawn().map_err(|error| SpawnError::Program {
            program: program.argv.first().map(PathBuf::from).unwrap_or_default(),
            error,
        })?;
        let stdout = main.stdout.take().expect("stdout is piped");
        let stderr = main.stderr.take().expect("stderr is piped");
        Ok((Self { keeper, main, id }, stdout, stderr))
    }

    /// The process group.
    pub(super) fn id(&self) -> Pid {
        self.id
    }

    /// Waits for the main process; may be called again.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.main.wait().await
    }

    /// SIGTERM to the main process alone; nothing if that has ended.
    pub(super) fn terminate(&self) {
        let Some(main) = pid(&self.main) else { return };
        // It was not reaped, so the id is its own; all that can fail is that it changed its user.
        if let Err(error) = kill(main, Signal::SIGTERM) {
            tracing::warn!(%main, %error, "SIGTERM could not be sent");
        }
    }

    /// SIGTERM to the whole group; its keeper does not mind.
    pub(super) fn terminate_all(&self) {
        match killpg(self.id, Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(group = %self.id, %error, "SIGTERM could not be sent"),
        }
    }

    /// Returns when nothing of the group runs but its keeper. Nobody tells when a process ends that is not one's own child, so it is
    /// looked for.
    pub(super) async fn emptied(&self) {
        while has_others(self.id) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGKILL to the whole group.
    pub(super) fn kill(&self) {
        match killpg(self.id, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(group = %self.id, %error, "SIGKILL could not be sent"),
        }
    }

    /// Kills what is left and reaps it; then reads what it had printed to the end.
    pub(super) async fn finish(mut self, output: Vec<tokio::task::JoinHandle<()>>) {
        self.kill();
        // Waiting fails only if it was reaped by somebody else, which comes to the same.
        let _ = self.main.wait().await;
        for mut reader in output {
            if tokio::time::timeout(OUTPUT_REST, &mut reader)
                .await
                .is_err()
            {
                reader.abort();
            }
        }
        let _ = self.keeper.wait().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After `finish` the id may be another's.
        if pid(&self.keeper).is_some() {
            self.kill();
        }
    }
}

/// Whether a process of the group runs that does not lead it (proc(5), `/proc/<pid>/stat`).
fn has_others(group: Pid) -> bool {
    let Ok(listed) = std::fs::read_dir("/proc") else {
        return false;
    };
    let processes = listed.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name of the process, the second field, may have anything in it, spaces and parentheses too.
        let mut after = stat.rsplit(") ").next()?.split(' ');
        let (state, _parent, of) = (after.next()?, after.next()?, after.next()?);
        let runs = !matches!(state, "Z" | "X");
        (runs && of.parse() == Ok(group.as_raw())).then_some(pid)
    });
    processes.into_iter().any(|pid| pid != group.as_raw())
}

/// None once it was waited for.
fn pid(child: &Child) -> Option<Pid> {
    Some(Pid::from_raw(i32::try_from(child.id()?).ok()?))
}

fn command(program: &Program, more: &[(&str, String)]) -> Result<Command, SpawnError> {
    let (first, arguments) = program.argv.split_first().ok_or(SpawnError::Empty)?;
    // exec(3) looks a relative path up in the working directory, but of which process is not specified for `Command`.
    let first = if first.as_bytes().contains(&b'/') {
        program.cwd.join(first).into_os_string()
    } else {
        first.clone()
    };
    let mut command = match &program.listener {
        None => {
            let mut command = Command::new(first);
            command.stdin(Stdio::null());
            command
        }
        Some(listener) => {
            let socket = listener.0.try_clone().map_err(SpawnError::Listener)?;
            let mut command = Command::new("/bin/sh");
            command.args(["-c", LISTENING, "slot-listen"]).arg(first);
            command.stdin(socket);
            command
        }
    };
    command
        .args(arguments)
        .env_clear()
        .envs(&program.env)
        .current_dir(&program.cwd);
    for name in [
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
    ] {
        command.env_remove(name);
    }
    if program.listener.is_some() {
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "http");
    }
    for (name, value) in more {
        command.env(name, value);
    }
    Ok(command)
}
