//! Properties as systemd 252 and 257 showed them, and what slot makes of each.

use super::*;

const RUN: &str = "0123456789abcdef0123456789abcdef";

fn unit(active: &str, sub: &str, result: &str, restart: &str) -> Properties {
    Properties {
        load_state: "loaded".to_owned(),
        active_state: active.to_owned(),
        sub_state: sub.to_owned(),
        result: result.to_owned(),
        restart: restart.to_owned(),
        invocation: Some(RUN.parse().unwrap()),
        exec_main_code: 1,
        exec_main_status: i32::from(result == "exit-code"),
        ..Properties::default()
    }
}

/// One word for what is seen.
fn word(unit: &Properties) -> String {
    match seen(unit) {
        Seen::Running(run) => {
            assert_eq!(run.as_str(), RUN);
            "running".to_owned()
        }
        Seen::Coming => "coming".to_owned(),
        Seen::Ended(End::ByHand) => "by hand".to_owned(),
        Seen::Ended(End::Restarting(failure)) => format!("restarting: {}", failure.text),
        Seen::Ended(End::Failed(failure)) => format!("failed: {}", failure.text),
    }
}

#[test]
fn each_state_of_a_unit_is_seen_for_what_it_means() {
    for (active, sub, result, restart, expected) in [
        ("active", "running", "success", "always", "running"),
        ("reloading", "reload", "success", "always", "running"),
        (
            "refreshing",
            "refresh-extensions",
            "success",
            "always",
            "running",
        ),
        ("activating", "start", "success", "always", "coming"),
        ("activating", "start-pre", "success", "always", "coming"),
        (
            "activating",
            "auto-restart",
            "exit-code",
            "always",
            "restarting: exited with status 1",
        ),
        (
            "activating",
            "auto-restart-queued",
            "exit-code",
            "always",
            "restarting: exited with status 1",
        ),
        (
            "inactive",
            "dead-before-auto-restart",
            "success",
            "always",
            "restarting: exited with status 0",
        ),
        (
            "failed",
            "failed-before-auto-restart",
            "exit-code",
            "always",
            "restarting: exited with status 1",
        ),
        (
            "deactivating",
            "stop-sigterm",
            "exit-code",
            "always",
            "restarting: exited with status 1",
        ),
        (
            "deactivating",
            "stop-sigterm",
            "success",
            "always",
            "restarting: exited with status 0",
        ),
        (
            "deactivating",
            "stop-sigterm",
            "exit-code",
            "no",
            "failed: exited with status 1",
        ),
        ("deactivating", "stop-sigterm", "success", "no", "by hand"),
        ("inactive", "dead", "success", "always", "by hand"),
        ("inactive", "dead", "success", "no", "by hand"),
        ("inactive", "dead", "success", "on-failure", "by hand"),
        // It would have been started again; that it was not says that somebody stopped it.
        ("failed", "failed", "exit-code", "always", "by hand"),
        ("failed", "failed", "timeout", "on-failure", "by hand"),
        (
            "failed",
            "failed",
            "exit-code",
            "on-abnormal",
            "failed: exited with status 1",
        ),
        (
            "failed",
            "failed",
            "exit-code",
            "on-abort",
            "failed: exited with status 1",
        ),
        (
            "failed",
            "failed",
            "exit-code",
            "on-watchdog",
            "failed: exited with status 1",
        ),
        (
            "failed",
            "failed",
            "exit-code",
            "no",
            "failed: exited with status 1",
        ),
        (
            "failed",
            "failed",
            "start-limit-hit",
            "always",
            "failed: was started too often in a short time (its start limit); last it exited with status 0",
        ),
    ] {
        let unit = unit(active, sub, result, restart);
        assert_eq!(word(&unit), expected, "{unit:?}");
    }
}

#[test]
fn a_unit_that_a_job_takes_down_was_stopped_by_somebody() {
    let unit = Properties {
        job: 7,
        ..unit("deactivating", "stop-sigterm", "success", "always")
    };
    assert_eq!(word(&unit), "by hand");
}

#[test]
fn a_unit_that_somebody_restarts_is_not_stopped_and_has_not_failed() {
    for (active, sub, result, job_type) in [
        ("deactivating", "stop-sigterm", "success", "restart"),
        ("inactive", "dead", "success", "restart"),
        ("inactive", "dead", "success", "start"),
        // It exited with 143, or was killed: as somebody wanted it.
        ("failed", "failed", "exit-code", "start"),
        ("deactivating", "stop-sigkill", "timeout", "restart"),
    ] {
        let unit = Properties {
            job: 7,
            job_type: job_type.to_owned(),
            ..unit(active, sub, result, "always")
        };
        assert_eq!(
            word(&unit),
            "restarting: was restarted by somebody",
            "{unit:?}"
        );
        let Seen::Ended(End::Restarting(failure)) = seen(&unit) else {
            panic!("{unit:?}");
        };
        assert!(failure.is_clean());
    }
}

#[test]
fn a_unit_that_is_not_there_is_missing() {
    let unit = Properties {
        load_state: "not-found".to_owned(),
        load_error: "Unit web@green.service not found.".to_owned(),
        active_state: "inactive".to_owned(),
        ..Properties::default()
    };
    assert_eq!(word(&unit), "failed: Unit web@green.service not found");
    let Seen::Ended(End::Failed(failure)) = seen(&unit) else {
        panic!("{unit:?}");
    };
    assert_eq!(failure.result.as_str(), "unit-missing");
}

#[test]
fn a_unit_whose_file_is_gone_while_it_runs_still_runs() {
    let unit = Properties {
        load_state: "not-found".to_owned(),
        ..unit("active", "running", "success", "always")
    };
    assert_eq!(word(&unit), "running");
}
