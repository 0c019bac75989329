//! Whom a process runs as, and whether that is whom a unit would run as (systemd.exec(5), `User=`, `DynamicUser=`).
//!
//! **Invariant:** only looked at, never changed; names are asked of NSS, which may block.

use std::ffi::CString;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;

use nix::unistd::{Uid, User, getgrouplist};

/// The user ids that systemd gives to `DynamicUser=` (systemd's UIDS-GIDS).
const DYNAMIC: RangeInclusive<u32> = 61_184..=65_519;

/// The effective user of a process, if there is such a process.
#[must_use]
pub fn owner(pid: u32) -> Option<u32> {
    // The directory itself is its effective user's whether or not the process is dumpable (proc(5)).
    let about = std::fs::metadata(format!("/proc/{pid}")).ok()?;
    Some(about.uid())
}

/// Whether a unit with this `User=` (empty: root) would run as this user id.
#[must_use]
pub fn is_user(uid: u32, user: &str, dynamic: bool) -> bool {
    let by_name = || Some(User::from_name(user).ok()??.uid.as_raw());
    let named = if user.is_empty() {
        Some(0)
    } else {
        user.parse().ok().or_else(by_name)
    };
    match named {
        Some(named) => named == uid,
        // Without libnss-systemd the name of a dynamic user is unknown, and with it, as long as no unit has it. Slots of one app have
        // the same one.
        None => dynamic && DYNAMIC.contains(&uid),
    }
}

/// The user id of `User=` (empty: root) and the groups of whoever it names, if there is such a user.
#[must_use]
pub fn ids(user: &str) -> Option<(u32, Vec<u32>)> {
    let found = match user.parse::<u32>() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) if user.is_empty() => User::from_uid(Uid::from_raw(0)),
        Err(_) => User::from_name(user),
    };
    let found = found.ok()??;
    let name = CString::new(found.name).ok()?;
    let groups = getgrouplist(&name, found.gid).unwrap_or_else(|_| vec![found.gid]);
    Some((
        found.uid.as_raw(),
        groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    ))
}

/// A user id for people: `deploy`, `user 1234`, or `dynamic`, which is what a unit names its dynamic user.
#[must_use]
pub fn name(uid: u32, dynamic: &str) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) if DYNAMIC.contains(&uid) => dynamic.to_owned(),
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_user() {
        let own = owner(std::process::id()).unwrap();
        assert_eq!(own, Uid::effective().as_raw());
        assert_eq!(owner(u32::MAX), None);
    }

    #[test]
    fn users_are_compared_by_number_and_dynamic_ones_by_their_range() {
        for (uid, user, dynamic, same) in [
            (0, "root", false, true),
            (0, "", false, true),
            (1, "", false, false),
            (0, "0", false, true),
            (0, "no-such-user", false, false),
            (61_200, "no-such-user", true, true),
            (61_200, "no-such-user", false, false),
            (61_200, "root", false, false),
            (1000, "no-such-user", true, false),
        ] {
            assert_eq!(
                is_user(uid, user, dynamic),
                same,
                "{uid} {user:?} {dynamic}"
            );
        }
    }
}
