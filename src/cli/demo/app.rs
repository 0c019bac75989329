//! The sample app: what `slotctl demo` deploys, by executing itself again.
//!
//! It is an ordinary app: it listens on `SOCKET`, says READY=1, answers `/healthz`, and ends when it gets SIGTERM. What it does beside that
//! is told by `release.json` in its release, so that releases differ in their bits, as they do in life.
//!
//! | path | answer |
//! |---|---|
//! | `/` | `release 2 on slot green` |
//! | `/healthz` | 200, or 503 forever |
//! | `/sse` | numbered events until the client goes; `?events=40` ends by itself with their digest |
//! | `/ws` | a numbered tick every 50 ms, and what was sent comes back |

use std::convert::Infallible;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::load::{Line, TICK};

/// The file in a release that says what it does.
pub const FILE: &str = "release.json";

/// How long answers may take after SIGTERM; streams that are still open are cut then, and the demo counts it.
const END: Duration = Duration::from_secs(2);

/// What a release does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// `1`, `2`, …
    pub name: String,
    /// How it behaves.
    pub behaviour: Behaviour,
}

/// What may become of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// It serves.
    Serves,
    /// It comes up and says that it is not healthy, forever.
    NeverHealthy,
    /// It ends with status 1 before it listens.
    CrashesAtBoot,
}

/// Runs the sample app until it gets SIGTERM.
///
/// # Errors
/// If it was not started by the demo.
pub fn run() -> anyhow::Result<ExitCode> {
    let text = std::fs::read_to_string(FILE).with_context(|| {
        format!("the sample app is for `slotctl demo` alone: cannot read {FILE}")
    })?;
    let release: Release =
        serde_json::from_str(&text).with_context(|| format!("{FILE} makes no sense"))?;
    println!("release {} boots", release.name);
    if release.behaviour == Behaviour::CrashesAtBoot {
        eprintln!("fatal: migration 7 is missing: no column \"users.email\"");
        return Ok(ExitCode::FAILURE);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(release))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(release: Release) -> anyhow::Result<()> {
    let socket = std::env::var_os("SOCKET").context("there is no SOCKET to listen on")?;
    let slot = std::env::var("SLOT_NAME").unwrap_or_default();
    let mut terminated = signal(SignalKind::terminate())?;
    let listener = UnixListener::bind(Path::new(&socket))
        .with_context(|| format!("cannot listen on {}", Path::new(&socket).display()))?;
    let (end, ended) = tokio::sync::watch::channel(false);
    let mut stopped = ended.clone();
    let app = Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .route("/sse", get(events))
        .route("/ws", get(websocket))
        .with_state(Arc::new((release, slot)));
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        // The sender lives as long as this function.
        let _ = stopped.wait_for(|ended| *ended).await;
    });
    sd_notify::notify(&[
        sd_notify::NotifyState::Status("serving"),
        sd_notify::NotifyState::Ready,
    ])?;
    let terminate = async {
        terminated.recv().await;
        end.send_replace(true);
        tokio::time::sleep(END).await;
    };
    tokio::select! {
        served = serving.into_future() => served?,
        () = terminate => {}
    }
    Ok(())
}

type App = State<Arc<(Release, String)>>;

async fn index(State(app): App) -> String {
    let (release, slot) = &*app;
    format!("release {} on slot {slot}\n", release.name)
}

async fn health(State(app): App) -> (StatusCode, &'static str) {
    match app.0.behaviour {
        Behaviour::NeverHealthy => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the cache is cold: 0 of 512 keys loaded\n",
        ),
        Behaviour::Serves | Behaviour::CrashesAtBoot => (StatusCode::OK, "ok\n"),
    }
}

#[derive(Deserialize)]
struct Wanted {
    events: Option<u64>,
}

async fn events(
    Query(wanted): Query<Wanted>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let last = wanted.events.unwrap_or(u64::MAX);
    let state = (ticks, Line::default());
    Sse::new(stream::unfold(
        state,
        move |(mut ticks, mut line)| async move {
            if line.number() > last {
                return None;
            }
            if line.number() == last {
                let event = Event::default().event("end").data(line.digest());
                line.next();
                return Some((Ok(event), (ticks, line)));
            }
            ticks.tick().await;
            let event = Event::default().data(line.next());
            Some((Ok(event), (ticks, line)))
        },
    ))
}

async fn websocket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(converse).into_response()
}

/// Ticks, and sends back what comes, until the client closes. The library answers the close frame (RFC 6455, section 5.5.1) when it is
/// next read from; a tick in between would fail, and the connection end without that answer.
async fn converse(mut socket: WebSocket) {
    let mut ticks = tokio::time::interval_at(Instant::now(), TICK);
    let mut line = Line::default();
    loop {
        let answer = tokio::select! {
            _ = ticks.tick() => Message::text(line.next()),
            received = socket.recv() => match received {
                Some(Ok(Message::Text(text))) => Message::Text(format!("echo {text}").into()),
                Some(Ok(Message::Close(_))) => {
                    while let Some(Ok(_)) = socket.recv().await {}
                    return;
                }
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        };
        if socket.send(answer).await.is_err() {
            return;
        }
    }
}
