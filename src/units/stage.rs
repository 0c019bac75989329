//! The unit that makes an app's staging: `slot-stage@web.service`, an instance of the template that the package brings.
//!
//! **Invariant:** the template alone runs nothing, and what it would run is nobody in particular.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::text::{drop_in, word};
use super::{RUN, STATE, UnitFile};
use crate::config::App;
use crate::deploy::AppName;

/// Where the work trees of all apps are, each with its repository in a directory that is its user's.
pub const STAGING: &str = "/var/lib/slot-staging";

/// The unit that makes an app's staging.
#[must_use]
pub fn stage_service(name: &AppName) -> String {
    format!("slot-stage@{name}.service")
}

/// Where that unit asks slotd; `run` is `/run/slot`.
#[must_use]
pub fn stage_socket(run: &Path, name: &AppName) -> PathBuf {
    run.join("slotd/stage").join(format!("{name}.sock"))
}

/// What an app adds to the template; nothing without a user in `[staging]`.
pub(super) fn stage_drop_in(app: &App, source: &Path) -> Option<UnitFile> {
    let staging = app.staging.as_ref()?;
    let (name, user) = (&app.name, staging.user.as_ref()?);
    let mut command = format!(
        "stage --app {name} --root {STATE} --socket {} --directory {STAGING}/{name} --branch {}",
        stage_socket(Path::new(RUN), name).display(),
        word(&staging.branch),
    );
    for directory in &app.shared_dirs {
        let _ = write!(command, " --shared-dir {}", word(directory));
    }
    let settings = format!("DynamicUser=no\nUser={user}\nStateDirectory=slot-staging/{name}\n");
    Some(drop_in(&stage_service(name), source, &command, &settings))
}
