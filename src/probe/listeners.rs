//! Who listens where.
//!
//! A TCP socket names the cgroup in which it was made, so that whose it is can be known without reading another process's files. A
//! unix socket names the process that listens, to whoever connects. Where no cgroups are to be had (apps as children of this process), sockets
//! are found through the processes of a process group.
//!
//! **Invariant:** of several sockets that could answer at an address, all are named; a caller that trusts one has to trust each.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::{Diag, owner};
use crate::wire::apps_socket;

/// One listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its local address; may be a wildcard.
    pub at: SocketAddr,
    /// An IPv6 socket that takes no IPv4 (ipv6(7), `IPV6_V6ONLY`).
    pub v6_only: bool,
    /// Its number, as in `/proc/<pid>/fd`: `socket:[<inode>]`.
    pub inode: u64,
    /// The inode number of the directory of the cgroup in which it was made; absent before Linux 5.7.
    pub cgroup: Option<u64>,
}

impl Listener {
    /// Whether a connection to this address may end up here.
    #[must_use]
    pub fn takes(&self, to: SocketAddr) -> bool {
        if self.at.port() != to.port() {
            return false;
        }
        match (self.at.ip(), to.ip()) {
            (IpAddr::V6(here), IpAddr::V4(there)) => {
                !self.v6_only && (here.is_unspecified() || here.to_ipv4_mapped() == Some(there))
            }
            (here, there) => {
                here == there || (here.is_unspecified() && here.is_ipv4() == there.is_ipv4())
            }
        }
    }
}

/// Whoever might answer at an address.
///
/// # Errors
/// Those of [`Diag::listening`].
pub fn at(diag: &Diag, address: SocketAddr) -> io::Result<Vec<Listener>> {
    let mut found = diag.listening()?;
    found.retain(|listener| listener.takes(address));
    Ok(found)
}

/// Where the processes of a cgroup (`/slot.slice/…/web@green.service`) and of those below it listen.
///
/// # Errors
/// Those of [`Diag::listening`].
pub fn of_cgroup(diag: &Diag, cgroup: &str) -> io::Result<Vec<Listener>> {
    let ids = owner::cgroup_ids(cgroup);
    let mut found = diag.listening()?;
    found.retain(|listener| listener.cgroup.is_some_and(|id| ids.contains(&id)));
    Ok(found)
}

/// Where the processes of a process group listen; sees processes of the caller's own user only, unless it is root.
///
/// # Errors
/// Those of [`Diag::listening`].
pub fn of_process_group(diag: &Diag, group: i32) -> io::Result<Vec<Listener>> {
    let inodes: BTreeSet<u64> = owner::processes_of_group(group)
        .into_iter()
        .flat_map(owner::sockets_of)
        .collect();
    let mut found = diag.listening()?;
    found.retain(|listener| inodes.contains(&listener.inode));
    Ok(found)
}

/// The process that listens at a unix socket: the one that called listen(2), which its children inherit.
///
/// # Errors
/// Those of connect(2): `NotFound` and `ConnectionRefused` mean that nobody does.
pub async fn of_unix(path: &Path) -> io::Result<Option<i32>> {
    let stream = apps_socket::connect(path).await?;
    Ok(stream.peer_cred()?.pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(at: &str, v6_only: bool) -> Listener {
        Listener {
            at: at.parse().unwrap(),
            v6_only,
            inode: 1,
            cgroup: None,
        }
    }

    #[test]
    fn a_wildcard_takes_what_is_meant_for_loopback() {
        let v4: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let v6: SocketAddr = "[::1]:80".parse().unwrap();
        for (at, v6_only, takes_v4, takes_v6) in [
            ("127.0.0.1:80", false, true, false),
            ("127.0.0.2:80", false, false, false),
            ("127.0.0.1:81", false, false, false),
            ("0.0.0.0:80", false, true, false),
            ("[::]:80", false, true, true),
            ("[::]:80", true, false, true),
            ("[::1]:80", false, false, true),
            ("[::ffff:127.0.0.1]:80", false, true, false),
        ] {
            let listener = listener(at, v6_only);
            assert_eq!(listener.takes(v4), takes_v4, "{listener:?}");
            assert_eq!(listener.takes(v6), takes_v6, "{listener:?}");
        }
    }

    #[test]
    fn a_listener_of_this_process_is_found_by_address_and_by_process_group() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let diag = Diag::open().unwrap();
        let there = at(&diag, address).unwrap();
        assert_eq!(there.len(), 1, "{there:?}");
        assert_eq!(there[0].at, address);
        let own = owner::process_group_of(std::process::id().cast_signed()).unwrap();
        assert!(of_process_group(&diag, own).unwrap().contains(&there[0]));
        assert_eq!(there[0].owner().pid, Some(std::process::id().cast_signed()));
        drop(socket);
        assert_eq!(at(&diag, address).unwrap(), []);
    }

    #[tokio::test]
    async fn a_unix_listener_is_named_by_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        assert_eq!(
            of_unix(&path).await.unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let _socket = tokio::net::UnixListener::bind(&path).unwrap();
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let followed = of_unix(&link).await.unwrap_err();
        assert_eq!(followed.raw_os_error(), Some(nix::libc::ELOOP));
        let pid = of_unix(&path).await.unwrap();
        assert_eq!(pid, Some(std::process::id().cast_signed()));
    }
}
