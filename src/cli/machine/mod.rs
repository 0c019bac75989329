//! Apps with a slot-machine.json: `start` runs one as slot-machine does, and `deploy`, `rollback` and `status` ask the one that runs.

pub mod ask;
mod ports;
mod repository;
mod words;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::args::Start;
use super::deployer::Deployer;
use super::exit::Exit;
use super::start::{Signals, data_directory, listen, reachable_socket};
use super::term::note;
use crate::api::machine::{Machine, serve};
use crate::config::{self, App, Semantics, SlotMachine};
use crate::daemon::embedded::Embedded;
use crate::release::Layout;
use crate::wire::machine::{Deployed, Status};
use repository::Repository;

pub use words::as_own;

/// Where releases and state are, in the repository.
const DATA: &str = ".slot-machine";

/// How long what is in flight may take when the daemon ends, before its app is told: that has a time of its own for it.
const END: Duration = Duration::from_secs(2);

/// How long the daemon takes to end at most.
const LAST: Duration = Duration::from_secs(9);

type Served = Machine<Embedded, Repository>;

/// What a file comes to.
struct Plan {
    app: App,
    public: SocketAddr,
    /// For `INTERNAL_PORT`.
    internal: Option<SocketAddr>,
    api: u16,
    data: PathBuf,
    repository: PathBuf,
}

impl Plan {
    fn read(options: &Start, file: &Path, text: &str) -> anyhow::Result<Self> {
        let here = super::project::here()?;
        let repository = options.repo.as_deref().unwrap_or(&here);
        let repository = repository.canonicalize().map_err(|error| {
            Exit::Input.because(format!(
                "cannot find the repository {}: {error}",
                repository.display()
            ))
        })?;
        let data = |name| match &options.data {
            Some(data) => data.clone(),
            None => repository.join(name),
        };
        let shown = file.display().to_string();
        if !SlotMachine::is_meant(text) {
            let mut app = App::parse(text, &shown)?;
            let chosen = super::app::ports::choose(&app, &app.name.clone(), &shown, None)?;
            app.ports.extend(chosen);
            // Staging is a work tree of the repository itself here.
            app.staging = None;
            return Ok(Self {
                app,
                public: options.listen.unwrap_or(super::start::LISTEN),
                internal: None,
                api: options.port.unwrap_or(config::slot_machine::API_PORT),
                data: data(super::start::DATA),
                repository,
            });
        }
        let SlotMachine {
            mut app,
            listen,
            port,
            internal_port,
            api_port,
            unknown,
            ignored_dirs,
        } = SlotMachine::parse(text, &shown, &repository)?;
        for key in unknown {
            note(&format!(
                "{shown}: {key} means nothing to slot, and changes nothing\n"
            ));
        }
        for path in ignored_dirs {
            note(&format!(
                "{shown}: shared_dirs: {path:?} is no directory of a release, and is passed over\n"
            ));
        }
        let public = options.listen.unwrap_or(SocketAddr::new(listen, port));
        ports::choose(&mut app, &[public.port(), internal_port])?;
        let internal = app.internal_listener.as_ref();
        Ok(Self {
            internal: internal.map(|_| SocketAddr::new(listen, internal_port)),
            app,
            public,
            api: options.port.unwrap_or(api_port),
            data: data(DATA),
            repository,
        })
    }

    /// How long the daemon waits for what is in flight when it ends, and for all of it; `None`: as long as that takes.
    fn ends_within(&self) -> (Option<Duration>, Option<Duration>) {
        match self.app.semantics {
            Semantics::SlotMachine => (Some(END), Some(LAST)),
            Semantics::Slot => (self.app.drain.by_class().last(), None),
        }
    }
}

/// Runs an app whose commits are deployed, until it is told to end: that of a slot-machine.json, or, with its own rules, of a slot.toml.
///
/// # Errors
/// If the file is refused, or something cannot be had.
pub fn start(options: &Start, file: &Path, text: &str) -> anyhow::Result<Exit> {
    if let Some(path) = &options.path {
        return Err(Exit::Usage.because(format!(
            "commits of a repository are deployed here, and {} is a path; leave it out, and name a commit with `slotctl deploy`",
            path.display()
        )));
    }
    let plan = Plan::read(options, file, text)?;
    let machine = match &options.machine {
        Some(file) => super::start::machine(file, &plan.app)?,
        None => config::Machine::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(options.no_deploy, plan, machine));
    // A child that does not end, or a request, holds nobody up: what is left ends with this process.
    runtime.shutdown_background();
    ended
}

async fn run(no_deploy: bool, plan: Plan, machine: config::Machine) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    let (data, _lock) = data_directory(&plan.data)?;
    let limits = plan.ends_within();
    let public = super::deployer::listener(&plan.app).to_owned();
    let mut listeners = vec![(
        public,
        listen(plan.public, "`port` in the file, or --listen")?,
    )];
    if let (Some(name), Some(at)) = (&plan.app.internal_listener, plan.internal) {
        listeners.push((name.clone(), listen(at, "`internal_port` in the file")?));
    }
    let api = ApiDoor::reserve(plan.api)?;
    let layout = Layout::SlotMachine;
    let shared_dirs = plan.app.shared_dirs.clone();
    let deployer = Deployer::start(plan.app, machine, &data, layout, listeners).await?;
    let socket = reachable_socket(&deployer, &data);
    let commits = Repository::new(&plan.repository, &data, shared_dirs);
    let machine = Machine::new(deployer.app().await?, commits, &data, socket.clone());
    tokio::select! {
        () = first(&machine, no_deploy) => {}
        () = signals.next() => return Ok(end(deployer, limits, &mut signals).await),
    }
    let api = api.open(Arc::clone(&machine))?;
    note(&format!(
        "{}\nask this daemon at http://{}/status, or with `slotctl --socket {} status`\n",
        standing(&machine.status().await, deployer.address(), no_deploy),
        api.address,
        shell_words::quote(&socket.to_string_lossy()),
    ));
    signals.next().await;
    note("ending when what is in flight has ended; once more to end now\n");
    // Whoever asks for something now is refused: nobody would carry it on.
    drop(api.end);
    api.served.abort();
    Ok(end(deployer, limits, &mut signals).await)
}

/// Brings up what was live, and ends what was under way, or deploys HEAD where nothing is live then.
async fn first(machine: &Arc<Served>, no_deploy: bool) {
    machine.settled().await;
    if no_deploy || machine.is_live() {
        return;
    }
    let (_, deployed) = machine.deploy("HEAD").await;
    note(&told(&deployed, "HEAD"));
}

/// Whether the app can be reached, and what to do where it cannot.
fn standing(status: &Status, at: SocketAddr, no_deploy: bool) -> String {
    if status.healthy {
        return format!("the app is served at http://{at}/");
    }
    if !status.live_slot.is_empty() {
        return format!(
            "{} is live and does not run, so http://{at}/ answers 503; `slotctl status` says why, and `slotctl deploy` starts HEAD",
            status.live_slot
        );
    }
    let first = match no_deploy {
        true => "",
        false => "correct what is said above, commit it, then ",
    };
    format!("nothing is live yet, so http://{at}/ answers 503; {first}`slotctl deploy`")
}

/// What came of a deployment, for people.
fn told(deployed: &Deployed, what: &str) -> String {
    if deployed.success {
        let commit = deployed.commit.get(..8).unwrap_or(&deployed.commit);
        let again = match deployed.previous_commit.as_ref() == Some(&deployed.commit) {
            true => " again: it was live before, and has been started anew",
            false => "",
        };
        return format!("deployed {commit} to {}{again}\n", deployed.slot);
    }
    let why = deployed.error.as_deref().unwrap_or("it does not say why");
    let mut text = format!("{what} was not deployed: {why}\n");
    for line in &deployed.log {
        text += &format!("  | {}\n", super::term::harmless(line));
    }
    text
}

async fn end(
    deployer: Deployer,
    (drain, all): (Option<Duration>, Option<Duration>),
    signals: &mut Signals,
) -> Exit {
    let ending = async {
        let ending = deployer.end(drain);
        match all {
            None => ending.await,
            Some(limit) => {
                if tokio::time::timeout(limit, ending).await.is_err() {
                    note("the app did not end in time, and was killed\n");
                }
            }
        }
    };
    tokio::select! {
        () = ending => Exit::Ok,
        () = signals.next() => Exit::Interrupted,
    }
}

/// The API's port, held from the start, so that a port that somebody has is said before anything is deployed, and answering only when
/// the first deployment has ended.
struct ApiDoor(socket2::Socket);

/// The API, which answers.
struct Api {
    address: SocketAddr,
    end: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl ApiDoor {
    fn reserve(port: u16) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // A socket that is bound and does not listen refuses connections; whether somebody else listens there, it does not say.
        drop(listen(address, "`api_port` in the file, or --port")?);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket
            .bind(&address.into())
            .with_context(|| format!("cannot have {address} for the API"))?;
        Ok(Self(socket))
    }

    fn open(self, machine: Arc<Served>) -> anyhow::Result<Api> {
        self.0.listen(1024).context("cannot listen for the API")?;
        self.0.set_nonblocking(true)?;
        let listener = TcpListener::from(self.0);
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (end, ended) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            let ended = async {
                // A sender that was dropped says the same.
                let _ = ended.await;
            };
            if let Err(error) = serve(listener, machine, ended).await {
                tracing::error!(%error, "the API failed");
            }
        });
        Ok(Api {
            address,
            end,
            served,
        })
    }
}

/// The slot-machine.json of the current directory or one above, unless a slot.toml is as near.
///
/// # Errors
/// There is no current directory.
pub fn find() -> anyhow::Result<Option<PathBuf>> {
    Ok(around(&super::project::here()?))
}

/// The slot-machine.json of a directory or one above, unless a slot.toml is as near.
#[must_use]
pub fn around(directory: &Path) -> Option<PathBuf> {
    let nearest = directory.ancestors().find_map(|folder| {
        [super::project::FILE, config::slot_machine::FILE]
            .into_iter()
            .map(|name| folder.join(name))
            .find(|file| file.is_file())
    });
    nearest.filter(|file| file.ends_with(config::slot_machine::FILE))
}
