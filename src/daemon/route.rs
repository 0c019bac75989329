//! An app's part of the table, and its way to the routers.

use std::collections::BTreeSet;

use super::live::{AGAIN, Live, millis};
use super::units::Units;
use crate::deploy::{Event, Route, SlotName};
use crate::telemetry::chain;
use crate::wire::table;

impl<U: Units> Live<U> {
    pub(super) async fn route(&self, route: Route) -> Event {
        let part = self.part(&route);
        loop {
            match self.tables.publish(part.clone()).await {
                Ok(()) => {
                    self.go_on("table");
                    return Event::Routed {
                        generation: route.generation,
                        active: route.active,
                    };
                }
                Err(error) => {
                    let why = format!("the table is not everywhere yet: {}", chain(&error));
                    self.hold_up("table", why);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// An app's part of the table: what the state decides and what its file says.
    fn part(&self, route: &Route) -> table::App {
        let routes = self.app.hosts.iter().flat_map(|host| {
            self.app.paths.iter().map(move |path| table::Route {
                listener: self.app.listener.clone(),
                host: host.clone(),
                path: path.clone(),
            })
        });
        let mut slots: BTreeSet<&SlotName> = self.app.slots.iter().collect();
        // A slot that the file does not name any more serves until it is replaced.
        slots.extend(&route.active);
        let slots = slots.into_iter().map(|slot| {
            let active = route.active.as_ref() == Some(slot);
            let boot = route
                .boots
                .iter()
                .find(|(name, _)| name == slot)
                .map(|(_, boot)| boot.to_string());
            table::Slot {
                name: slot.to_string(),
                weight: if active { 100 } else { 0 },
                upstream: self.units.upstream(slot),
                boot_id: boot,
                ready: !active || route.ready,
            }
        });
        table::App {
            name: self.app.name.to_string(),
            generation: route.generation.0,
            routes: routes.collect(),
            slots: slots.collect(),
            hold_ms: millis(route.hold),
        }
    }
}
