//! Shares of new requests as a user has them, where no systemd runs: a candidate at a weight, another weight, all of it, none again.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::fs;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use started::{LONG, Project, Running};

fn refused(project: &Project, words: &[&str]) -> String {
    let (code, value) = project.json(words);
    assert_ne!(code, Some(0), "{words:?}: {value}");
    value["error"].as_str().unwrap().to_owned()
}

/// How many of a hundred requests each release answers.
fn of_a_hundred(running: &Running) -> [usize; 3] {
    let mut counts = [0; 3];
    for _ in 0..100 {
        let who: usize = running.who().parse().unwrap();
        counts[who - 1] += 1;
    }
    counts
}

fn slot_of<'a>(listed: &'a Value, name: &str) -> &'a Value {
    let slots = listed["slots"].as_array().unwrap();
    slots.iter().find(|slot| slot["slot"] == name).unwrap()
}

/// Every process that runs a slot of this project.
fn processes(project: &Project, slot: &str) -> Vec<Pid> {
    let home = project.home().canonicalize().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let mine = fs::read_link(entry.path().join("cwd")).is_ok_and(|it| it.starts_with(&home));
        let named = format!("SLOT_NAME={slot}");
        if mine
            && environment
                .split(|byte| *byte == 0)
                .any(|it| it == named.as_bytes())
        {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

#[test]
fn a_release_is_deployed_at_10_per_cent_raised_to_50_and_promoted() {
    let (project, running) = started::serving("");
    let deployed = project.done(&["deploy", "build-2", "--weight", "10", "--version", "v2"]);
    assert_eq!(deployed["success"], true);
    assert_eq!(
        (&deployed["cause"], &deployed["phase"]),
        (&"trial".into(), &"shifting".into())
    );
    assert_eq!(
        (&deployed["slot"], &deployed["weight"]),
        (&"green".into(), &10.into())
    );
    for next in [
        "slotctl weight green 50",
        "slotctl promote",
        "slotctl abort",
    ] {
        assert!(
            deployed["text"].as_str().unwrap().contains(next),
            "{deployed}"
        );
    }
    let [one, two, _] = of_a_hundred(&running);
    assert!((8..=12).contains(&two) && one + two == 100, "{one} {two}");

    let status = project.done(&["status"]);
    assert_eq!(
        (&status["state"], &status["active"]),
        (&"shifting".into(), &"blue".into())
    );
    let said = refused(&project, &["deploy", "build-3"]);
    for word in [
        "in progress",
        "shifting",
        "green at 10%",
        "slotctl abort",
        "slotctl promote",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }

    // By its label, with the app's name.
    let weighed = project.done(&["weight", "slot:v2", "50"]);
    assert_eq!(
        weighed["weights"],
        serde_json::json!({"blue": 50, "green": 50})
    );
    assert_eq!(
        (&weighed["everywhere"], &weighed["switches"]),
        (&true.into(), &false.into())
    );
    let [_, two, _] = of_a_hundred(&running);
    assert!((45..=55).contains(&two), "{two}");

    let listed = project.done(&["ps"]);
    let green = slot_of(&listed, "green");
    assert_eq!(
        (&green["label"], &green["weight"]),
        (&"v2".into(), &50.into())
    );
    assert_eq!(
        (&green["health"], &green["restarts"]),
        (&"healthy".into(), &0.into())
    );
    assert_eq!(green["boot_id"].as_str().unwrap().len(), 32);
    let (_, shown) = project.ask(&["ps"]);
    for word in ["VERSION", "slot:green", "v2", "50%", "healthy", "slot:blue"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }

    let promoted = project.done(&["weight", "green", "100"]);
    assert_eq!(
        (&promoted["cause"], &promoted["success"]),
        (&"switched".into(), &true.into())
    );
    assert_eq!(promoted["generation"], deployed["generation"]);
    assert_eq!(of_a_hundred(&running), [0, 100, 0]);
    running.end();
}

#[test]
fn a_weight_of_0_is_healthy_and_gets_nothing_until_it_is_promoted() {
    let (project, running) = started::serving("");
    let deployed = project.done(&["deploy", "build-2", "--weight", "0"]);
    assert_eq!(deployed["weight"], 0);
    assert_eq!(of_a_hundred(&running), [100, 0, 0]);
    let (code, said) = project.ask(&["promote"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(of_a_hundred(&running), [0, 100, 0]);
    running.end();
}

#[test]
fn an_aborted_release_gets_nothing_more_stops_and_is_told_of() {
    let (project, running) = started::serving("");
    project.done(&["deploy", "build-2", "--weight", "50"]);
    let aborted = project.done(&["abort"]);
    assert_eq!(
        aborted["weights"],
        serde_json::json!({"blue": 100, "green": 0})
    );
    assert_eq!(of_a_hundred(&running), [100, 0, 0]);
    project.until("\"condition\":\"idle\"");
    let status = project.done(&["status"]);
    assert_eq!(
        (&status["active"], &status["last"]["cause"]),
        (&"blue".into(), &"aborted".into())
    );
    assert!(refused(&project, &["abort"]).contains("nothing to abort"));
    // The lock is free.
    project.deploy(&["build-3"]);
    assert_eq!(of_a_hundred(&running), [0, 0, 100]);
    running.end();
}

#[test]
fn a_candidate_that_dies_at_its_weight_has_nothing_and_the_deployment_failed() {
    let (project, running) = started::serving("");
    project.done(&["deploy", "build-2", "--weight", "50"]);
    for pid in processes(&project, "green") {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    project.until("\"cause\":\"exited\"");
    assert_eq!(of_a_hundred(&running), [100, 0, 0]);
    let status = project.done(&["status"]);
    assert_eq!(
        (&status["active"], &status["deployment"]),
        (&"blue".into(), &Value::Null)
    );
    running.end();
}

#[test]
fn the_only_live_slot_is_stopped_by_force_alone_and_then_every_request_is_refused_at_once() {
    let (project, running) = started::serving("");
    let said = refused(&project, &["stop", "blue"]);
    assert!(said.contains("--force"), "{said}");
    assert_eq!(of_a_hundred(&running), [100, 0, 0]);
    let stopped = project.done(&["stop", "blue", "--force"]);
    assert_eq!(
        stopped["weights"],
        serde_json::json!({"blue": 0, "green": 0})
    );
    let began = Instant::now();
    for _ in 0..20 {
        let answer = running.get();
        assert!(answer.contains("takes no requests now"), "{answer}");
    }
    assert!(began.elapsed() < LONG);
    let status = project.done(&["status"]);
    assert_eq!(
        (&status["active"], &status["serving"]),
        (&Value::Null, &false.into())
    );
    project.deploy(&["build-2"]);
    assert_eq!(of_a_hundred(&running), [0, 100, 0]);
    running.end();
}

#[test]
fn a_route_swaps_two_slots_and_only_from_the_one_that_is_active() {
    let (project, running) = started::serving("soak = '10m'");
    project.done(&["deploy", "build-2", "--weight", "0"]);
    let said = refused(
        &project,
        &["route", "slot", "--from", "green", "--to", "gone"],
    );
    assert!(
        said.contains("has no slot gone") && said.contains("green (trial"),
        "{said}"
    );
    let swapped = project.done(&["route", "slot", "--from", "blue", "--to", "green"]);
    assert_eq!(swapped["cause"], "switched");
    assert_eq!(of_a_hundred(&running), [0, 100, 0]);
    // Done already, and then back to what is warm.
    let again = project.done(&["route", "slot", "--from", "blue", "--to", "green"]);
    assert_eq!(again["switches"], false);
    project.done(&["route", "--from", "slot:green", "--to", "slot:blue"]);
    assert_eq!(of_a_hundred(&running), [100, 0, 0]);
    running.end();
}

#[test]
fn what_no_weight_can_be_is_refused_and_so_is_a_name_that_means_nothing_or_too_much() {
    let (project, running) = started::serving("slots = ['blue', 'green', 'canary']\nsoak = '10m'");
    for wrong in ["101", "-1", "ten", ""] {
        let (code, said) = project.ask(&["weight", "green", "--", wrong]);
        assert_eq!(code, Some(2), "{wrong}: {said}");
    }
    for (slot, word) in [("blue", "is active"), ("green", "is idle")] {
        let said = refused(&project, &["weight", slot, "10"]);
        assert!(said.contains(word), "{said}");
    }
    let (code, said) = project.json(&["weight", "v9", "10"]);
    assert_eq!(
        (code, &said["code"]),
        (Some(7), &"not-found".into()),
        "{said}"
    );
    assert!(
        said["error"].as_str().unwrap().contains("canary (idle)"),
        "{said}"
    );
    // Two runs of the same bits beside each other.
    project.deploy(&["build-2", "--version", "v2"]);
    project.deploy(&["build-2", "--version", "v2", "--weight", "10"]);
    let said = refused(&project, &["weight", "v2", "20"]);
    assert!(
        said.contains("more than one slot") && said.contains("canary (trial"),
        "{said}"
    );
    // The third one has ended the soak of the second, for which the first was warm.
    let listed = project.done(&["ps"]);
    let condition = |name| slot_of(&listed, name)["condition"].clone();
    assert_eq!(
        (condition("green"), condition("canary")),
        ("active".into(), "trial".into())
    );
    assert_ne!(condition("blue"), "warm");
    running.end();
}

#[test]
fn a_rollback_goes_ahead_of_a_candidate_at_a_weight() {
    let (project, running) = started::serving("slots = ['blue', 'green', 'canary']");
    project.deploy(&["build-2"]);
    project.done(&["deploy", "build-3", "--weight", "30"]);
    let (code, said) = project.ask(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(of_a_hundred(&running), [100, 0, 0]);
    running.end();
}

#[test]
fn a_deployer_that_was_killed_ends_a_deployment_whose_candidate_ended_with_it() {
    let (project, mut running) = started::serving("");
    project.done(&["deploy", "build-2", "--weight", "50"]);
    started::signal(&running.child, Signal::SIGKILL);
    running.child.wait().unwrap();
    let running = project.serving(&[], "release 1 ");
    assert_eq!(of_a_hundred(&running), [100, 0, 0]);
    let status = project.done(&["status"]);
    assert_eq!(
        (&status["active"], &status["deployment"]),
        (&"blue".into(), &Value::Null)
    );
    assert_eq!(status["last"]["cause"], "rebooted");
    running.end();
}

/// A user's browser: the cookie that it was given, and the release that it saw last.
#[derive(Default)]
struct Browser {
    cookie: String,
    saw: usize,
}

impl Browser {
    fn asks(&mut self, running: &Running) -> usize {
        let answer = running.answer("localhost", "/", &self.cookie);
        let set = answer
            .lines()
            .find_map(|line| line.strip_prefix("Set-Cookie: "));
        if let Some((pair, _)) = set.and_then(|set| set.split_once(';')) {
            assert!(self.cookie.is_empty(), "it has one already: {answer}");
            self.cookie = format!("cookie: {pair}\r\n");
        }
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        self.saw = body.split(' ').nth(1).unwrap().parse().unwrap();
        self.saw
    }
}

#[test]
fn a_browser_that_saw_the_new_version_keeps_to_it_while_its_share_grows() {
    let (project, running) = started::serving("sticky = 'cookie'");
    let mut browsers: Vec<Browser> = (0..100).map(|_| Browser::default()).collect();
    // How many see each version; nobody has gone back from version 2.
    let mut look = || {
        let mut counts = [0; 2];
        for browser in &mut browsers {
            let saw = browser.saw;
            let sees = browser.asks(&running);
            assert!(sees >= saw, "it saw {saw} and now sees {sees}");
            counts[sees - 1] += 1;
        }
        counts
    };
    assert_eq!(look(), [100, 0], "while nothing is on trial");
    project.done(&["deploy", "build-2", "--weight", "10"]);
    // Those who are new are spread by their number, on each of the router's threads.
    let ten = look()[1];
    assert!((5..=15).contains(&ten), "{ten}");
    project.done(&["weight", "green", "30"]);
    let thirty = look()[1];
    assert!((25..=35).contains(&thirty), "{thirty}");
    project.done(&["promote"]);
    assert_eq!(look(), [0, 100]);
    running.end();
}

#[test]
fn a_candidate_without_weight_is_seen_by_whoever_names_its_slot_its_release_or_its_version() {
    // The SHA-256 of `secret`.
    let token = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let lines = format!("preview = 'example.org'\npreview_token_sha256 = '{token}'");
    let (project, running) = started::serving(&lines);
    // The release that answers, or the status.
    let who = |host: &str, fields: &str| {
        let answer = running.answer(host, "/", fields);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap();
        let release = head
            .lines()
            .find_map(|line| line.strip_prefix("Slot-Release: "));
        let name = match status {
            "200" => body.split(' ').nth(1).unwrap(),
            _ => status,
        };
        (name.to_owned(), release.map(str::to_owned))
    };
    let (nobody, live) = (("404".to_owned(), None), ("1".to_owned(), None));
    for name in ["green", "v2"] {
        assert_eq!(who(&format!("{name}.slot.example.org"), ""), nobody);
    }
    let deployed = project.done(&["deploy", "build-2", "--weight", "0", "--version", "v2"]);
    let id = deployed["release"].as_str().unwrap();
    let candidate = ("2".to_owned(), Some(id.to_owned()));
    // The routers are told when it has passed its gates, which nobody waits for.
    let began = Instant::now();
    let until = |host: &str, wanted: &str| {
        while who(host, "").0 != wanted {
            assert!(began.elapsed() < LONG, "{host} never was {wanted}");
        }
    };
    until("green.slot.example.org", "2");
    assert_eq!(
        project.done(&["status"])["previews"],
        serde_json::json!(["green.slot.example.org", "blue.slot.example.org"])
    );
    for name in ["green", "v2", id] {
        assert_eq!(who(&format!("{name}.slot.example.org"), ""), candidate);
        let field = format!("slot-preview: secret {name}\r\n");
        assert_eq!(who("localhost", &field), candidate);
    }
    assert_eq!(who("blue.slot.example.org", "").0, "1");
    assert_eq!(who("localhost", ""), live);
    // What served the name of its slot is not what its slot runs next.
    project.done(&["promote"]);
    project.done(&["deploy", "build-3", "--weight", "0"]);
    until("blue.slot.example.org", "3");
    assert_eq!(who("v2.slot.example.org", ""), candidate);
    project.done(&["abort"]);
    until("blue.slot.example.org", "404");
    running.end();
}
