//! Hooks, between the state and its record.

use super::{HookRecord, OccasionRecord, StageRecord};
use crate::deploy::{Generation, Hook, NameError, Occasion, Stage};

impl From<Hook> for HookRecord {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::BeforeDeploy => Self::BeforeDeploy,
            Hook::BeforeSwitch => Self::BeforeSwitch,
            Hook::AfterSwitch => Self::AfterSwitch,
            Hook::AfterRollback => Self::AfterRollback,
            Hook::Check => Self::Check,
        }
    }
}

impl From<HookRecord> for Hook {
    fn from(hook: HookRecord) -> Self {
        match hook {
            HookRecord::BeforeDeploy => Self::BeforeDeploy,
            HookRecord::BeforeSwitch => Self::BeforeSwitch,
            HookRecord::AfterSwitch => Self::AfterSwitch,
            HookRecord::AfterRollback => Self::AfterRollback,
            HookRecord::Check => Self::Check,
        }
    }
}

impl From<Stage> for StageRecord {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Ahead => Self::Ahead,
            Stage::Runs => Self::Runs,
            Stage::Passed => Self::Passed,
        }
    }
}

impl From<StageRecord> for Stage {
    fn from(stage: StageRecord) -> Self {
        match stage {
            StageRecord::Ahead => Self::Ahead,
            StageRecord::Runs => Self::Runs,
            StageRecord::Passed => Self::Passed,
        }
    }
}

impl From<&Occasion> for OccasionRecord {
    fn from(occasion: &Occasion) -> Self {
        Self {
            hook: occasion.hook.into(),
            generation: occasion.generation.0,
            slot: occasion.slot.as_ref().map(ToString::to_string),
            release: occasion.release.as_ref().map(ToString::to_string),
            previous: occasion.previous.as_ref().map(ToString::to_string),
            cause: occasion.cause.clone(),
        }
    }
}

impl OccasionRecord {
    pub(super) fn into_occasion(self) -> Result<Occasion, NameError> {
        let release = |id: Option<String>| id.map(|id| id.parse()).transpose();
        Ok(Occasion {
            hook: self.hook.into(),
            generation: Generation(self.generation),
            slot: self.slot.map(|slot| slot.parse()).transpose()?,
            release: release(self.release)?,
            previous: release(self.previous)?,
            cause: self.cause,
        })
    }
}
