//! A whole deployer in this process: router, state, children and API, for `slotctl demo` and `slotctl start`.
//!
//! It is put together from what slotd and slot-router are made of, and is asked over the same API, so that every other command of
//! slotctl works with it: `slotctl --socket PATH status`.
//!
//! **Invariant:** nothing of it outlives this process but what is in the data directory, and after SIGKILL the directory of its sockets,
//! which the next one removes.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::scratch::Scratch;
use crate::api::{self, Access, Listeners};
use crate::config::{App, Machine};
use crate::daemon::app::{Managed, Place};
use crate::daemon::apps::{Apps, Source};
use crate::daemon::embedded::Embedded;
use crate::daemon::tables::Tables;
use crate::release::Layout;
use crate::router::{Config, Server};
use crate::traffic::Routers;

/// What the one public socket is called.
#[must_use]
pub fn listener(app: &App) -> &str {
    app.listener.as_deref().unwrap_or("http")
}

/// A deployer that runs.
pub struct Deployer {
    /// Sockets; its path is short, as theirs must be. It goes with the deployer.
    run: Scratch,
    address: SocketAddr,
    apps: Arc<Apps<Embedded>>,
    units: Embedded,
    router: Option<Server>,
    /// Keeps the table everywhere; ends with the runtime.
    _keeper: JoinHandle<()>,
    api: JoinHandle<()>,
    api_end: oneshot::Sender<()>,
}

impl Deployer {
    /// Starts to deploy an app, which has its ports, with its data in `data`, which is laid out so, behind a router with the settings of `machine` on these
    /// listeners, each with its name. What was active there before is started again.
    ///
    /// # Errors
    /// What could not be made or read, and where.
    pub async fn start(
        app: App,
        machine: Machine,
        data: &Path,
        layout: Layout,
        listeners: Vec<(String, TcpListener)>,
    ) -> anyhow::Result<Self> {
        let run = Scratch::make(&run_base())?;
        let socket = |path: &Path| -> anyhow::Result<()> {
            let parent = path.parent().unwrap_or(path);
            std::fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))
        };
        let control = run.path().join("router/1/control.sock");
        socket(&control)?;
        let config = Config {
            control: Some(control),
            ..Config::new(listeners).of(machine)
        };
        // It waits for its threads to be there.
        let router = tokio::task::spawn_blocking(|| Server::start(config)).await??;
        let address = *router
            .addresses()
            .first()
            .context("the router listens nowhere")?;

        std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        let routers = Routers::in_directory(run.path().join("router"));
        let tables = Arc::new(Tables::open(data.join("table.json"), routers, None).await);
        let place = Place {
            data: data.to_owned(),
            machine_boot: fresh_boot()?,
            layout,
        };
        let root = place.root(&app.name);
        let units = Embedded::new(
            Arc::new(app.clone()),
            root,
            run.path().to_owned(),
            std::env::vars_os().collect(),
        );
        let apps = {
            let units = units.clone();
            // There is one app, and it is the one that the children are of.
            let make = move |_: &App| units.clone();
            let source = Source::Only(Box::new(app));
            Arc::new(Apps::new(source, place, Arc::clone(&tables), make))
        };
        apps.load().await;
        if let (_, broken) = apps.all().await
            && let Some(why) = broken.into_values().next()
        {
            anyhow::bail!(why);
        }
        let keeper = tokio::spawn(async move { tables.keep_everywhere().await });

        let path = run.path().join("slotd.sock");
        let unix = tokio::net::UnixListener::bind(&path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        let api = Listeners {
            unix,
            tcp: Vec::new(),
        };
        let (api_end, ended) = oneshot::channel::<()>();
        let served = api::serve(api, Arc::clone(&apps), Access::own_user(), async {
            // A sender that was dropped says the same.
            let _ = ended.await;
        });
        let api = tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the API socket failed");
            }
        });
        Ok(Self {
            run,
            address,
            apps,
            units,
            router: Some(router),
            _keeper: keeper,
            api,
            api_end,
        })
    }

    /// Where requests are taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The app.
    ///
    /// # Errors
    /// It cannot be managed any more.
    pub async fn app(&self) -> anyhow::Result<Arc<Managed<Embedded>>> {
        Ok(self.apps.get(None).await?)
    }

    /// Where the API answers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.path().join("slotd.sock")
    }

    /// Takes no new connection, lets what is in flight end (for `limit` at most, where there is one), then stops the app. What is active
    /// stays so on disk. Dropping this future, or the deployer itself, ends everything at once.
    pub async fn end(mut self, limit: Option<Duration>) {
        if let Some(router) = self.router.take() {
            router.drain();
            let (tell, drained) = oneshot::channel();
            // A thread of its own: the runtime would wait for one of its, even when all is to end at once.
            std::thread::spawn(move || {
                router.wait();
                // Nobody may be waiting any more.
                let _ = tell.send(());
            });
            match limit {
                None => drop(drained.await),
                Some(limit) => drop(tokio::time::timeout(limit, drained).await),
            }
        }
        // From here on an end of a child is nobody's failure, and not to be remembered.
        let (apps, _) = self.apps.all().await;
        for app in apps {
            app.owner().end();
        }
        self.units.stop_all().await;
        drop(self.api_end);
        self.api.abort();
    }
}

/// Where a directory with a short path can be.
fn run_base() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|base| base.is_absolute() && base.as_os_str().len() < 40 && base.is_dir())
        .unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// Children never outlive their deployer, so for it each start is the machine's.
fn fresh_boot() -> anyhow::Result<String> {
    const UUID: &str = "/proc/sys/kernel/random/uuid";
    let uuid = std::fs::read_to_string(UUID).with_context(|| format!("cannot read {UUID}"))?;
    Ok(uuid.trim().to_owned())
}
