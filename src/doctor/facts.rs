//! What the doctor knows of a machine.
//!
//! **Invariant:** plain data, of about one moment. Each thing that may not be looked at by everybody is a [`Seen`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::App;
use crate::wire::api::Apps;
use crate::wire::control::Stats;
use crate::wire::table::Table;

/// Something that was looked at, or in a sentence why not.
pub type Seen<T> = Result<T, String>;

/// A machine.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Now, milliseconds since the epoch.
    pub now_ms: u64,
    /// Who looks is root.
    pub root: bool,
    /// systemd is PID 1 (sd_booted(3)).
    pub booted: bool,
    /// It is a container, whose clock is somebody else's.
    pub container: bool,
    /// systemd's version.
    pub systemd: Seen<u32>,
    /// Units by name: slot's own, those of apps, polkit's.
    pub units: BTreeMap<String, UnitFacts>,
    /// The public sockets, by the name of their unit.
    pub listeners: BTreeMap<String, Vec<Listener>>,
    /// `/run/slot/slotd.sock`: whether there is a socket.
    pub api: bool,
    /// `/run/slot/inet.sock`: whether there is a socket.
    pub inet: bool,
    /// What slotd says.
    pub slotd: Slotd,
    /// slotd's API over TCP.
    pub tcp: Tcp,
    /// What each instance of the router says, by its number.
    pub routers: Seen<BTreeMap<String, Result<Stats, String>>>,
    /// The table on disk; `None` if there is no file.
    pub table: Seen<Option<Table>>,
    /// What is wrong with `/etc/slot/machine.toml`.
    pub machine: Result<(), String>,
    /// The apps that have a file in `/etc/slot/apps`, by name.
    pub apps: BTreeMap<String, AppFacts>,
    /// Directories below `/var/lib/slot` that are of no app, with what they take, in bytes.
    pub orphans: Seen<BTreeMap<PathBuf, u64>>,
    /// What slot's processes are allowed by.
    pub rights: Rights,
    /// Paths whose owner and mode matter.
    pub places: Vec<Place>,
    /// Files that are written before they are renamed, and were not.
    pub leftovers: Vec<Leftover>,
    /// File systems that slot writes on.
    pub disks: Vec<Disk>,
    /// Whether the clock is set by something: `None` if nothing is there that would.
    pub clock_is_set: Seen<Option<bool>>,
    /// The newest time at which slot has written something, milliseconds since the epoch.
    pub newest_ms: Option<u64>,
    /// Who listens on a port, of those that apps have; as far as that may be seen.
    pub ports: BTreeMap<u16, Held>,
}

/// A unit as PID 1 knows it (org.freedesktop.systemd1(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFacts {
    /// `loaded`, `not-found`, `bad-setting`, `error`, `masked`.
    pub load: String,
    /// Why it is not loaded.
    pub load_error: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `running`, `listening`, `auto-restart`, `dead`, …
    pub sub: String,
    /// `success`, `exit-code`, `start-limit-hit`, …
    pub result: String,
    /// `enabled`, `disabled`, `static`, `generated`, …
    pub installed: String,
    /// Its files are newer than what PID 1 has read.
    pub stale: bool,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// It has a limit on starts (`StartLimitIntervalSec=`), or on activations (`TriggerLimitIntervalSec=`).
    pub limited: bool,
    /// Its main process; 0 if there is none.
    pub pid: u32,
    /// The program that it runs is not the one on disk any more; absent where that may not be seen.
    pub replaced: Option<bool>,
}

impl UnitFacts {
    /// It runs, or listens.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }

    /// It has ended, and PID 1 starts it again by itself: `auto-restart`, and since systemd 254 `auto-restart-queued`,
    /// `failed-before-auto-restart` and `dead-before-auto-restart`.
    #[must_use]
    pub fn is_coming_back(&self) -> bool {
        self.sub.contains("auto-restart")
    }

    /// It has failed, and nothing starts it again.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.active == "failed" && !self.is_coming_back()
    }

    /// PID 1 can start it.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }
}

/// An address of a public socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Somebody listens on it.
    pub listened: bool,
    /// Who has it, for people; empty where that may not be seen, and for systemd itself.
    pub holders: Vec<String>,
    /// The instance of slot's own router that has it.
    pub router: Option<String>,
}

/// slotd's API over TCP (`slotd-tcp.socket`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Where it is to listen.
    pub addresses: Vec<SocketAddr>,
    /// Who has one of its ports, for people, where it does not listen; empty where that may not be seen.
    pub holders: Vec<String>,
    /// Those who may ask.
    pub tokens: Seen<Tokens>,
}

/// The tokens that slotd has, or will have when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// How many there are in their file as it is now, or what is wrong with it.
    pub known: Result<usize, String>,
    /// Their file is another than when slotd read it.
    pub changed: bool,
}

/// What slotd says.
#[derive(Clone, Debug)]
pub enum Slotd {
    /// It does not run, and to ask would start it.
    Down,
    /// All that it knows.
    Says(Box<Apps>),
    /// Only members of its group and root may ask.
    Forbidden,
    /// It runs and did not answer.
    Silent(String),
}

/// An app that has a file.
#[derive(Clone, Debug)]
pub struct AppFacts {
    /// `/etc/slot/apps/web.toml`.
    pub file: PathBuf,
    /// What is in it, or what is wrong with it.
    pub app: Result<Box<App>, String>,
    /// What the generator makes of it, and what it had made; nothing if the file is wrong.
    pub texts: Vec<UnitText>,
    /// Its state.
    pub state: State,
    /// State files that could not be read and were kept.
    pub aside: Vec<PathBuf>,
    /// Its symlinks: one per slot, `live`, `prev`.
    pub links: Seen<BTreeMap<String, Link>>,
    /// Directories among its releases that are none.
    pub unrecorded: Seen<BTreeSet<PathBuf>>,
    /// The size of its largest release, in bytes.
    pub largest: u64,
    /// The units that look for something new to deploy by itself (`[auto]`).
    pub triggers: Vec<String>,
    /// The rule by which slotd may start its units.
    pub rule: PolkitRule,
    /// Whether polkit lets slotd start its units; absent where that was not asked.
    pub may_start: Option<bool>,
    /// A user in `/etc/passwd` or a group in `/etc/group` that has the name of its dynamic user.
    pub taken_user: Option<String>,
}

/// A file of the generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitText {
    /// Relative to the generator's directory.
    pub path: String,
    /// What it makes of the app's file now.
    pub made: String,
    /// What is there.
    pub found: Option<String>,
}

/// An app's `state.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is none: it was never deployed.
    Absent,
    /// It cannot be read, and nobody has yet kept it aside.
    Corrupt(String),
    /// It may not be looked at.
    Unseen(String),
    /// What it says.
    Stands(Box<Stand>),
}

/// How an app stands by its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// The active slot.
    pub active: Option<String>,
    /// Its release.
    pub live: Option<String>,
    /// What a rollback goes to.
    pub prev: Option<String>,
    /// What each slot has of new requests, per cent.
    pub weights: BTreeMap<String, u8>,
    /// Something is on its way from one state to another: what is found elsewhere may be of before or after.
    pub busy: bool,
}

/// A symlink of an app's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The release that it names.
    pub release: String,
    /// There is such a directory.
    pub there: bool,
}

/// The rule by which slotd may start an app's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolkitRule {
    /// Where it belongs.
    pub path: PathBuf,
    /// What it should say; empty if the app's file is wrong.
    pub made: String,
    /// What it says; `None` if it is not there.
    pub found: Seen<Option<String>>,
}

/// What slot's processes are allowed by, beside the apps' own rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Users and groups that slot's units name and that do not exist, by name.
    pub missing: BTreeMap<String, Account>,
    /// Whether the package's own rule for polkit is there.
    pub rule: Seen<bool>,
    /// The package's own policy for the bus.
    pub bus: bool,
    /// Rules of apps that have no file any more: the app's name and the rule.
    pub orphans: Option<BTreeMap<String, PathBuf>>,
}

/// What of a name there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// The user, with or without a group of that name.
    User,
    /// The group.
    Group,
}

/// A path whose owner and mode matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path.
    pub path: PathBuf,
    /// What it is for.
    pub kind: Kind,
    /// Whose it is, and who may do what; `None` if it is not there.
    pub found: Seen<Option<Owned>>,
}

/// Whose a path is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The user's name, or its number.
    pub user: String,
    /// The group's name, or its number.
    pub group: String,
    /// The lower twelve bits (inode(7)).
    pub mode: u32,
}

/// What a path is for, and so who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory that the package makes (tmpfiles.d(5)): user, group and mode.
    Made(&'static str, &'static str, u32),
    /// A symlink that the package makes (tmpfiles.d(5)), and what it says. One that says something else is as good as none.
    Symlink(&'static str),
    /// An app's directory below `/var/lib/slot`, which `slotctl app add` makes.
    OfApp,
    /// A file or directory of settings: root's, and nobody else may change it.
    Settings,
    /// A secret: root's, and nobody else may read it.
    Secret,
    /// A directory above a secret: root's, and nobody else may write there.
    Above,
    /// A file, a directory or a symlink that slotd writes.
    Slotd,
}

/// A file that was to be renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Which.
    pub path: PathBuf,
    /// How old it is, in seconds.
    pub age: u64,
    /// A process has it open.
    pub open: bool,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// A directory on it that slot writes in.
    pub path: PathBuf,
    /// Bytes that are left for slot, which is not root.
    pub free: u64,
    /// Files that can still be made; `None` if the file system does not count them.
    pub files: Option<u64>,
    /// It is in memory, and small: what it has to hold is the table.
    pub volatile: bool,
}

/// Who listens on a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// For people: `nginx (pid 42, nginx.service)`.
    pub who: Vec<String>,
    /// Their units.
    pub units: Vec<String>,
}
