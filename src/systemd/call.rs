//! Calls to PID 1, and what their errors mean.
//!
//! **Invariant:** an error says which unit, what was asked of it, and what would make it work.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use zbus::{DynamicType, Message, OwnedObjectPath, OwnedVariant, Variant, fdo};

use super::{Bus, Properties, UnitName};

pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const JOB: &str = "org.freedesktop.systemd1.Job";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long a refusal for want of a polkit rule is taken for one that comes too early: polkitd sees a rule file that was just written
/// by inotify, some time later.
const RULE_SETTLES: Duration = Duration::from_secs(3);

/// How long after it was lost a connection or PID 1 is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// How often a unit is looked at again whose job had ended before its type could be asked for.
const JOB_LOOKS: u32 = 3;

/// How often it is looked whether a shutdown was cancelled.
const GOING_DOWN: Duration = Duration::from_secs(1);

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody knows such a unit; for a stop that is as good as stopped.
    #[error("{message}")]
    NotLoaded {
        /// As asked.
        unit: UnitName,
        /// What PID 1 says: `Unit web@green.service not found`.
        message: String,
    },
    /// The machine is going down, and takes no new jobs.
    #[error("cannot {verb} {unit}: the machine is going down")]
    GoingDown {
        /// As asked.
        unit: UnitName,
        /// `start`, `stop`, …
        verb: &'static str,
    },
    /// This user may not.
    #[error("may not {verb} {unit}: {why}")]
    Denied {
        /// As asked.
        unit: UnitName,
        /// `start`, `stop`, …
        verb: &'static str,
        /// What is missing.
        why: Why,
    },
    /// PID 1 says no.
    #[error("cannot {verb} {unit}: {message} ({name})")]
    Refused {
        /// As asked.
        unit: UnitName,
        /// `start`, `stop`, …
        verb: &'static str,
        /// The name of the D-Bus error.
        name: String,
        /// What PID 1 says.
        message: String,
    },
    /// The bus, or PID 1 on it, was gone in the middle of a call, which may have worked.
    #[error("the connection to PID 1 was lost while {unit} was asked to {verb}")]
    Lost {
        /// As asked.
        unit: UnitName,
        /// `start`, `stop`, …
        verb: &'static str,
        /// What the connection says.
        #[source]
        reason: zbus::Error,
    },
}

/// Why a user may not start or stop a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// `AccessDenied` where no polkit is: PID 1 then lets root alone.
    #[error(
        "polkit is not installed, so PID 1 takes orders from root only; install polkitd (`apt install polkitd`)"
    )]
    NoPolkit,
    /// `InteractiveAuthorizationRequired`: polkit would ask a person for a password.
    #[error(
        "no polkit rule lets this user do it; reinstall the package, which brings /usr/share/polkit-1/rules.d/60-slot.rules"
    )]
    NoRule,
    /// The same, of a unit of this app's, whose rule slotctl makes.
    #[error(
        "no polkit rule lets this user do it; `slotctl app reload {0}` writes that of the app, /etc/polkit-1/rules.d/60-slot-app-{0}.rules, \
         anew"
    )]
    NoAppRule(String),
    /// `AccessDenied` by the bus itself, which lets root alone call this method.
    #[error(
        "the bus does not let this user ask for it; reinstall the package, which brings /usr/share/dbus-1/system.d/slot.conf, then \
         `systemctl reload dbus`"
    )]
    NoBusPolicy,
    /// `AccessDenied` by polkit: a rule says no.
    #[error("a polkit rule forbids it; `journalctl -u polkit` and /etc/polkit-1/rules.d say which")]
    Forbidden,
}

/// What becomes of an error.
enum Meaning {
    Transient,
    NotLoaded(String),
    GoingDown,
    Denied(String),
    NeedsPassword,
    Other(String, String),
}

fn meaning(error: &zbus::Error) -> Meaning {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            let text = text.clone().unwrap_or_default();
            match name.as_str() {
                "org.freedesktop.systemd1.NoSuchUnit" => Meaning::NotLoaded(text),
                "org.freedesktop.systemd1.TransactionIsDestructive"
                | "org.freedesktop.systemd1.ShuttingDown" => Meaning::GoingDown,
                name => Meaning::Other(name.to_owned(), text),
            }
        }
        zbus::Error::FDO(error) => match &**error {
            fdo::Error::AccessDenied(text) => Meaning::Denied(text.clone()),
            fdo::Error::InteractiveAuthorizationRequired(_) => Meaning::NeedsPassword,
            fdo::Error::FileNotFound(text) => Meaning::NotLoaded(text.clone()),
            // Only PID 1 answers for its name, so each of these says that it was not on the bus.
            fdo::Error::ServiceUnknown(_)
            | fdo::Error::NameHasNoOwner(_)
            | fdo::Error::NoReply(_)
            | fdo::Error::Disconnected(_)
            | fdo::Error::NoServer(_)
            | fdo::Error::Timeout(_)
            | fdo::Error::TimedOut(_)
            | fdo::Error::SpawnChildExited(_)
            | fdo::Error::SpawnChildSignaled(_)
            | fdo::Error::SpawnExecFailed(_)
            | fdo::Error::SpawnFailed(_)
            | fdo::Error::SpawnServiceNotFound(_)
            | fdo::Error::ZBus(_) => Meaning::Transient,
            other => Meaning::Other("org.freedesktop.DBus.Error".to_owned(), other.to_string()),
        },
        zbus::Error::InputOutput(_) => Meaning::Transient,
        other => Meaning::Other("zbus".to_owned(), other.to_string()),
    }
}

/// Whether the bus has refused a call, and not PID 1, which says `Access denied`: the error has the same name, and zbus keeps no sender of it.
fn is_of_bus(text: &str) -> bool {
    // dbus-daemon, and dbus-broker.
    [
        "Rejected send message",
        "Sender is not authorized to send message",
    ]
    .iter()
    .any(|said| text.starts_with(said))
}

impl Bus {
    /// A method of PID 1's manager that concerns one unit, once.
    ///
    /// A refusal because no polkit rule allows it is tried again for some seconds.
    pub(super) async fn call<B>(
        &self,
        unit: &UnitName,
        verb: &'static str,
        method: &'static str,
        body: &B,
    ) -> Result<Message, CallError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        let begun = Instant::now();
        loop {
            let connection = self.link().await;
            let called = connection
                .call_method(Some(SYSTEMD), PATH, Some(MANAGER), method, body)
                .await;
            let reason = match called {
                Ok(reply) => return Ok(reply),
                Err(reason) => reason,
            };
            let unit = unit.clone();
            return Err(match meaning(&reason) {
                Meaning::NeedsPassword if begun.elapsed() < RULE_SETTLES => {
                    sleep(AGAIN).await;
                    continue;
                }
                Meaning::NeedsPassword => CallError::Denied {
                    why: match unit.app_of_slot() {
                        Some(app) => Why::NoAppRule(app.to_owned()),
                        None => Why::NoRule,
                    },
                    unit,
                    verb,
                },
                Meaning::Denied(text) => CallError::Denied {
                    unit,
                    verb,
                    why: if is_of_bus(&text) {
                        Why::NoBusPolicy
                    } else if self.has_polkit().await {
                        Why::Forbidden
                    } else {
                        Why::NoPolkit
                    },
                },
                Meaning::NotLoaded(message) => CallError::NotLoaded {
                    unit,
                    message: message.trim_end_matches('.').to_owned(),
                },
                Meaning::GoingDown => CallError::GoingDown { unit, verb },
                Meaning::Transient => {
                    // The keeper may take a moment to see it; do not spin.
                    sleep(AGAIN).await;
                    CallError::Lost { unit, verb, reason }
                }
                Meaning::Other(name, message) => CallError::Refused {
                    unit,
                    verb,
                    name,
                    message,
                },
            });
        }
    }

    /// What a unit says of itself now. Waits for PID 1 if it is not on the bus.
    ///
    /// A unit that does not exist has properties too: [`Properties::load_state`] says so.
    pub async fn properties(&self, unit: &UnitName) -> Properties {
        for _ in 0..JOB_LOOKS {
            let found = self.all_properties(unit).await;
            if !found.is_between() {
                return found;
            }
            // It may have ended since, and then the unit is not as it was.
            if let Some(job_type) = self.job_type(found.job).await {
                return Properties { job_type, ..found };
            }
        }
        self.all_properties(unit).await
    }

    /// What a job is for (org.freedesktop.systemd1(5), `JobType`); `None` if it has ended.
    async fn job_type(&self, job: u32) -> Option<String> {
        let connection = self.link().await;
        let path = format!("{PATH}/job/{job}");
        let asked = connection
            .call_method(
                Some(SYSTEMD),
                path.as_str(),
                Some(PROPERTIES),
                "Get",
                &(JOB, "JobType"),
            )
            .await;
        let reply = asked.ok()?;
        match &*reply.body().deserialize::<OwnedVariant>().ok()? {
            Variant::Str(job_type) => Some(job_type.to_string()),
            _ => None,
        }
    }

    async fn all_properties(&self, unit: &UnitName) -> Properties {
        let path = unit.path();
        let mut told = false;
        loop {
            let connection = self.link().await;
            // The empty interface is all of them: of the unit and of the service, at one moment.
            let called = connection
                .call_method(
                    Some(SYSTEMD),
                    path.as_str(),
                    Some(PROPERTIES),
                    "GetAll",
                    &"",
                )
                .await
                .and_then(|reply| reply.body().deserialize::<HashMap<String, OwnedVariant>>());
            match called {
                Ok(all) => return Properties::read(&all),
                Err(reason) => {
                    if !told && !matches!(meaning(&reason), Meaning::Transient) {
                        told = true;
                        tracing::warn!(%unit, %reason, "PID 1 does not tell how the unit is; asking again");
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// The units that PID 1 has in memory and whose names match a pattern (glob(7)), with their active states: `active`, `activating`, ….
    /// Waits for PID 1 if it is not on the bus.
    pub async fn units(&self, pattern: &str) -> Vec<(String, String)> {
        /// Name, description, load, active and sub state, followed unit, path, job's number, type and path.
        type Listed = (
            String,
            String,
            String,
            String,
            String,
            String,
            OwnedObjectPath,
            u32,
            String,
            OwnedObjectPath,
        );
        let no_states: [&str; 0] = [];
        loop {
            let connection = self.link().await;
            let method = "ListUnitsByPatterns";
            let asked = connection
                .call_method(
                    Some(SYSTEMD),
                    PATH,
                    Some(MANAGER),
                    method,
                    &(&no_states[..], &[pattern][..]),
                )
                .await
                .and_then(|reply| reply.body().deserialize::<Vec<Listed>>());
            match asked {
                Ok(listed) => {
                    let named = listed.into_iter();
                    return named.map(|unit| (unit.0, unit.3)).collect();
                }
                Err(reason) => {
                    if !matches!(meaning(&reason), Meaning::Transient) {
                        tracing::warn!(pattern, %reason, "PID 1 does not list units; asking again");
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Whether PID 1 has this unit in memory; one that it has not, does not run. Asking for properties instead would load it, which takes
    /// PID 1 some milliseconds.
    pub(super) async fn is_loaded(&self, unit: &UnitName) -> bool {
        let connection = self.link().await;
        let asked = connection
            .call_method(
                Some(SYSTEMD),
                PATH,
                Some(MANAGER),
                "GetUnit",
                &unit.as_str(),
            )
            .await;
        !asked.is_err_and(|reason| matches!(meaning(&reason), Meaning::NotLoaded(_)))
    }

    /// Whether the machine is shutting down (`systemctl is-system-running`: `stopping`). What ends now, ends because of that.
    ///
    /// Waits for PID 1 if it is not on the bus: the bus is stopped in a shutdown too, and no answer must not read as no.
    pub async fn going_down(&self) -> bool {
        loop {
            let connection = self.link().await;
            let asked: zbus::Result<OwnedVariant> = connection
                .call_method(
                    Some(SYSTEMD),
                    PATH,
                    Some(PROPERTIES),
                    "Get",
                    &(MANAGER, "SystemState"),
                )
                .await
                .and_then(|reply| reply.body().deserialize());
            match asked {
                Ok(state) => {
                    return <&str>::try_from(&state).is_ok_and(|state| state == "stopping");
                }
                Err(reason) if matches!(meaning(&reason), Meaning::Transient) => sleep(AGAIN).await,
                Err(_) => return false,
            }
        }
    }

    /// Returns at once, but while the machine goes down: then not at all, unless the shutdown is cancelled. For whoever is about to tell
    /// that something ended.
    pub async fn unless_going_down(&self) {
        while self.going_down().await {
            sleep(GOING_DOWN).await;
        }
    }

    /// Whether polkit runs or would be started when asked.
    async fn has_polkit(&self) -> bool {
        const POLKIT: &str = "org.freedesktop.PolicyKit1";
        let connection = self.link().await;
        let asked = async {
            let dbus = fdo::DBusProxy::new(&connection).await?;
            let running = dbus.list_names().await?;
            let startable = dbus.list_activatable_names().await?;
            let found = running
                .iter()
                .chain(&startable)
                .any(|name| name.as_str() == POLKIT);
            Ok::<_, zbus::Error>(found)
        };
        asked.await.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bus_refuses_is_told_from_what_pid_1_does() {
        assert!(is_of_bus(
            "Rejected send message, 2 matched rules; type=\"method_call\", sender=\":1.7\""
        ));
        assert!(is_of_bus("Sender is not authorized to send message"));
        assert!(!is_of_bus("Access denied"));
        assert!(!is_of_bus("Permission denied"));
    }

    #[test]
    fn each_reason_says_what_is_missing_and_what_to_do() {
        for (why, names, remedy) in [
            (
                Why::NoPolkit,
                "polkit is not installed",
                "apt install polkitd",
            ),
            (Why::NoRule, "no polkit rule", "reinstall the package"),
            (
                Why::NoAppRule("web".to_owned()),
                "no polkit rule",
                "`slotctl app reload web`",
            ),
            (Why::NoBusPolicy, "the bus", "dbus-1/system.d/slot.conf"),
            (
                Why::Forbidden,
                "a polkit rule forbids it",
                "journalctl -u polkit",
            ),
        ] {
            let said = why.to_string();
            assert!(said.contains(names) && said.contains(remedy), "{said}");
        }
    }
}
