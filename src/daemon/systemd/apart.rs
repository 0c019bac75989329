//! Whether systemd goes by an app's file as it is: units are made anew by a daemon-reload, which is root's to do, and slotd reads the file
//! whenever it is told to.

use std::path::Path;

use super::super::live::blocking;
use super::SystemdUnits;
use crate::config::App;
use crate::units::{GENERATED, differing, render};

impl SystemdUnits {
    /// In which way it does not, if it does not. Of a file that is wrong there are no units that it could have.
    pub(super) async fn units_apart(&self) -> Option<String> {
        let file = self.file.clone();
        let differ = blocking(move || differ(&file, Path::new(GENERATED))).await?;
        let (app, file) = (&self.app, self.file.display());
        let mended = format!(
            "`sudo slotctl app reload {app}` has systemd read it as it is, and touches nothing that runs"
        );
        if !differ.is_empty() {
            return Some(format!(
                "systemd goes by {file} as it was before, which would make other units than there are ({}): of a slot that starts, command, \
                 environment, ports and limits are theirs; {mended}",
                differ.join(", ")
            ));
        }
        for slot in self.slots.values() {
            if self.bus.properties(&slot.service).await.need_daemon_reload {
                return Some(format!(
                    "{file}, or another file that {} is made of, is newer than what systemd has read of it, so that a deployment may \
                     be refused; {mended}",
                    slot.service
                ));
            }
        }
        None
    }
}

/// The units that a file would make otherwise; nothing if it is wrong.
fn differ(file: &Path, generated: &Path) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(file).ok()?;
    let app = App::parse(&text, &file.display().to_string()).ok()?;
    Some(differing(&app.name, &render(&app, file), generated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_wrong_or_gone_is_not_compared() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("web.toml");
        assert_eq!(differ(&file, place.path()), None);
        std::fs::write(&file, "name = 'web'\ncomand = './server'\n").unwrap();
        assert_eq!(differ(&file, place.path()), None);
        std::fs::write(&file, "name = 'web'\ncommand = './server'\n").unwrap();
        let missing = differ(&file, place.path());
        assert!(missing.is_some_and(|units| units.contains(&"web@.service".to_owned())));
    }
}
