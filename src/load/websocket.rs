//! One WebSocket (RFC 6455): ticks that come by themselves, and words that come back.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream as Socket, client_async};
use tokio_util::sync::CancellationToken;

use super::{Ended, Line, PATIENCE, TICK};

/// A WebSocket that is being used.
#[derive(Debug)]
pub struct WebSocketStream {
    closing: CancellationToken,
    speaker: JoinHandle<Ended>,
}

struct Speaker {
    socket: Socket<TcpStream>,
    ticks: Line,
    /// Words sent, and words that came back.
    said: u64,
    heard: u64,
    /// When the last message came.
    last: Instant,
    longest_pause: Duration,
}

impl WebSocketStream {
    /// Opens it and waits for the first tick.
    ///
    /// # Errors
    /// A sentence: what came instead.
    pub async fn open(address: SocketAddr) -> Result<Self, String> {
        let open = timeout(PATIENCE, Speaker::open(address)).await;
        let mut speaker = open.unwrap_or_else(|_| Err("no answer in time".to_owned()))?;
        speaker.hear().await?;
        let closing = CancellationToken::new();
        Ok(Self {
            closing: closing.clone(),
            speaker: tokio::spawn(speaker.speak(closing)),
        })
    }

    /// Waits for the words that are on their way, says goodbye and waits for the answer to that.
    pub async fn close(self) -> Ended {
        self.closing.cancel();
        self.speaker.await.unwrap_or_else(|error| Ended {
            messages: 0,
            cut: Some(error.to_string()),
            longest_pause: Duration::ZERO,
        })
    }

    /// Whether it has ended, which it must not do by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.speaker.is_finished()
    }
}

impl Speaker {
    async fn open(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        let (socket, _) = client_async(format!("ws://{address}/ws"), stream)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            socket,
            ticks: Line::default(),
            said: 0,
            heard: 0,
            last: Instant::now(),
            longest_pause: Duration::ZERO,
        })
    }

    async fn speak(mut self, closing: CancellationToken) -> Ended {
        let mut beat = interval(TICK);
        let spoken = loop {
            let done = tokio::select! {
                () = closing.cancelled() => break self.goodbye().await,
                _ = beat.tick() => self.say().await,
                heard = self.hear() => heard,
            };
            if done.is_err() {
                break done;
            }
        };
        Ended {
            messages: self.ticks.number() + self.heard,
            cut: spoken.err(),
            longest_pause: self.longest_pause,
        }
    }

    async fn say(&mut self) -> Result<(), String> {
        let word = Message::text(self.said.to_string());
        self.said += 1;
        self.socket
            .send(word)
            .await
            .map_err(|error| error.to_string())
    }

    /// The next message, checked. May be dropped half-way.
    async fn hear(&mut self) -> Result<(), String> {
        let next = timeout_at(self.last + PATIENCE, self.socket.next()).await;
        let text = match next.map_err(|_| "it fell silent".to_owned())? {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
            Some(Ok(other)) => return Err(format!("{other:?} came")),
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err("it ended by itself".to_owned()),
        };
        self.longest_pause = self.longest_pause.max(self.last.elapsed());
        self.last = Instant::now();
        let due = match text.strip_prefix("echo ") {
            Some(_) => {
                self.heard += 1;
                format!("echo {}", self.heard - 1)
            }
            None => self.ticks.next(),
        };
        (text.as_str() == due)
            .then_some(())
            .ok_or_else(|| format!("{:?} came instead of {due:?}", text.as_str()))
    }

    async fn goodbye(&mut self) -> Result<(), String> {
        while self.heard < self.said {
            self.hear().await?;
        }
        let closed = async {
            self.socket
                .close(None)
                .await
                .map_err(|error| error.to_string())?;
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(_))) | None => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.to_string()),
                }
            }
        };
        let closed = timeout(PATIENCE, closed).await;
        closed.unwrap_or_else(|_| Err("the goodbye was not answered".to_owned()))
    }
}
