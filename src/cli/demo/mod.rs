//! `slotctl demo`: everything that slot is for, shown in one process in a quarter of a minute.
//!
//! [`story`] is what happens; [`app`] is what is deployed; [`figures`] is what is told at the end. All else is the product itself: the same
//! router, state machine and API as on a server, with children in the place of units (see [`super::deployer`]).
//!
//! **Invariant:** no root, no systemd, nothing left behind: data and sockets are in directories that go with it.
//! **Invariant:** with `--once` the exit status is 0 only if no request failed, no stream was cut, and every deployment ended as it was to.

pub mod app;
mod figures;
mod releases;
mod screen;
mod story;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use self::figures::Figures;
use self::releases::Releases;
use self::screen::Screen;
use super::deployer::{Deployer, listener};
use super::exit::Exit;
use super::scratch::Scratch;
use super::start::Signals;
use super::term::say_json;
use crate::config::Machine;
use crate::release::Layout;

/// Where it is reached, unless somebody else listens there.
const PORT: u16 = 8080;

/// How long whatever is in flight may take at the end: a browser that was pointed here.
const END: Duration = Duration::from_secs(2);

/// Shows everything; stays up until Ctrl-C, unless it is `once`.
///
/// # Errors
/// If something cannot be had: a directory, a port, a process.
pub fn run(once: bool, json: bool) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(show(once, json));
    runtime.shutdown_background();
    ended
}

async fn show(once: bool, json: bool) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    let mut screen = Screen::new(json);
    let directory = Scratch::make(&std::env::temp_dir())?;
    let releases = Releases::write(directory.path())?;
    let (public, taken) = listen()?;
    let app = releases.app()?;
    let listeners = vec![(listener(&app).to_owned(), public)];
    let data = directory.path().join("data");
    let deployer = Deployer::start(app, Machine::default(), &data, Layout::Slot, listeners).await?;
    screen.opening(deployer.address(), taken);
    let figures = tokio::select! {
        told = story::tell(&deployer, &releases, &mut screen) => told,
        () = signals.next() => {
            screen.clear();
            end(deployer, Duration::ZERO, &mut signals).await;
            return Ok(Exit::Interrupted);
        }
    }?;
    screen.say(&figures.table(screen.paint()));
    if once {
        end(deployer, END, &mut signals).await;
    } else {
        stay(deployer, &releases, &screen, &mut signals).await?;
    }
    if json {
        say_json(&figures)?;
    }
    Ok(verdict(&figures))
}

fn verdict(figures: &Figures) -> Exit {
    if figures.is_flawless() {
        Exit::Ok
    } else {
        Exit::Failed
    }
}

/// The usual port, or any other, and whether that had to be.
fn listen() -> anyhow::Result<(TcpListener, bool)> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)) {
        Ok(listener) => Ok((listener, false)),
        Err(_) => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
            Ok((
                listener.context("cannot listen on any port of 127.0.0.1")?,
                true,
            ))
        }
    }
}

/// Stays up with the last release that serves, and says what to try.
async fn stay(
    deployer: Deployer,
    releases: &Releases,
    screen: &Screen,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let exe = std::env::current_exe().context("cannot find out what this program's file is")?;
    let word = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
    let slotctl = format!("{} --socket {}", word(&exe), word(&deployer.socket()));
    let address = deployer.address();
    let release = word(&releases.path("2"));
    screen.say(&format!(
        "\nStill up at http://{address}/ until Ctrl-C. From another terminal:\n\n  \
         {slotctl} --app demo deploy {release}\n  \
         curl http://{address}/\n  \
         {slotctl} --app demo rollback\n\n"
    ));
    signals.next().await;
    end(deployer, END, signals).await;
    Ok(())
}

/// Ends in order, or at once when that is asked for.
async fn end(deployer: Deployer, limit: Duration, signals: &mut Signals) {
    tokio::select! {
        () = deployer.end(Some(limit)) => {}
        () = signals.next() => {}
    }
}
