//! `slotctl config`: what is wrong with a file, and what is set.
//!
//! **Invariant:** files are read, and nothing is changed or asked, but whether a project's own daemon is there.

mod check;
mod show;

pub use check::check;
pub use show::show;

/// The machine's file.
const MACHINE: &str = "/etc/slot/machine.toml";
