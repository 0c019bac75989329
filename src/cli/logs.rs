//! `slotctl logs`: journalctl with the matches that tell an app's whole story.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::args::Logs;
use super::client::Client;
use super::exit::Exit;
use crate::wire::api::Status;

/// Becomes journalctl.
///
/// # Errors
/// If slotd does not answer, the app does not run under systemd, or journalctl cannot be run.
pub async fn run(client: &Client, options: &Logs, json: bool) -> anyhow::Result<Infallible> {
    let status: Status = client.get("/status").await?;
    let words = matches(&status, options)?;
    let error = Command::new("journalctl")
        .args(output(options, json))
        .args(words)
        .exec();
    Err(Exit::Failed.because(format!("cannot run journalctl: {error}")))
}

fn output(options: &Logs, json: bool) -> Vec<String> {
    let mut words = Vec::new();
    if options.follow {
        words.push("--follow".to_owned());
    }
    if let Some(lines) = options.lines {
        words.push(format!("--lines={lines}"));
    } else if !options.follow {
        // The end is what is looked for.
        words.push("--pager-end".to_owned());
    }
    if json {
        words.push("--output=json".to_owned());
    }
    words
}

/// Lines of the app, slotd and the router have `SLOT_APP`; what PID 1 says of the units has `UNIT` (journalctl(1), "+").
fn matches(status: &Status, options: &Logs) -> anyhow::Result<Vec<String>> {
    let slots: Vec<_> = status
        .slots
        .iter()
        .filter(|slot| {
            options
                .slot
                .as_ref()
                .is_none_or(|wanted| wanted.as_str() == slot.slot)
        })
        .collect();
    if let Some(slot) = options.slot.as_ref().filter(|_| slots.is_empty()) {
        let known: Vec<&str> = status.slots.iter().map(|slot| slot.slot.as_str()).collect();
        return Err(Exit::NotFound.because(format!(
            "{} has no slot {slot}; it has {}",
            status.app,
            known.join(", ")
        )));
    }
    if slots.iter().any(|slot| !slot.unit.ends_with(".service")) {
        return Err(Exit::Failed.because(format!(
            "{} does not run under systemd, so it has no journal: its lines are in the terminal where `slotctl start` or `slotctl demo` runs",
            status.app
        )));
    }
    let mut words = vec![format!("SLOT_APP={}", status.app)];
    if let Some(slot) = &options.slot {
        words.push(format!("SLOT_NAME={slot}"));
    }
    for slot in slots {
        words.extend(["+".to_owned(), format!("UNIT={}", slot.unit)]);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::SlotStatus;

    fn status(ending: &str) -> Status {
        let slot = |name: &str| SlotStatus {
            slot: name.to_owned(),
            unit: format!("web@{name}{ending}"),
            ..SlotStatus::default()
        };
        Status {
            app: "web".to_owned(),
            slots: vec![slot("blue"), slot("green")],
            ..Status::default()
        }
    }

    fn options(slot: Option<&str>) -> Logs {
        Logs {
            slot: slot.map(|slot| slot.parse().unwrap()),
            follow: true,
            lines: Some(5),
        }
    }

    #[test]
    fn an_apps_story_is_matched_across_processes() {
        let words = matches(&status(".service"), &options(None)).unwrap();
        assert_eq!(
            words.join(" "),
            "SLOT_APP=web + UNIT=web@blue.service + UNIT=web@green.service"
        );
        let words = matches(&status(".service"), &options(Some("green"))).unwrap();
        assert_eq!(
            words.join(" "),
            "SLOT_APP=web SLOT_NAME=green + UNIT=web@green.service"
        );
        assert_eq!(
            output(&options(None), true),
            ["--follow", "--lines=5", "--output=json"]
        );
    }

    #[test]
    fn a_slot_that_is_not_there_and_an_app_without_a_journal_are_said_to_be_so() {
        let error = matches(&status(".service"), &options(Some("red")))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "web has no slot red; it has blue, green");
        let error = matches(&status(""), &options(None))
            .unwrap_err()
            .to_string();
        assert!(error.contains("slotctl start"), "{error}");
    }
}
