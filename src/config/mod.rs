//! TOML in, validated settings out: `/etc/slot/apps/<app>.toml` (or a project's `slot.toml`) and `/etc/slot/machine.toml`. JSON too,
//! where it is slot-machine's ([`slot_machine`]).
//!
//! **Invariant:** a file with one wrong key is refused whole; the error names the file, the line, the key and what to write instead.

mod after;
mod app;
mod auto;
mod canary;
mod clients;
mod drain;
mod edit;
mod env;
mod error;
mod faults;
mod hooks;
mod limits;
mod machine;
mod network;
mod notices;
mod remote;
mod section;
mod shown;
pub mod slot_machine;
mod span;
mod staging;
mod trust;
mod window;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use auto::{Auto, Watched};
pub use canary::Canary;
pub use drain::Drain;
pub use edit::with_ports;
pub use env::{is_env_name, is_reserved};
pub use error::{ConfigError, Source};
pub use faults::locate;
pub use hooks::Hooks;
pub use limits::{AppLimits, Limits};
pub use machine::{Machine, MachineError};
pub use network::Network;
pub use notices::Receiver;
pub use remote::{Remote, is_ref_name, url_problem};
pub use section::closest;
pub use shown::{APP_SCHEMA, MACHINE_SCHEMA, Setting, Shown, app_settings, machine_settings};
pub use slot_machine::SlotMachine;
pub use span::parse as parse_span;
pub(crate) use span::systemd as systemd_span;
pub use staging::Staging;
pub use window::{NoWindow, Window};

use crate::deploy::{After, AppName, Migrate, Rate, SlotName};
use crate::router::table::sticky::By;

/// Where a release keeps what its [`App::shared_dirs`] had in them when it was deployed.
pub const SEED: &str = ".slot-seed";

/// How the app is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bind {
    /// `PORT` on loopback.
    #[default]
    Port,
    /// `SOCKET`, a unix socket that the app makes.
    Unix,
    /// The listening socket itself, as `LISTEN_FDS`.
    Fd,
}

/// What says that a started app is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// The app sends `READY=1` (sd_notify(3)).
    Notify,
    /// The process runs; the health gate decides alone.
    #[default]
    Health,
}

/// Whose rules hold where slot and slot-machine differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Semantics {
    /// Of a slot.toml.
    #[default]
    Slot,
    /// Of a slot-machine.json: what ends by itself is not started again, SIGTERM goes to all of the app's processes, health is a 200,
    /// an `env_file` that is not there is none, and what the app serves on `INTERNAL_PORT` is routed too.
    SlotMachine,
}

/// A port per slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// `PORT`.
    pub port: u16,
    /// `INTERNAL_PORT`, where health is asked; the same as `port` unless the file says otherwise.
    pub internal: u16,
}

/// One app's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// `name = "web"`; absent in a project's file: `slot`.
    pub name: AppName,
    /// `command = "./server --flag"` or an array; the first word is relative to the release when it begins with `./`.
    /// `$NAME` and `${NAME}` are replaced from the environment by the launcher.
    pub command: Vec<String>,
    /// `setup_command = "npm ci"` or an array, as `command`: makes a release ready in its own directory before it is first started.
    pub setup_command: Option<Vec<String>>,
    /// `setup_timeout = "15m"`: how long that may take.
    pub setup_timeout: Duration,
    /// `shared_dirs = ["uploads"]`: directories of the release that are the app's own data instead, the same for every release.
    pub shared_dirs: Vec<String>,
    /// Where those are, if not among the app's own data: in the repository, with slot-machine.json.
    pub shared_root: Option<PathBuf>,
    /// `slots = ["blue", "green"]`, at least two.
    pub slots: Vec<SlotName>,
    /// `bind = "port" | "unix" | "fd"`.
    pub bind: Bind,
    /// `[ports] blue = 20001`, or `blue = { port = 20001, internal = 20003 }`; complete for `bind = "port"` in
    /// `/etc/slot/apps`, usually absent in a project's file (`slotctl app add` chooses free ones).
    pub ports: BTreeMap<SlotName, Ports>,
    /// `ready = "notify" | "health"`.
    pub ready: Ready,
    /// `health = "/healthz"`; default `/`. Any 2xx or 3xx passes.
    pub health: String,
    /// `start_timeout = "60s"`: from the start job to READY.
    pub start_timeout: Duration,
    /// `health_timeout = "30s"`: from READY to the first probe that passes.
    pub health_timeout: Duration,
    /// `drain = "120s"`, `drain_requests`, `drain_streams`, `drain_tunnels`; `0s`: never forced.
    pub drain: Drain,
    /// `stop_timeout = "10s"`: from SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    /// `soak = "60s"`; `0s`: none.
    pub soak: Duration,
    /// `migrate = "99:1"`: what the old slot keeps at a switch, for ten seconds or as long as it says; absent or `off`: nothing.
    pub migrate: Option<Migrate>,
    /// `after_soak = "report"`, `keep_warm = "30m"`, `keep_warm_frozen = true`.
    pub after: After,
    /// `soak_error_rate = "10%"`: the most requests of a new release that may fail while it is watched; `off`: they are not counted.
    pub soak_error_rate: Option<Rate>,
    /// `keep = 5`: releases kept beside those in use.
    pub keep: usize,
    /// `hosts = ["example.org"]`; default `["*"]`: any. Never empty.
    pub hosts: Vec<String>,
    /// `paths = ["/"]`. Never empty.
    pub paths: Vec<String>,
    /// `listener = "http"`; absent: every listener.
    pub listener: Option<String>,
    /// `sticky = "cookie"`, `"header:X-User"` or `"address"`: by what a client keeps to a slot while several have a weight; absent: it
    /// does not.
    pub sticky: Option<By>,
    /// `preview = "example.org"`: `green.web.example.org` reaches what runs in a slot, `1a2b3c4d.web.example.org` a release.
    pub preview: Option<String>,
    /// `preview_token_sha256 = "2bb8…"`: so does `Slot-Preview: TOKEN NAME` with the token of which this is the SHA-256.
    pub preview_token: Option<String>,
    /// `user = "deploy"`; absent: a dynamic user `slot-app-<name>`.
    pub user: Option<String>,
    /// `env_file = "/etc/slot/web.env"`, which PID 1 reads for the app, or `./` relative to the release, which the app's own user
    /// reads.
    pub env_file: Option<String>,
    /// `[git]`: where commits are fetched from that nobody sends.
    pub remote: Option<Remote>,
    /// `[env]`.
    pub env: BTreeMap<String, String>,
    /// `[limits]`: what its requests may be and take.
    pub limits: AppLimits,
    /// `[staging]`: the work tree for the next deployment; absent: none is made.
    pub staging: Option<Staging>,
    /// `[hooks]`: what runs around a switch; and the `check` of `[canary]`.
    pub hooks: Hooks,
    /// `[canary]`: by which steps a new release comes to its requests; absent: all at once.
    pub canary: Option<Canary>,
    /// `[auto]`: what is deployed by itself; absent: nothing is.
    pub auto: Option<Auto>,
    /// `[[notices]]`: who is told elsewhere of what happens.
    pub notices: Vec<Receiver>,
    /// The listener whose requests are for `INTERNAL_PORT`; slot-machine's alone.
    pub internal_listener: Option<String>,
    /// By which kind of file it was read.
    pub semantics: Semantics,
}

impl App {
    /// Where the app of a slot is reached with `bind = "unix"` or `"fd"`; `run` is `/run/slot` where systemd runs.
    #[must_use]
    pub fn socket(&self, run: &Path, slot: &SlotName) -> PathBuf {
        run.join(self.name.as_str())
            .join(slot.as_str())
            .join("http.sock")
    }

    /// The `Host` of what slot itself asks the app: some frameworks answer only to hosts that they know.
    #[must_use]
    pub fn host(&self) -> &str {
        let own = self.hosts.iter().find(|host| !host.contains('*'));
        own.map_or("localhost", String::as_str)
    }

    /// What slot itself tells the app of a slot (`PORT`, `SOCKET`, `SLOT_*`), without `SLOT_RELEASE`, which is known
    /// only when the slot starts.
    #[must_use]
    pub fn injected(&self, run: &Path, slot: &SlotName) -> BTreeMap<String, String> {
        let mut words = BTreeMap::from([
            ("SLOT_MACHINE".to_owned(), "1".to_owned()),
            ("SLOT_APP".to_owned(), self.name.to_string()),
            ("SLOT_NAME".to_owned(), slot.to_string()),
        ]);
        match (self.bind, self.ports.get(slot)) {
            (Bind::Port, Some(ports)) => {
                words.insert("PORT".to_owned(), ports.port.to_string());
                words.insert("INTERNAL_PORT".to_owned(), ports.internal.to_string());
            }
            (Bind::Unix, _) => {
                let socket = self.socket(run, slot);
                words.insert("SOCKET".to_owned(), socket.to_string_lossy().into_owned());
            }
            (Bind::Port, None) | (Bind::Fd, _) => {}
        }
        words
    }

    /// What slot itself tells the setup command, without `SLOT_RELEASE`.
    #[must_use]
    pub fn injected_in_setup(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("SLOT_MACHINE".to_owned(), "1".to_owned()),
            ("SLOT_APP".to_owned(), self.name.to_string()),
        ])
    }
}
