//! `slotctl init`: a file for the project in the current directory, by what it is made with.

mod detect;
mod text;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::args::{Format, Init};
use super::exit::Exit;
use super::project::{FILE, here};
use super::term::{note, say, say_json};
use crate::config::{App, SlotMachine, slot_machine};
use crate::deploy::AppName;
use crate::release::KEPT;
use detect::{Detected, Project};

/// What [`Detected::with`] is for a program that was built.
const BINARY: &str = "a binary";

/// Where builds put what they make.
const BUILT_INTO: [&str; 6] = ["build", "dist", "bin", "out", "target/release", "."];

/// Writes the file, and into .gitignore what it is to ignore. `name` is that of `--app`.
///
/// # Errors
/// If there is one already, or the other kind, and `--force` is not given; or it cannot be written.
pub fn run(name: Option<&AppName>, options: &Init, json: bool) -> anyhow::Result<Exit> {
    let here = here()?;
    let name = name.cloned().unwrap_or_else(|| name_from(&here));
    let built = built(&here);
    let detected = detect::detect(&project(&here, built.as_deref()));
    let env_file = here.join(".env").is_file();
    let (file, text) = match options.format {
        Format::Toml => {
            let text = text::slot_toml(&name, detected.as_ref(), built.as_deref(), env_file);
            // What is written is what `deploy` reads.
            App::parse(&text, FILE)?;
            (FILE, text)
        }
        Format::Json => {
            let text = text::slot_machine_json(detected.as_ref(), env_file);
            SlotMachine::parse(&text, slot_machine::FILE, &here)?;
            (slot_machine::FILE, text)
        }
    };
    if !options.force {
        check_other(&here, options.format)?;
    }
    let ignored = ignore(&here)?;
    write(file, &text, options)?;
    let guess = detected.as_ref().and_then(|it| it.guess.as_deref());
    if let (Some(why), Some(detected)) = (guess, &detected) {
        let key = match options.format {
            Format::Toml => "command",
            Format::Json => "start_command",
        };
        note(&format!(
            "{key} in {file} is a guess, `{}`, since {why}; correct it there\n",
            detected.start
        ));
    }
    if json {
        say_json(&serde_json::json!({
            "success": true, "file": here.join(file), "app": name.as_str(),
            "detected": detected.as_ref().map(|detected| detected.with), "ignored": ignored,
            "guess": guess,
        }))?;
    } else {
        say(&told(
            file,
            &name,
            detected.as_ref(),
            built.as_deref(),
            &ignored,
        ))?;
    }
    Ok(Exit::Ok)
}

fn told(
    file: &str,
    name: &AppName,
    detected: Option<&Detected>,
    built: Option<&Path>,
    ignored: &[&str],
) -> String {
    let with = detected.map_or(String::new(), |detected| {
        format!(", made with {}", detected.with)
    });
    let mut text = format!("wrote {file} for the app {name}{with}\n");
    if !ignored.is_empty() {
        text += &format!("added {} to .gitignore\n", ignored.join(" and "));
    }
    let built_here = detected.is_some_and(|detected| detected.with != BINARY);
    text += &match (file == FILE, built_here) {
        (true, true) => "  look it over, then: sudo slotctl deploy\n".to_owned(),
        (true, false) => {
            let path = built.unwrap_or(Path::new("PATH")).to_string_lossy();
            format!(
                "  look it over, then: sudo slotctl deploy {}\n",
                shell_words::quote(&path)
            )
        }
        (false, _) => "  look it over, then: slotctl start\n".to_owned(),
    };
    text
}

/// Refuses a file beside one of the other kind: of the two only slot.toml counts, which might not be noticed.
fn check_other(folder: &Path, format: Format) -> anyhow::Result<()> {
    let (written, other) = match format {
        Format::Toml => (FILE, slot_machine::FILE),
        Format::Json => (slot_machine::FILE, FILE),
    };
    // Of one that is there already that is to be said.
    if folder.join(written).exists() || !folder.join(other).exists() {
        return Ok(());
    }
    let goes_before = match format {
        Format::Toml => "which then goes before it",
        Format::Json => "which then counts only where `--config` names it",
    };
    Err(Exit::Input.because(format!(
        "{other} is there, and works as it is: `slotctl start`; `{}` writes {written}, {goes_before}",
        forced(format)
    )))
}

/// The command line that writes in spite of what is there.
fn forced(format: Format) -> &'static str {
    match format {
        Format::Toml => "slotctl init --force",
        Format::Json => "slotctl init --format json --force",
    }
}

fn write(file: &str, text: &str, options: &Init) -> anyhow::Result<()> {
    let mut open = OpenOptions::new();
    open.write(true)
        .create_new(!options.force)
        .create(true)
        .truncate(options.force);
    let opened = open.open(file).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Exit::Input.because(format!(
            "{file} is there already and was left as it is; `{}` writes over it",
            forced(options.format)
        )),
        _ => anyhow::Error::from(error).context(format!("cannot write {file}")),
    });
    opened?
        .write_all(text.as_bytes())
        .with_context(|| format!("cannot write {file}"))
}

/// Adds to .gitignore what is not there yet, and returns it.
fn ignore(folder: &Path) -> anyhow::Result<Vec<&'static str>> {
    let file = folder.join(".gitignore");
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let is_there = |name: &&str| {
        text.split(|byte| *byte == b'\n').any(|line| {
            let line = line.trim_ascii();
            let line = line.strip_prefix(b"/").unwrap_or(line);
            line.strip_suffix(b"/").unwrap_or(line) == name.as_bytes()
        })
    };
    let missing: Vec<&str> = KEPT.into_iter().filter(|name| !is_there(name)).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    let mut more = String::new();
    if text.last().is_some_and(|last| *last != b'\n') {
        more.push('\n');
    }
    for name in &missing {
        more.push_str(name);
        more.push('\n');
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        .and_then(|mut file| file.write_all(more.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(missing)
}

/// What is to be known of the directory; a file that cannot be read is as good as none.
fn project(folder: &Path, built: Option<&Path>) -> Project {
    let names = |folder: &Path| -> Vec<String> {
        let listed = fs::read_dir(folder).into_iter().flatten().flatten();
        listed
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    let mut found = Project {
        names: names(folder).into_iter().collect(),
        built: built.map(|path| path.to_string_lossy().into_owned()),
        ..Project::default()
    };
    let cmd = folder.join("cmd");
    let programs = names(&cmd).into_iter();
    let programs = programs.filter(|name| cmd.join(name).is_dir());
    found
        .names
        .extend(programs.map(|name| format!("cmd/{name}")));
    for name in detect::READ {
        if let Ok(text) = fs::read_to_string(folder.join(name)) {
            found.texts.insert(name, text);
        }
    }
    found
}

/// A directory's name made into an app's: `My Shop_2` is `my-shop-2`.
fn name_from(folder: &Path) -> AppName {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let mut label = String::new();
    for c in name.chars() {
        if c.is_ascii_lowercase() || (c.is_ascii_digit() && !label.is_empty()) {
            label.push(c);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(22);
    let label = label.trim_end_matches('-');
    // Names that are slot's own are refused by the parser, like those that are none.
    let fits = |name: &AppName| App::parse(&text::slot_toml(name, None, None, false), FILE).is_ok();
    label
        .parse()
        .ok()
        .filter(fits)
        .unwrap_or_else(|| "web".parse().expect("`web` is a valid app name"))
}

/// The one program that a build seems to have made, relative to the directory.
fn built(folder: &Path) -> Option<PathBuf> {
    BUILT_INTO.iter().find_map(|place| {
        let mut programs = fs::read_dir(folder.join(place))
            .ok()?
            .flatten()
            .filter(|entry| {
                let shown = !entry.file_name().to_string_lossy().starts_with('.');
                shown
                    && entry.metadata().is_ok_and(|about| {
                        about.is_file() && about.permissions().mode() & 0o111 != 0
                    })
            })
            // Libraries are executable too, and are not what is run; scripts of the project are not what was built.
            .filter(|entry| {
                let path = entry.path();
                let ending = path.extension().and_then(|ending| ending.to_str());
                !matches!(ending, Some("so" | "d" | "sh" | "py"))
            })
            .map(|entry| Path::new(place).join(entry.file_name()));
        let only = programs.next()?;
        programs
            .next()
            .is_none()
            .then(|| Path::new(".").join(only.strip_prefix(".").unwrap_or(&only)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_directories() {
        for (folder, name) in [
            ("/home/me/My Shop_2", "my-shop-2"),
            ("/home/me/2048-game", "game"),
            ("/home/me/--", "web"),
            ("/", "web"),
            ("/srv/slotd", "web"),
            (
                "/srv/a-name-that-is-very-much-too-long",
                "a-name-that-is-very-mu",
            ),
        ] {
            assert_eq!(name_from(Path::new(folder)).as_str(), name, "{folder}");
        }
    }
}
