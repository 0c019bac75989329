//! What is seen while an attempt goes on: on a terminal one live line per phase, elsewhere
//! (and on one with `TERM=dumb`) one plain line per phase.
//!
//! **Invariant:** all of it goes to stderr; stdout has the result alone.

use std::io::stderr;
use std::time::{Duration, Instant};

use super::term::{Paint, harmless, is_live, note, span, whole_span};
use crate::wire::api::{Event, Progress, Status};
use crate::wire::control::InFlight;

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Silent,
    Plain,
    Live,
}

/// The progress of one attempt.
#[derive(Debug)]
pub struct Screen {
    mode: Mode,
    paint: Paint,
    phase: Phase,
    drained: Option<InFlight>,
}

#[derive(Debug)]
struct Phase {
    name: String,
    since: Instant,
    detail: String,
}

impl Screen {
    /// For stderr as it is; with `json` only a terminal sees anything.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let mode = match (is_live(&stderr()), json) {
            (true, _) => Mode::Live,
            (false, false) => Mode::Plain,
            (false, true) => Mode::Silent,
        };
        Self {
            mode,
            paint: Paint::of(&stderr()),
            phase: Phase {
                name: String::new(),
                since: Instant::now(),
                detail: String::new(),
            },
            drained: None,
        }
    }

    /// Whether it wants [`Self::tick`].
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.mode == Mode::Live
    }

    /// Whether nothing is shown at all.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.mode == Mode::Silent
    }

    /// The phase that is shown, empty before the first.
    #[must_use]
    pub fn phase(&self) -> &str {
        &self.phase.name
    }

    /// A phase begins, unless one that comes after it already did: events and polls overtake each other.
    pub fn enter(&mut self, name: &str, detail: &str) {
        if name == self.phase.name {
            if !detail.is_empty() {
                detail.clone_into(&mut self.phase.detail);
            }
            return;
        }
        if rank(name) < rank(&self.phase.name) {
            return;
        }
        self.finish();
        self.drained = None;
        self.phase = Phase {
            name: name.to_owned(),
            since: Instant::now(),
            detail: detail.to_owned(),
        };
        match self.mode {
            Mode::Plain => note(&format!("{}\n", line(name, None, &self.phase.detail))),
            Mode::Live => self.tick(),
            Mode::Silent => {}
        }
    }

    /// More about the phase that is shown.
    pub fn detail(&mut self, detail: &str) {
        detail.clone_into(&mut self.phase.detail);
    }

    /// What a slot that is waited for still holds; `None` when no slot is waited for.
    pub fn drain(&mut self, held: Option<InFlight>) {
        self.drained = held;
    }

    /// An event of the attempt.
    pub fn event(&mut self, event: &Event) {
        if let Some(phase) = event.phase.as_ref().filter(|_| event.event == "phase") {
            if phase == "fetch" {
                // What is said of it is what nobody here can know: which commit it is.
                if *phase == self.phase.name && self.mode == Mode::Plain {
                    note(&format!("{}\n", line(phase, None, &event.text)));
                }
                return self.enter(phase, &event.text);
            }
            self.enter(
                phase,
                &place(event.slot.as_deref(), event.release.as_deref()),
            );
        }
    }

    /// The attempt as slotd sees it.
    pub fn progress(&mut self, progress: &Progress) {
        let mut detail = place(progress.slot.as_deref(), progress.release.as_deref());
        if let Some(waits_for) = &progress.waits_for {
            if !detail.is_empty() {
                detail.push_str("; ");
            }
            detail.push_str(waits_for);
        }
        self.enter(&progress.phase, &detail);
    }

    /// Draws the live line anew.
    pub fn tick(&mut self) {
        if self.mode != Mode::Live || self.phase.name.is_empty() {
            return;
        }
        let elapsed = self.phase.since.elapsed();
        let text = match self.drained {
            Some(held) => drain_line(elapsed, held),
            None => line(
                &self.phase.name,
                Some(&whole_span(elapsed)),
                &self.phase.detail,
            ),
        };
        let width = terminal_size::terminal_size_of(stderr()).map_or(80, |(width, _)| width.0);
        let cut: String = text
            .chars()
            .take(usize::from(width).saturating_sub(1))
            .collect();
        note(&format!("\r\x1b[2K{cut}"));
    }

    /// Leaves the last phase's line as it ended.
    pub fn finish(&mut self) {
        if self.mode == Mode::Live && !self.phase.name.is_empty() {
            let ended = span(self.phase.since.elapsed());
            let text = line(&self.phase.name, Some(&ended), &self.phase.detail);
            note(&format!("\r\x1b[2K{}\n", self.paint.dim(&text)));
        }
        self.phase.name.clear();
    }
}

/// The order in which phases can follow each other.
fn rank(phase: &str) -> u8 {
    match phase {
        // What is sent before anything is asked for.
        "" | "lfs fetch" | "upload" | "queued" => 0,
        // The steps of `preparing` that take a while have names of their own.
        "preparing" => 1,
        "fetch" => 2,
        "checkout" => 3,
        "build" => 4,
        "waiting" => 5,
        "starting" => 6,
        "ready" => 7,
        "shifting" => 8,
        "soaking" => 9,
        "draining" => 10,
        _ => 11,
    }
}

/// `starting   12s  green, release 1a2b3c4d`.
fn line(phase: &str, elapsed: Option<&str>, detail: &str) -> String {
    let elapsed = elapsed.map_or_else(String::new, |elapsed| format!("{elapsed:>8}"));
    format!("{phase:<10}{elapsed}  {}", harmless(detail))
        .trim_end()
        .to_owned()
}

/// `Waiting [2m 15s]  connections 3, requests 2, streams 1`: connections are all that is in flight.
#[must_use]
pub fn drain_line(elapsed: Duration, held: InFlight) -> String {
    let tunnels = match held.tunnels {
        0 => String::new(),
        tunnels => format!(", tunnels {tunnels}"),
    };
    format!(
        "Waiting [{}]  connections {}, requests {}, streams {}{tunnels}",
        whole_span(elapsed),
        held.total(),
        held.requests,
        held.streams
    )
}

/// What the slots that are being emptied still hold, together; `None` if no slot is.
#[must_use]
pub fn still_held(status: &Status) -> Option<InFlight> {
    status
        .slots
        .iter()
        .filter(|slot| matches!(slot.condition.as_str(), "warm" | "draining" | "stopping"))
        .map(|slot| slot.in_flight.unwrap_or_default())
        .reduce(|all, one| InFlight {
            requests: all.requests + one.requests,
            streams: all.streams + one.streams,
            tunnels: all.tunnels + one.tunnels,
        })
}

fn place(slot: Option<&str>, release: Option<&str>) -> String {
    match (slot, release) {
        (Some(slot), Some(release)) => format!("{slot}, release {release}"),
        (Some(slot), None) => slot.to_owned(),
        (None, Some(release)) => format!("release {release}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drain_line_counts_every_connection() {
        let held = InFlight {
            requests: 2,
            streams: 1,
            tunnels: 0,
        };
        assert_eq!(
            drain_line(Duration::from_secs(135), held),
            "Waiting [2m 15s]  connections 3, requests 2, streams 1"
        );
        let held = InFlight { tunnels: 4, ..held };
        assert_eq!(
            drain_line(Duration::from_secs(3), held),
            "Waiting [3s]  connections 7, requests 2, streams 1, tunnels 4"
        );
    }

    #[test]
    fn a_phase_that_was_overtaken_is_not_shown() {
        let mut screen = Screen::new(true);
        screen.enter("starting", "green");
        screen.enter("preparing", "");
        assert_eq!(screen.phase(), "starting");
        screen.enter("ready", "green");
        assert_eq!(screen.phase(), "ready");
    }

    #[test]
    fn a_line_has_no_blank_end() {
        assert_eq!(line("preparing", None, ""), "preparing");
        assert_eq!(
            line("starting", Some("12s"), "green"),
            "starting       12s  green"
        );
    }
}
