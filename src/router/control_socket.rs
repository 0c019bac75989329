//! HTTP and JSON for [`Control`], on a unix socket: the words are in [`crate::wire::control`].

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State, rejection::JsonRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::UnixListener;

use super::control::{Control, PutError};
use super::counts::Class;
use super::keep;
use super::roll::{Cut, Whose};
use crate::wire::control::{Applied, Problem};
use crate::wire::table::Table;

/// A table is a few hundred bytes per app.
const LARGEST_TABLE: usize = 64 * 1024 * 1024;

/// The socket file, removed when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What is left is replaced by the next router that is told the same path.
        _ = std::fs::remove_file(&self.0);
    }
}

/// Binds the socket, for its owner and group, in place of one that was left behind.
///
/// # Errors
/// The path is no place for a socket.
pub fn bind(path: &Path) -> std::io::Result<(UnixListener, SocketFile)> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok((listener, SocketFile(path.to_owned())))
}

/// Answers on `listener` for ever.
///
/// # Errors
/// Those of accept(2) that last.
pub async fn serve(listener: UnixListener, control: Control) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/table", get(table).put(put))
        .route("/stats", get(stats))
        .route("/drained", get(drained))
        .route("/connections", get(connections))
        .route("/cut", post(cut))
        .route("/stop-accepting", post(stop))
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST_TABLE))
        .with_state(control);
    axum::serve(listener, routes).await
}

fn problem(status: StatusCode, error: impl ToString) -> Response {
    (
        status,
        Json(Problem {
            error: error.to_string(),
        }),
    )
        .into_response()
}

async fn put(
    State(control): State<Control>,
    table: Result<Json<Table>, JsonRejection>,
) -> Response {
    let table = match table {
        Ok(Json(table)) => table,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    // In a task of its own: whoever asked may go away, but a swap is never left half done.
    let put = tokio::spawn(async move { control.put(table).await });
    match put.await {
        Ok(Ok(revision)) => Json(Applied { revision }).into_response(),
        Ok(Err(PutError::Older(revision))) => {
            (StatusCode::CONFLICT, Json(Applied { revision })).into_response()
        }
        Ok(Err(invalid @ PutError::Invalid(_))) => problem(StatusCode::BAD_REQUEST, invalid),
        Ok(Err(ending @ PutError::Ending)) => problem(StatusCode::SERVICE_UNAVAILABLE, ending),
        Err(failed) => problem(StatusCode::INTERNAL_SERVER_ERROR, failed),
    }
}

async fn table(State(control): State<Control>) -> Response {
    match control.table().await {
        Some(table) => Json(table).into_response(),
        None => problem(StatusCode::NOT_FOUND, "the router has no table yet"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfApp {
    app: Option<String>,
}

async fn stats(State(control): State<Control>, Query(OfApp { app }): Query<OfApp>) -> Response {
    Json(control.stats_of(app.as_deref()).await).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drained {
    app: String,
    slot: String,
    boot_id: Option<String>,
    #[serde(default)]
    wait_ms: u64,
}

async fn drained(State(control): State<Control>, Query(of): Query<Drained>) -> Response {
    let wait = Duration::from_millis(of.wait_ms);
    Json(
        control
            .drained(&of.app, &of.slot, of.boot_id.as_deref(), wait)
            .await,
    )
    .into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    app: String,
    slot: String,
}

async fn connections(
    State(control): State<Control>,
    Query(Of { app, slot }): Query<Of>,
) -> Response {
    Json(control.connections(&Whose { app, slot }).await).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cutting {
    app: String,
    slot: String,
    boot_id: Option<String>,
    class: Option<Classes>,
    #[serde(default)]
    after_ms: u64,
    #[serde(default)]
    spread_ms: u64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Classes {
    Requests,
    Streams,
    Tunnels,
}

async fn cut(State(control): State<Control>, Query(of): Query<Cutting>) -> Response {
    control.cut(&Cut {
        app: of.app,
        slot: of.slot,
        boot_id: of.boot_id,
        class: of.class.map(|class| match class {
            Classes::Requests => Class::Request,
            Classes::Streams => Class::Stream,
            Classes::Tunnels => Class::Tunnel,
        }),
        after: of.after_ms,
        spread: of.spread_ms,
    });
    Json(control.stats().await).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    limit_ms: Option<u64>,
}

async fn stop(State(control): State<Control>, Query(Limit { limit_ms }): Query<Limit>) -> Response {
    let until = limit_ms.map(|limit| {
        let end = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        (end + Duration::from_millis(limit)).as_millis() as u64
    });
    // Before anybody is told: once it is told, it stays so.
    if let Err(error) = keep::draining(until, control.draining()) {
        tracing::warn!(
            "cannot note the drain: if this process is killed, the next one accepts: {error}"
        );
    }
    control.drain_until(until);
    Json(control.stats().await).into_response()
}
