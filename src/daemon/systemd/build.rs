//! A build as a unit of systemd: `slot-setup@web.service`.
//!
//! slotd hands the unit the release and takes back what it made, both as archives over a socket (`wire::setup`): neither reads a file of
//! the other's, and what the build wrote is looked over like an upload.
//!
//! **Invariant:** a build that is given up loses its connection at once, which ends it.

use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::live::blocking;
use super::super::units::{Report, Unbuilt};
use super::door::{Door, Held, LOOK, is_over};
use crate::config::App;
use crate::deploy::{BootId, UnitFailure, UnitResult};
use crate::release::{self, ReleaseError, Site};
use crate::systemd::{Bus, Properties, StartError, UnitName, failure, how_it_ended, journal};
use crate::telemetry::chain;
use crate::units::setup_socket;
use crate::wire::setup::Order;

/// How long the unit may take to be there and to ask, and to be gone when it has handed the release back.
const MARGIN: Duration = Duration::from_secs(30);

/// What is known of an app's builds.
#[derive(Debug)]
pub(super) struct Setup {
    unit: UnitName,
    socket: PathBuf,
    command: Vec<String>,
    limit: Duration,
}

impl Setup {
    /// None without a `setup_command`. `run` is `/run/slot`.
    pub(super) fn of(app: &App, run: &Path) -> Option<Self> {
        Some(Self {
            unit: UnitName::setup(&app.name),
            socket: setup_socket(run, &app.name),
            command: app.setup_command.clone()?,
            limit: app.setup_timeout,
        })
    }

    /// Ends what runs of a build.
    pub(super) async fn end(&self, bus: &Bus) {
        bus.stop(&self.unit, None).await;
    }

    /// Builds a release in a directory of slotd's.
    pub(super) async fn build(&self, bus: &Bus, site: &Site) -> Result<(), Unbuilt> {
        // Of a slotd that was killed; its connection is gone, but its end may take a moment.
        self.end(bus).await;
        let until = Instant::now() + self.limit + MARGIN;
        let door = Door::open(&self.socket)
            .map_err(|error| self.own("resources", error.to_string(), None))?;
        let run = match bus.start(&self.unit, None, MARGIN).await {
            Ok(run) => run,
            Err(error) => return Err(self.not_started(bus, error).await),
        };
        let own = |result: &str, text: String| UnitFailure {
            result: result.into(),
            text,
        };
        let late = || own("timeout", "did not end in time".to_owned());
        let built = match timeout_at(until, self.exchange(bus, &door, site)).await {
            // A whole archive comes of a command that ended well. What the unit still clears away is not waited for.
            Ok(Ok(())) => return Ok(()),
            Ok(Err(broken)) => broken,
            Err(_) => {
                self.end(bus).await;
                Broken::Here(late())
            }
        };
        // The command's own end says more than that its archive did not come.
        let unit = match timeout(MARGIN, self.ended(bus)).await {
            Ok(unit) => unit,
            Err(_) => {
                self.end(bus).await;
                bus.properties(&self.unit).await
            }
        };
        bus.unless_going_down().await;
        let failure = match (built, unit.result.as_str()) {
            (Broken::Here(failure), _) => failure,
            (Broken::There(_), "timeout") => late(),
            (Broken::There(why), "" | "success") => own("protocol", why),
            (Broken::There(_), _) => failure(&unit),
        };
        Err(Unbuilt {
            report: self.report(&failure.result, Some(&unit), Some(&run)).await,
            failure,
        })
    }

    /// Hands over the release, and takes it back.
    async fn exchange(&self, bus: &Bus, door: &Door, site: &Site) -> Result<(), Broken> {
        let lost = |error: io::Error| Broken::There(format!("lost its connection: {error}"));
        let stream = door
            .called(bus, &self.unit)
            .await
            .map_err(Broken::There)?
            .into_std()
            .map_err(lost)?;
        stream.set_nonblocking(false).map_err(lost)?;
        let given_up = Arc::new(AtomicBool::new(false));
        let _held = Held {
            stream: stream.try_clone().map_err(lost)?,
            given_up: Arc::clone(&given_up),
        };
        let order = Order {
            release: site.id().to_string(),
            command: self.command.clone(),
        };
        let site = site.clone();
        blocking(move || {
            hand_over(&stream, &order, &site.path()).map_err(|error| {
                Broken::There(format!("could not be given the release: {}", chain(&error)))
            })?;
            let mut back = BufReader::with_capacity(1 << 16, &stream);
            let wanted = || !given_up.load(Ordering::Relaxed);
            site.take_back(&mut back, wanted)
                .map_err(|error| match error {
                    ReleaseError::Truncated(_) => Broken::There("gave nothing back".to_owned()),
                    error => Broken::Here(UnitFailure {
                        result: "refused".into(),
                        text: format!("made what cannot be taken: {}", chain(&error)),
                    }),
                })?;
            // Until its end: the builder takes it for a deployment that has ended when this side is closed first.
            io::copy(&mut back, &mut io::sink()).map(drop).map_err(lost)
        })
        .await
    }

    /// Waits for the unit's end, and gives it as it is then.
    async fn ended(&self, bus: &Bus) -> Properties {
        loop {
            let unit = bus.properties(&self.unit).await;
            if is_over(&unit) {
                return unit;
            }
            sleep(LOOK).await;
        }
    }

    async fn not_started(&self, bus: &Bus, error: StartError) -> Unbuilt {
        match error {
            StartError::Failed { failure, last, .. } => {
                let run = last.invocation.clone();
                Unbuilt {
                    report: self
                        .report(&failure.result, Some(&last), run.as_ref())
                        .await,
                    failure,
                }
            }
            StartError::Call(error) => {
                bus.unless_going_down().await;
                let failure = super::not_asked(&error);
                let text = format!("could not be started: {}", failure.text);
                self.own(failure.result.as_str(), text, None)
            }
        }
    }

    fn own(&self, result: &str, text: String, run: Option<&BootId>) -> Unbuilt {
        Unbuilt {
            failure: UnitFailure {
                result: result.into(),
                text,
            },
            report: Report {
                unit: self.unit.to_string(),
                journal: Some(journal::command(self.unit.stem(), run)),
                ..Report::default()
            },
        }
    }

    async fn report(
        &self,
        result: &UnitResult,
        unit: Option<&Properties>,
        run: Option<&BootId>,
    ) -> Report {
        Report {
            unit: self.unit.to_string(),
            result: Some(result.as_str().to_owned()),
            exit: unit.and_then(how_it_ended),
            log: match run {
                Some(run) => journal::last_lines(run).await,
                None => Vec::new(),
            },
            journal: Some(journal::command(self.unit.stem(), run)),
            ..Report::default()
        }
    }
}

/// An exchange that did not come to its end.
enum Broken {
    /// On the unit's side: how the unit ended says why, and if it does not, this does.
    There(String),
    /// On this side.
    Here(UnitFailure),
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
