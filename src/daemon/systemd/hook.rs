//! A hook as a unit of systemd: `slot-hook@web.service`, which asks slotd which of the app's commands it is to run.

use std::io::{self, Read, Write};
use std::path::Path;

use super::super::errand::{Broken, Call};
use super::super::hooks::facts;
use super::super::units::{Report, Unbuilt};
use super::errand::{Errand, lost};
use crate::config::App;
use crate::deploy::{Occasion, UnitFailure};
use crate::systemd::{Bus, UnitName};
use crate::units::hook_socket;
use crate::wire::hook::{DONE, Order};

/// What is known of an app's hooks.
#[derive(Debug)]
pub(super) struct Hooks {
    errand: Errand,
    commands: crate::config::Hooks,
}

impl Hooks {
    pub(super) fn of(app: &App, run: &Path) -> Self {
        Self {
            errand: Errand {
                unit: UnitName::hook(&app.name),
                socket: hook_socket(run, &app.name),
                limit: app.hooks.timeout,
            },
            commands: app.hooks.clone(),
        }
    }

    /// Runs one; `refused` is why its unit must not be started.
    pub(super) async fn run(
        &self,
        bus: &Bus,
        occasion: &Occasion,
        upstream: Option<String>,
        refused: Option<UnitFailure>,
    ) -> Result<(), Unbuilt> {
        let Some(command) = self.commands.commands.get(&occasion.hook) else {
            return Ok(());
        };
        if let Some(failure) = refused {
            let unit = self.errand.unit.to_string();
            let report = Report {
                unit,
                ..Report::default()
            };
            return Err(Unbuilt { failure, report });
        }
        let release = occasion.release.as_ref();
        let order = Order {
            hook: occasion.hook.name().to_owned(),
            command: command.clone(),
            release: release.map(ToString::to_string).unwrap_or_default(),
            facts: facts(occasion, upstream),
        };
        let exchange = move |call: &Call| exchange(call, &order);
        self.errand.run(bus, exchange).await
    }
}

fn exchange(call: &Call, order: &Order) -> Result<(), Broken> {
    let mut line = serde_json::to_vec(order).expect("an order is strings");
    line.push(b'\n');
    let mut stream = &call.stream;
    stream.write_all(&line).map_err(|error| lost(&error))?;
    let mut answer = String::new();
    let read = stream
        .take(DONE.len() as u64 + 1)
        .read_to_string(&mut answer);
    read.map_err(|error: io::Error| lost(&error))?;
    if answer == DONE {
        return Ok(());
    }
    Err(Broken::There(
        "ended without a word of its command".to_owned(),
    ))
}
