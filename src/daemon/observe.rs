//! What is seen of an app's units, as events.

use super::app::settings;
use super::live::Live;
use super::owner::Owner;
use super::units::Units;
use crate::deploy::{BootId, End, Event, Seen, SlotName, UnitFailure};
use crate::release;

impl<U: Units> Live<U> {
    /// Reports every change of the app's units; never returns.
    pub async fn watch_units(&self, owner: Owner) {
        let state = owner.state();
        loop {
            let slot = self.units.changed().await;
            let known = state
                .borrow()
                .slots
                .get(&slot)
                .and_then(|slot| slot.boot.clone());
            let seen = self.units.seen(&slot).await;
            for event in self.changes(&slot, known, seen).await {
                owner.report(event).await;
            }
        }
    }

    /// How a run ended that nobody saw ending, where another one is up or coming. A unit that was started again by itself says so until
    /// somebody starts it: where it does not, somebody has restarted it (`NRestarts`, org.freedesktop.systemd1(5)).
    async fn unseen_end(&self, slot: &SlotName) -> End {
        End::Restarting(match self.units.restarts(slot).await {
            Some(0) => UnitFailure::restarted(),
            Some(_) | None => UnitFailure {
                result: "unknown".into(),
                text: "ended and is being started again".to_owned(),
            },
        })
    }

    /// The events that bring what is known of a slot up to what is seen.
    pub(super) async fn changes(
        &self,
        slot: &SlotName,
        known: Option<BootId>,
        seen: Seen,
    ) -> Vec<Event> {
        let vanished = |boot, end| Event::Vanished {
            slot: slot.clone(),
            boot,
            end,
        };
        match (known, seen) {
            (Some(known), Seen::Running(boot)) if known == boot => Vec::new(),
            (Some(known), Seen::Running(boot)) => {
                let end = self.unseen_end(slot).await;
                vec![vanished(known, end), self.appeared(slot, boot)]
            }
            (None, Seen::Running(boot)) => vec![self.appeared(slot, boot)],
            (Some(known), Seen::Coming) => vec![vanished(known, self.unseen_end(slot).await)],
            (Some(known), Seen::Ended(end)) => vec![vanished(known, end)],
            (None, Seen::Coming | Seen::Ended(_)) => Vec::new(),
        }
    }

    fn appeared(&self, slot: &SlotName, boot: BootId) -> Event {
        let release = release::named(&self.root, slot.as_str());
        Event::Appeared {
            slot: slot.clone(),
            boot,
            release,
            settings: settings(&self.app),
        }
    }
}
