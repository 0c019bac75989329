//! The routes of automatic deployments: what the app's remote has now, and the hold on them.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use serde::Deserialize;

use super::guard::{OnlyIf, only_if};
use super::peer::Peer;
use super::problem::Problem;
use super::routes::{Api, Asked, Named, NoQuery};
use crate::daemon::units::Units;
use crate::wire::api;

/// A reason may be so long, in bytes.
const LONGEST_REASON: usize = 500;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldQuery {
    reason: Option<String>,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

pub(super) async fn hold<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    Asked(query): Asked<HoldQuery>,
) -> Result<Json<api::Status>, Problem> {
    if query
        .reason
        .as_ref()
        .is_some_and(|it| it.len() > LONGEST_REASON)
    {
        return Err(Problem::bad_request(format!(
            "a reason has at most {LONGEST_REASON} bytes"
        )));
    }
    let guard = only_if(query.expected_generation, query.expected_active.as_deref())?;
    let app = api.app(&named).await?;
    app.admits(&guard)?;
    app.hold(peer.name(), query.reason).await?;
    Ok(Json(app.status().await))
}

pub(super) async fn unhold<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(condition): Asked<OnlyIf>,
) -> Result<Json<api::Status>, Problem> {
    let app = api.app(&named).await?;
    app.admits(&condition.guard()?)?;
    app.unhold().await?;
    Ok(Json(app.status().await))
}

pub(super) async fn remote<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(NoQuery {}): Asked<NoQuery>,
) -> Result<Json<api::AtRemote>, Problem> {
    let app = api.app(&named).await?;
    if let Some(why) = app.no_remote() {
        return Err(Problem::refused(why));
    }
    Ok(Json(app.at_remote().await?))
}
