//! `slotctl config show`: every setting with its value and where it comes from.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::super::app::file_of;
use super::super::args::{ConfigShow, Global};
use super::super::exit::Exit;
use super::super::project::{self, Project};
use super::super::term::{harmless, say, say_json};
use super::MACHINE;
use crate::config::{Machine, Setting, Shown, Source, app_settings, machine_settings};
use crate::deploy::AppName;

/// Values beyond this are not what decides where the next column begins.
const WIDEST: usize = 40;

/// What is set.
#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// The app's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<Row>,
    /// The machine's.
    machine: Vec<Row>,
    /// slotctl's own.
    slotctl: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    value: Value,
    /// What is meant without a value.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
    /// There is a value, which is not shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    secret: bool,
    /// `default`, `file`, `env`, `option` or `project`.
    from: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// Of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'static str>,
}

/// Shows what is set.
///
/// # Errors
/// A file is wrong or cannot be read, or there is no such app.
pub fn show(global: &Global, options: &ConfigShow) -> anyhow::Result<Exit> {
    let named = options.app.as_ref().or(global.app.as_ref());
    let project = match named {
        Some(name) => Some(installed(name)?),
        None => Project::find(None)?,
    };
    let path = Path::new(MACHINE);
    let text = Machine::text(path)?;
    Machine::parse(&text, MACHINE, None)?;
    let machine = Source {
        file: MACHINE,
        text: &text,
    };
    let mut answer = Answer {
        app: None,
        file: None,
        settings: Vec::new(),
        machine: rows(machine_settings(machine)),
        slotctl: vec![socket(
            global,
            project.as_ref().filter(|_| named.is_none()),
        )?],
    };
    if let Some(project) = &project {
        let file = project.file.display().to_string();
        let said = Source {
            file: &file,
            text: &project.text,
        };
        answer.settings = rows(app_settings(said, machine));
        answer.app = Some(project.app.name.to_string());
        answer.file = Some(file);
    }
    if global.json {
        say_json(&answer)?;
    } else {
        say(&table(&answer))?;
    }
    Ok(Exit::Ok)
}

/// The app as the machine has it.
fn installed(name: &AppName) -> anyhow::Result<Project> {
    let file = file_of(name);
    if file.exists() {
        return Project::read(&file);
    }
    // One that is not registered yet, or nowhere else, may be the one here.
    let here = Project::find(None).ok().flatten();
    here.filter(|project| project.app.name == *name).ok_or_else(|| {
        Exit::NotFound.because(format!(
            "there is no app {name}: no file {}; `slotctl app list` lists the apps, `slotctl app add` adds one",
            file.display()
        ))
    })
}

fn rows(settings: Vec<Setting>) -> Vec<Row> {
    let row = |setting: Setting| {
        let (file, line) = setting.from.unzip();
        let (value, absent, secret) = match setting.shown {
            Shown::Value(value) => (value, None, false),
            Shown::Secret => (Value::Null, None, true),
            Shown::Absent(words) => (Value::Null, Some(words), false),
        };
        Row {
            key: setting.key,
            value,
            absent,
            secret,
            from: if file.is_some() { "file" } else { "default" },
            file,
            line,
            variable: None,
        }
    };
    settings.into_iter().map(row).collect()
}

/// Where slotd is asked.
fn socket(global: &Global, project: Option<&Project>) -> anyhow::Result<Row> {
    const VARIABLE: &str = "SLOT_SOCKET";
    let reached = project::reached(global, project)?;
    let named = std::env::var_os(VARIABLE).is_some_and(|it| Path::new(&it) == global.socket());
    let from = match (&global.asked, &reached.asked) {
        (Some(_), _) if named => "env",
        (Some(_), _) => "option",
        (None, Some(_)) => "project",
        (None, None) => "default",
    };
    Ok(Row {
        key: "socket".to_owned(),
        value: reached.socket().to_string_lossy().into(),
        absent: None,
        secret: false,
        from,
        file: None,
        line: None,
        variable: (from == "env").then_some(VARIABLE),
    })
}

fn table(answer: &Answer) -> String {
    let all = [&answer.settings, &answer.machine, &answer.slotctl];
    let rows = || all.into_iter().flatten();
    let keys = rows().map(|row| row.key.len()).max().unwrap_or(0);
    let values = rows().map(|row| value(row).chars().count());
    let values = values.filter(|width| *width <= WIDEST).max().unwrap_or(0);
    let mut text = String::new();
    let mut part = |title: &str, rows: &[Row]| {
        if rows.is_empty() {
            return;
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}{title}");
        for row in rows {
            let line = format!(
                "  {:<keys$}  {:<values$}  {}",
                row.key,
                value(row),
                from(row)
            );
            let _ = writeln!(text, "{}", harmless(&line));
        }
    };
    let name = answer.app.as_deref().unwrap_or_default();
    let file = answer.file.as_deref().unwrap_or_default();
    part(&format!("App {name} ({file})"), &answer.settings);
    part(&format!("Machine ({MACHINE})"), &answer.machine);
    part("slotctl", &answer.slotctl);
    text
}

/// As TOML has it; in brackets, what is no value.
fn value(row: &Row) -> String {
    match (&row.absent, row.secret) {
        (Some(words), _) => format!("({words})"),
        (None, true) => "(not shown)".to_owned(),
        (None, false) => match toml::Value::try_from(&row.value) {
            Ok(value) => value.to_string(),
            Err(_) => row.value.to_string(),
        },
    }
}

fn from(row: &Row) -> String {
    match (&row.file, row.line, row.variable) {
        (Some(file), Some(line), _) => format!("{file}:{line}"),
        (_, _, Some(variable)) => format!("${variable}"),
        _ => row.from.to_owned(),
    }
}
