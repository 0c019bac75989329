//! The judgement of a job's end; the jobs themselves run on real systemd only.

use super::*;

fn unit(result: &str, code: i32, status: i32) -> Properties {
    Properties {
        result: result.to_owned(),
        exec_main_code: code,
        exec_main_status: status,
        ..Properties::default()
    }
}

#[test]
fn a_failed_start_is_told_by_the_unit_and_where_it_says_nothing_by_the_job() {
    let ended = |result: &str| Waited::Ended(result.to_owned());
    for (waited, after, result, text) in [
        (
            ended("failed"),
            unit("exit-code", 1, 3),
            "exit-code",
            "exited with status 3",
        ),
        (
            ended("failed"),
            unit("timeout", 2, 15),
            "timeout",
            "was not ready within 60s: it did not send READY=1",
        ),
        (
            ended("failed"),
            unit("protocol", 1, 0),
            "protocol",
            "exited with status 0 before it sent READY=1",
        ),
        (
            Waited::TimedOut,
            unit("success", 0, 0),
            "timeout",
            "was not ready within 60s: it did not send READY=1",
        ),
        (
            ended("canceled"),
            unit("success", 2, 15),
            "canceled",
            "was stopped by somebody while it started",
        ),
        (
            ended("done"),
            unit("success", 0, 0),
            "skipped",
            "was not started, because a Condition… of its unit fails",
        ),
        (
            ended("done"),
            unit("success", 1, 0),
            "success",
            "exited with status 0",
        ),
        (
            Waited::Gone,
            unit("signal", 2, 11),
            "signal",
            "was killed by SIGSEGV",
        ),
    ] {
        let failure = start_failure(&waited, &after, Duration::from_secs(60));
        assert_eq!(
            (failure.result.as_str(), failure.text.as_str()),
            (result, text)
        );
    }
}

/// A unit in a run whose id is this digit, repeated.
fn in_run(digit: &str, active: &str, sub: &str) -> Properties {
    Properties {
        active_state: active.to_owned(),
        sub_state: sub.to_owned(),
        invocation: Some(digit.repeat(32).parse().unwrap()),
        main_pid: 7,
        ..unit("success", 0, 0)
    }
}

#[test]
fn a_start_is_judged_by_the_run_that_it_ends_in() {
    let up = |digit: &str| Outcome::Up(digit.repeat(32).parse().unwrap());
    let done = Waited::Ended("done".to_owned());
    let running = in_run("b", "active", "running");
    let coming = in_run("b", "activating", "start");
    let crashed = in_run("b", "activating", "auto-restart");
    let never = unit("success", 0, 0);
    let idle = in_run("a", "inactive", "dead");
    for (before, waited, after, expected) in [
        (&never, &done, &running, up("b")),
        (&idle, &done, &running, up("b")),
        // Joined: the unit was in that run already, and it has come up.
        (&coming, &done, &running, up("b")),
        (&coming, &Waited::Gone, &running, up("b")),
        // It crashed, and PID 1 started it again before this job was asked for.
        (
            &in_run("a", "activating", "auto-restart"),
            &done,
            &running,
            up("b"),
        ),
        (
            &in_run("a", "activating", "start"),
            &done,
            &running,
            up("b"),
        ),
        (&coming, &Waited::Gone, &coming, Outcome::Unknown),
        (&idle, &Waited::Gone, &coming, Outcome::Unknown),
        (&coming, &Waited::TimedOut, &coming, Outcome::Failed),
        (&coming, &done, &crashed, Outcome::Failed),
        // A Condition… that fails leaves the unit in no run, or in its last.
        (&idle, &done, &idle, Outcome::Failed),
        // Up without a process.
        (
            &idle,
            &done,
            &Properties {
                main_pid: 0,
                ..running.clone()
            },
            Outcome::Failed,
        ),
    ] {
        let judged = outcome(before, waited, after);
        assert_eq!(judged, expected, "{before:?} {waited:?} {after:?}");
    }
}

#[test]
fn what_did_not_come_up_is_stopped_but_not_a_router_for_which_connections_are_kept() {
    let app = UnitName::service(&"web".parse().unwrap(), &"blue".parse().unwrap());
    let router = UnitName::router(2);
    let keeping = |stored| Properties {
        stored,
        ..unit("exit-code", 1, 3)
    };
    for (name, stored, given_up) in [
        (&router, 0, true),
        (&router, 4, false),
        (&app, 0, true),
        (&app, 4, true),
    ] {
        let failed = StartError::Failed {
            unit: name.clone(),
            failure: failure(&keeping(stored)),
            last: Box::new(keeping(stored)),
        };
        let judged = is_given_up(name, &failed, &keeping(stored));
        assert_eq!(judged, given_up, "{name} with {stored}");
    }
}

#[test]
fn a_stop_took_sigkill_only_if_this_stop_did() {
    let up = Properties {
        main_pid: 7,
        ..unit("success", 0, 0)
    };
    assert!(was_killed(&up, &unit("timeout", 2, 9)));
    assert!(!was_killed(&up, &unit("success", 2, 15)));
    assert!(!was_killed(&up, &unit("exit-code", 1, 1)));
    // Waiting to be started again after the kernel had killed it: no process was there to be killed.
    assert!(!was_killed(
        &unit("oom-kill", 2, 9),
        &unit("oom-kill", 2, 9)
    ));
    // A start that had timed out and whose process then ignored SIGTERM.
    assert!(was_killed(&unit("timeout", 0, 0), &unit("timeout", 2, 9)));
    assert!(!was_killed(&unit("timeout", 0, 0), &unit("timeout", 2, 15)));
}

#[test]
fn a_unit_that_is_about_to_start_again_is_not_down() {
    let unit = |active: &str, sub: &str| Properties {
        active_state: active.to_owned(),
        sub_state: sub.to_owned(),
        ..Properties::default()
    };
    assert!(is_down(&unit("inactive", "dead")));
    assert!(is_down(&unit("failed", "failed")));
    assert!(!is_down(&unit("failed", "failed-before-auto-restart")));
    assert!(!is_down(&unit("activating", "auto-restart")));
    assert!(!is_down(&unit("deactivating", "stop-sigterm")));
}
