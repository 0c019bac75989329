//! Slots as children of this process: [`Units`] where no systemd runs.
//!
//! A child gets what the app's unit would give it, by the same [`launch`](crate::launch), as the user that runs this process: `user` of the
//! app's file is not for here, and `NOTIFY_SOCKET` is there whatever `ready` says.
//!
//! **Invariant:** an answer counts as healthy only if every socket that could have given it belongs to the child's process group.

mod errand;
mod fetch;
mod hook;
mod notify;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{geteuid, getgroups};

use super::errand::{Broken, Call};
use super::live::blocking;
use super::units::{Report, Unbuilt, Units};
use crate::children::{Changes, Child, Ended, Listener, Phase, Program, once};
use crate::config::{self, App, Bind, Ready, Semantics, slot_machine};
use crate::deploy::{BootId, End, Limits, Occasion, Probe, ReleaseId, Seen, SlotName, UnitFailure};
use crate::git::Store;
use crate::launch::{Env, EnvFile, Launch, LaunchError, Order, launch};
use crate::preflight::{self, Runner};
use crate::probe::{
    Address, Diag, Internet, Listener as Listening, Owner, ask, listeners, process_group_of,
    processes_of_group,
};
use crate::release::{Root, Site, seed, shared};
use crate::staging::{Made, Promoted, Staging, TREE};
use crate::telemetry::chain;

/// What a build is called where a slot has its name.
const SETUP: &str = "setup";

/// From SIGTERM to SIGKILL, for a build or a fetch that has outlived its limit.
const SETUP_STOP: Duration = Duration::from_secs(5);

/// The children of one app; they end with the last clone.
#[derive(Clone, Debug)]
pub struct Embedded {
    app: Arc<App>,
    /// The app's directory, absolute: its releases and the slots' symlinks are in it.
    root: Root,
    /// For sockets; its path is short, because a socket's may have 107 bytes (unix(7)).
    run: PathBuf,
    inherited: Env,
    children: Arc<BTreeMap<SlotName, Child>>,
    /// Of `bind = "fd"`, while the slot is not stopped.
    listeners: Arc<Mutex<BTreeMap<SlotName, Listener>>>,
    changes: Arc<Changes>,
}

impl Embedded {
    /// An app whose slots are all stopped, with its directory at `root`. Must be called within a tokio runtime, which the children's supervision then runs on.
    #[must_use]
    pub fn new(app: Arc<App>, root: impl Into<Root>, run: PathBuf, inherited: Env) -> Self {
        let changes = Arc::new(Changes::default());
        let child = |slot: &SlotName| {
            let own = run.join(app.name.as_str()).join(slot.as_str());
            let child = Child::new(app.name.clone(), slot.clone(), own, Arc::clone(&changes));
            (slot.clone(), child)
        };
        Self {
            children: Arc::new(app.slots.iter().map(child).collect()),
            app,
            root: root.into(),
            run,
            inherited,
            listeners: Arc::default(),
            changes,
        }
    }

    /// Stops every slot, as [`Units::stop`] does, all at the same time.
    pub async fn stop_all(&self) {
        let stops = self.app.slots.iter().map(|slot| self.stop(slot));
        futures_util::future::join_all(stops).await;
    }

    fn child(&self, slot: &SlotName) -> Option<&Child> {
        self.children.get(slot)
    }

    /// Where requests go, and where health is asked.
    fn addresses(&self, slot: &SlotName) -> (Address, Address) {
        match (self.app.bind, self.app.ports.get(slot)) {
            (Bind::Port, Some(ports)) => (
                Address::loopback(ports.port),
                Address::loopback(ports.internal),
            ),
            // A slot without a port is never started.
            (Bind::Port, None) | (Bind::Unix | Bind::Fd, _) => {
                let socket = Address::Unix(self.app.socket(&self.run, slot));
                (socket.clone(), socket)
            }
        }
    }

    /// What the slot executes for a release.
    async fn program(
        &self,
        slot: &SlotName,
        id: &ReleaseId,
        limits: Limits,
    ) -> Result<Program, UnitFailure> {
        let release = self.root.home(id);
        let directories = self.app.shared_dirs.clone();
        let (seeded, shared) = (release.clone(), self.shared());
        blocking(move || seed(&seeded, &directories, &shared))
            .await
            .map_err(|error| failure("resources", chain(&error)))?;
        let injected = self.app.injected(&self.run, slot);
        let env_file = self.env_file(&release).await?;
        let launch = self
            .launch_of(&self.app.command, &release, env_file, injected)
            .map_err(|error| failure("config", error.to_string()))?;
        let mut env = launch.env;
        env.insert("SLOT_RELEASE".into(), id.as_str().into());
        Ok(Program {
            argv: launch.argv,
            env,
            cwd: launch.cwd,
            notify: self.app.ready == Ready::Notify,
            leaves: (self.app.bind == Bind::Unix).then(|| self.app.socket(&self.run, slot)),
            listener: self.listener(slot)?,
            start_limit: limits.start,
            stop_limit: limits.stop,
            restart: self.app.semantics == Semantics::Slot,
            whole: self.app.semantics == Semantics::SlotMachine,
        })
    }

    /// How a command of the app's is executed in a release, in its environment.
    fn launch_of(
        &self,
        command: &[String],
        release: &Path,
        env_file: Option<(PathBuf, String)>,
        injected: BTreeMap<String, String>,
    ) -> Result<Launch, LaunchError> {
        let injected = injected.into_iter();
        launch(&Order {
            command,
            release,
            inherited: &self.inherited,
            env: &self.app.env,
            env_file: env_file.as_ref().map(|(path, text)| EnvFile { path, text }),
            injected: &injected
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        })
    }

    /// The app's `env_file`, and what stands in it.
    async fn env_file(&self, release: &Path) -> Result<Option<(PathBuf, String)>, UnitFailure> {
        let Some(file) = self.app.env_file.as_deref() else {
            return Ok(None);
        };
        let (path, lenient) = (
            release.join(file),
            self.app.semantics == Semantics::SlotMachine,
        );
        match tokio::fs::read_to_string(&path).await {
            Ok(text) if lenient => Ok(Some((path, slot_machine::env_file(&text)))),
            Ok(text) => Ok(Some((path, text))),
            Err(error) if lenient && error.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!("env_file {} is not there, and is left out", path.display());
                Ok(None)
            }
            Err(error) => Err(failure(
                "config",
                format!(
                    "cannot read env_file {}: {error}; make it, or remove `env_file`",
                    path.display()
                ),
            )),
        }
    }

    /// The slot's own listening socket with `bind = "fd"`, made at its first start.
    fn listener(&self, slot: &SlotName) -> Result<Option<Listener>, UnitFailure> {
        if self.app.bind != Bind::Fd {
            return Ok(None);
        }
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listeners.get(slot) {
            return Ok(Some(listener.clone()));
        }
        let path = self.app.socket(&self.run, slot);
        let directory = path.parent().unwrap_or(&self.run);
        let bound = std::fs::create_dir_all(directory)
            .and_then(|()| remove(&path))
            .and_then(|()| UnixListener::bind(&path));
        let bound = bound.map_err(|error| {
            failure(
                "resources",
                format!("cannot listen on {}: {error}", path.display()),
            )
        })?;
        let listener = Listener(Arc::new(OwnedFd::from(bound)));
        listeners.insert(slot.clone(), listener.clone());
        Ok(Some(listener))
    }

    /// Refuses a start whose port somebody else has; the app itself would only say that it cannot bind.
    fn check_ports(&self, slot: &SlotName) -> Result<(), UnitFailure> {
        let (public, internal) = self.addresses(slot);
        for address in [public, internal] {
            let Address::Tcp(tcp) = address else { continue };
            // What cannot be looked up is no reason to refuse; the app will tell.
            let there = Diag::open().and_then(|diag| listeners::at(&diag, tcp));
            let Some(holder) = there.unwrap_or_default().into_iter().next() else {
                continue;
            };
            let owner = holder.owner();
            return Err(failure(
                "port-in-use",
                format!(
                    "{owner} listens on {} already; stop it, or give slot {slot} another port under [ports]",
                    holder.at
                ),
            ));
        }
        Ok(())
    }

    /// Whether whoever answers at an address is of the group; an error names who is not.
    fn check_owner(
        &self,
        at: &Address,
        peer: Option<i32>,
        group: Option<i32>,
    ) -> Result<(), String> {
        let strangers = match at {
            Address::Unix(_) => {
                // With `bind = "fd"` it is this process that called listen(2), and the child alone that it passed the socket to.
                let ours = self.app.bind == Bind::Fd
                    && peer == i32::try_from(std::process::id()).ok()
                    || peer.is_some_and(|peer| process_group_of(peer) == group);
                if ours { Ok(()) } else { Err(peer) }
            }
            Address::Tcp(tcp) => {
                let diag = Diag::open()
                    .map_err(|error| format!("cannot find out who listens: {error}"))?;
                let found = listeners::at(&diag, *tcp)
                    .map_err(|error| format!("cannot find out who listens on {tcp}: {error}"))?;
                if found.is_empty() {
                    return Err(format!("nobody listens on {tcp}"));
                }
                let own = group
                    .map_or(Ok(Vec::new()), |group| {
                        listeners::of_process_group(&diag, group)
                    })
                    .map_err(|error| format!("cannot find out where the app listens: {error}"))?;
                match found.iter().find(|listener| !own.contains(listener)) {
                    None => Ok(()),
                    Some(stranger) => Err(stranger.owner().pid),
                }
            }
        };
        strangers.map_err(|pid| {
            let owner = pid.map(Owner::of_process).unwrap_or_default();
            format!("{owner} listens on {at}, and does not belong to the app")
        })
    }

    async fn probed(&self, slot: &SlotName, limit: Duration) -> Result<Probe, String> {
        let (public, internal) = self.addresses(slot);
        let answer = ask(
            &Internet::Own,
            &internal,
            self.app.host(),
            &self.app.health,
            limit,
        )
        .await
        .map_err(|error| chain(&error))?;
        let group = self.child(slot).and_then(Child::group);
        let group = group.map(nix::unistd::Pid::as_raw);
        self.check_owner(&internal, answer.listener, group)?;
        let pass = match self.app.semantics {
            Semantics::Slot => answer.passes(),
            Semantics::SlotMachine => answer.status == 200,
        };
        if pass && public != internal {
            self.check_owner(&public, None, group)?;
        }
        Ok(Probe {
            pass,
            text: answer.to_string(),
        })
    }
}

impl Units for Embedded {
    async fn start(
        &self,
        slot: &SlotName,
        release: &ReleaseId,
        limits: Limits,
    ) -> Result<BootId, UnitFailure> {
        let Some(child) = self.child(slot) else {
            return Err(failure(
                "unit-missing",
                format!(
                    "the app has no slot {slot}; start the deployer again, which reads the app's file"
                ),
            ));
        };
        if self.app.bind == Bind::Port && !self.app.ports.contains_key(slot) {
            let text = format!(
                "slot {slot} has no port; write `{slot} = 20001` under [ports] in the app's file"
            );
            return Err(failure("config", text));
        }
        let phase = child.phase();
        if self.app.semantics == Semantics::SlotMachine && matches!(phase, Phase::Ended(_)) {
            // It has ended by itself, and stays so until it is stopped for something else.
            return std::future::pending().await;
        }
        if matches!(phase, Phase::Stopped | Phase::Ended(_)) {
            self.check_ports(slot)?;
        }
        child
            .start(self.program(slot, release, limits).await?)
            .await
    }

    async fn objection(&self, next: Option<&SlotName>) -> Option<String> {
        if let Some(slot) = next
            && let Err(failure) = self.check_ports(slot)
        {
            return Some(failure.text);
        }
        let path = self.app.env.get("PATH").map(OsString::from);
        let runner = Runner {
            name: "you".to_owned(),
            user: Some(geteuid().as_raw()),
            groups: getgroups()
                .unwrap_or_default()
                .into_iter()
                .map(nix::unistd::Gid::as_raw)
                .collect(),
            sees_homes: true,
            path: path.or_else(|| self.inherited.get(OsStr::new("PATH")).cloned()),
        };
        let word = self.app.command.first()?;
        // What env_file says of PATH is read when the slot starts.
        let known = self.app.env_file.is_none() || word.contains('/');
        known.then(|| preflight::objection(word, &runner))?
    }

    async fn memory(&self, slot: &SlotName) -> Option<u64> {
        let group = self.child(slot)?.group()?;
        let proc = Path::new("/proc");
        let members = processes_of_group(group.as_raw());
        let used = members.iter().map(|pid| preflight::anonymous(proc, *pid));
        Some(used.sum())
    }

    async fn stop(&self, slot: &SlotName) -> bool {
        let Some(child) = self.child(slot) else {
            return false;
        };
        let listener = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(slot);
        if listener.is_some() {
            // Nobody finds the socket any more; what has connected is the child's to answer.
            let _ = remove(&self.app.socket(&self.run, slot));
        }
        child.stop().await
    }

    async fn seen(&self, slot: &SlotName) -> Seen {
        match self.child(slot).map(Child::phase) {
            Some(Phase::Up(boot) | Phase::Stopping(boot)) => Seen::Running(boot),
            Some(Phase::Starting(_)) => Seen::Coming,
            Some(Phase::Ended(failure)) => Seen::Ended(match self.app.semantics {
                Semantics::Slot => End::Restarting(failure),
                Semantics::SlotMachine => End::Failed(failure),
            }),
            Some(Phase::Stopped) | None => Seen::Ended(End::ByHand),
        }
    }

    async fn changed(&self) -> SlotName {
        self.changes.next().await
    }

    async fn restarts(&self, slot: &SlotName) -> Option<u32> {
        self.child(slot).map(Child::restarts)
    }

    fn unit(&self, slot: &SlotName) -> String {
        format!("{}@{slot}", self.app.name)
    }

    fn internet(&self) -> &Internet {
        &Internet::Own
    }

    fn upstream(&self, slot: &SlotName) -> String {
        self.addresses(slot).0.to_string()
    }

    fn internal_upstream(&self, slot: &SlotName) -> String {
        self.addresses(slot).1.to_string()
    }

    async fn probe(&self, slot: &SlotName, limit: Duration) -> Probe {
        match self.probed(slot, limit).await {
            Ok(probe) => probe,
            Err(text) => Probe { pass: false, text },
        }
    }

    async fn build(&self, site: &Site) -> Result<(), Unbuilt> {
        let Some(command) = &self.app.setup_command else {
            return Ok(());
        };
        let unit = format!("{}@{SETUP}", self.app.name);
        let env_file = match self.app.semantics {
            // The app's secrets are not the build's.
            Semantics::Slot => None,
            Semantics::SlotMachine => {
                let read = self.env_file(&site.path()).await;
                read.map_err(|failure| Unbuilt {
                    failure,
                    report: Report {
                        unit: unit.clone(),
                        ..Report::default()
                    },
                })?
            }
        };
        let injected = self.app.injected_in_setup();
        let ended = match self.launch_of(command, &site.path(), env_file, injected) {
            Ok(launch) => {
                let program = Program {
                    argv: launch.argv,
                    env: launch.env,
                    cwd: launch.cwd,
                    notify: false,
                    leaves: None,
                    listener: None,
                    start_limit: self.app.setup_timeout,
                    stop_limit: SETUP_STOP,
                    restart: false,
                    whole: true,
                };
                tracing::info!(slot_app = %self.app.name, slot_release = %site.id(), "runs setup_command");
                once(&program, &self.app.name, SETUP).await
            }
            Err(error) => Ended {
                failure: Some(failure("config", format!("cannot be run: {error}"))),
                log: Vec::new(),
            },
        };
        match ended.failure {
            None => Ok(()),
            Some(failure) => Err(unbuilt(unit, failure, ended.log)),
        }
    }

    async fn hook(&self, occasion: &Occasion) -> Result<(), Unbuilt> {
        let upstream = occasion.slot.as_ref().map(|slot| self.upstream(slot));
        self.hooked(occasion, upstream).await
    }

    async fn fetch<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        self.fetched(exchange).await
    }

    async fn notify<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        self.notified(exchange).await
    }

    async fn stage(&self, promoted: Promoted, store: Store) -> Result<Made, String> {
        let branch = self.app.staging.as_ref().map(|it| &*it.branch);
        let branch = branch.unwrap_or(config::Staging::BRANCH);
        let staging = Staging::within(&self.root, branch);
        let make = move || {
            staging.make(&promoted, |have| {
                let held = store.hold().map_err(std::io::Error::other)?;
                held.pack(&promoted.commit, have)
                    .map_err(std::io::Error::other)
            })
        };
        blocking(make).await.map_err(|error| chain(&error))
    }

    fn staging(&self) -> PathBuf {
        self.root.join(TREE)
    }

    fn shared(&self) -> PathBuf {
        let own = || shared(&self.root);
        self.app.shared_root.clone().unwrap_or_else(own)
    }

    async fn report(&self, slot: &SlotName, boot: Option<&BootId>) -> Report {
        let unit = self.unit(slot);
        let child = self.child(slot);
        let Some(record) = child.and_then(|child| child.record(boot)) else {
            return Report {
                unit,
                ..Report::default()
            };
        };
        let group = child.and_then(Child::group);
        let listens = group.and_then(|group| {
            let diag = Diag::open().ok()?;
            listeners::of_process_group(&diag, group.as_raw()).ok()
        });
        let listens = listens.unwrap_or_default();
        Report {
            unit,
            result: record
                .failure
                .as_ref()
                .map(|failure| failure.result.as_str().to_owned()),
            exit: record.failure.map(|failure| failure.text),
            status_text: record.status,
            log: record.log.into(),
            listens: listens.iter().map(Listening::named).collect(),
            journal: None,
        }
    }
}

/// The report of a build or a fetch that failed.
fn unbuilt(unit: String, failure: UnitFailure, log: Vec<String>) -> Unbuilt {
    Unbuilt {
        report: Report {
            unit,
            result: Some(failure.result.as_str().to_owned()),
            exit: Some(failure.text.clone()),
            log,
            ..Report::default()
        },
        failure,
    }
}

fn failure(result: &str, text: String) -> UnitFailure {
    UnitFailure {
        result: result.into(),
        text,
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
