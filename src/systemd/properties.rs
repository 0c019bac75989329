//! What a unit says of itself (org.freedesktop.systemd1(5)), as far as slot asks.
//!
//! **Invariant:** all of it is of one moment, and none of it is kept: each question is asked afresh.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use zbus::{Array, OwnedVariant, Structure, Variant};

use crate::deploy::BootId;

/// The properties of a unit, and of its service where it is one. A property that PID 1 did not send has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load_state: String,
    /// Why it is not loaded.
    pub load_error: String,
    /// `active`, `reloading`, `inactive`, `failed`, `activating`, `deactivating`, …
    pub active_state: String,
    /// `running`, `start`, `auto-restart`, `stop-sigterm`, `dead`, …
    pub sub_state: String,
    /// The number of the job that waits or runs for it; 0 is none.
    pub job: u32,
    /// What that job is for: `start`, `stop`, `restart`, …; empty where the unit is up or on its way, of which nothing depends on it.
    pub job_type: String,
    /// Its run, or its last one.
    pub invocation: Option<BootId>,
    /// `/slot.slice/web@green.service`; empty when it has no processes.
    pub control_group: String,
    /// Its files are newer than what PID 1 has read (`systemctl daemon-reload`).
    pub need_daemon_reload: bool,
    /// How its last run ended: `success`, `exit-code`, `signal`, … (systemd.exec(5), `$SERVICE_RESULT`).
    pub result: String,
    /// `always`, `no`, … (systemd.service(5), `Restart=`).
    pub restart: String,
    /// From SIGTERM to SIGKILL (`TimeoutStopSec=`); zero for what is not a service.
    pub stop_limit: Duration,
    /// 0 when it has none now.
    pub main_pid: u32,
    /// `User=` of its files as they are now, whoever it runs as.
    pub user: String,
    /// `DynamicUser=`, likewise.
    pub dynamic_user: bool,
    /// Who its processes run as (`UID`, org.freedesktop.systemd1(5)); none while PID 1 has given it nobody.
    pub uid: Option<u32>,
    /// How the main process ended: `CLD_EXITED`, `CLD_KILLED`, `CLD_DUMPED` (sigaction(2)); 0 when it has not.
    pub exec_main_code: i32,
    /// Its exit status, or the signal.
    pub exec_main_status: i32,
    /// When the main process was forked, in microseconds since 1970; 0 when it never was.
    pub exec_main_start: u64,
    /// Its last `STATUS=` (sd_notify(3)).
    pub status_text: String,
    /// How often it has been started again by itself.
    pub restarts: u32,
    /// How many descriptors PID 1 keeps for it (`FDSTORE=1`, sd_notify(3)): a stop closes them.
    pub stored: u32,
    /// Its processes are not run, or are about not to be (`FreezerState`).
    pub is_frozen: bool,
}

impl Properties {
    /// A job waits or runs for a unit that is down or goes down: it depends on the job's type what that means.
    pub(super) fn is_between(&self) -> bool {
        let down = matches!(
            self.active_state.as_str(),
            "deactivating" | "inactive" | "failed"
        );
        down && self.job != 0
    }

    pub(super) fn read(all: &HashMap<String, OwnedVariant>) -> Self {
        let text = |name: &str| match all.get(name).map(|value| &**value) {
            Some(Variant::Str(text)) => text.to_string(),
            _ => String::new(),
        };
        let number = |name: &str| match all.get(name).map(|value| &**value) {
            Some(Variant::U32(number)) => *number,
            _ => 0,
        };
        let signed = |name: &str| match all.get(name).map(|value| &**value) {
            Some(Variant::I32(number)) => *number,
            _ => 0,
        };
        let flag = |name: &str| {
            matches!(
                all.get(name).map(|value| &**value),
                Some(Variant::Bool(true))
            )
        };
        let long = |name: &str| match all.get(name).map(|value| &**value) {
            Some(Variant::U64(number)) => *number,
            _ => 0,
        };
        // (name, message) and (id, path)
        let fields = |name: &str| match all.get(name).map(|value| &**value) {
            Some(Variant::Structure(fields)) => Some(fields),
            _ => None,
        };
        Self {
            load_state: text("LoadState"),
            load_error: fields("LoadError").and_then(message).unwrap_or_default(),
            active_state: text("ActiveState"),
            sub_state: text("SubState"),
            job: fields("Job").and_then(id).unwrap_or(0),
            job_type: String::new(),
            invocation: match all.get("InvocationID").map(|value| &**value) {
                Some(Variant::Array(bytes)) => run(bytes),
                _ => None,
            },
            control_group: text("ControlGroup"),
            need_daemon_reload: flag("NeedDaemonReload"),
            result: text("Result"),
            restart: text("Restart"),
            stop_limit: Duration::from_micros(long("TimeoutStopUSec")),
            main_pid: number("MainPID"),
            user: text("User"),
            dynamic_user: flag("DynamicUser"),
            // 2^32 - 1 is nobody (systemd's UID_INVALID).
            uid: Some(number("UID")).filter(|uid| !matches!(*uid, 0 | u32::MAX)),
            exec_main_code: signed("ExecMainCode"),
            exec_main_status: signed("ExecMainStatus"),
            exec_main_start: long("ExecMainStartTimestamp"),
            status_text: text("StatusText"),
            restarts: number("NRestarts"),
            stored: number("NFileDescriptorStore"),
            is_frozen: matches!(text("FreezerState").as_str(), "frozen" | "freezing"),
        }
    }
}

fn message(fields: &Structure<'_>) -> Option<String> {
    match fields.fields().get(1)? {
        Variant::Str(text) => Some(text.to_string()),
        _ => None,
    }
}

fn id(fields: &Structure<'_>) -> Option<u32> {
    match fields.fields().first()? {
        Variant::U32(id) => Some(*id),
        _ => None,
    }
}

/// Sixteen bytes; none before the first run.
fn run(bytes: &Array<'_>) -> Option<BootId> {
    let mut hex = String::with_capacity(32);
    for byte in bytes.iter() {
        let Variant::U8(byte) = byte else { return None };
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pid_1_sends_is_read_and_what_it_does_not_is_absent() {
        let mut all: HashMap<String, OwnedVariant> = HashMap::new();
        let mut put = |name: &str, value: Variant<'_>| {
            all.insert(name.to_owned(), value.try_into().unwrap());
        };
        put("ActiveState", Variant::from("active"));
        put("InvocationID", Variant::from(vec![0xab_u8; 16]));
        put(
            "Job",
            Variant::from((7_u32, zbus::ObjectPath::try_from("/job/7").unwrap())),
        );
        put("LoadError", Variant::from(("org.x", "Unit not found.")));
        put("MainPID", Variant::from(4242_u32));
        put("ExecMainStatus", Variant::from(-1_i32));
        put("NeedDaemonReload", Variant::from(true));
        // Of another type than documented: as good as absent.
        put("Result", Variant::from(3_u32));
        assert_eq!(
            Properties::read(&all),
            Properties {
                active_state: "active".to_owned(),
                invocation: Some("ab".repeat(16).parse().unwrap()),
                job: 7,
                load_error: "Unit not found.".to_owned(),
                main_pid: 4242,
                exec_main_status: -1,
                need_daemon_reload: true,
                ..Properties::default()
            }
        );
    }

    #[test]
    fn a_unit_that_never_ran_has_no_run() {
        let mut all: HashMap<String, OwnedVariant> = HashMap::new();
        all.insert(
            "InvocationID".to_owned(),
            Variant::from(Vec::<u8>::new()).try_into().unwrap(),
        );
        assert_eq!(Properties::read(&all).invocation, None);
    }
}
