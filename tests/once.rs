//! What is asked for on a condition, and what is asked for again: `--expected-generation`, `--expected-active`, `--idempotency-key`.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use started::{Project, signal};

fn ask(project: &Project, words: &[&str]) -> Output {
    let words = [&["--socket", ".slot/slotd.sock", "--json"], words].concat();
    project.slotctl(&words).output().unwrap()
}

fn said(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text:?} is no JSON"))
}

/// What must succeed.
fn ok(project: &Project, words: &[&str]) -> Value {
    let output = ask(project, words);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{words:?}: {}",
        said(&output)
    );
    said(&output)
}

/// What must be refused: its status, what it says, and that nothing was changed.
fn refused(project: &Project, words: &[&str]) -> (i32, Value) {
    let state = project.home().join("state.json");
    let before = fs::read(&state).unwrap();
    let output = ask(project, words);
    assert!(
        fs::read(&state).unwrap() == before,
        "{words:?} changed the state"
    );
    (output.status.code().unwrap(), said(&output))
}

fn release(project: &Project, name: &str) {
    let path = project.directory.path().join(name);
    fs::create_dir(&path).unwrap();
    let text = format!("{{\"name\":\"{name}\",\"behaviour\":\"serves\"}}");
    fs::write(path.join("release.json"), text).unwrap();
}

/// `one` serves from blue in generation 1, `two` is there to be deployed.
fn served() -> (Project, started::Running) {
    let project = Project::new();
    release(&project, "one");
    release(&project, "two");
    let running = project.serving(&["one"], "release one on slot blue");
    // The routers answer before they have said that they have the table.
    project.until("\"state\":\"idle\"");
    (project, running)
}

/// A request as any client sends it; its status and what was answered.
fn raw(project: &Project, head: &str, body: &[u8]) -> (u16, Value) {
    let socket = project.directory.path().join(".slot/slotd.sock");
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{head}\r\nhost: slotd\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn what_is_not_as_expected_is_left_as_it_is() {
    let (project, running) = served();
    for (words, expected) in [
        (
            &["deploy", "two", "--expected-generation", "7"][..],
            json!({"generation": 7}),
        ),
        (
            &["rollback", "--expected-active", "green"],
            json!({"active": "green"}),
        ),
        (
            &["promote", "green", "--expected-generation", "0"],
            json!({"generation": 0}),
        ),
        (
            &["drain", "green", "--now", "--expected-active", "0badcafe"],
            json!({"active": "0badcafe"}),
        ),
        (
            &["weight", "blue", "5", "--expected-generation", "7"],
            json!({"generation": 7}),
        ),
        (
            &[
                "route",
                "--from",
                "blue",
                "--to",
                "green",
                "--expected-active",
                "green",
            ],
            json!({"active": "green"}),
        ),
        (
            &["abort", "--expected-generation", "7"],
            json!({"generation": 7}),
        ),
        (
            &["stop", "blue", "--force", "--expected-active", "green"],
            json!({"active": "green"}),
        ),
        (
            &["pause", "--expected-generation", "7"],
            json!({"generation": 7}),
        ),
        (
            &["resume", "--expected-active", "green"],
            json!({"active": "green"}),
        ),
    ] {
        let (status, said) = refused(&project, words);
        assert_eq!((status, &said["code"]), (8, &json!("unexpected")), "{said}");
        assert_eq!(said["expected"], expected);
        assert_eq!(
            (&said["found"]["generation"], &said["found"]["active"]),
            (&json!(1), &json!("blue"))
        );
        let live = said["found"]["live"].as_str().unwrap();
        let error = said["error"].as_str().unwrap();
        let is = format!("it is at generation 1, and blue is active with release {live}");
        assert!(error.contains(&is), "{error}");
    }
    let app = ok(&project, &["status"])["app"]
        .as_str()
        .unwrap()
        .to_owned();
    for head in [
        "POST /hold?expected_generation=7".to_owned(),
        "POST /unhold?expected_active=green".to_owned(),
        "POST /reload?expected_generation=7".to_owned(),
        format!("DELETE /apps/{app}?expected_active=green"),
    ] {
        let (status, said) = raw(&project, &format!("{head} HTTP/1.1"), b"");
        let code = &said["code"];
        assert_eq!(
            (status, code),
            (409, &json!("unexpected")),
            "{head}: {said}"
        );
    }
    assert_eq!(running.who(), "one");
    for (head, why) in [
        (
            "POST /deploy?expected_active=No%20Slot HTTP/1.1",
            "slot or release",
        ),
        (
            "POST /rollback?expected_generation=-1 HTTP/1.1",
            "expected_generation",
        ),
    ] {
        let (status, said) = raw(&project, head, b"");
        assert_eq!(status, 400, "{said}");
        assert!(said["error"].as_str().unwrap().contains(why), "{said}");
    }
}

#[test]
fn what_is_as_expected_is_done_and_not_a_second_time() {
    let (project, running) = served();
    let both = [
        "--expected-generation",
        "1",
        "--expected-active",
        "blue",
        "--wait",
        "stopped",
    ];
    let deploy = [&["deploy", "two"], &both[..]].concat();
    assert_eq!(ok(&project, &deploy)["generation"], 2);
    let status = ok(&project, &["status"]);
    let live = status["live"].as_str().unwrap();
    assert_eq!(refused(&project, &deploy).0, 8);
    // The release that is live is known by its id too.
    let back = ["rollback", "--expected-active", live, "--wait", "stopped"];
    assert_eq!(ok(&project, &back)["generation"], 3);
    running.until("release one on slot");
    let (status, said) = refused(&project, &back);
    assert_eq!((status, &said["found"]["generation"]), (8, &json!(3)));
    assert_eq!(running.who(), "one");
}

#[test]
fn a_deployment_that_is_asked_for_again_is_the_first_one() {
    let (project, running) = served();
    let first = ok(
        &project,
        &[
            "deploy",
            "two",
            "--idempotency-key",
            "k-1",
            "--wait",
            "stopped",
        ],
    );
    assert_eq!(first["generation"], 2);
    let state = fs::read(project.home().join("state.json")).unwrap();
    // How long it may wait, and until when it is watched, makes no other request of it.
    for more in [
        &[][..],
        &["--queue", "1m"],
        &["--wait", "stopped", "--skip-check", "disk"],
    ] {
        let again = ok(
            &project,
            &[&["deploy", "two", "--idempotency-key", "k-1"], more].concat(),
        );
        assert_eq!(again, first);
    }
    let (_, told) = project.ask(&["deploy", "two", "--idempotency-key", "k-1"]);
    assert!(
        told.contains("under way or over already: generation 2"),
        "{told}"
    );
    assert!(fs::read(project.home().join("state.json")).unwrap() == state);
    // Other bits under the same name, another name, another label, a release that is there: other requests.
    fs::write(project.directory.path().join("two/more"), "more").unwrap();
    let live = first["release"].as_str().unwrap();
    for words in [
        &["deploy", "two"][..],
        &["deploy", "one"],
        &["deploy", "two", "--version", "v2"],
        &["deploy", "--release", live],
        &["rollback"],
    ] {
        let (status, said) = refused(&project, &[words, &["--idempotency-key", "k-1"]].concat());
        assert_eq!(
            (status, &said["code"]),
            (1, &json!("key-reused")),
            "{words:?}: {said}"
        );
    }
    assert_eq!(running.who(), "two");
    let other = ok(&project, &["deploy", "two", "--idempotency-key", "k-2"]);
    assert_eq!(other["generation"], 3);
}

#[test]
fn a_key_is_kept_over_a_kill_and_over_later_deployments_with_how_its_own_ended() {
    let (project, mut running) = served();
    let first = ok(
        &project,
        &[
            "deploy",
            "two",
            "--idempotency-key",
            "k",
            "--wait",
            "stopped",
        ],
    );
    let broken = ["deploy", "build-2", "--idempotency-key", "broken"];
    let failed = ask(&project, &broken);
    assert_eq!(failed.status.code(), Some(1));
    ok(&project, &["deploy", "one", "--wait", "stopped"]);
    signal(&running.child, Signal::SIGKILL);
    running.child.wait().unwrap();
    let running = project.serving(&[], "release one on slot");
    let again = ok(&project, &["deploy", "two", "--idempotency-key", "k"]);
    assert_eq!(again, first);
    let again = ask(&project, &broken);
    assert_eq!(again.status.code(), Some(1));
    for part in ["generation", "cause", "release"] {
        assert_eq!(said(&again)[part], said(&failed)[part], "{part}");
    }
    let back = ["rollback", "--idempotency-key", "back", "--wait", "stopped"];
    let back = [ok(&project, &back), ok(&project, &back)];
    assert_eq!(back[0], back[1]);
    assert_eq!(running.who(), "two");
}

#[test]
fn who_asks_again_while_it_goes_on_follows_it_to_its_end() {
    let project = Project::with("setup_command = ['/bin/sh', './setup']\n");
    let go = project.directory.path().join("go");
    nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let lines = format!(
        "read line <{}\necho '{{\"name\":\"one\",\"behaviour\":\"serves\"}}' >release.json",
        go.display()
    );
    project.built("one", &lines);
    let running = project.start(&[]);
    let words = [
        "--socket",
        ".slot/slotd.sock",
        "--json",
        "deploy",
        "one",
        "--idempotency-key",
        "k",
    ];
    let spawn = || {
        project
            .slotctl(&words)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let first = spawn();
    project.until("\"phase\":\"build\"");
    let second = spawn();
    let head = "POST /deploy?origin=path&name=other HTTP/1.1\r\nidempotency-key: k";
    let (status, said) = raw(&project, head, b"something else");
    assert_eq!(
        (status, &said["code"]),
        (422, &json!("key-reused")),
        "{said}"
    );
    fs::write(&go, "go\n").unwrap();
    let [first, second] = [first, second].map(|child| child.wait_with_output().unwrap());
    assert_eq!(first.status.code(), Some(0));
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(running.who(), "one");
}

#[test]
fn a_request_that_broke_off_leaves_its_key_free() {
    let (project, running) = served();
    let head = "POST /deploy?origin=path&name=two HTTP/1.1\r\nidempotency-key: \"k\"\r\nhost: slotd\r\ncontent-length: 9999\r\n\r\n";
    let mut stream =
        UnixStream::connect(project.directory.path().join(".slot/slotd.sock")).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    project.until("\"phase\":\"preparing\"");
    drop(stream);
    project.until("\"cause\":\"unprepared\"");
    let path = PathBuf::from("two");
    let done = ok(
        &project,
        &["deploy", path.to_str().unwrap(), "--idempotency-key", "k"],
    );
    assert_eq!(
        (&done["generation"], running.who().as_str()),
        (&json!(3), "two")
    );
}

#[test]
fn a_key_that_is_none_is_refused() {
    let (project, running) = served();
    for field in ["", "\"\"", "a b", "\"a\\\"b\"", &"k".repeat(129)] {
        let head = format!("POST /rollback HTTP/1.1\r\nidempotency-key: {field}");
        let (status, said) = raw(&project, &head, b"");
        assert_eq!(
            (status, &said["code"]),
            (400, &json!("bad-request")),
            "{field:?}: {said}"
        );
    }
    let twice = "POST /rollback HTTP/1.1\r\nidempotency-key: a\r\nidempotency-key: a";
    assert_eq!(raw(&project, twice, b"").0, 400);
    let usage = ask(&project, &["deploy", "two", "--idempotency-key", "a b"]);
    assert_eq!(usage.status.code(), Some(2));
    assert_eq!(running.who(), "one");
}
