//! slot-machine's API for an app that is deployed by its commits; the shapes are [`wire::machine`](crate::wire::machine)'s.
//!
//! **Invariant:** every answer is JSON, refusals too.
//! **Invariant:** nothing is changed for who could be a page in a browser: that can send no JSON unasked, and names the host that it is of.

mod attempt;
mod journal;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use serde::Deserialize;

pub use attempt::{Commits, Machine, STAGING};
pub use journal::Journal;

use super::deploy::flowing;
use crate::daemon::units::Units;
use crate::wire::machine::{Deployed, Status};

/// What a request may be, in bytes: a name, and something around it.
const LARGEST: usize = 64 << 10;

/// Answers requests on a listener until `ended`, then lets those under way end.
///
/// # Errors
/// The listener failed.
pub async fn serve<U: Units, C: Commits>(
    listener: tokio::net::TcpListener,
    machine: Arc<Machine<U, C>>,
    ended: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(machine))
        .with_graceful_shutdown(ended)
        .await
}

fn router<U: Units, C: Commits>(machine: Arc<Machine<U, C>>) -> Router {
    Router::new()
        .route(
            "/",
            get(async || Json(serde_json::json!({ "status": "ok" }))),
        )
        .route("/deploy", post(deploy))
        .route("/rollback", post(rollback))
        .route("/status", get(status))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(admit))
        .with_state(machine)
}

fn refused(status: StatusCode, error: impl Into<String>) -> Response {
    let refusal = Deployed {
        error: Some(error.into()),
        ..Deployed::default()
    };
    (status, Json(refusal)).into_response()
}

/// Lets through what no page in a browser could have sent: none of another host's that has this machine's address, and to change something
/// none at all.
async fn admit(request: Request, next: Next) -> Response {
    if !is_own_host(request.headers()) {
        return refused(
            StatusCode::FORBIDDEN,
            "the request's Host is not this machine itself; ask 127.0.0.1, [::1] or localhost",
        );
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    if !is_json(request.headers()) {
        return refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the request is not said to be JSON; send `Content-Type: application/json`",
        );
    }
    next.run(request).await
}

fn is_json(headers: &HeaderMap) -> bool {
    let said = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = said.and_then(|said| said.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// `localhost`, an address of 127.0.0.0/8 or `[::1]`, with or without a port (RFC 9110, section 7.2).
fn is_own_host(headers: &HeaderMap) -> bool {
    let Some(said) = headers.get(HOST).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let host = match said.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => said,
    };
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    refused(
        StatusCode::NOT_FOUND,
        format!("there is no {path}; there are /, /deploy, /rollback and /status"),
    )
}

async fn wrong_method(request: Request) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    refused(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} cannot be done to {path}"),
    )
}

/// Unknown keys are passed over, as slot-machine does.
#[derive(Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    commit: String,
}

async fn deploy<U: Units, C: Commits>(
    State(machine): State<Arc<Machine<U, C>>>,
    body: Body,
) -> Response {
    let mut given = Vec::new();
    let mut pieces = Box::pin(flowing(body));
    while let Some(piece) = pieces.next().await {
        let Ok(piece) = piece else { break };
        // What is too much is taken all the same: whoever sends it reads no answer before.
        if given.len() <= LARGEST {
            given.extend_from_slice(&piece);
        }
    }
    if given.len() > LARGEST {
        return refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request is longer than {LARGEST} bytes; send {{\"commit\":\"main\"}}"),
        );
    }
    // One without a body gives no commit, as one whose body has none.
    let wanted = match given.is_empty() {
        true => Ok(Wanted::default()),
        false => serde_json::from_slice(&given),
    };
    let commit = match wanted {
        Ok(Wanted { commit }) => commit,
        Err(error) => {
            return refused(
                StatusCode::BAD_REQUEST,
                format!(
                    "the request cannot be read as JSON ({error}); send {{\"commit\":\"main\"}}"
                ),
            );
        }
    };
    if commit.is_empty() {
        return refused(
            StatusCode::BAD_REQUEST,
            "no commit is given; send {\"commit\":\"main\"}",
        );
    }
    // It goes on when its client does not.
    answer(tokio::spawn(async move { machine.deploy(&commit).await })).await
}

async fn rollback<U: Units, C: Commits>(State(machine): State<Arc<Machine<U, C>>>) -> Response {
    answer(tokio::spawn(async move { machine.rollback().await })).await
}

async fn answer(attempt: tokio::task::JoinHandle<(StatusCode, Deployed)>) -> Response {
    match attempt.await {
        Ok((status, deployed)) => (status, Json(deployed)).into_response(),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn status<U: Units, C: Commits>(State(machine): State<Arc<Machine<U, C>>>) -> Json<Status> {
    Json(machine.status().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn only_this_machines_own_names_are_hosts() {
        for host in [
            "127.0.0.1:9100",
            "127.0.0.1",
            "127.9.9.9:1",
            "localhost:9100",
            "LOCALHOST",
            "[::1]:9100",
            "[::1]",
        ] {
            assert!(is_own_host(&with(HOST, host)), "{host}");
        }
        for host in [
            "example.org",
            "127.0.0.1.example.org",
            "localhost.example.org:9100",
            "10.0.0.1:9100",
            "0.0.0.0:9100",
            "",
        ] {
            assert!(!is_own_host(&with(HOST, host)), "{host}");
        }
        assert!(!is_own_host(&HeaderMap::new()));
    }

    #[test]
    fn json_is_said_by_its_type_alone() {
        for said in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON",
        ] {
            assert!(is_json(&with(CONTENT_TYPE, said)), "{said}");
        }
        for said in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "text/plain;application/json",
        ] {
            assert!(!is_json(&with(CONTENT_TYPE, said)), "{said}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
