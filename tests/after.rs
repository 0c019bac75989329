//! After the switch as a user has it, where no systemd runs: what was rolled back by itself comes back only by force.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use started::Project;

fn status(project: &Project) -> Value {
    project.done(&["status"])
}

/// Waits until the status is as wanted.
fn until(project: &Project, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = std::time::Instant::now();
    loop {
        let status = status(project);
        if wanted(&status) {
            return status;
        }
        assert!(began.elapsed() < started::LONG, "it never came: {status}");
    }
}

fn slot<'a>(status: &'a Value, name: &str) -> &'a Value {
    let slots = status["slots"].as_array().unwrap();
    slots.iter().find(|slot| slot["slot"] == name).unwrap()
}

/// The processes that run a slot of this project.
fn processes(project: &Project, slot: &str) -> Vec<Pid> {
    let home = project.home().canonicalize().unwrap();
    let named = format!("SLOT_NAME={slot}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_mine = fs::read_link(entry.path().join("cwd")).is_ok_and(|it| it.starts_with(&home));
        let mut variables = environment.split(|byte| *byte == 0);
        if is_mine && variables.any(|it| it == named.as_bytes()) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

fn kill_slot(project: &Project, slot: &str) {
    for process in processes(project, slot) {
        kill(process, Signal::SIGKILL).unwrap();
    }
}

/// Release 2 is killed in its soak: release 1 serves again.
fn rolled_back(project: &Project) -> String {
    let id = project.done(&["deploy", "build-2"])["release"].clone();
    kill_slot(project, "green");
    until(project, |status| {
        status["active"] == "blue" && status["state"] == "idle"
    });
    id.as_str().unwrap().to_owned()
}

#[test]
fn what_was_rolled_back_by_itself_is_deployed_again_by_force_alone() {
    let (project, running) = started::serving("soak = '60s'");
    let id = rolled_back(&project);
    until(&project, |status| {
        slot(status, "green")["condition"] == "idle"
    });

    // Its id is known beforehand: nothing is begun.
    let before = status(&project)["generation"].clone();
    let (code, refused) = project.json(&["deploy", "--release", &id]);
    assert_ne!(code, Some(0));
    assert_eq!(refused["code"], "refused");
    let error = refused["error"].as_str().unwrap();
    let evidence = "because slot@green ended by itself: killed by SIGKILL";
    for part in [evidence, " UTC (generation 2)", "--force", &id] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(status(&project)["generation"], before);

    // The same bits are the same release.
    let (code, failed) = project.json(&["deploy", "build-2"]);
    assert_ne!(code, Some(0));
    assert_eq!(
        (&failed["cause"], &failed["phase"], &failed["release"]),
        (&"marked".into(), &"preparing".into(), &id.clone().into())
    );
    assert!(
        failed["text"].as_str().unwrap().contains(evidence),
        "{failed}"
    );
    assert_eq!(slot(&status(&project), "green")["condition"], "idle");
    assert_eq!(running.who(), "1");

    let forced = project.done(&["deploy", "build-2", "--force"]);
    assert_eq!(
        (&forced["release"], &forced["slot"]),
        (&id.into(), &"green".into())
    );
    assert_eq!(running.who(), "2");
}

#[test]
fn a_rollback_is_verified_at_the_public_listener_and_the_status_says_how_the_app_stands() {
    let (project, running) = started::serving("soak = '60s'");
    project.done(&["deploy", "build-2"]);
    let soaking = status(&project);
    let standing = &soaking["standing"];
    assert_eq!(
        (&standing["state"], &standing["health_fail_streak"]),
        (&"switched".into(), &0.into())
    );
    for (part, name) in [("active", "green"), ("old", "blue")] {
        let run = &standing[part];
        let shown = slot(&soaking, name);
        assert_eq!(
            (&run["slot"], &run["release"], &run["boot_id"]),
            (&name.into(), &shown["release"], &shown["boot_id"])
        );
    }
    assert!(standing["switched_at_ms"].as_u64() > Some(0));
    assert!(
        standing["initiated_by"].as_str().unwrap().contains("pid"),
        "{standing}"
    );
    // It is asked for: the slot that is kept has the traffic at once.
    let back = project.done(&["rollback"]);
    assert_eq!(back["slot"], "blue");
    let found = |told: &Value| {
        let found = told["reached"].as_str().unwrap_or_default();
        assert!(
            found.starts_with("asked for /healthz of localhost at the public listener 127.0.0.1:"),
            "{told}"
        );
        assert!(found.contains(": 200"), "{told}");
    };
    found(&back);
    assert!(back["at_ms"].as_u64() >= standing["switched_at_ms"].as_u64());
    // It is not.
    until(&project, |status| {
        slot(status, "green")["condition"] == "idle"
    });
    rolled_back(&project);
    let after = status(&project);
    found(&after["rolled_back"]);
    assert_eq!(
        (
            &after["standing"]["rollback_cause"],
            &after["standing"]["rollback_at_ms"]
        ),
        (&"exited".into(), &after["rolled_back"]["at_ms"])
    );
    assert_eq!(running.who(), "1");
    let history = fs::read_to_string(project.home().join("history.jsonl")).unwrap();
    assert!(history.contains("\"returned\""), "{history}");
    assert!(history.contains("serves again in blue after "), "{history}");
}

#[test]
fn a_release_that_keeps_ending_after_its_soak_is_left_for_the_one_before() {
    let (project, running) = started::serving("soak = '0s'\nafter_soak = 'rollback'");
    let first = status(&project)["live"].clone();
    let second = project.done(&["deploy", "build-2"])["release"].clone();
    // Three times in a row; on a busy machine a probe may pass in between, and then it is counted anew.
    let began = std::time::Instant::now();
    loop {
        let up = until(&project, |status| {
            let green = slot(status, "green");
            status["active"] == "blue" || green["detail"] == "up" && green["boot_id"].is_string()
        });
        if up["active"] == "blue" {
            break;
        }
        assert!(began.elapsed() < started::LONG, "it is never left: {up}");
        let boot = slot(&up, "green")["boot_id"].clone();
        kill_slot(&project, "green");
        until(&project, |status| slot(status, "green")["boot_id"] != boot);
    }
    let left = until(&project, |status| {
        status["active"] == "blue" && status["state"] == "idle"
    });
    assert_eq!((&left["live"], &left["prev"]), (&first, &Value::Null));
    let back = &left["rolled_back"];
    assert_eq!(
        (&back["from_release"], &back["cause"]),
        (&second, &"exited".into())
    );
    assert!(
        back["reached"]
            .as_str()
            .unwrap()
            .contains("at the public listener"),
        "{back}"
    );
    assert_eq!(left["standing"]["initiated_by"], "slotd (after_soak)");
    assert_eq!(running.who(), "1");
    let (code, refused) = project.json(&["deploy", "--release", second.as_str().unwrap()]);
    assert_ne!(code, Some(0), "{refused}");
    let history = fs::read_to_string(project.home().join("history.jsonl")).unwrap();
    assert_eq!(
        history.matches("\"event\":\"failing\"").count(),
        1,
        "{history}"
    );
}

#[test]
fn the_old_slot_is_kept_beyond_the_soak_and_a_rollback_gives_it_the_traffic_at_once() {
    let (project, running) =
        started::serving("soak = '0s'\nkeep_warm = '10m'\nkeep_warm_frozen = true");
    let boot = slot(&status(&project), "blue")["boot_id"].clone();
    project.done(&["deploy", "build-2"]);
    let kept = status(&project);
    let blue = slot(&kept, "blue");
    assert_eq!(
        (&kept["state"], &blue["condition"]),
        (&"idle".into(), &"warm".into())
    );
    // Where there are no units nothing is frozen.
    assert!(
        blue["detail"].as_str().unwrap().starts_with("kept until "),
        "{blue}"
    );
    assert_eq!((&blue["boot_id"], &blue["weight"]), (&boot, &0.into()));
    assert_eq!(kept["standing"]["old"]["boot_id"], boot);
    let back = project.done(&["rollback"]);
    assert_eq!(
        (&back["slot"], running.who().as_str()),
        (&"blue".into(), "1")
    );
    assert_eq!(slot(&status(&project), "blue")["boot_id"], boot);
    // A deployment that needs the slot takes it.
    until(&project, |status| {
        slot(status, "green")["condition"] == "idle"
    });
    project.done(&["deploy", "build-2"]);
    let third = project.done(&["deploy", "build-1"]);
    assert_eq!(third["slot"], "blue");
    assert_ne!(slot(&status(&project), "blue")["boot_id"], boot);
}
