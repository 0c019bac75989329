//! The slots of an app as units of systemd.
//!
//! **Invariant:** an answer counts only from the unit that was started: every socket that could have answered was made in its cgroup. A socket
//! that PID 1 holds for the unit is the exception; whoever accepts from it was started by PID 1.
//! **Invariant:** nothing is started where somebody else listens.
//! **Invariant:** while the machine goes down nothing is reported as failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::live::blocking;
use super::units::{Report, Units};
use crate::config::{App, Bind, Ports};
use crate::deploy::{AppName, BootId, Probe, ReleaseId, Seen, SlotName, UnitFailure};
use crate::probe::{Address, Owner, ask, cgroup_of, in_cgroup, listeners};
use crate::systemd::{
    Bus, CallError, Properties, StartError, UnitName, Watch, how_it_ended, journal, seen,
};

/// PID 1's own cgroup, in which the sockets are made that it holds for others.
const INIT: &str = "/init.scope";

/// The slots of one app.
#[derive(Debug)]
pub struct SystemdUnits {
    bus: Arc<Bus>,
    app: AppName,
    slots: BTreeMap<SlotName, Slot>,
    watch: Watch,
    /// `/etc/slot/apps/web.toml`, for messages.
    file: PathBuf,
    host: String,
    path: String,
    /// How each slot's last run ended, for its report: PID 1 forgets a unit that is stopped, and what it says of one that was started
    /// again is of its new run.
    ended: Mutex<BTreeMap<SlotName, Properties>>,
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

/// Who else listens at an address.
enum Stranger {
    /// The kernel says who.
    Known(Owner),
    /// It says nothing.
    Unknown(String),
}

impl SystemdUnits {
    /// The units of an app. `file` is the app's file, for messages; `run` is `/run/slot`.
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
            file,
            // Some frameworks answer only to hosts that they know.
            host: app
                .hosts
                .iter()
                .find(|host| !host.contains('*'))
                .map_or_else(|| "localhost".to_owned(), Clone::clone),
            path: app.health.clone(),
            ended: Mutex::default(),
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

    fn ended(&self) -> MutexGuard<'_, BTreeMap<SlotName, Properties>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever might answer at an address and is not of this cgroup.
    async fn stranger(&self, at: &Address, cgroup: &str) -> Option<Stranger> {
        match at {
            Address::Tcp(tcp) => {
                let (tcp, cgroup) = (*tcp, cgroup.to_owned());
                let there = match listeners::at(tcp) {
                    Ok(there) => there,
                    Err(reason) => return Some(Stranger::Unknown(reason.to_string())),
                };
                let own = [own(&cgroup), own(INIT)].concat();
                let other = there.into_iter().find(|listener| !own.contains(listener))?;
                if other.cgroup.is_none() {
                    let lacking = "the kernel does not say whose socket it is (it needs Linux 5.7)";
                    return Some(Stranger::Unknown(lacking.to_owned()));
                }
                // Walks /proc and the cgroup tree.
                Some(Stranger::Known(blocking(move || other.owner()).await))
            }
            Address::Unix(path) => {
                // Nobody listens, or it cannot be asked: then nobody answers either.
                let pid = listeners::of_unix(path).await.ok()??;
                self.stranger_process(pid, cgroup).map(Stranger::Known)
            }
        }
    }

    /// A process that is not of this cgroup. One that is gone is nobody: its children have the socket, which is in a
    /// directory that only the unit's user may write.
    fn stranger_process(&self, pid: i32, cgroup: &str) -> Option<Owner> {
        let its = cgroup_of(pid)?;
        let ours = in_cgroup(&its, INIT) || (!cgroup.is_empty() && in_cgroup(&its, cgroup));
        (!ours).then(|| Owner::of_process(pid))
    }

    /// Somebody else where the slot is to listen.
    async fn occupied(&self, name: &SlotName, slot: &Slot) -> Option<UnitFailure> {
        if slot.socket.is_some() {
            return None;
        }
        let cgroup = self.bus.properties(&slot.service).await.control_group;
        for at in [&slot.upstream, &slot.health] {
            let text = match self.stranger(at, &cgroup).await {
                None => continue,
                Some(Stranger::Known(owner)) => format!("{owner} listens on {at} already"),
                Some(Stranger::Unknown(reason)) => format!("{at} may be in use: {reason}"),
            };
            let remedy = match at {
                Address::Tcp(_) => format!(
                    "stop that, or change the port of {name} under [ports] in {}",
                    self.file.display()
                ),
                Address::Unix(_) => "stop that".to_owned(),
            };
            return Some(UnitFailure {
                result: "port-in-use".to_owned(),
                text: format!("{text}; {remedy}"),
            });
        }
        None
    }

    /// `; web@green.service listens on 127.0.0.1:3000 instead: let it use $PORT`.
    async fn elsewhere(&self, slot: &Slot) -> String {
        let cgroup = self.bus.properties(&slot.service).await.control_group;
        let places: Vec<SocketAddr> = own(&cgroup).iter().map(|listener| listener.at).collect();
        elsewhere(slot, &places)
    }
}

/// What is wrong with where a unit listens, and what would mend it.
fn elsewhere(slot: &Slot, places: &[SocketAddr]) -> String {
    if places.is_empty() {
        return String::new();
    }
    let remedy = match &slot.health {
        // `::1` alone, as servers that are told to listen on `localhost` do.
        Address::Tcp(at) if places.iter().all(|place| place.port() == at.port()) => {
            format!("let it listen on {}", at.ip())
        }
        Address::Tcp(_) | Address::Unix(_) => format!("let it use ${}", slot.variable),
    };
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    format!(
        "; {} listens on {} instead: {remedy}",
        slot.service,
        places.join(" and ")
    )
}

/// Where a slot of an app is.
fn slot(app: &App, name: &SlotName, run: &Path) -> Slot {
    let service = UnitName::service(&app.name, name);
    let socket = Address::Unix(app.socket(run, name));
    match app.bind {
        Bind::Port => {
            // A file in /etc/slot/apps without a slot's ports is refused when it is read.
            let Ports { port, internal } = app.ports.get(name).copied().unwrap_or(Ports {
                port: 0,
                internal: 0,
            });
            Slot {
                service,
                socket: None,
                upstream: Address::loopback(port),
                health: Address::loopback(internal),
                variable: if port == internal {
                    "PORT"
                } else {
                    "INTERNAL_PORT"
                },
            }
        }
        Bind::Unix => Slot {
            service,
            socket: None,
            upstream: socket.clone(),
            health: socket,
            variable: "SOCKET",
        },
        Bind::Fd => Slot {
            service,
            socket: Some(UnitName::socket(&app.name, name)),
            upstream: socket.clone(),
            health: socket,
            variable: "LISTEN_FDS",
        },
    }
}

/// The listeners of a cgroup; none if that cannot be known.
fn own(cgroup: &str) -> Vec<listeners::Listener> {
    listeners::of_cgroup(cgroup).unwrap_or_default()
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
        CallError::Refused { unit, .. } => (
            "refused",
            format!("; `systemctl status {}` says more", unit.stem()),
        ),
        CallError::GoingDown { .. } => ("going-down", String::new()),
        CallError::Lost { .. } => ("lost", String::new()),
    };
    UnitFailure {
        result: result.to_owned(),
        text: format!("{error}{remedy}"),
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Units for SystemdUnits {
    async fn start(
        &self,
        name: &SlotName,
        _release: &ReleaseId,
        limit: Duration,
    ) -> Result<BootId, UnitFailure> {
        let slot = self.slot(name);
        if let Some(occupied) = self.occupied(name, &slot).await {
            return Err(occupied);
        }
        let started = self
            .bus
            .start(&slot.service, slot.socket.as_ref(), limit)
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

    async fn stop(&self, name: &SlotName, limit: Duration) -> bool {
        let slot = self.slot(name);
        self.bus
            .stop(&slot.service, slot.socket.as_ref(), limit)
            .await
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

    fn unit(&self, name: &SlotName) -> String {
        self.slot(name).service.to_string()
    }

    fn upstream(&self, name: &SlotName) -> String {
        self.slot(name).upstream.to_string()
    }

    async fn probe(&self, name: &SlotName, limit: Duration) -> Probe {
        let slot = self.slot(name);
        let probe = match ask(&slot.health, &self.host, &self.path, limit).await {
            Ok(answer) => {
                let cgroup = self.bus.properties(&slot.service).await.control_group;
                let stranger = match (&slot.health, answer.listener) {
                    (Address::Unix(_), Some(pid)) => {
                        self.stranger_process(pid, &cgroup).map(Stranger::Known)
                    }
                    _ => self.stranger(&slot.health, &cgroup).await,
                };
                match stranger {
                    None => Probe {
                        pass: answer.passes(),
                        text: answer.to_string(),
                    },
                    Some(Stranger::Known(owner)) => Probe {
                        pass: false,
                        text: format!("{owner} answers on {}, not {}", slot.health, slot.service),
                    },
                    Some(Stranger::Unknown(reason)) => Probe {
                        pass: false,
                        text: format!("{answer}, but it does not count: {reason}"),
                    },
                }
            }
            Err(none) => Probe {
                pass: false,
                text: format!("{none}{}", self.elsewhere(&slot).await),
            },
        };
        if !probe.pass {
            self.bus.unless_going_down().await;
        }
        probe
    }

    async fn report(&self, name: &SlotName, boot: Option<&BootId>) -> Report {
        let slot = self.slot(name);
        let mut unit = self.bus.properties(&slot.service).await;
        let listens = blocking({
            let cgroup = unit.control_group.clone();
            move || {
                let listed = own(&cgroup);
                listed
                    .iter()
                    .map(|listener| match listener.owner().name {
                        Some(name) => format!("{} ({name})", listener.at),
                        None => listener.at.to_string(),
                    })
                    .collect()
            }
        })
        .await;
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
