//! The arguments of what is about the machine and its files: `config`, `doctor`, `listener`, `app reload`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;

use super::super::complete;
use super::address::{Address, address};
use crate::deploy::AppName;
use crate::wire::listener::ListenerName;

/// `app reload`.
#[derive(Debug, Args)]
pub struct AppReload {
    /// The app; otherwise every one that has a file
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::apps))]
    pub name: Option<AppName>,
}

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Do what is safe, and say what was done; takes root
    ///
    /// That is: `systemctl daemon-reload` where units are newer than what systemd has read of them (not while an app's file is wrong),
    /// `systemctl reset-failed` of slot's units that nothing needs, the directories of `systemd-tmpfiles --create slot.conf`, and the removal
    /// of temporary files that a crash has left and that no process has open. Nothing that serves is started, stopped or changed.
    #[arg(long)]
    pub fix: bool,
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say what is wrong with a file, every fault with its line and column
    ///
    /// Nothing is changed, and slotd is not asked. A file that stands in /etc/slot/apps also has to have its own name, a port for each
    /// slot, and secrets that only root can replace.
    Check(ConfigCheck),
    /// Show every setting with its value and where it comes from: a line of a file, or the default
    ///
    /// Secrets are not shown, nor are the values of [env].
    Show(ConfigShow),
}

/// `config check`.
#[derive(Debug, Args)]
pub struct ConfigCheck {
    /// Apps' files; otherwise ./slot.toml, or that of a directory above
    ///
    /// One that is called machine.toml is the machine's, and one that is JSON slot-machine's.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// They are the machine's, whatever they are called
    #[arg(long)]
    pub machine: bool,
}

/// `config show`.
#[derive(Debug, Args)]
pub struct ConfigShow {
    /// An app of this machine; otherwise that of ./slot.toml, as it says there; otherwise the settings of the machine alone
    #[arg(value_name = "APP", add = ArgValueCandidates::new(complete::apps))]
    pub app: Option<AppName>,
}

/// `listener …`.
#[derive(Debug, Subcommand)]
pub enum Listener {
    /// Take requests on another port, or address
    ///
    /// A socket unit is added, and the next instance of the router takes connections from it too. No socket is restarted, and nothing is
    /// refused or cut. Apps whose file names no `listener` are served there as well.
    Add(ListenerAdd),
    /// Take no requests any more where `listener add` had them taken
    Remove(ListenerRemove),
    /// List the public sockets: name, address, unit
    List,
}

/// `listener add`.
#[derive(Debug, Args)]
pub struct ListenerAdd {
    /// A port of every address, or an address and a port: 443, 127.0.0.1:8081, [::1]:8081
    #[arg(value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub address: Address,
    /// What `listener` in an app's file calls it; the port, if not given
    #[arg(long, value_name = "NAME")]
    pub name: Option<ListenerName>,
}

/// `listener remove`.
#[derive(Debug, Args)]
pub struct ListenerRemove {
    /// Its name, as `slotctl listener list` shows it
    #[arg(value_name = "NAME")]
    pub name: ListenerName,
}
