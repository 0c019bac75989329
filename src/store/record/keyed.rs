//! Requests with a key, between the state and its record.

use super::{KeyRecord, OutcomeRecord};
use crate::deploy::{Fingerprint, Generation, Keyed, NameError, Time};

impl From<&Keyed> for KeyRecord {
    fn from(keyed: &Keyed) -> Self {
        Self {
            key: keyed.fingerprint.key.to_string(),
            target: keyed.fingerprint.target.clone(),
            payload: keyed.fingerprint.payload.clone(),
            generation: keyed.generation.0,
            at: keyed.at.0,
            outcome: keyed.outcome.as_ref().map(Into::into),
        }
    }
}

impl KeyRecord {
    pub(super) fn into_keyed(self) -> Result<Keyed, NameError> {
        Ok(Keyed {
            fingerprint: Fingerprint {
                key: self.key.parse()?,
                target: self.target,
                payload: self.payload,
            },
            generation: Generation(self.generation),
            at: Time(self.at),
            outcome: self.outcome.map(OutcomeRecord::into_outcome).transpose()?,
        })
    }
}
