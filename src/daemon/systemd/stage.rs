//! Staging as a unit of systemd: `slot-stage@web.service`, which runs as the user whose work tree it is.
//!
//! slotd says which release it is to be of, hands over its commit, and is told what came of it (`wire::staging`). It reads nothing of the
//! tree itself, and runs no git in it.

use std::io::{self, BufReader, BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::super::errand::{Door, Held};
use super::super::live::blocking;
use crate::config::App;
use crate::git::{Commit, Store};
use crate::staging::{Made, Promoted};
use crate::systemd::{Bus, StartError, UnitName};
use crate::telemetry::chain;
use crate::units::stage_socket;
use crate::wire::staging::{Order, Said};

/// How long the unit may take: its own `RuntimeMaxSec=`, and to be there and to ask.
const LIMIT: Duration = Duration::from_secs(16 * 60);

/// How long its start may take.
const START: Duration = Duration::from_secs(30);

/// What is known of an app's staging.
#[derive(Debug)]
pub(super) struct Stage {
    unit: UnitName,
    socket: PathBuf,
}

impl Stage {
    /// `run` is `/run/slot`.
    pub(super) fn of(app: &App, run: &Path) -> Self {
        Self {
            unit: UnitName::stage(&app.name),
            socket: stage_socket(run, &app.name),
        }
    }

    /// Has staging made of a release; an error is a sentence.
    pub(super) async fn make(
        &self,
        bus: &Bus,
        promoted: Promoted,
        store: Store,
    ) -> Result<Made, String> {
        // Of a slotd that was killed, or of an app that was taken up anew.
        bus.stop(&self.unit, None).await;
        let door = Door::open(&self.socket).map_err(|error| error.to_string())?;
        match bus.start(&self.unit, None, START).await {
            Ok(_) => {}
            Err(StartError::Call(error)) => return Err(super::not_asked(&error).text),
            Err(error @ StartError::Failed { .. }) => {
                return Err(self.with_journal(&error.to_string()));
            }
        }
        let exchange = async {
            let stream = door.called(bus, &self.unit).await?;
            let (_held, call) = Held::of(stream).map_err(|error| error.to_string())?;
            blocking(move || exchange(&call.stream, &promoted, &store)).await
        };
        let made = timeout(LIMIT, exchange).await;
        let made = made.unwrap_or_else(|_| Err("did not end in time".to_owned()));
        made.map_err(|why| self.with_journal(&format!("{} {why}", self.unit)))
    }

    fn with_journal(&self, why: &str) -> String {
        format!("{why}; `journalctl -u {}` says more", self.unit.stem())
    }
}

/// Says what there is to do and hears what came of it.
fn exchange(stream: &UnixStream, promoted: &Promoted, store: &Store) -> Result<Made, String> {
    let lost = |error: io::Error| format!("lost its connection: {error}");
    let order = Order {
        release: promoted.release.to_string(),
        commit: promoted.commit.to_string(),
    };
    let order = serde_json::to_string(&order).expect("an order is strings");
    (&*stream)
        .write_all(format!("{order}\n").as_bytes())
        .map_err(lost)?;
    let mut from = BufReader::new(stream);
    loop {
        let said = Said::read(&mut from).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "ended without a word, or says too much".to_owned(),
            io::ErrorKind::InvalidData => format!("says what slotd does not know: {error}"),
            _ => lost(error),
        })?;
        match said {
            Said::Wants { have } => send(stream, promoted, store, &have)?,
            Said::Made => return Ok(Made::Of(promoted.release.clone())),
            Said::Kept { why } => return Ok(Made::Kept(why)),
            Said::Failed { why } => return Err(format!("could not make it: {why}")),
        }
    }
}

fn send(
    stream: &UnixStream,
    promoted: &Promoted,
    store: &Store,
    have: &[String],
) -> Result<(), String> {
    let held = store.hold().map_err(|error| chain(&error))?;
    let have: Vec<Commit> = have.iter().filter_map(|it| it.parse().ok()).collect();
    let pack = held.pack(&promoted.commit, &have);
    let mut pack =
        pack.map_err(|error| format!("could not be given the commit: {}", chain(&error)))?;
    let mut to = BufWriter::with_capacity(1 << 16, stream);
    io::copy(&mut pack, &mut to)
        .and_then(|_| to.flush())
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .map_err(|error| format!("could not be given the commit: {error}"))
}
