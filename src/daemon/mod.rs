//! The deployer: one task per app owns its state, and performs what the state demands.
//!
//! ```text
//!  api ──► App ──ask──► owner ──commit──► store
//!                        │ ▲
//!                effects │ │ events
//!                        ▼ │
//!                       World: units (systemd or children), routers, probes, releases
//! ```
//!
//! **Invariant:** [`owner`] does no I/O of its own; everything outside is behind [`world::World`].

pub mod app;
pub mod apps;
mod commits;
mod drain;
pub mod embedded;
pub mod errand;
mod fetch;
mod hold;
mod hooks;
pub mod instances;
pub mod live;
mod measure;
mod notices;
mod observe;
pub mod owner;
mod places;
mod plans;
mod prepare;
mod previews;
mod reach;
mod remember;
mod route;
pub mod shares;
mod staging;
mod standing;
pub mod status;
pub mod succession;
pub mod systemd;
pub mod tables;
mod take_up;
mod taker;
pub mod tell;
pub mod units;
pub mod world;
mod written;
