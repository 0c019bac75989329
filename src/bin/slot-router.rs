//! The data plane as a process: see [`slot::router`].

use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use slot::router::settings::Settings;
use slot::router::{Config, Server, Source, unit};
use slot::telemetry::message;

/// Passes HTTP/1.1 requests to the slots that a table names.
///
/// Under systemd the listeners are those of the socket units (LISTEN_FDS). SIGTERM drains: it
/// answers what it holds, waits for streams and WebSockets to end, and exits. `systemctl stop`
/// gives it TimeoutStopSec= for that; `slotctl router upgrade` as long as it takes.
#[derive(Parser)]
#[command(name = "slot-router", version)]
struct Arguments {
    /// Address to listen on, or NAME=ADDRESS; may be repeated
    #[arg(long, value_name = "[NAME=]ADDRESS")]
    listen: Vec<String>,
    /// File with the first routing table; without one, requests wait until a table is put
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// The machine's settings: limits, trusted peers, the PROXY protocol; if there is no such file, the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads that serve; one per processor if not given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    /// Where to make the control socket
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Write one line of JSON per request to standard output
    #[arg(long)]
    access_log: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    slot::telemetry::init("slot-router")?;
    unit::raise_open_files().context("cannot raise the limit of open files")?;
    let mut passed =
        unit::passed().context("cannot use the sockets that were passed (LISTEN_FDS)")?;
    for listen in &arguments.listen {
        let (name, address) = listen.split_once('=').unwrap_or(("http", listen));
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        passed.listeners.push((name.to_owned(), listener));
    }
    let names = passed.listeners.iter().map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.collect();
    let settings = arguments.config.as_deref();
    let settings = settings.map(|file| Settings::read(file, &names));
    let Settings { machine, problem } = settings.transpose()?.unwrap_or_default();
    if let Some(problem) = &problem {
        tracing::error!(message_id = message::id("router-settings"), "{problem}");
    }
    let config = Config {
        table: arguments.table.map_or(Source::None, Source::File),
        control: arguments.control,
        threads: arguments.threads,
        access_log: arguments.access_log,
        attend: true,
        draining: passed.draining,
        left: passed.left,
        book: passed.book,
        problem,
        ..Config::new(passed.listeners).of(machine)
    };
    let accepts = config.draining.is_none();
    let server = Server::start(config)?;
    for address in server.addresses().iter().filter(|_| accepts) {
        tracing::info!("accepting on {address}");
    }
    server.wait();
    Ok(())
}
