//! A systemd generator (systemd.generator(7)): app files in, units out, at boot and at each daemon-reload.
//!
//! **Invariant:** it reads app files and writes below its first argument, and does nothing else: it runs when no bus,
//! no journal and no other file system need be there. A file that is wrong costs its own app only.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use slot::config::App;
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
    match generate(apps, normal) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns how many apps it could not do.
fn generate(apps: &Path, normal: &Path) -> Result<usize> {
    let listing = match fs::read_dir(apps) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", apps.display())),
    };
    let mut files: Vec<PathBuf> = listing
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    let mut wrong = 0;
    for file in &files {
        let units = match read(file) {
            Ok(app) => units::render(&app, file),
            Err(error) => {
                wrong += 1;
                let problem = format!("{error:#}");
                tell(&format!("{problem}; the app's slots cannot be started"));
                let name = file
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok());
                name.map_or_else(Vec::new, |name| units::stand_in(&name, file, &problem))
            }
        };
        for unit in units {
            write(&normal.join(&unit.path), &unit.text)?;
        }
    }
    Ok(wrong)
}

fn read(file: &Path) -> Result<App> {
    let name = file.to_string_lossy();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let app = App::parse(&text, &name)?;
    app.check_installed(&name)?;
    Ok(app)
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Early in a boot the kernel's log is the only one (systemd.generator(7)); a terminal may be there later.
fn tell(message: &str) {
    eprintln!("slot-generator: {message}");
    if let Ok(mut log) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        // Priority 3 of facility 3, a daemon's error (syslog(3)).
        let _ = log.write_all(format!("<27>slot-generator: {message}\n").as_bytes());
    }
}
