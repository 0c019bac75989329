//! What a shell completes a word with: the commands and options that there are, and apps, slots, releases and generations as slotd has
//! them.
//!
//! The script of a shell asks slotctl itself, by the protocol of `clap_complete::env`. That may change with its version, so a script is for
//! the slotctl that wrote it: the package has both of one build.
//!
//! **Invariant:** where slotd is away, refuses, or does not answer within [`PATIENCE`], nothing is proposed and nothing is said.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use hyper::Method;

use super::args::{Cli, Global};
use super::client::{Client, ClientError, empty};
use super::project;
use crate::deploy::AppName;
use crate::wire::api::{Apps, SlotStatus, Status};
use crate::wire::release::Releases;

/// What a script sets when it asks: not `COMPLETE`, which other programs have for the same.
const VARIABLE: &str = "SLOTCTL_COMPLETE";

/// Nobody waits longer for a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers a shell, and ends the process, if it is one that asks.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command)
        .var(VARIABLE)
        .complete();
}

/// Writes the script for a shell.
///
/// # Errors
/// If it cannot be written.
pub fn script(shell: Shell, to: &mut dyn io::Write) -> io::Result<()> {
    let name = shell.to_string();
    let shells = Shells::builtins();
    let known = shells.completer(&name);
    let known = known.ok_or_else(|| io::Error::other(format!("there is no script for {name}")))?;
    let mut script = Vec::new();
    known.write_registration(VARIABLE, "slotctl", "slotctl", "slotctl", &mut script)?;
    let script = String::from_utf8(script).map_err(io::Error::other)?;
    let script = match shell {
        Shell::Bash => script.replace(BASH, "-F _slotctl slotctl") + WHOLE_WORDS,
        Shell::Zsh => script + AT_ONCE,
        _ => script,
    };
    to.write_all(script.as_bytes())
}

/// How a script for bash registers its function.
const BASH: &str = "-F _clap_complete_slotctl slotctl";

/// bash takes `:` and `=` for words of their own, and hands on what follows them (bash(1), `COMP_WORDBREAKS`): of `web:bl` and `--app=w` no
/// more than `bl` and `w`. slotctl is asked for the whole word, and bash gets back what it knows of it.
const WHOLE_WORDS: &str = r#"
_slotctl() {
    local line=$COMP_LINE whole=() last=-1 at
    for ((at = 0; at <= COMP_CWORD; at++)); do
        [[ $at == 0 || $line == [[:space:]]* ]] && whole[++last]=
        line=${line#"${line%%[![:space:]]*}"}
        whole[last]+=${COMP_WORDS[at]}
        line=${line#"${COMP_WORDS[at]}"}
    done
    local begun=${whole[last]%"$2"} COMP_WORDS=("${whole[@]}") COMP_CWORD=$last
    _clap_complete_slotctl "$1" "${whole[last]}" "$3"
    COMPREPLY=("${COMPREPLY[@]#"$begun"}")
}
"#;

/// zsh loads the file by its name when it first completes, and runs it for that (zshcompsys(1), "Autoloaded files").
const AT_ONCE: &str =
    "[ \"$funcstack[1]\" = _slotctl ] && _clap_dynamic_completer_slotctl \"$@\"\n";

/// Every app.
pub fn apps() -> Vec<CompletionCandidate> {
    let Some(apps) = known() else {
        return Vec::new();
    };
    let managed = apps.apps.iter();
    let managed = managed.map(|app| candidate(&app.app, &app.state));
    let broken = apps.broken.keys();
    let broken = broken.filter(|name| apps.apps.iter().all(|app| app.app != **name));
    managed
        .chain(broken.map(|name| candidate(name, "broken")))
        .collect()
}

/// Every slot of the app that is meant; with several apps and none named, `APP:SLOT`.
pub fn slots() -> Vec<CompletionCandidate> {
    let Some(apps) = known() else {
        return Vec::new();
    };
    let app = meant(&apps);
    if app.is_some() || global().app.is_some() {
        let slots = app.iter().flat_map(|app| &app.slots);
        return slots
            .map(|slot| candidate(&slot.slot, &about(slot)))
            .collect();
    }
    let all = apps.apps.iter().flat_map(|app| {
        let slots = app.slots.iter();
        slots.map(|slot| candidate(&format!("{}:{}", app.app, slot.slot), &about(slot)))
    });
    all.collect()
}

/// Every release on disk of the app that is meant, by id and by label.
pub fn releases() -> Vec<CompletionCandidate> {
    let found = asked(async |client: Client| {
        let apps: Apps = client.ask(Method::GET, "/apps", empty()).await?;
        let Some(app) = meant(&apps) else {
            return Ok(Releases::default());
        };
        let path = format!("/apps/{}/releases", app.app);
        client.ask(Method::GET, &path, empty()).await
    });
    let releases = found.unwrap_or_default().releases;
    let ids = releases.iter().map(|release| {
        let live = if release.live { "live" } else { "" };
        candidate(&release.id, release.label.as_deref().unwrap_or(live))
    });
    let labels = releases.iter().filter_map(|release| {
        let label = release.label.as_deref().filter(|label| is_plain(label))?;
        Some(candidate(label, &release.id))
    });
    ids.chain(labels).collect()
}

/// The number of the last attempt of the app that is meant, which is what `--expected-generation` is compared with.
pub fn generations() -> Vec<CompletionCandidate> {
    let apps = known().unwrap_or_default();
    let app = meant(&apps);
    app.map(|app| candidate(&app.generation.to_string(), &app.state))
        .into_iter()
        .collect()
}

/// The active slot of the app that is meant, and its release.
pub fn active() -> Vec<CompletionCandidate> {
    let apps = known().unwrap_or_default();
    let app = meant(&apps);
    let names = app.map(|app| [app.active.as_deref(), app.live.as_deref()]);
    let names = names.into_iter().flatten().flatten();
    names.map(|name| candidate(name, "active")).collect()
}

/// What no shell takes for anything else, unquoted as bash puts it into the line. Whoever deploys chooses labels, and whoever completes one may be
/// root.
fn is_plain(value: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@%+=,-".contains(&byte);
    value.bytes().all(plain) && !value.starts_with('-')
}

fn candidate(value: &str, about: &str) -> CompletionCandidate {
    let help = (!about.is_empty()).then(|| about.to_owned().into());
    CompletionCandidate::new(value).help(help)
}

fn about(slot: &SlotStatus) -> String {
    let named = slot.label.as_deref().or(slot.release.as_deref());
    named.map_or_else(
        || slot.condition.clone(),
        |release| format!("{}, {release}", slot.condition),
    )
}

/// The app that the words so far are about: the one that `--app` or the project here names, or the only one.
fn meant(apps: &Apps) -> Option<&Status> {
    let named = global().app;
    let (name, _) = project::meant(named.as_ref()).unwrap_or((None, None));
    match name {
        Some(name) => apps.apps.iter().find(|app| app.app == name.as_str()),
        None => apps.apps.first().filter(|_| apps.apps.len() == 1),
    }
}

fn known() -> Option<Apps> {
    asked(async |client: Client| client.ask(Method::GET, "/apps", empty()).await)
}

/// What slotd says, in time.
fn asked<T, F>(question: impl FnOnce(Client) -> F) -> Option<T>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let global = global();
    let project = project::Project::find(None).ok().flatten();
    let reached = project::reached(&global, project.as_ref()).ok()?;
    let client = Client::new(reached.socket(), None);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answer = async { tokio::time::timeout(PATIENCE, question(client)).await };
    runtime.ok()?.block_on(answer).ok()?.ok()
}

/// The options of every command, as far as they are written. They are looked for by hand: a line that is not whole cannot be parsed.
fn global() -> Global {
    let words: Vec<OsString> = std::env::args_os()
        .skip_while(|word| word != "--")
        .collect();
    let option = |name: &str| {
        let joined = format!("{name}=");
        words.iter().enumerate().find_map(|(at, word)| {
            let word = word.to_str()?;
            let own = word.strip_prefix(&joined).map(str::to_owned);
            own.or_else(|| {
                (word == name)
                    .then(|| words.get(at + 1)?.to_str().map(str::to_owned))
                    .flatten()
            })
        })
    };
    let socket = option("--socket").map(Into::into);
    Global {
        app: option("--app").and_then(|name| name.parse::<AppName>().ok()),
        json: false,
        asked: socket.or_else(|| std::env::var_os("SLOT_SOCKET").map(Into::into)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_a_shell_would_run_or_expand_is_not_proposed() {
        for label in ["v1.2", "2026-11-22_3", "feature@5", "a+b:c"] {
            assert!(is_plain(label), "{label}");
        }
        for label in [
            "v1;x", "$(x)", "`x`", "*", "a|b", "a&b", "a>b", "{a,b}", "~x", "-x", "'", "\"", "\\",
            "!x", "#x", "a?",
        ] {
            assert!(!is_plain(label), "{label}");
        }
    }
}
