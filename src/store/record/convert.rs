//! Between the state and its record: field by field, so that neither can change without the other.

<<<<<<< HEAD:src/store/record.rs
mod parts;

use std::collections::{BTreeMap, BTreeSet};
=======
>>>>>>> main:src/store/record/convert.rs
use std::time::Duration;

use super::{
    CauseRecord, ConditionRecord, DeploymentRecord, FailureRecord, KindRecord, OutcomeRecord,
    PhaseRecord, ProbeRecord, Record, ServiceRecord, SettingsRecord, SlotRecord, VERSION,
    WatchRecord,
};
use crate::deploy::{
    BootId, Cause, Condition, Deployment, Generation, Kind, NameError, Outcome, Phase, Probe,
    ReleaseId, Service, Settings, Slot, SlotName, State, Time, UnitFailure, Watch,
};

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn text<T: ToString>(name: Option<&T>) -> Option<String> {
    name.map(ToString::to_string)
}

fn parse<T: std::str::FromStr<Err = NameError>>(
    name: Option<String>,
) -> Result<Option<T>, NameError> {
    name.map(|name| name.parse()).transpose()
}

/// Phases and conditions are kept as `&'static str` in memory; a word of a newer version reads as `unknown`.
fn word(found: &str) -> &'static str {
    const WORDS: [&str; 14] = [
        "preparing",
        "waiting",
        "starting",
        "ready",
        "shifting",
        "idle",
        "standby",
        "active",
        "warm",
        "draining",
        "stopping",
        "failed",
        "switched",
        "rolling_back",
    ];
    WORDS
        .into_iter()
        .find(|word| *word == found)
        .unwrap_or("unknown")
}

impl Record {
    pub(in crate::store) fn of(state: &State, machine_boot: &str) -> Self {
        Self {
            version: VERSION,
            readable_from: VERSION,
            machine_boot: machine_boot.to_owned(),
            generation: state.generation.0,
            routed: state.routed.0,
            active: text(state.active.as_ref()),
            deployment: state.deployment.as_ref().map(|held| DeploymentRecord {
                generation: held.generation.0,
                kind: held.kind.into(),
                by: held.by.clone(),
                began: held.began.0,
                phase: (&held.phase).into(),
                settings: (&held.settings).into(),
            }),
            watch: state.watch.as_ref().map(|watch| WatchRecord {
                generation: watch.generation.0,
                new: watch.new.to_string(),
                old: text(watch.old.as_ref()),
                streak: watch.streak,
                until: watch.until.0,
                prev: text(watch.prev.as_ref()),
                soaked: watch.soaked,
                rolling_back: watch.rolling_back.as_ref().map(Into::into),
            }),
            slots: state
                .slots
                .iter()
                .map(|(name, slot)| (name.to_string(), slot.into()))
                .collect(),
            prev: text(state.prev.as_ref()),
            soaked: state.soaked,
            marked: state.marked.iter().map(ToString::to_string).collect(),
            outcome: state.outcome.as_ref().map(|outcome| OutcomeRecord {
                generation: outcome.generation.0,
                kind: outcome.kind.into(),
                release: text(outcome.release.as_ref()),
                phase: outcome.phase.to_owned(),
                cause: (&outcome.cause).into(),
                at: outcome.at.0,
            }),
            settings: (&state.settings).into(),
        }
    }

    pub(in crate::store) fn into_state(self) -> Result<State, NameError> {
        Ok(State {
            generation: Generation(self.generation),
            routed: Generation(self.routed),
            active: parse(self.active)?,
            deployment: self
                .deployment
                .map(DeploymentRecord::into_deployment)
                .transpose()?,
            watch: self.watch.map(WatchRecord::into_watch).transpose()?,
            slots: self
                .slots
                .into_iter()
                .map(|(name, slot)| Ok((name.parse()?, slot.into_slot()?)))
                .collect::<Result<_, NameError>>()?,
            prev: parse(self.prev)?,
            soaked: self.soaked,
            marked: self
                .marked
                .iter()
                .map(|release| release.parse())
                .collect::<Result<_, _>>()?,
            outcome: self.outcome.map(OutcomeRecord::into_outcome).transpose()?,
            settings: self.settings.into_settings()?,
        })
    }
}
