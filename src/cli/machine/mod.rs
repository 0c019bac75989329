//! Apps with a slot-machine.json: `start` runs one as slot-machine does, and `deploy`, `rollback` and `status` ask the one that runs.

pub mod ask;
mod ports;
mod repository;

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
use super::start::{Signals, data_directory, listen};
use super::term::note;
use crate::api::machine::{Machine, serve};
use crate::config::{self, SlotMachine};
use crate::daemon::embedded::Embedded;
use crate::wire::machine::Deployed;
use repository::Repository;

/// Where releases and state are, in the repository.
const DATA: &str = ".slot-machine";

/// How long what is in flight may take when the daemon ends, before its app is told: that has a time of its own for it.
const END: Duration = Duration::from_secs(2);

/// How long the daemon takes to end at most.
const LAST: Duration = Duration::from_secs(9);

type Served = Machine<Embedded, Repository>;

/// Runs the app of a slot-machine.json until it is told to end.
///
/// # Errors
/// If the file is refused, or something cannot be had.
pub fn start(options: &Start, file: &Path, text: &str) -> anyhow::Result<Exit> {
    if let Some(path) = &options.path {
        return Err(Exit::Usage.because(format!(
            "{} deploys commits, and {} is a path; leave it out, and name a commit with `slotctl deploy`",
            file.display(),
            path.display()
        )));
    }
    let here = std::env::current_dir()?;
    let repository = options.repo.as_deref().unwrap_or(&here);
    let repository = repository.canonicalize().map_err(|error| {
        Exit::Input.because(format!(
            "cannot find the repository {}: {error}",
            repository.display()
        ))
    })?;
    let read = SlotMachine::parse(text, &file.display().to_string(), &repository)?;
    for key in &read.unknown {
        note(&format!(
            "{}: {key} means nothing to slot, and changes nothing\n",
            file.display()
        ));
    }
    let machine = match &options.machine {
        Some(file) => super::start::machine(file, &read.app)?,
        None => config::Machine::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(options, read, machine, &repository));
    // A child that does not end, or a request, holds nobody up: what is left ends with this process.
    runtime.shutdown_background();
    ended
}

async fn run(
    options: &Start,
    read: SlotMachine,
    machine: config::Machine,
    repository: &Path,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    let public = options
        .listen
        .unwrap_or(SocketAddr::new(read.listen, read.port));
    let (data, _lock) = data_directory(&match &options.data {
        Some(data) => data.clone(),
        None => repository.join(DATA),
    })?;
    let mut app = read.app;
    ports::choose(&mut app, &[public.port(), read.internal_port])?;
    let mut listeners = vec![(super::deployer::listener(&app).to_owned(), listen(public)?)];
    if let Some(name) = &app.internal_listener {
        let internal = SocketAddr::new(read.listen, read.internal_port);
        listeners.push((name.clone(), listen(internal)?));
    }
    let api = ApiDoor::reserve(options.port.unwrap_or(read.api_port))?;
    let deployer = Deployer::start(app, machine, &data, listeners).await?;
    let commits = Repository::new(repository, &data);
    let machine = Arc::new(Machine::new(deployer.app().await?, commits, &data));
    tokio::select! {
        () = first(&machine, options.no_deploy) => {}
        () = signals.next() => return Ok(end(deployer, &mut signals).await),
    }
    let api = api.open(Arc::clone(&machine))?;
    note(&format!(
        "the app is served at http://{}/\nask this daemon with `slotctl status`, or at http://{}/status\n",
        deployer.address(),
        api.address
    ));
    signals.next().await;
    note("ending when what is in flight has ended; once more to end now\n");
    // Whoever asks for something now is refused: nobody would carry it on.
    drop(api.end);
    api.served.abort();
    Ok(end(deployer, &mut signals).await)
}

/// Brings up what was live, or deploys HEAD where nothing was.
async fn first(machine: &Arc<Served>, no_deploy: bool) {
    if machine.is_live() {
        return machine.settled().await;
    }
    if no_deploy {
        return;
    }
    let (_, deployed) = machine.deploy("HEAD").await;
    note(&told(&deployed, "HEAD"));
}

/// What came of a deployment, for people.
fn told(deployed: &Deployed, what: &str) -> String {
    if deployed.success {
        let commit = deployed.commit.get(..8).unwrap_or(&deployed.commit);
        return format!("deployed {commit} to {}\n", deployed.slot);
    }
    let why = deployed.error.as_deref().unwrap_or("it does not say why");
    let mut text = format!("{what} was not deployed: {why}\n");
    for line in &deployed.log {
        text += &format!("  | {}\n", super::term::harmless(line));
    }
    text
}

async fn end(deployer: Deployer, signals: &mut Signals) -> Exit {
    tokio::select! {
        ended = tokio::time::timeout(LAST, deployer.end(Some(END))) => {
            if ended.is_err() {
                note("the app did not end in time, and was killed\n");
            }
            Exit::Ok
        }
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
        drop(listen(address)?);
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
    let here = std::env::current_dir()?;
    let nearest = here.ancestors().find_map(|folder| {
        [super::project::FILE, config::slot_machine::FILE]
            .into_iter()
            .map(|name| folder.join(name))
            .find(|file| file.is_file())
    });
    Ok(nearest.filter(|file| file.ends_with(config::slot_machine::FILE)))
}
