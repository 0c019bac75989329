//! The routes of shares: who gets how many of the new requests, and what is taken back or stopped.

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use serde::Deserialize;

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
    Ok(Json(app.weigh(slot, weight, peer.name()).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteQuery {
    from: String,
    to: String,
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
    Ok(Json(app.swap(from, to, peer.name()).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PromoteQuery {
    slot: Option<String>,
}

pub(super) async fn promote<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    Asked(query): Asked<PromoteQuery>,
) -> Result<Json<api::Begun>, Problem> {
    let app = api.app(&named).await?;
    let slot = match &query.slot {
        Some(slot) => app.slot_meant(slot).await?,
        None => app.promotable().await?,
    };
    let state = app.promote(slot, peer.name()).await?;
    let held = state.deployment.as_ref();
    Ok(Json(api::Begun {
        generation: held.map_or(state.generation, |held| held.generation).0,
        release: None,
    }))
}

pub(super) async fn abort<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
) -> Result<Json<api::Shares>, Problem> {
    Ok(Json(api.app(&named).await?.abort(peer.name()).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StopQuery {
    slot: String,
    #[serde(default)]
    force: bool,
}

pub(super) async fn stop<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    Asked(query): Asked<StopQuery>,
) -> Result<Json<api::Shares>, Problem> {
    let app = api.app(&named).await?;
    let slot = app.slot_meant(&query.slot).await?;
    Ok(Json(app.halt(slot, query.force, peer.name()).await?))
}
