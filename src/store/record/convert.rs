//! Between the state and its record: field by field, so that neither can change without the other.

use std::time::Duration;

use super::back::marks_of;
use super::tidings::{TidingRecord, topics};
use super::{
    AfterRecord, ByClassRecord, CanaryRecord, CauseRecord, ConditionRecord, DeploymentRecord,
    FIRST, FailureRecord, KeptRecord, KeyRecord, KindRecord, LookoutRecord, MigrateRecord,
    MigrationRecord, OccasionRecord, OutcomeRecord, PhaseRecord, ProbeRecord, Record,
    RolledBackRecord, ServiceRecord, SettingsRecord, SlotRecord, VERSION, WatchRecord,
    WentBackRecord,
};
use crate::deploy::{
    BootId, ByClass, Cause, Condition, Deployment, Generation, Kind, NameError, Outcome, Phase,
    Probe, Rate, ReleaseId, Service, Settings, Slot, State, Time, UnitFailure, Watch, Weight,
};

pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn text<T: ToString>(name: Option<&T>) -> Option<String> {
    name.map(ToString::to_string)
}

pub(super) fn weight(percent: u8) -> Result<Weight, NameError> {
    percent.to_string().parse()
}

pub(super) fn parse<T: std::str::FromStr<Err = NameError>>(
    name: Option<String>,
) -> Result<Option<T>, NameError> {
    name.map(|name| name.parse()).transpose()
}

/// Phases and conditions are kept as `&'static str` in memory; a word of a newer version reads as `unknown`.
pub(super) fn word(found: &str) -> &'static str {
    const WORDS: [&str; 15] = [
        "preparing",
        "waiting",
        "starting",
        "ready",
        "shifting",
        "idle",
        "standby",
        "trial",
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

fn marks(entered: &[(&'static str, Time)]) -> Vec<(String, u64)> {
    let mark = |(phase, at): &(&str, Time)| ((*phase).to_owned(), at.0);
    entered.iter().map(mark).collect()
}

fn times(entered: &[(String, u64)]) -> Vec<(&'static str, Time)> {
    let time = |(phase, at): &(String, u64)| (word(phase), Time(*at));
    entered.iter().map(time).collect()
}

impl Record {
    pub(in crate::store) fn of(state: &State, machine_boot: &str) -> Self {
        let version = match is_new(state) {
            true => VERSION,
            false => FIRST,
        };
        Self {
            version,
            readable_from: version,
            machine_boot: machine_boot.to_owned(),
            generation: state.generation.0,
            routed: state.routed.0,
            table: state.table,
            everywhere: state.everywhere,
            active: text(state.active.as_ref()),
            lingering: state.lingering.iter().map(ToString::to_string).collect(),
            deployment: state.deployment.as_ref().map(|held| DeploymentRecord {
                generation: held.generation.0,
                kind: held.kind.into(),
                by: held.by.clone(),
                began: held.began.0,
                phase: (&held.phase).into(),
                entered: marks(&held.entered),
                settings: (&held.settings).into(),
                weight: held.weight.map(Weight::get),
                planned: held.planned,
                before_switch: held.before_switch.into(),
                force: held.force,
                auto: held.auto,
                because: held.because.as_ref().map(Into::into),
                goes_back: held.goes_back,
            }),
            watch: state.watch.as_ref().map(|watch| WatchRecord {
                generation: watch.generation.0,
                new: watch.new.to_string(),
                old: text(watch.old.as_ref()),
                streak: watch.streak,
                restarts: watch.restarts,
                comes_by: watch.comes_by.map(|by| by.0),
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
            went_back: state.went_back.as_ref().map(Into::into),
            soaked: state.soaked,
            marked: state.marked.keys().map(ToString::to_string).collect(),
            marks: marks_of(state),
            outcome: state.outcome.as_ref().map(Into::into),
            rolled_back: state.rolled_back.as_ref().map(Into::into),
            settings: (&state.settings).into(),
            keys: state.keys.iter().map(Into::into).collect(),
            due: state.due.iter().map(Into::into).collect(),
            topics: state.topics.iter().map(|it| it.name().to_owned()).collect(),
            told: state.told,
            untold: state.untold.iter().filter_map(TidingRecord::of).collect(),
            switched: state.switched.map(|at| at.0),
            reached: state.reached.as_ref().map(Into::into),
            lookout: LookoutRecord::of(&state.lookout),
            kept: state.kept.as_ref().map(Into::into),
            migration: state.migration.as_ref().map(Into::into),
        }
    }

    pub(in crate::store) fn into_state(mut self) -> Result<State, NameError> {
        Ok(State {
            generation: Generation(self.generation),
            routed: Generation(self.routed),
            table: self.table,
            everywhere: self.everywhere,
            active: parse(self.active)?,
            lingering: self
                .lingering
                .iter()
                .map(|slot| slot.parse())
                .collect::<Result<_, _>>()?,
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
            went_back: (self.went_back.map(WentBackRecord::into_went_back)).transpose()?,
            soaked: self.soaked,
            marked: self
                .marked
                .into_iter()
                .map(|release| {
                    let back = self.marks.remove(&release);
                    let back = back.map(RolledBackRecord::into_rolled_back).transpose()?;
                    Ok((release.parse()?, back))
                })
                .collect::<Result<_, NameError>>()?,
            outcome: self.outcome.map(OutcomeRecord::into_outcome).transpose()?,
            rolled_back: self
                .rolled_back
                .map(RolledBackRecord::into_rolled_back)
                .transpose()?,
            settings: self.settings.into_settings()?,
            keys: self
                .keys
                .into_iter()
                .map(KeyRecord::into_keyed)
                .collect::<Result<_, _>>()?,
            due: self
                .due
                .into_iter()
                .map(OccasionRecord::into_occasion)
                .collect::<Result<_, _>>()?,
            topics: topics(&self.topics).collect(),
            told: self.told,
            untold: self
                .untold
                .into_iter()
                .map(TidingRecord::into_tiding)
                .collect::<Result<_, _>>()?,
            switched: self.switched.map(Time),
            reached: self.reached.map(Into::into),
            lookout: (self.lookout.map(LookoutRecord::into_lookout))
                .transpose()?
                .unwrap_or_default(),
            kept: self.kept.map(KeptRecord::into_kept).transpose()?,
            migration: (self.migration.map(MigrationRecord::into_migration)).transpose()?,
        })
    }
}

/// Whether a slot has a weight beside the active slot, or is to get one; or a hook or a verdict has ended something.
fn is_new(state: &State) -> bool {
    let held = state.deployment.as_ref();
    let ended = state.outcome.iter().map(|outcome| &outcome.cause);
    let back = state.rolled_back.iter().map(|back| &back.cause);
    let kept = state.keys.iter().filter_map(|key| key.outcome.as_ref());
    let kept = kept.map(|outcome| &outcome.cause);
    let watch = state
        .watch
        .iter()
        .filter_map(|watch| watch.rolling_back.as_ref());
    let mut causes = ended.chain(back).chain(kept).chain(watch);
    held.is_some_and(|held| held.weight.is_some() || held.planned)
        || causes.any(|cause| matches!(cause, Cause::Unhooked(..) | Cause::Judged(_)))
        || state
            .slots
            .values()
            .any(|slot| matches!(slot.condition, Condition::Trial { .. }))
}

fn classes(each: ByClass<u64>) -> Option<ByClassRecord> {
    (each != ByClass::all(each.last())).then_some(ByClassRecord {
        requests: each.requests,
        streams: each.streams,
        tunnels: each.tunnels,
    })
}

fn by_class(last: Option<u64>, classes: Option<ByClassRecord>) -> ByClass<u64> {
    classes.map_or(ByClass::all(last), |each| ByClass {
        requests: each.requests,
        streams: each.streams,
        tunnels: each.tunnels,
    })
}

impl From<&Settings> for SettingsRecord {
    fn from(settings: &Settings) -> Self {
        Self {
            slots: settings.slots.iter().map(ToString::to_string).collect(),
            start_timeout_ms: ms(settings.start_timeout),
            health_timeout_ms: ms(settings.health_timeout),
            drain_ms: settings.drain.map(ms).last(),
            drain_classes_ms: classes(settings.drain.map(ms)),
            stop_timeout_ms: ms(settings.stop_timeout),
            soak_ms: ms(settings.soak),
            soak_error_rate: settings.soak_error_rate.map(|Rate(rate)| rate),
            hooks: settings.hooks.iter().map(|hook| (*hook).into()).collect(),
            after: AfterRecord::of(&settings.after),
            migrate: settings.migrate.as_ref().map(Into::into),
            canary: settings.canary.as_deref().map(Into::into),
        }
    }
}

impl SettingsRecord {
    fn into_settings(self) -> Result<Settings, NameError> {
        Ok(Settings {
            slots: self
                .slots
                .iter()
                .map(|slot| slot.parse())
                .collect::<Result<_, _>>()?,
            start_timeout: Duration::from_millis(self.start_timeout_ms),
            health_timeout: Duration::from_millis(self.health_timeout_ms),
            drain: by_class(self.drain_ms, self.drain_classes_ms).map(Duration::from_millis),
            stop_timeout: Duration::from_millis(self.stop_timeout_ms),
            soak: Duration::from_millis(self.soak_ms),
            soak_error_rate: self.soak_error_rate.map(Rate),
            hooks: self.hooks.into_iter().map(Into::into).collect(),
            after: (self.after.map(AfterRecord::into_after)).unwrap_or_default(),
            migrate: (self.migrate.map(MigrateRecord::into_migrate)).transpose()?,
            canary: (self.canary.map(CanaryRecord::into_canary))
                .transpose()?
                .map(Box::new),
        })
    }
}

impl DeploymentRecord {
    fn into_deployment(self) -> Result<Deployment, NameError> {
        Ok(Deployment {
            generation: Generation(self.generation),
            kind: self.kind.into(),
            by: self.by,
            began: Time(self.began),
            phase: self.phase.into_phase()?,
            entered: times(&self.entered),
            settings: self.settings.into_settings()?,
            weight: self.weight.map(weight).transpose()?,
            planned: self.planned,
            before_switch: self.before_switch.into(),
            force: self.force,
            auto: self.auto,
            because: self.because.map(CauseRecord::into_cause).transpose()?,
            goes_back: self.goes_back,
        })
    }
}

impl WatchRecord {
    fn into_watch(self) -> Result<Watch, NameError> {
        Ok(Watch {
            generation: Generation(self.generation),
            new: self.new.parse()?,
            old: parse(self.old)?,
            streak: self.streak,
            restarts: self.restarts,
            comes_by: self.comes_by.map(Time),
            until: Time(self.until),
            prev: parse(self.prev)?,
            soaked: self.soaked,
            rolling_back: self.rolling_back.map(CauseRecord::into_cause).transpose()?,
        })
    }
}

impl From<&Outcome> for OutcomeRecord {
    fn from(outcome: &Outcome) -> Self {
        Self {
            generation: outcome.generation.0,
            kind: outcome.kind.into(),
            by: outcome.by.clone(),
            release: text(outcome.release.as_ref()),
            slot: text(outcome.slot.as_ref()),
            previous: text(outcome.previous.as_ref()),
            phase: outcome.phase.to_owned(),
            entered: marks(&outcome.entered),
            cause: (&outcome.cause).into(),
            at: outcome.at.0,
            reached: outcome.reached.as_ref().map(Into::into),
            goes_back: outcome.goes_back,
        }
    }
}

impl OutcomeRecord {
    pub(super) fn into_outcome(self) -> Result<Outcome, NameError> {
        Ok(Outcome {
            generation: Generation(self.generation),
            kind: self.kind.into(),
            by: self.by,
            release: parse(self.release)?,
            slot: parse(self.slot)?,
            previous: parse(self.previous)?,
            phase: word(&self.phase),
            entered: times(&self.entered),
            cause: self.cause.into_cause()?,
            at: Time(self.at),
            reached: self.reached.map(Into::into),
            goes_back: self.goes_back,
        })
    }
}

impl From<Kind> for KindRecord {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Deploy => Self::Deploy,
            Kind::Rollback => Self::Rollback,
            Kind::ByHand => Self::ByHand,
            Kind::Promote => Self::Promote,
        }
    }
}

impl From<KindRecord> for Kind {
    fn from(kind: KindRecord) -> Self {
        match kind {
            KindRecord::Deploy => Self::Deploy,
            KindRecord::Rollback => Self::Rollback,
            KindRecord::ByHand => Self::ByHand,
            KindRecord::Promote => Self::Promote,
        }
    }
}

impl From<&Phase> for PhaseRecord {
    fn from(phase: &Phase) -> Self {
        match phase {
            Phase::Preparing { queue } => Self::Preparing {
                queue_ms: ms(*queue),
            },
            Phase::Waiting { release, until } => Self::Waiting {
                release: release.to_string(),
                until: until.0,
            },
            Phase::Starting { slot, until } => Self::Starting {
                slot: slot.to_string(),
                until: until.0,
            },
            Phase::Ready { slot, until, probe } => Self::Ready {
                slot: slot.to_string(),
                until: until.0,
                probe: probe.as_ref().map(Into::into),
            },
            Phase::Trial { slot, plan } => Self::Trial {
                slot: slot.to_string(),
                plan: plan.as_ref().map(Into::into),
            },
            Phase::Shifting { slot, from, left } => Self::Shifting {
                slot: slot.to_string(),
                from: text(from.as_ref()),
                left: text(left.as_ref()),
            },
        }
    }
}

impl PhaseRecord {
    fn into_phase(self) -> Result<Phase, NameError> {
        Ok(match self {
            Self::Preparing { queue_ms } => Phase::Preparing {
                queue: Duration::from_millis(queue_ms),
            },
            Self::Waiting { release, until } => Phase::Waiting {
                release: release.parse()?,
                until: Time(until),
            },
            Self::Starting { slot, until } => Phase::Starting {
                slot: slot.parse()?,
                until: Time(until),
            },
            Self::Ready { slot, until, probe } => Phase::Ready {
                slot: slot.parse()?,
                until: Time(until),
                probe: probe.map(Into::into),
            },
            Self::Trial { slot, plan } => Phase::Trial {
                slot: slot.parse()?,
                plan: plan.map(Into::into),
            },
            Self::Shifting { slot, from, left } => Phase::Shifting {
                slot: slot.parse()?,
                from: parse(from)?,
                left: parse(left)?,
            },
        })
    }
}

impl From<&Slot> for SlotRecord {
    fn from(slot: &Slot) -> Self {
        let condition = match &slot.condition {
            Condition::Idle => ConditionRecord::Idle,
            Condition::Starting => ConditionRecord::Starting,
            Condition::Ready => ConditionRecord::Ready,
            Condition::Standby { gated } => ConditionRecord::Standby { gated: *gated },
            Condition::Trial { weight, streak } => ConditionRecord::Trial {
                weight: weight.get(),
                streak: *streak,
            },
            Condition::Active(service) => ConditionRecord::Active {
                service: match service {
                    Service::Up => ServiceRecord::Up,
                    Service::Booting { until } => ServiceRecord::Booting { until: until.0 },
                    Service::Down { failure, retry } => ServiceRecord::Down {
                        retry: retry.map(|at| at.0),
                        failure: failure.into(),
                    },
                    Service::ByHand => ServiceRecord::ByHand,
                },
            },
            Condition::Warm { drain, gated } => ConditionRecord::Warm {
                gated: *gated,
                drain: drain.map(|at| at.0).last(),
                classes: classes(drain.map(|at| at.0)),
            },
            Condition::Draining { until, withdrawn } => ConditionRecord::Draining {
                until: until.map(|at| at.0).last(),
                classes: classes(until.map(|at| at.0)),
                withdrawn: *withdrawn,
            },
            Condition::Stopping { forced, failure } => ConditionRecord::Stopping {
                forced: *forced,
                failure: failure.as_ref().map(Into::into),
            },
            Condition::Failed(failure) => ConditionRecord::Failed {
                failure: failure.into(),
            },
        };
        Self {
            condition,
            release: text(slot.release.as_ref()),
            boot: text(slot.boot.as_ref()),
            generation: slot.generation.0,
        }
    }
}

impl SlotRecord {
    fn into_slot(self) -> Result<Slot, NameError> {
        let condition = match self.condition {
            ConditionRecord::Idle => Condition::Idle,
            ConditionRecord::Starting => Condition::Starting,
            ConditionRecord::Ready => Condition::Ready,
            ConditionRecord::Standby { gated } => Condition::Standby { gated },
            ConditionRecord::Trial {
                weight: percent,
                streak,
            } => Condition::Trial {
                weight: weight(percent)?,
                streak,
            },
            ConditionRecord::Active { service } => Condition::Active(match service {
                ServiceRecord::Up => Service::Up,
                ServiceRecord::Booting { until } => Service::Booting { until: Time(until) },
                ServiceRecord::Down { failure, retry } => Service::Down {
                    failure: failure.into(),
                    retry: retry.map(Time),
                },
                ServiceRecord::ByHand => Service::ByHand,
            }),
            ConditionRecord::Warm {
                drain,
                gated,
                classes,
            } => Condition::Warm {
                gated,
                drain: by_class(drain, classes).map(Time),
            },
            ConditionRecord::Draining {
                until,
                classes,
                withdrawn,
            } => Condition::Draining {
                until: by_class(until, classes).map(Time),
                withdrawn,
            },
            ConditionRecord::Stopping { forced, failure } => Condition::Stopping {
                forced,
                failure: failure.map(Into::into),
            },
            ConditionRecord::Failed { failure } => Condition::Failed(failure.into()),
        };
        Ok(Slot {
            condition,
            release: parse::<ReleaseId>(self.release)?,
            boot: parse::<BootId>(self.boot)?,
            generation: Generation(self.generation),
        })
    }
}

impl From<&UnitFailure> for FailureRecord {
    fn from(failure: &UnitFailure) -> Self {
        Self {
            result: failure.result.as_str().to_owned(),
            text: failure.text.clone(),
        }
    }
}

impl From<FailureRecord> for UnitFailure {
    fn from(failure: FailureRecord) -> Self {
        Self {
            result: failure.result.as_str().into(),
            text: failure.text,
        }
    }
}

impl From<&Probe> for ProbeRecord {
    fn from(probe: &Probe) -> Self {
        Self {
            pass: probe.pass,
            text: probe.text.clone(),
        }
    }
}

impl From<ProbeRecord> for Probe {
    fn from(probe: ProbeRecord) -> Self {
        Self {
            pass: probe.pass,
            text: probe.text,
        }
    }
}
