//! What goes on after a switch and after a soak, between the state and its record.

use std::time::Duration;

use super::convert::{ms, weight};
use super::{
    AfterRecord, CauseRecord, FailingRecord, KeptRecord, LookoutRecord, MigrateRecord,
    MigrationRecord,
};
use crate::deploy::{
    After, Failing, Generation, Kept, Lookout, Migrate, Migration, NameError, Time,
};

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

impl From<&Migrate> for MigrateRecord {
    fn from(migrate: &Migrate) -> Self {
        Self {
            keeps: migrate.keeps.get(),
            lasts_ms: ms(migrate.lasts),
        }
    }
}

impl MigrateRecord {
    pub(super) fn into_migrate(self) -> Result<Migrate, NameError> {
        Ok(Migrate {
            keeps: weight(self.keeps)?,
            lasts: Duration::from_millis(self.lasts_ms),
        })
    }
}

impl From<&Migration> for MigrationRecord {
    fn from(migration: &Migration) -> Self {
        Self {
            slot: migration.slot.to_string(),
            weight: migration.weight.get(),
            since: migration.since.0,
            until: migration.until.0,
            streak: migration.streak,
        }
    }
}

impl MigrationRecord {
    pub(super) fn into_migration(self) -> Result<Migration, NameError> {
        Ok(Migration {
            slot: self.slot.parse()?,
            weight: weight(self.weight)?,
            since: Time(self.since),
            until: Time(self.until),
            streak: self.streak,
        })
    }
}
