//! `slotctl app remove`: the app stops when it has drained, and the machine forgets it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;

use super::super::args::{AppRemove, Global};
use super::super::client::{Client, ClientError, empty};
use super::super::exit::Exit;
use super::super::progress::{Screen, still_held};
use super::super::term::{say, say_json};
use super::{file_of, ready_to_change, systemctl};
use crate::deploy::AppName;
use crate::units::STATE;
use crate::wire::api::Status;

/// Between two looks at what still drains.
const LOOK: Duration = Duration::from_millis(500);

/// Removes an app.
///
/// slotd stops the slots by the app's polkit rule, so the rule goes after they have stopped; but before the units go whose names
/// it lets slotd start.
///
/// # Errors
/// If a step fails; doing it again goes on from there.
pub async fn run(global: &Global, options: &AppRemove) -> anyhow::Result<Exit> {
    let name = &options.name;
    ready_to_change(&format!("remove {name}"))?;
    let file = file_of(name);
    if !file.exists() {
        return Err(Exit::NotFound.because(format!(
            "there is no app {name}: {} does not exist; `slotctl app list` lists the apps",
            file.display()
        )));
    }
    let client = Client::new(&global.socket, Some(name.as_str()));
    match forget(&client, options.now, &mut Screen::new(global.json)).await {
        Err(error) if error.is_passing() || error.is_no_such_app() => {}
        done => done?,
    }
    delete(Path::new(&format!(
        "/etc/polkit-1/rules.d/60-slot-app-{name}.rules"
    )))?;
    // Whatever slotd could not stop; nothing is left to drain it for.
    systemctl(&[
        "stop",
        &format!("{name}@*.socket"),
        &format!("{name}@*.service"),
    ])?;
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
        let data = Path::new(STATE).join(name.as_str());
        let rest = if options.purge || !data.exists() {
            String::new()
        } else {
            format!("; its releases stay in {}", data.display())
        };
        say(&format!("{name} is removed{rest}\n"))?;
    }
    Ok(Exit::Ok)
}

/// Has slotd stop the app, and waits until it has.
async fn forget(client: &Client, now: bool, screen: &mut Screen) -> Result<(), ClientError> {
    let name = client.get::<Status>("/status").await?.app;
    let _: serde_json::Value = client
        .ask(Method::DELETE, &format!("/apps/{name}"), empty())
        .await?;
    screen.enter("draining", "");
    loop {
        let status = match client.get::<Status>("/status").await {
            Err(error) if error.is_no_such_app() => break,
            seen => seen?,
        };
        if now {
            for slot in status
                .slots
                .iter()
                .filter(|slot| slot.condition == "draining")
            {
                // It may have drained by itself meanwhile.
                let _ = client
                    .post::<Status>(&format!("/drain?slot={}", slot.slot), empty())
                    .await;
            }
        }
        screen.drain(still_held(&status));
        screen.tick();
        tokio::time::sleep(LOOK).await;
    }
    screen.finish();
    Ok(())
}

fn delete(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn purge(name: &AppName) -> anyhow::Result<()> {
    let data = Path::new(STATE).join(name.as_str());
    match fs::remove_dir_all(&data) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", data.display()))
        }
        _ => Ok(()),
    }
}
