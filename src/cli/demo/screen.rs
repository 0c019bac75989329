//! What is seen while the demo goes on: a line for each thing that happened, and on a terminal one more that moves.

use std::io::{stderr, stdout};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use terminal_size::terminal_size;

use super::super::term::{Paint, is_live, note, say, span};
use crate::load::Pulse;

/// Where it is shown, and how.
#[derive(Debug)]
pub(super) struct Screen {
    /// With `--json` stdout has the figures alone.
    to_stderr: bool,
    live: bool,
    paint: Paint,
    pulse: Option<Arc<Pulse>>,
    streams: usize,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let (live, paint) = if json {
            (is_live(&stderr()), Paint::of(&stderr()))
        } else {
            (is_live(&stdout()), Paint::of(&stdout()))
        };
        Self {
            to_stderr: json,
            live,
            paint,
            pulse: None,
            streams: 0,
        }
    }

    pub(super) fn paint(&self) -> Paint {
        self.paint
    }

    /// The first lines.
    pub(super) fn opening(&self, address: SocketAddr, taken: bool) {
        let why = if taken { " (8080 is taken)" } else { "" };
        self.line(&format!(
            "{} router, deployer and app in this one process: no root, no systemd",
            self.paint.bold("slot demo:")
        ));
        self.line(&format!("           listening on http://{address}/{why}"));
    }

    /// Shows the load's counts from here on.
    pub(super) fn watch(&mut self, pulse: Arc<Pulse>) {
        self.pulse = Some(pulse);
    }

    /// How many streams are open.
    pub(super) fn streams(&mut self, open: usize) {
        self.streams = open;
    }

    /// Something went as it was to.
    pub(super) fn good(&self, text: &str, detail: &str) {
        self.happened(&self.paint.good("✓"), text, detail);
    }

    /// Something did not.
    pub(super) fn bad(&self, text: &str, detail: &str) {
        self.happened(&self.paint.bad("✗"), text, detail);
    }

    fn happened(&self, mark: &str, text: &str, detail: &str) {
        let detail = match detail {
            "" => String::new(),
            detail => format!("  {}", self.paint.dim(detail)),
        };
        self.line(&format!("{mark} {text}{detail}"));
    }

    /// The line that moves: what goes on, for how long, and what was counted so far. Nothing where it cannot move.
    pub(super) fn tick(&self, doing: &str, elapsed: Duration) {
        if !self.live {
            return;
        }
        let doing = format!("{doing} {}", span(elapsed));
        let counts = self.pulse.as_ref().map(|pulse| {
            format!(
                "   {} requests, {} failed, {} streams open",
                pulse.served.load(Ordering::Relaxed),
                pulse.failed.load(Ordering::Relaxed),
                self.streams
            )
        });
        // A line that wraps could not be taken away again.
        let width = terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        let room = width.saturating_sub(doing.chars().count() + 3);
        let counts = counts.filter(|counts| counts.chars().count() <= room);
        let counts = self.paint.dim(&counts.unwrap_or_default());
        self.say(&format!("\r\x1b[2K{} {doing}{counts}", self.paint.odd("▸")));
    }

    /// Takes the moving line away.
    pub(super) fn clear(&self) {
        if self.live {
            self.say("\r\x1b[2K");
        }
    }

    fn line(&self, text: &str) {
        self.clear();
        self.say(&format!("{text}\n"));
    }

    /// Text as it is.
    pub(super) fn say(&self, text: &str) {
        if self.to_stderr {
            note(text);
        } else {
            // Without a reader the demo goes on to its exit status.
            let _ = say(text);
        }
    }
}
