//! The unit that fetches commits from an app's remote: `slot-fetch@web.service`, an instance of the template that the package brings.
//!
//! It has what slotd never has: the deploy key, which PID 1 reads for it, and to do with hosts outside of the machine.
//!
//! **Invariant:** the template alone runs nothing, as that of `slot-setup@` does not, and for the same reason.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::text::{drop_in, word};
use super::{RUN, UnitFile};
use crate::config::{App, systemd_span};
use crate::deploy::AppName;

/// The unit that fetches for an app.
#[must_use]
pub fn fetch_service(name: &AppName) -> String {
    format!("slot-fetch@{name}.service")
}

/// Where slotd says what to fetch, and takes it; as [`super::setup_socket`].
#[must_use]
pub fn fetch_socket(run: &Path, name: &AppName) -> PathBuf {
    run.join("slotd/fetch").join(format!("{name}.sock"))
}

/// What an app adds to the template; nothing without a remote.
pub(super) fn fetch_drop_in(app: &App, source: &Path) -> Option<UnitFile> {
    let remote = app.remote.as_ref()?;
    let name = &app.name;
    let mut command = format!(
        "fetch --app {name} --socket {} --mirror /var/cache/slot-fetch/{name}/mirror.git",
        fetch_socket(Path::new(RUN), name).display(),
    );
    let files = [
        ("deploy-key", &remote.deploy_key),
        ("known-hosts", &remote.known_hosts),
    ];
    let files = files
        .iter()
        .filter_map(|(kind, path)| Some((kind, path.as_deref()?)));
    let mut settings = String::new();
    for (kind, path) in files {
        // %d: where PID 1 puts what it has read (systemd.unit(5), "Specifiers").
        let _ = write!(command, " --{kind} %d/{kind}");
        // The parser lets no character through that means something here.
        let _ = writeln!(settings, "LoadCredential={kind}:{path}");
    }
    let _ = write!(command, " -- {}", word(&remote.url));
    let _ = writeln!(settings, "RuntimeMaxSec={}", systemd_span(remote.timeout));
    Some(drop_in(&fetch_service(name), source, &command, &settings))
}
