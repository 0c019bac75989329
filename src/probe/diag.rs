//! The kernel's list of listening TCP sockets: the bytes of sock_diag(7), by hand.
//!
//! **Invariant:** no length that the kernel names is trusted beyond the bytes that came; a message that makes no sense ends the list with
//! an error, never with a panic.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::listeners::Listener;

// netlink(7) and linux/inet_diag.h. None of these is in `nix` or `libc`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// `struct nlattr`.
const ATTRIBUTE: usize = 4;

/// Says who listens (sock_diag(7)) in the network namespace in which its socket was made.
#[derive(Debug)]
pub struct Diag(OwnedFd);

impl Diag {
    /// In that of this process.
    ///
    /// # Errors
    /// Those of socket(2) and netlink(7).
    pub fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        // Connected to port 0, the socket takes messages from the kernel only.
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1))?;
        Ok(Self(socket))
    }

    /// Every listening TCP socket.
    ///
    /// Takes some 50 µs: the kernel walks its listeners and answers from memory, so that this may be called on an async thread.
    ///
    /// # Errors
    /// Those of netlink(7); [`io::ErrorKind::InvalidData`] for an answer that makes no sense.
    pub fn listening(&self) -> io::Result<Vec<Listener>> {
        let socket = self.0.as_raw_fd();
        let mut found = Vec::new();
        let mut buffer = vec![0; 32 * 1024];
        for family in [AF_INET, AF_INET6] {
            send(socket, &request(family), MsgFlags::empty())?;
            loop {
                let length = recv(socket, &mut buffer, MsgFlags::MSG_TRUNC)?;
                let Some(batch) = buffer.get(..length) else {
                    return Err(nonsense(
                        "a datagram that is longer than the kernel's own limit",
                    ));
                };
                if read(batch, &mut found)? == Dump::Done {
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// To hand it to another process.
impl AsFd for Diag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One that another process has opened.
impl From<OwnedFd> for Diag {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: every TCP socket of a family in state LISTEN.
fn request(family: u8) -> [u8; HEADER + 56] {
    let mut bytes = [0; HEADER + 56];
    bytes[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = IPPROTO_TCP;
    bytes[20..24].copy_from_slice(&(1_u32 << TCP_LISTEN).to_ne_bytes());
    bytes
}

/// Whether a dump goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    More,
    Done,
}

/// Reads the messages of one datagram.
fn read(mut batch: &[u8], found: &mut Vec<Listener>) -> io::Result<Dump> {
    while let Some(length) = u32_at(batch, 0) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (Some(message), Some(kind)) = (batch.get(HEADER..length), u16_at(batch, 4)) else {
            return Err(nonsense("a message that is longer than its datagram"));
        };
        match kind {
            NLMSG_DONE => return Ok(Dump::Done),
            NLMSG_ERROR => {
                let code = u32_at(message, 0).map_or(0, |code| code.cast_signed().wrapping_neg());
                return Err(io::Error::from_raw_os_error(code));
            }
            SOCK_DIAG_BY_FAMILY => found.push(listener(message)?),
            _ => {}
        }
        batch = batch.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Dump::More)
}

/// `struct inet_diag_msg` and its attributes.
fn listener(message: &[u8]) -> io::Result<Listener> {
    let short = || nonsense("a message that is too short");
    let (fixed, mut attributes) = message.split_at_checked(MESSAGE).ok_or_else(short)?;
    // idiag_family, then state, timer and retrans, then struct inet_diag_sockid: ports and addresses in network order.
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let address = match fixed[0] {
        AF_INET => IpAddr::V4(Ipv4Addr::new(fixed[8], fixed[9], fixed[10], fixed[11])),
        AF_INET6 => {
            let bytes: [u8; 16] = fixed[8..24].try_into().map_err(|_| short())?;
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return Err(nonsense("an address family that was not asked for")),
    };
    let mut listener = Listener {
        at: SocketAddr::new(address, port),
        v6_only: false,
        inode: u32_at(fixed, 68).ok_or_else(short)?.into(),
        cgroup: None,
    };
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let Some(value) = attributes.get(ATTRIBUTE..length) else {
            return Err(nonsense("an attribute that is longer than its message"));
        };
        match kind {
            INET_DIAG_SKV6ONLY => listener.v6_only = value.first().is_some_and(|only| *only != 0),
            INET_DIAG_CGROUP_ID => {
                listener.cgroup = value.try_into().ok().map(u64::from_ne_bytes);
            }
            _ => {}
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    Ok(listener)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("sock_diag sent {what}"))
}

#[cfg(test)]
#[path = "diag_tests.rs"]
mod tests;
