//! The routes of shares: who gets how many of the new requests, and what is taken back or stopped.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use serde::Deserialize;

use super::guard::{Began, OnlyIf, WithKey, begun, expected, guard, only_if};
use super::peer::Peer;
use super::problem::Problem;
use super::routes::{Api, Asked, Named};
use crate::daemon::units::Units;
use crate::deploy::{NameError, Weight};
use crate::wire::api;

/// A share, as somebody wrote it: out of range it is refused by policy, not for its form.
pub(super) fn weight(text: &str) -> Result<Weight, Problem> {
    text.parse()
        .map_err(|error: NameError| Problem::refused(error.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightQuery {
    slot: String,
    weight: String,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

pub(super) async fn weigh<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    Asked(query): Asked<WeightQuery>,
) -> Result<Json<api::Shares>, Problem> {
    let app = api.app(&named).await?;
    let weight = weight(&query.weight)?;
    let slot = app.slot_meant(&query.slot).await?;
    let guard = only_if(query.expected_generation, query.expected_active.as_deref())?;
    Ok(Json(app.weigh(slot, weight, peer.name(), guard).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteQuery {
    from: String,
    to: String,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

pub(super) async fn route<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    Asked(query): Asked<RouteQuery>,
) -> Result<Json<api::Shares>, Problem> {
    let app = api.app(&named).await?;
    let from = app.slot_meant(&query.from).await?;
    let to = app.slot_meant(&query.to).await?;
    let guard = only_if(query.expected_generation, query.expected_active.as_deref())?;
    Ok(Json(app.swap(from, to, peer.name(), guard).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteQuery {
    slot: Option<String>,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

pub(super) async fn promote<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    WithKey(key): WithKey,
    Asked(query): Asked<PromoteQuery>,
) -> Result<Began, Problem> {
    let app = api.app(&named).await?;
    let expected = expected(query.expected_generation, query.expected_active.as_deref())?;
    let target = ["promote", query.slot.as_deref().unwrap_or_default()];
    let guard = guard(expected, key, &target);
    // The slot that stood by when it was asked for first is active since.
    if let Err(unadmitted) = app.admits(&guard) {
        return begun(Err(unadmitted), None);
    }
    let slot = match &query.slot {
        Some(slot) => app.slot_meant(slot).await?,
        None => app.promotable().await?,
    };
    let asked = app.promote(slot, peer.name(), guard).await;
    begun(asked, None)
}

pub(super) async fn abort<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    Asked(condition): Asked<OnlyIf>,
) -> Result<Json<api::Shares>, Problem> {
    let app = api.app(&named).await?;
    let guard = condition.guard()?;
    Ok(Json(app.abort(peer.name(), guard).await?))
}

pub(super) async fn pause<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(condition): Asked<OnlyIf>,
) -> Result<Json<api::Shares>, Problem> {
    stand_still(&api, &named, &condition, true).await
}

pub(super) async fn resume<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(condition): Asked<OnlyIf>,
) -> Result<Json<api::Shares>, Problem> {
    stand_still(&api, &named, &condition, false).await
}

async fn stand_still<U: Units>(
    api: &Api<U>,
    named: &Named,
    condition: &OnlyIf,
    paused: bool,
) -> Result<Json<api::Shares>, Problem> {
    let app = api.app(named).await?;
    let guard = condition.guard()?;
    Ok(Json(app.pause(paused, guard).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StopQuery {
    slot: String,
    #[serde(default)]
    force: bool,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

pub(super) async fn stop<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    Asked(query): Asked<StopQuery>,
) -> Result<Json<api::Shares>, Problem> {
    let app = api.app(&named).await?;
    let slot = app.slot_meant(&query.slot).await?;
    let guard = only_if(query.expected_generation, query.expected_active.as_deref())?;
    Ok(Json(app.halt(slot, query.force, peer.name(), guard).await?))
}
