//! The task that owns a child's processes.
//!
//! ```text
//!             want                 READY=1                 stop
//!  stopped ─────────► starting ──────────────► up ───────────────────► stopping ─► stopped
//!     ▲                  │ ended, too late      │ ended by itself
//!     │       stop       ▼                      ▼
//!     └────────────── ended ◄───────────────────┘      (1 s later, or when it is started again: starting)
//! ```

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::child::{Changes, Phase, Status};
use super::group::Group;
use super::notify::NotifySocket;
use super::output::follow;
use super::program::Program;
use super::run::Run;
use crate::deploy::{AppName, BootId, SlotName, UnitFailure};

/// `RestartSec=` of the template unit.
const RESTART: Duration = Duration::from_secs(1);

/// How many runs are remembered: the one that failed, and those that may follow until somebody asks about it.
const RUNS: usize = 4;

/// What is wanted of a child.
#[derive(Clone, Debug, Default)]
pub(super) struct Want {
    /// Grows when `program` changes, and to have a program that ended executed without delay.
    pub(super) serial: u64,
    /// None: to be stopped.
    pub(super) program: Option<Arc<Program>>,
}

/// Owns the processes of one child.
pub(super) struct Supervisor {
    pub(super) app: AppName,
    pub(super) run: PathBuf,
    pub(super) wanted: watch::Receiver<Want>,
    pub(super) told: Told,
}

/// Where a child's status is told.
pub(super) struct Told {
    pub(super) slot: SlotName,
    pub(super) status: watch::Sender<Status>,
    pub(super) changes: Arc<Changes>,
}

impl Told {
    fn phase(&self, serial: u64, phase: Phase) {
        self.status.send_modify(|status| {
            status.handled = serial;
            status.phase = phase;
        });
        self.changes.tell(&self.slot);
    }
}

/// How a run came to its end.
enum End {
    /// It was stopped.
    Stopped,
    /// It ended by itself, or took too long to start.
    Failed(UnitFailure),
}

/// A run under way.
struct Running {
    boot: BootId,
    group: Group,
    notify: NotifySocket,
    run: Run,
    output: Vec<JoinHandle<()>>,
}

impl Supervisor {
    /// Until nobody holds the [`Child`](super::Child).
    pub(super) async fn supervise(mut self) {
        loop {
            let want = self.wanted.borrow_and_update().clone();
            let Some(program) = want.program else {
                self.told.phase(want.serial, Phase::Stopped);
                self.told.status.send_modify(|status| status.restarts = 0);
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let mut serial = want.serial;
            match self.run_once(&mut serial, &program).await {
                End::Stopped => self.told.phase(serial, Phase::Stopped),
                End::Failed(failure) => {
                    self.told.phase(serial, Phase::Ended(failure));
                    tokio::select! {
                        () = sleep(RESTART), if program.restart => {
                            self.told.status.send_modify(|status| status.restarts += 1);
                        }
                        changed = self.wanted.changed() => if changed.is_err() { return },
                    }
                }
            }
        }
    }

    /// Executes the program once. `serial` follows what is wanted meanwhile.
    async fn run_once(&mut self, serial: &mut u64, program: &Program) -> End {
        let Running {
            boot,
            mut group,
            notify,
            run,
            output,
        } = match self.spawn(program).await {
            Ok(running) => running,
            Err(failure) => return End::Failed(failure),
        };
        let deadline = Instant::now() + program.start_limit;
        let id = group.id();
        self.told.status.send_modify(|status| {
            status.group = Some(id);
            status.killed = false;
            status.runs.push_back(run.clone());
            if status.runs.len() > RUNS {
                status.runs.pop_front();
            }
        });
        let mut up = !program.notify;
        let phase = |up| {
            if up {
                Phase::Up(boot.clone())
            } else {
                Phase::Starting(boot.clone())
            }
        };
        self.told.phase(*serial, phase(up));
        let end = loop {
            tokio::select! {
                ended = group.ended() => break End::Failed(failure(ended, up)),
                said = notify.next(id) => {
                    if let Some(status) = said.status {
                        run.said(status);
                    }
                    if said.ready && !up {
                        up = true;
                        self.told.phase(*serial, phase(up));
                    }
                }
                () = sleep_until(deadline), if !up => {
                    let late = UnitFailure {
                        result: "timeout".into(),
                        text: format!("did not say READY=1 within {:?}", program.start_limit),
                    };
                    terminate(&mut group, program).await;
                    break End::Failed(late);
                }
                changed = self.wanted.changed() => {
                    let want = self.wanted.borrow_and_update().clone();
                    *serial = want.serial;
                    if want.program.is_some() && changed.is_ok() {
                        // Started again, which it is already.
                        self.told.phase(*serial, phase(up));
                        continue;
                    }
                    self.told.phase(*serial, Phase::Stopping(boot.clone()));
                    let killed = terminate(&mut group, program).await;
                    self.told.status.send_modify(|status| status.killed = killed);
                    break End::Stopped;
                }
            }
        };
        if let End::Failed(failure) = &end {
            run.failed(failure);
        }
        group.finish(output).await;
        if let Err(error) = program.clear() {
            // It is tried again before the next run, which fails if it must.
            tracing::debug!(%error, "what a run left could not be removed");
        }
        self.told.status.send_modify(|status| status.group = None);
        end
    }

    async fn spawn(&self, program: &Program) -> Result<Running, UnitFailure> {
        let resources = |what: &str, error: std::io::Error| UnitFailure {
            result: "resources".into(),
            text: format!("{what}: {error}"),
        };
        let boot =
            boot_id().map_err(|error| resources("could not read a random boot id", error))?;
        program
            .clear()
            .map_err(|error| resources("could not remove what the last run left", error))?;
        std::fs::create_dir_all(&self.run).map_err(|error| {
            resources(
                &format!("could not make the directory {}", self.run.display()),
                error,
            )
        })?;
        let path = self.run.join("notify.sock");
        let notify = NotifySocket::bind(path.clone())
            .map_err(|error| resources(&format!("could not bind {}", path.display()), error))?;
        let more = [
            (
                "NOTIFY_SOCKET",
                notify.path().to_string_lossy().into_owned(),
            ),
            ("INVOCATION_ID", boot.to_string()),
        ];
        let run = Run::new(boot.clone());
        let (group, stdout, stderr) =
            Group::spawn(program, &more)
                .await
                .map_err(|error| UnitFailure {
                    result: error.result().into(),
                    text: error.to_string(),
                })?;
        let output = vec![
            tokio::spawn(follow(
                stdout,
                run.clone(),
                self.app.clone(),
                self.told.slot.clone(),
            )),
            tokio::spawn(follow(
                stderr,
                run.clone(),
                self.app.clone(),
                self.told.slot.clone(),
            )),
        ];
        Ok(Running {
            boot,
            group,
            notify,
            run,
            output,
        })
    }
}

/// True if SIGTERM was not enough. What the main process leaves behind is waited for only where SIGTERM was for that too.
pub(super) async fn terminate(group: &mut Group, program: &Program) -> bool {
    let ended = async {
        if !program.whole {
            group.terminate();
            return drop(group.ended().await);
        }
        group.terminate_all();
        // It fails only if it was reaped by somebody else, which comes to the same.
        let _ = group.ended().await;
        group.emptied().await;
    };
    timeout(program.stop_limit, ended).await.is_err()
}

/// How a main process ended that nobody stopped, in systemd's words (systemd.exec(5), `$SERVICE_RESULT`).
pub(super) fn failure(ended: std::io::Result<ExitStatus>, up: bool) -> UnitFailure {
    let failure = |result: &str, text: String| UnitFailure {
        result: result.into(),
        text,
    };
    let status = match ended {
        Ok(status) => status,
        Err(error) => return failure("resources", format!("could not be waited for: {error}")),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) if !up => failure(
            "protocol",
            "exited with status 0 before it said READY=1".to_owned(),
        ),
        (Some(0), _) => failure("success", "exited with status 0".to_owned()),
        (Some(code), _) => failure("exit-code", format!("exited with status {code}")),
        (None, signal) => {
            let known = signal.and_then(|number| Signal::try_from(number).ok());
            let name = known.map_or_else(
                || format!("signal {}", signal.unwrap_or_default()),
                |signal| signal.as_str().to_owned(),
            );
            // Who ends by one of these was asked to (systemd.service(5), SuccessExitStatus=).
            let asked = [
                Signal::SIGHUP,
                Signal::SIGINT,
                Signal::SIGTERM,
                Signal::SIGPIPE,
            ];
            let result = match known {
                Some(signal) if up && asked.contains(&signal) => "success",
                _ if status.core_dumped() => "core-dump",
                _ => "signal",
            };
            failure(result, format!("killed by {name}"))
        }
    }
}

/// A fresh boot id: 128 random bits from the kernel (random(4)).
pub(super) fn boot_id() -> std::io::Result<BootId> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    uuid.trim()
        .replace('-', "")
        .parse()
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
}
