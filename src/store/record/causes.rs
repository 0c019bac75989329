//! Causes, between the state and its record.

use super::convert::word;
use super::{CauseRecord, MarkRecord, UnneededRecord};
use crate::deploy::{Cause, Finding, NameError, ReleaseId, SlotName};

impl From<&Cause> for CauseRecord {
    fn from(cause: &Cause) -> Self {
        match cause {
            Cause::Switched => Self::Switched,
            Cause::StandsBy => Self::Standby,
            Cause::Unprepared(why) => Self::Unprepared {
                why: why.clone(),
                marked: None,
                unneeded: None,
            },
            Cause::Marked(back) => Self::Unprepared {
                why: "it was rolled back automatically".to_owned(),
                marked: Some(MarkRecord {
                    back: back.as_deref().map(|back| Box::new(back.into())),
                }),
                unneeded: None,
            },
            Cause::AlreadyLive(release) => unneeded(UnneededRecord::Live(release.to_string())),
            Cause::Left(release) => unneeded(UnneededRecord::Left(release.to_string())),
            Cause::Unbuilt(failure) => Self::Unbuilt {
                failure: failure.into(),
            },
            Cause::Unhooked(hook, failure) => Self::Unhooked {
                hook: (*hook).into(),
                failure: failure.into(),
            },
            Cause::Interrupted => Self::Interrupted,
            Cause::Preempted => Self::Preempted { by: None },
            Cause::Aborted(by) => Self::Preempted {
                by: Some(by.clone()),
            },
            Cause::NoIdleSlot { holder, condition } => Self::NoIdleSlot {
                holder: holder.to_string(),
                condition: (*condition).to_owned(),
            },
            Cause::Unrouted(why) => Self::Unrouted { why: why.clone() },
            Cause::StartFailed(failure) => Self::StartFailed {
                failure: failure.into(),
            },
            Cause::StartTimeout => Self::StartTimeout,
            Cause::HealthTimeout(probe) => Self::HealthTimeout {
                probe: probe.as_ref().map(Into::into),
            },
            Cause::Exited(failure) => Self::Exited {
                failure: failure.into(),
            },
            Cause::StoppedByHand => Self::StoppedByHand,
            Cause::ProbesFailed(probe) => Self::ProbesFailed {
                probe: probe.into(),
            },
            Cause::Judged(finding) => Self::Judged {
                failed: finding.failed.into(),
                text: finding.text.clone(),
            },
            Cause::Soaked => Self::Soaked,
            Cause::Superseded => Self::Superseded,
            Cause::OldSlotGone => Self::OldSlotGone,
        }
    }
}

fn unneeded(release: UnneededRecord) -> CauseRecord {
    CauseRecord::Unprepared {
        why: "nobody asked for it, and it is live, or was left by a rollback".to_owned(),
        marked: None,
        unneeded: Some(release),
    }
}

impl CauseRecord {
    pub(super) fn into_cause(self) -> Result<Cause, NameError> {
        Ok(match self {
            Self::Switched => Cause::Switched,
            Self::Standby => Cause::StandsBy,
            Self::Unprepared {
                why,
                marked: None,
                unneeded: None,
            } => Cause::Unprepared(why),
            Self::Unprepared {
                marked: Some(mark), ..
            } => {
                let back = mark.back.map(|back| back.into_rolled_back()).transpose()?;
                Cause::Marked(back.map(Box::new))
            }
            Self::Unprepared {
                unneeded: Some(UnneededRecord::Live(release)),
                ..
            } => Cause::AlreadyLive(release.parse::<ReleaseId>()?),
            Self::Unprepared {
                unneeded: Some(UnneededRecord::Left(release)),
                ..
            } => Cause::Left(release.parse::<ReleaseId>()?),
            Self::Unbuilt { failure } => Cause::Unbuilt(failure.into()),
            Self::Unhooked { hook, failure } => Cause::Unhooked(hook.into(), failure.into()),
            Self::Interrupted => Cause::Interrupted,
            Self::Preempted { by: None } => Cause::Preempted,
            Self::Preempted { by: Some(by) } => Cause::Aborted(by),
            Self::NoIdleSlot { holder, condition } => Cause::NoIdleSlot {
                holder: holder.parse::<SlotName>()?,
                condition: word(&condition),
            },
            Self::Unrouted { why } => Cause::Unrouted(why),
            Self::StartFailed { failure } => Cause::StartFailed(failure.into()),
            Self::StartTimeout => Cause::StartTimeout,
            Self::HealthTimeout { probe } => Cause::HealthTimeout(probe.map(Into::into)),
            Self::Exited { failure } => Cause::Exited(failure.into()),
            Self::StoppedByHand => Cause::StoppedByHand,
            Self::ProbesFailed { probe } => Cause::ProbesFailed(probe.into()),
            Self::Judged { failed, text } => Cause::Judged(Finding {
                failed: failed.into(),
                text,
            }),
            Self::Soaked => Cause::Soaked,
            Self::Superseded => Cause::Superseded,
            Self::OldSlotGone => Cause::OldSlotGone,
        })
    }
}
