//! What another process does for slotd, as a child: `slotctl` itself, as the user that runs this process.

use std::ffi::OsString;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use super::super::errand::{Broken, Call, Door, Held};
use super::super::live::blocking;
use super::super::units::Unbuilt;
use super::{Embedded, SETUP_STOP, failure, unbuilt};
use crate::children::{Program, once};

/// One of them.
pub(super) struct Errand {
    /// What it is called where a slot has its name, and slotctl's command.
    pub(super) name: &'static str,
    /// What follows that, `--app` and `--socket`.
    pub(super) arguments: Vec<OsString>,
    /// How long it may take.
    pub(super) limit: Duration,
}

impl Embedded {
    /// Starts it, and gives its connection to `exchange`, on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        errand: Errand,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        let unit = format!("{}@{}", self.app.name, errand.name);
        // Nobody else may enter the directory that this is in.
        let own = self.run.join(self.app.name.as_str());
        let socket = own.join(format!("{}.sock", errand.name));
        let name = errand.name;
        let opened =
            Door::open(&socket).and_then(|door| Ok((door, self.errand_program(errand, &socket)?)));
        let (door, program) = opened.map_err(|error| {
            let failed = failure("resources", error.to_string());
            unbuilt(unit.clone(), failed, Vec::new())
        })?;
        let mut child = pin!(once(&program, &self.app.name, name));
        let called = tokio::select! {
            called = door.listener.accept() => called,
            ended = &mut child => {
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
        // The connection is closed with the exchange, and the child ends with that.
        let (exchanged, ended) = tokio::join!(exchanged, child);
        exchanged.map_err(|broken| {
            let exit = ended.failure.as_ref().map(|own| own.text.clone());
            let failed = match (broken, ended.failure) {
                (Broken::Here(failed), _) | (Broken::There(_), Some(failed)) => failed,
                (Broken::There(why), None) => failure("protocol", why),
            };
            let mut undone = unbuilt(unit, failed, ended.log);
            undone.report.exit = exit;
            undone
        })
    }

    fn errand_program(&self, errand: Errand, socket: &Path) -> std::io::Result<Program> {
        let mut argv: Vec<OsString> = vec![std::env::current_exe()?.into(), errand.name.into()];
        argv.extend(["--app".into(), self.app.name.as_str().into()]);
        argv.extend(["--socket".into(), socket.into()]);
        argv.extend(errand.arguments);
        Ok(Program {
            argv,
            env: self.inherited.clone(),
            cwd: self.root.to_path_buf(),
            notify: false,
            leaves: None,
            listener: None,
            start_limit: errand.limit,
            stop_limit: SETUP_STOP,
            restart: false,
            whole: true,
        })
    }
}
