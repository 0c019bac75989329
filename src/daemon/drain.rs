//! Letting what is in flight at a slot end, class by class, and cutting what does not.
//!
//! **Invariant:** a tunnel is not cut before its app was told: at its deadline the app gets SIGTERM and may close by its own protocol; what
//! is left when the app's time is over, the routers reset, each at a moment of its own.

use std::time::Duration;

use super::live::{AGAIN, Live};
use super::units::Units;
use super::world::World;
use crate::deploy::{BootId, ByClass, Event, SlotName, Time};
use crate::telemetry::chain;
use crate::traffic::TrafficError;

/// Over how long clients that are cut are spread, so that they do not all come back at once.
const SPREAD: Duration = Duration::from_secs(5);

impl<U: Units> Live<U> {
    /// Asks the routers until nothing is in flight at a run of a slot, or nothing but what is overdue. A class whose deadline comes before
    /// the last one is cut by the routers; the last one is the state's, which stops the slot then.
    pub(super) async fn drained(
        &self,
        slot: SlotName,
        boot: Option<BootId>,
        until: ByClass<Time>,
    ) -> Event {
        let (app, run) = (self.app.name.as_str(), boot.as_ref().map(BootId::as_str));
        let mut classes = [
            ("requests", until.requests, Duration::ZERO),
            ("streams", until.streams, SPREAD),
        ]
        .map(|(class, at, spread)| (class, at.filter(|at| Some(*at) != until.last()), spread));
        let mut cut = false;
        loop {
            let now = self.now();
            for (class, at, spread) in &mut classes {
                if at.is_none_or(|at| at > now) {
                    continue;
                }
                let routers = self.tables.routers();
                let told = routers.cut(
                    app,
                    slot.as_str(),
                    run,
                    Some(class),
                    Duration::ZERO,
                    *spread,
                );
                match told.await {
                    Ok(()) => (*at, cut) = (None, true),
                    Err(error) => not_cut(&error),
                }
            }
            let is_due = until.tunnels.is_some_and(|at| at <= now);
            if is_due
                && let Some(held) = self.in_flight(&slot, boot.as_ref()).await
                && (held.requests, held.streams) == (0, 0)
                && held.tunnels > 0
            {
                return Event::Overdue { slot, boot };
            }
            let next = classes.iter().filter_map(|(_, at, _)| *at);
            let next = next.chain(until.tunnels.filter(|at| *at > now)).min();
            let wait = next.map_or(Duration::MAX, |at| at.since(now).max(AGAIN / 10));
            let wait = if is_due { wait.min(AGAIN) } else { wait };
            match tokio::time::timeout(wait, self.tables.drained(app, slot.as_str(), run)).await {
                Ok(Ok(())) if cut => return Event::Overdue { slot, boot },
                Ok(Ok(())) => return Event::Drained { slot, boot },
                Ok(Err(error)) => {
                    tracing::debug!("a drain is asked for again: {}", chain(&error));
                    tokio::time::sleep(AGAIN).await;
                }
                Err(_) => {}
            }
        }
    }

    /// A slot is about to be stopped: what is still in flight there when its app has been killed is reset, not ended as if it were whole.
    pub(super) async fn cut_after_stop(&self, slot: &SlotName) {
        let routers = self.tables.routers();
        let Ok(told) = routers.stats().await else {
            return;
        };
        let runs = told.iter().filter_map(|(_, stats)| stats.as_ref().ok());
        let held = runs.flat_map(|stats| &stats.slots).filter(|run| {
            (run.app.as_str(), run.slot.as_str()) == (self.app.name.as_str(), slot.as_str())
                && run.in_flight.total() > 0
        });
        for run in held {
            let (app, boot, after) = (
                run.app.as_str(),
                run.boot_id.as_deref(),
                self.app.stop_timeout,
            );
            let cut = routers.cut(app, slot.as_str(), boot, None, after, SPREAD);
            if let Err(error) = cut.await {
                not_cut(&error);
            }
        }
    }
}

fn not_cut(error: &TrafficError) {
    tracing::warn!(
        "a router was not told to cut what is overdue: {}",
        chain(error)
    );
}
