//! `slotctl doctor`: collects what there is to know of this machine, has it [examined](crate::doctor), mends what is safe, and shows it.
//!
//! **Invariant:** it only looks, but with `--fix`; and it starts nothing by looking: a slotd that is down is not asked.

pub(super) mod apps;
mod collect;
mod mend;
mod paths;
mod show;
mod tcp;
mod units;

use std::collections::BTreeSet;
use std::io::stdout;
use std::time::Duration;

use super::args;
use super::exit::Exit;
use super::term::{Paint, say, say_json, width};
use crate::doctor::{Finding, Level, Mend, examine};

/// What was found may be of a moment between two: a switch, a table on its way. So long after it is looked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What passes by itself within that, if it passes; of checks, how they begin.
const PASSING: [&str; 8] = [
    "table-",
    "link-",
    "router-",
    "release-",
    "app-",
    "slotd-",
    "socket-",
    "unit-looping",
];

/// Looks, mends where that is asked for, and shows.
///
/// # Errors
/// `--fix` without root, or nothing can be written to stdout.
pub async fn run(options: &args::Doctor, json: bool) -> anyhow::Result<Exit> {
    let root = nix::unistd::geteuid().is_root();
    if options.fix && !root {
        return Err(Exit::Forbidden.because(
            "--fix takes root: `sudo slotctl doctor --fix`; without it `slotctl doctor` says what it would do",
        ));
    }
    let mut findings = look().await;
    let mut mended = Vec::new();
    if options.fix {
        let mends: BTreeSet<Mend> = findings.iter().filter_map(|it| it.mend.clone()).collect();
        mended = mends.into_iter().map(mend::mend).collect();
        if !mended.is_empty() {
            findings = look().await;
        }
    }
    if json {
        say_json(&show::object(&findings, &mended))?;
    } else {
        say(&show::text(
            &findings,
            &mended,
            root,
            Paint::of(&stdout()),
            width(),
        ))?;
    }
    Ok(show::exit(&findings))
}

async fn look() -> Vec<Finding> {
    let findings = examine(&collect::facts().await);
    let passes = |it: &Finding| {
        it.level >= Level::Warning && PASSING.iter().any(|begin| it.check.starts_with(begin))
    };
    if !findings.iter().any(passes) {
        return findings;
    }
    tokio::time::sleep(AGAIN).await;
    examine(&collect::facts().await)
}
