//! The unit that sends an app's notices: `slot-notify@web.service`, an instance of the template that the package brings.
//!
//! It has what slotd never has: the secrets of the receivers, which PID 1 reads for it, and to do with hosts outside of the machine.
//!
//! **Invariant:** the template alone runs nothing, as that of `slot-setup@` does not, and for the same reason.
//! **Invariant:** no secret is in the unit: its command names the file that PID 1 gives it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::text::{drop_in, word};
use super::{RUN, UnitFile};
use crate::config::App;
use crate::deploy::AppName;

/// The unit that sends an app's notices.
#[must_use]
pub fn notify_service(name: &AppName) -> String {
    format!("slot-notify@{name}.service")
}

/// Where slotd says what to send; as [`super::setup_socket`].
#[must_use]
pub fn notify_socket(run: &Path, name: &AppName) -> PathBuf {
    run.join("slotd/notify").join(format!("{name}.sock"))
}

/// What an app adds to the template; nothing without `[[notices]]`.
pub(super) fn notify_drop_in(app: &App, source: &Path) -> Option<UnitFile> {
    if app.notices.is_empty() {
        return None;
    }
    let name = &app.name;
    let socket = notify_socket(Path::new(RUN), name);
    let mut command = format!("notify --app {name} --socket {}", socket.display());
    let mut settings = String::new();
    for receiver in &app.notices {
        let key = receiver.key();
        let _ = write!(
            command,
            " --to {}",
            word(&format!("{key}={}", receiver.url))
        );
        if let Some(path) = &receiver.secret_file {
            // %d: where PID 1 puts what it has read (systemd.unit(5), "Specifiers").
            let _ = write!(command, " --secret {key}=%d/{key}");
            // The parser lets no character through that means something here. A file that is gone is an empty line then, and concerns its own
            // receiver alone, instead of being why the unit cannot start (systemd.exec(5), "SetCredential=").
            let _ = writeln!(settings, "LoadCredential={key}:{path}");
            let _ = writeln!(settings, "SetCredential={key}:\\n");
        }
    }
    Some(drop_in(&notify_service(name), source, &command, &settings))
}
