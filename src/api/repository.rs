//! The routes of an app's commits: which are here, and one of a submodule's comes.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::deploy::{drain, reader};
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
            drain(body).await;
            return Err(problem);
        }
    };
    app.take_module(commit, reader(body)).await?;
    Ok(Json(app.repository().await))
}
