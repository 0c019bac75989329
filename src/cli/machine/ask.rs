//! `deploy`, `rollback` and `status` where a slot-machine.json is: they ask the daemon whose API its `api_port` names.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};

use super::super::args::Deploy;
use super::super::chosen::Checkout;
use super::super::exit::Exit;
use super::super::term::{note, say, say_json};
use crate::config::slot_machine;
use crate::wire::machine::{Deployed, Status};

/// An answer that fits in memory, or something is very wrong.
const MAX_ANSWER: usize = 16 << 20;

/// Deploys a commit, or HEAD of the current directory's repository: the daemon's may be another work tree, with another HEAD.
///
/// # Errors
/// If HEAD is none, or is not what is in the work tree, or the daemon does not answer.
pub async fn deploy(file: &Path, options: &Deploy, json: bool) -> anyhow::Result<Exit> {
    let commit = match &options.what {
        Some(commit) => commit.to_string_lossy().into_owned(),
        None => Checkout::head(&super::super::project::here()?, options.allow_dirty)?
            .commit()
            .to_string(),
    };
    let body = serde_json::json!({ "commit": commit }).to_string();
    let deployed: Deployed = ask(file, Method::POST, "/deploy", body).await?;
    ended(&deployed, json, &super::told(&deployed, &commit))
}

/// Goes back to the release before.
///
/// # Errors
/// If the daemon does not answer.
pub async fn rollback(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let back: Deployed = ask(file, Method::POST, "/rollback", String::new()).await?;
    let text = if back.success {
        let commit = back.commit.get(..8).unwrap_or(&back.commit);
        format!("rolled back to {commit} ({})\n", back.slot)
    } else {
        let why = back.error.as_deref().unwrap_or("it does not say why");
        format!("not rolled back: {why}\n")
    };
    ended(&back, json, &text)
}

/// Shows where things are.
///
/// # Errors
/// If the daemon does not answer.
pub async fn status(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let status: Status = ask(file, Method::GET, "/status", String::new()).await?;
    if json {
        say_json(&status)?;
    } else {
        say(&shown(&status))?;
    }
    Ok(Exit::Ok)
}

fn shown(status: &Status) -> String {
    let healthy = if status.healthy { "yes" } else { "no" };
    let mut text = if status.live_slot.is_empty() {
        "nothing is live yet\n".to_owned()
    } else {
        format!(
            "live:        {}  {}  healthy={healthy}\n",
            status.live_slot, status.live_commit
        )
    };
    for (name, value) in [
        (
            "previous:",
            format!("{}  {}", status.previous_slot, status.previous_commit),
        ),
        ("staging:", status.staging_dir.clone()),
        ("last deploy:", status.last_deploy_time.clone()),
        ("state:", status.state.clone()),
    ] {
        if !value.trim().is_empty() {
            text += &format!("{name:<12} {value}\n");
        }
    }
    for warning in &status.warnings {
        text += &format!("! {warning}\n");
    }
    text
}

fn ended(deployed: &Deployed, json: bool, text: &str) -> anyhow::Result<Exit> {
    if json {
        say_json(deployed)?;
    } else if deployed.success {
        say(text)?;
    } else {
        note(&format!("slotctl: {text}"));
    }
    Ok(match deployed.success {
        true => Exit::Ok,
        false => Exit::Failed,
    })
}

/// Where slotd's own API of the daemon is: for what slot-machine's cannot do.
///
/// # Errors
/// If the daemon does not answer.
pub async fn socket(file: &Path) -> anyhow::Result<PathBuf> {
    // Also one that was started with another port than the file's is found by its data.
    let beside = file
        .with_file_name(super::DATA)
        .join(super::super::start::SOCKET);
    if UnixStream::connect(&beside).await.is_ok() {
        return Ok(beside);
    }
    let status: Status = ask(file, Method::GET, "/status", String::new()).await?;
    Ok(status.socket.into())
}

async fn ask<T: DeserializeOwned>(
    file: &Path,
    method: Method,
    path: &str,
    body: String,
) -> anyhow::Result<T> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Exit::Input.because(format!("cannot read {shown}: {error}")))?;
    let port = slot_machine::api_port(&text, &shown.to_string())?;
    let at = format!("127.0.0.1:{port}");
    let unreachable = |why: String| {
        Exit::Unreachable.because(format!(
            "cannot reach the daemon of {shown} at {at}: {why}; start it with `slotctl start` in {}",
            file.parent().unwrap_or(Path::new("/")).display()
        ))
    };
    let stream = TcpStream::connect(&at)
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(error.to_string()))?;
    // The connection ends with its one request, and reports its end through it.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", &at)
        .header("connection", "close")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let gone = |why: String| {
        Exit::Unreachable.because(format!(
            "the daemon of {shown} was gone before it answered ({why}), and what came of it is not known; once it runs again, `slotctl status` \
             says so"
        ))
    };
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| gone(error.to_string()))?;
    let status = answer.status();
    let whole = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
    let whole = whole.map_err(|error| gone(error.to_string()))?;
    serde_json::from_slice(&whole.to_bytes()).map_err(|error| {
        Exit::Failed.because(format!(
            "what answers {status} at {at} is not slot-machine's API ({error}); is api_port in {shown} right?"
        ))
    })
}
