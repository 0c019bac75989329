//! The slots of an app as units of systemd.
//!
//! **Invariant:** an answer counts only from the unit that was started (`answerer`), and only while that unit also listens where requests go.
//! **Invariant:** nothing is started where somebody else listens, nor as another user than a slot that runs.
//! **Invariant:** while the machine goes down nothing is reported as failed.

mod answerer;
mod apart;
mod build;
mod door;
mod errand;
mod hook;
mod place;
mod stage;
mod users;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::answerer::{Answerer, Unit, own};
use self::build::Setup;
use self::errand::Errand;
use self::hook::Hooks;
use self::place::slot;
use self::stage::Stage;
use self::users::clash;
use super::errand::{Broken, Call};
use super::live::blocking;
use super::units::{Report, Unbuilt, Units};
use crate::config::App;
use crate::deploy::{
    AppName, BootId, Limits, Occasion, Probe, ReleaseId, Seen, SlotName, UnitFailure,
};
use crate::git::Store;
use crate::preflight;
use crate::probe::{Address, Answer, Diag, Internet, Listener, Sockets, ask, processes_of};
use crate::release::{Site, shared};
use crate::staging::{Made, Promoted, TREE};
use crate::systemd::{
    Bus, CallError, Properties, StartError, UnitName, Watch, how_it_ended, journal, seen, user,
};
use crate::telemetry::chain;
use crate::units::STAGING;

/// The slots of one app.
#[derive(Debug)]
pub struct SystemdUnits {
    bus: Arc<Bus>,
    app: AppName,
    slots: BTreeMap<SlotName, Slot>,
    setup: Option<Setup>,
    fetch: Option<Errand>,
    notify: Errand,
    stage: Stage,
    hooks: Hooks,
    watch: Watch,
    /// `/etc/slot/apps/web.toml`, for messages.
    file: PathBuf,
    host: String,
    path: String,
    /// The command's first word, unless only the app's own environment file may say where that is.
    program: Option<String>,
    /// `PATH` of `[env]`.
    search: Option<OsString>,
    /// How each slot's last run ended, for its report: PID 1 forgets a unit that is stopped, and what it says of one that was started
    /// again is of its new run.
    ended: Mutex<BTreeMap<SlotName, Properties>>,
    /// The sockets of slot-inet.service: slotd's unit has no network.
    internet: Internet,
}

/// One of them.
#[derive(Clone, Debug)]
struct Slot {
    service: UnitName,
    /// `bind = "fd"` only.
    socket: Option<UnitName>,
    /// Where requests go.
    upstream: Address,
    /// Where health is asked.
    health: Address,
    /// What tells the app where to listen for it.
    variable: &'static str,
}

impl Slot {
    /// Its unit, whose cgroup is this one now.
    fn unit<'a>(&self, cgroup: &'a str) -> Unit<'a> {
        Unit {
            cgroup,
            has_socket: self.socket.is_some(),
        }
    }
}

impl SystemdUnits {
    /// The units of an app. `file` is the app's file; `run` is `/run/slot`.
    #[must_use]
    pub fn new(bus: Arc<Bus>, app: &App, file: PathBuf, run: &Path) -> Self {
        let slots: BTreeMap<SlotName, Slot> = app
            .slots
            .iter()
            .map(|name| (name.clone(), slot(app, name, run)))
            .collect();
        let services: Vec<UnitName> = slots.values().map(|slot| slot.service.clone()).collect();
        Self {
            watch: Watch::new(Arc::clone(&bus), &services),
            bus,
            app: app.name.clone(),
            slots,
            setup: Setup::of(app, run),
            fetch: Errand::fetch(app, run),
            notify: Errand::notify(app, run),
            stage: Stage::of(app, run),
            hooks: Hooks::of(app, run),
            file,
            host: app.host().to_owned(),
            path: app.health.clone(),
            program: app
                .command
                .first()
                .filter(|word| app.env_file.is_none() || word.contains('/'))
                .cloned(),
            search: app.env.get("PATH").map(OsString::from),
            ended: Mutex::default(),
            internet: Internet::Handed(run.join("inet.sock")),
        }
    }

    /// A slot that the file does not name any more still has a unit, which can be seen and stopped.
    fn slot(&self, name: &SlotName) -> Slot {
        self.slots.get(name).cloned().unwrap_or_else(|| Slot {
            service: UnitName::service(&self.app, name),
            socket: None,
            upstream: Address::loopback(0),
            health: Address::loopback(0),
            variable: "PORT",
        })
    }

    /// Whom a unit would run its program as. Asks NSS, which may block.
    fn runner(unit: &Properties, path: Option<OsString>) -> preflight::Runner {
        let dynamic = unit.dynamic_user;
        let (user, groups) = match dynamic {
            true => (None, Vec::new()),
            false => user::ids(&unit.user)
                .map_or((None, Vec::new()), |(user, groups)| (Some(user), groups)),
        };
        preflight::Runner {
            name: unit.user.clone(),
            user,
            groups,
            sees_homes: !dynamic,
            path,
        }
    }

    fn ended(&self) -> MutexGuard<'_, BTreeMap<SlotName, Properties>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody else where the slot is to listen.
    async fn occupied(&self, name: &SlotName, slot: &Slot) -> Option<UnitFailure> {
        if slot.socket.is_some() {
            return None;
        }
        let diag = match self.internet.sockets().await {
            Ok(sockets) => sockets.diag,
            Err(error) => {
                return Some(UnitFailure {
                    result: "no-sockets".into(),
                    text: chain(&error),
                });
            }
        };
        let cgroup = self.bus.properties(&slot.service).await.control_group;
        for at in [&slot.upstream, &slot.health] {
            let text = match slot.unit(&cgroup).answerer(&diag, at).await {
                Answerer::Nobody | Answerer::Own => continue,
                Answerer::Stranger(owner) => format!("{owner} listens on {at} already"),
                Answerer::Unknown(reason) => format!("{at} may be in use: {reason}"),
            };
            let remedy = match at {
                Address::Tcp(_) => format!(
                    "stop that, or change the port of {name} under [ports] in {}",
                    self.file.display()
                ),
                Address::Unix(_) => "stop that".to_owned(),
            };
            return Some(UnitFailure {
                result: "port-in-use".into(),
                text: format!("{text}; {remedy}"),
            });
        }
        None
    }

    /// That a slot (without a name: any that does not run) would run as another user than one that runs.
    async fn other_user(&self, starts: Option<SlotName>) -> Option<UnitFailure> {
        let mut units = Vec::new();
        for (name, slot) in &self.slots {
            let unit = self.bus.properties(&slot.service).await;
            units.push((name.clone(), slot.service.clone(), unit));
        }
        let own = format!("slot-app-{}", self.app);
        let found = blocking(move || clash(&units, starts.as_ref(), &own, user::owner)).await?;
        Some(UnitFailure {
            result: "other-user".into(),
            text: format!(
                "{runs} runs as {}, and {} would run as {}, to whom systemd would give what {runs} has in /var/lib/slot-app/{app}. \
                 Write the `user` of before into {file} and run `systemctl daemon-reload`, or change it with an outage: \
                 `systemctl stop '{app}@*.service'`, then deploy again",
                found.runs_as,
                found.next,
                found.next_as,
                runs = found.runs,
                app = self.app,
                file = self.file.display(),
            ),
        })
    }

    /// Whether an answer counts; an error says why it does not.
    async fn check_owner(&self, slot: &Slot, answer: &Answer, diag: &Diag) -> Result<(), String> {
        let cgroup = self.bus.properties(&slot.service).await.control_group;
        let unit = slot.unit(&cgroup);
        let answered = match (&slot.health, answer.listener) {
            (Address::Unix(_), Some(pid)) => unit.process(pid),
            _ => unit.answerer(diag, &slot.health).await,
        };
        let of = |at: &Address, answerer: Answerer| match answerer {
            Answerer::Own => Ok(()),
            Answerer::Stranger(owner) => {
                Err(format!("{owner} answers on {at}, not {}", slot.service))
            }
            Answerer::Unknown(reason) => Err(format!("{answer}, but it does not count: {reason}")),
            Answerer::Nobody if *at == slot.health => {
                Err(format!("{answer}, but nobody listens on {at} any more"))
            }
            Answerer::Nobody => Err(not_public(slot, answer, &places(diag, &cgroup))),
        };
        of(&slot.health, answered)?;
        // What answers for health may be up long before what answers requests, or without it.
        if answer.passes() && slot.upstream != slot.health {
            of(&slot.upstream, unit.answerer(diag, &slot.upstream).await)?;
        }
        Ok(())
    }

    /// `; web@green.service listens on 127.0.0.1:3000 instead: let it use $PORT`.
    async fn elsewhere(&self, slot: &Slot, diag: &Diag) -> String {
        let cgroup = self.bus.properties(&slot.service).await.control_group;
        elsewhere(slot, &slot.health, slot.variable, &places(diag, &cgroup))
    }
}

/// Where the processes of a cgroup listen.
fn places(diag: &Diag, cgroup: &str) -> Vec<SocketAddr> {
    own(diag, cgroup)
        .iter()
        .map(|listener| listener.at)
        .collect()
}

/// What is wrong with a slot that is healthy and does not listen where requests go, and what would mend it.
fn not_public(slot: &Slot, answer: &Answer, places: &[SocketAddr]) -> String {
    let health = match slot.health {
        Address::Tcp(at) => Some(at.port()),
        Address::Unix(_) => None,
    };
    let places: Vec<SocketAddr> = places
        .iter()
        .copied()
        .filter(|place| Some(place.port()) != health)
        .collect();
    let remedy = if places.is_empty() {
        ": let it use $PORT for its requests".to_owned()
    } else {
        elsewhere(slot, &slot.upstream, "PORT", &places)
    };
    format!(
        "{answer} on {}, but nobody listens on {}{remedy}",
        slot.health, slot.upstream
    )
}

/// What is wrong with where a unit listens, and what would mend it.
fn elsewhere(slot: &Slot, at: &Address, variable: &str, places: &[SocketAddr]) -> String {
    if places.is_empty() {
        return String::new();
    }
    let remedy = match at {
        // `::1` alone, as servers that are told to listen on `localhost` do.
        Address::Tcp(at) if places.iter().all(|place| place.port() == at.port()) => {
            format!("let it listen on {}", at.ip())
        }
        Address::Tcp(_) | Address::Unix(_) => format!("let it use ${variable}"),
    };
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    format!(
        "; {} listens on {} instead: {remedy}",
        slot.service,
        places.join(" and ")
    )
}

/// A start that could not be asked for, as a unit's failure.
fn not_asked(error: &CallError) -> UnitFailure {
    let (result, remedy) = match error {
        CallError::NotLoaded { .. } => (
            "unit-missing",
            "; register the app with `slotctl app add`, or run `systemctl daemon-reload`"
                .to_owned(),
        ),
        CallError::Denied { .. } => ("not-permitted", String::new()),
        // Only the unit that stands in for an app's whose file is wrong says so.
        CallError::Refused { name, .. } if name.ends_with(".OnlyByDependency") => (
            "unit-missing",
            "; it stands in for one that could not be made of the app's file: see `systemctl cat`, then `systemctl daemon-reload`"
                .to_owned(),
        ),
        CallError::Refused { unit, .. } => (
            "refused",
            format!("; `systemctl status {}` says more", unit.stem()),
        ),
        CallError::GoingDown { .. } => ("going-down", String::new()),
        CallError::Lost { .. } => ("lost", String::new()),
    };
    UnitFailure {
        result: result.into(),
        text: format!("{error}{remedy}"),
    }
}

impl Units for SystemdUnits {
    async fn start(
        &self,
        name: &SlotName,
        _release: &ReleaseId,
        limits: Limits,
    ) -> Result<BootId, UnitFailure> {
        let slot = self.slot(name);
        if let Some(failure) = self.other_user(Some(name.clone())).await {
            return Err(failure);
        }
        if let Some(occupied) = self.occupied(name, &slot).await {
            return Err(occupied);
        }
        let started = self
            .bus
            .start(&slot.service, slot.socket.as_ref(), limits.start)
            .await;
        let mut ended = self.ended();
        ended.remove(name);
        match started {
            Ok(run) => Ok(run),
            Err(StartError::Failed { failure, last, .. }) => {
                ended.insert(name.clone(), *last);
                Err(failure)
            }
            Err(StartError::Call(error)) => Err(not_asked(&error)),
        }
    }

    async fn objection(&self, next: Option<&SlotName>) -> Option<String> {
        if let Some(failure) = self.other_user(None).await {
            return Some(failure.text);
        }
        let name = next?;
        let slot = self.slot(name);
        let unit = self.bus.properties(&slot.service).await;
        if unit.need_daemon_reload {
            return Some(format!(
                "the files of {} are newer than what systemd has read of them; run `systemctl daemon-reload`, then deploy again",
                slot.service
            ));
        }
        if let Some(occupied) = self.occupied(name, &slot).await {
            return Some(occupied.text);
        }
        if unit.load_state != "loaded" {
            // The start says more about it.
            return None;
        }
        let (word, path) = (self.program.clone()?, self.search.clone());
        blocking(move || preflight::objection(&word, &Self::runner(&unit, path))).await
    }

    async fn apart(&self) -> Option<String> {
        self.units_apart().await
    }

    async fn memory(&self, name: &SlotName) -> Option<u64> {
        let cgroup = self.bus.properties(&self.slot(name).service).await;
        let cgroup = cgroup.control_group;
        blocking(move || {
            preflight::used_by_cgroup(&cgroup).or_else(|| {
                let members = processes_of(&cgroup);
                let proc = Path::new("/proc");
                let used = members.iter().map(|pid| preflight::anonymous(proc, *pid));
                (!members.is_empty()).then(|| used.sum())
            })
        })
        .await
    }

    async fn stop(&self, name: &SlotName) -> bool {
        let slot = self.slot(name);
        // It may run from a time when the file said `bind = "fd"`.
        let socket = UnitName::socket(&self.app, name);
        self.bus.stop(&slot.service, Some(&socket)).await
    }

    async fn freeze(&self, name: &SlotName) -> Result<(), String> {
        let frozen = self.bus.freeze(&self.slot(name).service).await;
        frozen.map_err(|error| chain(&error))
    }

    async fn thaw(&self, name: &SlotName) {
        self.bus.thaw(&self.slot(name).service).await;
    }

    async fn seen(&self, name: &SlotName) -> Seen {
        let unit = self.bus.properties(&self.slot(name).service).await;
        let seen = seen(&unit);
        if matches!(seen, Seen::Ended(_)) {
            self.bus.unless_going_down().await;
            if unit.invocation.is_some() {
                self.ended().insert(name.clone(), unit);
            }
        }
        seen
    }

    async fn changed(&self) -> SlotName {
        loop {
            let (unit, _) = self.watch.changed().await;
            let slot = self.slots.iter().find(|(_, slot)| slot.service == unit);
            if let Some((name, _)) = slot {
                return name.clone();
            }
        }
    }

    async fn restarts(&self, name: &SlotName) -> Option<u32> {
        let unit = self.bus.properties(&self.slot(name).service).await;
        unit.invocation.map(|_| unit.restarts)
    }

    fn unit(&self, name: &SlotName) -> String {
        self.slot(name).service.to_string()
    }

    fn internet(&self) -> &Internet {
        &self.internet
    }

    fn upstream(&self, name: &SlotName) -> String {
        self.slot(name).upstream.to_string()
    }

    async fn probe(&self, name: &SlotName, limit: Duration) -> Probe {
        let slot = self.slot(name);
        let answer = ask(&self.internet, &slot.health, &self.host, &self.path, limit).await;
        let diag = self.internet.wait().await.diag;
        let probe = match answer {
            Ok(answer) => match self.check_owner(&slot, &answer, &diag).await {
                Ok(()) => Probe {
                    pass: answer.passes(),
                    text: answer.to_string(),
                },
                Err(text) => Probe { pass: false, text },
            },
            Err(none) => Probe {
                pass: false,
                text: format!("{none}{}", self.elsewhere(&slot, &diag).await),
            },
        };
        if !probe.pass {
            self.bus.unless_going_down().await;
        }
        probe
    }

    async fn build(&self, site: &Site) -> Result<(), Unbuilt> {
        match &self.setup {
            Some(setup) => setup.build(&self.bus, site).await,
            None => Ok(()),
        }
    }

    async fn hook(&self, occasion: &Occasion) -> Result<(), Unbuilt> {
        let upstream = occasion.slot.as_ref().map(|slot| self.upstream(slot));
        // systemd would give the app's data to the unit's user as well.
        let refused = self.other_user(None).await;
        self.hooks.run(&self.bus, occasion, upstream, refused).await
    }

    fn shared(&self) -> PathBuf {
        shared(&Path::new("/var/lib/slot-app").join(self.app.as_str()))
    }

    fn staging(&self) -> PathBuf {
        Path::new(STAGING).join(self.app.as_str()).join(TREE)
    }

    async fn stage(&self, promoted: Promoted, store: Store) -> Result<Made, String> {
        self.stage.make(&self.bus, promoted, store).await
    }

    async fn end_build(&self) {
        if let Some(setup) = &self.setup {
            setup.end(&self.bus).await;
        }
    }

    async fn fetch<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        match &self.fetch {
            Some(errand) => errand.run(&self.bus, exchange).await,
            None => Err(Unbuilt::without("has no remote")),
        }
    }

    async fn end_fetch(&self) {
        if let Some(errand) = &self.fetch {
            errand.end(&self.bus).await;
        }
    }

    async fn notify<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        self.notify.run(&self.bus, exchange).await
    }

    async fn report(&self, name: &SlotName, boot: Option<&BootId>) -> Report {
        let slot = self.slot(name);
        let mut unit = self.bus.properties(&slot.service).await;
        let listens = match self.internet.sockets().await {
            Ok(Sockets { diag, .. }) => {
                let listed = own(&diag, &unit.control_group);
                blocking(move || listed.iter().map(Listener::named).collect()).await
            }
            Err(_) => Vec::new(),
        };
        let ended = self.ended().get(name).cloned();
        if let Some(ended) =
            ended.filter(|ended| boot.is_none() || ended.invocation.as_ref() == boot)
        {
            unit = ended;
        }
        let run = boot.cloned().or_else(|| unit.invocation.clone());
        let log = match &run {
            Some(run) => journal::last_lines(run).await,
            None => Vec::new(),
        };
        let mut report = Report {
            unit: slot.service.to_string(),
            log,
            listens,
            journal: Some(journal::command(slot.service.stem(), run.as_ref())),
            ..Report::default()
        };
        // Of another run than the one that is asked for, these would be lies.
        if run == unit.invocation {
            let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
            report.result = some(&unit.result);
            report.exit = how_it_ended(&unit);
            report.status_text = some(&unit.status_text);
        }
        report
    }
}

#[cfg(test)]
#[path = "systemd_tests.rs"]
mod tests;
