//! What goes on after a soak, between the state and its record.

use std::time::Duration;

use super::convert::ms;
use super::{AfterRecord, CauseRecord, FailingRecord, KeptRecord, LookoutRecord};
use crate::deploy::{After, Failing, Generation, Kept, Lookout, NameError, Time};

impl From<Failing> for FailingRecord {
    fn from(failing: Failing) -> Self {
        match failing {
            Failing::Unseen => Self::Unseen,
            Failing::Told => Self::Told,
            Failing::Left => Self::Left,
        }
    }
}

impl From<FailingRecord> for Failing {
    fn from(failing: FailingRecord) -> Self {
        match failing {
            FailingRecord::Unseen => Self::Unseen,
            FailingRecord::Told => Self::Told,
            FailingRecord::Left => Self::Left,
        }
    }
}

impl AfterRecord {
    /// None for what is the same in a version that knows of nothing after a soak.
    pub(super) fn of(after: &After) -> Option<Self> {
        (*after != After::default()).then(|| Self {
            failing: after.failing.into(),
            keep_warm_ms: ms(after.keep_warm),
            frozen: after.frozen,
        })
    }

    pub(super) fn into_after(self) -> After {
        After {
            failing: self.failing.into(),
            keep_warm: Duration::from_millis(self.keep_warm_ms),
            frozen: self.frozen,
        }
    }
}

impl LookoutRecord {
    pub(super) fn of(lookout: &Lookout) -> Option<Self> {
        (*lookout != Lookout::default()).then(|| Self {
            streak: lookout.streak,
            failing: lookout.failing.as_ref().map(Into::into),
            left: lookout.left.map(|left| left.0),
        })
    }

    pub(super) fn into_lookout(self) -> Result<Lookout, NameError> {
        Ok(Lookout {
            streak: self.streak,
            failing: self.failing.map(CauseRecord::into_cause).transpose()?,
            left: self.left.map(Generation),
        })
    }
}

impl From<&Kept> for KeptRecord {
    fn from(kept: &Kept) -> Self {
        Self {
            slot: kept.slot.to_string(),
            until: kept.until.0,
            freezes: kept.freezes,
            frozen: kept.frozen,
        }
    }
}

impl KeptRecord {
    pub(super) fn into_kept(self) -> Result<Kept, NameError> {
        Ok(Kept {
            slot: self.slot.parse()?,
            until: Time(self.until),
            freezes: self.freezes,
            frozen: self.frozen,
        })
    }
}
