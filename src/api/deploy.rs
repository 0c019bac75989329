//! The routes of releases: one comes and is deployed, one that is there is deployed again, all are listed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, State};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::guard::{Began, WithKey, expected, follow, guard, reported};
use super::peer::Peer;
use super::problem::Problem;
use super::routes::{Api, Asked, Named, span};
use super::shares::weight;
use crate::config::is_ref_name;
use crate::daemon::app::{Check, Managed, Wish};
use crate::daemon::owner::AskError;
use crate::daemon::units::Units;
use crate::deploy::{Fingerprint, Generation, Guard, Key, Refusal, ReleaseId};
use crate::git::{Commit, GitError, Held};
use crate::release::{About, Identity};
use crate::wire::api;
use crate::wire::release::{Origin, Releases};

/// How long the name of what was deployed may be, in bytes: as long as a path (limits.h(0p), `PATH_MAX`).
const LONGEST_NAME: usize = 4096;

/// How long an upload may send nothing.
const STALL: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployQuery {
    drain: Option<String>,
    queue: Option<String>,
    /// What the candidate is to get, and to stay at.
    weight: Option<String>,
    /// All at once, whatever plan there is.
    #[serde(default)]
    at_once: bool,
    size: Option<u64>,
    /// Checks to leave out, with commas.
    skip: Option<String>,
    label: Option<String>,
    origin: Option<SentAs>,
    name: Option<String>,
    release: Option<String>,
    commit: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// What to fetch from the app's remote; empty: its default.
    remote: Option<String>,
    /// Nobody asks: it is refused while somebody holds automatic deployments, and ends where its release is live or was left by a rollback.
    auto: Option<bool>,
    /// Also what was rolled back by itself.
    #[serde(default)]
    force: bool,
    expected_generation: Option<u64>,
    expected_active: Option<String>,
}

/// What the sender of an archive had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SentAs {
    Path,
    Archive,
}

impl DeployQuery {
    fn wish(&self, by: String, guard: Guard) -> Result<Wish, Problem> {
        let of =
            |key, text: &Option<String>| text.as_deref().map(|text| span(key, text)).transpose();
        Ok(Wish {
            by,
            drain: of("drain", &self.drain)?,
            queue: of("queue", &self.queue)?.unwrap_or_default(),
            weight: self.weight.as_deref().map(weight).transpose()?,
            at_once: self.at_once,
            patience: Duration::ZERO,
            size: self.size,
            unchecked: unchecked(self.skip.as_deref())?,
            guard,
            release: None,
            force: self.force,
            auto: self.auto == Some(true),
        })
    }

    /// What the deployment depends on. How long it may wait, and what is not looked at, makes it no other one.
    fn guard(&self, key: Option<Key>) -> Result<Guard, Problem> {
        let origin = self.origin.map(|origin| match origin {
            SentAs::Path => "path",
            SentAs::Archive => "archive",
        });
        let parts = [
            ("drain", self.drain.as_deref()),
            ("label", self.label.as_deref()),
            ("origin", origin),
            ("name", self.name.as_deref()),
            ("release", self.release.as_deref()),
            ("commit", self.commit.as_deref()),
            ("ref", self.reference.as_deref()),
            ("remote", self.remote.as_deref()),
            ("weight", self.weight.as_deref()),
            ("force", self.force.then_some("true")),
            ("at_once", self.at_once.then_some("true")),
            ("auto", (self.auto == Some(true)).then_some("true")),
        ];
        let said = parts
            .into_iter()
            .filter_map(|(key, said)| Some([key, said?]));
        let target: Vec<&str> = std::iter::once("deploy").chain(said.flatten()).collect();
        let expected = expected(self.expected_generation, self.expected_active.as_deref())?;
        let mut guard = guard(expected, key, &target);
        if let Some(fingerprint) = guard.key.as_mut().filter(|_| self.is_sent()) {
            fingerprint.payload = None;
        }
        Ok(guard)
    }

    /// Whether the release comes with the request. What comes of a commit is what was not there; its name says the rest.
    fn is_sent(&self) -> bool {
        self.release.is_none() && self.commit.is_none() && self.remote.is_none()
    }

    /// What is to be fetched, if anything is: nothing else is deployed then.
    fn fetched(&self) -> Result<Option<Option<String>>, Problem> {
        let Some(name) = self.remote.as_deref() else {
            return Ok(None);
        };
        let others = [&self.release, &self.commit, &self.reference, &self.name];
        if others.iter().any(|other| other.is_some()) || self.origin.is_some() {
            return Err(Problem::bad_request(
                "what is fetched from the remote is deployed alone; leave out what else there is"
                    .to_owned(),
            ));
        }
        if name.is_empty() {
            return Ok(Some(None));
        }
        if !is_ref_name(name) {
            return Err(Problem::bad_request(format!(
                "{name:?} is no name that a remote could have; write a branch, a tag or all 40 digits of a commit"
            )));
        }
        Ok(Some(Some(name.to_owned())))
    }

    /// What is said of the release.
    fn about(&self) -> Result<About, Problem> {
        let path = self.name.clone().unwrap_or_else(|| "-".to_owned());
        if path.is_empty() || path.len() > LONGEST_NAME {
            return Err(Problem::bad_request(format!(
                "name is to be 1 to {LONGEST_NAME} bytes of UTF-8"
            )));
        }
        let reference = self.reference.clone();
        if reference
            .as_ref()
            .is_some_and(|name| name.is_empty() || name.len() > LONGEST_NAME)
        {
            return Err(Problem::bad_request(format!(
                "ref is to be 1 to {LONGEST_NAME} bytes of UTF-8"
            )));
        }
        let origin = match (&self.release, &self.commit, self.origin) {
            (Some(_), Some(_), _) => {
                return Err(Problem::bad_request(
                    "either a release or a commit is deployed; leave one out".to_owned(),
                ));
            }
            // It has come before, and from where is known.
            (Some(_), None, _) => Origin::Unknown,
            (None, Some(commit), _) => Origin::Git {
                commit: commit.clone(),
                reference,
            },
            (None, None, Some(SentAs::Path)) => Origin::Path { path },
            (None, None, Some(SentAs::Archive) | None) => Origin::Archive { path },
        };
        let label = self.label.as_deref().map(str::parse).transpose()?;
        Ok(About {
            origin,
            label,
            ..About::default()
        })
    }
}

/// The checks that somebody leaves out, with commas.
pub(super) fn unchecked(skip: Option<&str>) -> Result<BTreeSet<Check>, Problem> {
    let words = skip.unwrap_or_default().split(',');
    let checks = words.filter(|word| !word.is_empty()).map(|word| {
        word.parse().map_err(|()| {
            Problem::bad_request(format!(
                "skip = {word:?} is no check that can be left out; write disk or memory"
            ))
        })
    });
    checks.collect()
}

/// Takes what a refused client still sends: it does not read before it has sent everything, and is to come to the answer.
pub(super) async fn drain(body: Body) {
    let mut rest = Box::pin(flowing(body));
    while let Some(Ok(_)) = rest.next().await {}
}

/// What a request for a deployment has come to.
enum Begun<U> {
    /// One is begun.
    Now(Started<U>),
    /// The same was asked for before, and this was begun then.
    Before(Arc<Managed<U>>, Fingerprint, Generation),
}

/// A deployment that is begun, and what it is of.
struct Started<U> {
    app: Arc<Managed<U>>,
    generation: Generation,
    about: About,
    release: Option<ReleaseId>,
    commit: Option<Commit>,
    /// Keeps what was there when it was asked for.
    _kept: Option<Held>,
    /// What is fetched, and whether it has to have room on disk.
    fetched: Option<(Option<String>, bool)>,
    /// A key is waiting for all that is sent.
    keyed: bool,
}

/// A request that is not carried out because it was made before has an answer.
fn repeated<U>(
    app: Arc<Managed<U>>,
    guard: Guard,
    unadmitted: AskError,
) -> Result<Begun<U>, Problem> {
    match (unadmitted, guard.key) {
        (AskError::Refused(Refusal::Repeated { generation, .. }), Some(fingerprint)) => {
            Ok(Begun::Before(app, fingerprint, generation))
        }
        (refused, _) => Err(refused.into()),
    }
}

pub(super) async fn deploy<U: Units>(
    State(api): State<Api<U>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(named): Path<Named>,
    WithKey(key): WithKey,
    Asked(query): Asked<DeployQuery>,
    body: Body,
) -> Result<Began, Problem> {
    let begun = async {
        let mut wish = query.wish(peer.name(), query.guard(key)?)?;
        let checks_disk = !wish.unchecked.contains(&Check::Disk);
        let about = query.about()?;
        let commit: Option<Commit> = query
            .commit
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(GitError::from)?;
        let fetched = query.fetched()?;
        let app = api.app(&named).await?;
        if wish.auto {
            app.lets_itself().await?;
        }
        let guard = wish.guard.clone();
        if let Err(unadmitted) = app.admits(&guard) {
            return repeated(app, guard, unadmitted);
        }
        api.apps.check_file(app.app().name.as_str())?;
        if let Some(why) = fetched.as_ref().and_then(|_| app.no_remote()) {
            return Err(Problem::refused(why));
        }
        let release = match &query.release {
            Some(id) => Some(on_disk(&app, id).await?),
            None => None,
        };
        wish.release = match &commit {
            Some(commit) => Identity::Commit(commit.to_string()).id(),
            None => release.clone(),
        };
        // What slotctl has left out, because it was there when it asked, stays while this waits for its turn.
        let kept = commit.as_ref().map(|_| app.keep_commits());
        let generation = match app.begin(wish).await {
            Ok(generation) => generation,
            Err(unadmitted) => return repeated(app, guard, unadmitted),
        };
        let fetched = fetched.map(|reference| (reference, checks_disk));
        Ok::<_, Problem>(Begun::Now(Started {
            keyed: guard.key.is_some_and(|it| it.payload.is_none()),
            app,
            generation,
            about,
            release,
            commit,
            _kept: kept,
            fetched,
        }))
    };
    let started = match begun.await {
        Ok(Begun::Now(started)) => started,
        Ok(Begun::Before(app, fingerprint, generation)) => {
            return follow(&app, &fingerprint, generation, body).await;
        }
        Err(problem) => {
            drain(body).await;
            return Err(problem);
        }
    };
    let Started {
        app,
        generation,
        about,
        ..
    } = started;
    let release = if let Some((reference, checks_disk)) = started.fetched {
        app.fetch(generation, reference, about.label, checks_disk);
        None
    } else if let Some(id) = started.release {
        app.again(generation, id, about).await
    } else if let Some(commit) = started.commit {
        app.upload_commit(generation, commit, about, reader(body))
            .await
    } else if started.keyed {
        let archive = reported(&app, generation, reader(body));
        app.upload(generation, about, archive).await
    } else {
        app.upload(generation, about, reader(body)).await
    };
    Ok(Began(api::Begun {
        generation: generation.0,
        release,
        repeated: false,
        already: None,
    }))
}

/// A release that somebody names, if it is on disk.
pub(super) async fn on_disk<U: Units>(app: &Managed<U>, id: &str) -> Result<ReleaseId, Problem> {
    let wanted: ReleaseId = id.parse()?;
    let listed = app.releases().await.releases;
    if listed.iter().any(|release| release.id == id) {
        return Ok(wanted);
    }
    let there: Vec<&str> = listed.iter().map(|release| release.id.as_str()).collect();
    Err(Problem::not_found(match there.is_empty() {
        true => format!("release {id} is not on disk, nor is any other; deploy one first"),
        false => format!(
            "release {id} is not on disk: it was never deployed here, or was removed since (`keep` in slot.toml says how many stay); \
             there are {}",
            there.join(", ")
        ),
    }))
}

pub(super) async fn releases<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
) -> Result<Json<Releases>, Problem> {
    Ok(Json(api.app(&named).await?.releases().await))
}

/// An upload, for whoever reads it on a thread that may block.
pub(super) fn reader(body: Body) -> impl std::io::Read + Send + 'static {
    SyncIoBridge::new(StreamReader::new(Box::pin(flowing(body))))
}

/// The bytes of a request, for as long as they come: an upload that stalls would hold the app's lock for ever.
pub(super) fn flowing(body: Body) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    stream::try_unfold(
        body.into_data_stream(),
        async |mut bytes| match tokio::time::timeout(STALL, bytes.next()).await {
            Ok(Some(Ok(piece))) => Ok(Some((piece, bytes))),
            Ok(Some(Err(error))) => Err(std::io::Error::other(error)),
            Ok(None) => Ok(None),
            Err(_) => Err(std::io::Error::other(format!(
                "nothing came for {} s",
                STALL.as_secs()
            ))),
        },
    )
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use std::convert::Infallible;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stalls_is_ended_after_its_limit() {
        let pieces = stream::iter([Ok::<_, Infallible>("some bytes")]);
        let mut upload = pin!(flowing(Body::from_stream(pieces.chain(stream::pending()))));
        assert_eq!(upload.next().await.unwrap().unwrap(), "some bytes");
        let stalled = tokio::time::Instant::now();
        let ended = upload.next().await.unwrap().unwrap_err();
        assert_eq!(stalled.elapsed(), STALL);
        assert_eq!(ended.to_string(), "nothing came for 60 s");
        assert!(upload.next().await.is_none());
    }
}
