//! What a request depends on, as it is written: `expected_generation` and `expected_active` in the query, `Idempotency-Key` in the head.
//!
//! **Invariant:** a condition that cannot be read is refused, never passed over.

use std::io::{self, Read};

use axum::Json;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::audit::OfGeneration;
use super::deploy::flowing;
use super::problem::Problem;
use crate::daemon::app::Managed;
use crate::daemon::owner::AskError;
use crate::daemon::units::Units;
use crate::deploy::{Event, Expected, Fingerprint, Generation, Guard, Key, Refusal, State};
use crate::wire::{api, hex};

/// The field that makes a request one that may be repeated.
const FIELD: &str = "idempotency-key";

/// The key of a request, if it has one.
pub(super) struct WithKey(pub(super) Option<Key>);

impl<S: Send + Sync> FromRequestParts<S> for WithKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut fields = parts.headers.get_all(FIELD).iter();
        let Some(field) = fields.next() else {
            return Ok(Self(None));
        };
        if fields.next().is_some() {
            let twice = "a request has one Idempotency-Key at most";
            return Err(Problem::bad_request(twice.to_owned()));
        }
        let text = String::from_utf8_lossy(field.as_bytes());
        Ok(Self(Some(bare(&text).parse()?)))
    }
}

/// The key as it is meant: a string in quotes (draft-ietf-httpapi-idempotency-key-header, section 2.1; RFC 9651, section 3.3.3), or, as many
/// clients send it, what would be in them. A key has nothing that would be escaped there.
fn bare(text: &str) -> &str {
    let text = text.trim_matches([' ', '\t']);
    let quoted = text.strip_prefix('"');
    quoted
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text)
}

/// What a query says that whoever asks has seen.
pub(super) fn expected(generation: Option<u64>, active: Option<&str>) -> Result<Expected, Problem> {
    Ok(Expected {
        generation: generation.map(Generation),
        active: active.map(str::parse).transpose()?,
    })
}

/// A query that is a condition and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnlyIf {
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

impl OnlyIf {
    pub(super) fn guard(&self) -> Result<Guard, Problem> {
        only_if(self.expected_generation, self.expected_active.as_deref())
    }
}

/// A guard for a request that has no key: on a condition, if it has one.
pub(super) fn only_if(generation: Option<u64>, active: Option<&str>) -> Result<Guard, Problem> {
    Ok(guard(expected(generation, active)?, None, &[]))
}

/// A guard for a request that asks for this, and brings nothing with it.
pub(super) fn guard(expected: Expected, key: Option<Key>, target: &[&str]) -> Guard {
    let key = key.map(|key| Fingerprint {
        key,
        target: digest(target),
        payload: Some(String::new()),
    });
    Guard { expected, key }
}

/// A digest of words in their order.
fn digest(words: &[&str]) -> String {
    let mut all = Sha256::new();
    for word in words {
        all.update(word.len().to_be_bytes());
        all.update(word);
    }
    hex(&all.finalize())
}

/// An attempt was begun, and the answer says which.
pub(super) struct Began(pub(super) api::Begun);

impl IntoResponse for Began {
    fn into_response(self) -> Response {
        let generation = OfGeneration(self.0.generation);
        let mut response = Json(self.0).into_response();
        response.extensions_mut().insert(generation);
        response
    }
}

/// What was begun; by a request that was made before, or by another one for the same, then; nothing, where what it asks for is so.
pub(super) fn begun(
    asked: Result<std::sync::Arc<State>, AskError>,
    mut release: Option<String>,
) -> Result<Began, Problem> {
    let (generation, repeated, already) = match asked {
        Ok(state) => (state.generation, false, only_ended(&state)),
        Err(AskError::Refused(Refusal::Repeated { generation, .. })) => (generation, true, None),
        Err(AskError::Refused(Refusal::UnderWay {
            generation,
            release: goes_to,
        })) => {
            release = Some(goes_to.to_string());
            (generation, true, None)
        }
        Err(AskError::Refused(refusal)) => match refusal.already() {
            Some(generation) => (generation, false, Some(refusal.to_string())),
            None => return Err(AskError::Refused(refusal).into()),
        },
        Err(error) => return Err(error.into()),
    };
    Ok(Began(api::Begun {
        generation: generation.0,
        release,
        repeated,
        already,
    }))
}

/// What a rollback did that began nothing, and ended what was under way.
fn only_ended(state: &State) -> Option<String> {
    let (ended, live) = (state.preempted()?, state.live()?);
    Some(format!(
        "generation {ended} was ended, and release {live} serves on"
    ))
}

/// The answer to a deployment that was asked for before. What comes with it is taken, and compared with what came then, if that is known or
/// still becomes known.
pub(super) async fn follow<U: Units>(
    app: &Managed<U>,
    fingerprint: &Fingerprint,
    generation: Generation,
    body: Body,
) -> Result<Began, Problem> {
    let mut again = fingerprint.clone();
    if again.payload.is_none() {
        again.payload = Some(payload(body).await.map_err(|error| {
            Problem::bad_request(format!("the request did not come whole: {error}"))
        })?);
    } else {
        super::deploy::drain(body).await;
    }
    let mut state = app.owner().state();
    let first = |state: &State| {
        let mut keys = state.keys.iter();
        keys.find(|it| it.generation == generation).cloned()
    };
    let came = state.wait_for(|state| {
        first(state).is_none_or(|it| it.fingerprint.payload.is_some() || it.outcome.is_some())
    });
    let known = came.await.map_err(|_| AskError::Gone)?;
    let Some(first) = first(&known) else {
        return Err(AskError::Gone.into());
    };
    if !first.fingerprint.is_like(&again) {
        let key = again.key;
        return Err(AskError::Refused(Refusal::KeyReused { key, generation }).into());
    }
    let release = first.outcome.and_then(|outcome| outcome.release);
    Ok(Began(api::Begun {
        generation: generation.0,
        release: release.map(|id| id.to_string()),
        repeated: true,
        already: None,
    }))
}

async fn payload(body: Body) -> io::Result<String> {
    let mut pieces = Box::pin(flowing(body));
    let mut digest = Sha256::new();
    while let Some(piece) = pieces.next().await {
        digest.update(piece?);
    }
    Ok(hex(&digest.finalize()))
}

/// What comes with a request that has a key: its digest is reported once all of it has come.
pub(super) fn reported<U: Units>(
    app: &Managed<U>,
    generation: Generation,
    archive: impl Read + Send + 'static,
) -> impl Read + Send + 'static {
    let (whole, came) = oneshot::channel();
    let owner = app.owner().clone();
    tokio::spawn(async move {
        if let Ok(payload) = came.await {
            let event = Event::Whole {
                generation,
                payload,
            };
            owner.report(event).await;
        }
    });
    Digested {
        archive,
        digest: Some((Sha256::new(), whole)),
    }
}

struct Digested<R> {
    archive: R,
    digest: Option<(Sha256, oneshot::Sender<String>)>,
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What broke off may be read again, and has ended then: it is not whole for all that.
        let read = self.archive.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.digest = None;
            }
        })?;
        if read > 0 {
            if let Some((digest, _)) = &mut self.digest {
                digest.update(&buffer[..read]);
            }
        } else if !buffer.is_empty()
            && let Some((digest, whole)) = self.digest.take()
        {
            // Where the app is gone nobody needs it.
            let _ = whole.send(hex(&digest.finalize()));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_in_quotes_and_without() {
        for text in ["\"8e03978e\"", "8e03978e", " \"8e03978e\"\t"] {
            assert_eq!(bare(text), "8e03978e", "{text:?}");
        }
        for text in ["", "\"\"", "\"a", "a b", "\"a\\\"b\"", "é"] {
            assert!(bare(text).parse::<Key>().is_err(), "{text:?}");
        }
        assert!("k".repeat(129).parse::<Key>().is_err());
    }

    #[test]
    fn words_that_are_parted_otherwise_are_other_words() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    }

    #[test]
    fn a_payload_is_told_when_it_has_ended_and_not_before() {
        let (whole, mut came) = oneshot::channel();
        let mut archive = Digested {
            archive: &b"abc"[..],
            digest: Some((Sha256::new(), whole)),
        };
        let mut buffer = [0; 3];
        assert_eq!(archive.read(&mut buffer).expect("memory is read"), 3);
        assert!(came.try_recv().is_err());
        assert_eq!(archive.read(&mut buffer).expect("memory is read"), 0);
        let told = came.try_recv().expect("it has ended");
        assert!(told.starts_with("ba7816bf"), "{told}");
    }

    #[test]
    fn what_broke_off_is_not_whole_though_nothing_follows() {
        struct Torn(bool);
        impl Read for Torn {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                let broken = std::mem::replace(&mut self.0, true);
                broken.then_some(0).ok_or(io::ErrorKind::BrokenPipe.into())
            }
        }
        let (whole, mut came) = oneshot::channel();
        let mut archive = Digested {
            archive: Torn(false),
            digest: Some((Sha256::new(), whole)),
        };
        assert!(archive.read(&mut [0]).is_err());
        assert_eq!(archive.read(&mut [0]).expect("it has ended"), 0);
        assert!(came.try_recv().is_err());
    }
}
