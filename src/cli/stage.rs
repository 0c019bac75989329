//! `slotctl stage`: the `ExecStart=` of `slot-stage@`. It makes staging as the user whose work tree that is.
//!
//! **Invariant:** what is made is in the unit's own directory, and what is read is in the app's; slotd says which release alone.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::Context;
use sd_notify::NotifyState;

use super::term::note;
use crate::deploy::AppName;
use crate::release::Root;
use crate::staging::{Made, Promoted, Staging};
use crate::telemetry::chain;
use crate::wire::staging::{Order, Said};

/// What the unit's `ExecStart=` says.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--app`.
    pub app: AppName,
    /// `--root`: the directory of all apps, `/var/lib/slot`.
    pub root: PathBuf,
    /// `--socket`: where slotd waits.
    pub socket: PathBuf,
    /// `--directory`: the unit's own.
    pub directory: PathBuf,
    /// `--branch`.
    pub branch: String,
    /// `--shared-dir`, each.
    pub shared_dirs: Vec<String>,
}

/// Makes staging of what slotd says, and tells it what came of that.
///
/// # Errors
/// slotd cannot be asked, or staging was not made, which slotd has been told then.
pub fn stage(request: &Request) -> anyhow::Result<()> {
    let stream = UnixStream::connect(&request.socket).with_context(|| {
        format!(
            "cannot ask slotd at {} what to make staging of; slotd starts this unit after a promotion",
            request.socket.display()
        )
    })?;
    let mut from = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    from.read_line(&mut line).context("slotd said nothing")?;
    let order: Order = serde_json::from_str(&line).context("slotd says what this does not know")?;
    let root = Root::from(request.root.join(request.app.as_str()));
    let release = order.release.parse()?;
    let promoted = Promoted {
        home: root.home(&release),
        release,
        commit: order.commit.parse()?,
        shared_dirs: request.shared_dirs.clone(),
    };
    let staging = Staging::within(&request.directory, &request.branch);
    let made = staging.make(&promoted, |have| {
        let have = have.iter().map(ToString::to_string).collect();
        say(&stream, &Said::Wants { have })?;
        Ok(from)
    });
    let said = match &made {
        Ok(Made::Of(release)) => {
            tell(&format!("staging is of release {release}"));
            Said::Made
        }
        Ok(Made::Kept(why)) => {
            tell(why);
            Said::Kept { why: why.clone() }
        }
        Err(error) => Said::Failed { why: chain(error) },
    };
    // A slotd that has gone asks again when it is back.
    say(&stream, &said).context("cannot tell slotd what came of it")?;
    made.map(drop).map_err(anyhow::Error::from)
}

fn say(mut stream: &UnixStream, said: &Said) -> std::io::Result<()> {
    let line = serde_json::to_string(said).map_err(std::io::Error::from)?;
    stream.write_all(format!("{line}\n").as_bytes())
}

/// For `systemctl status` and for the journal.
fn tell(text: &str) {
    note(&format!("{text}\n"));
    // Where nobody listens, the line above is enough.
    let _ = sd_notify::notify(&[NotifyState::Status(text)]);
}
