//! Man pages and shell completions, made of the command line itself so that they cannot fall behind it.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Cli;

/// Writes `slotctl.1` and one page for each command that is not hidden: `slotctl-deploy.1`, `slotctl-app-add.1`.
///
/// # Errors
/// If a file cannot be written.
pub fn man(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = Cli::command();
    // The words that other pages would say again are in slotctl(1) alone.
    command.build();
    pages(&command, folder, "slotctl")
}

fn pages(command: &clap::Command, folder: &Path, name: &str) -> anyhow::Result<()> {
    let shown: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let page = Man::new(command.clone().name(shown).disable_help_subcommand(true))
        .section("1")
        .source(concat!("slotctl ", env!("CARGO_PKG_VERSION")))
        .manual("slot");
    let mut text = Vec::new();
    page.render(&mut text)?;
    let file = folder.join(format!("{name}.1"));
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    for inner in command.get_subcommands() {
        if !inner.is_hide_set() && inner.get_name() != "help" {
            pages(inner, folder, &format!("{name}-{}", inner.get_name()))?;
        }
    }
    Ok(())
}

/// A completion script.
///
/// # Errors
/// If it cannot be written.
pub fn completions(shell: Shell, to: &mut impl io::Write) -> io::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "slotctl", &mut text);
    to.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(folder.path()).unwrap();
        let has = |name: &str| folder.path().join(name).exists();
        for page in [
            "slotctl.1",
            "slotctl-deploy.1",
            "slotctl-app-add.1",
            "slotctl-logs.1",
        ] {
            assert!(has(page), "{page}");
        }
        assert!(!has("slotctl-launch.1"));
        let text = fs::read_to_string(folder.path().join("slotctl.1")).unwrap();
        assert!(text.contains("slotd cannot be reached"), "{text}");
    }
}
