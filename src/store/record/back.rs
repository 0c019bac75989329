//! Switches that were taken back, between the state and its record.

use std::collections::BTreeMap;

use super::convert::{parse, text};
use super::{RolledBackRecord, WentBackRecord};
use crate::deploy::{Generation, NameError, RolledBack, State, Time, WentBack};

/// Of the releases that are marked, how.
pub(super) fn marks_of(state: &State) -> BTreeMap<String, RolledBackRecord> {
    let known = (state.marked.iter()).filter_map(|(id, back)| Some((id, back.as_ref()?)));
    known
        .map(|(id, back)| (id.to_string(), back.into()))
        .collect()
}

impl From<&RolledBack> for RolledBackRecord {
    fn from(back: &RolledBack) -> Self {
        Self {
            generation: back.generation.0,
            from: back.from.to_string(),
            left: text(back.left.as_ref()),
            to: back.to.to_string(),
            release: text(back.release.as_ref()),
            cause: (&back.cause).into(),
            at: back.at.0,
            reached: back.reached.as_ref().map(Into::into),
        }
    }
}

impl RolledBackRecord {
    pub(super) fn into_rolled_back(self) -> Result<RolledBack, NameError> {
        Ok(RolledBack {
            generation: Generation(self.generation),
            from: self.from.parse()?,
            left: parse(self.left)?,
            to: self.to.parse()?,
            release: parse(self.release)?,
            cause: self.cause.into_cause()?,
            at: Time(self.at),
            reached: self.reached.map(Into::into),
        })
    }
}

impl From<&WentBack> for WentBackRecord {
    fn from(back: &WentBack) -> Self {
        Self {
            left: text(back.left.as_ref()),
            before: back.before.iter().map(ToString::to_string).collect(),
            release: back.release.to_string(),
            at: back.at.0,
        }
    }
}

impl WentBackRecord {
    pub(super) fn into_went_back(self) -> Result<WentBack, NameError> {
        Ok(WentBack {
            left: parse(self.left)?,
            before: (self.before.iter().map(|id| id.parse())).collect::<Result<_, _>>()?,
            release: self.release.parse()?,
            at: Time(self.at),
        })
    }
}
