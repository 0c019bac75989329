//! What a project's file says that the machine does not go by.

use std::collections::BTreeSet;
use std::path::Path;

use toml::{Table, Value};

use super::super::args::Global;
use super::super::project::Project;
use super::super::term::note;
use super::add::{read_installed, register};
use super::{file_of, is_machines_own};
use crate::config::App;
use crate::deploy::AppName;
use crate::wire::api::Status;

/// Before a deploy: where nothing of the app has ever served, the project's file is taken over, since that harms nobody and a file that
/// was wrong is why most first deploys fail. Else, or where that takes root, says what differs and how it is taken over.
///
/// # Errors
/// If it is refused.
pub async fn take_over_or_tell(
    global: &Global,
    name: &AppName,
    project: &Project,
    status: &Status,
) -> anyhow::Result<()> {
    if !is_machines_own(global.socket()) {
        return Ok(());
    }
    let Some(installed) = read_installed(name) else {
        return Ok(());
    };
    if is_same(&project.app, &installed) {
        return Ok(());
    }
    let unused = status.live.is_none() && status.active.is_none() && status.deployment.is_none();
    if unused && nix::unistd::geteuid().is_root() {
        register(global, name, project).await?;
        return Ok(());
    }
    let counts = file_of(name);
    let there = std::fs::read_to_string(&counts).unwrap_or_default();
    note(&told(&project.file, &project.text, &counts, &there));
    Ok(())
}

/// The note, with each key that differs.
fn told(file: &Path, text: &str, counts: &Path, there: &str) -> String {
    let (file, counts) = (file.display(), counts.display());
    let keys = differences(text, there);
    format!(
        "note: {file} differs from {counts}, which counts: {}; `sudo slotctl app add {file}` takes it over\n",
        keys.join(", ")
    )
}

/// `soak = "1m" (there "30s")`. Of tables, the keys alone: there may be much in them, and [env] is nobody's business.
fn differences(here: &str, there: &str) -> Vec<String> {
    let parse = |text: &str| text.parse::<Table>().unwrap_or_default();
    let (here, there) = (parse(here), parse(there));
    let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let differs = |key: &str| match (key, here.get(key), there.get(key)) {
        // Chosen when the app was registered.
        ("name", ..) | ("ports", None, _) => false,
        ("ports", Some(Value::Table(here)), Some(Value::Table(there))) => here
            .iter()
            .any(|(slot, port)| there.get(slot) != Some(port)),
        (_, here, there) => here != there,
    };
    keys.into_iter()
        .filter(|key| differs(key))
        .map(|key| match (here.get(key), there.get(key)) {
            (Some(Value::Table(_)), _) | (_, Some(Value::Table(_))) => format!("[{key}]"),
            (Some(here), Some(there)) => format!("{key} = {here} (there {there})"),
            (Some(here), None) => format!("{key} = {here} (not there)"),
            (None, Some(there)) => format!("no {key} (there {there})"),
            (None, None) => key.clone(),
        })
        .collect()
}

/// Whether a project's file says what is installed, apart from the name and the ports that it leaves open.
fn is_same(project: &App, installed: &App) -> bool {
    let mut completed = project.clone();
    completed.name = installed.name.clone();
    for (slot, ports) in &installed.ports {
        completed.ports.entry(slot.clone()).or_insert(*ports);
    }
    completed == *installed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_the_same_when_only_its_ports_were_chosen() {
        let parse = |text: &str| App::parse(text, "slot.toml").unwrap();
        let project = parse("command = \"./server\"\n");
        let installed =
            parse("name = \"web\"\ncommand = \"./server\"\n[ports]\nblue = 20001\ngreen = 20002\n");
        assert!(is_same(&project, &installed));
        assert!(!is_same(
            &parse("command = \"./server\"\nsoak = \"2m\"\n"),
            &installed
        ));
        assert!(!is_same(
            &parse("command = \"./server\"\n[ports]\nblue = 3000\n"),
            &installed
        ));
    }

    #[test]
    fn the_note_names_each_key_that_differs_and_the_command() {
        let here = "command = \"./server\"\nsoak = \"1m\"\nkeep = 3\n[env]\nTOKEN = \"secret\"\n[ports]\nblue = 3000\n";
        let there = "name = \"web\"\ncommand = \"./server\"\nsoak = \"30s\"\ndrain = \"0s\"\n\
                     [ports]\nblue = 3000\ngreen = 20001\n";
        assert_eq!(
            told(
                Path::new("/srv/web/slot.toml"),
                here,
                Path::new("/etc/slot/apps/web.toml"),
                there
            ),
            "note: /srv/web/slot.toml differs from /etc/slot/apps/web.toml, which counts: no drain (there \"0s\"), [env], \
             keep = 3 (not there), soak = \"1m\" (there \"30s\"); `sudo slotctl app add /srv/web/slot.toml` takes it over\n"
        );
    }
}
