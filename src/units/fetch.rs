//! The unit that fetches commits from an app's remote: `slot-fetch@web.service`, an instance of the template that the package brings.
//!
//! It has what slotd never has: the deploy key, which PID 1 reads for it, and to do with hosts outside of the machine.
//!
//! **Invariant:** the template alone runs nothing, as that of `slot-setup@` does not, and for the same reason.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::text::word;
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
    let mut text = format!(
        "# Made by slot-generator out of {}: what is changed here is lost.\n\
         # `systemctl edit slot-fetch@{name}` adds to it.\n\
         [Service]\n\
         ExecStart=\n\
         ExecStart=:/usr/bin/slotctl fetch --app {name} --socket {} --mirror /var/cache/slot-fetch/{name}/mirror.git",
        source.display(),
        fetch_socket(Path::new(RUN), name).display(),
    );
    let files = [
        ("deploy-key", &remote.deploy_key),
        ("known-hosts", &remote.known_hosts),
    ];
    let files = files
        .iter()
        .filter_map(|(kind, path)| Some((kind, path.as_deref()?)));
    for (kind, _) in files.clone() {
        // %d: where PID 1 puts what it has read (systemd.unit(5), "Specifiers").
        let _ = write!(text, " --{kind} %d/{kind}");
    }
    let _ = writeln!(text, " -- {}", word(&remote.url));
    for (kind, path) in files {
        // The parser lets no character through that means something here.
        let _ = writeln!(text, "LoadCredential={kind}:{path}");
    }
    let _ = writeln!(text, "RuntimeMaxSec={}", systemd_span(remote.timeout));
    Some(UnitFile {
        path: format!("{}.d/10-slot.conf", fetch_service(name)),
        text,
    })
}
