//! Whose a process or a socket is: `/proc` and the cgroup tree, read without privilege.
//!
//! **Invariant:** everything here is for telling people, or is compared with the cgroup that PID 1 names; what cannot be read is absent, never
//! guessed.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Listener;

/// Where systemd mounts the one cgroup tree (cgroups(7)).
const TREE: &str = "/sys/fs/cgroup";

/// How deep below a unit's cgroup is looked, and in the whole tree for a stranger: `user.slice/user-1000.slice/user@1000.service/app.slice/…`.
const DEPTH: usize = 12;

/// Who holds a socket, as far as it can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// One process that has it, or the first of the cgroup.
    pub pid: Option<i32>,
    /// That process's name (`/proc/<pid>/comm`).
    pub name: Option<String>,
    /// `nginx.service`, `session-3.scope`, `user@1000.service`: the unit of PID 1's in which it was made.
    pub unit: Option<String>,
}

impl Owner {
    /// A process, and the unit that it is in.
    #[must_use]
    pub fn of_process(pid: i32) -> Self {
        Self {
            pid: Some(pid),
            name: name_of(pid),
            unit: cgroup_of(pid).and_then(|cgroup| unit_of(&cgroup)),
        }
    }

    /// PID 1 made it, for a socket unit.
    #[must_use]
    pub fn is_init(&self) -> bool {
        self.unit.as_deref() == Some("init.scope")
    }
}

/// `pid 4242 (python3) of other.service`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_init() {
            return f.write_str("a socket unit (`systemctl list-sockets` names it)");
        }
        match (self.pid, &self.name) {
            (Some(pid), Some(name)) => write!(f, "pid {pid} ({name})")?,
            (Some(pid), None) => write!(f, "pid {pid}")?,
            (None, _) => f.write_str("a process")?,
        }
        match &self.unit {
            Some(unit) => write!(f, " of {unit}"),
            None if self.pid.is_none() => f.write_str(" that cannot be named"),
            None => Ok(()),
        }
    }
}

impl Listener {
    /// Its address, and the name of its process: `127.0.0.1:3000 (node)`. Walks the cgroup tree, as [`Listener::owner`] does.
    #[must_use]
    pub fn named(&self) -> String {
        match self.owner().name {
            Some(name) => format!("{} ({name})", self.at),
            None => self.at.to_string(),
        }
    }

    /// Who made it. Walks the cgroup tree, so it is for messages only.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let cgroup = self.cgroup.and_then(|id| find(Path::new(TREE), id, DEPTH));
        let members = cgroup.as_deref().map(members_of).unwrap_or_default();
        let holds = |pid: &i32| sockets_of(*pid).any(|inode| inode == self.inode);
        let pid = members
            .iter()
            .copied()
            .find(holds)
            // Outside of cgroups only what this user may read can tell.
            .or_else(|| processes().find(holds))
            .or_else(|| members.first().copied());
        Owner {
            pid,
            name: pid.and_then(name_of),
            unit: cgroup
                .as_deref()
                .and_then(|path| path.strip_prefix(TREE).ok()?.to_str())
                .and_then(unit_of)
                .or_else(|| unit_of(&cgroup_of(pid?)?)),
        }
    }
}

/// The cgroup that a process is in: `/system.slice/nginx.service`.
#[must_use]
pub fn cgroup_of(pid: i32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // `0::` is the one hierarchy of cgroups v2; a hybrid set-up has others beside it (cgroups(7)).
    let line = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(line.to_owned())
}

/// The processes of a cgroup and of those below it.
#[must_use]
pub fn processes_of(cgroup: &str) -> Vec<i32> {
    processes()
        .filter(|pid| cgroup_of(*pid).is_some_and(|own| in_cgroup(&own, cgroup)))
        .filter(|_| !cgroup.trim_matches('/').is_empty())
        .collect()
}

/// The processes of a process group.
#[must_use]
pub fn processes_of_group(group: i32) -> Vec<i32> {
    processes()
        .filter(|pid| process_group_of(*pid) == Some(group))
        .collect()
}

/// Whether a cgroup is another one or below it.
#[must_use]
pub fn in_cgroup(cgroup: &str, of: &str) -> bool {
    cgroup
        .strip_prefix(of)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The process group of a process.
#[must_use]
pub fn process_group_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything; the fifth is the group (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// The inode numbers of a cgroup's directory and of those below it, as sockets name them.
pub(super) fn cgroup_ids(cgroup: &str) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    // `/` is what PID 1 says of a unit without processes; the whole tree must not count as that unit's.
    let relative = cgroup.trim_matches('/');
    if !relative.is_empty() && !relative.split('/').any(|part| part == "..") {
        collect(&Path::new(TREE).join(relative), DEPTH, &mut ids);
    }
    ids
}

fn collect(dir: &Path, depth: usize, ids: &mut BTreeSet<u64>) {
    let Ok(metadata) = fs::metadata(dir) else {
        return;
    };
    ids.insert(metadata.ino());
    if depth > 0 {
        for child in children(dir) {
            collect(&child, depth - 1, ids);
        }
    }
}

fn find(dir: &Path, id: u64, depth: usize) -> Option<PathBuf> {
    if fs::metadata(dir).is_ok_and(|metadata| metadata.ino() == id) {
        return Some(dir.to_owned());
    }
    if depth == 0 {
        return None;
    }
    children(dir).find_map(|child| find(&child, id, depth - 1))
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn members_of(cgroup: &Path) -> Vec<i32> {
    fs::read_to_string(cgroup.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The unit of PID 1's that a cgroup is in.
fn unit_of(cgroup: &str) -> Option<String> {
    let manager = cgroup_of(1).unwrap_or_default();
    unit_in(below(&manager, cgroup))
}

/// A cgroup as the manager names it whose own processes are in another one. A container that sees all of its host's tree has its units below
/// something else.
fn below<'a>(manager: &str, cgroup: &'a str) -> &'a str {
    let root = manager.strip_suffix("/init.scope").unwrap_or_default();
    match cgroup.strip_prefix(root) {
        Some(rest) if in_cgroup(cgroup, root) => rest,
        _ => cgroup,
    }
}

/// The unit in a path that begins at its manager's, as `sd_pid_get_unit`(3) finds it: what comes after the slices. What is below it was made
/// by the unit itself, or by whom it is delegated to, who may give that any name.
fn unit_in(cgroup: &str) -> Option<String> {
    let mut parts = cgroup.split('/').filter(|part| !part.is_empty());
    let unit = parts.find(|part| !part.ends_with(".slice"))?;
    // What would look like a file of the kernel's has one before it (systemd's cg_escape).
    let unit = unit.strip_prefix('_').unwrap_or(unit);
    let kinds = [".service", ".scope", ".socket", ".mount", ".swap"];
    let is_unit = kinds.iter().any(|kind| unit.ends_with(kind));
    is_unit.then(|| unit.to_owned())
}

fn name_of(pid: i32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let name = name.trim_end_matches('\n');
    // A process names itself as it likes; this goes to terminals.
    Some(name.replace(char::is_control, "\u{fffd}"))
}

/// Every process that can be seen.
pub(super) fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The inode numbers of the sockets that a process has open; none if that may not be seen.
pub(super) fn sockets_of(pid: i32) -> impl Iterator<Item = u64> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target
                .to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_named_as_far_as_it_is_known() {
        let owner = |pid, name: Option<&str>, unit: Option<&str>| {
            Owner {
                pid,
                name: name.map(str::to_owned),
                unit: unit.map(str::to_owned),
            }
            .to_string()
        };
        assert_eq!(
            owner(Some(4242), Some("python3"), Some("other.service")),
            "pid 4242 (python3) of other.service"
        );
        assert_eq!(owner(Some(4242), None, None), "pid 4242");
        assert_eq!(
            owner(None, None, Some("a.service")),
            "a process of a.service"
        );
        assert_eq!(owner(None, None, None), "a process that cannot be named");
        assert!(owner(Some(1), Some("systemd"), Some("init.scope")).contains("list-sockets"));
    }

    #[test]
    fn the_unit_is_the_one_that_pid_1_knows_whatever_is_made_below_it() {
        for (cgroup, unit) in [
            ("/system.slice/nginx.service", Some("nginx.service")),
            (
                "/user.slice/user-0.slice/user@0.service/app.slice/x.scope",
                Some("user@0.service"),
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            ("/system.slice/docker.service/inner", Some("docker.service")),
            // Whoever has a unit of his own may say so, and is neither.
            ("/system.slice/ci.service/slotd.service", Some("ci.service")),
            ("/system.slice/ci.service/init.scope", Some("ci.service")),
            (
                "/system.slice/ci.service/system.slice/sshd.service",
                Some("ci.service"),
            ),
            ("/system.slice/_cpu.service", Some("cpu.service")),
            ("/init.scope", Some("init.scope")),
            // Outside of this cgroup namespace (cgroup_namespaces(7)), or made by no systemd.
            ("/../../system.slice/nginx.service", None),
            ("/lxc/inner/x.service", None),
            ("/system.slice", None),
            ("/", None),
        ] {
            assert_eq!(unit_in(cgroup).as_deref(), unit, "{cgroup}");
        }
    }

    #[test]
    fn a_container_without_a_namespace_has_its_units_below_its_own() {
        for (manager, cgroup, own) in [
            (
                "/init.scope",
                "/system.slice/a.service",
                "/system.slice/a.service",
            ),
            (
                "/machine.slice/m.scope/init.scope",
                "/machine.slice/m.scope/system.slice/a.service",
                "/system.slice/a.service",
            ),
            (
                "/machine.slice/m.scope/init.scope",
                "/machine.slice/m.scope2/system.slice/a.service",
                "/machine.slice/m.scope2/system.slice/a.service",
            ),
            // No systemd's, or one that cannot be seen.
            ("/lxc", "/lxc/a.service", "/lxc/a.service"),
            ("", "/a.service", "/a.service"),
        ] {
            assert_eq!(below(manager, cgroup), own, "{manager} {cgroup}");
        }
    }

    #[test]
    fn a_cgroup_is_not_below_one_that_only_begins_like_it() {
        assert!(in_cgroup(
            "/a.slice/web@green.service",
            "/a.slice/web@green.service"
        ));
        assert!(in_cgroup(
            "/a.slice/web@green.service/sub",
            "/a.slice/web@green.service"
        ));
        assert!(!in_cgroup(
            "/a.slice/web@green.service2",
            "/a.slice/web@green.service"
        ));
    }

    #[test]
    fn the_root_of_the_tree_is_no_units_cgroup() {
        assert!(cgroup_ids("/").is_empty());
        assert!(cgroup_ids("").is_empty());
        assert!(cgroup_ids("/a/../..").is_empty());
    }
}
