//! The routes of an app's commits: which are here, and one of a submodule's comes.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use futures_util::StreamExt;
use serde::Deserialize;

use super::deploy::reader;
use super::problem::Problem;
use super::routes::{Api, Asked, Named};
use crate::daemon::units::Units;
use crate::git::Commit;
use crate::wire::release::Repository;

pub(super) async fn repository<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
) -> Result<Json<Repository>, Problem> {
    Ok(Json(api.app(&named).await?.repository().await))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModuleQuery {
    commit: String,
}

pub(super) async fn module<U: Units>(
    State(api): State<Api<U>>,
    Path(named): Path<Named>,
    Asked(query): Asked<ModuleQuery>,
    body: Body,
) -> Result<Json<Repository>, Problem> {
    let app = async {
        let commit: Commit = query.commit.parse().map_err(crate::git::GitError::from)?;
        Ok::<_, Problem>((api.app(&named).await?, commit))
    };
    let (app, commit) = match app.await {
        Ok(found) => found,
        Err(problem) => {
            // A client that still sends does not read; let it come to the answer.
            let mut rest = body.into_data_stream();
            while let Some(Ok(_)) = rest.next().await {}
            return Err(problem);
        }
    };
    app.take_module(commit, reader(body)).await?;
    Ok(Json(app.repository().await))
}
