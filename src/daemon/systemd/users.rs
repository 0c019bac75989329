//! Slots of one app that would run as different users.
//!
//! They share the app's data, `StateDirectory=slot-app/web`, which PID 1 gives to the user of the slot that it starts: under the slot that
//! serves, if that one runs as somebody else.

use crate::deploy::SlotName;
use crate::systemd::{Properties, UnitName, user};

/// A slot and what its unit says of itself now.
pub(super) type Told = (SlotName, UnitName, Properties);

/// A slot that may not start, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// The unit that runs.
    pub runs: UnitName,
    /// Whom it runs as.
    pub runs_as: String,
    /// The unit that does not start.
    pub next: UnitName,
    /// Whom it would run as.
    pub next_as: String,
}

/// The first clash between a slot that is to start (without a name: any that does not run) and one that runs. Who runs is asked of
/// `owner`, by PID; who would run is what PID 1 has read, drop-ins included. `own` is what the app's dynamic user is called.
pub(super) fn clash(
    units: &[Told],
    starts: Option<&SlotName>,
    own: &str,
    owner: impl Fn(u32) -> Option<u32>,
) -> Option<Clash> {
    for (name, unit, next) in units {
        let is_next = starts.map_or(next.main_pid == 0, |starts| starts == name);
        if !is_next || next.load_state != "loaded" {
            continue;
        }
        for (_, other, running) in units.iter().filter(|(other, ..)| other != name) {
            // No process has number 0.
            let Some(uid) = owner(running.main_pid) else {
                continue;
            };
            if !user::is_user(uid, &next.user, next.dynamic_user) {
                return Some(Clash {
                    runs: other.clone(),
                    runs_as: user::name(uid, own),
                    next: unit.clone(),
                    next_as: if next.user.is_empty() {
                        "root".to_owned()
                    } else {
                        next.user.clone()
                    },
                });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(slot: &str, pid: u32, user: &str, dynamic: bool) -> Told {
        let slot: SlotName = slot.parse().unwrap();
        let unit = UnitName::service(&"web".parse().unwrap(), &slot);
        let properties = Properties {
            load_state: "loaded".to_owned(),
            main_pid: pid,
            user: user.to_owned(),
            dynamic_user: dynamic,
            ..Properties::default()
        };
        (slot, unit, properties)
    }

    /// Process 7 is root's, process 8 a dynamic user's.
    fn owner(pid: u32) -> Option<u32> {
        [(7, 0), (8, 61_300)]
            .into_iter()
            .find_map(|(own, uid)| (own == pid).then_some(uid))
    }

    #[test]
    fn a_slot_clashes_with_one_that_runs_as_another_user() {
        let units = |pid, user: &str, dynamic| {
            [
                told("blue", pid, user, dynamic),
                told("green", 0, user, dynamic),
            ]
        };
        let found = |units: &[Told]| {
            let clash = clash(units, None, "slot-app-web", owner)?;
            Some(format!(
                "{} {} {} {}",
                clash.runs, clash.runs_as, clash.next, clash.next_as
            ))
        };
        assert_eq!(found(&units(7, "root", false)), None);
        assert_eq!(found(&units(8, "slot-app-web", true)), None);
        assert_eq!(found(&units(0, "root", false)), None);
        assert_eq!(
            found(&units(8, "root", false)).unwrap(),
            "web@blue.service slot-app-web web@green.service root"
        );
        assert_eq!(
            found(&units(7, "slot-app-web", true)).unwrap(),
            "web@blue.service root web@green.service slot-app-web"
        );
    }

    #[test]
    fn only_the_slot_that_is_to_start_is_asked_for_and_never_against_itself() {
        let units = [
            told("blue", 8, "root", false),
            told("green", 0, "root", false),
        ];
        let blue = "blue".parse().unwrap();
        assert_eq!(clash(&units, Some(&blue), "slot-app-web", owner), None);
    }
}
