//! Notices as a user has them: `[[notices]]` of slot.toml where `slotctl start` runs the app, and a receiver of HTTP.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod started;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use sha2::{Digest, Sha256};
use started::{LONG, Project, Running, signal};

const SECRET: &str = "c0rrect-horse";

/// What came: its path, its headers by their names in lower case, and its body.
#[derive(Debug)]
struct Came {
    path: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Came {
    fn header(&self, name: &str) -> Option<&str> {
        let mut own = self.headers.iter().filter(|(key, _)| key == name);
        own.next().map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Its event, with the generation.
    fn event(&self) -> (String, u64) {
        let body = self.json();
        let event = body["event"].as_str().unwrap().to_owned();
        assert_eq!(self.header("slot-event"), Some(event.as_str()));
        assert_eq!(self.header("slot-event-id"), body["id"].as_str());
        (event, body["generation"].as_u64().unwrap())
    }

    fn id(&self) -> String {
        self.event();
        self.header("slot-event-id").unwrap().to_owned()
    }
}

/// RFC 2104, by hand.
fn hmac(secret: &[u8], body: &[u8]) -> String {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        secret
            .iter()
            .zip(&mut block)
            .for_each(|(key, at)| *at ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(body);
    let outer = Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner.finalize());
    outer
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whoever is told. He answers what `answers` says to each in turn, then 204.
struct Told {
    at: SocketAddr,
    came: Receiver<Came>,
}

impl Told {
    fn at(listener: TcpListener, answers: &[u16]) -> Self {
        let at = listener.local_addr().unwrap();
        let (to, came) = channel();
        let answers = answers.to_vec();
        let answers = Arc::new(Mutex::new(answers.into_iter()));
        // They end with the test's process. One that was killed may leave a connection that nobody closes for a while.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, answers, to) = (stream.unwrap(), Arc::clone(&answers), to.clone());
                std::thread::spawn(move || serve(stream, &answers, &to));
            }
        });
        Self { at, came }
    }

    fn new(answers: &[u16]) -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap(), answers)
    }

    fn next(&self) -> Came {
        self.came.recv_timeout(LONG).unwrap()
    }

    /// Of what comes at least once, each the first time, until there is one that is wanted.
    fn until(&self, wanted: (&str, u64), seen: &mut Vec<Came>) {
        let mut ids: BTreeSet<String> = seen.iter().map(Came::id).collect();
        while !seen
            .iter()
            .any(|it| it.event() == (wanted.0.to_owned(), wanted.1))
        {
            let came = self.next();
            if ids.insert(came.id()) {
                seen.push(came);
            }
        }
    }
}

fn serve(stream: TcpStream, answers: &Mutex<std::vec::IntoIter<u16>>, to: &Sender<Came>) {
    let mut from = BufReader::new(&stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            // Whoever sends may be killed at any time.
            if from.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let header = |line: &String| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        };
        let mut came = Came {
            path: lines[0].split(' ').nth(1).unwrap().to_owned(),
            headers: lines[1..].iter().map(header).collect(),
            body: String::new(),
        };
        let length: u64 = came.header("content-length").unwrap().parse().unwrap();
        if from
            .by_ref()
            .take(length)
            .read_to_string(&mut came.body)
            .is_err()
            || came.body.len() as u64 != length
        {
            return;
        }
        let answer = answers.lock().unwrap().next().unwrap_or(204);
        // The test may be over.
        let _ = to.send(came);
        if write!(&stream, "HTTP/1.1 {answer} X\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn project(receivers: &str) -> Project {
    let project = Project::with(receivers);
    for name in ["one", "two", "three"] {
        let path = project.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        let text = format!("{{\"name\":\"{name}\",\"behaviour\":\"serves\"}}");
        fs::write(path.join("release.json"), text).unwrap();
    }
    project
}

/// A file with the secret, for its owner alone.
fn secret() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    (directory, path)
}

fn status(project: &Project) -> Value {
    let (code, said) = project.ask(&["--json", "status"]);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

/// Waits until nothing is left to be sent, and nobody is warned of it.
fn until_sent(project: &Project) {
    let left = |directory: &Path| -> usize {
        let boxes = fs::read_dir(directory).into_iter().flatten().flatten();
        boxes
            .map(|it| fs::read_dir(it.path()).unwrap().count())
            .sum()
    };
    let began = Instant::now();
    loop {
        let state = fs::read_to_string(project.home().join("state.json")).unwrap_or_default();
        let left = left(&project.home().join("notices"));
        let warnings = status(project)["warnings"].clone();
        if left == 0 && !state.contains("\"untold\"") && warnings == Value::Array(Vec::new()) {
            return;
        }
        assert!(began.elapsed() < LONG, "{left} are left; {warnings}");
        std::thread::yield_now();
    }
}

fn kill(mut running: Running) {
    signal(&running.child, Signal::SIGKILL);
    running.child.wait().unwrap();
}

#[test]
fn each_event_comes_signed_in_order_to_those_who_want_it() {
    let told = Told::new(&[]);
    let (_secrets, secret) = secret();
    let project = project(&format!(
        "[[notices]]\nurl = 'http://{at}/usual?token=t0ken'\nsecret_file = '{secret}'\n\
         [[notices]]\nurl = 'http://{at}/began'\nevents = ['began']\n",
        at = told.at,
        secret = secret.display(),
    ));
    let _running = project.start(&[]);
    project.deploy(&["one"]);
    project.deploy(&["two", "--wait", "stopped"]);
    let failed = project.refused(&["build-2"]);
    until_sent(&project);
    let came: Vec<Came> = told.came.try_iter().collect();
    let of = |path: &'static str| came.iter().filter(move |it| it.path == path);
    let events = |path: &'static str| of(path).map(Came::event).collect::<Vec<_>>();
    let ended = |generation: u64| ("ended".to_owned(), generation);
    assert_eq!(events("/usual?token=t0ken"), [1, 2, 3].map(ended));
    let began = |generation: u64| ("began".to_owned(), generation);
    assert_eq!(events("/began"), [1, 2, 3].map(began));
    for came in of("/usual?token=t0ken") {
        let signature = format!("sha256={}", hmac(SECRET.as_bytes(), came.body.as_bytes()));
        assert_eq!(came.header("slot-signature"), Some(signature.as_str()));
        assert_eq!(came.header("content-type"), Some("application/json"));
        let body = came.json();
        assert!(
            body["at_ms"].as_u64().unwrap() > 1_700_000_000_000,
            "{body}"
        );
        assert_eq!(body["app"], "slot");
    }
    for came in of("/began") {
        assert_eq!(came.header("slot-signature"), None);
    }
    let last = of("/usual?token=t0ken").next_back().unwrap().json();
    assert_eq!(last["cause"], "start-failed", "{last}");
    assert!(failed.contains("start-failed"), "{failed}");
    let ids: BTreeSet<String> = came.iter().map(Came::id).collect();
    assert_eq!(ids.len(), came.len());
}

#[test]
fn what_is_not_taken_comes_again_what_is_refused_does_not_and_status_tells() {
    let told = Told::new(&[500, 503, 204, 410, 302]);
    let project = project(&format!("[[notices]]\nurl = 'http://{}/'\n", told.at));
    let running = project.start(&[]);
    project.deploy(&["one"]);
    let first = told.next();
    project.until("1 notices wait for http://");
    project.until("answered 50");
    assert_eq!(told.next().body, first.body);
    assert_eq!(told.next().body, first.body);
    until_sent(&project);
    project.deploy(&["two"]);
    project.deploy(&["three"]);
    project.deploy(&["one"]);
    for generation in [2, 3, 4] {
        assert_eq!(told.next().event(), ("ended".to_owned(), generation));
    }
    until_sent(&project);
    let (_, said) = running.end();
    for words in [
        "is given up: answered 410",
        "is given up: answered 302, a redirect",
        "gets its notices again",
    ] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    assert_eq!(told.came.try_iter().count(), 0);
}

#[test]
fn nobody_waits_for_a_receiver_that_hangs_or_is_not_there_and_a_kill_loses_nothing() {
    let (_secrets, secret) = secret();
    // Connections are made, and nobody takes them.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    // Not the address that other listeners get by chance.
    let gone = TcpListener::bind("127.71.19.3:0").unwrap();
    let at = gone.local_addr().unwrap();
    drop(gone);
    let project = project(&format!(
        "[[notices]]\nurl = 'http://{}/'\nsecret_file = '{}'\n[[notices]]\nurl = 'http://{at}/'\nevents = ['began', 'ended']\n",
        hangs.local_addr().unwrap(),
        secret.display(),
    ));
    let running = project.start(&[]);
    project.deploy(&["one"]);
    // While it hangs, what sends is seen from outside.
    let sender = sender(running.child.id());
    project.deploy(&["two"]);
    let words =
        String::from_utf8_lossy(&fs::read(format!("/proc/{sender}/cmdline")).unwrap_or_default())
            .into_owned();
    let variables =
        String::from_utf8_lossy(&fs::read(format!("/proc/{sender}/environ")).unwrap_or_default())
            .into_owned();
    assert!(
        !words.contains(SECRET) && !variables.contains(SECRET),
        "{words} {variables}"
    );
    assert_eq!(running.who(), "two");
    kill(running);
    let running = project.start(&[]);
    project.deploy(&["three"]);
    let told = Told::at(TcpListener::bind(at).unwrap(), &[]);
    let mut seen = Vec::new();
    told.until(("ended", 3), &mut seen);
    let expected = [1, 2, 3].map(|it| [("began".to_owned(), it), ("ended".to_owned(), it)]);
    let events: Vec<_> = seen.iter().map(Came::event).collect();
    assert_eq!(events, expected.concat());
    let hanging = Told::at(hangs, &[]);
    let mut seen = Vec::new();
    hanging.until(("ended", 3), &mut seen);
    for came in &seen {
        let signature = format!("sha256={}", hmac(SECRET.as_bytes(), came.body.as_bytes()));
        assert_eq!(came.header("slot-signature"), Some(signature.as_str()));
    }
    until_sent(&project);
    let (_, said) = running.end();
    assert!(!said.contains(SECRET), "{said}");
    assert_eq!(
        holding(&project.directory.path().join(".slot"), SECRET),
        Vec::<String>::new()
    );
}

#[test]
fn a_kill_at_any_moment_of_a_deployment_loses_no_event() {
    let told = Told::new(&[]);
    let project = project(&format!(
        "[[notices]]\nurl = 'http://{}/'\nevents = ['began', 'ended']\n",
        told.at
    ));
    let state = project.home().join("state.json");
    let mut seen = Vec::new();
    for (round, marker) in [
        "\"untold\"",
        "\"phase\": \"switched\"",
        "\"starting\"",
        "\"topic\": \"ended\"",
    ]
    .iter()
    .enumerate()
    {
        let running = project.start(&[]);
        let words = ["--socket", ".slot/slotd.sock", "deploy", "one"];
        let mut deploy = project.slotctl(&words).spawn().unwrap();
        let began = Instant::now();
        // A state may come and go between two looks; then it is killed when the attempt is over.
        while deploy.try_wait().unwrap().is_none() && began.elapsed() < LONG {
            let text = fs::read_to_string(&state).unwrap_or_default();
            let generation = format!("\"generation\": {}", round + 1);
            if text.contains(&generation) && text.contains(marker) {
                break;
            }
        }
        kill(running);
        // It would look for slotd for a while.
        deploy.kill().unwrap();
        deploy.wait().unwrap();
    }
    let running = project.start(&[]);
    project.deploy(&["two"]);
    told.until(("ended", 5), &mut seen);
    let events: Vec<_> = seen.iter().map(Came::event).collect();
    let expected: Vec<_> = (1..=5)
        .flat_map(|it| [("began".to_owned(), it), ("ended".to_owned(), it)])
        .collect();
    assert_eq!(events, expected);
    until_sent(&project);
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn where_nothing_can_be_written_down_deployments_go_on_and_it_is_sent_later() {
    let told = Told::new(&[]);
    let project = project(&format!("[[notices]]\nurl = 'http://{}/'\n", told.at));
    let running = project.start(&[]);
    // As good as a full disk: no directory can be made there.
    let in_the_way = project.home().join("notices");
    fs::write(&in_the_way, "").unwrap();
    project.deploy(&["one"]);
    project.until("notices are not sent: cannot make");
    project.deploy(&["two"]);
    assert_eq!(running.who(), "two");
    fs::remove_file(&in_the_way).unwrap();
    let mut seen = Vec::new();
    told.until(("ended", 2), &mut seen);
    let events: Vec<_> = seen.iter().map(Came::event).collect();
    assert_eq!(events, [1, 2].map(|it| ("ended".to_owned(), it)));
    until_sent(&project);
}

/// The process that sends.
fn sender(parent: u32) -> u32 {
    let began = Instant::now();
    while began.elapsed() < LONG {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|it| it.parse().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let sends = line.split(|byte| *byte == 0).nth(1) == Some(b"notify");
            if sends && status.contains(&format!("PPid:\t{parent}\n")) {
                return pid;
            }
        }
    }
    panic!("nothing sends");
}

/// The files that have a word in them.
fn holding(directory: &Path, word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(holding(&path, word)),
            kind if kind.is_file() => {
                let bytes = fs::read(&path).unwrap();
                if bytes.windows(word.len()).any(|at| at == word.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
    found
}
