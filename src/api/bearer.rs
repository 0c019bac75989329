//! Tokens over TCP: which one a request has, if it has one (RFC 6750, section 2.1).
//!
//! **Invariant:** no token is kept, logged or handed on: what is compared is digests, each with every stored one, in a time that does not tell
//! which comes near. (A digest of a guess cannot be aimed at a stored one; comparing in constant time leaves nothing to argue about.)
//! **Invariant:** a right token is let in however many wrong ones came from its address: nobody locks another out by guessing. It is their
//! 256 random bits that make tokens safe from guesses; the limit keeps guesses out of the journal.
//! **Invariant:** whoever is refused has his connection closed.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::failures::{Failures, MOST};
use super::peer::Peer;
use super::problem::Problem;
use crate::telemetry::chain;
use crate::wire::token::{self, Stored};

/// What the credential of slotd's unit is called.
const CREDENTIAL: &str = "api-tokens";

/// No token is longer, in bytes.
const LONGEST: usize = 256;

/// The tokens that there are, and who came with others.
pub(super) struct Bearer {
    stored: Vec<Stored>,
    failures: Mutex<Failures>,
}

/// A connection, as its requests have it.
#[derive(Clone)]
pub(super) struct From {
    /// Where it is from.
    pub(super) address: IpAddr,
    /// Whether a request on it had a right token.
    pub(super) is_known: Arc<AtomicBool>,
}

/// Why a request is not let in.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// No token would be right.
    Unconfigured,
    /// It has none.
    None,
    /// It has one that nobody has, or no single one.
    Wrong,
    /// Its token is not right either, after too many that were wrong; for how long that is the answer.
    Often(Duration),
}

impl Bearer {
    /// The tokens of the credential (systemd.exec(5), `LoadCredential=`); none if there is no credential, or it is wrong, which is told.
    pub(super) fn of_credential() -> Self {
        let directory = std::env::var_os("CREDENTIALS_DIRECTORY");
        let text = directory.map(|it| std::fs::read_to_string(Path::new(&it).join(CREDENTIAL)));
        let stored = match text {
            Some(Ok(text)) => token::stored(&text).unwrap_or_else(|error| {
                tracing::error!(
                    "no token is taken over TCP, since the file of tokens is wrong: {}; correct it, then `systemctl restart slotd`",
                    chain(&error)
                );
                Vec::new()
            }),
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!("no token is taken over TCP: cannot read the credential {CREDENTIAL}: {error}");
                Vec::new()
            }
            _ => Vec::new(),
        };
        Self::with(stored)
    }

    pub(super) fn with(stored: Vec<Stored>) -> Self {
        Self {
            stored,
            failures: Mutex::default(),
        }
    }

    /// Who a request is of.
    fn who(&self, head: &HeaderMap, from: IpAddr) -> Result<Peer, Refused> {
        if self.stored.is_empty() {
            return Err(Refused::Unconfigured);
        }
        let mut fields = head.get_all(AUTHORIZATION).iter();
        let field = fields.next();
        let given = field.filter(|_| fields.next().is_none()).and_then(given);
        if let Some(stored) = given.and_then(|token| self.owner(token)) {
            return Ok(Peer::Token {
                name: stored.name.clone(),
                scope: stored.scope,
                from,
            });
        }
        let now = Instant::now();
        // Nothing panics while it holds the lock.
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wait) = failures.wait(from, now) {
            return Err(Refused::Often(wait));
        }
        if field.is_none() {
            return Err(Refused::None);
        }
        let failed = failures.add(from, now);
        drop(failures);
        if failed == 1 {
            tracing::warn!(slot_peer_address = %from, "a request over TCP had a wrong token ({from})");
        } else if failed == MOST {
            tracing::warn!(
                slot_peer_address = %from,
                "{MOST} requests over TCP had a wrong token ({from}): more of them are answered 429 for a while, and not told here"
            );
        }
        Err(Refused::Wrong)
    }

    /// The line of a token. All are compared, whichever fits.
    fn owner(&self, token: &[u8]) -> Option<&Stored> {
        let digest = token::digest(token);
        let mut found = None;
        for stored in &self.stored {
            if bool::from(stored.digest.ct_eq(&digest)) {
                found = Some(stored);
            }
        }
        found
    }
}

/// `Bearer TOKEN`; the scheme in any case (RFC 9110, section 11.1).
fn given(field: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = field.as_bytes().split_first_chunk::<7>()?;
    let is_token = scheme.eq_ignore_ascii_case(b"bearer ") && token.len() <= LONGEST;
    is_token.then(|| token.trim_ascii())
}

/// Lets in who has a token, as its [`Peer`]; what comes after this knows no token.
pub(super) async fn bear(
    State(bearer): State<Arc<Bearer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let from = request.extensions_mut().remove::<From>();
    let from = from.expect("`tcp` says of each request where it is from");
    match bearer.who(request.headers(), from.address) {
        Ok(peer) => {
            from.is_known.store(true, Ordering::Relaxed);
            request.headers_mut().remove(AUTHORIZATION);
            request.extensions_mut().insert(ConnectInfo(peer));
            next.run(request).await
        }
        Err(refused) => {
            let mut response = refused.into_response();
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let challenge = |problem: Problem, field: &'static str| {
            let mut response = problem.into_response();
            let headers = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(field));
            response
        };
        match self {
            Self::Unconfigured => Problem::unavailable(
                "slotd takes no token: there is none in /etc/slot/api-tokens, or the file is wrong (`journalctl -u slotd`); \
                 `slotctl token new` makes one",
            )
            .into_response(),
            Self::None => challenge(
                Problem::unauthorized("this needs a token: `Authorization: Bearer …`"),
                "Bearer realm=\"slot\"",
            ),
            Self::Wrong => challenge(
                Problem::unauthorized("the token is none of those that slotd knows"),
                "Bearer realm=\"slot\", error=\"invalid_token\"",
            ),
            Self::Often(wait) => {
                let seconds = wait.as_secs() + 1;
                let mut response = Problem::too_often(seconds).into_response();
                response
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from(seconds));
                response
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::token::{Scope, of_random};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn bearer(tokens: &[(&str, Scope, &str)]) -> Bearer {
        let stored = tokens.iter().map(|(name, scope, token)| Stored {
            name: (*name).to_owned(),
            scope: *scope,
            digest: token::digest(token.as_bytes()),
        });
        Bearer::with(stored.collect())
    }

    fn head(fields: &[&str]) -> HeaderMap {
        let fields = fields.iter();
        fields
            .map(|field| (AUTHORIZATION, field.parse().unwrap()))
            .collect()
    }

    #[tokio::test]
    async fn a_token_is_known_by_its_digest_and_told_apart_from_others() {
        let [read, act] = [of_random(&[1; 32]), of_random(&[2; 32])];
        let bearer = bearer(&[("grafana", Scope::Read, &read), ("ci", Scope::Act, &act)]);
        for (token, name, scope) in [(&read, "grafana", Scope::Read), (&act, "ci", Scope::Act)] {
            for scheme in ["Bearer", "bearer"] {
                let peer = bearer.who(&head(&[&format!("{scheme} {token}")]), HERE);
                let expected = Peer::Token {
                    name: name.to_owned(),
                    scope,
                    from: HERE,
                };
                assert_eq!(peer, Ok(expected));
            }
        }
        let stored = bearer.stored[1].to_string();
        for wrong in [
            vec![format!("Bearer {}", of_random(&[3; 32]))],
            vec![format!("Bearer {}", &act[..act.len() - 1])],
            vec![format!("Bearer {act}0")],
            vec![format!("Basic {act}")],
            vec![act.clone()],
            vec!["Bearer ".to_owned()],
            // Its digest is no token.
            vec![format!("Bearer {}", &stored["ci:act:".len()..])],
            vec![format!("Bearer {act}"), format!("Bearer {act}")],
        ] {
            let fields: Vec<&str> = wrong.iter().map(String::as_str).collect();
            assert_eq!(
                bearer.who(&head(&fields), HERE),
                Err(Refused::Wrong),
                "{wrong:?}"
            );
        }
        assert_eq!(bearer.who(&HeaderMap::new(), HERE), Err(Refused::None));
    }

    #[tokio::test(start_paused = true)]
    async fn after_too_many_wrong_tokens_the_right_one_is_let_in_all_the_same() {
        let token = of_random(&[1; 32]);
        let bearer = bearer(&[("ci", Scope::Act, &token)]);
        let right = head(&[&format!("Bearer {token}")]);
        for _ in 0..MOST {
            assert!(bearer.who(&right, HERE).is_ok());
            assert_eq!(
                bearer.who(&head(&["Bearer guess"]), HERE),
                Err(Refused::Wrong)
            );
        }
        let Err(Refused::Often(wait)) = bearer.who(&head(&["Bearer guess"]), HERE) else {
            panic!("it is one too many");
        };
        let without = bearer.who(&HeaderMap::new(), HERE);
        assert_eq!(without, Err(Refused::Often(wait)));
        assert!(bearer.who(&right, HERE).is_ok(), "nobody is locked out");
        tokio::time::advance(wait).await;
        let again = bearer.who(&head(&["Bearer guess"]), HERE);
        assert_eq!(again, Err(Refused::Wrong));
    }

    #[test]
    fn without_tokens_none_is_right() {
        let token = format!("Bearer {}", of_random(&[1; 32]));
        let none = bearer(&[]);
        assert_eq!(none.who(&head(&[&token]), HERE), Err(Refused::Unconfigured));
    }
}
