//! Commands that nobody types: those of units, which slot-generator writes into their `ExecStart=`, and those that the package is made with.

use std::path::PathBuf;

use clap::Args;

use crate::config::Window;
use crate::deploy::SlotName;

/// `launch`, as slot-generator writes it into `ExecStart=`; the app is `--app`.
#[derive(Debug, Args)]
pub struct Launch {
    /// The slot
    #[arg(long)]
    pub slot: SlotName,
    /// The directory of all apps
    #[arg(long, value_name = "PATH")]
    pub root: PathBuf,
    /// Absolute, or relative to the release
    #[arg(long, value_name = "PATH")]
    pub env_file: Option<PathBuf>,
    /// A directory of the release that is the app's own data instead
    #[arg(long, value_name = "PATH")]
    pub shared_dir: Vec<String>,
    /// The app's command
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `build`, as slot-generator writes it into `ExecStart=`; the app is `--app`, and `--socket` where slotd waits for it.
#[derive(Debug, Args)]
pub struct Build {
    /// The directory of all apps
    #[arg(long, value_name = "PATH")]
    pub root: PathBuf,
    /// The app's setup command
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `fetch`, as slot-generator writes it into `ExecStart=`; the app is `--app`, and `--socket` where slotd waits for it.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Where what was fetched is kept for the next fetch
    #[arg(long, value_name = "PATH")]
    pub mirror: PathBuf,
    /// A private key for ssh
    #[arg(long, value_name = "PATH")]
    pub deploy_key: Option<PathBuf>,
    /// The hosts that ssh knows
    #[arg(long, value_name = "PATH")]
    pub known_hosts: Option<PathBuf>,
    /// The remote's URL
    #[arg(last = true, required = true)]
    pub remote: String,
}

/// `stage`, as slot-generator writes it into `ExecStart=`; the app is `--app`, and `--socket` where slotd waits for it.
#[derive(Debug, Args)]
pub struct Stage {
    /// The directory of all apps
    #[arg(long, value_name = "PATH")]
    pub root: PathBuf,
    /// Where the work tree is
    #[arg(long, value_name = "PATH")]
    pub directory: PathBuf,
    /// Its branch
    #[arg(long, value_name = "NAME")]
    pub branch: String,
    /// A directory of the release that is the app's own data
    #[arg(long, value_name = "PATH")]
    pub shared_dir: Vec<String>,
}

/// `hook`, as slot-generator writes it into `ExecStart=`; the app is `--app`, and `--socket` where slotd waits for it.
#[derive(Debug, Args)]
pub struct Hook {
    /// The directory of all apps
    #[arg(long, value_name = "PATH")]
    pub root: PathBuf,
    /// Absolute, or relative to the release
    #[arg(long, value_name = "PATH")]
    pub env_file: Option<PathBuf>,
    /// The app's command before a deployment, a word each
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub before_deploy: Vec<String>,
    /// The app's command before a switch, a word each
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub before_switch: Vec<String>,
    /// The app's command after a switch, a word each
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub after_switch: Vec<String>,
    /// The app's command after a rollback, a word each
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub after_rollback: Vec<String>,
    /// The app's check of a plan's step, a word each
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub check: Vec<String>,
}

/// `notify`, as slot-generator writes it into `ExecStart=`; the app is `--app`, and `--socket` where slotd waits for it.
#[derive(Debug, Args)]
pub struct Notify {
    /// A receiver's key and URL
    #[arg(long, value_name = "KEY=URL", value_parser = pair)]
    pub to: Vec<(String, String)>,
    /// Where a receiver's secret is
    #[arg(long, value_name = "KEY=PATH", value_parser = pair)]
    pub secret: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=');
    let (key, value) = pair.ok_or("write a key, an equals sign and a value")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// `auto`, as slot-generator writes it into `ExecStart=`; the app is `--app`.
#[derive(Debug, Args)]
pub struct Auto {
    /// Where is remembered what was tried
    #[arg(long, value_name = "PATH")]
    pub memory: PathBuf,
    /// When it may be deployed
    #[arg(long, value_name = "WINDOW")]
    pub window: Vec<Window>,
    /// The file to look at, or the directory
    #[arg(long, value_name = "PATH", required_unless_present = "git")]
    pub path: Option<PathBuf>,
    /// Look at the app's remote
    #[arg(long, conflicts_with = "path")]
    pub git: bool,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Where to put slotctl.1 and one page per command
    #[arg(long, value_name = "PATH")]
    pub dir: PathBuf,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    pub shell: clap_complete::Shell,
}
