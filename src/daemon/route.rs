//! An app's part of the table, and its way to the routers.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::live::{AGAIN, Live, millis};
use super::places::sticky;
use super::units::Units;
use crate::config::{App, Semantics};
use crate::deploy::{Event, Generation, HOLD, Route, SlotName, Weight};
use crate::telemetry::chain;
use crate::wire::table;

/// How long requests are held for a slot that nobody starts again.
const GONE: Duration = Duration::from_secs(1);

/// How long a table may be refused by a disk or a router before a switch is taken back for it.
const GIVE_UP: Duration = Duration::from_secs(30);

impl<U: Units> Live<U> {
    /// Gives the routers the table; reports when that fails for long, and goes on.
    pub(super) async fn route(&self, route: Route, report: &mpsc::Sender<Event>) -> Event {
        let parts = self.parts(&route).await;
        let mut until = Instant::now() + GIVE_UP;
        loop {
            match self.tables.publish(parts.clone()).await {
                Ok(()) => {
                    self.go_on("table");
                    if let Some(probe) = self.reached(&route).await {
                        let (table, pass, why) = (route.table, probe.pass, probe.text.clone());
                        let _ = report.send(Event::Reached { table, probe }).await;
                        if !pass {
                            // Where nothing is switched it changes nothing: the app is down in another way, which is told elsewhere.
                            let _ = report.send(Event::Unrouted { table, why }).await;
                        }
                    }
                    return Event::Routed { table: route.table };
                }
                Err(error) => {
                    let why = chain(&error);
                    self.hold_up("table", format!("the table is not everywhere yet: {why}"));
                    if until <= Instant::now() {
                        until += GIVE_UP;
                        let table = route.table;
                        // The owner may have ended; then nobody needs to know.
                        let _ = report.send(Event::Unrouted { table, why }).await;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// An app's part of the table: what the state decides and what its file says.
    ///
    /// A run is reached where it was when it began, whatever its file has come to say since: the last table knows where.
    ///
    /// Where slot-machine's rules hold, what the app serves on `INTERNAL_PORT` is a second part, with a listener of its own.
    pub(super) async fn parts(&self, route: &Route) -> Vec<table::App> {
        let last = self.tables.part(self.app.name.as_str()).await;
        let slots = self.slots(route);
        let slots = slots.filter_map(|name| {
            let active = route.active.as_ref() == Some(name);
            let boot = route.boots.iter().find(|(slot, _)| slot == name);
            let boot_id = boot.map(|(_, boot)| boot.to_string());
            let began = last.iter().flat_map(|part| &part.slots).find(|slot| {
                slot.name == name.as_str() && slot.boot_id.is_some() && slot.boot_id == boot_id
            });
            let upstream = match began {
                Some(slot) => slot.upstream.clone(),
                None if self.app.slots.contains(name) => self.units.upstream(name),
                None => return None,
            };
            Some(table::Slot {
                name: name.to_string(),
                weight: route.weight(name).get(),
                upstream,
                boot_id,
                ready: !active || route.ready,
            })
        });
        let public = part(&self.app, route, slots.collect(), last.as_ref());
        let Some(internal) = internal_part(&self.app) else {
            return vec![public];
        };
        let upstream = |mut slot: table::Slot| {
            let name = self
                .app
                .slots
                .iter()
                .find(|name| name.as_str() == slot.name);
            slot.upstream = self.units.internal_upstream(name?);
            Some(slot)
        };
        let internal = table::App {
            routes: internal,
            name: internal_name(&self.app),
            slots: public.slots.iter().cloned().filter_map(upstream).collect(),
            ..public.clone()
        };
        vec![public, internal]
    }

    /// The slots that the file names, and those that serve until they are replaced.
    fn slots<'a>(&'a self, route: &'a Route) -> impl Iterator<Item = &'a SlotName> {
        let trials = route.trials.iter().map(|(name, _)| name);
        let others = route
            .active
            .iter()
            .chain(trials)
            .filter(|name| !self.app.slots.contains(name));
        self.app.slots.iter().chain(others)
    }
}

/// What the part of the table is called in which an app's `INTERNAL_PORT` is.
pub(super) fn internal_name(app: &App) -> String {
    format!("{}-internal", app.name)
}

fn internal_part(app: &App) -> Option<Vec<table::Route>> {
    let listener = app.internal_listener.clone()?;
    Some(vec![table::Route {
        listener: Some(listener),
        host: "*".to_owned(),
        path: "/".to_owned(),
    }])
}

/// An app's part of the table while nothing of it runs: to see whether it fits with the others'.
pub fn at_rest(app: &App) -> table::App {
    part(app, &resting(), Vec::new(), None)
}

/// What there is of an app that does not run.
fn resting() -> Route {
    Route {
        table: 0,
        generation: Generation::default(),
        active: None,
        trials: Vec::new(),
        left: Weight::NONE,
        tried: None,
        ready: false,
        boots: Vec::new(),
        hold: HOLD,
    }
}

fn part(
    app: &App,
    route: &Route,
    slots: Vec<table::Slot>,
    last: Option<&table::App>,
) -> table::App {
    let routes = app.hosts.iter().flat_map(|host| {
        app.paths.iter().map(move |path| table::Route {
            listener: app.listener.clone(),
            host: host.clone(),
            path: path.clone(),
        })
    });
    table::App {
        name: app.name.to_string(),
        generation: route.generation.0,
        routes: routes.collect(),
        sticky: sticky(app, route, &slots, last),
        // It changes when no weight does: see `previews`.
        preview: None,
        slots,
        hold_ms: match (app.semantics, app.limits.hold_timeout) {
            // While it boots, as long as that may take.
            (Semantics::Slot, own) if route.hold != HOLD => own.max(Some(route.hold)),
            (Semantics::Slot, own) => own,
            // Nobody starts it again, so there is nothing to hold requests for but a deployment that is about to switch.
            (Semantics::SlotMachine, _) if route.hold == HOLD => Some(GONE),
            (Semantics::SlotMachine, _) => Some(route.hold),
        }
        .map(millis),
        limits: table::Limits {
            body_bytes: app.limits.body_bytes,
            body_stall_ms: app.limits.body_stall.map(millis),
            write_stall_ms: app.limits.write_stall.map(millis),
            response_head_ms: app.limits.response_timeout.map(millis),
            response_stall_ms: app.limits.response_stall.map(millis),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long requests for an app with these limits are held while nothing of it runs, or while it boots for so long.
    fn held(limits: &str, boots: Option<u64>) -> Option<u64> {
        let text = format!("name = \"web\"\ncommand = \"./server\"\n{limits}");
        let app = App::parse(&text, "slot.toml").expect("an app");
        let hold = boots.map_or(HOLD, Duration::from_secs);
        let route = Route { hold, ..resting() };
        part(&app, &route, Vec::new(), None).hold_ms
    }

    #[test]
    fn requests_are_held_as_long_as_the_app_says_else_as_the_machine_does_and_longer_while_it_boots()
     {
        const OWN: &str = "[limits]\nhold_timeout = \"30s\"\n";
        assert_eq!(held("", None), None);
        assert_eq!(held(OWN, None), Some(30_000));
        assert_eq!(held("", Some(90)), Some(90_000));
        assert_eq!(held(OWN, Some(90)), Some(90_000));
        assert_eq!(held(OWN, Some(20)), Some(30_000));
    }
}
