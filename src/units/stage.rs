//! The unit that makes an app's staging: `slot-stage@web.service`, an instance of the template that the package brings.
//!
//! **Invariant:** the template alone runs nothing, and what it would run is nobody in particular.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::text::word;
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
    let mut text = format!(
        "# Made by slot-generator out of {}: what is changed here is lost.\n\
         # `systemctl edit slot-stage@{name}` adds to it.\n\
         [Service]\n\
         ExecStart=\n\
         ExecStart=:/usr/bin/slotctl stage --app {name} --root {STATE} --socket {} --directory {STAGING}/{name} --branch {}",
        source.display(),
        stage_socket(Path::new(RUN), name).display(),
        word(&staging.branch),
    );
    for directory in &app.shared_dirs {
        let _ = write!(text, " --shared-dir {}", word(directory));
    }
    let _ = write!(
        text,
        "\nDynamicUser=no\n\
         User={user}\n\
         StateDirectory=slot-staging/{name}\n"
    );
    Some(UnitFile {
        path: format!("{}.d/10-slot.conf", stage_service(name)),
        text,
    })
}
