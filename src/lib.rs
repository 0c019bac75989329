//! slot: zero-downtime deploys on a Linux server, made of systemd itself.
//!
//! Four processes share this library, because each is a privilege domain of its own:
//!
//! | binary | runs as | does |
//! |---|---|---|
//! | `slot-router` | nobody in particular | takes the public sockets from PID 1 and forwards HTTP/1.1 |
//! | `slotd` | `slot` | owns the state of every app; starts and stops units over D-Bus |
//! | `slotctl` | the operator | asks slotd, shows what it answers |
//! | `slot-generator` | PID 1's generators | turns `/etc/slot/apps/*.toml` into units |
//!
//! # Layers
//! Modules import strictly downward, and modules of one layer do not import each other
//! (`tests/layers.rs` enforces it).
//!
//! - L0, decisions without I/O: [`deploy`], [`router::h1`], [`router::table`].
//! - L1, bytes and words: [`wire`], [`config`], [`telemetry`].
//! - L2, one adapter per outside thing: [`systemd`], [`children`], [`store`], [`release`],
//!   [`git`], [`staging`], [`probe`], [`traffic`], [`preflight`], [`launch`], [`units`], [`load`], [`doctor`] (decisions over what [`cli`] has
//!   collected), the rest of [`router`].
//! - L3: [`daemon`], where one task owns the state of an app.
//! - L4: [`api`] and [`cli`]: parse, ask, render.
//!
//! # Reading order
//! [`deploy`] first: its vocabulary and its `step` are what slot is. Then [`daemon`], which performs
//! what `step` decides, and [`router::h1`], which decides what a request is.

pub mod api;
pub mod children;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod deploy;
pub mod doctor;
pub mod git;
pub mod launch;
pub mod load;
pub mod preflight;
pub mod probe;
pub mod release;
pub mod router;
pub mod staging;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod traffic;
pub mod units;
pub mod wire;
