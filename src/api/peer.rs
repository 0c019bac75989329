//! Who asks, and what he may: the kernel's word on a unix socket, a token's over TCP; never the caller's own.

use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, User};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::probe::Owner;
use crate::wire::token::Scope;

/// The most groups that a peer may have for them to be looked at.
const GROUPS: usize = 1024;

/// How long the name of a user is waited for; without it there is his number.
const PATIENCE: Duration = Duration::from_secs(2);

/// As many threads may wait for names at once: those that never come are to leave threads for what else blocks.
static NAMING: Semaphore = Semaphore::const_new(8);

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// The process at the other end of a unix socket, as it was when it connected (unix(7), `SO_PEERCRED`, `SO_PEERGROUPS`).
    Process {
        /// Its user.
        uid: u32,
        /// Its number then.
        pid: i32,
        /// Its groups.
        groups: Vec<u32>,
        /// The name of its user, if that has one and [was asked for](Peer::named).
        user: Option<String>,
        /// The unit that it was in, if [that was looked for](Peer::in_unit).
        unit: Option<String>,
    },
    /// Whoever has this token.
    Token {
        /// Whose it is, as its line says.
        name: String,
        /// What it may.
        scope: Scope,
        /// From where.
        from: IpAddr,
    },
    /// The kernel does not say.
    #[default]
    Nobody,
}

impl Peer {
    /// The peer of a connection; one that the kernel does not name is nobody.
    #[must_use]
    pub fn of(stream: &UnixStream) -> Self {
        let Ok(credentials) = getsockopt(stream, sockopt::PeerCredentials) else {
            return Self::Nobody;
        };
        let mut groups = peer_groups(stream.as_raw_fd());
        groups.push(credentials.gid());
        Self::Process {
            uid: credentials.uid(),
            pid: credentials.pid(),
            groups,
            user: None,
            unit: None,
        }
    }

    /// The same, with the unit that it is in now. To be asked for at once: of a process that has ended nobody knows.
    pub(super) fn in_unit(mut self) -> Self {
        if let Self::Process { pid, unit, .. } = &mut self {
            *unit = Owner::of_process(*pid).unit;
        }
        self
    }

    /// The same, with the name of its user. NSS may ask a directory for that (nsswitch.conf(5)), and be in no hurry: so it is asked in a
    /// thread that may block, for a limited time, and only about those of whom something is written down.
    pub(super) async fn named(self) -> Self {
        self.named_by(|uid| Some(User::from_uid(uid).ok()??.name))
            .await
    }

    async fn named_by(
        mut self,
        name_of: impl FnOnce(Uid) -> Option<String> + Send + 'static,
    ) -> Self {
        if let Self::Process { uid, user, .. } = &mut self {
            let uid = Uid::from_raw(*uid);
            let asked = async {
                let place = NAMING.acquire().await.ok()?;
                let name_of = move || {
                    let _place = place;
                    name_of(uid)
                };
                tokio::task::spawn_blocking(name_of).await.ok()?
            };
            *user = tokio::time::timeout(PATIENCE, asked).await.ok().flatten();
        }
        self
    }

    /// Its user, if the kernel says who.
    pub(super) fn uid(&self) -> Option<u32> {
        match self {
            Self::Process { uid, .. } => Some(*uid),
            Self::Token { .. } | Self::Nobody => None,
        }
    }

    /// The name of its user, if that is known.
    pub(super) fn user(&self) -> Option<String> {
        match self {
            Self::Process { user, .. } => user.clone(),
            Self::Token { .. } | Self::Nobody => None,
        }
    }

    /// The unit that it was in, if that is known.
    pub(super) fn unit(&self) -> Option<String> {
        match self {
            Self::Process { unit, .. } => unit.clone(),
            Self::Token { .. } | Self::Nobody => None,
        }
    }

    /// For journals and for `by`: `deploy (pid 4242)`, `uid 1000 (pid 4242)` where no name is known, `token ci (10.0.0.7)`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Process { uid, pid, user, .. } => match user {
                Some(name) => format!("{name} (pid {pid})"),
                None => format!("uid {uid} (pid {pid})"),
            },
            Self::Token { name, from, .. } => format!("token {name} ({from})"),
            Self::Nobody => "nobody".to_owned(),
        }
    }
}

/// What somebody may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum May {
    /// Ask whether slotd is there.
    Nothing,
    /// Look.
    Read,
    /// Look, and change what serves.
    Act,
    /// All that, and say what root has done to the machine.
    Root,
}

/// Who may use the API.
#[derive(Clone, Debug)]
pub struct Access {
    uids: Vec<u32>,
    acting: Option<u32>,
    reading: Option<u32>,
}

impl Access {
    /// Root, this process's own user, and the members of two groups (if the machine has them), of which those of the second may look.
    #[must_use]
    pub fn root_and_groups(acting: &str, reading: &str) -> Self {
        let id = |name| Some(Gid::as_raw(Group::from_name(name).ok()??.gid));
        Self {
            acting: id(acting),
            reading: id(reading),
            ..Self::own_user()
        }
    }

    /// Root and this process's own user.
    #[must_use]
    pub fn own_user() -> Self {
        Self {
            uids: vec![0, Uid::effective().as_raw()],
            acting: None,
            reading: None,
        }
    }

    /// Nobody at all.
    #[cfg(test)]
    pub(super) fn nobody() -> Self {
        Self {
            uids: Vec::new(),
            acting: None,
            reading: None,
        }
    }

    /// The same, and root.
    #[cfg(test)]
    pub(super) fn root_and_readers(group: u32) -> Self {
        Self {
            uids: vec![0],
            ..Self::readers(group)
        }
    }

    /// The members of a group may look, and nobody acts.
    #[cfg(test)]
    pub(super) fn readers(group: u32) -> Self {
        Self {
            reading: Some(group),
            ..Self::nobody()
        }
    }

    /// What a peer may.
    #[must_use]
    pub fn may(&self, peer: &Peer) -> May {
        match peer {
            Peer::Process { uid, groups, .. } => {
                let is_in = |group: Option<u32>| group.is_some_and(|id| groups.contains(&id));
                let is_own = self.uids.contains(uid);
                if is_own && *uid == 0 {
                    May::Root
                } else if is_own || is_in(self.acting) {
                    May::Act
                } else if is_in(self.reading) {
                    May::Read
                } else {
                    May::Nothing
                }
            }
            Peer::Token { scope, .. } => match scope {
                Scope::Read => May::Read,
                Scope::Act => May::Act,
            },
            Peer::Nobody => May::Nothing,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn process(uid: u32, groups: &[u32]) -> Peer {
        Peer::Process {
            uid,
            pid: 42,
            groups: groups.to_vec(),
            user: None,
            unit: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_does_not_come_is_waited_for_no_longer_than_said() {
        let (answer, asked) = std::sync::mpsc::channel::<()>();
        let never = move |_| {
            let _ = asked.recv();
            Some("late".to_owned())
        };
        let named = tokio::spawn(process(0, &[]).named_by(never));
        tokio::task::yield_now().await;
        tokio::time::advance(PATIENCE).await;
        let peer = named.await.unwrap();
        assert_eq!(peer.name(), "uid 0 (pid 42)");
        // Its thread ends with the test.
        drop(answer);
    }

    #[tokio::test]
    async fn a_process_has_the_name_of_its_user_once_that_was_asked_for() {
        assert_eq!(process(0, &[]).name(), "uid 0 (pid 42)");
        assert_eq!(process(0, &[]).named().await.name(), "root (pid 42)");
        // No user has this number (systemd's UIDS-GIDS): it stands for nobody in the kernel's own calls.
        let unknown = process(u32::MAX, &[]).named().await;
        assert_eq!((unknown.user(), unknown.uid()), (None, Some(u32::MAX)));
    }

    #[test]
    fn root_and_one_group_act_another_looks_and_others_do_neither() {
        let access = Access {
            uids: vec![0, 990],
            acting: Some(100),
            reading: Some(200),
        };
        for (peer, may) in [
            (process(0, &[]), May::Root),
            (process(990, &[990]), May::Act),
            (process(1000, &[1000, 100]), May::Act),
            (process(1000, &[200, 100]), May::Act),
            (process(1000, &[1000, 200]), May::Read),
            (process(1000, &[1000]), May::Nothing),
            (Peer::Nobody, May::Nothing),
        ] {
            assert_eq!(access.may(&peer), may, "{peer:?}");
        }
    }

    #[test]
    fn a_token_may_what_its_line_says_and_is_named_without_itself() {
        let token = |scope| Peer::Token {
            name: "ci".to_owned(),
            scope,
            from: [10, 0, 0, 7].into(),
        };
        let access = Access::nobody();
        assert_eq!(access.may(&token(Scope::Read)), May::Read);
        assert_eq!(access.may(&token(Scope::Act)), May::Act);
        assert_eq!(token(Scope::Act).name(), "token ci (10.0.0.7)");
    }
}
