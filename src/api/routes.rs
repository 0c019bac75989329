//! The routes. Each of an app's is there twice: under `/apps/<app>`, and without, for the only app or the app `slot`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::deploy::{deploy, on_disk, releases};
use super::gate::{Route, acting, look, looking, removing};
use super::guard::{Began, OnlyIf, WithKey, begun, expected, guard, only_if};
use super::hold;
use super::large::{content, lacking};
use super::peer::{Access, Peer};
use super::problem::Problem;
use super::repository::{module, repository};
use super::shares::{abort, pause, promote, resume, route, stop, weigh};
use crate::daemon::app::Managed;
use crate::daemon::apps::Apps;
use crate::daemon::status::{self, Wait};
use crate::daemon::units::Units;
use crate::deploy::{Generation, Guard};
use crate::telemetry::chain;
use crate::wire::api;
use crate::wire::listener::ListenerName;

/// How long a question for an outcome stays open before it is answered with the progress so far.
const OUTCOME_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Api<U> {
    pub(super) apps: Arc<Apps<U>>,
    pub(super) access: Access,
    /// Whether an app that is asked for is taken up if it was not yet; for routes that only read the [gate](super::gate) has it false.
    pub(super) takes_up: bool,
}

impl<U> Clone for Api<U> {
    fn clone(&self) -> Self {
        Self {
            apps: Arc::clone(&self.apps),
            access: self.access.clone(),
            takes_up: self.takes_up,
        }
    }
}

/// Every route but `/`. Each of an app's is there twice.
pub(super) fn table<U: Units>() -> Vec<Route<U>> {
    let mut all = vec![
        looking("/status", status),
        acting("/deploy", deploy).with_release(),
        acting("/rollback", rollback),
        acting("/promote", promote),
        acting("/weight", weigh),
        acting("/route", route),
        acting("/abort", abort),
        acting("/pause", pause),
        acting("/resume", resume),
        acting("/stop", stop),
        acting("/drain", drain),
        looking("/connections", connections),
        looking("/outcome", outcome),
        looking("/events", events),
        looking("/health/deployment", health),
        looking("/releases", releases),
        looking("/repository", repository),
        acting("/repository", module).with_release(),
        acting("/large", lacking).with_release(),
        acting("/large/{oid}", content).with_release(),
        acting("/hold", hold::hold),
        acting("/unhold", hold::unhold),
        // It starts a unit.
        looking("/remote", hold::remote).by_who_may_act(),
        acting("/reload", reload),
    ];
    all.extend_from_within(..);
    let half = all.len() / 2;
    for route in &mut all[..half] {
        route.path.insert_str(0, "/apps/{app}");
    }
    all.extend([
        looking("/apps", list),
        looking("/router", instances),
        acting("/router/upgrade", upgrade),
        acting("/listener/add", listener).by_root(),
        acting("/listener/remove", listener).by_root(),
        removing("/apps/{app}", remove),
    ]);
    all
}

pub(super) fn router<U: Units>(apps: Arc<Apps<U>>, access: Access) -> Router {
    let api = Api {
        apps,
        access,
        takes_up: false,
    };
    let mut routes = Router::new();
    for route in table() {
        let (path, to) = route.gated(&api);
        routes = routes.route(&path, to);
    }
    routes
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(api.clone(), look))
        // Anyone may ask whether slotd is there.
        .route(
            "/",
            get(async || Json(serde_json::json!({ "status": "ok" }))),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(api)
}

/// The app of a path, if the path names one.
#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) app: Option<String>,
}

impl<U: Units> Api<U> {
    pub(super) async fn app(&self, named: &Named) -> Result<Arc<Managed<U>>, Problem> {
        let name = named.app.as_deref();
        Ok(match self.takes_up {
            true => self.apps.get(name).await?,
            false => self.apps.known(name).await?,
        })
    }
}

async fn unknown(request: Request) -> Problem {
    Problem::not_found(format!(
        "slotd has no {}; see slotd(8)",
        request.uri().path()
    ))
}

async fn wrong_method(request: Request) -> Problem {
    Problem::bad_request(format!(
        "{} cannot be done to {}; see slotd(8)",
        request.method(),
        request.uri().path()
    ))
}

async fn list<U: Units>(State(api): State<Api<U>>) -> Json<api::Apps> {
    let (managed, broken) = api.apps.all().await;
    let apps = stream::iter(managed)
        .then(async |app| app.status().await)
        .collect()
        .await;
    Json(api::Apps { apps, broken })
}

async fn instances<U: Units>(State(api): State<Api<U>>) -> Result<Json<api::Routers>, Problem> {
    let mut answer = api::Routers::default();
    for (instance, told) in api.apps.tables().routers().stats().await? {
        match told {
            Ok(stats) => answer.instances.push(status::router(instance, &stats)),
            Err(error) => answer.warnings.push(chain(&error)),
        }
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeQuery {
    limit: Option<String>,
}

async fn upgrade<U: Units>(
    State(api): State<Api<U>>,
    Asked(query): Asked<UpgradeQuery>,
) -> Result<Json<api::Upgraded>, Problem> {
    let limit = query.limit.as_deref();
    let limit = limit.map(|text| span("limit", text)).transpose()?;
    exchange(&api, limit).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenerQuery {
    /// The [journal](super::audit) has it.
    name: String,
}

/// Root has added a listener, or is taking one away: the next instance of the router has those that systemd has for it now.
async fn listener<U: Units>(
    State(api): State<Api<U>>,
    Asked(query): Asked<ListenerQuery>,
) -> Result<Json<api::Upgraded>, Problem> {
    let _: ListenerName = query.name.parse()?;
    exchange(&api, None).await
}

async fn exchange<U: Units>(
    api: &Api<U>,
    limit: Option<Duration>,
) -> Result<Json<api::Upgraded>, Problem> {
    let Some(instances) = api.apps.tables().instances() else {
        return Err(Problem::refused(
            "the router is part of this process, and is upgraded with it".to_owned(),
        ));
    };
    Ok(Json(instances.upgrade(limit).await?))
}

async fn status<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
) -> Result<Json<api::Status>, Problem> {
    let app = api.app(&named).await?;
    let mut status = app.status().await;
    if let Err(error) = api.apps.check_file(&status.app) {
        status.warn("file", chain(&error));
    }
    Ok(Json(status))
}

/// Whether what was deployed last serves, for who watches that and looks at the status alone: 200, or 503.
async fn health<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
) -> Result<Response, Problem> {
    let status = api.app(&named).await?.status().await;
    let is_failing = status.health_fail_streak > 0 || status.state == "rolling_back";
    let health = api::Health {
        healthy: status.serving && !is_failing,
        app: status.app,
        generation: status.generation,
        standing: status.standing,
    };
    let code = match health.healthy {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    Ok((code, Json(health)).into_response())
}

/// A query, whose refusal is an object like every other.
pub(super) struct Asked<T>(pub(super) T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(refused) => Err(Problem::bad_request(refused.body_text())),
        }
    }
}

/// A query of a route that takes none: what is in it would be meant for something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

pub(super) fn span(key: &str, text: &str) -> Result<Duration, Problem> {
    crate::config::parse_span(text).ok_or_else(|| {
        Problem::bad_request(format!(
            "{key} = {text:?} is no span of time; write 30s, 2m or 0"
        ))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackQuery {
    to: Option<String>,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

async fn rollback<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    WithKey(key): WithKey,
    Asked(query): Asked<RollbackQuery>,
) -> Result<Began, Problem> {
    let expected = expected(query.expected_generation, query.expected_active.as_deref())?;
    let target = ["rollback", query.to.as_deref().unwrap_or_default()];
    let guard = guard(expected, key, &target);
    let app = api.app(&named).await?;
    // A release that was there when it was asked for first may not be any more.
    if let Err(unadmitted) = app.admits(&guard) {
        return begun(Err(unadmitted), query.to);
    }
    let to = match &query.to {
        Some(id) => Some(on_disk(&app, id).await?),
        None => None,
    };
    let asked = app.rollback(to, peer.name(), guard).await;
    begun(asked, query.to)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlotQuery {
    slot: String,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

async fn drain<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(query): Asked<SlotQuery>,
) -> Result<Json<api::Status>, Problem> {
    let app = api.app(&named).await?;
    let guard = only_if(query.expected_generation, query.expected_active.as_deref())?;
    let slot = app.slot_meant(&query.slot).await?;
    app.drain_now(slot, guard).await?;
    Ok(Json(app.status().await))
}

async fn connections<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
) -> Result<Json<api::Connections>, Problem> {
    Ok(Json(api.app(&named).await?.connections().await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutcomeQuery {
    generation: u64,
    #[serde(default)]
    wait: Wait,
}

/// The outcome of an attempt, or after a while 202 with the progress so far: ask again.
async fn outcome<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(query): Asked<OutcomeQuery>,
) -> Result<Response, Problem> {
    let app = api.app(&named).await?;
    let mut state = app.owner().state();
    if query.generation > state.borrow().generation.0 {
        return Err(Problem::not_found(format!(
            "there is no generation {} yet",
            query.generation
        )));
    }
    let settled = async {
        loop {
            state.mark_unchanged();
            if let Some(outcome) = app.settled(query.generation, query.wait) {
                return Some(outcome);
            }
            state.changed().await.ok()?;
        }
    };
    if let Ok(Some(outcome)) = tokio::time::timeout(OUTCOME_WAIT, settled).await {
        return Ok(Json(outcome).into_response());
    }
    let forgotten = {
        let state = app.owner().state();
        let state = state.borrow();
        state
            .deployment
            .as_ref()
            .is_none_or(|held| held.generation.0 != query.generation)
            && state
                .outcome
                .as_ref()
                .is_none_or(|outcome| outcome.generation.0 != query.generation)
            && state.generation.0 > query.generation
            && state.kept_outcome(Generation(query.generation)).is_none()
    };
    if forgotten && app.world().outcome(query.generation).is_none() {
        return Err(Problem::not_found(format!(
            "generation {} is over; history.jsonl has how it ended",
            query.generation
        )));
    }
    let progress = app.waiting().await.unwrap_or_default();
    Ok((StatusCode::ACCEPTED, Json(progress)).into_response())
}

async fn events<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let told = api.app(&named).await?.world().events();
    let stream = stream::unfold(told, async |mut told| {
        loop {
            match told.recv().await {
                Ok(event) => {
                    let data =
                        serde_json::to_string(&event).expect("an event is strings and numbers");
                    return Some((Ok(Event::default().event(event.event).data(data)), told));
                }
                // Whoever reads too slowly misses some; the status tells where things are.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

async fn reload<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(condition): Asked<OnlyIf>,
) -> Result<Json<api::Status>, Problem> {
    admitted(&api, &named, &condition).await?;
    let name = match &named.app {
        Some(name) => name.clone(),
        None => api.app(&named).await?.app().name.to_string(),
    };
    Ok(Json(api.apps.reload(&name).await?.status().await))
}

async fn remove<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(condition): Asked<OnlyIf>,
) -> Result<Json<serde_json::Value>, Problem> {
    admitted(&api, &named, &condition).await?;
    api.apps
        .remove(named.app.as_deref().unwrap_or_default())
        .await?;
    Ok(Json(serde_json::json!({ "status": "ok" })))
}

/// A condition on an app that need not be taken up for a request without one.
async fn admitted<U: Units>(
    api: &Api<U>,
    named: &Named,
    condition: &OnlyIf,
) -> Result<(), Problem> {
    let guard = condition.guard()?;
    if guard != Guard::default() {
        api.app(named).await?.admits(&guard)?;
    }
    Ok(())
}
