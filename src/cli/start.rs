//! `slotctl start`: the app of the project here, deployed by this process, where no systemd runs (a container, a laptop).
//!
//! **Invariant:** the first signal lets everything in flight end, the second waits for nothing.

use std::io::stderr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::app::ports;
use super::args::{Start, Wait};
use super::client::Client;
use super::deploy::{named, path_of};
use super::deployer::{Deployer, listener};
use super::exit::Exit;
use super::follow::attempt;
use super::outcome;
use super::pack::{Packing, Upload};
use super::progress::Screen;
use super::project::{FILE, Project, here};
use super::status::now_ms;
use super::term::{Paint, note};
use crate::config::{App, Bind, Machine, SlotMachine, slot_machine};
use crate::release::Layout;
use crate::wire::api::Status;

/// Where a project's releases and state are, beside its file.
pub(super) const DATA: &str = ".slot";

/// Where slotd's API is found in it.
pub(super) const SOCKET: &str = "slotd.sock";

/// Where requests are taken unless that is said.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Runs until it is told to end.
///
/// # Errors
/// If the file or the path is refused, or something cannot be had; if the first deployment cannot be begun.
pub fn run(options: &Start) -> anyhow::Result<Exit> {
    crate::telemetry::init("slotctl")?;
    let file = config(options)?;
    let text = std::fs::read_to_string(&file).map_err(|error| {
        Exit::Input.because(format!(
            "cannot read {}: {error}; `slotctl init` writes one",
            file.display()
        ))
    })?;
    if SlotMachine::is_meant(&text) || options.repo.is_some() || options.port.is_some() {
        return super::machine::start(options, &file, &text);
    }
    let project = Project::read(&file)?;
    let source = options.path.as_deref().map(Upload::look_over).transpose()?;
    // What a setup_command makes is not there yet.
    if let Some(source) = source
        .as_ref()
        .filter(|_| project.app.setup_command.is_none())
    {
        source.check_command(&project.app.command, &project.file)?;
    }
    let machine = match &options.machine {
        Some(file) => machine(file, &project.app)?,
        None => Machine::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(options, project, machine, source));
    // A child that does not end, or an upload, holds nobody up: what is left ends with this process.
    runtime.shutdown_background();
    ended
}

/// The file that is meant.
fn config(options: &Start) -> anyhow::Result<PathBuf> {
    if let Some(file) = &options.config {
        return Ok(file.clone());
    }
    here()?;
    [FILE, slot_machine::FILE]
        .into_iter()
        .map(PathBuf::from)
        .find(|file| file.exists())
        .ok_or_else(|| {
            Exit::Input.because(format!(
                "there is neither {FILE} nor {} here; write one with `slotctl init` or `slotctl init --format json`, or name a file \
                 with --config",
                slot_machine::FILE
            ))
        })
}

pub(super) fn machine(file: &Path, app: &App) -> anyhow::Result<Machine> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Exit::Input.because(format!("cannot read {shown}: {error}")))?;
    Ok(Machine::parse(&text, &shown, Some(&[listener(app)]))?)
}

async fn serve(
    options: &Start,
    project: Project,
    machine: Machine,
    source: Option<Upload>,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::new()?;
    let file = project.file.display().to_string();
    let mut app = project.app;
    if app.bind == Bind::Port {
        let chosen = ports::choose(&app, &app.name.clone(), &file, None)?;
        app.ports.extend(chosen);
    }
    if let Some(user) = &app.user {
        note(&format!(
            "{file}: user = \"{user}\" is for units; here the app runs as the user that started slotctl\n"
        ));
    }
    if std::mem::take(&mut app.after.frozen) {
        note(&format!(
            "{file}: keep_warm_frozen is for units, whose control groups can be frozen; here the old slot is kept, and runs\n"
        ));
    }
    let (data, _lock) = data_directory(&match &options.data {
        Some(data) => data.clone(),
        None => project.file.canonicalize()?.with_file_name(DATA),
    })?;
    let public = listen(options.listen.unwrap_or(LISTEN), "--listen 127.0.0.1:PORT")?;
    let name = app.name.to_string();
    let drain = app.drain.by_class().last();
    let listeners = vec![(listener(&app).to_owned(), public)];
    let deployer = Deployer::start(app, machine, &data, Layout::Slot, listeners).await?;
    let socket = reachable_socket(&deployer, &data);
    let here = match (&options.data, project.file == Path::new(FILE)) {
        (None, true) => "slotctl status (here and below), or anywhere: ",
        _ => "",
    };
    note(&format!(
        "{name} is served at http://{}/\nask it with: {here}slotctl --socket {} status\n",
        deployer.address(),
        shell_words::quote(&socket.to_string_lossy()),
    ));
    if let Some(source) = source {
        let client = Client::new(&deployer.socket(), Some(&name));
        tokio::select! {
            deployed = deploy(&client, source, &name) => deployed?,
            () = signals.next() => {}
        }
    }
    signals.next().await;
    note("ending when what is in flight has ended; once more to end now\n");
    tokio::select! {
        () = deployer.end(drain) => Ok(Exit::Ok),
        () = signals.next() => Ok(Exit::Interrupted),
    }
}

/// Deploys what was named on the command line, and shows what came of it; the deployer goes on in any case.
async fn deploy(client: &Client, source: Upload, name: &str) -> anyhow::Result<()> {
    let mut screen = Screen::new(false);
    let path = path_of("/deploy", &named(&source));
    let (body, packing) = source.body()?;
    let (sent, size) = packing.counter();
    let ended = attempt(
        client,
        client.post(&path, body),
        || Some(Packing::progress(&sent, size)),
        Wait::Switched,
        &mut screen,
    )
    .await?;
    let status: Option<Status> = client.get("/status").await.ok();
    note(&outcome::screen(
        name,
        &ended,
        status.as_ref(),
        now_ms(),
        Paint::of(&stderr()),
    ));
    Ok(())
}

/// The directory of releases and state, and the lock that makes it one deployer's.
pub(super) fn data_directory(data: &Path) -> anyhow::Result<(PathBuf, Flock<std::fs::File>)> {
    std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let data = data
        .canonicalize()
        .with_context(|| format!("cannot find {}", data.display()))?;
    // Releases are nothing to commit.
    let ignore = data.join(".gitignore");
    if !ignore.exists() {
        std::fs::write(&ignore, "*\n")
            .with_context(|| format!("cannot write {}", ignore.display()))?;
    }
    let path = data.join("lock");
    let lock =
        std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok((data, lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Exit::Busy.because(format!(
            "another `slotctl start` has its data in {}; ask it with `slotctl --socket {} status`, or end it",
            data.display(),
            data.join(SOCKET).display()
        ))),
        Err((_, error)) => {
            Err(anyhow::Error::from(error).context(format!("cannot lock {}", path.display())))
        }
    }
}

/// Listens; `otherwise` is where another address can be said.
pub(super) fn listen(address: SocketAddr, otherwise: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                let holders: Vec<String> = super::listeners::holders(address.port())
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                format!(
                    "{}; end that, or listen elsewhere: {otherwise}",
                    match holders.is_empty() {
                        true => "another process listens there".to_owned(),
                        false => format!("{} listens there", holders.join(" and ")),
                    }
                )
            }
            _ => format!("{error}; listen elsewhere: {otherwise}"),
        };
        Exit::Input.because(format!("cannot listen on {address}: {remedy}"))
    })
}

/// The API's socket under a name that stays, where that is not too long to connect to (unix(7)).
pub(super) fn reachable_socket(deployer: &Deployer, data: &Path) -> PathBuf {
    let (socket, name) = (deployer.socket(), data.join("slotd.sock"));
    // Whatever it was, it is of a deployer that has ended.
    let _ = std::fs::remove_file(&name);
    let made = std::os::unix::fs::symlink(&socket, &name).is_ok();
    if made && name.as_os_str().len() < 108 {
        name
    } else {
        socket
    }
}

/// Ctrl-C, or what a container's runtime sends.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
