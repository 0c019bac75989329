//! A slotd that says what a test has written down, since the real one needs units to start.

#![allow(dead_code)] // Each test file uses its part.
#![allow(clippy::unwrap_used)] // It is part of tests, which may stop at the first surprise.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use slot::wire::api::{Apps, Begun, Outcome, Problem, Progress, Report, SlotStatus, Status};
use slot::wire::control::InFlight;
use slot::wire::release::{Release, Releases, Repository};

/// What the fake was asked, in order: `POST /apps/web/deploy?drain=5000ms`.
pub type Asked = Arc<Mutex<Vec<String>>>;

type Keys = Arc<Mutex<Vec<Option<String>>>>;

/// A fake that runs until it is dropped.
pub struct Fake {
    pub folder: tempfile::TempDir,
    pub asked: Asked,
    pub uploaded: Arc<Mutex<Vec<u8>>>,
    /// The `Idempotency-Key` of each deployment that was asked for.
    pub keys: Keys,
    _stop: tokio::sync::oneshot::Sender<()>,
}

/// What it says.
#[derive(Clone)]
pub struct Script {
    pub status: Status,
    /// `Err` refuses the deployment.
    pub begin: Result<Begun, (StatusCode, Problem)>,
    /// Answered in turn; the last one again and again.
    pub outcome: Vec<Result<Outcome, Progress>>,
    /// Refuse without reading what is sent.
    pub rude: bool,
    /// slotd stops while this many deployments wait for their turn: every second one is told.
    pub gone: usize,
    /// Called with each deployment that is asked for, before it is answered.
    pub meanwhile: Arc<dyn Fn() + Send + Sync>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            status: status(),
            begin: Ok(Begun {
                already: None,
                generation: 7,
                release: None,
                repeated: false,
            }),
            outcome: vec![Err(progress("starting")), Ok(success())],
            rude: false,
            gone: 0,
            meanwhile: Arc::new(|| ()),
        }
    }
}

impl Fake {
    pub fn new(script: Script) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("slotd.sock");
        let (asked, uploaded, keys) = (Asked::default(), Arc::default(), Keys::default());
        let app = router(script, &asked, &uploaded, &keys);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (bound, is_bound) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(socket).unwrap();
                bound.send(()).unwrap();
                tokio::select! {
                    _ = axum::serve(listener, app).into_future() => {}
                    _ = stopped => {}
                }
            });
        });
        is_bound.recv().unwrap();
        Self {
            folder,
            asked,
            uploaded,
            keys,
            _stop: stop,
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("slotd.sock")
    }

    /// slotctl, asking this fake, in a directory of its own that has no slot.toml.
    pub fn slotctl(&self, words: &[&str]) -> Output {
        slotctl(self.folder.path(), &self.socket(), words)
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// A project with a binary: the path to deploy.
    pub fn project(&self) -> PathBuf {
        std::fs::write(
            self.folder.path().join("slot.toml"),
            "name = \"web\"\ncommand = \"./server\"\n",
        )
        .unwrap();
        program(&self.folder.path().join("build/server"))
    }
}

/// An executable file.
pub fn program(path: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "#!/bin/sh\nexec sleep 1\n").unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// Runs slotctl in a directory, without anything of this environment that it would look at.
pub fn slotctl(folder: &Path, socket: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slotctl"))
        .args(words)
        .current_dir(folder)
        .env_remove("NO_COLOR")
        .env("SLOT_SOCKET", socket)
        .output()
        .unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn router(script: Script, asked: &Asked, uploaded: &Arc<Mutex<Vec<u8>>>, keys: &Keys) -> Router {
    let (asked, uploaded, keys) = (Arc::clone(asked), Arc::clone(uploaded), Arc::clone(keys));
    let outcomes = Arc::new(Mutex::new(script.outcome.clone()));
    let outcome = move || {
        let outcomes = Arc::clone(&outcomes);
        async move {
            let mut outcomes = outcomes.lock().unwrap();
            let next = if outcomes.len() > 1 {
                outcomes.remove(0)
            } else {
                outcomes[0].clone()
            };
            match next {
                Ok(outcome) => Json(outcome).into_response(),
                Err(progress) => (StatusCode::ACCEPTED, Json(progress)).into_response(),
            }
        }
    };
    let begin = script.begin.clone();
    let answer = move || -> Response {
        match begin.clone() {
            Ok(begun) => Json(begun).into_response(),
            Err((status, problem)) => (status, Json(problem)).into_response(),
        }
    };
    let (rude, begun) = (script.rude, answer.clone());
    let meanwhile = Arc::clone(&script.meanwhile);
    let gone = Arc::new(Mutex::new(script.gone));
    let deploy = move |request: Request| {
        let (uploaded, begun) = (Arc::clone(&uploaded), begun.clone());
        let gone = Arc::clone(&gone);
        let key = request.headers().get("idempotency-key");
        let key = key.map(|key| key.to_str().unwrap().to_owned());
        keys.lock().unwrap().push(key);
        meanwhile();
        async move {
            let left = {
                let mut gone = gone.lock().unwrap();
                let left = *gone;
                *gone = left.saturating_sub(1);
                left
            };
            if left > 0 && left % 2 == 0 {
                let problem = problem("gone", "slotd stops");
                return (StatusCode::SERVICE_UNAVAILABLE, Json(problem)).into_response();
            }
            // Its task ends, and with it the connection.
            assert!(left == 0, "slotd is gone");
            if !rude {
                let bytes: Bytes = axum::body::to_bytes(request.into_body(), usize::MAX)
                    .await
                    .unwrap();
                *uploaded.lock().unwrap() = bytes.to_vec();
            }
            begun()
        }
    };
    let (status, apps) = (script.status.clone(), script.status.clone());
    let mut after_drain = script.status.clone();
    after_drain
        .slots
        .retain(|slot| slot.condition != "draining");
    let app = Router::new()
        .route("/status", get(move || async move { Json(status) }))
        .route(
            "/events",
            get(|| async { ([("content-type", "text/event-stream")], ": hello\n\n") }),
        )
        .route("/outcome", get(outcome))
        .route("/repository", get(async || Json(Repository::default())))
        .route("/releases", get(async || Json(releases())))
        .route("/deploy", post(deploy))
        .route(
            "/rollback",
            post({
                let answer = answer.clone();
                move || async move { answer() }
            }),
        )
        .route("/promote", post(move || async move { answer() }))
        .route("/drain", post(move || async move { Json(after_drain) }));
    let unknown = || async {
        let problem = problem(
            "no-such-app",
            "there is no app other; `slotctl app list` lists the apps",
        );
        (StatusCode::NOT_FOUND, Json(problem)).into_response()
    };
    Router::new()
        .nest("/apps/web", app.clone())
        .merge(app)
        .route(
            "/apps",
            get(move || async move {
                Json(Apps {
                    apps: vec![apps],
                    ..Apps::default()
                })
            }),
        )
        .fallback(unknown)
        .layer(axum::middleware::from_fn(
            move |request: Request, next: axum::middleware::Next| {
                asked
                    .lock()
                    .unwrap()
                    .push(format!("{} {}", request.method(), request.uri()));
                next.run(request)
            },
        ))
}

/// A slotd whose connections end unanswered so many times.
pub fn ending(times: usize) -> (tempfile::TempDir, std::thread::JoinHandle<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("slotd.sock")).unwrap();
    let slotd = std::thread::spawn(move || {
        let mut asked = 0;
        for client in listener.incoming() {
            let (mut client, mut head) = (client.unwrap(), Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"GET /apps HTTP/1.1\r\n"));
            asked += 1;
            if asked > times {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"apps\":[]}";
                client.write_all(answer).unwrap();
                break;
            }
            if asked == 4 {
                break;
            }
        }
        asked
    });
    (folder, slotd)
}

pub fn problem(code: &str, error: &str) -> Problem {
    Problem {
        success: false,
        code: code.to_owned(),
        error: error.to_owned(),
        ..Problem::default()
    }
}

pub fn progress(phase: &str) -> Progress {
    Progress {
        generation: 7,
        kind: "deploy".to_owned(),
        by: "root".to_owned(),
        phase: phase.to_owned(),
        ..Progress::default()
    }
}

pub fn status() -> Status {
    Status {
        app: "web".to_owned(),
        state: "idle".to_owned(),
        generation: 7,
        active: Some("blue".to_owned()),
        live: Some("99887766".to_owned()),
        prev: Some("55443322".to_owned()),
        way_back: Some("55443322".to_owned()),
        serving: true,
        addresses: vec!["http://127.0.0.1:80/".to_owned()],
        slots: vec![
            SlotStatus {
                slot: "blue".to_owned(),
                unit: "web@blue.service".to_owned(),
                condition: "active".to_owned(),
                detail: Some("up".to_owned()),
                release: Some("99887766".to_owned()),
                upstream: "127.0.0.1:20001".to_owned(),
                weight: 100,
                in_flight: Some(InFlight {
                    requests: 2,
                    ..InFlight::default()
                }),
                ..SlotStatus::default()
            },
            SlotStatus {
                slot: "green".to_owned(),
                unit: "web@green.service".to_owned(),
                condition: "idle".to_owned(),
                upstream: "127.0.0.1:20002".to_owned(),
                ..SlotStatus::default()
            },
        ],
        ..Status::default()
    }
}

pub fn releases() -> Releases {
    let release = |id: &str, label: Option<&str>, live| Release {
        id: id.to_owned(),
        label: label.map(str::to_owned),
        live,
        ..Release::default()
    };
    Releases {
        releases: vec![
            release("99887766", Some("v2"), true),
            release("55443322", None, false),
        ],
    }
}

pub fn success() -> Outcome {
    Outcome {
        success: true,
        generation: 7,
        kind: "deploy".to_owned(),
        release: Some("1a2b3c4d".to_owned()),
        slot: Some("green".to_owned()),
        previous: Some("99887766".to_owned()),
        phase: "shifting".to_owned(),
        cause: "switched".to_owned(),
        text: "release 1a2b3c4d serves".to_owned(),
        weight: None,
        phases_ms: vec![
            ("preparing".to_owned(), 12),
            ("starting".to_owned(), 1_800),
            ("ready".to_owned(), 31),
        ],
        initiated_by: "root".to_owned(),
        at_ms: 0,
        reached: None,
        report: None,
    }
}

pub fn failure() -> Outcome {
    Outcome {
        success: false,
        phase: "ready".to_owned(),
        cause: "health-timeout".to_owned(),
        text: "green was not healthy within 30s".to_owned(),
        weight: None,
        phases_ms: vec![
            ("preparing".to_owned(), 12),
            ("starting".to_owned(), 180),
            ("ready".to_owned(), 30_000),
        ],
        report: Some(Report {
            unit: "web@green.service".to_owned(),
            result: Some("success".to_owned()),
            exit: Some("still running".to_owned()),
            status_text: Some("waiting for the database".to_owned()),
            probe: Some("503 Service Unavailable: no database".to_owned()),
            log: (1..=25)
                .map(|line| format!("line {line}\x1b[31m"))
                .collect(),
            listens: vec!["127.0.0.1:3000".to_owned()],
            expected: Some("127.0.0.1:20002".to_owned()),
            journal: Some("journalctl -u web@green.service _SYSTEMD_INVOCATION_ID=0123".to_owned()),
        }),
        ..success()
    }
}
