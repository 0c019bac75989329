//! The data plane: takes requests from clients and passes them to the slots that a table names.
//!
//! [`Server::start`] runs a router on threads of its own, as `slot-router` does and as the embedded
//! world does inside another process:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use slot::router::{Config, Server, Source};
//! let public = std::net::TcpListener::bind("127.0.0.1:8080")?;
//! let config = Config { table: Source::File("/run/slot/table.json".into()), ..Config::new(vec![("http".into(), public)]) };
//! let server = Server::start(config)?;
//! let control = server.control(); // put tables, read counts, drain
//! server.wait(); // until it has drained
//! # Ok(())
//! # }
//! ```
//!
//! # Reading order
//! [`h1`] and [`table`] decide, without I/O. [`worker`] is a thread, [`accept`] gives it
//! clients; [`serving`] serves a [`connection`], [`exchange`] one request (in a [`place`] of its own), [`hold`] finds it a slot, [`attempt`] sends it there, by way of
//! [`relay`] or [`tunnel`]. [`control`] is how all of it is steered.
//!
//! **Invariant:** the router never writes the table's file, and an unusable one is no reason not to
//! start: without a table, requests wait.

pub mod accept;
pub mod access;
pub mod alarm;
pub mod answer;
pub mod attempt;
pub mod book;
pub mod buffer;
pub mod connection;
pub mod control;
mod control_socket;
pub mod counts;
pub mod exchange;
pub mod h1;
pub mod hold;
pub mod ids;
pub mod keep;
pub mod label;
pub mod limits;
pub mod load;
mod owned;
pub mod peers;
pub mod place;
pub mod proxy_header;
pub mod ramp;
pub mod relay;
pub mod roll;
pub mod runs;
mod server;
pub mod serving;
pub mod settings;
pub mod spelled;
pub mod splice;
pub mod stream;
pub mod table;
pub mod told;
pub mod tries;
pub mod tunnel;
pub mod unit;
pub mod whose;
pub mod worker;

pub use control::{Control, PutError};
pub use limits::Limits;
pub use server::{Config, Server, Source, StartError};
