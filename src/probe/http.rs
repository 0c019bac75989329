//! One health request.
//!
//! **Invariant:** each request has a connection of its own, so that no answer can come from a run that is over, and a probe never
//! holds an app's worker between requests.
//! **Invariant:** bounded in time by the caller's limit and in memory by [`BODY`], whatever the app sends.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::{Address, Internet};
use crate::wire::apps_socket;

/// How an app's log names who asks.
const AGENT: &str = concat!("slot-probe/", env!("CARGO_PKG_VERSION"));

/// How much of a body is read for its first line, in bytes.
const BODY: usize = 4096;

/// How much of a body's first line is shown, in characters.
const LINE: usize = 200;

/// What an app answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code, with the name that RFC 9110 gives it.
    pub status: StatusCode,
    /// The first line of the body: at most 200 characters, control characters replaced; empty when there is none.
    pub line: String,
    /// A router gave it in the app's place (`Proxy-Status`, RFC 9209).
    pub is_routers: bool,
    /// From the connection's beginning to the end of the head.
    pub took: Duration,
    /// Who listens, as the kernel says it of a unix socket (`SO_PEERCRED`, unix(7)): the process that called listen(2).
    pub listener: Option<i32>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody listens (RST), or a unix socket has no listener any more.
    #[error("connection refused on {0}")]
    Refused(Address),
    /// The app has not made its unix socket yet.
    #[error("there is no socket {0}")]
    NoSocket(Address),
    /// The queue of the listener is full, or its packets are dropped.
    #[error("no connection to {at} within {limit:?}")]
    ConnectTimedOut {
        /// Where.
        at: Address,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Connected, asked, and nothing came.
    #[error("no answer from {at} within {limit:?}, although it accepts connections")]
    AnswerTimedOut {
        /// Where.
        at: Address,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection was reset before the answer.
    #[error("{0} reset the connection without an answer")]
    Reset(Address),
    /// The connection ended before the answer.
    #[error("{0} closed the connection without an answer")]
    Closed(Address),
    /// What came is not HTTP/1.
    #[error("what {at} answers is not HTTP: {reason}")]
    NotHttp {
        /// Where.
        at: Address,
        /// What the parser says.
        reason: hyper::Error,
    },
    /// The path or the host of the health request cannot be asked for.
    #[error("cannot ask for path {path:?}: {reason}")]
    Request {
        /// As configured.
        path: String,
        /// What is wrong with it.
        reason: hyper::http::Error,
    },
    /// Something else on the way there.
    #[error("cannot connect to {at}: {reason}")]
    Connect {
        /// Where.
        at: Address,
        /// What the kernel says.
        reason: io::Error,
    },
}

impl Answer {
    /// Any 2xx or 3xx passes.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.status.is_success() || self.status.is_redirection()
    }
}

/// `503 Service Unavailable: "warming up"`.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_str())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " {reason}")?;
        }
        if !self.line.is_empty() {
            write!(f, ": {:?}", self.line)?;
        }
        Ok(())
    }
}

/// Asks `path` with the given `Host`, on a connection of its own; `limit` is for all of it, the first line of the body included. It begins
/// when there is a socket to ask with.
///
/// # Errors
/// [`NoAnswer`] says how far it got.
pub async fn ask(
    internet: &Internet,
    at: &Address,
    host: &str,
    path: &str,
    limit: Duration,
) -> Result<Answer, NoAnswer> {
    ask_from(internet, None, at, host, path, limit).await
}

/// The same from a certain address of this machine, where TCP is spoken.
///
/// # Errors
/// As of [`ask`].
pub async fn ask_from(
    internet: &Internet,
    from: Option<IpAddr>,
    at: &Address,
    host: &str,
    path: &str,
    limit: Duration,
) -> Result<Answer, NoAnswer> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|reason| NoAnswer::Request {
            path: path.to_owned(),
            reason,
        })?;
    let connect_timed_out = |_| NoAnswer::ConnectTimedOut {
        at: at.clone(),
        limit,
    };
    let refused = |reason| not_connected(at, reason);
    match at {
        Address::Tcp(tcp) => {
            let sockets = internet.wait().await;
            let until = Instant::now() + limit;
            let stream = timeout_at(until, sockets.connect(from, *tcp))
                .await
                .map_err(connect_timed_out)?
                .map_err(refused)?;
            exchange(stream, request, at, until, limit, None).await
        }
        Address::Unix(path) => {
            let until = Instant::now() + limit;
            let stream = timeout_at(until, apps_socket::connect(path))
                .await
                .map_err(connect_timed_out)?
                .map_err(refused)?;
            let listener = stream.peer_cred().ok().and_then(|peer| peer.pid());
            exchange(stream, request, at, until, limit, listener).await
        }
    }
}

fn not_connected(at: &Address, reason: io::Error) -> NoAnswer {
    match reason.kind() {
        io::ErrorKind::ConnectionRefused => NoAnswer::Refused(at.clone()),
        io::ErrorKind::NotFound => NoAnswer::NoSocket(at.clone()),
        io::ErrorKind::ConnectionReset => NoAnswer::Reset(at.clone()),
        _ => NoAnswer::Connect {
            at: at.clone(),
            reason,
        },
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: Request<Empty<Bytes>>,
    at: &Address,
    until: Instant,
    limit: Duration,
    listener: Option<i32>,
) -> Result<Answer, NoAnswer> {
    let failed = |error| no_answer(at, error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let mut connection = pin!(connection);
    let mut over = false;
    let began = until - limit;
    let mut exchanged = pin!(async {
        let mut response = sender.send_request(request).await.map_err(failed)?;
        let took = began.elapsed();
        let status = response.status();
        let said = response.headers().get("proxy-status");
        let is_routers = said.is_some_and(|said| said.as_bytes().starts_with(b"slot;"));
        let mut body = Vec::new();
        // The status is the answer. A body that stalls, breaks off or never ends takes nothing from it.
        let first_line = async {
            while body.len() < BODY && !body.contains(&b'\n') {
                match response.body_mut().frame().await {
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        body.extend_from_slice(&data[..data.len().min(BODY)]);
                    }
                    Some(Err(_)) | None => break,
                }
            }
        };
        let _cut_short = timeout_at(until, first_line).await;
        Ok(Answer {
            status,
            line: first_line_of(&body),
            is_routers,
            took,
            listener,
        })
    });
    // The connection has to be polled beside the exchange, and within this future, so that dropping it closes the socket.
    let both = async {
        loop {
            tokio::select! {
                answer = &mut exchanged => break answer,
                _ended = &mut connection, if !over => over = true,
            }
        }
    };
    // The inner limit of the body has to win over this one, which is for the head.
    let grace = Duration::from_millis(5);
    timeout_at(until + grace, both).await.unwrap_or_else(|_| {
        Err(NoAnswer::AnswerTimedOut {
            at: at.clone(),
            limit,
        })
    })
}

fn no_answer(at: &Address, error: hyper::Error) -> NoAnswer {
    let source =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    if source.is_some_and(|source| {
        matches!(
            source.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        )
    }) {
        NoAnswer::Reset(at.clone())
    } else if error.is_parse() {
        NoAnswer::NotHttp {
            at: at.clone(),
            reason: error,
        }
    } else {
        NoAnswer::Closed(at.clone())
    }
}

/// The first line, as text that can go to a terminal and into a log.
fn first_line_of(body: &[u8]) -> String {
    let line = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let mut shown: String = text
        .trim()
        .chars()
        .take(LINE)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.trim().chars().nth(LINE).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Answers one connection with these bytes, then holds it open for as long as the future lives.
    async fn asked(
        answer: &'static [u8],
        limit: Duration,
        close: bool,
    ) -> (Result<Answer, NoAnswer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = Address::Tcp(listener.local_addr().unwrap());
        let app = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer).await.unwrap();
            if !close {
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
            }
            String::from_utf8(head).unwrap()
        });
        let answer = ask(&Internet::Own, &at, "example.org", "/healthz?full=1", limit).await;
        (answer, app.await.unwrap())
    }

    #[tokio::test]
    async fn a_probe_says_who_it_is_and_shows_status_and_first_line() {
        let (answer, head) = asked(
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 25\r\n\r\nwarming up\x07\nsecond line...",
            LIMIT,
            true,
        )
        .await;
        let answer = answer.unwrap();
        assert!(!answer.passes());
        assert_eq!(
            answer.to_string(),
            "503 Service Unavailable: \"warming up\u{fffd}\""
        );
        assert!(
            head.starts_with("GET /healthz?full=1 HTTP/1.1\r\n"),
            "{head}"
        );
        let head = head.to_lowercase();
        assert!(head.contains("host: example.org\r\n"), "{head}");
        assert!(head.contains("connection: close\r\n"), "{head}");
        assert!(head.contains("user-agent: slot-probe/"), "{head}");
    }

    #[tokio::test]
    async fn two_and_three_hundreds_pass() {
        for (head, passes) in [
            (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], true),
            (
                b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
                true,
            ),
            (b"HTTP/1.0 200 OK\r\n\r\n", true),
            (
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                false,
            ),
        ] {
            assert_eq!(asked(head, LIMIT, true).await.0.unwrap().passes(), passes);
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_takes_nothing_from_the_status() {
        let (answer, _) = asked(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nok so f",
            Duration::from_millis(100),
            false,
        )
        .await;
        assert_eq!(answer.unwrap().to_string(), "200 OK: \"ok so f\"");
    }

    #[tokio::test]
    async fn no_answer_says_how_far_it_got() {
        let silent = asked(b"", Duration::from_millis(50), false).await.0;
        assert!(
            matches!(silent, Err(NoAnswer::AnswerTimedOut { .. })),
            "{silent:?}"
        );
        let closed = asked(b"", LIMIT, true).await.0;
        assert!(matches!(closed, Err(NoAnswer::Closed(_))), "{closed:?}");
        let other = asked(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", LIMIT, true).await.0;
        assert!(matches!(other, Err(NoAnswer::NotHttp { .. })), "{other:?}");
    }

    #[tokio::test]
    async fn a_refused_connection_and_a_missing_socket_are_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = Address::Tcp(free.local_addr().unwrap());
        drop(free);
        let refused = ask(&Internet::Own, &at, "localhost", "/", LIMIT)
            .await
            .unwrap_err();
        assert_eq!(refused.to_string(), format!("connection refused on {at}"));
        let dir = tempfile::tempdir().unwrap();
        let at = Address::Unix(dir.path().join("http.sock"));
        let missing = ask(&Internet::Own, &at, "localhost", "/", LIMIT)
            .await
            .unwrap_err();
        assert!(matches!(missing, NoAnswer::NoSocket(_)), "{missing}");
    }

    #[tokio::test]
    async fn a_unix_socket_names_the_process_that_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let app = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // It is not to answer before it is asked.
            stream.read_u8().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
        });
        let at = Address::Unix(path);
        let answer = ask(&Internet::Own, &at, "localhost", "/", LIMIT)
            .await
            .unwrap();
        app.await.unwrap();
        assert_eq!(answer.listener, i32::try_from(std::process::id()).ok());
    }

    #[tokio::test]
    async fn a_symlink_in_place_of_a_socket_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (other, path) = (dir.path().join("other.sock"), dir.path().join("http.sock"));
        let listener = tokio::net::UnixListener::bind(&other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let at = Address::Unix(path);
        let asked = ask(&Internet::Own, &at, "localhost", "/", LIMIT).await;
        assert!(
            matches!(&asked, Err(NoAnswer::Connect { reason, .. }) if reason.raw_os_error() == Some(nix::libc::ELOOP)),
            "{asked:?}"
        );
        drop(listener);
    }

    #[test]
    fn a_long_line_is_cut() {
        let line = first_line_of("é".repeat(300).as_bytes());
        assert_eq!(line.chars().count(), LINE + 1);
        assert!(line.ends_with('…'));
    }
}
