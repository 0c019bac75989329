//! Disk and memory for a second copy.

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::telemetry::bytes;

/// What a deployment will need, and what there is of it; bytes. What is not known is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What will be written.
    pub disk_needed: Option<u64>,
    /// What the file system has for it.
    pub disk_free: Option<u64>,
    /// What the slot that serves uses: the new one will need about as much, beside it.
    pub memory_needed: Option<u64>,
    /// What the machine can still give.
    pub memory_free: Option<u64>,
}

impl Room {
    /// Why the release cannot be put into a directory, if that is so.
    #[must_use]
    pub fn disk_objection(&self, place: &Path) -> Option<String> {
        let (needed, free) = (self.disk_needed?, self.disk_free?);
        (needed > free).then(|| {
            format!(
                "the release takes {}, and the file system of {place} has {} left (`df -h {place}`); free some space, keep fewer \
                 releases (`keep` in slot.toml), or deploy with --skip-check disk",
                bytes(needed),
                bytes(free),
                place = place.display(),
            )
        })
    }

    /// Why a second copy cannot run beside the one in `unit`, if that is so.
    #[must_use]
    pub fn memory_objection(&self, unit: &str) -> Option<String> {
        let (needed, free) = (self.memory_needed?, self.memory_free?);
        (needed > free).then(|| {
            format!(
                "{unit} uses {} of memory, a second copy beside it would need as much, and {} is available (`free -h`); end something \
                 else, add swap, or deploy with --skip-check memory",
                bytes(needed),
                bytes(free),
            )
        })
    }
}

/// What a file system still has for those who are not root (statvfs(3), `f_bavail`), in bytes.
///
/// # Errors
/// The path is not there.
pub fn free_disk(place: &Path) -> io::Result<u64> {
    let found = statvfs(place)?;
    Ok(found.blocks_available() * found.fragment_size())
}

/// Why a directory's file system has no room for so many bytes, if that is so.
#[must_use]
pub fn short_of_disk(place: &Path, needed: Option<u64>) -> Option<String> {
    let room = Room {
        disk_needed: needed,
        disk_free: free_disk(place).ok(),
        ..Room::default()
    };
    room.disk_objection(place)
}

/// What can be had without driving others out, swap included, in bytes (proc(5), `/proc/meminfo`).
#[must_use]
pub fn available_memory(proc: &Path) -> Option<u64> {
    let text = fs::read_to_string(proc.join("meminfo")).ok()?;
    let swap = kilobytes(&text, "SwapFree:").unwrap_or(0);
    Some((kilobytes(&text, "MemAvailable:")? + swap) * 1024)
}

/// The memory of a process that no file stands for, in bytes: what a second copy of it needs anew. 0 if it has ended.
#[must_use]
pub fn anonymous(proc: &Path, pid: i32) -> u64 {
    let text = fs::read_to_string(proc.join(format!("{pid}/status"))).unwrap_or_default();
    let of = |key| kilobytes(&text, key).unwrap_or(0);
    (of("RssAnon:") + of("RssShmem:")) * 1024
}

/// The same of a whole control group, where the kernel counts that (cgroups(7), `memory.stat`).
#[must_use]
pub fn used_by_cgroup(cgroup: &str) -> Option<u64> {
    let relative = cgroup.strip_prefix('/').filter(|path| !path.is_empty())?;
    let path = Path::new("/sys/fs/cgroup").join(relative);
    let text = fs::read_to_string(path.join("memory.stat")).ok()?;
    let of = |key| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().parse::<u64>().ok()
    };
    Some(of("anon ")? + of("shmem ").unwrap_or(0))
}

fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_named_with_both_figures_and_the_way_out() {
        let room = Room {
            disk_needed: Some(3 << 30),
            disk_free: Some(1 << 30),
            memory_needed: Some(900 << 20),
            memory_free: Some(300 << 20),
        };
        let disk = room.disk_objection(Path::new("/var/lib/slot")).unwrap();
        assert!(disk.contains("takes 3.0 GiB") && disk.contains("has 1.0 GiB left"));
        assert!(disk.contains("--skip-check disk"));
        let memory = room.memory_objection("web@blue.service").unwrap();
        assert!(memory.contains("uses 900.0 MiB") && memory.contains("300.0 MiB is available"));
        assert!(memory.contains("--skip-check memory"));
    }

    #[test]
    fn what_fits_exactly_fits_and_what_is_unknown_is_no_objection() {
        let fits = Room {
            disk_needed: Some(1),
            disk_free: Some(1),
            memory_needed: Some(1),
            memory_free: Some(1),
        };
        for room in [fits, Room::default()] {
            assert_eq!(room.disk_objection(Path::new("/")), None);
            assert_eq!(room.memory_objection("web@blue"), None);
        }
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let proc = tempfile::tempdir().unwrap();
        let text = "MemTotal:  100 kB\nMemAvailable:      70 kB\nSwapFree:   5 kB\n";
        fs::write(proc.path().join("meminfo"), text).unwrap();
        assert_eq!(available_memory(proc.path()), Some(75 * 1024));
        fs::create_dir(proc.path().join("7")).unwrap();
        let text = "Name:\tnode\nRssAnon:\t     40 kB\nRssFile:\t  9 kB\nRssShmem:\t 2 kB\n";
        fs::write(proc.path().join("7/status"), text).unwrap();
        assert_eq!(anonymous(proc.path(), 7), 42 * 1024);
        assert_eq!(anonymous(proc.path(), 8), 0);
    }

    #[test]
    fn a_directory_has_the_room_of_its_file_system() {
        assert!(free_disk(Path::new("/proc/self")).is_ok());
        assert!(free_disk(Path::new("/nonexistent")).is_err());
        assert_eq!(used_by_cgroup(""), None);
    }
}
