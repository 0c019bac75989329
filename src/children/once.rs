//! A program that runs once, to its end: what makes a release ready.

use tokio::time::timeout;

use super::group::Group;
use super::output::follow;
use super::program::Program;
use super::run::Run;
use super::supervise::{boot_id, failure, terminate};
use crate::deploy::{AppName, UnitFailure};

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// None: with status 0.
    pub failure: Option<UnitFailure>,
    /// The last lines of its output, oldest first.
    pub log: Vec<String>,
}

/// Executes a program and waits for its end, at most its `start_limit`; nothing of it runs then. `name` is in the log of this process
/// where a slot's is. Given up, it is killed.
pub async fn once(program: &Program, app: &AppName, name: &'static str) -> Ended {
    let failed = |result: &str, text: String| Ended {
        failure: Some(UnitFailure {
            result: result.into(),
            text,
        }),
        log: Vec::new(),
    };
    let run = match boot_id() {
        Ok(boot) => Run::new(boot),
        Err(error) => return failed("resources", format!("has no boot id: {error}")),
    };
    let (mut group, stdout, stderr) = match Group::spawn(program, &[]).await {
        Ok(spawned) => spawned,
        Err(error) => return failed(error.result(), error.to_string()),
    };
    let output = vec![
        tokio::spawn(follow(stdout, run.clone(), app.clone(), name)),
        tokio::spawn(follow(stderr, run.clone(), app.clone(), name)),
    ];
    let failure = match timeout(program.start_limit, group.ended()).await {
        Ok(Ok(status)) if status.success() => None,
        Ok(ended) => Some(failure(ended, true)),
        Err(_) => {
            terminate(&mut group, program).await;
            Some(UnitFailure {
                result: "timeout".into(),
                text: "did not end in time".to_owned(),
            })
        }
    };
    group.finish(output).await;
    Ended {
        failure,
        log: run.record().log.into(),
    }
}
