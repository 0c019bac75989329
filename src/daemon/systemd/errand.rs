//! A unit that does something for slotd once: it is started, calls, is told what to do, answers, and ends.
//!
//! **Invariant:** an errand that is given up loses its connection at once, which ends it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::errand::{Broken, Call, Door, Held};
use super::super::live::blocking;
use super::super::notices::LIMIT;
use super::super::units::{Report, Unbuilt};
use super::door::{LOOK, is_over};
use crate::config::App;
use crate::deploy::{BootId, UnitFailure, UnitResult};
use crate::systemd::{Bus, Properties, StartError, UnitName, failure, how_it_ended, journal};
use crate::units::{fetch_socket, notify_socket};

/// How long the unit may take to be there and to ask, and to be gone when it has answered.
const MARGIN: Duration = Duration::from_secs(30);

/// What is known of one.
#[derive(Clone, Debug)]
pub(super) struct Errand {
    pub(super) unit: UnitName,
    /// Where the unit calls.
    pub(super) socket: PathBuf,
    /// How long the unit may take.
    pub(super) limit: Duration,
}

impl Errand {
    /// What fetches from an app's remote, if it has one; `run` is `/run/slot`.
    pub(super) fn fetch(app: &App, run: &Path) -> Option<Self> {
        let remote = app.remote.as_ref()?;
        Some(Self {
            unit: UnitName::fetch(&app.name),
            socket: fetch_socket(run, &app.name),
            limit: remote.timeout,
        })
    }

    /// What sends an app's notices.
    pub(super) fn notify(app: &App, run: &Path) -> Self {
        Self {
            unit: UnitName::notify(&app.name),
            socket: notify_socket(run, &app.name),
            limit: LIMIT,
        }
    }

    /// Ends what runs of it.
    pub(super) async fn end(&self, bus: &Bus) {
        bus.stop(&self.unit, None).await;
    }

    /// Starts the unit, and gives its connection to `exchange`, on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bus: &Bus,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
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
        let broken = match timeout_at(until, self.exchange(bus, &door, exchange)).await {
            // A whole answer comes of a unit that did well. What it still clears away is not waited for.
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(broken)) => broken,
            Err(_) => {
                self.end(bus).await;
                Broken::Here(late())
            }
        };
        // The unit's own end says more than that no answer came.
        let unit = match timeout(MARGIN, self.ended(bus)).await {
            Ok(unit) => unit,
            Err(_) => {
                self.end(bus).await;
                bus.properties(&self.unit).await
            }
        };
        bus.unless_going_down().await;
        let failure = match (broken, unit.result.as_str()) {
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

    async fn exchange<T: Send + 'static>(
        &self,
        bus: &Bus,
        door: &Door,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Broken> {
        let called = door.called(bus, &self.unit).await.map_err(Broken::There)?;
        let (_held, call) = Held::of(called).map_err(|error| lost(&error))?;
        blocking(move || exchange(&call)).await
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

/// A connection that is gone.
pub(super) fn lost(error: &io::Error) -> Broken {
    Broken::There(format!("lost its connection: {error}"))
}
