//! Who asks: the kernel's word, not the caller's.

use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};

use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, User};
use tokio::net::UnixStream;

/// The most groups that a peer may have for them to be looked at.
const GROUPS: usize = 1024;

/// The process at the other end of a unix socket, as it was when it connected (unix(7), `SO_PEERCRED`, `SO_PEERGROUPS`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    uid: Option<u32>,
    pid: i32,
    groups: Vec<u32>,
}

impl Peer {
    /// The peer of a connection; one that the kernel does not name is nobody.
    #[must_use]
    pub fn of(stream: &UnixStream) -> Self {
        let Ok(credentials) = getsockopt(stream, sockopt::PeerCredentials) else {
            return Self::default();
        };
        let mut groups = peer_groups(stream.as_raw_fd());
        groups.push(credentials.gid());
        Self {
            uid: Some(credentials.uid()),
            pid: credentials.pid(),
            groups,
        }
    }

    /// Its user, if the kernel says who.
    pub(super) fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// For journals and for `by`: `root`, `deploy (pid 4242)`.
    #[must_use]
    pub fn name(&self) -> String {
        let Some(uid) = self.uid else {
            return "nobody".to_owned();
        };
        let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let name = known.map_or_else(|| format!("uid {uid}"), |user| user.name);
        format!("{name} (pid {})", self.pid)
    }
}

/// Who may use the API.
#[derive(Clone, Debug)]
pub struct Access {
    uids: Vec<u32>,
    group: Option<u32>,
}

impl Access {
    /// Root, this process's own user, and the members of a group (if the machine has it).
    #[must_use]
    pub fn root_and_group(group: &str) -> Self {
        let group = Group::from_name(group)
            .ok()
            .flatten()
            .map(|group| Gid::as_raw(group.gid));
        Self {
            group,
            ..Self::own_user()
        }
    }

    /// Root and this process's own user.
    #[must_use]
    pub fn own_user() -> Self {
        Self {
            uids: vec![0, Uid::effective().as_raw()],
            group: None,
        }
    }

    /// Nobody at all.
    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self {
            uids: Vec::new(),
            group: None,
        }
    }

    /// Whether a peer may.
    #[must_use]
    pub fn allows(&self, peer: &Peer) -> bool {
        peer.uid.is_some_and(|uid| self.uids.contains(&uid))
            || self.group.is_some_and(|group| peer.groups.contains(&group))
    }
}

/// The peer's supplementary groups. No crate of ours has this option, whose value has no fixed size.
fn peer_groups(socket: RawFd) -> Vec<u32> {
    let mut groups = vec![0_u32; GROUPS];
    let mut length = libc::socklen_t::try_from(groups.len() * size_of::<u32>()).expect("4 KiB fit");
    #[allow(unsafe_code)]
    // SAFETY: the pointer and the length are those of `groups`, whose elements any bytes are valid for; the kernel writes at most
    // `length` bytes and stores there how many it wrote.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    groups.truncate(if result == 0 {
        length as usize / size_of::<u32>()
    } else {
        0
    });
    groups
}
