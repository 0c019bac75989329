//! `slotctl`: parse, ask slotd, render.
//!
//! One file per command ([`deploy`] has the four that change what serves, [`shares`] those that change who gets how much of it); [`client`] asks, [`follow`] watches an attempt,
//! [`outcome`], [`status`] and [`progress`] are what is seen.
//!
//! **Invariant:** nothing is decided here: slotd refuses or agrees, and slotctl says which and what to do next.

pub mod app;
pub mod archive;
pub mod args;
mod auto;
pub mod build;
pub mod chosen;
pub mod client;
mod complete;
mod config;
pub mod connections;
pub mod demo;
pub mod deploy;
pub mod deployer;
mod doctor;
mod examples;
pub mod exit;
mod fetch;
pub mod follow;
mod hold;
mod hook;
mod inet;
pub mod init;
pub mod large;
pub mod launch;
mod listener;
pub mod listeners;
pub mod logs;
pub mod machine;
mod notify;
pub mod outcome;
pub mod pack;
pub mod pages;
pub mod progress;
pub mod project;
pub mod ps;
mod random;
pub mod releases;
pub mod router;
pub mod scratch;
pub mod shares;
pub mod source;
pub mod stage;
pub mod start;
pub mod status;
pub mod term;
mod token;

use std::future::Future;
use std::io::stderr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{Cli, Command, Global, Launch};
use client::{Client, ClientError};
use exit::Exit;
use term::{Paint, note, say_json};

use crate::deploy::{AppName, Hook};
use crate::telemetry::chain;
use crate::wire::api::Problem;

/// slotctl, from its arguments to its exit status.
#[must_use]
pub fn main() -> ExitCode {
    // A shell asks what could be written next; then that is all.
    complete::answer();
    if std::env::args_os().len() < 2 {
        // clap's own way would take SLOT_SOCKET in the environment for an argument.
        note(&Cli::command().render_help().to_string());
        return Exit::Usage.into();
    }
    let cli = match Cli::try_parse_from(machine::as_own(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            let exit = Exit::of(&error);
            tell(&error, exit, cli.global.json);
            exit.into()
        }
    }
}

/// What clap says: help and the version on stdout, an error on stderr, or as JSON on stdout where that is asked for.
fn misused(error: &clap::Error) -> ExitCode {
    // There is nothing parsed to ask. What follows `--` is another program's.
    let mut words = std::env::args_os().take_while(|word| word != "--");
    let is_unknown = error.kind() == ErrorKind::InvalidSubcommand;
    let is_json = error.use_stderr() && words.any(|word| word == "--json");
    if !is_json && !is_unknown {
        error.exit();
    }
    let text = error.to_string();
    let text = text.replacen("unrecognized subcommand", "unknown command", 1);
    if !is_json {
        note(&text);
        return Exit::Usage.into();
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.split("\n\nFor more information").next();
    let problem = Problem {
        success: false,
        code: Exit::Usage.code().to_owned(),
        error: text.unwrap_or_default().trim().to_owned(),
        ..Problem::default()
    };
    // A reader that has gone needs no answer.
    let _ = say_json(&problem);
    Exit::Usage.into()
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    let exit = match &cli.command {
        Command::Demo(options) => demo::run(options.once, global.json)?,
        Command::DemoApp => return demo::app::run(),
        Command::Start(options) => start::run(options)?,
        Command::Init(options) => init::run(global.app.as_ref(), options, global.json)?,
        Command::App(command) => wait_for(app::run(global, command))?,
        Command::Deploy(options) => match slot_machine(global, options.config.as_deref())? {
            Some(file) if options.is_plain() => {
                wait_for(machine::ask::deploy(&file, options, global.json))?
            }
            Some(file) => wait_for(deploy::deploy(&beside(global, &file)?, options))?,
            None => wait_for(deploy::deploy(global, options))?,
        },
        Command::Rollback(options) => match slot_machine(global, None)? {
            Some(file) if options.is_plain() => {
                wait_for(machine::ask::rollback(&file, global.json))?
            }
            _ => {
                let global = &reached(global)?;
                wait_for(deploy::rollback(global, &client(global)?, options))?
            }
        },
        Command::Promote(options) => {
            let aimed = options
                .slot
                .as_ref()
                .map(|slot| shares::aimed(global, slot));
            let global = &reached(&aimed.transpose()?.unwrap_or_else(|| global.clone()))?;
            wait_for(deploy::promote(global, &client(global)?, options))?
        }
        Command::Weight(options) => {
            let global = &reached(&shares::aimed(global, &options.slot)?)?;
            wait_for(shares::weight(global, &client(global)?, options))?
        }
        Command::Route(options) => {
            let global = shares::of_app(global, options.app.as_ref())?;
            let global = shares::aimed(&shares::aimed(&global, &options.from)?, &options.to)?;
            let global = &reached(&global)?;
            wait_for(shares::route(global, &client(global)?, options))?
        }
        Command::Abort(options) => {
            let global = &reached(&shares::of_app(global, options.app.as_ref())?)?;
            wait_for(shares::abort(global, &client(global)?, options))?
        }
        Command::Pause(options) => {
            let global = &reached(&shares::of_app(global, options.app.as_ref())?)?;
            wait_for(shares::pause(global, &client(global)?, options, true))?
        }
        Command::Resume(options) => {
            let global = &reached(&shares::of_app(global, options.app.as_ref())?)?;
            wait_for(shares::pause(global, &client(global)?, options, false))?
        }
        Command::Stop(options) => {
            let global = &reached(&shares::aimed(global, &options.slot)?)?;
            wait_for(shares::stop(global, &client(global)?, options))?
        }
        Command::Drain(options) => {
            let global = &reached(&shares::aimed(global, &options.slot)?)?;
            wait_for(deploy::drain(global, &client(global)?, options))?
        }
        Command::Ps => wait_for(ps::run(&client(&reached(global)?)?, global.json))?,
        Command::Status(options) if options.connections => {
            wait_for(connections::run(&client(&reached(global)?)?, global.json))?
        }
        Command::Status(_) => match slot_machine(global, None)? {
            Some(file) => wait_for(machine::ask::status(&file, global.json))?,
            None => wait_for(status::run(&client(global)?, global.json))?,
        },
        Command::Releases => wait_for(releases::run(&client(&reached(global)?)?, global.json))?,
        Command::Doctor(options) => wait_for(doctor::run(options, global.json))?,
        Command::Router(args::Router::Upgrade(options)) => {
            // It is the machine's, whatever project this directory is of.
            let client = Client::new(global.socket(), None);
            wait_for(router::upgrade(&client, options, global.json))?
        }
        Command::Token(args::Token::New(options)) => token::new(options, global.json)?,
        Command::Listener(command) => wait_for(listener::run(global, command))?,
        Command::Config(args::Config::Check(options)) => config::check(options, global.json)?,
        Command::Config(args::Config::Show(options)) => config::show(global, options)?,
        Command::Logs(options) => {
            match wait_for(logs::run(&client(&reached(global)?)?, options, global.json))? {}
        }
        Command::Launch(options) => return Ok(become_app(global, options)),
        Command::Build(options) => return Ok(build_release(global, options)),
        Command::Fetch(options) => return Ok(fetch_commit(global, options)),
        Command::Hook(options) => return Ok(run_hook(global, options)),
        Command::Hold(options) => {
            let client = client(&reached(global)?)?;
            wait_for(hold::hold(&client, options, global.json))?
        }
        Command::Unhold(options) => {
            let client = client(&reached(global)?)?;
            wait_for(hold::unhold(&client, options, global.json))?
        }
        Command::Auto(options) => {
            let client = Client::new(global.socket(), global.app.as_ref().map(AppName::as_str));
            wait_for(auto::run(
                &client,
                &auto::Request {
                    memory: options.memory.clone(),
                    windows: options.window.clone(),
                    path: options.path.clone(),
                },
            ))?
        }
        Command::Notify(options) => {
            let secrets = options.secret.iter().cloned();
            notify::run(&notify::Request {
                socket: global.socket().to_owned(),
                receivers: options.to.iter().cloned().collect(),
                secrets: secrets.map(|(key, path)| (key, path.into())).collect(),
            })?;
            Exit::Ok
        }
        Command::Inet => match inet::hand_out()? {},
        Command::Stage(options) => {
            let Some(app) = &global.app else {
                return Err(Exit::Usage.because("stage needs --app"));
            };
            stage::stage(&stage::Request {
                app: app.clone(),
                root: options.root.clone(),
                socket: global.socket().to_owned(),
                directory: options.directory.clone(),
                branch: options.branch.clone(),
                shared_dirs: options.shared_dir.clone(),
            })?;
            Exit::Ok
        }
        Command::Man(options) => {
            pages::man(&options.dir)?;
            Exit::Ok
        }
        Command::Completions(options) => {
            let mut script = Vec::new();
            complete::script(options.shell, &mut script)?;
            term::say(&String::from_utf8_lossy(&script))?;
            Exit::Ok
        }
    };
    Ok(exit.into())
}

/// Runs what asks slotd. One thread is enough to wait with.
fn wait_for<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(asking)
}

/// The slot-machine.json that a command means: the one that it names, or that of the project, unless an app or a socket is named.
fn slot_machine(global: &Global, named: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if global.app.is_some() || global.asked.is_some() {
        return Ok(None);
    }
    match named {
        Some(file) => Ok(project::is_slot_machine(file).then(|| file.to_owned())),
        None => machine::find(),
    }
}

/// Asks the daemon of a slot-machine.json, in slotd's own way.
fn beside(global: &Global, file: &Path) -> anyhow::Result<Global> {
    Ok(Global {
        asked: Some(wait_for(machine::ask::socket(file))?),
        ..global.clone()
    })
}

/// Asks slotd, or the daemon of the project's slot-machine.json.
fn reached(global: &Global) -> anyhow::Result<Global> {
    match slot_machine(global, None)? {
        Some(file) => beside(global, &file),
        None => Ok(global.clone()),
    }
}

/// slotd, or the daemon of the project's slot.toml, for the app that is meant.
fn client(global: &Global) -> anyhow::Result<Client> {
    let (app, project) = project::meant(global.app.as_ref())?;
    let global = project::reached(global, project.as_ref())?;
    Ok(Client::new(
        global.socket(),
        app.as_ref().map(AppName::as_str),
    ))
}

/// Becomes the app, or says why not with a status that systemd shows by name.
fn become_app(global: &Global, options: &Launch) -> ExitCode {
    let Some(app) = &global.app else {
        note("slotctl: launch needs --app\n");
        return Exit::Usage.into();
    };
    let Err(failure) = launch::launch(&launch::Request {
        app: app.clone(),
        slot: options.slot.clone(),
        root: options.root.clone(),
        env_file: options.env_file.clone(),
        shared_dirs: options.shared_dir.clone(),
        command: options.command.clone(),
    });
    note(&format!("slotctl: {}\n", chain(failure.error.as_ref())));
    ExitCode::from(failure.code)
}

/// Makes a release ready, or says why not; the status is that of the app's own command where that ran.
fn build_release(global: &Global, options: &args::Build) -> ExitCode {
    let Some(app) = &global.app else {
        note("slotctl: build needs --app\n");
        return Exit::Usage.into();
    };
    match build::build(&build::Request {
        app: app.clone(),
        root: options.root.clone(),
        socket: global.socket().to_owned(),
        command: options.command.clone(),
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&format!("slotctl: {}\n", chain(failure.error.as_ref())));
            ExitCode::from(failure.code)
        }
    }
}

/// Runs a hook, or says why not; the status is that of the app's own command where that ran.
fn run_hook(global: &Global, options: &args::Hook) -> ExitCode {
    let Some(app) = &global.app else {
        note("slotctl: hook needs --app\n");
        return Exit::Usage.into();
    };
    let commands = [
        (Hook::BeforeDeploy, &options.before_deploy),
        (Hook::BeforeSwitch, &options.before_switch),
        (Hook::AfterSwitch, &options.after_switch),
        (Hook::AfterRollback, &options.after_rollback),
        (Hook::Check, &options.check),
    ];
    let ran = hook::run(&hook::Request {
        app: app.clone(),
        root: options.root.clone(),
        socket: global.socket().to_owned(),
        env_file: options.env_file.clone(),
        commands: commands
            .map(|(hook, command)| (hook.name(), command.clone()))
            .to_vec(),
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&format!("slotctl: {}\n", chain(failure.error.as_ref())));
            ExitCode::from(failure.code)
        }
    }
}

/// Fetches a commit, or says why not.
fn fetch_commit(global: &Global, options: &args::Fetch) -> ExitCode {
    let fetched = fetch::fetch(&fetch::Request {
        socket: global.socket().to_owned(),
        mirror: options.mirror.clone(),
        deploy_key: options.deploy_key.clone(),
        known_hosts: options.known_hosts.clone(),
        remote: options.remote.clone(),
    });
    match fetched {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&format!("slotctl: {}\n", chain(failure.error.as_ref())));
            ExitCode::from(failure.code)
        }
    }
}

/// Says what went wrong: one line or a screen on stderr, or slotd's own object on stdout.
fn tell(error: &anyhow::Error, exit: Exit, json: bool) {
    let text = chain(error.as_ref());
    if !json {
        note(&format!(
            "{} {text}\n",
            Paint::of(&stderr()).bad("slotctl:")
        ));
        return;
    }
    let problem = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Problem { problem, .. }) => Problem {
            // With what it was asked for.
            error: text,
            ..problem.clone()
        },
        _ => Problem {
            success: false,
            code: exit.code().to_owned(),
            error: text,
            ..Problem::default()
        },
    };
    // A reader that has gone needs no answer.
    let _ = say_json(&problem);
}
