//! A unit's end in words.
//!
//! **Invariant:** pure; each text is one clause without a full stop, and begins with a verb whose subject is the app.

use nix::sys::signal::Signal;

use super::Properties;
use crate::deploy::UnitFailure;

// `si_code` of SIGCHLD, sigaction(2).
const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;

/// The unit's own result, and what it means.
#[must_use]
pub fn failure(unit: &Properties) -> UnitFailure {
    let ended = how_it_ended(unit);
    let last = |what: &str| match &ended {
        Some(ended) => format!("{what}; last it {ended}"),
        None => what.to_owned(),
    };
    let text = match unit.result.as_str() {
        "timeout" => "did not start or stop in time".to_owned(),
        "watchdog" => "missed its watchdog's deadline (WatchdogSec=)".to_owned(),
        "oom-kill" => "was killed because memory ran out".to_owned(),
        "start-limit-hit" => last("was started too often in a short time (its start limit)"),
        "protocol" => match &ended {
            Some(ended) => format!("{ended} before it sent READY=1"),
            None => "did not keep to the protocol of its Type=".to_owned(),
        },
        "resources" => last("could not be set up by PID 1 (its journal says why)"),
        "exec-condition" => "was not started, because its ExecCondition= says no".to_owned(),
        result => ended.unwrap_or_else(|| format!("ended with result {result}")),
    };
    UnitFailure {
        result: match unit.result.as_str() {
            "" => "unknown".into(),
            word => word.into(),
        },
        text,
    }
}

/// How the main process ended: `exited with status 1`, `was killed by SIGSEGV`; none if it has not, or never began.
#[must_use]
pub fn how_it_ended(unit: &Properties) -> Option<String> {
    let status = unit.exec_main_status;
    let signal = || {
        Signal::try_from(status)
            .map_or_else(|_| format!("signal {status}"), |signal| signal.to_string())
    };
    match unit.exec_main_code {
        CLD_EXITED => Some(match setup(status) {
            Some(step) => format!("could not be executed: {step} (status {status})"),
            None => format!("exited with status {status}"),
        }),
        CLD_KILLED => Some(format!("was killed by {}", signal())),
        CLD_DUMPED => Some(format!("was killed by {} and dumped core", signal())),
        _ => None,
    }
}

/// What systemd failed at between fork and exec ("Process Exit Codes" in systemd.exec(5)), where people meet it.
fn setup(status: i32) -> Option<&'static str> {
    Some(match status {
        200 => "its working directory cannot be entered",
        202 => "its file descriptors cannot be set up",
        203 => "the command of its unit cannot be run",
        205 => "its limits cannot be set",
        206 => "its OOM adjustment cannot be set",
        208 => "its standard input cannot be set up",
        209 => "its standard output cannot be set up",
        214 => "its CPU scheduling cannot be set",
        216 => "its group does not exist",
        217 => "its user does not exist",
        218 => "its capabilities cannot be dropped",
        219 => "its cgroup cannot be set up",
        226 => "its mount namespace cannot be set up",
        228 => "its system call filter cannot be set up",
        233 => "its runtime directory cannot be made",
        237 => "its network namespace cannot be set up",
        238 => "its state directory cannot be made",
        239 => "its cache directory cannot be made",
        240 => "its logs directory cannot be made",
        243 => {
            "its credentials cannot be read: make the file that `env_file` names (of a fetch: `deploy_key`, `known_hosts`), or remove the key"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(result: &str, code: i32, status: i32) -> String {
        failure(&Properties {
            result: result.to_owned(),
            exec_main_code: code,
            exec_main_status: status,
            ..Properties::default()
        })
        .text
    }

    #[test]
    fn an_end_is_told_in_words() {
        for (result, code, status, expected) in [
            ("exit-code", 1, 1, "exited with status 1"),
            (
                "exit-code",
                1,
                203,
                "could not be executed: the command of its unit cannot be run (status 203)",
            ),
            ("signal", 2, 9, "was killed by SIGKILL"),
            ("signal", 2, 35, "was killed by signal 35"),
            ("core-dump", 3, 11, "was killed by SIGSEGV and dumped core"),
            ("timeout", 0, 0, "did not start or stop in time"),
            (
                "watchdog",
                3,
                6,
                "missed its watchdog's deadline (WatchdogSec=)",
            ),
            ("oom-kill", 2, 9, "was killed because memory ran out"),
            (
                "protocol",
                1,
                0,
                "exited with status 0 before it sent READY=1",
            ),
            (
                "resources",
                0,
                0,
                "could not be set up by PID 1 (its journal says why)",
            ),
            ("success", 1, 0, "exited with status 0"),
            ("something-new", 0, 0, "ended with result something-new"),
        ] {
            assert_eq!(text(result, code, status), expected);
        }
    }

    #[test]
    fn a_result_that_is_not_told_is_unknown() {
        assert_eq!(failure(&Properties::default()).result.as_str(), "unknown");
    }
}
