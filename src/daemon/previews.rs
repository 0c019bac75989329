//! Which runs of an app can be asked by their names (see [`table::Preview`]).
//!
//! That follows the state, beside the table's other parts: what may be previewed changes when no weight does.
//!
//! **Invariant:** a release's id and label name runs of that release alone, a slot's name whatever that slot runs.

use std::sync::Arc;

use tokio::sync::watch;

use super::live::{AGAIN, Live, blocking};
use super::units::Units;
use crate::config::App;
use crate::deploy::{BootId, Condition, ReleaseId, Service, Slot, SlotName, State};
use crate::release::Record;
use crate::telemetry::chain;
use crate::wire::table;

/// The hosts of the slots that can be asked, the active one's last: what everybody sees is on the app's own.
pub(super) fn hosts(app: &App, state: &State) -> Vec<String> {
    let Some(domain) = &app.preview else {
        return Vec::new();
    };
    let runs = gated(state).into_iter().rev();
    runs.map(|run| format!("{}.{}.{domain}", run.slot, app.name))
        .collect()
}

/// A run that can be asked, and what it runs.
struct Gated {
    slot: SlotName,
    boot: BootId,
    release: ReleaseId,
}

impl<U: Units> Live<U> {
    /// Has the routers know what can be previewed, again and again; returns when the app is not managed any more.
    pub(super) async fn keep_previews(self: Arc<Self>, mut states: watch::Receiver<Arc<State>>) {
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            let preview = self.preview(&state).await;
            let is_some = preview.is_some();
            match self.tables.show(self.app.name.as_str(), preview).await {
                // There is nothing to say, or it is said.
                Ok(shown) if shown || !is_some => {
                    self.go_on("previews");
                    if states.changed().await.is_err() {
                        return;
                    }
                }
                Ok(_) => tokio::time::sleep(AGAIN).await,
                Err(error) => {
                    let why = chain(&error);
                    let what = "the routers do not know what can be previewed";
                    self.hold_up("previews", format!("{what}: {why}"));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// What can be previewed, if the app's file lets anything.
    async fn preview(&self, state: &State) -> Option<table::Preview> {
        let app = &self.app;
        if app.preview.is_none() && app.preview_token.is_none() {
            return None;
        }
        let (root, gated) = (self.root.clone(), gated(state));
        let labelled = blocking(move || {
            let labelled = gated.into_iter().map(|run| {
                let record = Record::read(&root, &run.release);
                let label = record.and_then(|record| record.label);
                // Hosts come in lower case.
                (run, label.map(|label| label.as_str().to_ascii_lowercase()))
            });
            labelled.collect::<Vec<_>>()
        });
        Some(table::Preview {
            domain: app.preview.as_ref().map(|it| format!("{}.{it}", app.name)),
            token: app.preview_token.clone(),
            runs: named(state.slots.keys().chain(&app.slots), &labelled.await),
        })
    }
}

/// The runs that have passed their gates and are not on their way out, the active one first: of two with the same bits it has their names.
fn gated(state: &State) -> Vec<Gated> {
    let is_gated = |name: &SlotName, slot: &Slot| match &slot.condition {
        Condition::Active(Service::Up) | Condition::Trial { .. } => true,
        Condition::Standby { gated } => *gated,
        // What is frozen answers nobody, and nothing may be in flight when it is.
        Condition::Warm { gated, .. } => {
            *gated && state.kept_in(name).is_none_or(|kept| !kept.freezes)
        }
        Condition::Idle
        | Condition::Starting
        | Condition::Ready
        | Condition::Active(Service::Booting { .. } | Service::Down { .. } | Service::ByHand)
        | Condition::Draining { .. }
        | Condition::Stopping { .. }
        | Condition::Failed(_) => false,
    };
    let slots = state.slots.iter();
    let gated = slots.filter(|(name, slot)| is_gated(name, slot));
    let mut gated: Vec<Gated> = gated
        .filter_map(|(name, slot)| {
            Some(Gated {
                slot: name.clone(),
                boot: slot.boot.clone()?,
                release: slot.release.clone()?,
            })
        })
        .collect();
    gated.sort_by_key(|run| state.active.as_ref() != Some(&run.slot));
    gated
}

/// Each name once: slots' names go ahead of releases' ids, those of labels, and a label that several releases have is nobody's. Of two runs
/// of one release the first has its names.
fn named<'a>(
    slots: impl Iterator<Item = &'a SlotName>,
    runs: &[(Gated, Option<String>)],
) -> Vec<table::Named> {
    let slots: Vec<&SlotName> = slots.collect();
    let is_slot = |name: &str| slots.iter().any(|slot| slot.as_str() == name);
    let is_id = |name: &str| runs.iter().any(|(run, _)| run.release.as_str() == name);
    let is_anothers = |label: &str, of: &ReleaseId| {
        let others = runs.iter().filter(|(run, _)| run.release != *of);
        let mut labels = others.filter_map(|(_, label)| label.as_deref());
        labels.any(|other| other == label)
    };
    let own = |(at, (run, label)): (usize, &(Gated, Option<String>))| {
        let mut names = vec![run.slot.to_string()];
        if !runs[..at].iter().any(|(it, _)| it.release == run.release) {
            let id = run.release.as_str();
            let label = label.as_deref();
            let label = label.filter(|label| !is_id(label) && !is_anothers(label, &run.release));
            let own = [Some(id), label].into_iter().flatten();
            names.extend(own.filter(|name| !is_slot(name)).map(str::to_owned));
        }
        table::Named {
            slot: run.slot.to_string(),
            boot_id: Some(run.boot.to_string()),
            release: run.release.to_string(),
            names,
        }
    };
    runs.iter().enumerate().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::super::app::settings;
    use super::*;
    use crate::config::App;
    use crate::deploy::{ByClass, Kept, Time, Weight};

    const BOOT: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn what_may_not_have_requests_has_no_names() {
        let app = App::parse("command = \"./server\"\n", "slot.toml").expect("a file");
        let mut state = State::new(settings(&app));
        let [blue, green] = ["blue", "green"].map(|name| name.parse::<SlotName>().expect("a name"));
        let warm = |gated| Condition::Warm {
            drain: ByClass::default(),
            gated,
        };
        let (serves, down) = (Service::Up, Service::ByHand);
        let trial = Condition::Trial {
            weight: Weight::NONE,
            streak: 0,
        };
        let told = |state: &State| -> Vec<String> {
            let gated = gated(state).into_iter();
            gated.map(|run| run.slot.to_string()).collect()
        };
        for (condition, named) in [
            (Condition::Ready, false),
            (trial, true),
            (Condition::Standby { gated: false }, false),
            (Condition::Standby { gated: true }, true),
            (warm(false), false),
            (Condition::Active(down), false),
            (Condition::Active(serves), true),
            (warm(true), true),
        ] {
            let slot = Slot {
                release: Some("1a2b3c4d".parse().expect("an id")),
                boot: Some(BOOT.parse().expect("an id")),
                condition,
                ..Slot::idle()
            };
            state.slots.insert(green.clone(), slot.clone());
            let expected: &[&str] = if named { &["green"] } else { &[] };
            assert_eq!(told(&state), expected, "{:?}", slot.condition);
        }
        state.kept = Some(Kept {
            slot: green.clone(),
            until: Time(1),
            freezes: true,
            frozen: false,
        });
        assert!(told(&state).is_empty());
        state.kept = None;
        // The active one first, whatever the order of their names.
        state.slots.insert(blue, state.slots[&green].clone());
        state.active = Some(green);
        assert_eq!(told(&state), ["green", "blue"]);
    }

    #[test]
    fn a_name_is_that_of_one_run_and_a_slots_name_of_its_own() {
        let run = |slot: &str, release: &str, label: Option<&str>| {
            let run = Gated {
                slot: slot.parse().expect("a name"),
                boot: BOOT.parse().expect("an id"),
                release: release.parse().expect("an id"),
            };
            (run, label.map(str::to_owned))
        };
        let slots = ["blue", "green", "canary"].map(|name| name.parse().expect("a name"));
        let runs = [
            run("green", "1a2b3c4d", Some("v1.2")),
            run("blue", "1a2b3c4d", Some("v1.2")),
            run("canary", "99999999", Some("blue")),
            run("teal", "abcdef00", Some("1a2b3c4d")),
            run("pink", "abcdef01", Some("twice")),
            run("grey", "abcdef02", Some("twice")),
        ];
        let runs = named(slots.iter(), &runs);
        let names: Vec<String> = runs.iter().map(|run| run.names.join(" ")).collect();
        assert_eq!(
            names,
            [
                "green 1a2b3c4d v1.2",
                "blue",
                "canary 99999999",
                "teal abcdef00",
                "pink abcdef01",
                "grey abcdef02",
            ]
        );
    }
}
