//! What `--fix` does: each of it may be done twice, and takes nothing from anybody.

use std::fs;
use std::process::Command;

use super::super::app::systemctl;
use crate::doctor::Mend;

/// Something that was done, or tried.
pub struct Mended {
    /// As a command.
    pub command: String,
    /// Why it did not work.
    pub error: Option<String>,
}

/// Does it.
pub fn mend(mend: Mend) -> Mended {
    let command = mend.command();
    let done = match mend {
        Mend::Reload => systemctl(&["daemon-reload"]).map(drop),
        Mend::ResetFailed(unit) => systemctl(&["reset-failed", &unit]).map(drop),
        Mend::Directories => directories(),
        Mend::Remove(path) => fs::remove_file(path).map_err(anyhow::Error::from),
    };
    Mended {
        command,
        error: done.err().map(|error| format!("{error:#}")),
    }
}

fn directories() -> anyhow::Result<()> {
    let ran = Command::new("systemd-tmpfiles")
        .args(["--create", "slot.conf"])
        .output()?;
    anyhow::ensure!(
        ran.status.success(),
        "{}: {}",
        ran.status,
        String::from_utf8_lossy(&ran.stderr).trim()
    );
    Ok(())
}
