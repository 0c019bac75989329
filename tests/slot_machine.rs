//! What users of slot-machine rely on: its file, its command line, its API, its data directory, each with a real app in a real repository.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Nothing here takes as long.
const LONG: Duration = Duration::from_secs(60);

/// An app that says what it is of, on `PORT`, and how it is, on `INTERNAL_PORT`. `mode` in its release says how it behaves.
const APP: &str = r#"
import http.server, os, signal, sys, threading, time
mode, *rest = open("mode").read().split()
if mode == "waits":
    while not os.path.exists(rest[0]): time.sleep(0.01)
if mode == "ends": sys.exit(5)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *words): pass
    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/healthz" and self.server.internal:
            return self.answer(200 if mode != "sick" else 503, "health")
        if self.path == "/moved" and self.server.internal: return self.answer(302, "")
        if self.path.startswith("/env/"): return self.answer(200, os.environ.get(self.path[5:], "unset"))
        if self.path == "/pid": return self.answer(200, str(os.getpid()))
        self.answer(200, ("internal " if self.server.internal else "public ") + open("version").read())
    def do_POST(self):
        self.answer(200, "yes")
        if self.path == "/crash": os._exit(3)
        if self.path == "/hang": hangs.set()
hangs = threading.Event()
def ended(*_):
    if not hangs.is_set():
        open(os.environ["SAID"], "a").write("SIGTERM\n") if "SAID" in os.environ else None
        os._exit(0)
signal.signal(signal.SIGTERM, ended)
def serve(name, internal):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ[name])), Handler)
    server.internal = internal
    server.serve_forever()
if os.environ["PORT"] != os.environ["INTERNAL_PORT"]:
    threading.Thread(target=serve, args=("INTERNAL_PORT", True), daemon=True).start()
threading.Thread(target=serve, args=("PORT", False), daemon=True).start()
while True: time.sleep(3600)
"#;

/// A repository with the app, a data directory, three ports.
struct Project {
    home: tempfile::TempDir,
    port: u16,
    internal: u16,
    api: u16,
}

/// A daemon that runs; killed with the test.
struct Daemon<'p> {
    project: &'p Project,
    child: Child,
    said: mpsc::Receiver<String>,
}

/// A port that nobody else is given: bound, and not listened on, which a daemon's own bind does not mind (`SO_REUSEADDR`, socket(7)).
fn free_port() -> u16 {
    let reserved =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    reserved.set_reuse_address(true).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    reserved.bind(&any.into()).unwrap();
    let port = reserved.local_addr().unwrap().as_socket().unwrap().port();
    // For as long as the tests run.
    std::mem::forget(reserved);
    port
}

fn slotctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotctl"));
    command.env_remove("SLOT_SOCKET").env("NO_COLOR", "1");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn git(at: &Path, words: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(at)
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{words:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout).trim().to_owned()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < limit, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn http(port: u16, request: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.unwrap_or_default(), body.to_owned()))
}

fn get(port: u16, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    http(port, &request).unwrap_or_else(|error| (0, error.to_string()))
}

fn post_as(port: u16, path: &str, host: &str, kind: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let (status, body) = http(port, &request).unwrap();
    (
        status,
        serde_json::from_str(&body).unwrap_or(Value::String(body)),
    )
}

fn post(port: u16, path: &str, body: &Value) -> (u16, Value) {
    post_as(
        port,
        path,
        "127.0.0.1",
        "application/json",
        &body.to_string(),
    )
}

impl Project {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let project = Self {
            home,
            port: free_port(),
            internal: free_port(),
            api: free_port(),
        };
        let repo = project.repo();
        std::fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "--quiet", "-b", "main"]);
        std::fs::write(repo.join("app.py"), APP).unwrap();
        std::fs::write(repo.join(".gitignore"), ".slot-machine\n").unwrap();
        project
    }

    fn repo(&self) -> PathBuf {
        self.home.path().join("repo")
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("app.contract.json")
    }

    /// Commits a version of the app that behaves so; returns its 40 digits.
    fn commit(&self, version: &str, mode: &str) -> String {
        std::fs::write(self.repo().join("version"), version).unwrap();
        std::fs::write(self.repo().join("mode"), mode).unwrap();
        git(&self.repo(), &["add", "-A"]);
        git(&self.repo(), &["commit", "--quiet", "-m", version]);
        git(&self.repo(), &["rev-parse", "HEAD"])
    }

    /// Writes the file, with these keys in place of the usual ones.
    fn configure(&self, keys: Value) {
        let mut all = json!({
            "start_command": "exec python3 app.py", "port": self.port, "internal_port": self.internal,
            "health_endpoint": "/healthz", "health_timeout_ms": 30_000, "drain_timeout_ms": 4_000, "api_port": self.api,
        });
        for (key, value) in keys.as_object().unwrap() {
            all[key] = value.clone();
        }
        std::fs::write(self.file(), all.to_string()).unwrap();
    }

    /// Starts the daemon, which says something; it may not answer yet.
    fn spawn(&self, words: &[&str]) -> Daemon<'_> {
        if !self.file().exists() {
            self.configure(json!({}));
        }
        let mut child = slotctl()
            .arg("start")
            .arg("--config")
            .arg(self.file())
            .arg("--repo")
            .arg(self.repo())
            .arg("--data")
            .arg(self.data())
            .args(words)
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (tell, said) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody may be listening any more.
                let _ = tell.send(line);
            }
        });
        Daemon {
            project: self,
            child,
            said,
        }
    }

    /// Starts the daemon, and waits until its API answers.
    fn start(&self, words: &[&str]) -> Daemon<'_> {
        let daemon = self.spawn(words);
        until("an answer of the API", || get(self.api, "/").0 == 200);
        daemon
    }

    fn deploy(&self, commit: &str) -> (u16, Value) {
        post(self.api, "/deploy", &json!({ "commit": commit }))
    }

    fn deployed(&self, commit: &str) -> Value {
        let (status, answer) = self.deploy(commit);
        assert_eq!(
            (status, &answer["success"]),
            (200, &json!(true)),
            "{answer}"
        );
        answer
    }

    fn status(&self) -> Value {
        serde_json::from_str(&get(self.api, "/status").1).unwrap()
    }

    fn app(&self) -> String {
        get(self.port, "/").1
    }

    fn link(&self, name: &str) -> String {
        let target = std::fs::read_link(self.data().join(name)).unwrap();
        target.to_string_lossy().into_owned()
    }
}

impl Daemon<'_> {
    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("the daemon's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    fn kill_with_all_it_started(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
        self.ended();
    }

    /// What it says, up to a line with these words.
    fn says(&self, words: &str) -> String {
        let mut all = String::new();
        while let Ok(line) = self.said.recv_timeout(LONG) {
            all += &line;
            all.push('\n');
            if line.contains(words) {
                return all;
            }
        }
        panic!("{words:?} was not said, but: {all}");
    }

    fn pid(&self) -> Pid {
        let pid = get(self.project.internal, "/pid").1;
        Pid::from_raw(pid.parse().unwrap())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process has ended; whoever inherited it may not have looked yet.
fn is_gone(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(") ").next().unwrap().starts_with('Z')
    })
}

fn slot(commit: &str) -> String {
    format!("slot-{}", &commit[..8])
}

#[test]
fn head_is_deployed_at_start_and_a_deployed_commit_is_live_healthy_and_on_disk_by_its_name() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let second = project.commit("B", "ok");
    let _daemon = project.start(&["--no-proxy"]);
    let status = project.status();
    assert_eq!(status["live_commit"], *second);
    assert_eq!(status["live_slot"], slot(&second));
    assert_eq!(status["healthy"], true);
    assert_eq!(status["staging_dir"], "slot-staging");
    assert_eq!(
        (&status["previous_slot"], &status["previous_commit"]),
        (&json!(""), &json!(""))
    );
    assert_eq!(project.app(), "public B");
    assert_eq!(get(project.internal, "/").1, "internal B");

    git(&project.repo(), &["branch", "old", &first]);
    for name in ["old", &first[..9], &first, "HEAD~1"] {
        let answer = project.deployed(name);
        assert_eq!(answer["slot"], slot(&first), "{name}");
        assert_eq!(answer["commit"], *first);
    }
    assert_eq!(project.app(), "public A");
    assert!(project.data().join(slot(&first)).join("app.py").is_file());
    assert_eq!(project.link("live"), slot(&first));
    let said = std::fs::read_to_string(project.data().join("journal.ndjson")).unwrap();
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 5);
    assert!(said.ends_with('\n'));
    assert_eq!(lines[1]["action"], "deploy");
    assert_eq!(lines[1]["commit"], *first);
    assert_eq!(lines[1]["slot_dir"], slot(&first));
    assert_eq!(lines[1]["prev_commit"], *second);
    assert_eq!(lines[4]["time"], project.status()["last_deploy_time"]);
}

#[test]
fn a_candidate_that_is_not_healthy_is_no_success_and_leaves_what_is_live() {
    let project = Project::new();
    project.configure(json!({ "health_timeout_ms": 1500 }));
    let good = project.commit("A", "ok");
    let _daemon = project.start(&[]);
    for mode in ["sick", "ends"] {
        let bad = project.commit("B", mode);
        let (status, answer) = project.deploy(&bad);
        assert_eq!(
            (status, &answer["success"]),
            (200, &json!(false)),
            "{mode}: {answer}"
        );
        assert_eq!(answer["previous_commit"], *good);
        assert_eq!(
            (&answer["slot"], &answer["commit"]),
            (&json!(""), &json!(""))
        );
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty())
        );
        assert_eq!(project.status()["live_commit"], *good);
        assert_eq!(project.app(), "public A");
    }
    assert_eq!(project.status()["previous_commit"], "");
}

#[test]
fn rollback_goes_to_the_release_before_and_forward_again_and_is_refused_where_there_is_none() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let daemon = project.start(&["--no-deploy"]);
    let (status, answer) = post(project.api, "/rollback", &json!({}));
    assert_eq!(
        (status, &answer["success"]),
        (400, &json!(false)),
        "{answer}"
    );
    assert!(answer["error"].is_string());
    assert_eq!(project.status()["live_commit"], "");
    project.deployed(&first);
    let second = project.commit("B", "ok");
    assert_eq!(project.deployed(&second)["previous_commit"], *first);
    for (live, prev, version) in [(&first, &second, "A"), (&second, &first, "B")] {
        let (status, answer) = post_as(
            project.api,
            "/rollback",
            "localhost",
            "application/json",
            "",
        );
        assert_eq!(status, 200, "{answer}");
        let expected = json!({ "success": true, "slot": slot(live), "commit": live });
        assert_eq!(answer, expected);
        let status = project.status();
        assert_eq!(
            (&status["live_commit"], &status["previous_commit"]),
            (&json!(live), &json!(prev))
        );
        assert_eq!(
            (project.link("live"), project.link("prev")),
            (slot(live), slot(prev))
        );
        assert_eq!(project.app(), format!("public {version}"));
    }
    let third = project.commit("C", "ok");
    project.deployed(&third);
    assert_eq!(project.app(), "public C");
    drop(daemon);
    let journal = std::fs::read_to_string(project.data().join("journal.ndjson")).unwrap();
    assert_eq!(journal.matches("\"action\":\"rollback\"").count(), 2);
}

#[test]
fn only_the_release_before_is_kept_and_the_same_commit_can_be_deployed_again() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let _daemon = project.start(&[]);
    let second = project.commit("B", "ok");
    project.deployed(&second);
    assert_eq!(project.deployed(&first)["previous_commit"], *second);
    assert_eq!(project.status()["previous_commit"], *second);
    let again = project.deployed(&first);
    assert_eq!(again["slot"], slot(&first));
    assert_eq!(project.app(), "public A");
    let third = project.commit("C", "ok");
    project.deployed(&third);
    project.deployed(&second);
    let kept = |commit| project.data().join(slot(commit)).exists();
    assert!(kept(&second) && kept(&third) && !kept(&first));
}

#[test]
fn while_one_deployment_is_under_way_another_is_refused_and_the_old_release_serves() {
    let project = Project::new();
    let good = project.commit("A", "ok");
    let gate = project.home.path().join("gate");
    let slow = project.commit("B", &format!("waits {}", gate.display()));
    let _daemon = project.start(&["--no-deploy"]);
    project.deployed(&good);
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| project.deploy(&slow));
        until("the candidate", || {
            matches!(
                project.status()["state"].as_str(),
                Some("starting" | "ready")
            )
        });
        let (status, answer) = project.deploy(&good);
        assert_eq!(
            (status, &answer["success"]),
            (409, &json!(false)),
            "{answer}"
        );
        assert!(
            answer["error"].as_str().unwrap().contains("progress"),
            "{answer}"
        );
        assert_eq!(project.app(), "public A");
        std::fs::write(&gate, "").unwrap();
        assert_eq!(deploying.join().unwrap().1["success"], true);
    });
    assert_eq!(project.app(), "public B");
}

#[test]
fn a_live_process_that_dies_is_unhealthy_at_once_and_is_not_started_again() {
    let project = Project::new();
    let commit = project.commit("A", "ok");
    let _daemon = project.start(&[]);
    assert_eq!(post(project.internal, "/crash", &json!({})).0, 200);
    let died = Instant::now();
    until("the bad news", || project.status()["healthy"] == false);
    assert!(
        died.elapsed() < Duration::from_millis(500),
        "{:?}",
        died.elapsed()
    );
    let status = project.status();
    assert_eq!(
        (&status["live_commit"], &status["state"]),
        (&json!(commit), &json!("idle"))
    );
    assert_eq!(get(project.port, "/").0, 503);
    // As long as systemd's RestartSec= and slot's own patience take together.
    let limit = Instant::now() + Duration::from_secs(7);
    while Instant::now() < limit {
        assert_eq!(project.status()["healthy"], false);
        std::thread::sleep(Duration::from_millis(200));
    }
    project.deployed(&commit);
    assert_eq!(project.status()["healthy"], true);
    assert_eq!(project.app(), "public A");
}

#[test]
fn drain_timeout_ms_is_the_time_from_sigterm_to_sigkill_for_all_of_the_app() {
    let project = Project::new();
    // A shell that passes no signal on, and waits.
    project.configure(
        json!({ "start_command": "python3 app.py & wait; wait", "drain_timeout_ms": 1000 }),
    );
    project.commit("A", "ok");
    let daemon = project.start(&[]);
    let hanging = daemon.pid();
    assert_eq!(post(project.internal, "/hang", &json!({})).0, 200);
    let second = project.commit("B", "ok");
    project.deployed(&second);
    assert!(
        is_gone(hanging),
        "the answer comes when the old process has ended"
    );
    assert_eq!(project.app(), "public B");
}

#[test]
fn sigterm_reaches_an_app_behind_a_shell_which_has_its_time_to_end() {
    let project = Project::new();
    let said = project.home.path().join("said");
    std::fs::write(
        project.repo().join("app.env"),
        format!("SAID={}\n", said.display()),
    )
    .unwrap();
    project.configure(json!({ "start_command": "python3 app.py; true", "env_file": "app.env" }));
    let first = project.commit("A", "ok");
    let daemon = project.start(&[]);
    let pid = daemon.pid();
    project.deployed(&first);
    assert!(is_gone(pid));
    assert_eq!(std::fs::read_to_string(&said).unwrap(), "SIGTERM\n");
}

#[test]
fn an_env_file_is_relative_to_the_repository_and_what_slot_says_wins_over_it() {
    let project = Project::new();
    let env = "WORD=it's \"quoted\"\nPORT=1\nnot a pair\nSLOT_MACHINE=0\n";
    std::fs::write(project.repo().join("local.env"), env).unwrap();
    git(
        &project.repo(),
        &["config", "core.excludesFile", "/dev/null"],
    );
    std::fs::write(
        project.repo().join(".gitignore"),
        "local.env\n.slot-machine\n",
    )
    .unwrap();
    project.configure(json!({ "env_file": "local.env" }));
    let commit = project.commit("A", "ok");
    let daemon = project.start(&[]);
    let told = |name: &str| get(project.port, &format!("/env/{name}")).1;
    assert_eq!(told("WORD"), "it's \"quoted\"");
    assert_eq!(told("SLOT_MACHINE"), "1");
    assert_eq!(told("SLOT_RELEASE"), commit[..8]);
    assert_ne!(told("PORT"), project.port.to_string());
    assert_ne!(told("PORT"), told("INTERNAL_PORT"));
    drop(daemon);
    // One that is not there is none.
    project.configure(json!({ "env_file": "nowhere.env" }));
    let _daemon = project.start(&[]);
    assert_eq!(get(project.port, "/env/WORD").1, "unset");
}

#[test]
fn an_app_without_an_internal_port_of_its_own_is_still_asked_for_its_health_on_one() {
    let project = Project::new();
    project.configure(json!({ "internal_port": project.port }));
    project.commit("A", "ok");
    let _daemon = project.start(&[]);
    assert_eq!(project.app(), "public A");
    let told = |name: &str| get(project.port, &format!("/env/{name}")).1;
    assert_ne!(told("PORT"), told("INTERNAL_PORT"));
    assert_ne!(told("INTERNAL_PORT"), project.port.to_string());
}

#[test]
fn health_is_a_200_and_nothing_else() {
    let project = Project::new();
    project.configure(json!({ "health_endpoint": "/moved", "health_timeout_ms": 1000 }));
    let commit = project.commit("A", "ok");
    let _daemon = project.start(&["--no-deploy"]);
    let (status, answer) = project.deploy(&commit);
    assert_eq!((status, &answer["success"]), (200, &json!(false)));
    assert_eq!(answer["cause"], "health-timeout");
}

#[test]
fn the_setup_command_runs_in_the_release_and_what_it_made_is_in_staging() {
    let project = Project::new();
    project.configure(json!({ "setup_command": "echo $SLOT_MACHINE > .setup-done && test ! -e bad || { echo broken; exit 9; }" }));
    let good = project.commit("A", "ok");
    let _daemon = project.start(&[]);
    let read = |name: &str| std::fs::read_to_string(project.data().join(name)).unwrap();
    assert_eq!(read(&format!("{}/.setup-done", slot(&good))), "1\n");
    assert_eq!(read("slot-staging/.setup-done"), "1\n");
    assert!(!project.repo().join(".setup-done").exists());

    std::fs::write(project.repo().join("bad"), "").unwrap();
    let bad = project.commit("B", "ok");
    let (status, answer) = project.deploy(&bad);
    assert_eq!(
        (status, &answer["success"]),
        (500, &json!(false)),
        "{answer}"
    );
    assert_eq!(answer["cause"], "build-failed");
    assert_eq!(answer["log"], json!(["broken"]));
    assert!(
        answer["error"].as_str().unwrap().contains("status 9"),
        "{answer}"
    );
    assert_eq!(project.status()["live_commit"], *good);
    assert!(!project.data().join(slot(&bad)).exists());
}

#[test]
fn what_git_lfs_keeps_is_in_the_release_and_a_commit_that_lacks_it_is_refused_with_its_path() {
    let project = Project::new();
    // SHA-256 of `abc`.
    let oid = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 3\n");
    std::fs::write(project.repo().join(".gitattributes"), "*.bin filter=lfs\n").unwrap();
    std::fs::write(project.repo().join("model.bin"), &pointer).unwrap();
    let kept = project.repo().join(".git/lfs/objects/ba/78");
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join(oid), "abc").unwrap();
    let good = project.commit("A", "ok");
    let _daemon = project.start(&[]);
    let live = project.data().join("live/model.bin");
    assert_eq!(std::fs::read_to_string(&live).unwrap(), "abc");

    let lost = pointer.replace("ba7816bf", "00000000");
    std::fs::write(project.repo().join("lost.bin"), lost).unwrap();
    let bad = project.commit("B", "ok");
    let (status, answer) = project.deploy(&bad);
    assert_eq!(
        (status, &answer["success"]),
        (500, &json!(false)),
        "{answer}"
    );
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.contains("lost.bin") && error.contains("git"),
        "{error}"
    );
    assert_eq!(project.status()["live_commit"], *good);
    assert!(!project.data().join(slot(&bad)).exists());
}

#[test]
fn shared_directories_are_those_of_the_repository_and_the_first_release_gives_what_is_not_there() {
    let project = Project::new();
    project.configure(json!({ "shared_dirs": ["uploads", "seeds", "empty/deep", "../out", "."] }));
    let repo = project.repo();
    std::fs::write(repo.join(".gitignore"), ".slot-machine\nuploads\n").unwrap();
    // As slot-machine has it: data that no commit has, in the repository itself.
    std::fs::create_dir(repo.join("uploads")).unwrap();
    std::fs::write(repo.join("uploads/app.db"), "rows").unwrap();
    std::fs::create_dir(repo.join("seeds")).unwrap();
    std::fs::write(repo.join("seeds/first"), "seed").unwrap();
    project.commit("A", "ok");
    std::fs::remove_dir_all(repo.join("seeds")).unwrap();
    let daemon = project.start(&[]);
    for ignored in ["\"../out\"", "\".\""] {
        daemon.says(&format!(
            "shared_dirs: {ignored} is no directory of a release"
        ));
    }
    let live = project.data().join("live");
    for directory in ["uploads", "seeds", "empty/deep"] {
        let target = std::fs::read_link(live.join(directory)).unwrap();
        assert_eq!(target, repo.join(directory));
    }
    let read = |path: &str| std::fs::read_to_string(live.join(path)).unwrap();
    assert_eq!(
        (read("uploads/app.db"), read("seeds/first")),
        ("rows".into(), "seed".into())
    );
    std::fs::write(live.join("uploads/new"), "new").unwrap();
    git(&repo, &["checkout", "--quiet", "--", "."]);
    let second = project.commit("B", "ok");
    project.deployed(&second);
    assert_eq!(read("uploads/new"), "new");
    assert_eq!(
        std::fs::read_to_string(repo.join("uploads/new")).unwrap(),
        "new"
    );
}

#[test]
fn a_commit_is_made_anew_for_another_setup_unless_it_is_in_use_and_then_that_is_said() {
    let project = Project::new();
    project.configure(json!({ "setup_command": "echo one >made" }));
    let first = project.commit("A", "ok");
    drop(project.start(&[]));
    let made = |commit: &str| {
        let path = project.data().join(slot(commit)).join("made");
        std::fs::read_to_string(path).unwrap()
    };
    assert_eq!(made(&first), "one\n");
    project.configure(json!({ "setup_command": "echo two >made" }));
    let daemon = project.start(&["--no-deploy"]);
    let (_, answer) = project.deploy(&first);
    assert_eq!(
        (&answer["success"], made(&first)),
        (&json!(true), "one\n".into())
    );
    daemon.says("it was made with another setup_command");
    let second = project.commit("B", "ok");
    project.deployed(&second);
    let third = project.commit("C", "ok");
    project.deployed(&third);
    drop(daemon);
    // Neither live nor prev, it is made as is said now.
    let _daemon = project.start(&["--no-deploy"]);
    project.deployed(&first);
    assert_eq!(made(&first), "two\n");
}

#[test]
fn what_is_wrong_with_a_request_has_its_status_and_is_json() {
    let project = Project::new();
    project.configure(json!({ "start_command": "./not-there" }));
    let commit = project.commit("A", "ok");
    let _daemon = project.start(&["--no-deploy"]);
    let api = project.api;
    for (body, why) in [
        ("", "no commit is given"),
        ("{}", "no commit is given"),
        ("{\"commit\":\"\"}", "no commit is given"),
        ("{\"commit\":\"main\"", "EOF while parsing an object"),
        (
            "{\"commit\":7}",
            "invalid type: integer `7`, expected a string",
        ),
    ] {
        let (status, answer) = post_as(api, "/deploy", "127.0.0.1", "application/json", body);
        assert_eq!(
            (status, &answer["success"]),
            (400, &json!(false)),
            "{body:?}: {answer}"
        );
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(why), "{body:?}: {error}");
    }
    for unknown in [
        "no-such-branch",
        "0123456789012345678901234567890123456789",
        "--all",
        "HEAD:app.py",
    ] {
        let (status, answer) = project.deploy(unknown);
        assert_eq!(
            (status, &answer["success"]),
            (500, &json!(false)),
            "{unknown}: {answer}"
        );
        assert!(
            answer["error"].as_str().unwrap().contains(unknown),
            "{answer}"
        );
    }
    let (status, answer) = project.deploy(&commit);
    assert_eq!(
        (status, &answer["success"]),
        (500, &json!(false)),
        "{answer}"
    );
    let body = json!({ "commit": commit }).to_string();
    for (host, kind, expected) in [
        ("127.0.0.1", "text/plain", 415),
        ("127.0.0.1", "application/x-www-form-urlencoded", 415),
        ("evil.example.org", "application/json", 403),
    ] {
        for path in ["/deploy", "/rollback"] {
            let (status, answer) = post_as(api, path, host, kind, &body);
            assert_eq!(
                (status, &answer["success"]),
                (expected, &json!(false)),
                "{answer}"
            );
        }
    }
    let read = "GET /status HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n";
    for (status, (found, body)) in [
        (404, get(api, "/nope")),
        (405, get(api, "/deploy")),
        // A name of a page's own, which it has had resolve to this machine.
        (403, http(api, read).unwrap()),
    ] {
        assert_eq!(found, status);
        let said: Value = serde_json::from_str(&body).unwrap();
        assert!(said["error"].is_string());
    }
}

#[test]
fn the_api_answers_once_the_first_deployment_has_ended_well_or_badly() {
    let project = Project::new();
    let gate = project.home.path().join("gate");
    project.commit("A", &format!("waits {}", gate.display()));
    let daemon = project.spawn(&[]);
    daemon.says("ready: release");
    assert_eq!(get(project.api, "/").0, 0, "nobody answers yet");
    std::fs::write(&gate, "").unwrap();
    until("an answer of the API", || get(project.api, "/").0 == 200);
    assert_eq!(project.status()["healthy"], true);

    let project = Project::new();
    let bad = project.commit("A", "ends");
    let daemon = project.start(&[]);
    let said = daemon.says("ask this daemon");
    assert!(said.contains("HEAD was not deployed"), "{said}");
    let nothing = format!(
        "nothing is live yet, so http://127.0.0.1:{}/ answers 503; correct what is said above, commit it, then `slotctl deploy`",
        project.port
    );
    assert!(
        said.contains(&nothing) && !said.contains("is served"),
        "{said}"
    );
    let status = project.status();
    assert_eq!(
        (&status["live_commit"], &status["healthy"]),
        (&json!(""), &json!(false))
    );
    assert_ne!(project.deploy(&bad).0, 409);
}

#[test]
fn a_restart_on_the_same_data_knows_its_live_commit_as_soon_as_the_api_answers() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let mut daemon = project.start(&[]);
    let second = project.commit("B", "ok");
    project.deployed(&second);
    project.deployed(&first);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), Some(0));
    let daemon = project.start(&[]);
    let status = project.status();
    assert_eq!(
        status["live_commit"], *first,
        "HEAD is not deployed where something is live"
    );
    assert_eq!(status["previous_commit"], *second);
    assert_eq!(status["healthy"], true);
    assert_ne!(status["last_deploy_time"], "");
    assert_eq!(project.app(), "public A");
    drop(daemon);
    // Killed, it has left nothing running, and comes back the same.
    let _daemon = project.start(&[]);
    assert_eq!(project.status()["live_commit"], *first);
}

/// What slot-machine leaves: work trees of these commits, and which of them is live and which was before.
fn left_by_slot_machine(project: &Project, live: &str, prev: &str) {
    std::fs::create_dir(project.data()).unwrap();
    for (name, commit) in [("prev", prev), ("live", live)] {
        let home = project.data().join(slot(commit));
        let words = [
            "worktree",
            "add",
            "--quiet",
            "--detach",
            home.to_str().unwrap(),
            commit,
        ];
        git(&project.repo(), &words);
        std::os::unix::fs::symlink(slot(commit), project.data().join(name)).unwrap();
    }
}

#[test]
fn a_data_directory_of_slot_machine_itself_is_taken_over() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let second = project.commit("B", "ok");
    left_by_slot_machine(&project, &second, &first);
    let _daemon = project.start(&[]);
    let status = project.status();
    assert_eq!(
        (&status["live_commit"], &status["previous_commit"]),
        (&json!(second), &json!(first))
    );
    assert_eq!(project.app(), "public B");
    assert_eq!(
        post(project.api, "/rollback", &json!({})).1["commit"],
        *first
    );
    assert_eq!(project.app(), "public A");
}

#[test]
fn what_slot_machine_left_live_serves_on_whatever_head_is_and_as_it_is() {
    for words in [&[][..], &["--no-deploy"]] {
        let project = Project::new();
        let first = project.commit("A", "ok");
        let second = project.commit("B", "ok");
        project.commit("C", "ok");
        // As after a rollback.
        left_by_slot_machine(&project, &first, &second);
        let home = project.data().join(slot(&first));
        std::fs::write(home.join("untracked"), "kept").unwrap();
        let daemon = project.start(words);
        let status = project.status();
        assert_eq!(
            (&status["live_commit"], &status["previous_commit"]),
            (&json!(first), &json!(second)),
            "{words:?}"
        );
        assert_eq!(project.app(), "public A");
        assert_eq!(
            std::fs::read_to_string(home.join("untracked")).unwrap(),
            "kept"
        );
        let told = project.status().to_string();
        assert!(!told.contains("state.json"), "{told}");
        drop(daemon);
        let _daemon = project.start(words);
        assert_eq!(project.app(), "public A", "{words:?}");
        assert_eq!(
            post(project.api, "/rollback", &json!({})).1["commit"],
            *second
        );
    }
}

#[test]
fn sigterm_ends_the_daemon_and_its_app_and_a_second_signal_waits_for_nothing() {
    let project = Project::new();
    project.configure(json!({ "drain_timeout_ms": 1000 }));
    project.commit("A", "ok");
    let mut daemon = project.start(&[]);
    let pid = daemon.pid();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), Some(0));
    assert!(is_gone(pid));
    assert_eq!(get(project.port, "/").0, 0);
    assert_eq!(project.link("live"), project.link("blue"));

    project.configure(json!({ "drain_timeout_ms": 86_400_000 }));
    let mut daemon = project.start(&[]);
    let pid = daemon.pid();
    assert_eq!(post(project.internal, "/hang", &json!({})).0, 200);
    daemon.signal(Signal::SIGTERM);
    daemon.says("once more to end now");
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.ended(), Some(130));
    until("the app's end", || is_gone(pid));

    // Left alone, it does not wait for a day either.
    let mut daemon = project.start(&[]);
    let pid = daemon.pid();
    assert_eq!(post(project.internal, "/hang", &json!({})).0, 200);
    daemon.signal(Signal::SIGTERM);
    let told = Instant::now();
    assert_eq!(daemon.ended(), Some(0));
    assert!(
        told.elapsed() < Duration::from_secs(10),
        "{:?}",
        told.elapsed()
    );
    until("the app's end", || is_gone(pid));
}

#[test]
fn staging_is_a_work_tree_of_what_is_live_and_stays_while_there_is_work_in_it() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let _daemon = project.start(&[]);
    let staging = project.data().join("slot-staging");
    assert_eq!(git(&staging, &["rev-parse", "HEAD"]), first);
    assert_eq!(git(&staging, &["branch", "--show-current"]), "machine");
    assert_eq!(git(&staging, &["status", "--porcelain"]), "");
    assert_eq!(git(&project.repo(), &["branch", "--show-current"]), "main");
    let second = project.commit("B", "ok");
    project.deployed(&second);
    assert_eq!(git(&staging, &["rev-parse", "HEAD"]), second);

    std::fs::write(staging.join("idea"), "mine").unwrap();
    project.deployed(&first);
    assert_eq!(
        std::fs::read_to_string(staging.join("idea")).unwrap(),
        "mine"
    );
    let warnings = project.status()["warnings"].to_string();
    assert!(
        warnings.contains("slot-staging") && warnings.contains("idea"),
        "{warnings}"
    );

    // Committed there and deployed from there, it is what is live.
    std::fs::write(staging.join("version"), "C").unwrap();
    git(&staging, &["add", "-A"]);
    git(&staging, &["commit", "--quiet", "-m", "C"]);
    std::fs::copy(project.file(), staging.join("slot-machine.json")).unwrap();
    let output = slotctl()
        .arg("deploy")
        .current_dir(&staging)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(project.app(), "public C");
}

#[test]
fn staging_that_a_kill_interrupted_is_made_after_the_restart_and_why_it_is_kept_is_said_again() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let second = project.commit("B", "ok");
    let mut daemon = project.start(&["--no-deploy"]);
    project.deployed(&first);
    // git reads the file by a filter of the user's, which only staging has.
    let (begun, hold) = (
        project.home.path().join("begun"),
        project.home.path().join("hold"),
    );
    std::fs::write(&hold, "").unwrap();
    let filter = format!(
        "touch {}; while test -e {}; do sleep 0.01; done; cat",
        begun.display(),
        hold.display()
    );
    git(&project.repo(), &["config", "filter.hold.clean", &filter]);
    let attributes = project.repo().join(".git/info/attributes");
    std::fs::create_dir_all(attributes.parent().unwrap()).unwrap();
    std::fs::write(attributes, "version filter=hold\n").unwrap();
    let body = json!({ "commit": second }).to_string();
    let request = format!(
        "POST /deploy HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut unanswered = TcpStream::connect(("127.0.0.1", project.api)).unwrap();
    unanswered.write_all(request.as_bytes()).unwrap();
    until("the filter", || begun.exists());
    daemon.kill_with_all_it_started();
    std::fs::remove_file(&hold).unwrap();

    let mut daemon = project.start(&["--no-deploy"]);
    let staging = project.data().join("slot-staging");
    until("staging", || {
        git(&staging, &["rev-parse", "HEAD"]) == second
    });
    std::fs::write(staging.join("idea"), "mine").unwrap();
    project.deployed(&first);
    daemon.kill_with_all_it_started();
    let _daemon = project.start(&["--no-deploy"]);
    until("the warning", || {
        project.status()["warnings"].to_string().contains("idea")
    });
}

#[test]
fn a_slot_toml_is_run_by_its_own_rules_with_the_same_api_and_directories() {
    let project = Project::new();
    let text = format!(
        "name = 'web'\ncommand = 'python3 app.py'\nhealth = '/'\nsoak = '0s'\ndrain = '5s'\n[ports]\nblue = {}\ngreen = {}\n",
        free_port(),
        free_port()
    );
    std::fs::write(project.file(), text).unwrap();
    let first = project.commit("A", "ok");
    let (listen, api) = (
        format!("127.0.0.1:{}", project.port),
        project.api.to_string(),
    );
    let mut daemon = project.start(&["--listen", &listen, "--port", &api]);
    assert_eq!(project.status()["live_slot"], slot(&first));
    assert_eq!(project.app(), "public A");
    let second = project.commit("B", "ok");
    assert_eq!(project.deployed("main")["previous_commit"], *first);
    assert_eq!(project.link("live"), slot(&second));
    // Its own rule: what ends by itself is started again.
    let pid = get(project.port, "/pid").1;
    assert_eq!(post(project.port, "/crash", &json!({})).0, 200);
    until("the app's return", || {
        let (status, now) = get(project.port, "/pid");
        status == 200 && now != pid
    });
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn an_app_that_serves_no_health_on_internal_port_is_told_which_that_was_and_where_it_listens() {
    let project = Project::new();
    project.configure(json!({
        "health_timeout_ms": 3000,
        // Its one server is on PORT.
        "start_command": "echo INTERNAL_PORT is $INTERNAL_PORT. PORT is $PORT.; INTERNAL_PORT=$PORT exec python3 app.py",
    }));
    project.commit("A", "ok");
    let daemon = project.start(&[]);
    daemon.says("nothing is live yet");
    let (_, answer) = project.deploy("HEAD");
    let error = answer["error"].as_str().unwrap();
    let log = answer["log"].as_array().unwrap();
    let line = log
        .iter()
        .find_map(|line| line.as_str()?.split_once("INTERNAL_PORT is "));
    let (internal, public) = line.unwrap().1.split_once(". PORT is ").unwrap();
    for part in [
        "at /healthz passed within health_timeout_ms (3 s)".to_owned(),
        format!("health is asked at INTERNAL_PORT, which was {internal}, and has to be a 200"),
        format!(
            "the app listens on 127.0.0.1:{} (python3)",
            public.trim_end_matches('.')
        ),
        "let it serve /healthz on $INTERNAL_PORT".to_owned(),
    ] {
        assert!(error.contains(&part), "{part}: {error}");
    }
}

#[test]
fn a_project_outside_of_git_is_told_to_commit() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("slot-machine.json"), "{}").unwrap();
    for words in [
        &["deploy"][..],
        &["deploy", "--config", "slot-machine.json"],
    ] {
        let mut deploy = slotctl();
        let output = deploy.args(words).current_dir(folder.path()).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(6));
        let said = text(&output.stderr);
        assert!(
            said.contains("is in no git repository") && said.contains("`git init`"),
            "{said}"
        );
        assert!(!said.contains("binary"), "{said}");
    }
}

#[test]
fn start_takes_its_options_with_one_dash_as_slot_machine_does() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    project.configure(json!({}));
    let mut child = slotctl()
        .arg("start")
        .arg("-config")
        .arg(project.file())
        .arg(format!("-repo={}", project.repo().display()))
        .arg("-data")
        .arg(project.data())
        .args(["-port", &project.api.to_string(), "-no-proxy"])
        .current_dir(project.home.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("an answer of the API, or the end", || {
        get(project.api, "/").0 == 200 || child.try_wait().unwrap().is_some()
    });
    assert_eq!(child.try_wait().unwrap(), None, "it refused them");
    let status = project.status();
    // A test that fails leaves nobody behind.
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(status["live_commit"], *first);
    assert_eq!(project.link("live"), slot(&first));
}

fn ask(project: &Project, words: &[&str]) -> Output {
    std::fs::copy(project.file(), project.repo().join("slot-machine.json")).unwrap();
    let within = project.repo().join("deeper");
    std::fs::create_dir_all(&within).unwrap();
    slotctl().args(words).current_dir(within).output().unwrap()
}

#[test]
fn slotctl_in_a_project_of_slot_machine_asks_its_daemon() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    project.configure(json!({}));
    let output = ask(&project, &["deploy"]);
    assert_eq!(output.status.code(), Some(3));
    let said = text(&output.stderr);
    assert!(
        said.contains("cannot reach") && said.contains("slotctl start"),
        "{said}"
    );

    let _daemon = project.start(&["--no-deploy"]);
    let output = ask(&project, &["deploy"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        format!("deployed {} to {}\n", &first[..8], slot(&first))
    );
    let second = project.commit("B", "ok");
    let output = ask(&project, &["deploy", "main"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = ask(&project, &["rollback"]);
    assert_eq!(
        text(&output.stdout),
        format!("rolled back to {} ({})\n", &first[..8], slot(&first))
    );
    let shown = text(&ask(&project, &["status"]).stdout);
    for part in [&first, &second, "healthy=yes", "slot-staging"] {
        assert!(shown.contains(part), "{shown}");
    }
    let said: Value = serde_json::from_slice(&ask(&project, &["status", "--json"]).stdout).unwrap();
    assert_eq!(said["live_commit"], *first);
    let output = ask(&project, &["deploy", "nothing-of-that-name"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing-of-that-name"));
}

#[test]
fn start_says_what_is_wrong_with_its_file_or_that_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let start = |words: &[&str]| {
        let output = slotctl()
            .arg("start")
            .args(words)
            .current_dir(folder.path())
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, said) = start(&[]);
    assert_eq!(code, Some(6));
    for part in ["slot.toml", "slot-machine.json", "slotctl init"] {
        assert!(said.contains(part), "{said}");
    }
    std::fs::write(folder.path().join("any.name"), "{\"start_command\":1}").unwrap();
    let (code, said) = start(&["--config", "any.name"]);
    assert_eq!(code, Some(6));
    assert!(
        said.contains("any.name: start_command: it is a number, not a string"),
        "{said}"
    );
}

#[test]
fn a_key_that_means_nothing_is_warned_about_by_name_and_one_data_directory_has_one_daemon() {
    let project = Project::new();
    project.commit("A", "ok");
    project.configure(json!({ "agent_auth": "none", "heath_endpoint": "/x" }));
    let daemon = project.start(&[]);
    let said = daemon.says("ask this daemon");
    assert!(
        said.contains("agent_auth means nothing") && said.contains("heath_endpoint means nothing"),
        "{said}"
    );
    let mut second = project.spawn(&["--port", &free_port().to_string()]);
    assert_eq!(second.ended(), Some(1));
    second.says("another `slotctl start`");
}

#[test]
fn exactly_the_commit_is_laid_out_whatever_lies_about_in_the_work_tree() {
    let project = Project::new();
    let strange = "a name\nof two lines";
    std::fs::write(project.repo().join(strange), "kept").unwrap();
    let commit = project.commit("A", "ok");
    std::fs::write(project.repo().join("version"), "not committed").unwrap();
    std::fs::write(project.repo().join("untracked"), "").unwrap();
    let _daemon = project.start(&[]);
    let home = project.data().join(slot(&commit));
    assert_eq!(std::fs::read_to_string(home.join(strange)).unwrap(), "kept");
    assert!(!home.join("untracked").exists() && !home.join(".git").exists());
    assert_eq!(project.app(), "public A");
    let dirty = git(&project.repo(), &["status", "--porcelain"]);
    assert!(
        dirty.contains("M version") && dirty.contains("?? untracked"),
        "{dirty}"
    );
}

/// The lines of journal.ndjson.
fn journal(project: &Project) -> Vec<Value> {
    let text = std::fs::read_to_string(project.data().join("journal.ndjson")).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str);
    lines.map(Result::unwrap).collect()
}

#[test]
fn every_option_of_slotctl_counts_and_what_it_promotes_is_in_the_journal() {
    let project = Project::new();
    project.configure(json!({}));
    let first = project.commit("A", "ok");
    let _daemon = project.start(&[]);
    let second = project.commit("B", "ok");
    let output = ask(&project, &["deploy", "--version", "v2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(project.app(), "public B");
    let listed = text(&ask(&project, &["releases"]).stdout);
    assert!(
        listed.contains("v2") && listed.contains(&first[..8]),
        "{listed}"
    );
    let output = ask(&project, &["rollback", "--to", "nonsense"]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let output = ask(&project, &["deploy", "--release", &first[..8]]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(project.app(), "public A");
    let output = ask(&project, &["rollback", "--to", "v2"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(project.app(), "public B");
    until("the line of the last of them", || {
        journal(&project).len() == 4
    });
    let noted: Vec<_> = journal(&project)
        .iter()
        .map(|line| {
            (
                line["action"].clone(),
                line["commit"].clone(),
                line["prev_commit"].clone(),
            )
        })
        .collect();
    let line =
        |action: &str, commit: &str, before: &str| (json!(action), json!(commit), json!(before));
    assert_eq!(
        noted,
        [
            line("deploy", &first, ""),
            line("deploy", &second, &first),
            line("deploy", &first, &second),
            line("rollback", &second, &first),
        ]
    );
    assert_eq!(
        project.status()["last_deploy_time"],
        journal(&project)[3]["time"]
    );
    // What is live already is started anew, and that is said.
    let again = text(&ask(&project, &["deploy"]).stdout);
    assert!(again.contains("it was live before"), "{again}");
    assert_eq!(journal(&project)[4]["prev_commit"], *second);
}

#[test]
fn a_work_tree_with_changes_is_not_deployed_by_its_head_unless_that_is_meant() {
    let project = Project::new();
    project.configure(json!({}));
    project.commit("A", "ok");
    let _daemon = project.start(&[]);
    project.commit("B", "ok");
    std::fs::write(project.repo().join("version"), "C").unwrap();
    let refused = ask(&project, &["deploy"]);
    assert_eq!(refused.status.code(), Some(6));
    let said = text(&refused.stderr);
    assert!(
        said.contains("  version\n") && said.contains("--allow-dirty"),
        "{said}"
    );
    assert_eq!(project.app(), "public A");
    for words in [&["deploy", "--allow-dirty"][..], &["deploy", "main"]] {
        let output = ask(&project, words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(project.app(), "public B");
    }
}

#[test]
fn what_a_killed_daemon_was_at_is_over_and_written_down_before_the_next_one_answers() {
    let project = Project::new();
    let first = project.commit("A", "ok");
    let mut daemon = project.start(&[]);
    let gate = project.home.path().join("gate");
    let second = project.commit("B", &format!("waits {}", gate.display()));
    let api = project.api;
    std::thread::scope(|scope| {
        let request = "POST /deploy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"commit\":\"main\"}";
        let deploying = scope.spawn(move || http(api, request));
        until("the candidate", || {
            matches!(
                project.status()["state"].as_str(),
                Some("starting" | "ready")
            )
        });
        daemon.signal(Signal::SIGKILL);
        daemon.ended();
        // The connection has gone with it.
        drop(deploying.join().unwrap());
    });
    let daemon = project.spawn(&[]);
    std::fs::write(&gate, "").unwrap();
    daemon.says("is served at");
    let status = project.status();
    assert_eq!(
        (&status["live_commit"], &status["state"]),
        (&json!(second), &json!("idle"))
    );
    until("its line", || journal(&project).len() == 2);
    let line = &journal(&project)[1];
    assert_eq!(
        (&line["commit"], &line["prev_commit"]),
        (&json!(second), &json!(first))
    );
    let (status, answer) = project.deploy(&first);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn the_step_of_a_preparation_is_named_by_status_and_to_who_comes_second() {
    let project = Project::new();
    let gate = project.home.path().join("gate");
    let setup = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    project.configure(json!({ "setup_command": setup }));
    let commit = project.commit("A", "ok");
    let _daemon = project.start(&["--no-deploy"]);
    std::thread::scope(|scope| {
        let deploying = scope.spawn(|| project.deploy(&commit));
        until("the build", || project.status()["state"] == "build");
        let (status, answer) = project.deploy(&commit);
        let error = answer["error"].as_str().unwrap();
        assert!(status == 409 && error.contains("phase build"), "{answer}");
        std::fs::write(&gate, "").unwrap();
        assert_eq!(deploying.join().unwrap().1["success"], true);
    });
}

#[test]
fn a_request_that_is_too_large_is_refused_in_json_and_a_link_that_leads_out_is_the_users_own() {
    let project = Project::new();
    std::os::unix::fs::symlink("/etc/hostname", project.repo().join("out")).unwrap();
    let commit = project.commit("A", "ok");
    let _daemon = project.start(&["--no-deploy"]);
    let large = json!({ "commit": "x".repeat(5 << 20) });
    let (status, answer) = post(project.api, "/deploy", &large);
    assert_eq!(
        (status, &answer["success"]),
        (413, &json!(false)),
        "{answer}"
    );
    project.deployed(&commit);
    assert!(project.data().join(slot(&commit)).join("out").is_symlink());
}
