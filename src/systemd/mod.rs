//! PID 1, over D-Bus: units are started, stopped and watched by name.
//!
//! The calls are made by hand on [`zbus::Connection`]: slot uses six methods of one object. The generated proxies of the whole interface
//! are ten thousand lines, and cached properties, which they would have on top, are what must not be trusted here.
//!
//! - [`Bus`] is the connection: made again when it is lost, its signals always read.
//! - [`Properties`] is what a unit says of itself at one moment, and [`seen`] what slot makes of it.
//! - [`Bus::start`], [`Bus::stop`] run a job to its end. [`Watch`] tells what changes meanwhile.
//!
//! **Invariant:** no signal is believed: it only says that it is time to look. A lost signal delays, and changes nothing.
//! **Invariant:** nothing here decides what is started or stopped.

mod bus;
mod call;
mod failure;
mod freeze;
mod jobs;
pub mod journal;
mod names;
mod notify;
mod properties;
mod seen;
pub mod user;
mod watch;

pub use bus::{Bus, ConnectError};
pub use call::{CallError, Why};
pub use failure::{failure, how_it_ended};
pub use jobs::StartError;
pub use names::UnitName;
pub use notify::keep_watchdog_quiet;
pub use properties::Properties;
pub use seen::seen;
pub use watch::Watch;
