//! Hooks as a user has them: `[hooks]` of slot.toml where `slotctl start` runs the app.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use started::{Project, Running, signal};

/// A project whose releases have a script for hooks; each run of one is a line of `ran`.
struct Hooked(Project);

impl Hooked {
    fn new(hooks: &str) -> Self {
        let hooked = Self(Project::with(&format!("[hooks]\n{hooks}")));
        for name in ["one", "two", "three"] {
            hooked.release(name, "serves", "");
        }
        hooked
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.directory.path().join(name)
    }

    /// `more`: lines of a shell, after the run was written down.
    fn release(&self, name: &str, behaviour: &str, more: &str) {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        let text = format!("{{\"name\":\"{name}\",\"behaviour\":\"{behaviour}\"}}");
        fs::write(path.join("release.json"), text).unwrap();
        let script = format!(
            "set -e\nstate=$(readlink \"{data}/live\" || true)\n\
             echo \"$SLOT_HOOK $SLOT_APP $SLOT_GENERATION $SLOT_CAUSE ${{SLOT_NAME:--}} $(basename \"$PWD\") $SLOT_RELEASE \
             ${{SLOT_PREVIOUS:--}} $(basename \"${{state:--}}\")\" >>\"{ran}\"\n{more}\n",
            data = self.path(".slot/slot").display(),
            ran = self.path("ran").display(),
        );
        fs::write(path.join("hook"), script).unwrap();
    }

    /// What has run: the words of each line.
    fn ran(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.path("ran")).unwrap_or_default();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        text.lines().map(words).collect()
    }

    /// Waits until so many have run, and nothing is due any more.
    fn until_ran(&self, many: usize) -> Vec<Vec<String>> {
        let began = std::time::Instant::now();
        loop {
            let state = fs::read_to_string(self.0.home().join("state.json")).unwrap_or_default();
            let ran = self.ran();
            if ran.len() >= many && !state.contains("\"due\"") {
                return ran;
            }
            assert!(began.elapsed() < started::LONG, "{ran:?} {state}");
            std::thread::yield_now();
        }
    }

    fn json(&self, words: &[&str]) -> (Option<i32>, Value) {
        let words = [&["--socket", ".slot/slotd.sock", "--json"], words].concat();
        let output = self.0.slotctl(&words).output().unwrap();
        let said = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), said)
    }

    /// Deploys what must serve; its release.
    fn deploy(&self, name: &str) -> String {
        let (code, said) = self.json(&["deploy", name, "--wait", "stopped"]);
        assert_eq!(code, Some(0), "{said}");
        said["release"].as_str().unwrap().to_owned()
    }

    fn start(&self) -> Running {
        self.0.start(&[])
    }
}

const ALL: &str = "before_deploy = 'sh ./hook'\nbefore_switch = ['sh', './hook']\nafter_switch = 'sh ./hook'\n\
                   after_rollback = 'sh ./hook'\n";

#[test]
fn each_hook_runs_in_its_release_at_its_time_with_the_facts() {
    let hooked = Hooked::new(ALL);
    let running = hooked.start();
    let one = hooked.deploy("one");
    hooked.until_ran(3);
    let two = hooked.deploy("two");
    hooked.until_ran(6);
    let (code, said) = hooked.json(&["rollback", "--wait", "stopped"]);
    assert_eq!(code, Some(0), "{said}");
    running.until("release one on slot");
    let ran = hooked.until_ran(7);
    let line = |hook: &str,
                generation: u32,
                cause: &str,
                slot: &str,
                release: &str,
                previous: &str,
                live: &str| {
        let words = [
            hook,
            "slot",
            &generation.to_string(),
            cause,
            slot,
            release,
            release,
            previous,
            live,
        ];
        words.map(str::to_owned).to_vec()
    };
    let expected = [
        line("before_deploy", 1, "deploy", "-", &one, "-", "-"),
        line("before_switch", 1, "deploy", "blue", &one, "-", "-"),
        line("after_switch", 1, "deploy", "blue", &one, "-", &one),
        line("before_deploy", 2, "deploy", "-", &two, &one, &one),
        line("before_switch", 2, "deploy", "green", &two, &one, &one),
        line("after_switch", 2, "deploy", "green", &two, &one, &two),
        line("after_rollback", 3, "rollback", "blue", &one, &two, &one),
    ];
    assert_eq!(ran, expected);
}

#[test]
fn a_hook_before_the_switch_that_fails_ends_the_deployment_and_is_told_with_its_last_lines() {
    for hook in ["before_deploy", "before_switch"] {
        let hooked = Hooked::new(&format!("{hook} = 'sh ./hook'\n"));
        hooked.release("two", "serves", "echo step one\necho no luck >&2\nexit 3");
        let running = hooked.start();
        let one = hooked.deploy("one");
        let (code, said) = hooked.0.ask(&["deploy", "two"]);
        assert_eq!(code, Some(1), "{said}");
        for words in [
            &format!("failed in phase {hook}: hook-failed") as &str,
            &format!("{hook} `sh ./hook` exited with status 3"),
            "| step one",
            "| no luck",
            "The active slot is untouched",
        ] {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(running.who(), "one");
        let (_, status) = hooked.json(&["status"]);
        assert_eq!(
            (&status["live"], &status["state"]),
            (&one.into(), &"idle".into())
        );
        assert_eq!(status["last"]["cause"], "hook-failed");
        assert_eq!(hooked.deploy("three").len(), 8);
    }
}

#[test]
fn a_hook_that_hangs_is_ended_at_its_limit_with_all_that_it_started() {
    let hooked = Hooked::new("before_switch = 'sh ./hook'\ntimeout = '1s'\n");
    hooked.release(
        "two",
        "serves",
        "echo waits; (trap '' TERM; exec sleep 4011) & exec sleep 4012",
    );
    let running = hooked.start();
    hooked.deploy("one");
    let (code, said) = hooked.0.ask(&["deploy", "two"]);
    assert_eq!(code, Some(1), "{said}");
    for words in [
        "hook-timeout",
        "did not end within `timeout` of [hooks] (1 s)",
        "| waits",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(running.who(), "one");
    assert_eq!(running.end().0, Some(0));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!line.starts_with(b"sleep\x00401"), "{process:?}");
    }
}

#[test]
fn a_hook_after_the_switch_that_fails_only_warns() {
    let hooked = Hooked::new("after_switch = 'sh ./hook'\n");
    hooked.release("two", "serves", "exit 4");
    let running = hooked.start();
    hooked.deploy("one");
    hooked.until_ran(1);
    hooked.deploy("two");
    hooked.until_ran(2);
    assert_eq!(running.who(), "two");
    let (_, status) = hooked.json(&["status"]);
    let warnings = status["warnings"].to_string();
    assert!(
        warnings.contains("the hook after_switch of generation 2 exited with status 4"),
        "{warnings}"
    );
    hooked.deploy("three");
    hooked.until_ran(3);
    hooked.0.until("\"warnings\":[]");
    let history = fs::read_to_string(hooked.0.home().join("history.jsonl")).unwrap();
    assert!(history.contains("\"event\":\"hook\""), "{history}");
}

#[test]
fn a_rollback_waits_for_no_hook_and_nothing_of_that_is_left() {
    let hooked = Hooked::new("before_switch = 'sh ./hook'\n");
    hooked.release("three", "serves", "trap '' TERM; sleep 4013");
    let running = hooked.start();
    hooked.deploy("one");
    hooked.deploy("two");
    let words = ["--socket", ".slot/slotd.sock", "--json", "deploy", "three"];
    let mut three = hooked.0.slotctl(&words);
    let three = three.stdout(Stdio::piped()).spawn().unwrap();
    hooked.0.until("\"phase\":\"before_switch\"");
    let (code, said) = hooked.json(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    let said = three.wait_with_output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("\"cause\":\"preempted\""), "{said}");
    running.until("release one on slot");
}

#[test]
fn a_hook_that_a_kill_interrupted_is_run_again() {
    let hooked = Hooked::new("after_switch = 'sh ./hook'\n");
    hooked.release(
        "two",
        "serves",
        "test \"$(grep -c ' 2 ' ../../../../ran)\" -ge 2 || sleep 4014",
    );
    let mut running = hooked.start();
    hooked.deploy("one");
    hooked.until_ran(1);
    hooked.deploy("two");
    while hooked.ran().len() < 2 {
        std::thread::yield_now();
    }
    signal(&running.child, Signal::SIGKILL);
    running.child.wait().unwrap();
    let running = hooked.start();
    let ran = hooked.until_ran(3);
    assert_eq!(ran[1], ran[2]);
    running.until("release two on slot");
}
