//! Notices that are to be told elsewhere, between the state and their record.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    CauseRecord, FailureRecord, KindRecord, LackRecord, OccasionRecord, OutcomeRecord,
    RolledBackRecord,
};
use crate::deploy::{Generation, NameError, Notice, Tiding, Time, Topic, Weight};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TidingRecord {
    number: u64,
    at: u64,
    generation: u64,
    release: Option<String>,
    #[serde(flatten)]
    notice: NoticeRecord,
}

/// Those that have a topic.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "topic")]
enum NoticeRecord {
    Began {
        of: u64,
        kind: KindRecord,
        by: String,
    },
    Ended {
        outcome: OutcomeRecord,
    },
    Soak {
        of: u64,
        slot: String,
        cause: CauseRecord,
    },
    RolledBack {
        back: RolledBackRecord,
    },
    Returned {
        back: RolledBackRecord,
    },
    Failing {
        of: u64,
        slot: String,
        cause: CauseRecord,
        /// What takes its place.
        to: Option<String>,
        /// Why nothing does.
        why: Option<String>,
    },
    Holds {
        of: u64,
        step: usize,
        lack: LackRecord,
    },
    Weighed {
        slot: String,
        weight: u8,
        rest: u8,
        cause: Option<CauseRecord>,
    },
    Down {
        slot: String,
        failure: Option<FailureRecord>,
    },
    Up {
        slot: String,
    },
    Hook {
        occasion: OccasionRecord,
        failure: Option<FailureRecord>,
    },
}

/// Those that this version can tell of.
pub(super) fn known<'d, D: Deserializer<'d>>(found: D) -> Result<Vec<TidingRecord>, D::Error> {
    let found = Vec::<serde_json::Value>::deserialize(found)?;
    let is_known = |record: &serde_json::Value| {
        let topic = record["topic"].as_str();
        topic.is_none_or(|topic| Topic::ALL.iter().any(|(name, _)| *name == topic))
    };
    let known = found.into_iter().filter(is_known);
    let known = known.map(serde_json::from_value);
    known.collect::<Result<_, _>>().map_err(D::Error::custom)
}

impl TidingRecord {
    /// `None` for a notice that has no topic, which no state keeps.
    pub(super) fn of(tiding: &Tiding) -> Option<Self> {
        let notice = match &tiding.notice {
            Notice::Began {
                generation,
                kind,
                by,
            } => NoticeRecord::Began {
                of: generation.0,
                kind: (*kind).into(),
                by: by.clone(),
            },
            Notice::Ended(outcome) => NoticeRecord::Ended {
                outcome: outcome.into(),
            },
            Notice::Soak {
                generation,
                slot,
                cause,
            } => NoticeRecord::Soak {
                of: generation.0,
                slot: slot.to_string(),
                cause: cause.into(),
            },
            Notice::RolledBack(back) => NoticeRecord::RolledBack { back: back.into() },
            Notice::Returned(back) => NoticeRecord::Returned { back: back.into() },
            Notice::Failing {
                generation,
                slot,
                cause,
                to,
            } => NoticeRecord::Failing {
                of: generation.0,
                slot: slot.to_string(),
                cause: cause.into(),
                to: (to.as_ref()).and_then(|to| to.as_ref().ok().map(ToString::to_string)),
                why: to.as_ref().and_then(|to| to.as_ref().err().cloned()),
            },
            Notice::Holds {
                generation,
                step,
                lack,
            } => NoticeRecord::Holds {
                of: generation.0,
                step: *step,
                lack: lack.into(),
            },
            Notice::Weighed {
                slot,
                weight,
                rest,
                cause,
            } => NoticeRecord::Weighed {
                slot: slot.to_string(),
                weight: weight.get(),
                rest: rest.get(),
                cause: cause.as_ref().map(Into::into),
            },
            Notice::Down { slot, failure } => NoticeRecord::Down {
                slot: slot.to_string(),
                failure: failure.as_ref().map(Into::into),
            },
            Notice::Up { slot } => NoticeRecord::Up {
                slot: slot.to_string(),
            },
            Notice::Hooked { occasion, failure } => NoticeRecord::Hook {
                occasion: occasion.into(),
                failure: failure.as_ref().map(Into::into),
            },
            Notice::Phase { .. }
            | Notice::Draining { .. }
            | Notice::Forced { .. }
            | Notice::Stopped { .. }
            | Notice::StandsBy { .. } => return None,
        };
        Some(Self {
            number: tiding.number,
            at: tiding.at.0,
            generation: tiding.generation.0,
            release: tiding.release.as_ref().map(ToString::to_string),
            notice,
        })
    }

    pub(super) fn into_tiding(self) -> Result<Tiding, NameError> {
        let share = |percent: u8| percent.to_string().parse::<Weight>();
        let notice = match self.notice {
            NoticeRecord::Began { of, kind, by } => Notice::Began {
                generation: Generation(of),
                kind: kind.into(),
                by,
            },
            NoticeRecord::Ended { outcome } => Notice::Ended(outcome.into_outcome()?),
            NoticeRecord::Soak { of, slot, cause } => Notice::Soak {
                generation: Generation(of),
                slot: slot.parse()?,
                cause: cause.into_cause()?,
            },
            NoticeRecord::RolledBack { back } => Notice::RolledBack(back.into_rolled_back()?),
            NoticeRecord::Returned { back } => Notice::Returned(back.into_rolled_back()?),
            NoticeRecord::Failing {
                of,
                slot,
                cause,
                to,
                why,
            } => Notice::Failing {
                generation: Generation(of),
                slot: slot.parse()?,
                cause: cause.into_cause()?,
                to: match (to, why) {
                    (Some(id), _) => Some(Ok(id.parse()?)),
                    (None, Some(why)) => Some(Err(why)),
                    (None, None) => None,
                },
            },
            NoticeRecord::Holds { of, step, lack } => Notice::Holds {
                generation: Generation(of),
                step,
                lack: lack.into(),
            },
            NoticeRecord::Weighed {
                slot,
                weight,
                rest,
                cause,
            } => Notice::Weighed {
                slot: slot.parse()?,
                weight: share(weight)?,
                rest: share(rest)?,
                cause: cause.map(CauseRecord::into_cause).transpose()?,
            },
            NoticeRecord::Down { slot, failure } => Notice::Down {
                slot: slot.parse()?,
                failure: failure.map(Into::into),
            },
            NoticeRecord::Up { slot } => Notice::Up {
                slot: slot.parse()?,
            },
            NoticeRecord::Hook { occasion, failure } => Notice::Hooked {
                occasion: occasion.into_occasion()?,
                failure: failure.map(Into::into),
            },
        };
        Ok(Tiding {
            number: self.number,
            at: Time(self.at),
            generation: Generation(self.generation),
            release: self.release.map(|id| id.parse()).transpose()?,
            notice,
        })
    }
}

/// Topics by their names; one of a newer version is left out.
pub(super) fn topics(names: &[String]) -> impl Iterator<Item = Topic> {
    let known = |name: &String| {
        let mut all = Topic::ALL.into_iter();
        all.find(|(own, _)| own == name).map(|(_, topic)| topic)
    };
    names.iter().filter_map(known)
}
