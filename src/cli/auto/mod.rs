//! `slotctl auto`: the `ExecStart=` of `slot-watch@`. It looks whether there is something new of an app, and deploys it as anybody may.
//!
//! **Invariant:** what is deployed, or not, is for [`decide`]; this looks, remembers and tells.
//! **Invariant:** a file is deployed once it has stayed the same for [`SETTLE`], and what is remembered of it is what was deployed.

mod dropped;
mod memory;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use self::dropped::Dropped;
use self::memory::Memory;
use super::args::Wait;
use super::client::{Client, ClientError, empty};
use super::deploy::{named, path_of};
use super::exit::Exit;
use super::follow::attempt;
use super::pack::Upload;
use super::progress::Screen;
use super::term::note;
use crate::config::Window;
use crate::deploy::{Circumstances, Decision, Ended, Key, decide, is_its_own};
use crate::telemetry::chain;
use crate::wire::api::{AtRemote, Begun, Outcome, Status};

/// How often in a row it looks again, because something may have come while it deployed.
const ROUNDS: u32 = 10;

/// How often, and how long apart, it looks whether a request of its own that broke off still holds the app; the next timer looks again.
const LOOKS: u32 = 50;
const LOOK: Duration = Duration::from_millis(100);

/// What the unit's `ExecStart=` says.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--memory`: where it remembers what was tried.
    pub memory: PathBuf,
    /// `--window`: when it may deploy; at any time, if there is none.
    pub windows: Vec<Window>,
    /// `--path`: what it looks at; without it, at the app's remote.
    pub path: Option<PathBuf>,
}

/// What is to be live.
enum Wanted {
    File(Dropped),
    Commit(String),
}

impl Wanted {
    /// What it is known by.
    fn identity(&self) -> &str {
        match self {
            Self::File(file) => &file.digest,
            Self::Commit(commit) => commit,
        }
    }

    /// What its release is called, where that is known.
    fn release(&self) -> Option<&str> {
        match self {
            Self::File(_) => None,
            Self::Commit(commit) => commit.get(..8),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(file) => file.path.display().to_string(),
            Self::Commit(commit) => format!("commit {}", commit.get(..8).unwrap_or(commit)),
        }
    }
}

/// Looks, and deploys what is new.
///
/// # Errors
/// It cannot look, or what it deployed failed.
pub async fn run(client: &Client, request: &Request) -> anyhow::Result<Exit> {
    let mut memory = Memory::read(&request.memory)?;
    for _ in 0..ROUNDS {
        let status: Status = client.get("/status").await?;
        if status.deployment.is_some() {
            // What comes of it is what there is to be compared with.
            return Ok(Exit::Ok);
        }
        if !learn(client, &mut memory).await? {
            return Ok(Exit::Ok);
        }
        let Some(wanted) = wanted(client, request, &mut memory).await? else {
            memory.tell("there is nothing to deploy yet")?;
            return Ok(Exit::Ok);
        };
        let now = Circumstances {
            live: status.live.clone(),
            left: left(&status),
            busy: false,
            hold: status.hold.as_ref().map(ToString::to_string),
            window: is_open(&request.windows),
        };
        let tried = memory.tried();
        let decision = decide(wanted.identity(), wanted.release(), tried.as_ref(), &now);
        if decision != Decision::Deploy {
            if let (Decision::Live, Some(live)) = (&decision, &status.live) {
                // Whoever deployed it: once it is left, it does not come back by itself.
                memory.serves(wanted.identity(), live)?;
            }
            memory.tell(&said(&decision, &wanted, &status, &request.windows))?;
            return Ok(Exit::Ok);
        }
        let exit = deploy(client, &wanted, &mut memory).await?;
        if exit != Exit::Ok || request.path.is_none() {
            return Ok(exit);
        }
    }
    Ok(Exit::Ok)
}

/// What a rollback left for what is live.
fn left(status: &Status) -> Option<String> {
    match &status.rolled_back {
        Some(back) => back.from_release.clone(),
        None => status
            .prev
            .clone()
            .filter(|_| status.gone_back_ms.is_some()),
    }
}

async fn wanted(
    client: &Client,
    request: &Request,
    memory: &mut Memory,
) -> anyhow::Result<Option<Wanted>> {
    match &request.path {
        Some(path) => {
            let found = dropped::find(path, memory.file()).await;
            let found = found.with_context(|| format!("cannot look at {}", path.display()))?;
            if let Some(file) = &found {
                memory.keep_file(file)?;
            }
            Ok(found.map(Wanted::File))
        }
        None => {
            let at: AtRemote = client.get("/remote").await?;
            Ok(Some(Wanted::Commit(at.commit)))
        }
    }
}

/// Whether the machine's clock is in one of them.
fn is_open(windows: &[Window]) -> bool {
    let now = jiff::Zoned::now();
    let day = now.weekday().to_monday_zero_offset().unsigned_abs();
    let minute = u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs());
    let open = |window: &Window| window.contains(usize::from(day), minute);
    windows.is_empty() || windows.iter().any(open)
}

/// Why nothing is deployed, for people; nothing where all is as it should be.
fn said(decision: &Decision, wanted: &Wanted, status: &Status, windows: &[Window]) -> String {
    let (what, app) = (wanted.name(), &status.app);
    match decision {
        Decision::Deploy | Decision::Live | Decision::Busy => String::new(),
        Decision::NotAgain(cause) => format!(
            "{what} is not deployed again: it failed ({cause}); `slotctl deploy` does it all the same, or something else there"
        ),
        Decision::Left => format!(
            "{what} was live, and release {} is now: that stays until something else is there; `slotctl deploy` brings it back",
            status.live.as_deref().unwrap_or("(none)")
        ),
        Decision::Held(why) => {
            format!("{what} is not deployed: {why}; `slotctl --app {app} unhold` lets it be")
        }
        Decision::Closed => {
            let windows: Vec<String> = windows.iter().map(ToString::to_string).collect();
            format!(
                "{what} is not deployed before the next of {}",
                windows.join(" and ")
            )
        }
    }
}

async fn deploy(client: &Client, wanted: &Wanted, memory: &mut Memory) -> anyhow::Result<Exit> {
    note(&format!("deploys {}\n", wanted.name()));
    let key = memory.begin(wanted.identity())?;
    let outcome = match attempted(client, wanted, &key, memory).await {
        Ok(outcome) => outcome,
        // It has begun, and what becomes of it is asked for at the next look.
        Err(error) if memory.unknown().is_some() => return Err(error),
        Err(error) => {
            if let Wanted::File(file) = wanted
                && !file.is_still_so()
            {
                note(&format!(
                    "{} changed while it was read, and is looked at again; nothing of it was deployed\n",
                    wanted.name()
                ));
                memory.forget()?;
                free(client).await?;
                return Ok(Exit::Ok);
            }
            let refused = matches!(
                error.downcast_ref::<ClientError>(),
                Some(ClientError::Problem { .. })
            );
            if refused {
                // Nothing was begun.
                memory.take_back()?;
            }
            return Err(error.context(format!("cannot deploy {}", wanted.name())));
        }
    };
    remember(&outcome, memory)?;
    note(&format!(
        "{}: {}, {}\n",
        wanted.name(),
        outcome.cause,
        outcome.text
    ));
    Ok(if outcome.success || outcome.cause == "left" {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

/// What became of the last try, if whoever watched it was gone before its end: this program was killed, the machine was restarted, or the
/// candidate waited at its last weight for somebody to say how to go on.
/// False if that is not known yet.
async fn learn(client: &Client, memory: &mut Memory) -> anyhow::Result<bool> {
    let Some(generation) = memory.unknown() else {
        return Ok(true);
    };
    let path = format!("/outcome?generation={generation}&wait=switched");
    match client.poll::<Outcome, serde_json::Value>(&path).await {
        Ok(Ok(outcome)) => remember(&outcome, memory)?,
        Ok(Err(_)) => return Ok(false),
        // Too many have ended since.
        Err(ClientError::Problem { .. }) => memory.end(None)?,
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// Waits until nothing holds the app that its own request has left there, which broke off.
async fn free(client: &Client) -> anyhow::Result<()> {
    for _ in 0..LOOKS {
        let status: Status = client.get("/status").await?;
        if status.deployment.is_none() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What an outcome says of what was tried.
fn remember(outcome: &Outcome, memory: &mut Memory) -> anyhow::Result<()> {
    match (outcome.cause.as_str(), outcome.success) {
        // It has not ended.
        ("trial", true) => Ok(()),
        // What drains may do so for longer than any number of tries.
        ("no-idle-slot", _) => memory.take_back(),
        // What a rollback left has served, too, whoever had deployed it.
        ("left", _) | (_, true) => memory.end(outcome.release.clone().map(Ended::Served)),
        (cause, false) => memory.end(is_its_own(cause).then(|| Ended::Failed(cause.to_owned()))),
    }
}

async fn attempted(
    client: &Client,
    wanted: &Wanted,
    key: &Key,
    memory: &mut Memory,
) -> anyhow::Result<Outcome> {
    // One line for each phase.
    let mut screen = Screen::new(false);
    let mut asked = vec![("auto", "true".to_owned())];
    let (body, progress) = match wanted {
        Wanted::Commit(commit) => {
            asked.push(("remote", commit.clone()));
            (empty(), None)
        }
        Wanted::File(file) => {
            let source = Upload::look_over(&file.path)?;
            asked.extend(named(&source));
            asked.extend(source.size().map(|size| ("size", size.to_string())));
            let file = file.clone();
            let (body, packing) = source.body_if(move || file.was_read_whole())?;
            (body, Some(packing))
        }
    };
    let path = path_of("/deploy", &asked);
    let begin = async {
        let begun: Begun = client.post_once(&path, Some(key), body).await?;
        if let Err(error) = memory.begun(begun.generation) {
            note(&format!("how it ends may not be known later: {error:#}\n"));
        }
        Ok(begun)
    };
    let attempted = attempt(client, begin, || None, Wait::Switched, &mut screen).await;
    attempted.map_err(|error| match progress.and_then(|packing| packing.error()) {
        // An upload that broke off has its reason on this side.
        Some(ours) => error.context(chain(&ours)),
        None => error,
    })
}
