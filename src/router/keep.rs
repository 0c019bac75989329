//! What outlives this process: descriptors that the service manager keeps (sd_pid_notify_with_fds(3),
//! `FDSTORE=1`) and passes to the process that comes after it, unless the unit was stopped in between.
//!
//! **Invariant:** what is kept can be understood by its name and the [`Book`], which is kept too.
//!
//! **Invariant:** a connection that is kept has no byte in this process's memory, and is forgotten by the
//! service manager before this process forgets it.

use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram as Blocking, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::sys::stat::fstat;
use nix::unistd::pipe2;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe;

use super::book::{self, Book};
use super::control::Until;
use super::label::{Draining, Inodes, Label};
use super::splice::Pipe;
use super::stream::Stream;
use super::tries::Try;

/// Connections that are kept at once, unless the unit says otherwise. The service manager does not say when it has no room; so it must
/// never come to that. Nor may all names together, five bytes each with what comes between, be longer than the 128 KiB of one
/// string of the environment: with six descriptors each these are 120,000.
const MOST: usize = 4000;

/// Descriptors of a connection, at most.
const EACH: usize = 6;

/// Descriptors that are kept for other reasons, at most: notes.
const OTHERS: usize = 16;

/// How long PID 1 may take to take something into its care before nobody waits for it any more: it answers nobody
/// while it reloads.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Notes that this instance drains, in place of what was `noted`, for the process that comes after it should this one be killed.
/// Does nothing where there is no service manager.
///
/// # Errors
/// The service manager cannot be reached.
pub fn draining(until: Option<Until>, noted: Option<Draining>) -> io::Result<()> {
    // Any descriptor does; its name is the note.
    let (note, name) = (File::open("/dev/null")?, Draining { until }.name());
    say(&[(&storing(&name), &[note.as_fd()])])?;
    match noted.map(Draining::name).filter(|before| *before != name) {
        Some(before) => forget(&before),
        None => Ok(()),
    }
}

/// Has a descriptor kept; returns when it is. Does nothing where there is no service manager.
///
/// # Errors
/// The service manager cannot be reached, or does not say that it has it.
pub fn store(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let (mut heard, hears) = UnixStream::pair()?;
    heard.set_read_timeout(Some(PATIENCE))?;
    let barrier: &[_] = &[hears.as_fd()];
    say(&[(&storing(name), &[descriptor]), ("BARRIER=1", barrier)])?;
    drop(hears);
    // It ends when the other side is closed.
    heard.read(&mut [0]).map(drop)
}

/// Has what was kept by this name kept no more. Does nothing where there is no service manager.
///
/// # Errors
/// The service manager cannot be reached.
pub fn forget(name: &str) -> io::Result<()> {
    say(&[(&forgetting(name), &[])])
}

/// Tells the service manager, if there is one, one message after the other.
fn say(messages: &[(&str, &[BorrowedFd<'_>])]) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let socket = Blocking::unbound()?;
    socket.connect(path)?;
    let mut messages = messages.iter();
    messages.try_for_each(|(text, descriptors)| tell(socket.as_fd(), text, descriptors))
}

fn forgetting(name: &str) -> String {
    format!("FDSTOREREMOVE=1\nFDNAME={name}")
}

fn storing(name: &str) -> String {
    // Without the last line a descriptor whose peer has gone would be dropped before we see that.
    format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0")
}

/// sd_notify(3) with descriptors.
fn tell(socket: BorrowedFd<'_>, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        if raw.is_empty() { &[] } else { &rights },
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// One thread's way to the service manager.
#[derive(Debug)]
pub struct Keeper {
    socket: UnixDatagram,
    count: Arc<Count>,
}

/// How many connections are kept, all threads together, and how many may be.
#[derive(Debug)]
pub struct Count {
    kept: AtomicUsize,
    most: usize,
    book: Book,
}

impl Count {
    /// As many as the unit's `FileDescriptorStoreMax=` has room for, which systemd says from version 254 on (`$FDSTORE`,
    /// systemd.exec(5)), and never more than can be named. What they are is written in `book`.
    #[must_use]
    pub fn of_unit(book: Book) -> Self {
        let room = std::env::var("FDSTORE").ok();
        let room = room.and_then(|room| room.parse::<usize>().ok());
        let room = room.map_or(MOST, |room| room.saturating_sub(OTHERS) / EACH);
        Self {
            kept: AtomicUsize::new(0),
            most: room.min(MOST),
            book,
        }
    }
}

/// A connection that is kept; to be given back to [`Keeper::forget`].
#[derive(Debug)]
#[must_use]
pub struct Kept {
    name: String,
}

impl Keeper {
    /// The service manager; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect(count: &Arc<Count>) -> io::Result<Option<Self>> {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
            return Ok(None);
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Some(Self {
            socket,
            count: Arc::clone(count),
        }))
    }

    /// True if no further connection can be kept.
    pub fn is_full(&self) -> bool {
        self.count.kept.load(Ordering::Relaxed) >= self.count.most
    }

    /// Has a connection kept: its two sockets and the pipes between them. `None` if it cannot be.
    ///
    /// The future is ready when the service manager has said that it has it, and false if it can not be told. It has
    /// copies of the descriptors, so that the connection's bytes may flow meanwhile. Whether it was ready or not when
    /// it is dropped, the connection is to be [forgotten](Self::forget).
    pub fn keep(
        &self,
        label: &Label,
        client: &Stream,
        upstream: &Stream,
        down: &Pipe,
        up: Option<&Pipe>,
    ) -> Option<(Kept, impl Future<Output = bool> + use<'_>)> {
        let [down_read, down_write] = down.ends();
        let mut all = vec![client.as_fd(), upstream.as_fd(), down_read, down_write];
        all.extend(up.iter().flat_map(|up| up.ends()));
        let inode = |at: usize| all.get(at).map_or(Ok(0), |fd| Ok(fstat(fd)?.st_ino));
        let inodes = (|| {
            Ok::<_, nix::Error>(Inodes {
                client: inode(0)?,
                upstream: inode(1)?,
                down: inode(2)?,
                up: inode(4)?,
            })
        })();
        let line = label.name(inodes.ok()?)?;
        let copies = all.iter().map(BorrowedFd::try_clone_to_owned);
        let copies: Vec<OwnedFd> = copies.collect::<io::Result<_>>().ok()?;
        if self.count.kept.fetch_add(1, Ordering::Relaxed) >= self.count.most {
            self.count.kept.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let name = match self.count.book.enter(&line) {
            Ok(name) => name,
            Err(error) => {
                tracing::warn!("a stream is not kept: it ends if this process is killed: {error}");
                self.count.kept.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
        };
        let stored = self.store(storing(&name), copies);
        Some((Kept { name }, stored))
    }

    /// True if the service manager has said that it has them.
    async fn store(&self, text: String, descriptors: Vec<OwnedFd>) -> bool {
        let book = &self.count.book;
        let stored = async {
            if let Some(file) = book.unkept() {
                self.tell(&storing(book::NAME), &[file]).await?;
            }
            let all: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            self.tell(&text, &all).await?;
            drop(descriptors);
            self.barrier().await
        };
        let stored: io::Result<()> = stored.await;
        match &stored {
            Ok(()) => book.confirm(),
            Err(error) => {
                tracing::warn!("a stream is not kept: it ends if this process is killed: {error}");
            }
        }
        stored.is_ok()
    }

    /// Counts one that was kept by the process before this one.
    pub fn adopt(&self, name: String) -> Kept {
        self.count.kept.fetch_add(1, Ordering::Relaxed);
        Kept { name }
    }

    /// Has a connection kept no more.
    pub async fn forget(&self, kept: Kept) {
        if let Err(error) = self.tell(&forgetting(&kept.name), &[]).await {
            // Then its name must not come to stand for another.
            tracing::warn!("the service manager still keeps a stream that has ended: {error}");
        } else {
            self.count.book.leave(&kept.name);
        }
        self.count.kept.fetch_sub(1, Ordering::Relaxed);
    }

    async fn tell(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = || tell(self.socket.as_fd(), text, descriptors);
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// Waits until everything that was told so far has been heard (sd_notify_barrier(3)).
    async fn barrier(&self) -> io::Result<()> {
        let (heard, hears) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        self.tell("BARRIER=1", &[hears.as_fd()]).await?;
        drop(hears);
        // It ends when the other side is closed.
        pipe::Receiver::from_owned_fd(heard)?.readable().await
    }
}

/// A connection that the process before this one has left.
#[derive(Debug)]
pub struct Left {
    /// What it is kept as.
    pub name: String,
    /// What it is.
    pub label: Label,
    /// The client's socket.
    pub client: OwnedFd,
    /// The upstream's.
    pub upstream: OwnedFd,
    /// The pipe to the client: where it is read and where it is written.
    pub down: (OwnedFd, OwnedFd),
    /// The pipe to the upstream, of a tunnel.
    pub up: Option<(OwnedFd, OwnedFd)>,
    /// By which the client's socket is told from all others that are open.
    pub inode: u64,
    /// Where it is written that it is picked up.
    pub tried: Option<Try>,
}

impl Left {
    /// The address that its client was counted at.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        // Where it is not written down, which an earlier version did not, it is the socket's if no proxy is in between.
        let said = self.label.client.parse().ok();
        let peer = || SockRef::from(&self.client).peer_addr().ok()?.as_socket();
        said.or_else(|| Some(peer()?.ip()))
    }
}

/// Puts together the descriptors of one name, which stands for `line`; `None` if some are missing.
#[must_use]
pub fn gather(name: &str, line: &str, descriptors: Vec<OwnedFd>) -> Option<Left> {
    let (label, inodes) = Label::from_name(line)?;
    let mut left: Vec<_> = descriptors
        .into_iter()
        .filter_map(|fd| {
            let writes = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL).ok()?);
            let writes = writes & OFlag::O_ACCMODE == OFlag::O_WRONLY;
            Some((fstat(&fd).ok()?.st_ino, writes, fd))
        })
        .collect();
    let mut take = |inode: u64, writes: bool| {
        let at = left
            .iter()
            .position(|(i, w, _)| (*i, *w) == (inode, writes));
        at.map(|at| left.swap_remove(at).2)
    };
    Some(Left {
        client: take(inodes.client, false)?,
        upstream: take(inodes.upstream, false)?,
        down: (take(inodes.down, false)?, take(inodes.down, true)?),
        up: match inodes.up {
            0 => None,
            up => Some((take(up, false)?, take(up, true)?)),
        },
        inode: inodes.client,
        tried: None,
        label,
        name: name.to_owned(),
    })
}
