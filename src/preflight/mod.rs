//! What can be known before a deployment begins: that a second copy of the app has room, and that what its command runs is there.
//!
//! **Invariant:** only looked at, nothing is touched; what cannot be found out is no objection.

mod program;
mod room;

pub use program::{Runner, lacking, objection};
pub use room::{Room, anonymous, available_memory, free_disk, short_of_disk, used_by_cgroup};
