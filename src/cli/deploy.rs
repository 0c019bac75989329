//! `slotctl deploy`, `rollback`, `promote`, `drain`: each asks for one thing and shows how it ended.

use std::io::{self, stderr, stdout};
use std::path::Path;

use serde::Serialize;

use super::app;
use super::args::{Deploy, Drain, Global, Promote, Rollback};
use super::chosen::Chosen;
use super::client::{Client, ClientError, empty};
use super::exit::Exit;
use super::follow::{Asked, ask, attempt};
use super::outcome;
use super::pack::{Packing, Upload};
use super::progress::Screen;
use super::project::{Project, is_slot_machine, reached};
use super::releases;
use super::status::{complete, now_ms, table};
use super::term::{Paint, harmless, note, say, say_json, width};
use crate::deploy::{AppName, Cause};
use crate::wire::api::{Begun, Outcome, Status};

/// How often a deploy is asked for again that waited for its turn, or whose release slotd had not got whole, or not built, when it was
/// restarted, for an upgrade of the package say.
const AGAIN: usize = 3;

/// Deploys a commit, a path, an archive, or a release that is on disk.
///
/// # Errors
/// If the path or the app's file is refused, if slotd is, or does.
pub async fn deploy(global: &Global, options: &Deploy) -> anyhow::Result<Exit> {
    let is_read = options.what.as_deref() == Some(Path::new("-"));
    let (mut options, mut left) = (options.clone(), AGAIN);
    loop {
        let (client, ended) = once(global, &options).await?;
        let can_repeat = left > 0 && !is_read;
        let why = match ended {
            Ended::Unbegun(_) if can_repeat => {
                "slotd was restarted before it was this deploy's turn; it waits again\n"
            }
            Ended::Unbegun(error) => return Err(error),
            Ended::With(outcome) if outcome.cause != Cause::Interrupted.code() || !can_repeat => {
                if is_read && outcome.cause == Cause::Interrupted.code() {
                    note(
                        "slotd was restarted while the release was being prepared, and standard input cannot be read a second \
                         time: run again what writes it, too\n",
                    );
                }
                return show(global, &client, &outcome).await;
            }
            Ended::With(outcome) => {
                // What was expected was so when the attempt began, and that one has the next number: nobody else may have begun any
                // since. A key is free again, since nothing came of it.
                if let Some(expected) = &mut options.depending.expecting.expected_generation {
                    *expected = outcome.generation;
                }
                "slotd was restarted while the release was being prepared; it is deployed again\n"
            }
        };
        left -= 1;
        note(why);
    }
}

/// What became of asking for a deployment.
enum Ended {
    /// It was begun, and ended so.
    With(Box<Outcome>),
    /// slotd was restarted while it waited for its turn, and nothing was begun since; what it said.
    Unbegun(anyhow::Error),
}

async fn once(global: &Global, options: &Deploy) -> anyhow::Result<(Client, Ended)> {
    let chosen = Chosen::of(options)?;
    let project = match &options.config {
        // A daemon of slot-machine's kind has its app already.
        Some(file) if is_slot_machine(file) => None,
        Some(file) => Some(Project::read(file)?),
        None => Project::find(chosen.path(options))?,
    };
    // What a setup_command makes is not there yet.
    let project_built = project.as_ref().filter(|it| it.app.setup_command.is_none());
    if let (Chosen::Upload(source), Some(project)) = (&chosen, project_built) {
        source.check_command(&project.app.command, &project.file)?;
    }
    let has_none = |project: &Project| {
        let meant = global
            .app
            .as_ref()
            .is_none_or(|named| *named == project.app.name);
        meant && project.app.remote.is_none()
    };
    let chosen = match chosen {
        // Before anything is registered for nothing.
        Chosen::RemoteOr(_, error) if project.as_ref().is_some_and(has_none) => return Err(error),
        chosen => chosen,
    };
    let global = &reached(global, project.as_ref())?;
    let client = reach(global, project.as_ref()).await?;
    app::listen(global.socket())?;
    let mut screen = Screen::new(global.json);
    let mut asked = queries(options);
    if let Some(label) = &options.label {
        asked.push(("label", label.to_string()));
    }
    let (body, packing) = match chosen {
        Chosen::Release(named) => {
            asked.push(("release", releases::meant(&client, &named).await?));
            return at_hand(global, options, client, &asked).await;
        }
        Chosen::Remote(named) => {
            asked.push(("remote", named.unwrap_or_default()));
            return at_hand(global, options, client, &asked).await;
        }
        Chosen::RemoteOr(named, error) => {
            let status: Status = client.get("/status").await?;
            if status.remote.is_none() {
                return Err(error);
            }
            asked.push(("remote", named.unwrap_or_default()));
            return at_hand(global, options, client, &asked).await;
        }
        Chosen::Commit(checkout) => {
            asked.extend(checkout.queries());
            let (body, packing, size) = checkout.body(&client, options, &mut screen).await?;
            asked.extend(size.map(|size| ("size", size.to_string())));
            (body, packing)
        }
        Chosen::Upload(source) => {
            asked.extend(named(&source));
            if let Some(size) = source.size() {
                asked.push(("size", size.to_string()));
            }
            source.body()?
        }
    };
    let (sent, size) = packing.counter();
    let path = path_of("/deploy", &asked);
    let before = before(&client, options).await;
    let ended = attempt(
        &client,
        client.post_once(&path, options.depending.idempotency_key.as_ref(), body),
        || Some(Packing::progress(&sent, size)),
        options.watching.wait,
        &mut screen,
    )
    .await;
    match or_interrupted(&client, before, ended).await {
        Ok(Ended::Unbegun(error)) => match packing.error() {
            Some(ours) => Err(unread(&ours)),
            None => Ok((client, Ended::Unbegun(error))),
        },
        Ok(ended) => Ok((client, ended)),
        Err(error) => Err(explain(&client, packing, error).await),
    }
}

/// The app's generation before a deploy that waits for its turn. One that does not is begun or refused at once.
async fn before(client: &Client, options: &Deploy) -> Option<u64> {
    options.queue.as_ref()?;
    let status: Status = client.get("/status").await.ok()?;
    Some(status.generation)
}

/// What became of an attempt of this process of which slotd has not said so, if that was because of a restart.
async fn or_interrupted(
    client: &Client,
    before: Option<u64>,
    ended: anyhow::Result<Outcome>,
) -> anyhow::Result<Ended> {
    let error = match ended {
        Ok(outcome) => return Ok(Ended::With(Box::new(outcome))),
        Err(error) => error,
    };
    let told = error.downcast_ref::<ClientError>();
    if !told.is_some_and(|error| error.is_passing() || error.is_gone()) {
        return Err(error);
    }
    let Ok(status) = client.get::<Status>("/status").await else {
        return Err(error);
    };
    if before == Some(status.generation) {
        return Ok(Ended::Unbegun(error));
    }
    let is_it = |last: &Outcome| {
        last.cause == Cause::Interrupted.code() && last.initiated_by.ends_with(&own())
    };
    match status.last.filter(is_it) {
        Some(last) => Ok(Ended::With(Box::new(last))),
        None => Err(error),
    }
}

/// How slotd names who is this process.
fn own() -> String {
    format!("(pid {})", std::process::id())
}

/// Deploys what need not be sent.
async fn at_hand(
    global: &Global,
    options: &Deploy,
    client: Client,
    asked: &[(&str, String)],
) -> anyhow::Result<(Client, Ended)> {
    let before = before(&client, options).await;
    let mut screen = Screen::new(global.json);
    let path = path_of("/deploy", asked);
    let key = options.depending.idempotency_key.as_ref();
    let begin = client.post_once(&path, key, empty());
    let wait = options.watching.wait;
    let ended = attempt(&client, begin, || None, wait, &mut screen).await;
    let ended = or_interrupted(&client, before, ended).await?;
    Ok((client, ended))
}

fn queries(options: &Deploy) -> Vec<(&'static str, String)> {
    let spans = [("drain", &options.drain), ("queue", &options.queue)].into_iter();
    let mut asked: Vec<_> = spans
        .filter_map(|(key, span)| span.as_ref().map(|span| (key, span.text.clone())))
        .collect();
    asked.extend(options.weight.map(|weight| ("weight", weight.to_string())));
    asked.extend(options.force.then(|| ("force", "true".to_owned())));
    asked.extend(options.at_once.then(|| ("at_once", true.to_string())));
    asked.extend(skipped(options));
    asked.extend(options.depending.expecting.queries());
    asked
}

/// The checks that are left out.
pub(super) fn skipped(options: &Deploy) -> Option<(&'static str, String)> {
    let words = options.skip_check.iter().map(|check| check.word());
    let words: Vec<&str> = words.collect();
    (!words.is_empty()).then(|| ("skip", words.join(",")))
}

/// What is noted of where a release comes from.
pub(super) fn named(source: &Upload) -> [(&'static str, String); 2] {
    let (origin, name) = source.origin();
    [("origin", origin.to_owned()), ("name", name)]
}

/// A path with a query, whose values may be anything (RFC 3986, 2.1).
pub(super) fn path_of(path: &str, asked: &[(&str, String)]) -> String {
    let mut whole = path.to_owned();
    for (number, (key, value)) in asked.iter().enumerate() {
        whole.push(if number == 0 { '?' } else { '&' });
        whole.push_str(key);
        whole.push('=');
        for byte in value.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' | b'/' => whole.push(byte.into()),
                byte if byte.is_ascii_alphanumeric() => whole.push(byte.into()),
                byte => whole.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    whole
}

/// The app that is meant, which slotd knows by now: it is registered if it was not and its file is at hand.
async fn reach(global: &Global, project: Option<&Project>) -> anyhow::Result<Client> {
    let Some(name) = meant(global, project) else {
        // Then slotd's only one, or the one called `slot`.
        let client = Client::new(global.socket(), None);
        return match client.get::<Status>("/status").await {
            Ok(status) => Ok(Client::new(global.socket(), Some(&status.app))),
            Err(error) => Err(Exit::Input.because(format!(
                "there is no slot.toml here or above, and slotd does not say which app is meant: {error}; write one with `slotctl init`, \
                 or name an app that is registered with --app"
            ))),
        };
    };
    let client = Client::new(global.socket(), Some(name.as_str()));
    let mut told = client.get::<Status>("/status").await;
    if told.as_ref().is_err_and(ClientError::is_not_taken_up) {
        // To look at an app does not take it up.
        told = client.post("/reload", empty()).await;
    }
    match (told, project) {
        (Err(error), project) => register(global, &client, &name, project, error).await?,
        (Ok(status), Some(project)) if !project.is_of_another(&name) => {
            app::changes::take_over_or_tell(global, &name, project, &status).await?;
        }
        (Ok(_), _) => {}
    }
    Ok(client)
}

fn meant(global: &Global, project: Option<&Project>) -> Option<AppName> {
    let of_project = || project.map(|project| project.app.name.clone());
    global.app.clone().or_else(of_project)
}

/// A deploy of an app that slotd does not have registers it, where that is the machine's own slotd.
async fn register(
    global: &Global,
    client: &Client,
    name: &AppName,
    project: Option<&Project>,
    error: ClientError,
) -> anyhow::Result<()> {
    let unknown = error.is_no_such_app();
    if !(unknown || error.is_passing()) || !app::is_machines_own(client.socket()) {
        return Err(error.into());
    }
    let absent = unknown || !app::is_registered(name);
    if let Some(project) = project.filter(|project| absent && project.is_of_another(name)) {
        return Err(Exit::Input.because(format!(
            "{} is of the app {}, and --app names {name}, which is not registered; leave --app out, or register that file under this \
             name too: `sudo slotctl --app {name} app add {0}`",
            project.file.display(),
            project.app.name
        )));
    }
    let Some(project) = project else {
        return Err(anyhow::Error::from(error).context(format!("cannot deploy to {name}")));
    };
    if !nix::unistd::geteuid().is_root() {
        if unknown {
            return Err(Exit::Forbidden.because(format!(
                "app {name} is not registered, and that takes root; `sudo slotctl app add {}`, once, or `sudo slotctl deploy …`",
                project.file.display()
            )));
        }
        return Err(error.into());
    }
    app::add::register(global, name, project).await?;
    Ok(())
}

fn unread(ours: &io::Error) -> anyhow::Error {
    Exit::Input.because(format!("{ours}; nothing was deployed"))
}

/// An upload that broke off has its reason on this side, or slotd had one and could not say it.
pub(super) async fn explain(
    client: &Client,
    packing: Packing,
    error: anyhow::Error,
) -> anyhow::Error {
    let broken = error
        .downcast_ref::<ClientError>()
        .is_some_and(|error| matches!(error, ClientError::Broken { .. }));
    if !broken {
        return error;
    }
    if let Some(ours) = packing.error() {
        return unread(&ours);
    }
    let status = client.get::<Status>("/status").await.ok();
    // Not the one that was begun by this very upload.
    match status.and_then(|status| status.deployment) {
        Some(held) if !held.by.ends_with(&own()) => Exit::Busy.because(format!(
            "a deployment is in progress: generation {}, begun by {}, phase {}; wait for it, or watch it with `slotctl status`",
            held.generation, held.by, held.phase
        )),
        _ => error,
    }
}

/// Makes the previous release active, or the one that is named.
///
/// # Errors
/// If slotd refuses.
pub async fn rollback(
    global: &Global,
    client: &Client,
    options: &Rollback,
) -> anyhow::Result<Exit> {
    let mut screen = Screen::new(global.json);
    let mut asked = options.depending.expecting.queries();
    if let Some(to) = &options.to {
        asked.push(("to", releases::meant(client, to).await?));
    }
    let begun = ask(
        client,
        client.post_once(
            &path_of("/rollback", &asked),
            options.depending.idempotency_key.as_ref(),
            empty(),
        ),
        || None,
        options.watching.wait,
        &mut screen,
    )
    .await?;
    show_asked(global, client, begun).await
}

/// Shows how an attempt ended, or that none was needed.
async fn show_asked(global: &Global, client: &Client, asked: Asked) -> anyhow::Result<Exit> {
    let begun = match asked {
        Asked::Ended(outcome) => return show(global, client, &outcome).await,
        Asked::Already(begun) => begun,
    };
    if global.json {
        say_json(&Nothing {
            success: true,
            begun,
        })?;
    } else {
        say(&format!(
            "{}\n",
            harmless(&begun.already.unwrap_or_default())
        ))?;
    }
    Ok(Exit::Ok)
}

/// That there was nothing to do, in JSON.
#[derive(Serialize)]
struct Nothing {
    success: bool,
    #[serde(flatten)]
    begun: Begun,
}

/// Makes a candidate at a weight, or a slot that stands by, active.
///
/// # Errors
/// If slotd refuses.
pub async fn promote(global: &Global, client: &Client, options: &Promote) -> anyhow::Result<Exit> {
    let mut screen = Screen::new(global.json);
    let mut queries = options.depending.expecting.queries();
    let slot = options.slot.as_ref();
    queries.extend(slot.map(|slot| ("slot", slot.name.clone())));
    let path = path_of("/promote", &queries);
    let key = options.depending.idempotency_key.as_ref();
    let asked = ask(
        client,
        client.post_once(&path, key, empty()),
        || None,
        options.watching.wait,
        &mut screen,
    )
    .await?;
    show_asked(global, client, asked).await
}

/// Cuts what a slot still drains.
///
/// # Errors
/// If slotd refuses.
pub async fn drain(global: &Global, client: &Client, options: &Drain) -> anyhow::Result<Exit> {
    let mut asked = options.expecting.queries();
    asked.push(("slot", options.slot.name.clone()));
    let status: Status = client.post(&path_of("/drain", &asked), empty()).await?;
    if global.json {
        say_json(&status)?;
    } else {
        say(&table(&status, now_ms(), Paint::of(&stdout()), width()))?;
    }
    Ok(Exit::Ok)
}

/// Shows an outcome: a success on stdout, a failure on stderr; as JSON always on stdout.
pub(super) async fn show(
    global: &Global,
    client: &Client,
    outcome: &Outcome,
) -> anyhow::Result<Exit> {
    let exit = if outcome.success {
        Exit::Ok
    } else {
        Exit::Failed
    };
    if global.json {
        say_json(outcome)?;
        return Ok(exit);
    }
    let mut status: Option<Status> = client.get("/status").await.ok();
    if let Some(status) = &mut status {
        complete(client, status);
    }
    let app = status.as_ref().map_or("slot", |status| status.app.as_str());
    if outcome.success {
        if let Some(hold) = status.as_ref().and_then(|status| status.hold.as_ref()) {
            note(&format!("{}; this was none\n", harmless(&hold.to_string())));
        }
        say(&outcome::screen(
            app,
            outcome,
            status.as_ref(),
            now_ms(),
            Paint::of(&stdout()),
        ))?;
    } else {
        note(&outcome::screen(
            app,
            outcome,
            status.as_ref(),
            now_ms(),
            Paint::of(&stderr()),
        ));
    }
    Ok(exit)
}
