//! A connection of a process that has no descriptors left. It is alone in its process, since what it takes away is taken from all.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::File;
use std::future::poll_fn;
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use slot::router::stream::{Kind, Stream};

#[tokio::test]
async fn what_was_written_is_told_although_no_descriptor_is_left_to_go_on_with() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut stream = Stream::new(ours, Kind::Unix).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // The lowest that is free is one too many.
    let next = File::open("/dev/null").unwrap().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, next as u64, hard).unwrap();
    let bytes: Vec<u8> = (0..4 * 1024 * 1024).map(|n| (n % 251) as u8).collect();
    let first = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(&bytes)])).await;
    let sent = first.unwrap();
    assert!(0 < sent && sent < bytes.len(), "4 MiB do not fit");
    // Going on takes one: the event loop has to tell when there is room.
    let second = poll_fn(|cx| stream.poll_write(cx, &[IoSlice::new(&bytes[sent..])])).await;
    let error = second.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EMFILE));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    drop(stream);
    let mut taken = Vec::new();
    peer.read_to_end(&mut taken).unwrap();
    assert!(taken == bytes[..sent], "{} of {sent} bytes", taken.len());
}
