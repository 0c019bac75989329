//! A systemd generator (systemd.generator(7)): app files in, units out, at boot and at each daemon-reload.
//!
//! **Invariant:** it fails, after everything else is done, if a file was wrong or gone: that is what the journal shows of a generator.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use slot::telemetry::{chain, tell_kernel};
use slot::units;

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
    let problems = units::generate(apps, rules, normal).unwrap_or_else(|error| vec![chain(&error)]);
    for problem in &problems {
        tell_kernel("slot-generator", problem);
    }
    ExitCode::from(u8::from(!problems.is_empty()))
}
