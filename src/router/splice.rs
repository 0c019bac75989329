//! Bytes from one socket to another that are never in this process's memory: splice(2) by way of a pipe.
//!
//! **Invariant:** what was taken from a socket is in the pipe or was given to the other socket. So a
//! process that has copies of the three goes on exactly where this one was killed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, ioctl_fionread, write};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;

use super::owned::Descriptors;
use super::relay::Broken;
use super::stream::Stream;

/// As much as a pipe may have room for.
const MOST: usize = 1024 * 1024;

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
    _counted: Descriptors<2>,
}

impl Pipe {
    /// An empty one.
    ///
    /// # Errors
    /// Those of pipe2(2).
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            read,
            write,
            held: 0,
            _counted: Descriptors::new(),
        })
    }

    /// Takes up one that another process made, with what is in it.
    ///
    /// # Errors
    /// It is no pipe.
    pub fn adopt(read: OwnedFd, write: OwnedFd) -> io::Result<Self> {
        let held = usize::try_from(ioctl_fionread(&read)?).unwrap_or(usize::MAX);
        Ok(Self {
            read,
            write,
            held,
            _counted: Descriptors::new(),
        })
    }

    /// Both ends, for who keeps copies of them.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.read.as_fd(), self.write.as_fd()]
    }

    /// How many bytes are in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Puts bytes in; returns how many there was room for.
    fn put(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let put = match write(&self.write, bytes) {
            Err(Errno::AGAIN) => 0,
            other => other?,
        };
        self.held += put;
        Ok(put)
    }

    /// Takes what there is from a socket; 0 is its end. Only for an empty pipe: of a full one nobody could
    /// tell whether it or the socket is what cannot go on.
    fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.held, 0);
        loop {
            ready!(from.poll_readable(cx))?;
            match from.try_io(Interest::READABLE, |socket| {
                moved(socket, self.write.as_fd())
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => {
                    self.held = *taken.as_ref().unwrap_or(&0);
                    return Poll::Ready(taken);
                }
            }
        }
    }

    /// Gives to a socket what it takes.
    fn poll_empty(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_writable(cx))?;
            match to.try_io(Interest::WRITABLE, |socket| {
                moved(self.read.as_fd(), socket)
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                given => {
                    self.held -= *given.as_ref().unwrap_or(&0);
                    return Poll::Ready(given);
                }
            }
        }
    }
}

fn moved(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(from, None, to, None, MOST, flags)?)
}

/// One way between two sockets, up to the end of the first.
#[derive(Debug)]
pub struct Way {
    /// What is under way.
    pub pipe: Pipe,
    /// What comes before anything of the socket and did not fit into the pipe.
    left: Vec<u8>,
    ended: bool,
    /// Bytes that the second socket took.
    pub moved: u64,
    progress: bool,
}

impl Way {
    /// A way that begins with these bytes.
    ///
    /// # Errors
    /// No pipe can be had.
    pub fn new(first: &[&[u8]]) -> io::Result<Self> {
        let mut way = Self::through(Pipe::new()?);
        for bytes in first {
            let fits = match way.left.is_empty() {
                true => way.pipe.put(bytes)?,
                false => 0,
            };
            way.left.extend_from_slice(&bytes[fits..]);
        }
        Ok(way)
    }

    /// The rest of a way, of which this is the pipe.
    pub fn through(pipe: Pipe) -> Self {
        Self {
            pipe,
            left: Vec::new(),
            ended: false,
            moved: 0,
            progress: false,
        }
    }

    /// True if none of it is in this process's memory.
    pub fn is_outside(&self) -> bool {
        self.left.is_empty()
    }

    /// True if it is the second socket that is waited for.
    pub fn is_writing(&self) -> bool {
        self.pipe.held > 0
    }

    /// True once the second socket was told that nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// True if something was moved since this was last asked.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// Moves what can be moved; ready when the first socket has ended and the second was told so.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &mut Stream,
    ) -> Poll<Result<(), Broken>> {
        while !self.ended {
            if self.pipe.held > 0 {
                let given = ready!(self.pipe.poll_empty(cx, to)).map_err(Broken::Sink)?;
                if given == 0 {
                    return Poll::Ready(Err(Broken::Sink(io::ErrorKind::WriteZero.into())));
                }
                self.moved += given as u64;
            } else if !self.left.is_empty() {
                let put = self.pipe.put(&self.left).map_err(Broken::Sink)?;
                self.left.drain(..put);
            } else if ready!(self.pipe.poll_fill(cx, from)).map_err(Broken::Source)? == 0 {
                to.end_writing();
                self.ended = true;
            }
            self.progress = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        (Stream::adopt(near.into()).expect("a socket"), far)
    }

    #[tokio::test]
    async fn what_comes_first_goes_first_however_little_the_pipe_holds() {
        let ((from, mut sender), (mut to, mut receiver)) = (pair(), pair());
        let first = vec![b'a'; 100_000];
        let mut way = Way::new(&[&first[..], b"bc"]).expect("a pipe");
        assert!(!way.is_outside());
        sender.write_all(b"def").expect("room for three bytes");
        drop(sender);
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            receiver.read_to_end(&mut all).expect("it ends");
            all
        });
        let moved = poll_fn(|cx| way.poll(cx, &from, &mut to)).await;
        moved.expect("nobody is lost");
        assert_eq!(way.moved, 100_005);
        let all = reading.join().expect("it read to the end");
        assert_eq!((all.len(), &all[100_000..]), (100_005, &b"bcdef"[..]));
    }

    #[tokio::test]
    async fn another_process_goes_on_with_what_is_in_the_pipe() {
        let ((from, sender), (mut to, mut receiver)) = (pair(), pair());
        let way = Way::new(&[b"half"]).expect("a pipe");
        assert!(way.is_outside());
        let [read, write] = way.pipe.ends().map(|end| end.try_clone_to_owned());
        drop(way);
        let ends = (read.expect("a copy"), write.expect("a copy"));
        let mut way = Way::through(Pipe::adopt(ends.0, ends.1).expect("a pipe"));
        assert_eq!(way.pipe.held(), 4);
        drop(sender);
        let moved = poll_fn(|cx| way.poll(cx, &from, &mut to)).await;
        moved.expect("nobody is lost");
        let mut all = String::new();
        receiver.read_to_string(&mut all).expect("it ends");
        assert_eq!(all, "half");
    }

    #[tokio::test]
    async fn what_a_pipe_holds_is_counted_whole_although_a_new_one_would_not_hold_it() {
        const HELD: usize = 200_000;
        let ((from, sender), (mut to, mut receiver)) = (pair(), pair());
        let pipe = Pipe::new().expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&pipe.write, 4 * HELD).expect("room in it");
        let bytes: Vec<u8> = (0..HELD).map(|n| (n % 251) as u8).collect();
        assert_eq!(write(&pipe.write, &bytes), Ok(HELD));
        let mut way = Way::through(Pipe::adopt(pipe.read, pipe.write).expect("a pipe"));
        assert_eq!(way.pipe.held(), HELD);
        drop(sender);
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            receiver.read_to_end(&mut all).expect("it ends");
            all
        });
        let moved = poll_fn(|cx| way.poll(cx, &from, &mut to)).await;
        moved.expect("nobody is lost");
        assert!(reading.join().expect("it read to the end") == bytes);
    }
}
