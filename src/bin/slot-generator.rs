//! A systemd generator (systemd.generator(7)): app files in, units out, at boot and at each daemon-reload.
//!
//! **Invariant:** it reads app files and writes below its first argument, and does nothing else: it runs when no bus,
//! no journal and no other file system need be there. A file that is wrong costs its own app only.
//! **Invariant:** no app that has a polkit rule is without units, be its file wrong or gone ([`units::stand_in`] says why).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use slot::config::App;
use slot::telemetry::tell_kernel;
use slot::units::{self, UnitFile};

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    // The three directories that systemd gives; what follows is for tests.
    let (normal, apps, rules) = match arguments.as_slice() {
        [normal] | [normal, _, _] => (
            normal,
            Path::new("/etc/slot/apps"),
            Path::new(units::POLKIT_RULES),
        ),
        [normal, _, _, apps, rules] => (normal, apps.as_path(), rules.as_path()),
        _ => {
            eprintln!("usage: slot-generator NORMAL-DIR [EARLY-DIR LATE-DIR]");
            return ExitCode::from(2);
        }
    };
    generate(apps, rules, normal).unwrap_or_else(|error| {
        tell_kernel("slot-generator", &format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Fails, after everything else is done, if a file was wrong or gone: that is what the journal shows of a generator.
fn generate(apps: &Path, rules: &Path, normal: &Path) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let mut stand_in = |file: &Path, name: &str, problem: &str| {
        code = ExitCode::FAILURE;
        tell_kernel(
            "slot-generator",
            &format!("{problem}; the app's slots cannot be started"),
        );
        let name = name.parse();
        name.map_or_else(|_| Vec::new(), |name| units::stand_in(&name, file, problem))
    };
    for file in list(apps)? {
        let name = file.file_name().and_then(|name| name.to_str());
        let Some(stem) = name.and_then(|name| name.strip_suffix(".toml")) else {
            continue;
        };
        let made = match read(&file) {
            Ok(app) => units::render(&app, &file),
            Err(error) => stand_in(&file, stem, &format!("{error:#}")),
        };
        write(normal, &made)?;
    }
    for rule in list(rules)? {
        let Some(name) = units::app_of_rule(&rule) else {
            continue;
        };
        let file = apps.join(format!("{name}.toml"));
        if !file.exists() {
            let problem = format!(
                "{} is gone, and {} is not: `slotctl app remove {name}` removes the rest, `slotctl app add` makes it anew",
                file.display(),
                rule.display()
            );
            write(normal, &stand_in(&rule, name, &problem))?;
        }
    }
    Ok(code)
}

/// What is in a directory, in order; nothing, where it is not.
fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot list {}", directory.display());
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(cannot)?,
    };
    let mut files = listing
        .map(|entry| entry.map(|entry| entry.path()).with_context(cannot))
        .collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn write(normal: &Path, units: &[UnitFile]) -> Result<()> {
    for unit in units {
        let path = normal.join(&unit.path);
        fs::create_dir_all(path.parent().unwrap_or(normal))
            .and_then(|()| fs::write(&path, &unit.text))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
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
