//! `app …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use super::super::complete;
use super::AppReload;
use crate::deploy::AppName;

/// `app …`.
#[derive(Debug, Subcommand)]
pub enum App {
    /// Register the app of a slot.toml, or take over what changed in it
    Add(AppAdd),
    /// Take over what was changed in the files in /etc/slot/apps; what runs is not touched
    ///
    /// A file that is wrong is refused whole, with the line, and what runs goes on by the settings that it has. Run as root it has systemd
    /// read the units anew as well; as a member of the group `slot`, and by `systemctl reload slotd`, slotd alone reads the files again. Where
    /// systemd's units would be others then, that is said, here, in the journal and by `slotctl status`. Of several apps each is tried and
    /// told. A state that the disk has lost is written anew by a slotd that still knows it.
    Reload(AppReload),
    /// List the apps
    List,
    /// Stop an app when it has drained, and forget it
    Remove(AppRemove),
    /// Bring what an older slotctl wrote for apps into this one's form (what the package's scripts call)
    #[command(hide = true)]
    Renew,
}

/// `app add`.
#[derive(Debug, Args)]
pub struct AppAdd {
    /// The app's file; otherwise ./slot.toml, or that of a directory above
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `app remove`.
#[derive(Debug, Args)]
pub struct AppRemove {
    /// The app
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::apps))]
    pub name: AppName,
    /// Delete its releases, its state and its own data as well
    #[arg(long)]
    pub purge: bool,
    /// Cut what is still in flight instead of waiting for it
    #[arg(long)]
    pub now: bool,
}
