//! One stream of server-sent events (WHATWG HTML, section 9.2), read to its end.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{Ended, Line, PATIENCE};

/// A stream that is being read.
#[derive(Debug)]
pub struct EventStream {
    left: CancellationToken,
    reader: JoinHandle<Ended>,
}

struct Reader {
    _connection: SendRequest<Empty<Bytes>>,
    body: Incoming,
    unread: Vec<u8>,
    due: Line,
    /// When the last event came.
    last: Instant,
    longest_pause: Duration,
}

/// What an event was.
enum Came {
    /// The one that was due.
    Message,
    /// The last, with the digest of all.
    End,
}

impl EventStream {
    /// Opens the stream and waits for its first event; with `events` it ends by itself after so many.
    ///
    /// # Errors
    /// A sentence: what came instead.
    pub async fn open(address: SocketAddr, events: Option<u64>) -> Result<Self, String> {
        let open = timeout(PATIENCE, Reader::open(address, events)).await;
        let mut reader = open.unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
        reader.next().await?;
        let left = CancellationToken::new();
        Ok(Self {
            left: left.clone(),
            reader: tokio::spawn(reader.read(left, events.is_some())),
        })
    }

    /// Waits for the end of a stream that ends by itself.
    pub async fn whole(self) -> Ended {
        ended(self.reader).await
    }

    /// Leaves a stream that does not end by itself.
    pub async fn leave(self) -> Ended {
        self.left.cancel();
        ended(self.reader).await
    }

    /// Whether it has ended, which an endless one must not do by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.reader.is_finished()
    }
}

async fn ended(reader: JoinHandle<Ended>) -> Ended {
    reader.await.unwrap_or_else(|error| Ended {
        messages: 0,
        cut: Some(error.to_string()),
        longest_pause: Duration::ZERO,
    })
}

impl Reader {
    async fn open(address: SocketAddr, events: Option<u64>) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let (mut sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let path = events.map_or("/sse".to_owned(), |events| format!("/sse?events={events}"));
        let request = Request::get(path)
            .header("host", "localhost")
            .header("accept", "text/event-stream")
            .body(Empty::new())
            .expect("a path and constants make a request");
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status() != hyper::StatusCode::OK {
            return Err(format!("status {}", answer.status()));
        }
        Ok(Self {
            _connection: sender,
            body: answer.into_body(),
            unread: Vec::new(),
            due: Line::default(),
            last: Instant::now(),
            longest_pause: Duration::ZERO,
        })
    }

    async fn read(mut self, left: CancellationToken, ends: bool) -> Ended {
        let cut = loop {
            tokio::select! {
                // An event that is half there is dropped with the stream when it is left.
                () = left.cancelled() => break None,
                came = self.next() => match came {
                    Ok(Came::Message) => {}
                    Ok(Came::End) if ends => break self.after_the_last().await.err(),
                    Ok(Came::End) => break Some("it ended by itself".to_owned()),
                    Err(cut) => break Some(cut),
                },
            }
        };
        Ended {
            messages: self.due.number(),
            cut,
            longest_pause: self.longest_pause,
        }
    }

    /// The next event, or how the stream was cut. May be dropped half-way.
    async fn next(&mut self) -> Result<Came, String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.unread.drain(..end + 2).collect();
                self.longest_pause = self.longest_pause.max(self.last.elapsed());
                self.last = Instant::now();
                return self.check(&String::from_utf8_lossy(&event[..end]));
            }
            let frame = timeout_at(self.last + PATIENCE, self.body.frame()).await;
            match frame.map_err(|_| "it fell silent".to_owned())? {
                Some(Ok(frame)) => {
                    self.unread
                        .extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
                }
                Some(Err(error)) => return Err(format!("the connection broke: {error}")),
                None => return Err("it ended too early".to_owned()),
            }
        }
    }

    fn check(&mut self, event: &str) -> Result<Came, String> {
        let at = self.due.number();
        if let Some(digest) = event.strip_prefix("event: end\ndata: ") {
            return match digest == self.due.digest() {
                true => Ok(Came::End),
                false => Err("its digest is wrong at the end".to_owned()),
            };
        }
        let due = self.due.next();
        match event.strip_prefix("data: ") == Some(&due) {
            true => Ok(Came::Message),
            false => Err(format!("at {at} came {event:?} instead of {due:?}")),
        }
    }

    async fn after_the_last(&mut self) -> Result<(), String> {
        match timeout(PATIENCE, self.body.frame()).await {
            Ok(None) => Ok(()),
            Ok(Some(Err(error))) => Err(format!("the connection broke at its end: {error}")),
            Ok(Some(Ok(_))) => Err("something came after the end".to_owned()),
            Err(_) => Err("it did not end".to_owned()),
        }
    }
}
