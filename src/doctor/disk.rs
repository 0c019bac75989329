//! Room on disk, and the clock.

use super::facts::{Disk, Facts};
use super::finding::Finding;
use crate::telemetry::bytes;

/// With less than this a state may soon not be written: nothing could be decided any more.
const LEAST: u64 = 8 << 20;

/// With less than this, or twice the largest release, the next deployment may be refused.
const LITTLE: u64 = 64 << 20;

/// The same of a file system that has to hold the table alone.
const LEAST_VOLATILE: u64 = 256 << 10;

/// With fewer files than this left, a release with many is refused.
const FEW_FILES: u64 = 10_000;

/// By how much the clock may be behind what was written, in milliseconds.
const BEHIND: u64 = 60_000;

pub(super) fn disks(facts: &Facts) -> Vec<Finding> {
    let largest = facts
        .apps
        .values()
        .map(|app| app.largest)
        .max()
        .unwrap_or(0);
    facts.disks.iter().map(|disk| room(disk, largest)).collect()
}

fn room(disk: &Disk, largest: u64) -> Finding {
    let object = disk.path.display().to_string();
    let left = format!("has {} left", bytes(disk.free));
    let (least, little) = match disk.volatile {
        true => (LEAST_VOLATILE, LEAST_VOLATILE),
        false => (LEAST, LITTLE.max(largest.saturating_mul(2))),
    };
    let free_some = format!(
        "free some space (`df -h {object}`; `journalctl --vacuum-size=200M`), or keep fewer releases (`keep` in slot.toml)"
    );
    if disk.free < least {
        return Finding::problem("disk-full", &object, left)
            .because(
                "what cannot be written down is not done: no switch, and no rollback by itself",
            )
            .mended_by(free_some);
    }
    if let Some(files) = disk.files.filter(|files| *files < FEW_FILES) {
        return Finding::warning(
            "disk-files",
            &object,
            format!("has room for {files} more files (inodes)"),
        )
        .because("a release with more than that is refused, however small")
        .mended_by(format!(
            "remove what is not needed (`df -i {object}` counts them), or keep fewer releases"
        ));
    }
    if disk.free < little {
        return Finding::warning("disk-short", &object, left)
            .because("the next release may not have room, and its deployment is refused then")
            .mended_by(free_some);
    }
    Finding::ok("disk", &object, left)
}

pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
    let object = "clock";
    let ahead = facts
        .newest_ms
        .map_or(0, |newest| newest.saturating_sub(facts.now_ms));
    if ahead > BEHIND {
        let seconds = ahead / 1000;
        return vec![
            Finding::problem("clock-behind", object, format!("is {seconds} s before the time at which slot last wrote something"))
                .because("it went back, or was wrong then: soaks, drains and everything else that lasts until some time last longer by as much")
                .mended_by("`timedatectl` shows what sets it; `systemctl restart systemd-timesyncd` (or chrony) sets it"),
        ];
    }
    vec![match &facts.clock_is_set {
        _ if facts.container => Finding::ok(object, object, "is that of the machine that this container is on"),
        Err(why) => Finding::unseen(object, object, why),
        Ok(Some(true)) => Finding::ok(object, object, "is synchronised"),
        Ok(Some(false)) => Finding::warning("clock-unset", object, "is not synchronised, though a service is there for it")
            .because("deadlines are kept on disk by the clock: when it is set at last, they are over too early or too late")
            .mended_by("`timedatectl timesync-status`, or `chronyc tracking`, says what it waits for"),
        Ok(None) => Finding::warning("clock-free", object, "is set by nothing")
            .because("deadlines are kept on disk by the clock, and logs are compared by it")
            .mended_by("`timedatectl set-ntp true` (on Debian after `apt install systemd-timesyncd`), or chrony"),
    }]
}
