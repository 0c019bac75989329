//! Changes of some units, as they happen.
//!
//! **Invariant:** level-triggered: what is told is that a unit is not as it was told last. Nothing is missed by looking late, and a change
//! that was undone before anybody looked is none.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Bus, UnitName};
use crate::deploy::Seen;

/// How often every unit is looked at even if no signal came.
const LOOK: Duration = Duration::from_secs(2);

/// What signals of units ring.
#[derive(Debug)]
pub(super) struct Bell {
    /// By their paths on the bus.
    units: HashMap<String, UnitName>,
    /// Those to look at, and how often each was rung for, so that a ring during a look is not lost.
    rung: Mutex<BTreeMap<UnitName, u64>>,
    some: Notify,
}

impl Bell {
    fn new(units: &[UnitName]) -> Self {
        Self {
            units: units
                .iter()
                .map(|unit| (unit.path(), unit.clone()))
                .collect(),
            rung: Mutex::new(BTreeMap::new()),
            some: Notify::new(),
        }
    }

    fn rung(&self) -> MutexGuard<'_, BTreeMap<UnitName, u64>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one unit, by its path, or for all of them.
    pub(super) fn ring(&self, path: Option<&str>) {
        let mut rung = self.rung();
        match path {
            Some(path) => {
                let Some(unit) = self.units.get(path) else {
                    return;
                };
                *rung.entry(unit.clone()).or_default() += 1;
            }
            None => {
                for unit in self.units.values() {
                    *rung.entry(unit.clone()).or_default() += 1;
                }
            }
        }
        self.some.notify_one();
    }

    /// A unit to look at, and how often it was rung for. It stays rung for until [`Bell::settle`].
    async fn next(&self) -> (UnitName, u64) {
        loop {
            let first = self
                .rung()
                .iter()
                .next()
                .map(|(unit, times)| (unit.clone(), *times));
            if let Some(first) = first {
                return first;
            }
            if timeout(LOOK, self.some.notified()).await.is_err() {
                self.ring(None);
            }
        }
    }

    /// It was looked at; if it was rung for meanwhile it is looked at again.
    fn settle(&self, unit: &UnitName, times: u64) {
        let mut rung = self.rung();
        if rung.get(unit) == Some(&times) {
            rung.remove(unit);
        }
    }
}

/// Watches some units; for one reader.
#[derive(Debug)]
pub struct Watch {
    bus: Arc<Bus>,
    bell: Arc<Bell>,
    told: Mutex<HashMap<UnitName, Seen>>,
}

impl Watch {
    /// Watches these units from now on; the first time each of them is told.
    #[must_use]
    pub fn new(bus: Arc<Bus>, units: &[UnitName]) -> Self {
        let bell = Arc::new(Bell::new(units));
        bell.ring(None);
        bus.hang(&bell);
        Self {
            bus,
            bell,
            told: Mutex::new(HashMap::new()),
        }
    }

    /// Waits until a unit is not as it was told last. May be given up at any time; nothing is lost by it.
    ///
    /// While the machine goes down nothing is told any more: units end then because of that.
    pub async fn changed(&self) -> (UnitName, Seen) {
        loop {
            let (unit, times) = self.bell.next().await;
            let had_ended = matches!(self.told().get(&unit), Some(Seen::Ended(_)));
            if had_ended && !self.bus.is_loaded(&unit).await {
                // As it is with most slots most of the time.
                self.bell.settle(&unit, times);
                continue;
            }
            let now = self.bus.seen(&unit).await;
            let is_new = self.told().get(&unit) != Some(&now);
            if is_new && matches!(now, Seen::Ended(_)) {
                self.bus.unless_going_down().await;
            }
            // No await from here on.
            self.bell.settle(&unit, times);
            if is_new {
                self.told().insert(unit.clone(), now.clone());
                return (unit, now);
            }
        }
    }

    fn told(&self) -> MutexGuard<'_, HashMap<UnitName, Seen>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bell() -> (Bell, UnitName) {
        let app = "web".parse().unwrap();
        let green = UnitName::service(&app, &"green".parse().unwrap());
        let blue = UnitName::service(&app, &"blue".parse().unwrap());
        (Bell::new(&[blue, green.clone()]), green)
    }

    #[tokio::test]
    async fn a_ring_during_a_look_is_looked_at_again() {
        let (bell, green) = bell();
        bell.ring(Some(&green.path()));
        let (unit, times) = bell.next().await;
        assert_eq!(unit, green);
        bell.ring(Some(&green.path()));
        bell.settle(&unit, times);
        let (unit, times) = bell.next().await;
        assert_eq!(unit, green);
        bell.settle(&unit, times);
        assert!(bell.rung().is_empty());
    }

    #[tokio::test]
    async fn a_look_that_is_given_up_is_made_again() {
        let (bell, green) = bell();
        bell.ring(Some(&green.path()));
        drop(bell.next().await);
        assert_eq!(bell.next().await.0, green);
    }

    #[tokio::test(start_paused = true)]
    async fn without_any_signal_every_unit_is_looked_at() {
        let (bell, _) = bell();
        bell.next().await;
        assert_eq!(bell.rung().len(), 2);
    }

    #[test]
    fn a_signal_of_another_unit_rings_for_nobody() {
        let (bell, _) = bell();
        bell.ring(Some("/org/freedesktop/systemd1/unit/cron_2eservice"));
        assert!(bell.rung().is_empty());
    }
}
