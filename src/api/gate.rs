//! What every request passes before its route: who may, how much may come with it, and the lines that say who changed what.
//!
//! **Invariant:** there is no way to a route but through here: a route that is added is one of the [table](super::routes), and says what it needs.
//! **Invariant:** a route that needs no more than [`May::Read`] takes no app up: its [`Api`] finds those alone that are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::handler::Handler;
use axum::http::header::{CONTENT_LENGTH, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http_body_util::Limited;

use super::audit::{Audit, Of};
use super::peer::{May, Peer};
use super::problem::Problem;
use super::routes::{Api, Named};
use crate::daemon::units::Units;

/// What may come with a request that brings no release, in bytes. None of its routes reads any of it.
const LITTLE: u64 = 64 << 10;

/// How large a release may be that comes over TCP, in bytes. On this machine its disk is the limit.
const RELEASE: usize = 4 << 30;

/// A route: what it needs, and what is done.
pub(super) struct Route<U> {
    pub(super) needs: May,
    pub(super) method: Method,
    pub(super) path: String,
    brings: Brings,
    to: MethodRouter<Api<U>>,
}

/// What comes with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brings {
    /// Nothing that is read.
    Nothing,
    /// A release, or a part of one.
    Release,
}

fn route<U: Units, H: Handler<T, Api<U>>, T: 'static>(
    needs: May,
    method: Method,
    path: &str,
    handler: H,
) -> Route<U> {
    let filter = MethodFilter::try_from(method.clone()).expect("it is one of three that axum has");
    Route {
        needs,
        method,
        path: path.to_owned(),
        brings: Brings::Nothing,
        to: on(filter, handler),
    }
}

/// A `GET`, which changes nothing.
pub(super) fn looking<U: Units, H: Handler<T, Api<U>>, T: 'static>(
    path: &str,
    handler: H,
) -> Route<U> {
    route(May::Read, Method::GET, path, handler)
}

/// A `POST`, which may change something.
pub(super) fn acting<U: Units, H: Handler<T, Api<U>>, T: 'static>(
    path: &str,
    handler: H,
) -> Route<U> {
    route(May::Act, Method::POST, path, handler)
}

/// A `DELETE`.
pub(super) fn removing<U: Units, H: Handler<T, Api<U>>, T: 'static>(
    path: &str,
    handler: H,
) -> Route<U> {
    route(May::Act, Method::DELETE, path, handler)
}

impl<U> Clone for Route<U> {
    fn clone(&self) -> Self {
        Self {
            method: self.method.clone(),
            path: self.path.clone(),
            to: self.to.clone(),
            ..*self
        }
    }
}

/// What of a route is known before it.
struct Gate<U> {
    api: Api<U>,
    needs: May,
    brings: Brings,
    path: Arc<str>,
}

impl<U> Clone for Gate<U> {
    fn clone(&self) -> Self {
        Self {
            api: self.api.clone(),
            path: Arc::clone(&self.path),
            ..*self
        }
    }
}

impl<U: Units> Route<U> {
    /// What is sent with it is read.
    pub(super) fn with_release(self) -> Self {
        Self {
            brings: Brings::Release,
            ..self
        }
    }

    /// It says what root has done to the machine.
    pub(super) fn by_root(self) -> Self {
        Self {
            needs: May::Root,
            ..self
        }
    }

    /// It changes nothing here, and makes something be done elsewhere.
    pub(super) fn by_who_may_act(self) -> Self {
        Self {
            needs: May::Act,
            ..self
        }
    }

    /// What is done, behind the gate.
    pub(super) fn gated(self, api: &Api<U>) -> (String, MethodRouter<Api<U>>) {
        let gate = Gate {
            api: api.clone(),
            needs: self.needs,
            brings: self.brings,
            path: self.path.as_str().into(),
        };
        let api = Api {
            takes_up: self.needs >= May::Act,
            ..api.clone()
        };
        let admit = middleware::from_fn_with_state(gate, admit);
        // Not before what refuses a wrong method: that is everybody's who may look.
        (self.path, self.to.route_layer(admit).with_state(api))
    }
}

/// Lets in who may look: to whatever is no route, which says so.
pub(super) async fn look<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match api.access.may(&peer) {
        May::Nothing => Problem::forbidden(&peer.name()).into_response(),
        May::Read | May::Act | May::Root => next.run(request).await,
    }
}

/// Lets in who may, and writes down who changes something.
async fn admit<U: Units>(
    State(gate): State<Gate<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    named: Result<Path<Named>, PathRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let may = gate.api.access.may(&peer);
    if may < gate.needs {
        // Without the name of his user, for which others would have to be asked.
        let who = peer.name();
        let problem = match may {
            May::Act | May::Root => Problem::only_root(&who),
            May::Read => Problem::may_only_look(&who),
            May::Nothing => Problem::forbidden(&who),
        };
        let mut response = problem.into_response();
        if let (Peer::Token { .. }, May::Act) = (&peer, gate.needs) {
            let field = "Bearer realm=\"slot\", error=\"insufficient_scope\", scope=\"act\"";
            let headers = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(field));
        }
        return response;
    }
    request = match bounded(request, gate.brings, &peer) {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    if gate.needs < May::Act {
        return next.run(request).await;
    }
    // Its route says who asked, too.
    let peer = peer.named().await;
    request.extensions_mut().insert(ConnectInfo(peer.clone()));
    let named = named.ok().and_then(|Path(named)| named.app);
    let of = gate.api.of(named.as_deref()).await;
    let query = request.uri().query().map(ToOwned::to_owned);
    let audit = Audit::asked(&peer, request.method().clone(), &gate.path, of);
    let response = next.run(request).await;
    // One that was just added is known by now.
    let of = gate.api.of(named.as_deref()).await;
    audit.answered(&response, query.as_deref(), of);
    response
}

impl<U: Units> Api<U> {
    async fn of(&self, named: Option<&str>) -> Option<Of> {
        let app = self.apps.known(named).await.ok()?;
        Some(Of {
            app: app.app().name.to_string(),
            state: app.owner().state(),
        })
    }
}

/// The request, with what comes with it bounded.
fn bounded(request: Request, brings: Brings, peer: &Peer) -> Result<Request, Problem> {
    let said = request.headers().get(CONTENT_LENGTH);
    let said: Option<u64> = said.and_then(|field| field.to_str().ok()?.parse().ok());
    match (brings, peer) {
        (Brings::Nothing, _) if said.is_some_and(|length| length > LITTLE) => {
            Err(Problem::too_large(LITTLE))
        }
        (Brings::Release, Peer::Token { .. }) => {
            if said.is_some_and(|length| length > RELEASE as u64) {
                return Err(Problem::too_large(RELEASE as u64));
            }
            Ok(request.map(|body| Body::new(Limited::new(body, RELEASE))))
        }
        _ => Ok(request),
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
