//! Asking slotd over its unix socket: HTTP/1.1 with JSON, a connection per request.
//!
//! **Invariant:** every error names the socket and what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::exit::Exit;
use super::project;
use crate::deploy::Key;
use crate::wire::api::Problem;

/// Where slotd listens unless `--socket` says otherwise.
pub const SOCKET: &str = "/run/slot/slotd.sock";

/// An answer that fits in memory, or something is very wrong.
const MAX_ANSWER: usize = 16 << 20;

/// How often a `GET` is made again.
const AGAIN: usize = 3;

/// What slotctl sends: nothing, or an archive that is made while it is sent.
pub type Body = BoxBody<Bytes, io::Error>;

/// A body of no bytes.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Why slotd's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens.
    #[error(
        "slotd is not running: {} {}; on a server start it with `systemctl enable --now slotd.socket slotd.service` (or `systemctl restart slotd.socket`, if those run), and read `journalctl -u slotd` if it does not stay up; without systemd run `slotctl start` {}",
        socket.display(),
        if *exists { "is there, but nothing answers on it" } else { "does not exist" },
        match project {
            Some(directory) => format!("in {}", directory.display()),
            None => "in the directory of a slot.toml (`slotctl init` writes one)".to_owned(),
        }
    )]
    Absent {
        /// Where.
        socket: PathBuf,
        /// Whether the path exists.
        exists: bool,
        /// Where a project is that `slotctl start` would serve.
        project: Option<PathBuf>,
    },
    /// The socket is not for this user.
    #[error(
        "you may not use {}; use sudo, or join the group: `sudo usermod -aG slot $USER`, then log in again",
        socket.display()
    )]
    Forbidden {
        /// Where.
        socket: PathBuf,
    },
    /// Any other failure to connect.
    #[error("cannot connect to slotd at {}", socket.display())]
    Connect {
        /// Where.
        socket: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The connection ended before the answer did.
    #[error("slotd at {} ended the connection during {request}; `journalctl -u slotd` says why", socket.display())]
    Broken {
        /// Where.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// hyper's word.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// slotd answered, and not as this slotctl understands it.
    #[error(
        "slotd at {} answered {status} to {request}, and not as this slotctl ({}) understands it; are both of one version?",
        socket.display(), env!("CARGO_PKG_VERSION")
    )]
    Strange {
        /// Where.
        socket: PathBuf,
        /// Method and path.
        request: String,
        /// The answer's status.
        status: StatusCode,
        /// What does not fit.
        source: serde_json::Error,
    },
    /// slotd refuses.
    #[error("{}", problem.error)]
    Problem {
        /// The answer's status.
        status: StatusCode,
        /// Its body.
        problem: Problem,
    },
}

impl ClientError {
    /// What slotctl exits with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Absent { .. } | Self::Connect { .. } | Self::Broken { .. } => Exit::Unreachable,
            Self::Forbidden { .. } => Exit::Forbidden,
            Self::Strange { .. } => Exit::Failed,
            Self::Problem { problem, .. } if problem.code == "unexpected" => Exit::Unexpected,
            Self::Problem { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Forbidden,
                StatusCode::NOT_FOUND => Exit::NotFound,
                StatusCode::CONFLICT => Exit::Busy,
                _ => Exit::Failed,
            },
        }
    }

    /// slotd runs and does not know the app.
    #[must_use]
    pub fn is_no_such_app(&self) -> bool {
        matches!(self, Self::Problem { problem, .. } if problem.code == "no-such-app")
    }

    /// The app has a file that slotd was not told of.
    #[must_use]
    pub fn is_not_taken_up(&self) -> bool {
        matches!(self, Self::Problem { problem, .. } if problem.code == "not-taken-up")
    }

    /// slotd has stopped before it came to this request; or the app was removed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Problem { problem, .. } if problem.code == "gone")
    }

    /// slotd may come back by itself: it is being restarted.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Absent { .. } | Self::Connect { .. } | Self::Broken { .. }
        )
    }
}

/// slotd, for one app or for whichever it takes when none is named.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    app: Option<String>,
}

impl Client {
    /// A client; connects only when it is asked something.
    #[must_use]
    pub fn new(socket: &Path, app: Option<&str>) -> Self {
        Self {
            socket: socket.to_owned(),
            app: app.map(str::to_owned),
        }
    }

    /// Whether it asks for one app; otherwise slotd takes its only one.
    #[must_use]
    pub fn names_an_app(&self) -> bool {
        self.app.is_some()
    }

    /// Where slotd listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET`, under the app.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, &self.under_app(path), empty()).await
    }

    /// `POST`, under the app.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Body,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, &self.under_app(path), body).await
    }

    /// The same, with a key by which slotd knows the request again (draft-ietf-httpapi-idempotency-key-header).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        key: Option<&Key>,
        body: Body,
    ) -> Result<T, ClientError> {
        let path = self.under_app(path);
        self.ask_once(Method::POST, &path, key, body).await
    }

    /// Any request, whose answer is JSON of one type. A `GET` is made again where slotd was restarted before it had answered (RFC 9110,
    /// 9.2.2).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<T, ClientError> {
        let again = if method == Method::GET { AGAIN } else { 0 };
        let mut answer = self.ask_once(method, path, None, body).await;
        for _ in 0..again {
            let Err(ClientError::Broken { .. }) = answer else {
                break;
            };
            tokio::time::sleep(RETRY).await;
            answer = self.ask_once(Method::GET, path, None, empty()).await;
        }
        answer
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        key: Option<&Key>,
        body: Body,
    ) -> Result<T, ClientError> {
        let name = format!("{method} {path}");
        let answer = self.send(method, path, key, body).await?;
        let status = answer.status();
        let bytes = self.whole(&name, answer).await?;
        if status.is_client_error() || status.is_server_error() {
            return Err(self.problem(&name, status, &bytes));
        }
        self.read(&name, status, &bytes)
    }

    /// `GET` under the app where 202 means "not yet".
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn poll<T: DeserializeOwned, P: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Result<T, P>, ClientError> {
        let path = self.under_app(path);
        let name = format!("GET {path}");
        let answer = self.send(Method::GET, &path, None, empty()).await?;
        let status = answer.status();
        let bytes = self.whole(&name, answer).await?;
        if status.is_client_error() || status.is_server_error() {
            Err(self.problem(&name, status, &bytes))
        } else if status == StatusCode::ACCEPTED {
            Ok(Err(self.read(&name, status, &bytes)?))
        } else {
            Ok(Ok(self.read(&name, status, &bytes)?))
        }
    }

    /// `GET` under the app whose answer goes on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open(&self, path: &str) -> Result<Incoming, ClientError> {
        let path = self.under_app(path);
        let answer = self.send(Method::GET, &path, None, empty()).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let name = format!("GET {path}");
        let bytes = self.whole(&name, answer).await?;
        Err(self.problem(&name, status, &bytes))
    }

    fn under_app(&self, path: &str) -> String {
        match &self.app {
            Some(app) => format!("/apps/{app}{path}"),
            None => path.to_owned(),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<&Key>,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| self.unconnected(source))?;
        let name = format!("{method} {path}");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(&name, source))?;
        // The connection ends with its one request, and reports its end through it.
        tokio::spawn(connection);
        let mut request = Request::builder();
        if let Some(key) = key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        let request = request
            .method(method)
            .uri(path)
            .header("host", "slotd")
            .header("connection", "close")
            .header("content-type", "application/octet-stream")
            .body(body)
            .map_err(|source| self.broken(&name, source))?;
        sender
            .send_request(request)
            .await
            .map_err(|source| self.broken(&name, source))
    }

    async fn whole(&self, name: &str, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = http_body_util::Limited::new(answer.into_body(), MAX_ANSWER);
        let whole = body
            .collect()
            .await
            .map_err(|source| self.broken(name, source))?;
        Ok(whole.to_bytes())
    }

    fn read<T: DeserializeOwned>(
        &self,
        name: &str,
        status: StatusCode,
        bytes: &[u8],
    ) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|source| ClientError::Strange {
            socket: self.socket.clone(),
            request: name.to_owned(),
            status,
            source,
        })
    }

    fn problem(&self, name: &str, status: StatusCode, bytes: &[u8]) -> ClientError {
        match self.read(name, status, bytes) {
            Ok(problem) => ClientError::Problem { status, problem },
            Err(strange) => strange,
        }
    }

    fn unconnected(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound => ClientError::Absent {
                socket,
                exists: false,
                project: project::around(),
            },
            io::ErrorKind::ConnectionRefused => ClientError::Absent {
                socket,
                exists: true,
                project: project::around(),
            },
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket },
            _ => ClientError::Connect { socket, source },
        }
    }

    fn broken(
        &self,
        request: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            request: request.to_owned(),
            source: source.into(),
        }
    }
}

/// What slotctl waits between two tries to reach a slotd that is being restarted.
pub const RETRY: Duration = Duration::from_millis(200);
