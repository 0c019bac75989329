//! `slotd`: owns the state of every app; starts and stops units over D-Bus.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use sd_notify::NotifyState;
use slot::api::{Access, serve};
use slot::daemon::app::{Place, machine_boot};
use slot::daemon::apps::{Apps, Source};
use slot::daemon::instances::Instances;
use slot::daemon::systemd::SystemdUnits;
use slot::daemon::tables::Tables;
use slot::systemd::Bus;
use slot::traffic::Routers;
use tokio::signal::unix::{SignalKind, signal};

/// How long requests under way may go on after SIGTERM; deployments go on in the next slotd.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Deploys apps: starts the idle slot, gates it, switches the routers, drains and stops the old one.
#[derive(Parser)]
#[command(name = "slotd", version)]
struct Arguments {
    /// Where the files of the machine and of the apps are: DIR/machine.toml, DIR/apps/*.toml
    #[arg(long, value_name = "DIR", default_value = "/etc/slot")]
    config: PathBuf,
    /// Where releases and states are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/slot")]
    state: PathBuf,
    /// Where sockets and the routing table are
    #[arg(long, value_name = "DIR", default_value = "/run/slot")]
    run: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    slot::telemetry::init("slotd")?;
    let listeners = slot::api::listeners(&arguments.run.join("slotd.sock"))?;
    let bus = Bus::connect().await?;
    let boot = machine_boot("/proc".as_ref(), &arguments.run)
        .context("cannot tell this boot from others")?;
    let routers = Routers::in_directory(arguments.run.join("router"));
    let table = arguments.run.join("slotd/table.json");
    let settings = arguments.config.join("machine.toml");
    let instances = Arc::new(Instances::new(Arc::clone(&bus), routers.clone(), settings));
    let tables = Arc::new(Tables::open(table, routers, Some(instances)).await);
    let (files, run) = (arguments.config.join("apps"), arguments.run.clone());
    let source = Source::Directory(files.clone());
    let place = Place::new(arguments.state, boot);
    let apps = Arc::new(Apps::new(source, place, Arc::clone(&tables), move |app| {
        SystemdUnits::new(
            Arc::clone(&bus),
            app,
            files.join(format!("{}.toml", app.name)),
            &run,
        )
    }));

    let mut terminated = signal(SignalKind::terminate())?;
    let (end, mut ended) = tokio::sync::watch::channel(false);
    let serving = tokio::spawn(serve(
        listeners,
        Arc::clone(&apps),
        Access::root_and_groups("slot", "slot-observers"),
        async move {
            // Both a value and a lost sender mean the same.
            let _ = ended.changed().await;
        },
    ));
    // READY before any unit is started: at boot, those starts must not wait for this one.
    sd_notify::notify(&[NotifyState::Ready])?;
    tokio::spawn(slot::systemd::keep_watchdog_quiet());
    tokio::spawn(async move { tables.keep_everywhere().await });
    tokio::select! {
        () = async {
            apps.load().await;
            tracing::info!("ready");
            apps.mend().await;
        } => {}
        // An app whose slots have ended is not taken up while the machine goes down.
        _ = terminated.recv() => {}
    }
    sd_notify::notify(&[NotifyState::Stopping])?;
    // What units do from here on is the machine's or the next slotd's business.
    let _ = tokio::time::timeout(LAST_ANSWERS, apps.end()).await;
    end.send_replace(true);
    // Whoever follows events does not end by himself.
    let _ = tokio::time::timeout(LAST_ANSWERS, serving).await;
    Ok(())
}
