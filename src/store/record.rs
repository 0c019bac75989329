//! The state as JSON, version 1. The types mirror those of [`deploy`](crate::deploy), which knows nothing of encodings.
//!
//! A later version that an older slotd can still read keeps `readable_from`; unknown keys are passed over for that reason.

mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::deploy::{
    BootId, Cause, Condition, Deployment, Generation, Kind, NameError, Outcome, Phase, Probe,
    ReleaseId, Service, Settings, Slot, SlotName, State, Time, UnitFailure, Watch,
};

/// The version that this slotd writes.
pub(super) const VERSION: u32 = 1;

/// A state file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    /// The oldest version of the format whose readers understand this file.
    pub(super) readable_from: u32,
    /// The machine's boot id (proc(5), `/proc/sys/kernel/random/boot_id`) when this was written.
    pub(super) machine_boot: String,
    generation: u64,
    routed: u64,
    active: Option<String>,
    deployment: Option<DeploymentRecord>,
    watch: Option<WatchRecord>,
    slots: BTreeMap<String, SlotRecord>,
    prev: Option<String>,
    soaked: bool,
    marked: BTreeSet<String>,
    outcome: Option<OutcomeRecord>,
    settings: SettingsRecord,
}

#[derive(Debug, Serialize, Deserialize)]
struct SettingsRecord {
    slots: Vec<String>,
    start_timeout_ms: u64,
    health_timeout_ms: u64,
    drain_ms: Option<u64>,
    stop_timeout_ms: u64,
    soak_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeploymentRecord {
    generation: u64,
    kind: KindRecord,
    by: String,
    began: u64,
    phase: PhaseRecord,
    settings: SettingsRecord,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindRecord {
    Deploy,
    Rollback,
    ByHand,
    Promote,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
enum PhaseRecord {
    Preparing {
        queue_ms: u64,
    },
    Waiting {
        release: String,
        until: u64,
    },
    Starting {
        slot: String,
        until: u64,
    },
    Ready {
        slot: String,
        until: u64,
        probe: Option<ProbeRecord>,
    },
    Shifting {
        slot: String,
        from: Option<String>,
        left: Option<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct WatchRecord {
    generation: u64,
    new: String,
    old: Option<String>,
    streak: u8,
    until: u64,
    prev: Option<String>,
    soaked: bool,
    rolling_back: Option<CauseRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SlotRecord {
    condition: ConditionRecord,
    release: Option<String>,
    boot: Option<String>,
    generation: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
enum ConditionRecord {
    Idle,
    Starting,
    Ready,
    Standby,
    Active {
        service: ServiceRecord,
    },
    Warm {
        drain: Option<u64>,
        gated: bool,
    },
    Draining {
        until: Option<u64>,
    },
    Stopping {
        forced: bool,
        failure: Option<FailureRecord>,
    },
    Failed {
        failure: FailureRecord,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
enum ServiceRecord {
    Up,
    Booting {
        until: u64,
    },
    Down {
        failure: FailureRecord,
        retry: Option<u64>,
    },
    ByHand,
}

#[derive(Debug, Serialize, Deserialize)]
struct FailureRecord {
    result: String,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProbeRecord {
    pass: bool,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct OutcomeRecord {
    generation: u64,
    kind: KindRecord,
    release: Option<String>,
    phase: String,
    cause: CauseRecord,
    at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "code")]
enum CauseRecord {
    Switched,
    Standby,
    Unprepared { why: String },
    Interrupted,
    Preempted,
    NoIdleSlot { holder: String, condition: String },
    StartFailed { failure: FailureRecord },
    StartTimeout,
    HealthTimeout { probe: Option<ProbeRecord> },
    Exited { failure: FailureRecord },
    StoppedByHand,
    ProbesFailed { probe: ProbeRecord },
    Soaked,
    Superseded,
    OldSlotGone,
}

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
    pub(super) fn of(state: &State, machine_boot: &str) -> Self {
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

    pub(super) fn into_state(self) -> Result<State, NameError> {
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
