//! slotctl's command line.
//!
//! **Invariant:** what is parsed is valid in itself; whether files exist or slotd answers is not asked here.

mod address;
mod app;
mod machine;
mod shares;
mod token;
mod units;
mod words;

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;

pub use address::{Address, address};
pub use app::{App, AppAdd, AppRemove};
pub use machine::{
    AppReload, Config, ConfigCheck, ConfigShow, Doctor, Listener, ListenerAdd, ListenerRemove,
};
pub use units::{Auto, Build, Completions, Fetch, Hook, Launch, Man, Notify, Stage};

use super::client::SOCKET;
use super::{complete, exit};
use crate::deploy::{AppName, Key, Label, Serving, SlotName};

pub use shares::{Abort, Pause, Route, Stop, Weight};
pub use token::{ScopeName, Token, TokenNew};
pub use words::{Span, Target};

use words::span;

/// Zero-downtime deploys on a Linux server, made of systemd itself.
#[derive(Debug, Parser)]
#[command(
    name = "slotctl",
    version,
    subcommand_required = true,
    after_help = exit::table(),
    after_long_help = format!("{EXAMPLE}\n\n{}", exit::table()),
    max_term_width = 100
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// For every command.
    #[command(flatten)]
    pub global: Global,
}

/// From nothing to a deployed app.
pub const EXAMPLE: &str = "\
The shortest way there:
  cd app && slotctl init              write slot.toml
  sudo slotctl deploy ./build/server  register the app and deploy it
  slotctl status
  slotctl rollback";

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The app; otherwise that of ./slot.toml (or of a directory above), otherwise slotd's only one
    #[arg(long, global = true, value_name = "NAME", add = ArgValueCandidates::new(complete::apps))]
    pub app: Option<AppName>,
    /// One JSON object on stdout instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Where slotd listens; otherwise .slot/slotd.sock of the project here, while `slotctl start` runs it as you, otherwise /run/slot/slotd.sock
    #[arg(
        long = "socket",
        global = true,
        value_name = "PATH",
        env = "SLOT_SOCKET"
    )]
    pub asked: Option<PathBuf>,
}

impl Global {
    /// Where slotd listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.asked.as_deref().unwrap_or(Path::new(SOCKET))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deploy a sample app under load, in this process alone: no root, no systemd
    Demo(Demo),
    /// Run router, deployer and app in this process, where no systemd runs
    Start(Start),
    /// Write a commented slot.toml into the current directory, by what the project is made with
    Init(Init),
    /// Register, list and remove apps
    #[command(subcommand)]
    App(App),
    /// Check an app's file, or the machine's, and show what is set
    #[command(subcommand)]
    Config(Config),
    /// Deploy a commit, a binary, a directory or a tar archive
    Deploy(Deploy),
    /// Make the previous release active again, or an earlier one
    Rollback(Rollback),
    /// List the releases that are on disk
    Releases,
    /// Give a slot another share of new requests: the active one gives it, or gets it
    Weight(Weight),
    /// Let a slot take the place of the active one
    Route(Route),
    /// Give a candidate at a weight, or a slot that was started by hand, all new requests
    Promote(Promote),
    /// Take back a deployment that has not switched: its candidate gets nothing more, and stops
    Abort(Abort),
    /// Let the plan of a deployment stand still at its step; a candidate that does harm is taken back all the same
    Pause(Pause),
    /// Let a plan that stands still go on
    Resume(Pause),
    /// Stop a slot when it has drained
    Stop(Stop),
    /// Cut now what a slot still drains
    Drain(Drain),
    /// Let nothing be deployed by itself until `unhold`; what people deploy goes on
    Hold(Hold),
    /// Let what is new be deployed by itself again
    Unhold(Unhold),
    /// List the slots: release, version, weight, health, what is in flight, restarts
    Ps,
    /// Show slots, releases, routers and what is under way
    Status(Status),
    /// Exchange the router for a new instance of it
    #[command(subcommand)]
    Router(Router),
    /// Say what is wrong with slot on this machine, and what to do about it
    ///
    /// Looks at systemd, polkit and the bus; at slot's units and those of apps (installed, read, failed, limited, replaced); at the public
    /// sockets, the router's instances and their table, and slotd's API over TCP; at app files, states, symlinks and releases; at ports,
    /// owners and modes, disks and the clock. Each line is ok, warning or problem, or unseen where it could not be looked at; what is not ok has what to do. It needs no
    /// slotd that runs, and asks one that does. Without root it sees less, and says so.
    ///
    /// The exit status is 1 if there is a problem, and 0 if there are warnings at most.
    Doctor(Doctor),
    /// Make tokens for slotd's API over TCP
    #[command(subcommand)]
    Token(Token),
    /// Add, list and remove the public sockets that the router takes connections from
    #[command(subcommand)]
    Listener(Listener),
    /// Show the journal of an app: slotd, router and the app itself
    Logs(Logs),
    /// Start an app in its slot's environment (what ExecStart= of an app's unit calls)
    #[command(hide = true)]
    Launch(Launch),
    /// Make a release ready (what ExecStart= of slot-setup@ calls)
    #[command(hide = true)]
    Build(Build),
    /// Fetch a commit from an app's remote (what ExecStart= of slot-fetch@ calls)
    #[command(hide = true)]
    Fetch(Fetch),
    /// Make the work tree for the next deployment (what ExecStart= of slot-stage@ calls)
    #[command(hide = true)]
    Stage(Stage),
    /// Run one of an app's hooks (what ExecStart= of slot-hook@ calls)
    #[command(hide = true)]
    Hook(Hook),
    /// Send notices of an app (what ExecStart= of slot-notify@ calls)
    #[command(hide = true)]
    Notify(Notify),
    /// Hand slotd its Internet sockets (what ExecStart= of slot-inet calls)
    #[command(hide = true)]
    Inet,
    /// Look for something new, and deploy it (what ExecStart= of slot-watch@ calls)
    #[command(hide = true)]
    Auto(Auto),
    /// Be the sample app of `demo`
    #[command(hide = true)]
    DemoApp,
    /// Write the man pages
    #[command(hide = true)]
    Man(Man),
    /// Print a completion script for a shell
    #[command(hide = true)]
    Completions(Completions),
}

/// `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Exit after the table, with status 0 only if nothing failed
    #[arg(long)]
    pub once: bool,
}

/// `start`.
#[derive(Debug, Args)]
pub struct Start {
    /// The app's file; otherwise ./slot.toml, otherwise ./slot-machine.json
    ///
    /// A file that is JSON is slot-machine's, whatever its name, and the app is then run as slot-machine runs it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to deploy at once, with slot.toml: a binary, a directory or a tar archive
    #[arg(value_name = "PATH")]
    pub path: Option<PathBuf>,
    /// Where to take requests; 127.0.0.1:8080, or what slot-machine.json says
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<std::net::SocketAddr>,
    /// Where releases and state are kept; .slot, or .slot-machine with slot-machine.json, if not given
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The repository whose commits are deployed, and HEAD at first; with slot-machine.json the current directory if not given
    #[arg(long, value_name = "DIR")]
    pub repo: Option<PathBuf>,
    /// Where slot-machine's API answers, on 127.0.0.1; `api_port` of slot-machine.json, otherwise 9100
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Deploy nothing at first, where slot-machine's way is to deploy HEAD
    #[arg(long)]
    pub no_deploy: bool,
    /// Changes nothing: slot-machine's old scripts have it
    #[arg(long, hide = true)]
    pub no_proxy: bool,
    /// The router's limits, and whom it believes: a file as /etc/slot/machine.toml is
    #[arg(long, value_name = "FILE")]
    pub machine: Option<PathBuf>,
}

/// `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Which file: slot.toml, or slot-machine's slot-machine.json
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Toml)]
    pub format: Format,
    /// Write over one that is there
    #[arg(long)]
    pub force: bool,
}

/// What `init` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// slot.toml.
    Toml,
    /// slot-machine.json.
    Json,
}

/// `deploy`.
#[derive(Clone, Debug, Args)]
pub struct Deploy {
    /// A commit of the repository here (HEAD, if nothing is named), or a path: a binary, a directory or a tar archive
    ///
    /// A commit is named by its hash or the beginning of it, by a branch or by a tag; submodules and what Git LFS keeps come
    /// along. A directory has all that the app needs in it; `.slot` and `.slot-machine` at its top, which `slotctl start` keeps there, are
    /// left out, as they are of an archive. An archive may be compressed with gzip, zstd or xz; `-` is one on standard
    /// input: `tar c . | ssh host slotctl deploy -`. What begins with `.` or `/` is a path in any case. With slot-machine.json it is always
    /// a commit.
    #[arg(value_name = "COMMIT|PATH")]
    pub what: Option<PathBuf>,
    /// Deploy HEAD although tracked files have changes that are not committed, and without them
    #[arg(long, conflicts_with = "release")]
    pub allow_dirty: bool,
    /// Deploy what slotd fetches from the app's remote (`[git]` in slot.toml): a branch, a tag or a whole hash; otherwise its `branch`
    ///
    /// Outside of any repository a name that is no path, and nothing at all, mean the remote as well, where the app has one.
    #[arg(long, value_name = "REF", num_args = 0..=1, conflicts_with_all = ["what", "release", "allow_dirty"],
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub remote: Option<Option<String>>,
    /// Deploy a release again that is still on disk: its id or its label, as `slotctl releases` lists them
    #[arg(long, value_name = "ID", conflicts_with = "what", add = ArgValueCandidates::new(complete::releases))]
    pub release: Option<String>,
    /// What to call the release: 1 to 64 characters without spaces and `/`
    #[arg(long = "version", value_name = "LABEL")]
    pub label: Option<Label>,
    /// How long the old slot may finish what is in flight; 0: as long as that takes
    ///
    /// In place of `drain` in slot.toml. A class that has a key of its own there (drain_requests, drain_streams, drain_tunnels) keeps that.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub drain: Option<Span>,
    /// How long to wait for another deployment to end, and for an idle slot
    ///
    /// Where slotd is restarted meanwhile, it is asked again, up to three times, by --idempotency-key or by a key that slotctl makes.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub queue: Option<Span>,
    /// Give the new release so much of new requests, in per cent, and stay there until `weight`, `promote` or `abort` says how to go on
    ///
    /// 0: it is started and healthy, and gets none.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub weight: Option<u8>,
    /// Deploy it also if it is a release that was rolled back by itself
    #[arg(long)]
    pub force: bool,
    /// Give the new release all new requests at once, whatever steps the app has in [canary]
    #[arg(long, conflicts_with = "weight")]
    pub at_once: bool,
    /// Deploy without looking whether a second copy has room on disk or in memory; may be given twice
    #[arg(long, value_name = "CHECK", value_enum)]
    pub skip_check: Vec<Check>,
    /// The app's file; otherwise ./slot.toml, or that of a directory above it or above the path
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What it depends on.
    #[command(flatten)]
    pub depending: Depending,
    /// When to return.
    #[command(flatten)]
    pub watching: Watching,
}

/// `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The release to go to: its id or its label, as `slotctl releases` lists them
    #[arg(long, value_name = "ID", add = ArgValueCandidates::new(complete::releases))]
    pub to: Option<String>,
    /// What it depends on.
    #[command(flatten)]
    pub depending: Depending,
    /// When to return.
    #[command(flatten)]
    pub watching: Watching,
}

impl Deploy {
    /// Whether it asks for nothing but a commit.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Self {
            what: _,
            allow_dirty: _,
            // Which daemon is asked.
            config: _,
            release,
            remote,
            label,
            drain,
            queue,
            weight,
            force,
            at_once,
            skip_check,
            depending,
            watching,
        } = self;
        release.is_none()
            && remote.is_none()
            && label.is_none()
            && drain.is_none()
            && queue.is_none()
            && weight.is_none()
            && !force
            && !at_once
            && skip_check.is_empty()
            && depending.is_plain()
            && watching.is_plain()
    }
}

impl Rollback {
    /// Whether it asks for nothing but the release before.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.to.is_none() && self.depending.is_plain() && self.watching.is_plain()
    }
}

/// What `--skip-check` leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// That the release has room on disk.
    Disk,
    /// That a second copy of the app has room in memory.
    Memory,
}

impl Check {
    /// The word for it in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// What has to be so for something to be done.
#[derive(Clone, Debug, Default, Args)]
pub struct Expecting {
    /// Do it only if this is still the app's generation, the number of its last attempt; else nothing is done, with status 8
    #[arg(long, value_name = "N", add = ArgValueCandidates::new(complete::generations))]
    pub expected_generation: Option<u64>,
    /// Do it only if this slot, or this release, is active; else nothing is done, with status 8
    #[arg(long, value_name = "SLOT|RELEASE", add = ArgValueCandidates::new(complete::active))]
    pub expected_active: Option<Serving>,
}

impl Expecting {
    /// As the API is asked.
    #[must_use]
    pub fn queries(&self) -> Vec<(&'static str, String)> {
        let generation = self.expected_generation.map(|it| it.to_string());
        let active = self.expected_active.as_ref().map(ToString::to_string);
        let asked = [
            ("expected_generation", generation),
            ("expected_active", active),
        ];
        let said = asked
            .into_iter()
            .filter_map(|(key, said)| Some((key, said?)));
        said.collect()
    }
}

/// What an attempt depends on.
#[derive(Clone, Debug, Default, Args)]
pub struct Depending {
    /// What it expects.
    #[command(flatten)]
    pub expecting: Expecting,
    /// Begin nothing if the same was asked for with this key before: show how that ended, or ends. 1 to 128 characters, a UUID for instance
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<Key>,
}

impl Depending {
    /// Whether it depends on nothing.
    fn is_plain(&self) -> bool {
        self.idempotency_key.is_none() && self.expecting.queries().is_empty()
    }
}

/// How long to watch an attempt.
#[derive(Clone, Debug, Args)]
pub struct Watching {
    /// Return when the release serves, when its soak has ended, by itself or by something newer, or when the old slot has stopped
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Wait::Switched)]
    pub wait: Wait,
}

impl Watching {
    /// Whether it is as if nothing was said.
    fn is_plain(&self) -> bool {
        self.wait == Wait::Switched
    }
}

/// What `--wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// The release serves.
    Switched,
    /// Its soak has ended.
    Soaked,
    /// The old slot has stopped.
    Stopped,
}

impl Wait {
    /// The word for it in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Switched => "switched",
            Self::Soaked => "soaked",
            Self::Stopped => "stopped",
        }
    }
}

/// `promote`.
#[derive(Debug, Args)]
pub struct Promote {
    /// The slot: its name, or the id or label of its release; `APP:SLOT` names the app too. Otherwise the candidate, or the only slot that
    /// stands by
    #[arg(value_name = "SLOT", add = ArgValueCandidates::new(complete::slots))]
    pub slot: Option<Target>,
    /// What it depends on.
    #[command(flatten)]
    pub depending: Depending,
    /// When to return.
    #[command(flatten)]
    pub watching: Watching,
}

/// `drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// The slot: its name, or the id or label of its release; `APP:SLOT` names the app too
    #[arg(value_name = "SLOT", add = ArgValueCandidates::new(complete::slots))]
    pub slot: Target,
    /// Do it: whatever is in flight there is cut
    #[arg(long, required = true)]
    pub now: bool,
    /// What it expects.
    #[command(flatten)]
    pub expecting: Expecting,
}

/// `hold`.
#[derive(Debug, Args)]
pub struct Hold {
    /// What it is for, as `slotctl status` shows it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// What has to be so.
    #[command(flatten)]
    pub expecting: Expecting,
}

/// `unhold`.
#[derive(Debug, Args)]
pub struct Unhold {
    /// What has to be so.
    #[command(flatten)]
    pub expecting: Expecting,
}

/// `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// List what is still under way on slots that get no new requests
    #[arg(long)]
    pub connections: bool,
}

/// `router …`.
#[derive(Debug, Subcommand)]
pub enum Router {
    /// Start another instance on the same sockets, and let the one before it end what it has
    ///
    /// Nothing is refused and nothing is cut. The new instance runs what is installed now. If it does not come up, it is stopped, and
    /// the old one goes on.
    Upgrade(RouterUpgrade),
}

/// `router upgrade`.
#[derive(Debug, Args)]
pub struct RouterUpgrade {
    /// How long the old instance, and those that drain already, may finish what they have; 0: as long as that takes. If not given, what /etc/slot/machine.toml says
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub drain: Option<Span>,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Only this slot
    #[arg(value_name = "SLOT", add = ArgValueCandidates::new(complete::slots))]
    pub slot: Option<SlotName>,
    /// Go on as lines are written
    #[arg(short, long)]
    pub follow: bool,
    /// How many lines
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<u32>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
