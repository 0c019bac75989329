//! Bytes between our own processes, as JSON: what slotd tells the router, what slotctl asks slotd.
//!
//! **Invariant:** types and their encoding only; nothing here decides or performs anything.

pub mod api;
pub mod control;
pub mod table;
