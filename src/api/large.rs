//! The routes of what the files of a commit have in them that Git LFS keeps: which of it is not here, and one content comes.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use futures_util::StreamExt;
use serde::Deserialize;

use super::deploy::{drain, flowing, reader, unchecked};
use super::problem::Problem;
use super::routes::{Api, Asked, Named};
use crate::daemon::app::Check;
use crate::daemon::units::Units;
use crate::git::{GitError, Oid};
use crate::wire::release::{Contents, Lacking};

/// How long the list of a commit's contents may be, in bytes: those of some 150,000 files.
const LONGEST_LIST: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `disk`: whatever room there is.
    skip: Option<String>,
}

pub(super) async fn lacking<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(query): Asked<ListQuery>,
    body: Body,
) -> Result<Json<Lacking>, Problem> {
    let list = whole(body).await;
    let app = api.app(&named).await?;
    let check = !unchecked(query.skip.as_deref())?.contains(&Check::Disk);
    let list: Contents = serde_json::from_slice(&list?).map_err(|error| wrong(&error))?;
    let contents = list.contents.into_iter();
    let contents = contents.map(|content| Ok((content.oid.parse()?, content.size)));
    let contents: Result<Vec<(Oid, u64)>, GitError> = contents.collect();
    let lacked = app.lacks(contents?, check).await?;
    Ok(Json(Lacking {
        lacking: lacked.iter().map(ToString::to_string).collect(),
    }))
}

/// All of a list, if it is not too long.
async fn whole(body: Body) -> Result<Vec<u8>, Problem> {
    let (mut list, mut pieces) = (Vec::new(), Box::pin(flowing(body)));
    let mut is_too_long = false;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| wrong(&error))?;
        is_too_long |= list.len() + piece.len() > LONGEST_LIST;
        // Whoever still sends comes to the answer.
        if !is_too_long {
            list.extend_from_slice(&piece);
        }
    }
    if is_too_long {
        return Err(wrong(&format!("its limit is {LONGEST_LIST} bytes")));
    }
    Ok(list)
}

fn wrong(why: &dyn std::fmt::Display) -> Problem {
    Problem::bad_request(format!("the list of contents is refused: {why}"))
}

/// The app of a path, if the path names one, and the content that it names.
#[derive(Deserialize)]
pub(super) struct NamedContent {
    app: Option<String>,
    oid: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContentQuery {
    size: u64,
}

pub(super) async fn content<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<NamedContent>,
    Asked(query): Asked<ContentQuery>,
    body: Body,
) -> Result<Json<Lacking>, Problem> {
    let found = async {
        let oid: Oid = named.oid.parse().map_err(GitError::from)?;
        let app = api.app(&Named { app: named.app }).await?;
        Ok::<_, Problem>((app, oid))
    };
    let (app, oid) = match found.await {
        Ok(found) => found,
        Err(problem) => {
            drain(body).await;
            return Err(problem);
        }
    };
    app.take_content(oid, query.size, reader(body)).await?;
    Ok(Json(Lacking::default()))
}
