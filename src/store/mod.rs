//! What must survive a crash: the state of each app, its history, and the last table.
//!
//! **Invariant:** a file is replaced whole (temporary file, fsync, rename, fsync of the directory) or not at all.
//! **Invariant:** a file that cannot be read is never taken for one that is not there: it is kept aside and reported.

mod files;
mod history;
mod outbox;
mod record;
mod state_file;

pub use files::{FileError, append, replace, replace_volatile};
pub use history::{Entry, History};
pub use outbox::{MOST_KEPT, Outbox};
pub use state_file::{Loaded, StateFile};
