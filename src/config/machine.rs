//! The machine's file, `/etc/slot/machine.toml`: from keys to [`Machine`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{ConfigError, Source};
use super::limits::Limits;
use super::network::Network;
use super::section::Section;

/// The settings of a machine; all of them may be absent, and the file too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `[limits]`.
    pub limits: Limits,
    /// `trusted_peers = ["10.0.0.0/8"]` under `[router]`: who may say on whose behalf they ask.
    pub trusted_peers: Vec<Network>,
    /// `proxy_protocol = ["http"]` under `[router]`: the listeners whose connections begin with a header of that protocol.
    pub proxy_protocol: Vec<String>,
    /// `drain = "10m"` under `[router]`: how long an instance that was upgraded may finish what it has; absent: as long as that takes.
    pub drain: Option<Duration>,
}

/// Why the machine's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// It is there and cannot be read.
    #[error(
        "cannot read {path}, which slotd's and the router's users have to (`chmod 644 {path}`)"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigError),
}

impl Machine {
    /// Reads the machine's file; one that is not there is one that sets nothing.
    ///
    /// # Errors
    /// [`MachineError`], as it says.
    pub fn read(path: &Path) -> Result<Self, MachineError> {
        let text = Self::text(path)?;
        Ok(Self::parse(&text, &path.display().to_string(), None)?)
    }

    /// What the machine's file says; one that is not there says nothing.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn text(path: &Path) -> Result<String, MachineError> {
        match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
            text => text.map_err(|source| MachineError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads the machine's file. `file` names it in errors. `listeners` are those that the router has, where that is known: no other can
    /// be named.
    ///
    /// # Errors
    /// With the first key that is wrong, its line and what to write instead.
    pub fn parse(text: &str, file: &str, listeners: Option<&[&str]>) -> Result<Self, ConfigError> {
        Self::of(Section::of_file(Source { file, text })?, listeners)
    }

    /// The same, of a file's keys.
    pub(super) fn of(
        mut keys: Section<'_>,
        listeners: Option<&[&str]>,
    ) -> Result<Self, ConfigError> {
        let mut machine = Self::default();
        if let Some(value) = keys.take("limits") {
            let mut limits = value.section("[limits]")?;
            machine.limits = Limits::take(&mut limits)?;
            limits.finish()?;
        }
        if let Some(value) = keys.take("router") {
            router(&mut machine, value.section("[router]")?, listeners)?;
        }
        keys.finish()?;
        Ok(machine)
    }
}

fn router(
    machine: &mut Machine,
    mut keys: Section<'_>,
    listeners: Option<&[&str]>,
) -> Result<(), ConfigError> {
    if let Some(value) = keys.take("trusted_peers") {
        for item in value.list("[\"10.0.0.0/8\"]")? {
            let text = item.text("[\"10.0.0.0/8\"]")?;
            let network: Network = text.parse().map_err(|rule: String| {
                item.error(format!("{text:?} is no block of addresses"), rule)
            })?;
            if network.is_everyone() {
                return Err(item.error(
                    "everyone would be believed whoever they say that they are",
                    "name your own proxies, or the private network that they are in: \"10.0.0.0/8\"",
                ));
            }
            machine.trusted_peers.push(network);
        }
    }
    if let Some(value) = keys.take("proxy_protocol") {
        for item in value.list("[\"http\"]")? {
            let name = super::app::listener(&item)?;
            if let Some(known) = listeners
                && !known.contains(&name.as_str())
            {
                return Err(item.error(
                    format!("the router has no listener {name:?}"),
                    format!(
                        "write the FileDescriptorName= of one of its sockets: {known:?}; a new socket unit needs `Sockets=` in the router's \
                         unit besides, see slot-router(8)"
                    ),
                ));
            }
            machine.proxy_protocol.push(name);
        }
        if !machine.proxy_protocol.is_empty() && machine.trusted_peers.is_empty() {
            return Err(value.error(
                "everyone could claim any address",
                "name who may send such a header: `trusted_peers = [\"10.0.0.0/8\"]`",
            ));
        }
    }
    let drain = keys.take("drain");
    let drain = drain.map(|value| value.span("\"10m\"")).transpose()?;
    // As in an app's file, no time at all is no limit.
    machine.drain = drain.filter(|limit| !limit.is_zero());
    keys.finish()
}
