//! Who may stay connected: everybody may ask whether slotd is there, and only those who may act keep a connection for longer than that takes.
//!
//! **Invariant:** what others hold open is bounded in number and in time, so that slotd's descriptors are there for those who may act.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};

use super::peer::{Access, Peer};

/// How many connections all of one user's processes may have who may not act.
const OF_ONE: usize = 16;

/// How many all those users may have together; slotd's limit of open files is far above.
const OF_ALL: usize = 128;

/// How long each of them may last, heads that never come included.
const STAY: Duration = Duration::from_secs(10);

/// A listener that looks at who comes.
pub(super) struct Door {
    listener: UnixListener,
    access: Access,
    guests: Guests,
}

/// How many connections each user has who may not act.
#[derive(Clone, Default)]
struct Guests(Arc<Mutex<BTreeMap<Option<u32>, usize>>>);

/// A connection.
pub(super) struct Caller {
    stream: UnixStream,
    pub(super) peer: Peer,
    stay: Option<Stay>,
}

/// The stay of one who may not act.
struct Stay {
    over: Pin<Box<Sleep>>,
    _place: Place,
}

/// A place among the guests; it is free again when this is dropped.
struct Place {
    guests: Guests,
    uid: Option<u32>,
}

impl Door {
    pub(super) fn new(listener: UnixListener, access: Access) -> Self {
        Self {
            listener,
            access,
            guests: Guests::default(),
        }
    }
}

impl Guests {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<u32>, usize>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one left for this user.
    fn place(&self, uid: Option<u32>) -> Option<Place> {
        let mut known = self.lock();
        let all: usize = known.values().sum();
        let own = known.entry(uid).or_default();
        if *own >= OF_ONE || all >= OF_ALL {
            return None;
        }
        *own += 1;
        Some(Place {
            guests: self.clone(),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.guests.lock();
        if let Some(own) = known.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                known.remove(&self.uid);
            }
        }
    }
}

impl Listener for Door {
    type Io = Caller;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Caller, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            let peer = Peer::of(&stream);
            let stay = if self.access.allows(&peer) {
                None
            } else if let Some(place) = self.guests.place(peer.uid()) {
                Some(Stay {
                    over: Box::pin(sleep(STAY)),
                    _place: place,
                })
            } else {
                // Dropping it closes it, which is all the answer that there is room for.
                continue;
            };
            let caller = Caller { stream, peer, stay };
            return (caller, address);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Caller {
    /// An error once the stay is over; the task is woken then.
    fn may_stay(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let stay = self.stay.as_mut();
        if stay.is_some_and(|stay| stay.over.as_mut().poll(cx).is_ready()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use axum::Router;
    use tokio::io::AsyncReadExt;
    use tokio::time::{Instant, timeout};

    use super::*;

    /// A server for these, and its socket.
    fn server(access: Access) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("slotd.sock");
        let door = Door::new(UnixListener::bind(&path).unwrap(), access);
        tokio::spawn(async move { axum::serve(door, Router::new()).await });
        (directory, path)
    }

    async fn ends(stream: &mut UnixStream) -> io::Result<usize> {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_may_not_act_holds_few_connections_and_none_for_long() {
        let (_directory, path) = server(Access::nobody());
        let began = Instant::now();
        let mut held = Vec::new();
        for _ in 0..OF_ONE {
            held.push(UnixStream::connect(&path).await.unwrap());
        }
        let mut surplus = UnixStream::connect(&path).await.unwrap();
        assert_eq!(ends(&mut surplus).await.unwrap(), 0);
        assert!(began.elapsed() < STAY, "it is closed at once");
        for stream in &mut held {
            assert_eq!(ends(stream).await.unwrap(), 0);
        }
        assert!(began.elapsed() >= STAY, "nothing came for so long");
        let mut next = UnixStream::connect(&path).await.unwrap();
        let early = timeout(STAY / 2, ends(&mut next)).await;
        assert!(early.is_err(), "their places are free again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_may_act_stays_as_long_as_he_likes() {
        let (_directory, path) = server(Access::own_user());
        let mut held = Vec::new();
        for _ in 0..OF_ALL + 1 {
            held.push(UnixStream::connect(&path).await.unwrap());
        }
        for stream in &mut held {
            assert!(timeout(STAY * 2, ends(stream)).await.is_err());
        }
    }

    #[test]
    fn all_who_may_not_act_leave_room_for_those_who_may() {
        let guests = Guests::default();
        let users = 0..u32::try_from(OF_ALL).unwrap();
        let places: Vec<Place> = users.filter_map(|uid| guests.place(Some(uid))).collect();
        assert_eq!(places.len(), OF_ALL);
        assert!(guests.place(Some(4_711)).is_none());
        drop(places);
        assert!(guests.place(Some(4_711)).is_some());
    }
}
