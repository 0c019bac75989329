//! Requests over many keep-alive connections, one after the other on each.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PATIENCE;
use super::tally::{Failure, Tally};

/// How much of a body is read; the app's is shorter.
const BODY: usize = 4096;

/// How long a connection that failed waits before the next, so that an outage is counted in requests of people, not of a loop.
const AGAIN: Duration = Duration::from_millis(50);

/// A load under way.
#[derive(Debug)]
pub struct Load {
    pulse: Arc<Pulse>,
    allowed: watch::Sender<Arc<BTreeSet<String>>>,
    end: watch::Sender<bool>,
    connections: JoinSet<Tally>,
}

/// What can be seen of a load while it goes on.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Requests that were answered as they should.
    pub served: AtomicU64,
    /// Requests that were not.
    pub failed: AtomicU64,
}

/// One connection after the other, as its server ends them.
struct Caller {
    address: SocketAddr,
    pause: Duration,
    pulse: Arc<Pulse>,
    allowed: watch::Receiver<Arc<BTreeSet<String>>>,
    end: watch::Receiver<bool>,
    tally: Tally,
}

impl Load {
    /// Starts connections that each ask for `/`, look at the answer, and after a pause ask again.
    #[must_use]
    pub fn start(address: SocketAddr, connections: usize, pause: Duration) -> Self {
        let pulse = Arc::new(Pulse::default());
        let (allow, allowed) = watch::channel(Arc::default());
        let (end, ended) = watch::channel(false);
        let mut callers = JoinSet::new();
        for _ in 0..connections {
            let caller = Caller {
                address,
                pause,
                pulse: Arc::clone(&pulse),
                allowed: allowed.clone(),
                end: ended.clone(),
                tally: Tally::default(),
            };
            callers.spawn(caller.call());
        }
        Self {
            pulse,
            allowed: allow,
            end,
            connections: callers,
        }
    }

    /// From now on new requests have to be answered by one of these releases. Before the first call any will do.
    pub fn allow(&self, releases: &[&str]) {
        let releases = releases.iter().map(ToString::to_string).collect();
        self.allowed.send_replace(Arc::new(releases));
    }

    /// What can be seen of it now.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Lets each connection finish its request, and counts.
    pub async fn end(mut self) -> Tally {
        self.end.send_replace(true);
        let mut all = Tally::default();
        while let Some(tally) = self.connections.join_next().await {
            // One that panicked would have been a failure, so it is none of the answers.
            match tally {
                Ok(tally) => all.add(tally),
                Err(_) => all.failed(Failure::Reset),
            }
        }
        all
    }
}

impl Caller {
    async fn call(mut self) -> Tally {
        let mut connection = None;
        while !*self.end.borrow() {
            let allowed = Arc::clone(&self.allowed.borrow());
            let began = Instant::now();
            let answered = timeout(PATIENCE, ask(self.address, &mut connection)).await;
            let answered = answered
                .unwrap_or(Err(Failure::TimedOut))
                .and_then(|release| {
                    let right = allowed.is_empty() || allowed.contains(&release);
                    right.then_some(release).ok_or(Failure::WrongRelease)
                });
            match answered {
                Ok(release) => {
                    self.pulse.served.fetch_add(1, Ordering::Relaxed);
                    self.tally.served(&release, began.elapsed());
                    tokio::time::sleep(self.pause).await;
                }
                Err(failure) => {
                    connection = None;
                    self.pulse.failed.fetch_add(1, Ordering::Relaxed);
                    self.tally.failed(failure);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        self.tally
    }
}

type Connection = SendRequest<Empty<Bytes>>;

/// Asks once; gives the release that answered. The connection is kept unless the server said that it ends it (RFC 9112, section 9.6).
async fn ask(address: SocketAddr, kept: &mut Option<Connection>) -> Result<String, Failure> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => connect(address).await?,
    };
    let request = Request::get("/")
        .header("host", "localhost")
        .body(Empty::new())
        .expect("a request of constants");
    connection.ready().await.map_err(|_| Failure::Reset)?;
    let answer = connection
        .send_request(request)
        .await
        .map_err(|_| Failure::Reset)?;
    let status = answer.status();
    let closes = answer
        .headers()
        .get("connection")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    let body = Limited::new(answer.into_body(), BODY).collect().await;
    let body = body.map_err(|_| Failure::Reset)?.to_bytes();
    if !closes {
        *kept = Some(connection);
    }
    if status != StatusCode::OK {
        return Err(Failure::Status(status.as_u16()));
    }
    release(&body).ok_or(Failure::WrongBody)
}

async fn connect(address: SocketAddr) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        _ => Failure::Reset,
    })?;
    // Only a socket that is gone already refuses this.
    stream.set_nodelay(true).map_err(|_| Failure::Reset)?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Reset)?;
    // It ends with its sender; how it ended the sender tells.
    tokio::spawn(connection);
    Ok(sender)
}

/// `release 2 on slot green` and a line feed: the whole body, or it is not the app's.
fn release(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (release, slot) = text
        .strip_prefix("release ")?
        .strip_suffix('\n')?
        .split_once(" on slot ")?;
    let word =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (word(release) && word(slot)).then(|| release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_answer_names_a_release() {
        assert_eq!(release(b"release 2 on slot green\n").as_deref(), Some("2"));
        for body in [
            "",
            "release 2 on slot green",
            "release 2 on slot \n",
            "release 2 on slot green\nrelease 2 on slot green\n",
            "<h1>502</h1>",
        ] {
            assert_eq!(release(body.as_bytes()), None, "{body:?}");
        }
    }
}
