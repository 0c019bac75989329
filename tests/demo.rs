//! The built `slotctl demo` and `slotctl start`, as a user runs them.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use started::{LONG, Project, left_in, signal, slotctl};

/// Waits until no process is left that was started with this path in its environment.
fn assert_no_process_of(path: &Path) {
    let began = Instant::now();
    while !processes_of(path).is_empty() {
        assert!(began.elapsed() < LONG, "{:?} are left", processes_of(path));
        std::thread::yield_now();
    }
}

fn processes_of(path: &Path) -> Vec<String> {
    let path = path.to_str().unwrap().as_bytes();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|process| {
            let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
            environment.windows(path.len()).any(|part| part == path)
        })
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_demo_serves_every_request_and_cuts_no_stream() {
    let temporary = tempfile::tempdir().unwrap();
    let done = slotctl(temporary.path())
        .args(["demo", "--once", "--json"])
        .output()
        .unwrap();
    let (said, story) = (
        String::from_utf8(done.stdout).unwrap(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    );
    let figures: Value = serde_json::from_str(said.lines().last().expect(&story)).unwrap();
    assert!(done.status.success(), "{figures:#}\n{story}");
    assert_eq!(figures["failed"], 0, "{figures:#}");
    assert_eq!(figures["streams_cut"], 0, "{figures:#}");
    assert!(figures["requests"].as_u64().unwrap() > 1000, "{figures:#}");

    let deploys = figures["deploys"].as_array().unwrap();
    let ended: Vec<(&str, &str, bool)> = deploys
        .iter()
        .map(|deploy| {
            (
                deploy["kind"].as_str().unwrap(),
                deploy["cause"].as_str().unwrap(),
                deploy["success"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        ended,
        [
            ("deploy", "switched", true),
            ("deploy", "switched", true),
            ("rollback", "switched", true),
            ("deploy", "health-timeout", false),
            ("deploy", "start-failed", false),
        ]
    );
    assert_eq!(deploys[2]["release"], deploys[0]["release"], "{figures:#}");
    assert!(deploys[1]["phases_ms"]["starting"].is_u64(), "{figures:#}");
    assert_eq!(left_in(temporary.path()), Vec::<PathBuf>::new());
    assert_no_process_of(temporary.path());
}

#[test]
fn ctrl_c_ends_the_demo_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = slotctl(temporary.path())
        .arg("demo")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let serves = lines.find(|line| line.as_ref().unwrap().contains("release 1 serves"));
    assert!(serves.is_some(), "the first release did not serve");
    signal(&demo, Signal::SIGINT);
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert_eq!(left_in(temporary.path()), Vec::<PathBuf>::new());
    assert_no_process_of(temporary.path());
}

#[test]
fn start_serves_a_project_and_takes_it_up_again() {
    let project = Project::new();
    let running = project.serving(&["build-1"], "release 1 on slot blue");

    let status = project
        .slotctl(&["--socket", ".slot/slotd.sock", "status"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("serves from blue"), "{status:?}");

    let second = project.slotctl(&["start"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");

    let refused = project
        .slotctl(&["--socket", ".slot/slotd.sock", "deploy", "build-2"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("migration 7 is missing"), "{text}");
    running.until("release 1 on slot blue");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");

    // What was active is active again, and a request meanwhile is held, not refused.
    let machine = project.directory.path().join("machine.toml");
    std::fs::write(machine, "[limits]\ntarget_bytes = 256\n").unwrap();
    let running = project.start(&["--machine", "machine.toml"]);
    assert_eq!(running.get(), "release 1 on slot blue\n");
    let long = format!("/{}", "x".repeat(256));
    assert!(running.get_from(&long).contains("target"), "it is too long");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        left_in(&project.directory.path().join("tmp")),
        Vec::<PathBuf>::new()
    );
    assert_no_process_of(project.directory.path());
}

#[test]
fn a_project_that_start_serves_is_asked_without_naming_its_socket() {
    let project = Project::with("name = 'asked-here'\n");
    let running = project.serving(&["build-1"], "release 1 on slot blue");
    let root = project.directory.path();
    let below = root.join("deeper/still");
    std::fs::create_dir_all(&below).unwrap();
    let ask = |directory: &Path, words: &[&str]| {
        let output = project.slotctl(words).current_dir(directory).output();
        let output = output.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code(), said)
    };
    // The daemon's own data is the project's too: staging is there.
    for directory in [root, &below, &root.join(".slot/asked-here/releases")] {
        let (code, said) = ask(directory, &["status"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("serves from blue"), "{said}");
    }
    let other = project
        .built("build-3", "")
        .directory
        .path()
        .join("build-3");
    std::fs::write(
        other.join("release.json"),
        "{\"name\":\"3\",\"behaviour\":\"serves\"}",
    )
    .unwrap();
    let (code, said) = ask(&below, &["deploy", "../../build-3"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running.who(), "3");
    let (code, said) = ask(root, &["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running.who(), "1");
    // Another app is none of its own.
    let (code, said) = ask(root, &["--app", "another", "status"]);
    assert!(
        code == Some(7) && said.contains("another"),
        "{code:?} {said}"
    );
    // A socket of another user's is not asked; only root can have made one.
    let socket = root.join(".slot/slotd.sock").canonicalize().unwrap();
    if std::os::unix::fs::chown(&socket, Some(65_534), None).is_ok() {
        assert_ne!(ask(root, &["status"]).0, Some(0));
        std::os::unix::fs::chown(&socket, Some(0), None).unwrap();
        assert_eq!(ask(root, &["status"]).0, Some(0));
    }
    running.end();
    assert_ne!(ask(root, &["status"]).0, Some(0));
}

const SETUP: &str = "setup_command = ['/bin/sh', './setup']\nsetup_timeout = '40s'\n";

/// Makes what the app wants to read.
fn makes(release: &str) -> String {
    format!("echo '{{\"name\":\"'{release}'\",\"behaviour\":\"serves\"}}' >release.json")
}

#[test]
fn a_setup_makes_a_release_ready_and_one_that_fails_is_told_with_its_last_lines() {
    let project = Project::with(SETUP);
    project.built("one", &makes("$SLOT_APP-one")).built(
        "two",
        "echo half >release.json; echo step one; echo no luck >&2; exit 3",
    );
    let running = project.serving(&["one"], "release slot-one on slot blue");
    let (code, said) = project.ask(&["deploy", "two"]);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "failed in phase build: build-failed",
        "setup_command `/bin/sh ./setup` exited with status 3",
        "| step one",
        "| no luck",
        "The active slot is untouched",
    ] {
        assert!(said.contains(words), "{said}");
    }
    running.until("release slot-one on slot blue");
    assert_eq!(project.releases(), 1);
    // The same bits are the same release, and are not made ready twice.
    let (code, said) = project.ask(&["deploy", "one"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(project.releases(), 1);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_setup_that_hangs_is_killed_whole_at_its_limit() {
    let project = Project::with(&SETUP.replace("40s", "1s"));
    project
        .built("one", &makes("one"))
        .built("two", "echo waits; (trap '' TERM; sleep 4001) & sleep 4002");
    let running = project.serving(&["one"], "release one on slot blue");
    let (code, said) = project.ask(&["deploy", "two"]);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "failed in phase build: build-timeout",
        "did not end within setup_timeout (1 s)",
        "| waits",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(running.end().0, Some(0));
    assert_no_process_of(project.directory.path());
}

#[test]
fn a_rollback_goes_ahead_of_a_setup_and_nothing_of_that_is_left() {
    let project = Project::with(SETUP);
    project
        .built("one", &makes("one"))
        .built("two", &makes("two"))
        .built(
            "three",
            "trap '' TERM; echo begun >../../../begun; sleep 4003",
        );
    let running = project.serving(&["one"], "release one on slot blue");
    let (code, said) = project.ask(&["deploy", "two", "--wait", "stopped"]);
    assert_eq!(code, Some(0), "{said}");
    let three = project
        .slotctl(&["--socket", ".slot/slotd.sock", "--json", "deploy", "three"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    project.until("\"phase\":\"build\"");
    let (code, said) = project.ask(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    running.until("release one on slot");
    let three = three.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&three.stdout);
    assert!(said.contains("\"cause\":\"preempted\""), "{said}");
    let began = Instant::now();
    while project
        .directory
        .path()
        .join(".slot/slot/incoming")
        .exists()
        || left_in(&project.directory.path().join(".slot/slot/releases")).len() != 4
    {
        assert!(began.elapsed() < LONG, "something of the build is left");
    }
    assert_eq!(running.end().0, Some(0));
    assert_no_process_of(project.directory.path());
}

#[test]
fn a_deployer_that_is_killed_in_a_setup_leaves_nothing_of_it() {
    let project = Project::with(SETUP);
    project
        .built("one", &makes("one"))
        .built("two", "trap '' TERM; sleep 4004");
    let mut running = project.serving(&["one"], "release one on slot blue");
    let mut two = project
        .slotctl(&["--socket", ".slot/slotd.sock", "deploy", "two"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    project.until("\"phase\":\"build\"");
    signal(&running.child, Signal::SIGKILL);
    running.child.wait().unwrap();
    // Nobody is there to ask any more.
    two.kill().unwrap();
    two.wait().unwrap();
    assert_no_process_of(project.directory.path());
    let running = project.serving(&[], "release one on slot");
    assert!(project.ask(&["--json", "status"]).1.contains("interrupted"));
    assert_eq!(project.releases(), 1);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn shared_directories_stay_from_release_to_release() {
    let project = Project::with("shared_dirs = ['uploads']\n");
    for release in ["1", "3"] {
        let path = project.directory.path().join(format!("build-{release}"));
        std::fs::create_dir_all(path.join("uploads")).unwrap();
        std::fs::write(path.join("uploads/seed"), release).unwrap();
        let text = format!("{{\"name\":\"{release}\",\"behaviour\":\"serves\"}}");
        std::fs::write(path.join("release.json"), text).unwrap();
    }
    let running = project.serving(&["build-1"], "release 1 on slot blue");
    let shared = project.directory.path().join(".slot/slot/shared/uploads");
    assert_eq!(std::fs::read_to_string(shared.join("seed")).unwrap(), "1");
    std::fs::write(shared.join("later"), "kept").unwrap();
    let (code, said) = project.ask(&["deploy", "build-3"]);
    assert_eq!(code, Some(0), "{said}");
    running.until("release 3 on slot green");
    let live = project.directory.path().join(".slot/slot/live/uploads");
    let read = |name| std::fs::read_to_string(live.join(name)).unwrap();
    assert_eq!((read("seed"), read("later")), ("1".into(), "kept".into()));
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn settings_of_a_machine_that_are_wrong_or_not_there_are_refused_before_anything_is_served() {
    let project = Project::new();
    let machine = project.directory.path().join("wrong.toml");
    std::fs::write(machine, "[limits]\ntarget_bites = 256\n").unwrap();
    for (file, says) in [
        (
            "wrong.toml",
            "wrong.toml:2: unknown key `limits.target_bites`",
        ),
        ("none.toml", "cannot read none.toml: No such file"),
    ] {
        let refused = project.slotctl(&["start", "--machine", file]).output();
        let refused = refused.unwrap();
        assert_eq!(refused.status.code(), Some(6), "{refused:?}");
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn a_port_in_use_is_refused_by_name() {
    let project = Project::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let refused = project
        .slotctl(&["start", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    let pid = format!("pid {}", std::process::id());
    assert!(text.contains(&pid) && text.contains("--listen"), "{text}");
}

#[test]
fn what_a_killed_demo_leaves_ends_with_it_or_is_removed_by_the_next() {
    let temporary = tempfile::tempdir().unwrap();
    let start = || {
        let mut child = slotctl(temporary.path())
            .arg("demo")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("release 1") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
        }
        (child, said)
    };
    let (mut killed, _said) = start();
    signal(&killed, Signal::SIGKILL);
    killed.wait().unwrap();
    assert_no_process_of(temporary.path());
    let left = left_in(temporary.path());
    assert!(!left.is_empty());
    let (mut next, _said) = start();
    for path in left {
        assert!(!path.exists(), "{}", path.display());
    }
    signal(&next, Signal::SIGINT);
    assert_eq!(next.wait().unwrap().code(), Some(130));
    assert_eq!(left_in(temporary.path()), Vec::<PathBuf>::new());
}

/// An app that is healthy for whoever asks it directly, and not through the router while there is a file.
const PICKY: &str = r#"
import http.server, os
class Picky(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        through = self.headers.get("X-Forwarded-For") and os.path.exists(os.environ["PICKY"])
        self.send_response(503 if through else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Picky).serve_forever()
"#;

#[test]
fn what_is_active_already_is_deployed_again_only_if_it_answers_through_the_public_listener() {
    let project = Project::new();
    let picky = project.directory.path().join("picky");
    let file = format!(
        "command = ['python3', 'app.py']\nhealth = '/up'\nsoak = '0s'\nenv = {{ PICKY = '{}' }}\n",
        picky.display()
    );
    std::fs::write(project.directory.path().join("slot.toml"), file).unwrap();
    std::fs::write(project.directory.path().join("build-1/app.py"), PICKY).unwrap();
    let running = project.start(&["./build-1"]);
    project.until("\"serving\":true");
    let again = || project.ask(&["deploy", "./build-1"]);
    assert_eq!(again().0, Some(0));
    std::fs::write(&picky, "").unwrap();
    let (code, said) = again();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("asked for /up of localhost at the public listener") && said.contains("503"),
        "{said}"
    );
    std::fs::remove_file(&picky).unwrap();
    assert_eq!(again().0, Some(0));
    running.end();
}
