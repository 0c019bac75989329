//! `slotctl start` in a project of its own, whose app is that of the demo.

#![allow(dead_code)] // Each test file uses its part.
#![allow(clippy::unwrap_used)] // It is part of tests, which may stop at the first surprise.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub const SLOTCTL: &str = env!("CARGO_BIN_EXE_slotctl");

/// Long enough for the slowest machine; nothing waits for it unless something is wrong.
pub const LONG: Duration = Duration::from_secs(60);

/// slotctl with temporary directories of its own, so that what it leaves can be seen.
pub fn slotctl(temporary: &Path) -> Command {
    let mut command = Command::new(SLOTCTL);
    command
        .env("TMPDIR", temporary)
        .env("XDG_RUNTIME_DIR", temporary)
        .env_remove("SLOT_SOCKET");
    command
}

pub fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

pub fn left_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A project with releases 1, 2 and 3, of which 1 serves.
pub fn serving(lines: &str) -> (Project, Running) {
    let project = Project::with("");
    let file = project.directory.path().join("slot.toml");
    let (soak, text) = ("soak = '0s'", std::fs::read_to_string(&file).unwrap());
    let lines = if lines.contains("soak") {
        lines.to_owned()
    } else {
        format!("{soak}\n{lines}")
    };
    std::fs::write(&file, text.replace(soak, &lines)).unwrap();
    for name in ["2", "3"] {
        let path = project.directory.path().join(format!("build-{name}"));
        std::fs::create_dir_all(&path).unwrap();
        let text = format!("{{\"name\":\"{name}\",\"behaviour\":\"serves\"}}");
        std::fs::write(path.join("release.json"), text).unwrap();
    }
    let running = project.serving(&["build-1"], "release 1 ");
    (project, running)
}

/// A project whose app is the demo's.
pub struct Project {
    pub directory: tempfile::TempDir,
    /// In place of the `PATH` that is set.
    pub programs: Option<PathBuf>,
    /// Where its sockets are.
    pub temporary: PathBuf,
}

impl Project {
    /// Deploys what must succeed; what was said.
    pub fn deploy(&self, words: &[&str]) -> String {
        let (code, said) = self.ask(&[&["deploy"], words].concat());
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    /// Deploys what must be refused, or fail; what was said.
    pub fn refused(&self, words: &[&str]) -> String {
        let (code, said) = self.ask(&[&["deploy"], words].concat());
        assert_ne!(code, Some(0), "{words:?}: {said}");
        said
    }

    /// The app's directory.
    pub fn home(&self) -> PathBuf {
        self.directory.path().join(".slot/slot")
    }

    pub fn new() -> Self {
        Self::with("")
    }

    /// With more lines in its file.
    pub fn with(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = format!(
            "bind = 'unix'\nready = 'notify'\nhealth = '/healthz'\nsoak = '0s'\ncommand = ['{SLOTCTL}', 'demo-app']\n{lines}"
        );
        std::fs::write(directory.path().join("slot.toml"), file).unwrap();
        for (release, behaviour) in [("1", "serves"), ("2", "crashes-at-boot")] {
            let path = directory.path().join(format!("build-{release}"));
            std::fs::create_dir(&path).unwrap();
            let text = format!("{{\"name\":\"{release}\",\"behaviour\":\"{behaviour}\"}}");
            std::fs::write(path.join("release.json"), text).unwrap();
        }
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        Self {
            temporary: directory.path().join("tmp"),
            directory,
            programs: None,
        }
    }

    /// A release that its setup makes ready: a shell's lines.
    pub fn built(&self, name: &str, setup: &str) -> &Self {
        let path = self.directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("setup"), format!("set -e\n{setup}\n")).unwrap();
        self
    }

    /// Asks the deployer that runs here; its status and all that it said.
    pub fn ask(&self, words: &[&str]) -> (Option<i32>, String) {
        let words = [&["--socket", ".slot/slotd.sock"], words].concat();
        let output = self.slotctl(&words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// Asks for JSON: the exit status, and the last line of what was said.
    pub fn json(&self, words: &[&str]) -> (Option<i32>, Value) {
        let (code, said) = self.ask(&[&["--json"], words].concat());
        let last = said.lines().last().unwrap_or_default();
        let parsed = serde_json::from_str(last);
        (
            code,
            parsed.unwrap_or_else(|error| panic!("{error}: {said}")),
        )
    }

    /// Asks for what must succeed.
    pub fn done(&self, words: &[&str]) -> Value {
        let (code, value) = self.json(words);
        assert_eq!(code, Some(0), "{words:?}: {value}");
        value
    }

    /// Waits until the status says something.
    pub fn until(&self, wanted: &str) {
        let began = Instant::now();
        let mut said = String::new();
        while began.elapsed() < LONG {
            said = self.ask(&["--json", "status"]).1;
            if said.contains(wanted) {
                return;
            }
        }
        panic!("{wanted:?} never came, but {said}");
    }

    /// Starts a deployer and waits until what it deployed answers and the attempt is over: the first answer comes before
    /// the end, and until that the next deployment is refused.
    pub fn serving(&self, path: &[&str], wanted: &str) -> Running {
        let running = self.start(path);
        running.until(wanted);
        let began = Instant::now();
        loop {
            let (code, said) = self.ask(&["--json", "status"]);
            assert_eq!(code, Some(0), "{said}");
            if !said.contains("\"deployment\":") {
                return running;
            }
            assert!(began.elapsed() < LONG, "it never ended: {said}");
        }
    }

    /// The directories of `releases`, which must be releases.
    pub fn releases(&self) -> usize {
        let names = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let left = left_in(&self.directory.path().join(".slot/slot/releases"));
        let names: Vec<String> = left.into_iter().map(names).collect();
        let directories: Vec<&String> = names.iter().filter(|name| name.len() == 8).collect();
        for id in &directories {
            assert!(names.contains(&format!("{id}.json")), "{names:?}");
        }
        directories.len()
    }

    pub fn slotctl(&self, arguments: &[&str]) -> Command {
        let mut command = slotctl(&self.temporary);
        command
            .current_dir(self.directory.path())
            .args(arguments)
            .env("NO_COLOR", "1");
        if let Some(programs) = &self.programs {
            command.env("PATH", programs);
        }
        command
    }

    /// Starts a deployer and waits until it says where it is.
    pub fn start(&self, path: &[&str]) -> Running {
        let arguments = [&["start", "--listen", "127.0.0.1:0"], path].concat();
        let mut child = self
            .slotctl(&arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, rest)) = line.split_once("is served at http://") {
                break rest.trim_end_matches(['/', '\n']).parse().unwrap();
            }
        };
        // Nobody else reads it, and a full pipe would hold it up.
        let said = std::thread::spawn(move || {
            let mut rest = String::new();
            said.read_to_string(&mut rest).map(|_| rest)
        });
        Running {
            child,
            address,
            said: Some(said),
        }
    }
}

pub struct Running {
    pub child: Child,
    pub address: SocketAddr,
    pub said: Option<std::thread::JoinHandle<std::io::Result<String>>>,
}

impl Drop for Running {
    /// A test that fails leaves nobody behind: the first signal asks, the second does not.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            signal(&self.child, Signal::SIGTERM);
            signal(&self.child, Signal::SIGINT);
            self.child.wait().unwrap();
        }
    }
}

impl Running {
    /// The name of the release that answers: `release NAME on slot blue`.
    pub fn who(&self) -> String {
        let answer = self.get();
        answer.split(' ').nth(1).unwrap_or(&answer).to_owned()
    }

    /// One request; it is held until the app is there.
    pub fn get(&self) -> String {
        self.get_from("/")
    }

    pub fn get_from(&self, path: &str) -> String {
        let answer = self.answer("localhost", path, "");
        answer
            .split_once("\r\n\r\n")
            .map_or(answer.clone(), |(_, body)| body.to_owned())
    }

    /// One request with more fields; head and body of the answer.
    pub fn answer(&self, host: &str, path: &str, fields: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
            .write_all(
                format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{fields}\r\n")
                    .as_bytes(),
            )
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn until(&self, wanted: &str) {
        let began = Instant::now();
        let mut answer = String::new();
        while began.elapsed() < LONG {
            answer = self.get();
            if answer.contains(wanted) {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{wanted:?} never came, but {answer:?}");
    }

    pub fn end(mut self) -> (Option<i32>, String) {
        signal(&self.child, Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        (
            status.code(),
            self.said.take().unwrap().join().unwrap().unwrap(),
        )
    }
}
