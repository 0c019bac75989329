//! Who listens on which port of this machine (proc(5): `/proc/net/tcp`, `/proc/net/tcp6`, `/proc/<pid>/fd`).
//!
//! **Invariant:** reads only; what cannot be read is left out, since it only makes an answer shorter.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub command: String,
    /// Its unit, where it is one's.
    pub unit: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}", self.command, self.pid)?;
        if let Some(unit) = &self.unit {
            write!(f, ", {unit}")?;
        }
        f.write_str(")")
    }
}

/// Every TCP port that somebody listens on, on any address.
#[must_use]
pub fn taken_ports() -> BTreeSet<u16> {
    listening().into_iter().map(|(port, _)| port).collect()
}

/// Who listens on a port; empty also where that may not be seen. Root sees all.
#[must_use]
pub fn holders(port: u16) -> Vec<Holder> {
    let wanted: BTreeSet<String> = listening()
        .into_iter()
        .filter(|(listened, _)| *listened == port)
        .map(|(_, inode)| format!("socket:[{inode}]"))
        .collect();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut holders: Vec<Holder> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !wanted.is_empty() && holds(*pid, &wanted))
        .map(describe)
        .collect();
    // The first process of a server is the one that people know.
    holders.sort_by_key(|holder| holder.pid);
    holders.dedup_by(|one, other| one.unit.is_some() && one.unit == other.unit);
    holders
}

fn holds(pid: u32, wanted: &BTreeSet<String>) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    fds.flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .any(|target| {
            target
                .to_str()
                .is_some_and(|target| wanted.contains(target))
        })
}

fn describe(pid: u32) -> Holder {
    let read = |name: &str| fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(name));
    Holder {
        pid,
        command: read("comm").unwrap_or_default().trim().to_owned(),
        unit: read("cgroup").ok().and_then(|text| unit_of(&text)),
    }
}

/// The unit in a `/proc/<pid>/cgroup`: `0::/system.slice/nginx.service`.
fn unit_of(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.rsplit('/')
        .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
        .map(str::to_owned)
}

/// Ports and socket inodes.
fn listening() -> Vec<(u16, u64)> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| parse(&text))
        .collect()
}

/// Lines of `/proc/net/tcp`: `sl local_address rem_address st … inode`, state 0A being LISTEN.
fn parse(text: &str) -> Vec<(u16, u64)> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let local = fields.nth(1)?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?.parse().ok()?;
            let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
            (state == "0A").then_some((port, inode))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listener_is_found_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(taken_ports().contains(&port));
        let pids: Vec<u32> = holders(port).iter().map(|holder| holder.pid).collect();
        assert_eq!(pids, [std::process::id()]);
    }

    #[test]
    fn only_listeners_are_taken_from_the_table() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:1F91 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n";
        assert_eq!(parse(text), [(8080, 4711)]);
    }

    #[test]
    fn a_unit_is_read_from_the_cgroup() {
        assert_eq!(
            unit_of("0::/system.slice/nginx.service\n").as_deref(),
            Some("nginx.service")
        );
        assert_eq!(unit_of("0::/init.scope\n").as_deref(), Some("init.scope"));
        assert_eq!(unit_of("0::/\n"), None);
    }
}
