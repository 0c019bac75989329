//! The app's hooks, as the world runs them: one at a time, each told why it runs.
//!
//! **Invariant:** a hook's end is always reported, unless nobody waits for it any more; what one did wrong after a switch only warns.

use std::collections::BTreeMap;

use super::live::Live;
use super::units::Units;
use crate::deploy::{Generation, Hook, Occasion, ReleaseId, State, UnitFailure};

/// What a hook is told, as variables, but for the app and the release, which every process of an app is told. `upstream` is where the
/// router reaches the slot.
pub(super) fn facts(occasion: &Occasion, upstream: Option<String>) -> BTreeMap<String, String> {
    let text = |name: &dyn std::fmt::Display| Some(name.to_string());
    let facts = [
        ("SLOT_HOOK", text(&occasion.hook.name())),
        ("SLOT_GENERATION", text(&occasion.generation)),
        ("SLOT_CAUSE", text(&occasion.cause)),
        ("SLOT_NAME", occasion.slot.as_ref().map(ToString::to_string)),
        (
            "SLOT_PREVIOUS",
            occasion.previous.as_ref().map(ToString::to_string),
        ),
        ("SLOT_UPSTREAM", upstream),
    ];
    let known = facts.into_iter().filter_map(|(name, fact)| {
        let fact = fact?;
        Some((name.to_owned(), fact))
    });
    known.collect()
}

impl<U: Units> Live<U> {
    /// Whether the app has this hook.
    pub(super) fn has_hook(&self, hook: Hook) -> bool {
        self.app.hooks.commands.contains_key(&hook)
    }

    /// Runs a hook to its end, after those that run already; gives how it ended, if not well. One that the app's file does not have any
    /// more has nothing to do.
    pub(super) async fn hook(&self, occasion: &Occasion) -> Option<UnitFailure> {
        if !self.has_hook(occasion.hook) {
            return None;
        }
        let _turn = self.hooking.lock().await;
        let (generation, name) = (occasion.generation, occasion.hook.name());
        match occasion.hook {
            Hook::BeforeDeploy | Hook::BeforeSwitch | Hook::Check => {
                self.enter_step(generation, name);
            }
            Hook::AfterSwitch | Hook::AfterRollback => tracing::info!(
                slot_app = self.app.name.as_str(),
                slot_generation = generation.0,
                "runs the hook {name} of generation {generation}"
            ),
        }
        let Err(unhooked) = self.units.hook(occasion).await else {
            self.leave_step(generation);
            return None;
        };
        match occasion.hook {
            Hook::BeforeDeploy | Hook::BeforeSwitch | Hook::Check => {
                self.keep_report(generation, unhooked.report);
            }
            Hook::AfterSwitch | Hook::AfterRollback => {}
        }
        Some(unhooked.failure)
    }

    /// The hook for a release that is on disk.
    pub(super) async fn before_deploy(
        &self,
        generation: Generation,
        release: &ReleaseId,
        state: &State,
    ) -> Option<UnitFailure> {
        let occasion = Occasion {
            hook: Hook::BeforeDeploy,
            generation,
            slot: None,
            release: Some(release.clone()),
            previous: state.live().cloned(),
            cause: "deploy".to_owned(),
        };
        self.hook(&occasion).await
    }
}
