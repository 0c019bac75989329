//! A hook as a child of this process.

use super::super::hooks::facts;
use super::super::units::{Report, Unbuilt};
use super::{Embedded, SETUP_STOP, failure, unbuilt};
use crate::children::{Program, once};
use crate::deploy::{Occasion, UnitFailure};

/// What a hook is called where a slot has its name.
const HOOK: &str = "hook";

impl Embedded {
    /// Runs it in its release, with the app's environment.
    pub(super) async fn hooked(
        &self,
        occasion: &Occasion,
        upstream: Option<String>,
    ) -> Result<(), Unbuilt> {
        let Some(command) = self.app.hooks.commands.get(&occasion.hook) else {
            return Ok(());
        };
        let unit = format!("{}@{HOOK}", self.app.name);
        let program = self.hook_program(command, occasion, upstream).await;
        let program = program.map_err(|failure| Unbuilt {
            failure,
            report: Report {
                unit: unit.clone(),
                ..Report::default()
            },
        })?;
        let ended = once(&program, &self.app.name, HOOK).await;
        match ended.failure {
            None => Ok(()),
            Some(failure) => Err(unbuilt(unit, failure, ended.log)),
        }
    }

    async fn hook_program(
        &self,
        command: &[String],
        occasion: &Occasion,
        upstream: Option<String>,
    ) -> Result<Program, UnitFailure> {
        let Some(id) = &occasion.release else {
            return Err(failure("no-release", "has no release to run in".to_owned()));
        };
        let release = self.root.home(id);
        let mut injected = self.app.injected_in_setup();
        injected.extend(facts(occasion, upstream));
        let env_file = self.env_file(&release).await?;
        let launch = self
            .launch_of(command, &release, env_file, injected)
            .map_err(|error| failure("config", format!("cannot be run: {error}")))?;
        Ok(Program {
            argv: launch.argv,
            env: launch.env,
            cwd: launch.cwd,
            notify: false,
            leaves: None,
            listener: None,
            start_limit: self.app.hooks.timeout,
            stop_limit: SETUP_STOP,
            restart: false,
            whole: true,
        })
    }
}
