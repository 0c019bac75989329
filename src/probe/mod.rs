//! Asking a slot for its health, and finding out whose process it is that answers.
//!
//! [`ask`] is one health request. [`listeners`] says who listens where, so that an answer counts only when it comes from the unit that
//! was started, and so that an app that listens elsewhere than it was told can be told where that is.
//!
//! **Invariant:** nothing here decides; what passes and what fails a gate is the business of `deploy`.
//! **Invariant:** no privilege is needed: the kernel tells everybody who listens (sock_diag(7)) and what cgroup a process is in.

mod address;
mod diag;
mod http;
mod internet;
pub mod listeners;
mod owner;

pub use address::{Address, AddressError};
pub use diag::Diag;
pub use http::{Answer, NoAnswer, ask, ask_from};
pub use internet::{Internet, NoSockets, Sockets};
pub use listeners::Listener;
pub use owner::{Owner, cgroup_of, in_cgroup, process_group_of, processes_of, processes_of_group};
