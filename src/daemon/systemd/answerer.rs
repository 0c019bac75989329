//! Whose answer it is that comes from where a slot is to listen.
//!
//! **Invariant:** the slot's only if each listener that could have answered was made in its unit's cgroup. A unix socket that PID 1 holds
//! for the slot's own socket unit is the one exception; whoever accepts from it was started by PID 1.

use super::super::live::blocking;
use crate::probe::{Address, Diag, Listener, Owner, cgroup_of, in_cgroup, listeners};

/// PID 1's own cgroup, in which the sockets are made that it holds for others.
const INIT: &str = "/init.scope";

/// Who would answer at an address.
pub(super) enum Answerer {
    /// Nobody listens there.
    Nobody,
    /// The slot.
    Own,
    /// Somebody else, and the kernel says who.
    Stranger(Owner),
    /// Somebody, and the kernel does not say who.
    Unknown(String),
}

/// Who is asked about.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a> {
    /// Its cgroup; empty when it has no processes.
    pub(super) cgroup: &'a str,
    /// PID 1 listens for it (`bind = "fd"`).
    pub(super) has_socket: bool,
}

impl Unit<'_> {
    /// Who would answer at an address now.
    pub(super) async fn answerer(self, diag: &Diag, at: &Address) -> Answerer {
        match at {
            Address::Tcp(tcp) => {
                let there = match listeners::at(diag, *tcp) {
                    Ok(there) => there,
                    Err(reason) => return Answerer::Unknown(reason.to_string()),
                };
                match whose(&there, &own(diag, self.cgroup)) {
                    Whose::Nobodys => Answerer::Nobody,
                    Whose::Own => Answerer::Own,
                    Whose::Anothers(other) if other.cgroup.is_none() => Answerer::Unknown(
                        "the kernel does not say whose socket it is (it needs Linux 5.7)"
                            .to_owned(),
                    ),
                    Whose::Anothers(other) => {
                        let other = other.clone();
                        // Walks /proc and the cgroup tree.
                        Answerer::Stranger(blocking(move || other.owner()).await)
                    }
                }
            }
            Address::Unix(path) => match listeners::of_unix(path).await {
                Ok(Some(pid)) => self.process(pid),
                // Nobody listens, or it cannot be asked: then nobody answers either.
                Ok(None) | Err(_) => Answerer::Nobody,
            },
        }
    }

    /// A process that listens at the slot's unix socket. One that is gone leaves it to its children: the socket is in a directory that
    /// only the unit's user may write.
    pub(super) fn process(self, pid: i32) -> Answerer {
        match cgroup_of(pid) {
            Some(its) if !self.is_own(&its) => Answerer::Stranger(Owner::of_process(pid)),
            Some(_) | None => Answerer::Own,
        }
    }

    /// Whether a unix socket's listener in this cgroup is the slot's.
    fn is_own(self, its: &str) -> bool {
        (self.has_socket && in_cgroup(its, INIT))
            || (!self.cgroup.is_empty() && in_cgroup(its, self.cgroup))
    }
}

/// The listeners of a cgroup; none if that cannot be known.
pub(super) fn own(diag: &Diag, cgroup: &str) -> Vec<Listener> {
    listeners::of_cgroup(diag, cgroup).unwrap_or_default()
}

/// Whose an address is.
#[derive(Debug, PartialEq, Eq)]
enum Whose<'a> {
    Nobodys,
    Own,
    Anothers(&'a Listener),
}

/// Of those that listen at an address, each has to be one of the slot's own: any of them may get the next connection.
fn whose<'a>(there: &'a [Listener], own: &[Listener]) -> Whose<'a> {
    match there.iter().find(|listener| !own.contains(listener)) {
        Some(other) => Whose::Anothers(other),
        None if there.is_empty() => Whose::Nobodys,
        None => Whose::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(inode: u64) -> Listener {
        Listener {
            at: "127.0.0.1:20002".parse().unwrap(),
            v6_only: false,
            inode,
            cgroup: Some(7),
        }
    }

    #[test]
    fn an_address_is_a_slots_if_all_who_listen_there_are() {
        let (one, two, other) = (listener(1), listener(2), listener(3));
        let own = [one.clone(), two.clone()];
        assert_eq!(whose(&[], &own), Whose::Nobodys);
        assert_eq!(whose(&[], &[]), Whose::Nobodys);
        assert_eq!(whose(&own, &own), Whose::Own);
        // SO_REUSEPORT: the next connection may go to either.
        let both = [two, other.clone()];
        assert_eq!(whose(&both, &own), Whose::Anothers(&other));
        assert_eq!(
            whose(std::slice::from_ref(&one), &[]),
            Whose::Anothers(&one)
        );
    }

    #[test]
    fn a_socket_of_pid_1_is_a_slots_only_if_the_slot_has_a_socket_unit() {
        let cgroup = "/slot.slice/web@green.service";
        for (its, has_socket, expected) in [
            (cgroup, false, true),
            ("/slot.slice/web@green.service/worker", false, true),
            ("/slot.slice/web@green.service2", false, false),
            ("/slot.slice/web@blue.service", true, false),
            (INIT, true, true),
            (INIT, false, false),
        ] {
            let unit = Unit { cgroup, has_socket };
            assert_eq!(unit.is_own(its), expected, "{its} {has_socket}");
        }
        let down = Unit {
            cgroup: "",
            has_socket: false,
        };
        assert!(!down.is_own("/system.slice/nginx.service"));
    }
}
