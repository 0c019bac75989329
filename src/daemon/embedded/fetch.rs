//! A fetch as a child: `slotctl fetch`, as the user that runs this process, and as ssh is set up for him unless the app has a deploy key.

use std::ffi::OsString;
use std::path::Path;
use std::pin::pin;

use super::super::errand::{Broken, Call, Door, Held};
use super::super::live::blocking;
use super::super::units::Unbuilt;
use super::{Embedded, SETUP_STOP, failure, unbuilt};
use crate::children::{Program, once};
use crate::config::Remote;

/// What a fetch is called where a slot has its name.
const FETCH: &str = "fetch";

impl Embedded {
    /// [`Units::fetch`](super::Units::fetch).
    pub(super) async fn fetched<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        let Some(remote) = &self.app.remote else {
            return Err(Unbuilt::without_remote());
        };
        let unit = format!("{}@{FETCH}", self.app.name);
        // Nobody else may enter the directory that this is in.
        let socket = self.run.join(self.app.name.as_str()).join("fetch.sock");
        let opened =
            Door::open(&socket).and_then(|door| Ok((door, self.fetcher(remote, &socket)?)));
        let (door, program) = opened.map_err(|error| {
            let failed = failure("resources", error.to_string());
            unbuilt(unit.clone(), failed, Vec::new())
        })?;
        let mut fetcher = pin!(once(&program, &self.app.name, FETCH));
        let called = tokio::select! {
            called = door.listener.accept() => called,
            ended = &mut fetcher => {
                let silent = || failure("protocol", "ended before it asked what to do".to_owned());
                let failed = ended.failure.unwrap_or_else(silent);
                return Err(unbuilt(unit, failed, ended.log));
            }
        };
        let lost = |error: std::io::Error| Broken::There(format!("lost its connection: {error}"));
        let exchanged = async {
            let (stream, _) = called.map_err(lost)?;
            let (_held, call) = Held::of(stream).map_err(lost)?;
            blocking(move || exchange(&call)).await
        };
        // The connection is closed with the exchange, and the fetcher ends with that.
        let (exchanged, ended) = tokio::join!(exchanged, fetcher);
        exchanged.map_err(|broken| {
            let exit = ended.failure.as_ref().map(|own| own.text.clone());
            let failed = match (broken, ended.failure) {
                (Broken::Here(failed), _) | (Broken::There(_), Some(failed)) => failed,
                (Broken::There(why), None) => failure("protocol", why),
            };
            let mut unfetched = unbuilt(unit, failed, ended.log);
            unfetched.report.exit = exit;
            unfetched
        })
    }

    /// What fetches from the app's remote: `slotctl` itself, as the user.
    fn fetcher(&self, remote: &Remote, socket: &Path) -> std::io::Result<Program> {
        let mut argv: Vec<OsString> = vec![std::env::current_exe()?.into(), "fetch".into()];
        argv.extend(["--app".into(), self.app.name.as_str().into()]);
        argv.extend(["--socket".into(), socket.into()]);
        argv.extend(["--mirror".into(), self.root.join("mirror.git").into()]);
        for (option, path) in [
            ("--deploy-key", &remote.deploy_key),
            ("--known-hosts", &remote.known_hosts),
        ] {
            argv.extend(path.iter().flat_map(|path| [option.into(), path.into()]));
        }
        argv.extend(["--".into(), remote.url.as_str().into()]);
        Ok(Program {
            argv,
            env: self.inherited.clone(),
            cwd: self.root.to_path_buf(),
            notify: false,
            leaves: None,
            listener: None,
            start_limit: remote.timeout,
            stop_limit: SETUP_STOP,
            restart: false,
            whole: true,
        })
    }
}
