//! A build as a unit of systemd: `slot-setup@web.service`.
//!
//! slotd hands the unit the release and takes back what it made, both as archives over a socket (`wire::setup`): neither reads a file of
//! the other's, and what the build wrote is looked over like an upload.

use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::super::errand::{Broken, Call};
use super::super::units::Unbuilt;
use super::errand::{Errand, lost};
use crate::config::App;
use crate::deploy::UnitFailure;
use crate::release::{self, ReleaseError, Site};
use crate::systemd::{Bus, UnitName};
use crate::telemetry::chain;
use crate::units::setup_socket;
use crate::wire::setup::Order;

/// What is known of an app's builds.
#[derive(Debug)]
pub(super) struct Setup {
    errand: Errand,
    command: Vec<String>,
}

impl Setup {
    /// None without a `setup_command`. `run` is `/run/slot`.
    pub(super) fn of(app: &App, run: &Path) -> Option<Self> {
        Some(Self {
            errand: Errand {
                unit: UnitName::setup(&app.name),
                socket: setup_socket(run, &app.name),
                limit: app.setup_timeout,
            },
            command: app.setup_command.clone()?,
        })
    }

    /// Ends what runs of a build.
    pub(super) async fn end(&self, bus: &Bus) {
        self.errand.end(bus).await;
    }

    /// Builds a release in a directory of slotd's.
    pub(super) async fn build(&self, bus: &Bus, site: &Site) -> Result<(), Unbuilt> {
        let order = Order {
            release: site.id().to_string(),
            command: self.command.clone(),
        };
        let site = site.clone();
        let exchange = move |call: &Call| exchange(call, &order, &site);
        self.errand.run(bus, exchange).await
    }
}

/// Hands over the release, and takes it back.
fn exchange(call: &Call, order: &Order, site: &Site) -> Result<(), Broken> {
    hand_over(&call.stream, order, &site.path()).map_err(|error| {
        Broken::There(format!("could not be given the release: {}", chain(&error)))
    })?;
    let mut back = BufReader::with_capacity(1 << 16, &call.stream);
    let wanted = || call.is_wanted();
    site.take_back(&mut back, wanted)
        .map_err(|error| match error {
            ReleaseError::Truncated(_) => Broken::There("gave nothing back".to_owned()),
            error => Broken::Here(UnitFailure {
                result: "refused".into(),
                text: format!("made what cannot be taken: {}", chain(&error)),
            }),
        })?;
    // Until its end: the builder takes it for a deployment that has ended when this side is closed first.
    io::copy(&mut back, &mut io::sink())
        .map(drop)
        .map_err(|error| lost(&error))
}

fn hand_over(stream: &UnixStream, order: &Order, directory: &Path) -> Result<(), ReleaseError> {
    let mut to = BufWriter::with_capacity(1 << 16, stream);
    let written = serde_json::to_writer(&mut to, order)
        .map_err(io::Error::from)
        .and_then(|()| to.write_all(b"\n"));
    let failed = |source| ReleaseError::Disk {
        operation: "send",
        path: directory.to_owned(),
        source,
    };
    written.map_err(failed)?;
    release::pack(directory, &mut to)?;
    to.flush().map_err(failed)
}
