//! `slotctl deploy`, `rollback`, `promote`, `drain`: each asks for one thing and shows how it ended.

use std::io::{self, stderr, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::app;
use super::args::{Deploy, Drain, Global, Promote, Rollback};
use super::chosen::{Checkout, Chosen};
use super::client::{Client, ClientError, empty};
use super::exit::Exit;
use super::follow::{Asked, ask, attempt};
use super::outcome;
use super::pack::{Packing, Upload};
use super::progress::Screen;
use super::project::{Project, is_slot_machine, reached};
use super::random::random;
use super::releases;
use super::status::{complete, now_ms, table};
use super::term::{Paint, harmless, note, say, say_json, width};
use crate::deploy::{AppName, Cause, Key};
use crate::wire::api::{Begun, Outcome, Status};
use crate::wire::hex;

/// How often a deploy is asked for again whose answer, or whose release, a restart of slotd has lost, for an upgrade of the package say.
const AGAIN: usize = 3;

/// How long slotctl waits before it asks again. A slotd that ends answers for no longer that it does.
const AWAY: Duration = Duration::from_secs(1);

/// Deploys a commit, a path, an archive, or a release that is on disk.
///
/// # Errors
/// If the path or the app's file is refused, if slotd is, or does.
pub async fn deploy(global: &Global, options: &Deploy) -> anyhow::Result<Exit> {
    let (client, mut what) = aim(global, options).await?;
    let (mut options, mut left) = (options.clone(), AGAIN);
    let is_read = options.what.as_deref() == Some(Path::new("-"));
    let named = options.depending.idempotency_key.clone();
    let is_named = named.is_some();
    // Of one that waits for its turn only slotd knows, after a restart, whether it was begun. What need not wait is begun or refused at once,
    // and takes none of the places that keys have.
    let key = match named {
        None if options.queue.is_some() && !is_read => Some(own_key()?),
        named => named,
    };
    loop {
        let key = key.as_ref().map(|key| (key, is_named));
        let ended = once(global, &options, &client, &mut what, key).await?;
        let can_repeat = left > 0 && !is_read;
        let why = match ended {
            Ended::Unanswered { is_known, .. } if can_repeat && (is_known || key.is_some()) => {
                tokio::time::sleep(AWAY).await;
                "slotd was restarted before it had answered; it is asked again\n"
            }
            Ended::Unanswered { error, .. } => {
                if is_read {
                    note(READ);
                }
                return Err(error);
            }
            Ended::With(outcome) if outcome.cause != Cause::Interrupted.code() || !can_repeat => {
                if is_read && outcome.cause == Cause::Interrupted.code() {
                    note(READ);
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

/// What is said where slotctl would send a release again and cannot.
const READ: &str = "slotd was restarted before it had the release whole and ready, and standard input cannot be read a second time: run again what \
                    writes it, too\n";

/// A key that nobody else has, for a deploy that was given none.
fn own_key() -> anyhow::Result<Key> {
    Ok(format!("slotctl-{}", hex(&random::<16>()?)).parse()?)
}

/// What a deploy is of. What it means was found when the command was given: a branch that moves later moves nothing of it.
enum What {
    /// What need not be sent, as the API is asked for it: `release` or `remote`, and which.
    AtHand(&'static str, String),
    /// A commit.
    Commit(Checkout),
    /// A path, or standard input, which is looked over already for the first time that it is sent.
    Upload(PathBuf, Option<Upload>),
}

/// What became of asking for a deployment.
enum Ended {
    /// It was begun, and ended so.
    With(Box<Outcome>),
    /// slotd was restarted, and its answer is lost.
    Unanswered {
        /// As slotctl saw it.
        error: anyhow::Error,
        /// Nothing was begun, for sure.
        is_known: bool,
    },
}

/// Finds what is meant and whom to ask, and has the app registered and reached.
async fn aim(global: &Global, options: &Deploy) -> anyhow::Result<(Client, What)> {
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
    let what = match chosen {
        Chosen::Release(named) => What::AtHand("release", releases::meant(&client, &named).await?),
        Chosen::Remote(named) => What::AtHand("remote", named.unwrap_or_default()),
        Chosen::RemoteOr(named, error) => {
            let status: Status = client.get("/status").await?;
            if status.remote.is_none() {
                return Err(error);
            }
            What::AtHand("remote", named.unwrap_or_default())
        }
        Chosen::Commit(checkout) => What::Commit(checkout),
        Chosen::Upload(source) => {
            What::Upload(options.what.clone().unwrap_or_default(), Some(source))
        }
    };
    Ok((client, what))
}

/// Asks for the deployment once, with a key if there is one, which the user has named or slotctl made, and watches it.
async fn once(
    global: &Global,
    options: &Deploy,
    client: &Client,
    what: &mut What,
    key: Option<(&Key, bool)>,
) -> anyhow::Result<Ended> {
    let mut screen = Screen::new(global.json);
    let mut asked = queries(options);
    let label = options.label.as_ref();
    asked.extend(label.map(|label| ("label", label.to_string())));
    let (body, packing) = match what {
        What::AtHand(kind, which) => {
            asked.push((kind, which.clone()));
            (empty(), None)
        }
        What::Commit(checkout) => {
            asked.extend(checkout.queries());
            let (body, packing, size) = match checkout.body(client, options, &mut screen).await {
                // What comes before a commit begins nothing.
                Err(error) if is_lost(&error) => {
                    return Ok(Ended::Unanswered {
                        error,
                        is_known: true,
                    });
                }
                sent => sent?,
            };
            asked.extend(size.map(|size| ("size", size.to_string())));
            (body, Some(packing))
        }
        What::Upload(path, looked_over) => {
            let source = match looked_over.take() {
                Some(source) => source,
                None => Upload::look_over(path)?,
            };
            asked.extend(named(&source));
            asked.extend(source.size().map(|size| ("size", size.to_string())));
            let (body, packing) = source.body()?;
            (body, Some(packing))
        }
    };
    let counter = packing.as_ref().map(Packing::counter);
    let sending = || {
        let (sent, size) = counter.as_ref()?;
        Some(Packing::progress(sent, *size))
    };
    let path = path_of("/deploy", &asked);
    let begin = async {
        let begun = client.post_once(&path, key.map(|(key, _)| key), body);
        let begun: Begun = begun.await?;
        Ok(Begun {
            // Of a key that slotctl made nobody need be told.
            repeated: begun.repeated && key.is_some_and(|(_, is_named)| is_named),
            ..begun
        })
    };
    let wait = options.watching.wait;
    match attempt(client, begin, sending, wait, &mut screen).await {
        Ok(outcome) => Ok(Ended::With(Box::new(outcome))),
        Err(error) => lost(client, packing, error).await,
    }
}

/// What became of an attempt of which slotd has not said so, if that was because of a restart.
async fn lost(
    client: &Client,
    packing: Option<Packing>,
    error: anyhow::Error,
) -> anyhow::Result<Ended> {
    if is_lost(&error) {
        let is_it = |last: &Outcome| {
            last.cause == Cause::Interrupted.code() && last.initiated_by.ends_with(&own())
        };
        let status = client.get::<Status>("/status").await.ok();
        if let Some(last) = status.and_then(|status| status.last).filter(is_it) {
            return Ok(Ended::With(Box::new(last)));
        }
        if let Some(ours) = packing.and_then(Packing::error) {
            return Err(unread(&ours));
        }
        let is_gone = error.downcast_ref().is_some_and(ClientError::is_gone);
        return Ok(Ended::Unanswered {
            error: busy(client, error).await,
            is_known: is_gone,
        });
    }
    Err(match packing {
        Some(packing) => explain(client, packing, error).await,
        None => error,
    })
}

/// Whether slotd went away instead of answering.
fn is_lost(error: &anyhow::Error) -> bool {
    let told = error.downcast_ref::<ClientError>();
    told.is_some_and(|error| error.is_passing() || error.is_gone())
}

/// How slotd names who is this process.
fn own() -> String {
    format!("(pid {})", std::process::id())
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
    if !is_broken(&error) {
        return error;
    }
    match packing.error() {
        Some(ours) => unread(&ours),
        None => busy(client, error).await,
    }
}

fn is_broken(error: &anyhow::Error) -> bool {
    let told = error.downcast_ref::<ClientError>();
    told.is_some_and(|error| matches!(error, ClientError::Broken { .. }))
}

/// Who holds the app's lock, where slotd has ended the connection for that and could not say it.
async fn busy(client: &Client, error: anyhow::Error) -> anyhow::Error {
    let status = client.get::<Status>("/status").await.ok();
    // Not the one that was begun by this very upload.
    match status.and_then(|status| status.deployment) {
        Some(held) if is_broken(&error) && !held.by.ends_with(&own()) => Exit::Busy.because(format!(
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
