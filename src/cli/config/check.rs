//! `slotctl config check`: every fault of some files, as compilers and editors show them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::super::app::{APPS, public};
use super::super::args::ConfigCheck;
use super::super::exit::{Ended, Exit};
use super::super::project::{self, FILE};
use super::super::term::{harmless, say, say_json};
use super::MACHINE;
use crate::config::{App, ConfigError, Machine, SlotMachine, locate};

/// What is said about all files.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    ended: Ended,
    files: Vec<Checked>,
}

/// What is said about one.
#[derive(Serialize)]
struct Checked {
    file: String,
    /// `app`, `machine` or `slot-machine`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
struct Fault {
    line: Option<usize>,
    column: Option<u32>,
    key: String,
    problem: String,
    remedy: String,
}

/// Checks the files.
///
/// # Errors
/// There is none to check, or nobody to tell.
pub fn check(options: &ConfigCheck, json: bool) -> anyhow::Result<Exit> {
    let mut files = options.files.clone();
    if files.is_empty() {
        let folder = project::around().ok_or_else(|| {
            Exit::Input.because(format!(
                "there is no {FILE} here or above; name the file, or write one with `slotctl init`"
            ))
        })?;
        files.push(folder.join(FILE));
    }
    let checked = files.iter().map(|file| one(file, options.machine));
    let files: Vec<Checked> = checked.collect();
    let faults: usize = files.iter().map(|file| file.faults.len()).sum();
    let exit = if faults == 0 { Exit::Ok } else { Exit::Input };
    if json {
        let many = || match faults {
            1 => "there is one fault".to_owned(),
            some => format!("there are {some} faults"),
        };
        say_json(&Answer {
            ended: exit.ended(many),
            files,
        })?;
    } else {
        say(&files.iter().map(told).collect::<String>())?;
    }
    Ok(exit)
}

fn one(path: &Path, machine: bool) -> Checked {
    let file = path.display().to_string();
    let is_machine = machine || path.file_name() == Some(OsStr::new("machine.toml"));
    let checked = |kind, app: Option<String>, faults: Vec<ConfigError>| Checked {
        file: file.clone(),
        kind,
        app,
        faults: faults.into_iter().map(Into::into).collect(),
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            let fault = ConfigError {
                file: file.clone().into(),
                line: None,
                column: None,
                key: "".into(),
                problem: format!("it cannot be read: {error}"),
                remedy: "name a file that is there, of text, and that you may read".to_owned(),
            };
            return checked(
                if is_machine { "machine" } else { "app" },
                None,
                vec![fault],
            );
        }
    };
    if is_machine {
        // What the router would refuse, where there is one: the names of listeners that it does not have.
        let known = (path == Path::new(MACHINE)).then(public::listeners);
        let known = known.and_then(Result::ok).filter(|known| !known.is_empty());
        let names = known
            .as_ref()
            .map(|known| known.iter().map(String::as_str).collect::<Vec<_>>());
        let faults = Machine::faults(&text, &file, names.as_deref());
        return checked("machine", None, faults);
    }
    if SlotMachine::is_meant(&text) {
        let here = path.parent().unwrap_or(Path::new("."));
        let parsed = SlotMachine::parse(&text, &file, here);
        let name = parsed.as_ref().ok().map(|it| it.app.name.to_string());
        return checked("slot-machine", name, parsed.err().into_iter().collect());
    }
    let mut faults = App::faults(&text, &file);
    let app = App::parse(&text, &file).ok();
    if let Some(app) = app.as_ref().filter(|_| is_installed(path)) {
        faults.extend(app.check_installed(&file).err().map(|fault| {
            let (line, column) = locate(&text, &fault.key).unzip();
            ConfigError {
                line,
                column,
                ..fault
            }
        }));
    }
    checked("app", app.map(|app| app.name.to_string()), faults)
}

/// Whether it is what the machine has of an app.
fn is_installed(path: &Path) -> bool {
    let folder = path.canonicalize().ok();
    folder.is_some_and(|path| path.parent() == Some(Path::new(APPS)))
}

/// A line for each fault: `slot.toml:3:8: soak: 5 has no unit; write …`.
fn told(checked: &Checked) -> String {
    let file = &checked.file;
    if checked.faults.is_empty() {
        let of = checked.app.as_deref();
        return match of {
            Some(app) => format!("{file}: nothing is wrong with it; it is the file of app {app}\n"),
            None => format!("{file}: nothing is wrong with it\n"),
        };
    }
    let line = |fault: &Fault| {
        let place = match (fault.line, fault.column) {
            (Some(line), Some(column)) => format!(":{line}:{column}"),
            (Some(line), None) => format!(":{line}"),
            (None, _) => String::new(),
        };
        let key = match fault.key.as_str() {
            "" => String::new(),
            key => format!(" {key}:"),
        };
        let (problem, remedy) = (&fault.problem, &fault.remedy);
        format!("{file}{place}:{key} {problem}; {remedy}")
    };
    let lines = checked.faults.iter().map(line);
    // Each is a line, whatever is quoted in it.
    lines
        .map(|line| format!("{}\n", harmless(line.trim_end())))
        .collect()
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self {
            line: error.line,
            column: error.column,
            key: error.key.into(),
            problem: error.problem,
            remedy: error.remedy,
        }
    }
}
