//! Who changed what: two lines of the journal for each request that may change something, one when it comes and one with what came of it.
//!
//! | field | what |
//! |---|---|
//! | `MESSAGE_ID` | the same for all of them |
//! | `SLOT_AUDIT` | `asked`; then `done`, or why not: the code of the refusal; `broken-off` when nobody waited for the answer |
//! | `SLOT_WHO` | who, in words |
//! | `SLOT_UID`, `SLOT_USER`, `SLOT_PEER_PID`, `SLOT_PEER_UNIT` | of a process of this machine; the unit is that of the process when it connected; no user where NSS did not say in time |
//! | `SLOT_TOKEN`, `SLOT_PEER_ADDRESS` | the name of the token, and where it came from |
//! | `SLOT_METHOD`, `SLOT_ROUTE`, `SLOT_QUERY` | what; the query of what was done alone, in which every key is one of slotd's |
//! | `SLOT_APP`, `SLOT_GENERATION` | of what; the generation that was begun, or that the app had then |
//! | `SLOT_STATUS` | of the answer |
//!
//! **Invariant:** nothing of a request is written down that somebody could have put a secret into by mistake: no field of its head, no body, no
//! path but the route's own, no query that was refused.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::sync::watch;

use super::peer::Peer;
use crate::deploy::State;
use crate::telemetry::message;

/// The generation that an answer is about; in its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfGeneration(pub(super) u64);

/// The code of a refusal; in its answer's extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

/// The app that a request is about.
pub(super) struct Of {
    pub(super) app: String,
    pub(super) state: watch::Receiver<std::sync::Arc<State>>,
}

/// A request that is being carried out. Dropped before it is [answered](Audit::answered), it was broken off, and that is told.
pub(super) struct Audit {
    who: Who,
    method: Method,
    route: String,
    of: Option<Of>,
    is_told: bool,
}

/// Who asks, as journals have it.
struct Who {
    name: String,
    uid: Option<u32>,
    user: Option<String>,
    pid: Option<i32>,
    unit: Option<String>,
    token: Option<String>,
    address: Option<String>,
}

impl Who {
    fn of(peer: &Peer) -> Self {
        let mut who = Self {
            name: peer.name(),
            uid: peer.uid(),
            user: peer.user(),
            pid: None,
            unit: peer.unit(),
            token: None,
            address: None,
        };
        match peer {
            Peer::Process { pid, .. } => {
                who.pid = Some(*pid);
            }
            Peer::Token { name, from, .. } => {
                who.token = Some(name.clone());
                who.address = Some(from.to_string());
            }
            Peer::Nobody => {}
        }
        who
    }
}

/// What came of it.
struct Outcome<'a> {
    word: &'a str,
    status: Option<u16>,
    query: Option<&'a str>,
    generation: Option<u64>,
}

impl Audit {
    /// Somebody asks for something.
    pub(super) fn asked(peer: &Peer, method: Method, route: &str, of: Option<Of>) -> Self {
        let audit = Self {
            who: Who::of(peer),
            method,
            route: route.to_owned(),
            of,
            is_told: false,
        };
        audit.tell(&Outcome {
            word: "asked",
            status: None,
            query: None,
            generation: audit.generation(),
        });
        audit
    }

    /// The answer is there. `of` is what the request was about, if that was not known before it was carried out.
    pub(super) fn answered(mut self, response: &Response, query: Option<&str>, of: Option<Of>) {
        self.of = self.of.take().or(of);
        self.is_told = true;
        let status = response.status();
        let code = response.extensions().get::<Code>();
        let is_done = status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS;
        let begun = response.extensions().get::<OfGeneration>();
        self.tell(&Outcome {
            word: match code {
                Some(Code(code)) => code,
                None if is_done => "done",
                None => "refused",
            },
            status: Some(status.as_u16()),
            query: query.filter(|_| is_done),
            generation: begun.map(|it| it.0).or_else(|| self.generation()),
        });
    }

    /// The app's, as it is now.
    fn generation(&self) -> Option<u64> {
        Some(self.of.as_ref()?.state.borrow().generation.0)
    }

    fn tell(&self, outcome: &Outcome<'_>) {
        let Who {
            name,
            uid,
            user,
            pid,
            unit,
            token,
            address,
        } = &self.who;
        let Outcome {
            word,
            status,
            query,
            generation,
        } = outcome;
        let app = self.of.as_ref().map(|of| of.app.as_str());
        tracing::info!(
            message_id = message::id("audit"),
            slot_audit = word,
            slot_who = name,
            slot_uid = uid,
            slot_user = user,
            slot_peer_pid = pid,
            slot_peer_unit = unit,
            slot_token = token,
            slot_peer_address = address,
            slot_method = self.method.as_str(),
            slot_route = self.route,
            slot_query = query,
            slot_app = app,
            slot_generation = generation,
            slot_status = status,
            "{name} asks: {} {}: {word}",
            self.method,
            self.route,
        );
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        if !self.is_told {
            self.tell(&Outcome {
                word: "broken-off",
                status: None,
                query: None,
                generation: self.generation(),
            });
        }
    }
}
