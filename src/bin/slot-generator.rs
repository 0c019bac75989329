//! A systemd generator (systemd.generator(7)): app files in, units out, at boot and at each daemon-reload.
//!
//! **Invariant:** it reads app files and writes below its first argument, and does nothing else: it runs when no bus,
//! no journal and no other file system need be there. A file that is wrong costs its own app only.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use slot::config::App;
use slot::telemetry::tell_kernel;
use slot::units;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    // The three directories that systemd gives; a fourth argument is for tests.
    let (normal, apps) = match arguments.as_slice() {
        [normal] | [normal, _, _] => (normal, Path::new("/etc/slot/apps")),
        [normal, _, _, apps] => (normal, apps.as_path()),
        _ => {
            eprintln!("usage: slot-generator NORMAL-DIR [EARLY-DIR LATE-DIR]");
            return ExitCode::from(2);
        }
    };
    generate(apps, normal).unwrap_or_else(|error| {
        tell_kernel("slot-generator", &format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Fails, after everything else is done, if a file was wrong: that is what the journal shows of a generator.
fn generate(apps: &Path, normal: &Path) -> Result<ExitCode> {
    let cannot_list = || format!("cannot list {}", apps.display());
    let mut files = Vec::new();
    match fs::read_dir(apps) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        listing => {
            for entry in listing.with_context(cannot_list)? {
                files.push(entry.with_context(cannot_list)?.path());
            }
        }
    }
    files.sort();
    let mut code = ExitCode::SUCCESS;
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|end| end == "toml"))
    {
        let units = read(file)
            .map(|app| units::render(&app, file))
            .unwrap_or_else(|error| {
                code = ExitCode::FAILURE;
                let problem = format!("{error:#}");
                tell_kernel(
                    "slot-generator",
                    &format!("{problem}; the app's slots cannot be started"),
                );
                let name = file
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok());
                name.map_or_else(Vec::new, |name| units::stand_in(&name, file, &problem))
            });
        for unit in units {
            let path = normal.join(&unit.path);
            fs::create_dir_all(path.parent().unwrap_or(normal))
                .and_then(|()| fs::write(&path, &unit.text))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(code)
}

fn read(file: &Path) -> Result<App> {
    let name = file.to_string_lossy();
    let app = App::parse(
        &fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?,
        &name,
    )?;
    app.check_installed(&name)?;
    Ok(app)
}
