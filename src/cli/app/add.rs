//! `slotctl app add`: a project's slot.toml becomes an app of this machine.
//!
//! **Invariant:** everything is checked before anything is written, and each step may be done twice: after a failure half-way the
//! same command finishes the work.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::Context;
use nix::libc;
use nix::unistd::Group;

use super::super::args::Global;
use super::super::client::{Client, RETRY, empty};
use super::super::exit::Exit;
use super::super::project::Project;
use super::super::term::{note, say, say_json};
use super::loaded::check_user;
use super::{
    APPS, UNITS, file_of, is_machines_own, names, ports, public, ready_to_change, systemctl,
};
use crate::config::{App, with_ports};
use crate::daemon::tables::fit;
use crate::deploy::AppName;
use crate::store::replace;
use crate::telemetry::chain;
use crate::units::{
    POLKIT_RULES, STATE, polkit_rule, polkit_rule_path, watch_triggers, watch_units,
};
use crate::wire::api::Status;

/// Tries to reach slotd after it was started: 10 s.
const TRIES: u32 = 50;

/// Registers the app and shows it.
///
/// # Errors
/// If something is refused or fails.
pub async fn run(global: &Global, project: &Project, name: &AppName) -> anyhow::Result<Exit> {
    let status = register(global, name, project).await?;
    if global.json {
        say_json(&status)?;
    } else {
        let addresses = if status.addresses.is_empty() {
            public::addresses()
        } else {
            status.addresses
        };
        say(&format!(
            "{name} is registered: {}\n  {}\n  deploy it with `slotctl deploy PATH`\n",
            file_of(name).display(),
            addresses.join(" ")
        ))?;
    }
    Ok(Exit::Ok)
}

/// Registers the app, or takes over what changed in its project's file.
///
/// # Errors
/// If something is refused or fails.
pub async fn register(
    global: &Global,
    name: &AppName,
    project: &Project,
) -> anyhow::Result<Status> {
    let (file, installed_file) = (project.file.display().to_string(), file_of(name));
    ready_to_change(&format!("register {name}"))?;
    if !is_machines_own(global.socket()) {
        return Err(Exit::Usage.because(format!(
            "apps are registered with the slotd of this machine, and --socket {} is another",
            global.socket().display()
        )));
    }
    // So that units of a file that was removed by hand are gone before names are compared.
    systemctl(&["daemon-reload"])?;
    let installed = read_installed(name);
    let rule = polkit_rule_path(name);
    // What has slot's rule is slot's, even where its file was removed by hand.
    if !installed_file.exists() && !rule.exists() {
        let said_by = if project.app.name == *name {
            &file
        } else {
            "--app"
        };
        names::check_free(name, said_by)?;
    }
    let chosen = ports::choose(&project.app, name, &file, installed.as_ref())?;
    let text = with_ports(&project.text, &file, name, &chosen)?;
    let app = App::parse(&text, &file)?;
    app.check_installed(&installed_file.display().to_string())?;
    check(&app, &file)?;
    public::check()?;

    note(&format!(
        "registering {name} ({})\n",
        installed_file.display()
    ));
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(APPS)
        .with_context(|| format!("cannot make {APPS}"))?;
    own_directory(name)?;
    replace(&installed_file, text.as_bytes(), 0o644)?;
    systemctl(&["daemon-reload"])?;
    allow(&app)?;
    let mut words = vec!["enable", "--now"];
    words.extend(UNITS);
    systemctl(&words)?;
    let status = reload(&Client::new(global.socket(), Some(name.as_str()))).await?;
    watch(&app)?;
    Ok(status)
}

/// Refuses what no slot could be started with, or nobody could reach.
pub(super) fn check(app: &App, file: &str) -> anyhow::Result<()> {
    check_env_file(app, file)?;
    check_deploy_key(app, file)?;
    check_secrets(app, file)?;
    check_routes(app, file)?;
    check_listener(app, file)?;
    check_user(app, file)
}

/// Lets slotd start the app's units, which are installed.
pub(super) fn allow(app: &App) -> anyhow::Result<()> {
    let rule = polkit_rule_path(&app.name);
    if !Path::new(POLKIT_RULES).is_dir() {
        return Err(Exit::Failed.because(format!(
            "cannot write {}: polkit is not installed, and without it slotd may start no unit; `apt install polkitd`",
            rule.display()
        )));
    }
    let text = polkit_rule(app);
    // polkitd reads all rules again whenever one is written.
    if fs::read_to_string(&rule).is_ok_and(|there| there == text) {
        return Ok(());
    }
    Ok(replace(&rule, text.as_bytes(), 0o644)?)
}

/// Starts what deploys it by itself, and stops what did before.
pub(super) fn watch(app: &App) -> anyhow::Result<()> {
    systemctl(&["stop", &watch_units(&app.name)])?;
    let triggers = watch_triggers(app);
    if triggers.is_empty() {
        return Ok(());
    }
    let mut words = vec!["start"];
    words.extend(triggers.iter().map(String::as_str));
    systemctl(&words).map(|_| ())
}

/// Refuses an `env_file` that is not there: no slot would start without it.
fn check_env_file(app: &App, file: &str) -> anyhow::Result<()> {
    match app.env_file.as_deref().filter(|path| path.starts_with('/')) {
        Some(path) if !Path::new(path).is_file() => Err(Exit::Input.because(format!(
            "{file}: env_file: there is no file {path}; make it (`install -m 0600 FILE {path}`), or remove the key"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a key that no fetch could use, or that others may read.
fn check_deploy_key(app: &App, file: &str) -> anyhow::Result<()> {
    let Some(remote) = &app.remote else {
        return Ok(());
    };
    if let Some(problem) = remote.key_problem() {
        return Err(Exit::Input.because(format!("{file}: git.deploy_key: {problem}")));
    }
    match remote.known_hosts.as_deref() {
        Some(path) if !Path::new(path).is_file() => Err(Exit::Input.because(format!(
            "{file}: git.known_hosts: there is no file {path}; `ssh-keyscan HOST` prints what belongs there, once compared with what the \
             host's owner says; or remove the key for /etc/ssh/ssh_known_hosts"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a secret that is not there, without which nothing would be sent, or that everybody may read.
fn check_secrets(app: &App, file: &str) -> anyhow::Result<()> {
    for receiver in &app.notices {
        let Some(path) = receiver.secret_file.as_deref() else {
            continue;
        };
        let absent = || {
            format!(
                "there is no file {path}; make one that is root's: `(umask 077; openssl rand -hex 32 >{path})`"
            )
        };
        let problem = match Path::new(path).is_file() {
            true => receiver.secret_problem(),
            false => Some(absent()),
        };
        if let Some(problem) = problem {
            return Err(Exit::Input.because(format!("{file}: notices.secret_file: {problem}")));
        }
    }
    Ok(())
}

/// Refuses a `listener` that no socket of the router has: nobody would reach the app.
fn check_listener(app: &App, file: &str) -> anyhow::Result<()> {
    let Some(listener) = &app.listener else {
        return Ok(());
    };
    let known = public::listeners()?;
    if known.is_empty() || known.contains(listener) {
        return Ok(());
    }
    Err(Exit::Input.because(format!(
        "{file}: listener: the router has no socket with FileDescriptorName={listener}; write one of {}, or remove the key for all of \
         them; slot-router(8) says how to add a socket",
        known.join(", ")
    )))
}

/// Refuses an app whose hosts and paths another app has, or that the routers could not have: they would refuse the whole table.
fn check_routes(app: &App, file: &str) -> anyhow::Result<()> {
    let files = fs::read_dir(APPS).into_iter().flatten().flatten();
    let others = files.filter_map(|entry| {
        let other = entry.path().file_stem()?.to_str()?.parse().ok()?;
        read_installed(&other).filter(|other| other.name != app.name)
    });
    let apps: Vec<App> = others.chain([app.clone()]).collect();
    fit(&apps).map_err(|error| {
        Exit::Input.because(format!(
            "{file}: {}; change `hosts`, `paths` or `listener`, so that each request is for one app",
            chain(&error)
        ))
    })
}

/// What is installed under the name, if it can be read.
pub(super) fn read_installed(name: &AppName) -> Option<App> {
    let file = file_of(name);
    let text = fs::read_to_string(&file).ok()?;
    App::parse(&text, &file.display().to_string()).ok()
}

/// `/var/lib/slot/<app>`, which slotd fills and cannot replace: PID 1 mounts it into the app's view, so that a symlink in its
/// place could show the app anything.
fn own_directory(name: &AppName) -> anyhow::Result<()> {
    let path = Path::new(STATE).join(name.as_str());
    let about = || format!("cannot make {}", path.display());
    let slot = Group::from_name("slot")?.ok_or_else(|| {
        Exit::Failed.because(
            "there is no group slot; `systemd-sysusers` makes it when the package is installed",
        )
    })?;
    match DirBuilder::new().mode(0o1775).create(&path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).with_context(about),
        _ => give(&path, slot.gid.as_raw()).with_context(about),
    }
}

/// Gives a directory to root and a group that may write in it, each member what is his: deployers are in it too. It is opened once, so that what is given is the directory that was
/// looked at, and never what a symlink put in its place names.
fn give(path: &Path, group: u32) -> anyhow::Result<()> {
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| match error.kind() {
            ErrorKind::NotADirectory => Exit::Failed.because(format!(
                "{} is not a directory; move it away, it is the app's",
                path.display()
            )),
            _ => error.into(),
        })?;
    fchown(&directory, Some(0), Some(group))?;
    Ok(directory.set_permissions(Permissions::from_mode(0o1775))?)
}

/// Tells slotd, which may have been started just now.
async fn reload(client: &Client) -> anyhow::Result<Status> {
    for _ in 1..TRIES {
        match client.post("/reload", empty()).await {
            Err(error) if error.is_passing() => tokio::time::sleep(RETRY).await,
            told => return Ok(told?),
        }
    }
    Ok(client.post("/reload", empty()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_directory_itself_is_given_to_nobody() {
        let place = tempfile::tempdir().unwrap();
        let (other, link) = (place.path().join("other"), place.path().join("link"));
        fs::create_dir(&other).unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [&link, &file] {
            let error = give(path, 0).unwrap_err();
            assert!(error.to_string().contains("is not a directory"), "{error}");
        }
        let mode = fs::metadata(&other).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    }
}
