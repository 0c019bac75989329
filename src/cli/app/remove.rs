//! `slotctl app remove`: the app stops when it has drained, and the machine forgets it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::Method;

use super::super::args::{AppRemove, Global};
use super::super::client::{Client, ClientError, empty};
use super::super::exit::Exit;
use super::super::progress::Screen;
use super::super::term::{say, say_json};
use super::add::read_installed;
use super::loaded::of;
use super::{file_of, ready_to_change, systemctl};
use crate::deploy::AppName;
use crate::units::{
    STAGING, STATE, fetch_service, hook_service, notify_service, polkit_rule_path, setup_service,
    stage_service, watch_units,
};
use crate::wire::control::{InFlight, Stats};

/// The routers' control sockets are `<n>/control.sock` in it.
const ROUTERS: &str = "/run/slot/router";
/// How long it may finish what is in flight if its file does not say.
const DRAIN: Duration = Duration::from_secs(120);
/// Between two looks at what still drains.
const LOOK: Duration = Duration::from_millis(500);

/// Removes an app: no more requests come to it, then slotd may no longer start its units, then they stop, then they go.
///
/// # Errors
/// If a step fails; doing it again goes on from there.
pub async fn run(global: &Global, options: &AppRemove) -> anyhow::Result<Exit> {
    let name = &options.name;
    ready_to_change(&format!("remove {name}"))?;
    let file = file_of(name);
    let rule = polkit_rule_path(name);
    // Where the file was removed by hand, the rest is still to go.
    let traces = [&file, &rule].into_iter().any(|path| path.exists())
        || of(name)?.iter().any(|unit| unit.ours)
        || (options.purge && kept(name).iter().any(|path| path.exists()));
    if !traces {
        return Err(Exit::NotFound.because(format!(
            "there is no app {name}: {} does not exist; `slotctl app list` lists the apps",
            file.display()
        )));
    }
    forget(&Client::new(global.socket(), None), name).await?;
    delete(&rule)?;
    if !options.now {
        let most = read_installed(name).map_or(Some(DRAIN), |app| app.drain.by_class().last());
        drain(name, most, &mut Screen::new(global.json)).await;
    }
    stop(name)?;
    delete(&file)?;
    systemctl(&["daemon-reload"])?;
    if options.purge {
        purge(name)?;
    }
    if global.json {
        say_json(
            &serde_json::json!({ "success": true, "app": name.as_str(), "purged": options.purge }),
        )?;
    } else {
        let [releases, data, _] = kept(name).map(|path| path.exists().then_some(path));
        // Somebody's work may be in it, which is not slot's to delete.
        let staging = Path::new(STAGING).join(name.as_str());
        let staging = staging.exists().then_some(staging);
        let rest: Vec<String> = [
            ("releases stay", releases),
            ("data stay", data),
            ("staging stays", staging),
        ]
        .into_iter()
        .filter_map(|(what, path)| Some(format!("; its {what} in {}", path?.display())))
        .collect();
        say(&format!("{name} is removed{}\n", rest.concat()))?;
    }
    Ok(Exit::Ok)
}

/// Has slotd take the app out of the routers' table. A slotd that is not there, or did so before, is no hindrance.
async fn forget(client: &Client, name: &AppName) -> Result<(), ClientError> {
    let path = format!("/apps/{name}");
    match client
        .ask::<serde_json::Value>(Method::DELETE, &path, empty())
        .await
    {
        Err(error) if error.is_passing() || error.is_no_such_app() => Ok(()),
        answer => answer.map(|_| ()),
    }
}

/// Waits until the routers hold nothing of the app, at most `most`; zero: as long as that takes.
async fn drain(name: &AppName, most: Option<Duration>, screen: &mut Screen) {
    let begin = Instant::now();
    loop {
        let held = held(name).await;
        if held.total() == 0 || most.is_some_and(|most| begin.elapsed() > most) {
            break;
        }
        screen.enter("draining", "");
        screen.drain(Some(held));
        screen.tick();
        tokio::time::sleep(LOOK).await;
    }
    screen.finish();
}

/// What all routers still hold of an app. One that does not answer holds nothing that could be waited for.
async fn held(name: &AppName) -> InFlight {
    let mut held = InFlight::default();
    for router in fs::read_dir(ROUTERS).into_iter().flatten().flatten() {
        let control = Client::new(&router.path().join("control.sock"), None);
        let Ok(stats) = control.get::<Stats>("/stats").await else {
            continue;
        };
        for slot in stats.slots.iter().filter(|slot| slot.app == name.as_str()) {
            held.requests += slot.in_flight.requests;
            held.streams += slot.in_flight.streams;
            held.tunnels += slot.in_flight.tunnels;
        }
    }
    held
}

fn delete(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Sockets first, or a connection would start a slot again. Units of the name that are not slot's are left alone.
fn stop(name: &AppName) -> anyhow::Result<()> {
    // One that does not run is stopped already.
    let errands = [
        setup_service(name),
        fetch_service(name),
        hook_service(name),
        notify_service(name),
        stage_service(name),
    ];
    // First what would deploy it again.
    systemctl(&["stop", &watch_units(name)])?;
    let [setup, fetch, hook, notify, stage] = &errands;
    systemctl(&["stop", setup, fetch, hook, notify, stage])?;
    let mut units: Vec<String> = of(name)?
        .into_iter()
        .filter(|unit| unit.ours)
        .map(|unit| unit.unit)
        .collect();
    units.sort_by_key(|unit| !unit.ends_with(".socket"));
    if !units.is_empty() {
        // systemd 257 does not stop what is frozen (keep_warm_frozen). What is not is none the worse for it.
        let _ = systemctl(&["thaw", &format!("{name}@*.service")]);
        let words: Vec<&str> = ["stop"]
            .into_iter()
            .chain(units.iter().map(String::as_str))
            .collect();
        systemctl(&words)?;
    }
    Ok(())
}

/// What stays of an app that is removed: its releases with its state, and its own data, which is a symlink to the second place when
/// its user is dynamic (systemd.exec(5), `StateDirectory=`).
fn kept(name: &AppName) -> [PathBuf; 3] {
    [STATE, "/var/lib/slot-app", "/var/lib/private/slot-app"]
        .map(|place| Path::new(place).join(name.as_str()))
}

/// What its builds, fetches and automatic deployments kept, likewise.
fn caches(name: &AppName) -> [PathBuf; 8] {
    [
        "/var/lib/slot-setup",
        "/var/lib/private/slot-setup",
        "/var/cache/slot-setup",
        "/var/cache/private/slot-setup",
        "/var/cache/slot-fetch",
        "/var/cache/private/slot-fetch",
        "/var/lib/slot-watch",
        "/var/lib/private/slot-watch",
    ]
    .map(|place| Path::new(place).join(name.as_str()))
}

fn purge(name: &AppName) -> anyhow::Result<()> {
    for path in kept(name).into_iter().chain(caches(name)) {
        let removed = if path.is_symlink() {
            fs::remove_file(&path)
        } else {
            fs::remove_dir_all(&path)
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
