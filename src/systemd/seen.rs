//! What slot makes of a unit's properties.
//!
//! **Invariant:** a pure function of one moment's properties.

use super::Properties;
use super::failure::failure;
use crate::deploy::{End, Seen, UnitFailure};

/// What runs in a unit.
///
/// A unit never says that somebody stopped it. That is told from the fact that it did not start again where its `Restart=` would
/// have made it. That somebody has it restarted is told by its job, which is one to restart it until it is down, and to start it from there.
#[must_use]
pub fn seen(unit: &Properties) -> Seen {
    // `auto-restart`, and since systemd 254 `auto-restart-queued`, `failed-before-auto-restart`, `dead-before-auto-restart`.
    if unit.sub_state.contains("auto-restart") {
        return Seen::Ended(End::Restarting(failure(unit)));
    }
    match unit.active_state.as_str() {
        "active" | "reloading" | "refreshing" => match &unit.invocation {
            Some(run) => Seen::Running(run.clone()),
            None => Seen::Coming,
        },
        "activating" => Seen::Coming,
        _ if is_restarted(unit) => Seen::Ended(End::Restarting(UnitFailure::restarted())),
        // From here on it takes no new connections, whatever its last process still does.
        "deactivating" if unit.job != 0 => Seen::Ended(End::ByHand),
        "deactivating" if starts_again(unit) => Seen::Ended(End::Restarting(failure(unit))),
        _ => Seen::Ended(ended(unit)),
    }
}

/// A job that somebody asked for takes it down and brings it up again. With which status a process ends that was told to says nothing.
fn is_restarted(unit: &Properties) -> bool {
    unit.is_between() && matches!(unit.job_type.as_str(), "restart" | "start")
}

fn ended(unit: &Properties) -> End {
    if matches!(unit.load_state.as_str(), "not-found" | "masked") && unit.active_state != "failed" {
        return End::Failed(UnitFailure {
            result: "unit-missing".into(),
            text: if unit.load_error.is_empty() {
                "the unit is not installed, or masked".to_owned()
            } else {
                unit.load_error.trim_end_matches('.').to_owned()
            },
        });
    }
    if unit.result.is_empty() || unit.result == "success" || starts_again(unit) {
        End::ByHand
    } else {
        End::Failed(failure(unit))
    }
}

/// Whether a unit with this result is started again if nobody stops it (the table at `Restart=` in systemd.service(5)).
fn starts_again(unit: &Properties) -> bool {
    let result = unit.result.as_str();
    // These end before there is a run that could be repeated.
    if matches!(result, "start-limit-hit" | "exec-condition") {
        return false;
    }
    let clean = result == "success";
    match unit.restart.as_str() {
        "always" => true,
        "on-success" => clean,
        "on-failure" => !clean,
        "on-abnormal" => !clean && result != "exit-code",
        "on-abort" => matches!(result, "signal" | "core-dump"),
        "on-watchdog" => result == "watchdog",
        _ => false,
    }
}

#[cfg(test)]
#[path = "seen_tests.rs"]
mod tests;
