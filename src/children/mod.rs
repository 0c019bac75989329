//! Apps as children of this process, where no systemd runs them: what `slotctl demo` and `slotctl start` use.
//!
//! A [`Child`] is to a slot of the embedded deployer what a unit is to a slot of slotd: it is started, says when it is up, is started
//! again a second after it ends by itself, and is stopped with SIGTERM, then SIGKILL (`Restart=always`, `RestartSec=1s`,
//! `KillMode=mixed`; systemd.service(5), systemd.kill(5)). Each of its runs has a boot id, its own `NOTIFY_SOCKET`, its own process group
//! and a record of what it said.
//!
//! **Invariant:** nothing that a child started in its process group outlives the run, nor this process, even when this process dies
//! by SIGKILL (see `group.rs`). A descendant that leaves the group on purpose (setsid(2)) does.
//! **Invariant:** a child has at most one run at a time.
//! **Invariant:** no decision about releases, health or traffic is made here.

mod child;
mod group;
mod notify;
mod once;
mod output;
mod program;
mod run;
mod supervise;

pub use child::{Changes, Child, Phase, Status};
pub use once::{Ended, once};
pub use program::{Listener, Program};
pub use run::Record;
