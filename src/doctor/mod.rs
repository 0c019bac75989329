//! What is wrong with this machine, and what to do about it: decisions over [`Facts`] that somebody else has collected.
//!
//! One function per part of the machine, each a list of [`Finding`]s; [`examine`] is all of them, in the order in which they matter: what
//! everything else needs comes first.
//!
//! **Invariant:** nothing is looked at here, and nothing is changed: the same facts give the same findings.
//! **Invariant:** what could not be looked at is said to be so ([`Level::Unseen`]), and never taken for good or bad.

mod apps;
mod disk;
mod facts;
mod finding;
mod reach;
mod rights;
mod routers;
mod tcp;
mod units;

pub use facts::{
    Account, AppFacts, Disk, Facts, Held, Kind, Leftover, Link, Listener, Owned, Place, PolkitRule,
    Rights, Seen, Slotd, Stand, State, Tcp, Tokens, UnitFacts, UnitText,
};
pub use finding::{Finding, Level, Mend};

/// Everything that there is to say, what is good included.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    if !facts.booted {
        return vec![
            Finding::problem("systemd", "systemd", "does not run here")
                .because(
                    "slot is made of systemd's units: without it nothing here can be looked at",
                )
                .mended_by(
                    "`slotctl start` runs router, deployer and app in one process without it",
                ),
        ];
    }
    let parts = [
        units::systemd,
        rights::polkit,
        units::own,
        units::slotd,
        tcp::socket,
        reach::sockets,
        routers::routers,
        rights::places,
        apps::files,
        apps::units,
        apps::states,
        apps::releases,
        routers::tables,
        reach::ports,
        disk::disks,
        disk::clock,
    ];
    parts.iter().flat_map(|part| part(facts)).collect()
}
