//! Automatic deployments as their unit makes them: `slotctl auto`, where `slotctl start` runs the app.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use started::{Project, Running, signal};

struct Watching {
    project: Project,
    drop: PathBuf,
    memory: PathBuf,
    /// Where a remote is, if there is one.
    elsewhere: tempfile::TempDir,
}

fn run(directory: &Path, words: &[&str]) -> String {
    let output = Command::new(words[0])
        .args(&words[1..])
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn release(name: &str, behaviour: &str) -> String {
    format!("{{\"name\":\"{name}\",\"behaviour\":\"{behaviour}\"}}")
}

impl Watching {
    fn new() -> Self {
        Self::with(|_| String::new())
    }

    fn with(lines: impl Fn(&Path) -> String) -> Self {
        let elsewhere = tempfile::tempdir().unwrap();
        let project = Project::with(&lines(elsewhere.path()));
        for name in ["drop", "memory"] {
            fs::create_dir(project.directory.path().join(name)).unwrap();
        }
        Self {
            drop: project.directory.path().join("drop"),
            memory: project.directory.path().join("memory"),
            project,
            elsewhere,
        }
    }

    /// An archive of a release comes to the drop, as it should: by its name, whole.
    fn drops(&self, name: &str, behaviour: &str) {
        let made = self.project.directory.path().join(format!("made-{name}"));
        fs::create_dir_all(&made).unwrap();
        fs::write(made.join("release.json"), release(name, behaviour)).unwrap();
        let archive = self.drop.join(format!(".{name}.tar"));
        run(
            &made,
            &["tar", "cf", archive.to_str().unwrap(), "release.json"],
        );
        fs::rename(archive, self.drop.join(format!("{name}.tar"))).unwrap();
    }

    /// One look, as the unit has it; its status and what it said.
    fn look(&self, words: &[&str]) -> (Option<i32>, String) {
        let memory = self.memory.to_str().unwrap();
        self.project
            .ask(&[&["--app", "slot", "auto", "--memory", memory], words].concat())
    }

    fn look_at_drop(&self) -> (Option<i32>, String) {
        self.look(&["--path", self.drop.to_str().unwrap()])
    }

    fn deploys(&self, running: &Running, name: &str) {
        let (code, said) = self.look_at_drop();
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains(&format!("deploys {}", self.drop.join(name).display())),
            "{said}"
        );
        assert_eq!(running.who(), name);
        self.over();
    }

    /// No deployment is under way: the first answer comes before its end.
    fn over(&self) {
        self.project.until("\"state\":\"idle\"");
    }

    /// Nothing is deployed; what was said.
    fn leaves(&self, words: &[&str]) -> String {
        let generation = self.status()["generation"].clone();
        let (code, said) = self.look(words);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(self.status()["generation"], generation, "{said}");
        said
    }

    /// What is remembered names an attempt of which it is not known how it ended.
    fn remembers_an_attempt(&self) -> bool {
        let kept = fs::read(self.memory.join("tried.json")).unwrap_or_default();
        let kept: Value = serde_json::from_slice(&kept).unwrap_or_default();
        kept["tried"]["generation"].is_u64()
    }

    fn leaves_drop(&self) -> String {
        self.leaves(&["--path", self.drop.to_str().unwrap()])
    }

    fn status(&self) -> Value {
        let (code, said) = self.project.ask(&["--json", "status"]);
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str(&said).unwrap()
    }
}

#[test]
fn what_is_dropped_is_deployed_once_and_what_failed_or_was_left_does_not_come_back() {
    let watching = Watching::new();
    let running = watching.project.start(&[]);
    assert!(watching.leaves_drop().contains("nothing to deploy yet"));
    assert_eq!(watching.leaves_drop(), "", "it is said once");
    watching.drops("one", "serves");
    watching.deploys(&running, "one");
    assert_eq!(watching.leaves_drop(), "");
    watching.drops("two", "crashes-at-boot");
    let (code, said) = watching.look_at_drop();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("start-failed"), "{said}");
    watching.over();
    let said = watching.leaves_drop();
    assert!(
        said.contains("is not deployed again: it failed (start-failed)"),
        "{said}"
    );
    assert_eq!(watching.leaves_drop(), "", "it is said once");
    assert_eq!(running.who(), "one");
    watching.drops("three", "serves");
    watching.deploys(&running, "three");
    let (code, said) = watching.project.ask(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    watching.over();
    let said = watching.leaves_drop();
    assert!(said.contains("was live, and release"), "{said}");
    assert_eq!(running.who(), "one");
    watching.drops("four", "serves");
    watching.deploys(&running, "four");
}

#[test]
fn a_try_whose_end_nobody_saw_is_not_made_again() {
    let watching = Watching::with(|elsewhere| {
        let gate = elsewhere.join("gate");
        format!(
            "health_timeout = '2s'\n[hooks]\nbefore_switch = ['cat', '{}']\n",
            gate.display()
        )
    });
    let gate = watching.elsewhere.path().join("gate");
    run(Path::new("/"), &["mkfifo", gate.to_str().unwrap()]);
    let running = watching.project.start(&[]);
    let (memory, drop) = (&watching.memory, &watching.drop);
    let words = ["--socket", ".slot/slotd.sock", "--app", "slot", "auto"];
    for (name, behaviour) in [("one", "serves"), ("two", "never-healthy")] {
        watching.drops(name, behaviour);
        let looks = [
            ["--memory", memory.to_str().unwrap()],
            ["--path", drop.to_str().unwrap()],
        ];
        let mut look = watching
            .project
            .slotctl(&[&words[..], &looks.concat()].concat())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let began = std::time::Instant::now();
        while !watching.remembers_an_attempt() {
            assert!(began.elapsed() < started::LONG, "it never began");
        }
        look.kill().unwrap();
        look.wait().unwrap();
        let opened = std::thread::spawn({
            let gate = gate.clone();
            move || std::fs::write(gate, "")
        });
        watching.over();
        let said = watching.leaves_drop();
        match behaviour {
            "serves" => {
                opened.join().unwrap().unwrap();
                assert_eq!(said, "");
            }
            _ => {
                // Its hook was never reached.
                std::fs::read(&gate).unwrap();
                opened.join().unwrap().unwrap();
                assert!(
                    said.contains("is not deployed again: it failed (health-timeout)"),
                    "{said}"
                );
            }
        }
        assert_eq!(running.who(), "one");
    }
}

#[test]
fn a_link_to_a_file_and_a_pipe_are_not_read() {
    let watching = Watching::new();
    let _running = watching.project.start(&[]);
    let there = watching.project.directory.path();
    let (link, pipe) = (there.join("link"), there.join("pipe"));
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    run(there, &["mkfifo", "pipe"]);
    for path in [link, pipe] {
        let (code, said) = watching.look(&["--path", path.to_str().unwrap()]);
        assert_ne!(code, Some(0), "{said}");
        assert!(said.contains("links to files are not followed"), "{said}");
    }
    assert_eq!(watching.status()["generation"], 0);
}

#[test]
fn a_hold_is_respected_over_restarts_and_people_deploy_all_the_same() {
    let watching = Watching::new();
    let running = watching.project.start(&[]);
    watching.drops("one", "serves");
    watching.deploys(&running, "one");
    let (code, said) = watching.project.ask(&["hold", "--reason", "the audit"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("are on hold by") && said.contains(": the audit"),
        "{said}"
    );
    watching.drops("two", "serves");
    let said = watching.leaves_drop();
    assert!(
        said.contains("on hold by") && said.contains("the audit"),
        "{said}"
    );
    signal(&running.child, Signal::SIGKILL);
    drop(running);
    let running = watching.project.start(&[]);
    assert_eq!(watching.status()["hold"]["reason"], "the audit");
    assert_eq!(watching.leaves_drop(), "");
    // slotd itself refuses, should whoever looks have looked before.
    let (code, said) = watching.project.ask(&["status"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("on hold by") && said.contains("`slotctl unhold`"),
        "{said}"
    );
    let said = watching.project.deploy(&["build-1"]);
    assert!(said.contains("on hold by"), "{said}");
    watching.over();
    assert_eq!(running.who(), "1");
    let (code, said) = watching.project.ask(&["unhold"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(watching.status()["hold"], Value::Null);
    watching.deploys(&running, "two");
}

#[test]
fn outside_of_its_window_nothing_is_deployed() {
    let watching = Watching::new();
    let running = watching.project.start(&[]);
    watching.drops("one", "serves");
    let today: usize = run(Path::new("/"), &["date", "+%u"]).parse().unwrap();
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    // A day that is neither yesterday, nor today, nor tomorrow.
    let closed = format!("{} 00:00-24:00", days[(today + 2) % 7]);
    let path = watching.drop.to_str().unwrap().to_owned();
    let said = watching.leaves(&["--path", &path, "--window", &closed]);
    assert!(
        said.contains(&format!("is not deployed before the next of {closed}")),
        "{said}"
    );
    let (code, said) = watching.look(&[
        "--path",
        &path,
        "--window",
        &closed,
        "--window",
        "00:00-24:00",
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(running.who(), "one");
}

#[test]
fn what_the_remote_has_on_its_branch_is_deployed() {
    let watching = Watching::with(|elsewhere| {
        format!(
            "[git]\nremote = 'file://{}'\nbranch = 'main'\n",
            elsewhere.join("shop.git").display()
        )
    });
    let remote = watching.elsewhere.path().join("shop.git");
    let work = remote.with_file_name("work");
    fs::create_dir(&work).unwrap();
    run(&work, &["git", "init", "-q", "-b", "main"]);
    run(
        &work,
        &[
            "git",
            "init",
            "-q",
            "--bare",
            "-b",
            "main",
            remote.to_str().unwrap(),
        ],
    );
    let push = |name: &str, behaviour: &str| {
        fs::write(work.join("release.json"), release(name, behaviour)).unwrap();
        run(&work, &["git", "add", "release.json"]);
        let who = ["-c", "user.name=a", "-c", "user.email=a@b"];
        run(
            &work,
            &[&["git"], &who[..], &["commit", "-q", "-m", name]].concat(),
        );
        run(
            &work,
            &["git", "push", "-q", remote.to_str().unwrap(), "main"],
        );
        run(&work, &["git", "rev-parse", "HEAD"])
    };
    let running = watching.project.start(&[]);
    let one = push("one", "serves");
    let (code, said) = watching.look(&["--git"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(&format!("deploys commit {}", &one[..8])),
        "{said}"
    );
    assert_eq!(running.who(), "one");
    watching.over();
    assert_eq!(watching.status()["live"], one[..8]);
    assert_eq!(watching.leaves(&["--git"]), "");
    let two = push("two", "crashes-at-boot");
    let (code, said) = watching.look(&["--git"]);
    assert_eq!(code, Some(1), "{said}");
    watching.over();
    let said = watching.leaves(&["--git"]);
    assert!(
        said.contains(&format!("commit {} is not deployed again", &two[..8])),
        "{said}"
    );
    // What somebody has deployed himself is not deployed once more.
    push("three", "serves");
    watching.project.deploy(&["--remote"]);
    watching.over();
    assert_eq!(watching.leaves(&["--git"]), "");
    assert_eq!(running.who(), "three");
    // And once he has gone back from it, whether that was seen to be live or not, it is not brought back.
    for name in ["three", "four"] {
        if name == "four" {
            push(name, "serves");
            watching.project.deploy(&["--remote"]);
            watching.over();
        }
        let (code, said) = watching.project.ask(&["rollback"]);
        assert_eq!(code, Some(0), "{said}");
        watching.over();
        let said = watching.leaves(&["--git"]);
        assert!(
            said.contains("that stays until something else is there"),
            "{said}"
        );
        watching.project.deploy(&["--remote"]);
        watching.over();
        assert_eq!(running.who(), name);
    }
    fs::remove_dir_all(&remote).unwrap();
    let (code, said) = watching.look(&["--git"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the remote was not looked at"), "{said}");
}
