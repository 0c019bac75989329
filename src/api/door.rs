//! Who may stay connected: everybody may ask whether slotd is there, and only those who may look or act keep a connection for longer than that
//! takes.
//!
//! **Invariant:** what those hold open who may not act is bounded in number, and of those who may not look in time, so that slotd's descriptors
//! are there for those who may act.

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

use super::peer::{Access, May, Peer};

/// How many connections all of one user's processes may have who may not act.
const OF_ONE: usize = 16;

/// How many all those users may have together who may look, and those who may not; slotd's limit of open files is far above.
const OF_ALL: usize = 128;

/// How long each connection may last of one who may not look, heads that never come included: many times what a question takes over a slow
/// network, and few enough seconds that places are soon free again.
pub(super) const STAY: Duration = Duration::from_secs(10);

/// A listener that looks at who comes.
pub(super) struct Door {
    listener: UnixListener,
    access: Access,
    readers: Guests<Option<u32>>,
    others: Guests<Option<u32>>,
}

/// How many connections each has who is not to have any number.
#[derive(Clone)]
pub(super) struct Guests<K> {
    known: Arc<Mutex<BTreeMap<K, usize>>>,
    of_one: usize,
    of_all: usize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Whoever asks has all that one may have.
    OfOne,
    /// All have them.
    OfAll,
}

/// A connection.
pub(super) struct Caller {
    stream: UnixStream,
    pub(super) peer: Peer,
    over: Option<Pin<Box<Sleep>>>,
    _place: Option<Place<Option<u32>>>,
}

/// A place among the guests; it is free again when this is dropped.
pub(super) struct Place<K: Ord> {
    guests: Guests<K>,
    whose: K,
}

impl Door {
    pub(super) fn new(listener: UnixListener, access: Access) -> Self {
        Self {
            listener,
            access,
            readers: Guests::new(OF_ONE, OF_ALL),
            others: Guests::new(OF_ONE, OF_ALL),
        }
    }

    /// Lets somebody in, if there is room.
    fn caller(&self, stream: UnixStream) -> Option<Caller> {
        let peer = Peer::of(&stream);
        let may = self.access.may(&peer);
        let guests = match may {
            May::Act | May::Root => None,
            May::Read => Some(&self.readers),
            May::Nothing => Some(&self.others),
        };
        let place = match guests {
            Some(guests) => Some(guests.place(peer.uid()).ok()?),
            None => None,
        };
        Some(Caller {
            stream,
            // Those may do what is written down with it.
            peer: match may {
                May::Act | May::Root => peer.in_unit(),
                May::Read | May::Nothing => peer,
            },
            over: (may == May::Nothing).then(|| Box::pin(sleep(STAY))),
            _place: place,
        })
    }
}

impl<K: Ord + Clone> Guests<K> {
    pub(super) fn new(of_one: usize, of_all: usize) -> Self {
        Self {
            known: Arc::default(),
            of_one,
            of_all,
        }
    }

    /// A place, if there is one left for this one.
    pub(super) fn place(&self, whose: K) -> Result<Place<K>, Full> {
        let mut known = self.lock();
        let all: usize = known.values().sum();
        let own = known.get(&whose).copied().unwrap_or_default();
        if own >= self.of_one {
            return Err(Full::OfOne);
        }
        if all >= self.of_all {
            return Err(Full::OfAll);
        }
        known.insert(whose.clone(), own + 1);
        drop(known);
        Ok(Place {
            guests: self.clone(),
            whose,
        })
    }
}

impl<K> Guests<K> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, usize>> {
        // Nothing panics while it holds the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut known = self.guests.lock();
        if let Some(own) = known.get_mut(&self.whose) {
            *own -= 1;
            if *own == 0 {
                known.remove(&self.whose);
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
            // Dropping it closes it, which is all the answer that there is room for.
            let Some(caller) = self.caller(stream) else {
                continue;
            };
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
        let over = self.over.as_mut();
        if over.is_some_and(|over| over.as_mut().poll(cx).is_ready()) {
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

    #[tokio::test(start_paused = true)]
    async fn one_who_may_look_stays_and_has_few_connections_all_the_same() {
        let (_directory, path) = server(Access::readers(nix::unistd::getgid().as_raw()));
        let mut held = Vec::new();
        for _ in 0..OF_ONE {
            held.push(UnixStream::connect(&path).await.unwrap());
        }
        let mut surplus = UnixStream::connect(&path).await.unwrap();
        assert_eq!(ends(&mut surplus).await.unwrap(), 0);
        for stream in &mut held {
            assert!(timeout(STAY * 2, ends(stream)).await.is_err());
        }
    }

    #[test]
    fn all_who_may_not_act_leave_room_for_those_who_may() {
        let guests = Guests::new(OF_ONE, OF_ALL);
        let users = 0..u32::try_from(OF_ALL).unwrap();
        let places: Vec<_> = users.flat_map(|uid| guests.place(Some(uid))).collect();
        assert_eq!(places.len(), OF_ALL);
        assert_eq!(guests.place(Some(4_711)).err(), Some(Full::OfAll));
        drop(places);
        assert!(guests.place(Some(4_711)).is_ok());
        assert_eq!(guests.lock().len(), 0, "who has none is not remembered");
    }
}
