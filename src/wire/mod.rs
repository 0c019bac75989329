//! Bytes between our own processes, as JSON: what slotd tells the router, what slotctl asks slotd. And the way to an app's socket, which
//! slotd's probes and the router both take.
//!
//! **Invariant:** types, their encoding and their addresses only; nothing here decides anything.

pub mod api;
pub mod apps_socket;
pub mod control;
pub mod fetch;
pub mod machine;
pub mod release;
pub mod setup;
pub mod staging;
pub mod table;
