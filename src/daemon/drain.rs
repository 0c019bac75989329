//! Letting what is in flight at a slot end, class by class, and cutting what does not.
//!
//! **Invariant:** a tunnel is not cut before its app was told: at its deadline the app gets SIGTERM and may close by its own protocol; what
//! is left when the app's time is over, the routers reset, each at a moment of its own.
//!
//! **Invariant:** SIGTERM is for the app as a whole, so the deadline of tunnels waits for requests and streams that have time left by their
//! own: it would cut these. It does not wait for what is overdue, which is cut anyway.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::live::{AGAIN, Live};
use super::route::internal_name;
use super::units::Units;
use super::world::World;
use crate::deploy::{BootId, ByClass, Event, SlotName, Time};
use crate::telemetry::chain;
use crate::traffic::TrafficError;
use crate::wire::control::InFlight;

/// Over how long clients that are cut are spread, so that they do not all come back at once.
const SPREAD: Duration = Duration::from_secs(5);

/// How often it is looked again whether there is something of a class whose deadline has passed and of which there was nothing: a request
/// can become a stream.
const SETTLED: Duration = Duration::from_secs(10);

impl<U: Units> Live<U> {
    /// Asks the routers until nothing is in flight at a run of a slot, or nothing but what is overdue. A class whose deadline comes before
    /// the last one is cut by the routers, again and again while there is some of it: a router that was away has heard nothing. The last
    /// deadline is the state's, which stops the slot then.
    pub(super) async fn drained(
        &self,
        slot: SlotName,
        boot: Option<BootId>,
        until: ByClass<Time>,
    ) -> Event {
        let (app, name) = (self.app.name.as_str(), slot.as_str());
        let run = boot.as_ref().map(BootId::as_str);
        if let Some(run) = run {
            self.tables.unnamed(app, run).await;
        }
        type Count = fn(&InFlight) -> u64;
        let classes: [(_, _, _, Count); 2] = [
            ("requests", until.requests, Duration::ZERO, |it| it.requests),
            ("streams", until.streams, SPREAD, |it| it.streams),
        ];
        let classes = classes.map(|(class, at, spread, count)| {
            let own = at.filter(|at| Some(*at) != until.last());
            (class, own, spread, count)
        });
        let (mut cut, mut failing) = (false, Failing::default());
        loop {
            let now = self.now();
            let is_past = |at: &Option<Time>| at.is_some_and(|at| at <= now);
            let next = classes.iter().map(|(_, at, ..)| *at);
            let next = next.chain([until.tunnels]).flatten();
            let next = next.filter(|at| *at > now).min();
            let mut wait = next.map_or(Duration::MAX, |at| at.since(now).max(AGAIN / 10));
            let due = classes.iter().filter(|(_, at, ..)| is_past(at));
            if due.clone().count() > 0 || is_past(&until.tunnels) {
                // A router that does not say what it has may have some of each.
                let held = self.tables.in_flight(app, name, run).await.ok().flatten();
                let mut is_over = held.is_some();
                for (class, _, spread, count) in due {
                    if held.as_ref().is_some_and(|held| count(held) == 0) {
                        continue;
                    }
                    let routers = self.tables.routers();
                    let told = routers.cut(app, name, run, Some(class), Duration::ZERO, *spread);
                    let told = told.await;
                    (is_over, cut) = (false, cut || told.is_ok());
                    failing.say(told);
                }
                if is_past(&until.tunnels)
                    && let Some(held) = held
                {
                    let has_time = held.requests > 0 && !is_past(&until.requests)
                        || held.streams > 0 && !is_past(&until.streams);
                    if held.tunnels > 0 && !has_time {
                        return Event::Overdue { slot, boot };
                    }
                    is_over = false;
                }
                wait = wait.min(if is_over { SETTLED } else { AGAIN });
            }
            let drained = async {
                self.tables.drained(app, name, run).await?;
                match self.app.internal_listener {
                    Some(_) => {
                        self.tables
                            .drained(&internal_name(&self.app), name, run)
                            .await
                    }
                    None => Ok(()),
                }
            };
            match tokio::time::timeout(wait, drained).await {
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

    /// Stops a slot; true if SIGTERM was not enough. What is still in flight there when its app has been killed is reset, not ended as if it
    /// were whole: the routers are told so before, and again while it stops, for one that was away.
    pub(super) async fn stop(&self, slot: &SlotName) -> bool {
        let mut failing = Failing::default();
        let time = self.app.stop_timeout;
        self.cut_after(slot, time, &mut failing).await;
        tokio::select! {
            killed = self.units.stop(slot) => killed,
            never = self.cut_at(slot, Instant::now() + time, &mut failing) => match never {},
        }
    }

    async fn cut_at(&self, slot: &SlotName, at: Instant, failing: &mut Failing) -> Infallible {
        loop {
            tokio::time::sleep(AGAIN).await;
            let left = at.saturating_duration_since(Instant::now());
            self.cut_after(slot, left, failing).await;
        }
    }

    /// Has the routers reset what is left at a slot after some time.
    async fn cut_after(&self, slot: &SlotName, after: Duration, failing: &mut Failing) {
        let (app, name, routers) = (self.app.name.as_str(), slot.as_str(), self.tables.routers());
        let held = routers.in_flight(app, name, None, Duration::ZERO).await;
        // One that does not say may have some.
        if held.is_ok_and(|held| held.into_iter().sum::<InFlight>().total() == 0) {
            return;
        }
        failing.say(routers.cut(app, name, None, None, after, SPREAD).await);
    }
}

/// Whether the routers could not be told the last time, which is said once.
#[derive(Debug, Default)]
struct Failing(bool);

impl Failing {
    fn say(&mut self, told: Result<(), TrafficError>) {
        let is_news = self.is_news(told.is_err());
        if let Err(error) = told
            && is_news
        {
            let why = chain(&error);
            tracing::warn!(
                "a router was not told to cut what is overdue, and is told again until it is: {why}"
            );
        }
    }

    fn is_news(&mut self, failed: bool) -> bool {
        !std::mem::replace(&mut self.0, failed) && failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_router_is_not_told_is_said_once_until_it_was() {
        let mut failing = Failing::default();
        let news = [true, true, true, false, true].map(|failed| failing.is_news(failed));
        assert_eq!(news, [true, false, false, false, true]);
    }
}
