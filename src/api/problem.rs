//! One table of what can be wrong with a request, and its status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::audit::Code;
use crate::daemon::apps::AppError;
use crate::daemon::instances::UpgradeError;
use crate::daemon::owner::AskError;
use crate::daemon::shares::SlotError;
use crate::deploy::{NameError, Refusal, Unexpected};
use crate::git::GitError;
use crate::release::ReleaseError;
use crate::telemetry::{bytes, chain};
use crate::traffic::TrafficError;
use crate::wire::api;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    error: String,
    expected: Option<Box<api::Expected>>,
    found: Option<Box<api::Found>>,
}

impl Problem {
    fn of(status: StatusCode, code: &'static str, error: String) -> Self {
        Self {
            status,
            code,
            error,
            expected: None,
            found: None,
        }
    }

    pub(super) fn forbidden(who: &str) -> Self {
        let error = format!(
            "{who} may not use slotd: root and the members of the group slot may, and those of slot-observers may look; use sudo, or join a \
             group"
        );
        Self::of(StatusCode::FORBIDDEN, "forbidden", error)
    }

    /// Somebody who may look wants to act.
    pub(super) fn may_only_look(who: &str) -> Self {
        let error = format!(
            "{who} may look, and not act: that takes root, the group slot, or a token whose scope is act"
        );
        Self::of(StatusCode::FORBIDDEN, "forbidden", error)
    }

    /// Somebody who may act wants to say what root has done.
    pub(super) fn only_root(who: &str) -> Self {
        let error = format!(
            "{who} may act, and this only root may, on the machine itself: `sudo slotctl listener` does it"
        );
        Self::of(StatusCode::FORBIDDEN, "forbidden", error)
    }

    pub(super) fn unauthorized(error: &str) -> Self {
        Self::of(StatusCode::UNAUTHORIZED, "unauthorized", error.to_owned())
    }

    pub(super) fn unavailable(error: &str) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::of(status, "no-tokens", error.to_owned())
    }

    /// Too many wrong tokens.
    pub(super) fn too_often(seconds: u64) -> Self {
        let error = format!(
            "too many requests from this address had a wrong token; for {seconds} s each without a right one is answered with this"
        );
        Self::of(StatusCode::TOO_MANY_REQUESTS, "too-many-failures", error)
    }

    pub(super) fn too_large(limit: u64) -> Self {
        let error = format!(
            "more comes with the request than the {} that may",
            bytes(limit)
        );
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "too-large", error)
    }

    pub(super) fn bad_request(error: String) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "bad-request", error)
    }

    pub(super) fn refused(error: String) -> Self {
        Self::of(StatusCode::UNPROCESSABLE_ENTITY, "refused", error)
    }

    fn failed(error: &dyn std::error::Error) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "failed", chain(error))
    }

    pub(super) fn not_found(error: String) -> Self {
        Self::of(StatusCode::NOT_FOUND, "not-found", error)
    }
}

impl From<GitError> for Problem {
    fn from(error: GitError) -> Self {
        match error {
            GitError::NoCommit(_)
            | GitError::NoOid(_)
            | GitError::Refused { .. }
            | GitError::WrongContent { .. }
            | GitError::Torn { .. }
            | GitError::TornContent { .. } => Self::bad_request(chain(&error)),
            error => Self::failed(&error),
        }
    }
}

impl From<TrafficError> for Problem {
    fn from(error: TrafficError) -> Self {
        Self::failed(&error)
    }
}

impl From<UpgradeError> for Problem {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Full | UpgradeError::Settings(_) | UpgradeError::Unheeded { .. } => {
                Self::refused(chain(&error))
            }
            UpgradeError::NotReady { .. }
            | UpgradeError::NotRetired { .. }
            | UpgradeError::Traffic(_) => Self::failed(&error),
        }
    }
}

impl From<AppError> for Problem {
    fn from(error: AppError) -> Self {
        let (status, code) = match &error {
            AppError::NoSuchApp { .. } => (StatusCode::NOT_FOUND, "no-such-app"),
            AppError::NotTakenUp { .. } => (StatusCode::NOT_FOUND, "not-taken-up"),
            AppError::Unnamed { .. } => (StatusCode::BAD_REQUEST, "bad-request"),
            AppError::Broken { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
            AppError::InUse { .. } => (StatusCode::CONFLICT, "busy"),
            AppError::WrongFile { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
        };
        Self::of(status, code, chain(&error))
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let (status, code) = match &error {
            AskError::Refused(Refusal::Busy { .. } | Refusal::UnderWay { .. }) => {
                (StatusCode::CONFLICT, "busy")
            }
            AskError::Refused(Refusal::Unexpected(_) | Refusal::NotActive { .. }) => {
                (StatusCode::CONFLICT, "unexpected")
            }
            AskError::Refused(Refusal::KeyReused { .. } | Refusal::Repeated { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "key-reused")
            }
            AskError::Refused(Refusal::NothingToRollBackTo { .. }) => {
                (StatusCode::BAD_REQUEST, "nothing-to-roll-back-to")
            }
            AskError::Refused(Refusal::NoSuchSlot { .. })
            | AskError::Release(ReleaseError::Absent(_)) => (StatusCode::NOT_FOUND, "not-found"),
            AskError::Refused(
                Refusal::AlreadyBack { .. }
                | Refusal::AlreadyLive { .. }
                | Refusal::Marked { .. }
                | Refusal::NotStandingBy { .. }
                | Refusal::BetweenRuns { .. }
                | Refusal::NotDraining { .. }
                | Refusal::TakesNoWeight { .. }
                | Refusal::NotHealthy { .. }
                | Refusal::HookFirst { .. }
                | Refusal::IsActive { .. }
                | Refusal::TooMuch { .. }
                | Refusal::NothingToAbort
                | Refusal::NoPlan
                | Refusal::PlanFinished { .. }
                | Refusal::Switching { .. }
                | Refusal::OnlyLive { .. },
            )
            | AskError::Harmful(_) => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
            AskError::Held(_) => (StatusCode::UNPROCESSABLE_ENTITY, "held"),
            AskError::Gone => (StatusCode::SERVICE_UNAVAILABLE, "gone"),
            AskError::NotCommitted(_) | AskError::Unlooked(_) | AskError::Release(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "failed")
            }
        };
        let problem = Self::of(status, code, chain(&error));
        let AskError::Refused(Refusal::Unexpected(unexpected)) = error else {
            return problem;
        };
        let (expected, found) = compared(&unexpected);
        Self {
            expected: Some(Box::new(expected)),
            found: Some(Box::new(found)),
            ..problem
        }
    }
}

impl From<SlotError> for Problem {
    fn from(error: SlotError) -> Self {
        let text = error.to_string();
        match error {
            SlotError::Unknown { .. } => Self::not_found(text),
            SlotError::NoName(_) | SlotError::Ambiguous { .. } => Self::bad_request(text),
            SlotError::Nothing { .. } | SlotError::Several { .. } => Self::refused(text),
        }
    }
}

/// What was expected, and what is there instead.
fn compared(unexpected: &Unexpected) -> (api::Expected, api::Found) {
    let Unexpected {
        expected,
        generation,
        active,
        live,
    } = unexpected;
    let expected = api::Expected {
        generation: expected.generation.map(|it| it.0),
        active: expected.active.as_ref().map(ToString::to_string),
    };
    let found = api::Found {
        generation: generation.0,
        active: active.as_ref().map(ToString::to_string),
        live: live.as_ref().map(ToString::to_string),
    };
    (expected, found)
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = api::Problem {
            success: false,
            code: self.code.to_owned(),
            error: self.error,
            expected: self.expected,
            found: self.found,
        };
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(Code(self.code));
        response
    }
}
