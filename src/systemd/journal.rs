//! The last lines of a run, from the journal.
//!
//! journalctl(1) is the reader: the file format has one implementation that is kept up to date.
//!
//! **Invariant:** for reports only, and bounded: no line longer than [`LINE`], no wait longer than [`LIMIT`], no error; a report without a log
//! is still a report.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout_at};

use crate::deploy::BootId;

/// How many lines a report has.
const LINES: usize = 20;

/// How much of a line is shown, in characters.
const LINE: usize = 500;

/// How long it may take in all.
const LIMIT: Duration = Duration::from_secs(2);

/// journald gets the last lines of a process some time after PID 1 has seen it end; nobody but root can ask it to catch up.
const CATCH_UP: Duration = Duration::from_millis(50);

/// How often in a row nothing new may come before that is taken for all.
const SETTLED: u32 = 3;

/// What this run logged, and what PID 1 says of it; the last 20 lines, oldest first.
pub async fn last_lines(run: &BootId) -> Vec<String> {
    let until = Instant::now() + LIMIT;
    let (mut lines, mut same) = (Vec::new(), 0);
    // What PID 1 says of the run may be there long before what the run itself said last.
    while same < SETTLED {
        match timeout_at(until, read(run)).await {
            Ok(Some(more)) if more.is_empty() || more != lines => (lines, same) = (more, 0),
            Ok(Some(_)) => same += 1,
            Ok(None) | Err(_) => break,
        }
        sleep(CATCH_UP).await;
    }
    lines
}

/// The command that shows all of it to a person.
#[must_use]
pub fn command(unit: &str, run: Option<&BootId>) -> String {
    match run {
        // `+` joins what the app logged with what PID 1 says of it (journalctl(1)).
        Some(run) => format!("journalctl _SYSTEMD_INVOCATION_ID={run} + INVOCATION_ID={run}"),
        None => format!("journalctl -u {unit}"),
    }
}

async fn read(run: &BootId) -> Option<Vec<String>> {
    let output = Command::new("journalctl")
        .args(["--no-pager", "--quiet", "--output=cat"])
        .arg(format!("--lines={LINES}"))
        .arg(format!("_SYSTEMD_INVOCATION_ID={run}"))
        .arg("+")
        .arg(format!("INVOCATION_ID={run}"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .ok()?;
    Some(shown(&String::from_utf8_lossy(&output.stdout)))
}

/// A message may have several lines, and anything in them.
fn shown(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .iter()
        .skip(lines.len().saturating_sub(LINES))
        .map(|line| {
            line.chars()
                .take(LINE)
                .map(|c| match c {
                    '\t' => ' ',
                    c if c.is_control() => '\u{fffd}',
                    c => c,
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_shown_and_none_can_drive_a_terminal() {
        let text: String = (0..30).map(|n| format!("line {n}\x1b[2J\n")).collect();
        let lines = shown(&text);
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[0], "line 10\u{fffd}[2J");
        assert_eq!(shown(&"x".repeat(10_000))[0].len(), LINE);
    }
}
