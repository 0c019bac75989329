//! Man pages and shell completions, made of the command line itself so that they cannot fall behind it.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, EXAMPLE};
use super::{examples, exit};

/// Writes `slotctl.1` and one page for each command that is not hidden: `slotctl-deploy.1`, `slotctl-app-add.1`.
///
/// # Errors
/// If a file cannot be written.
pub fn man(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut command = without_help(Cli::command());
    command.build();
    pages(&command, folder, "slotctl")
}

/// `slotctl help` needs no page.
fn without_help(command: clap::Command) -> clap::Command {
    command
        .disable_help_subcommand(true)
        .mut_subcommands(without_help)
}

fn pages(command: &clap::Command, folder: &Path, name: &str) -> anyhow::Result<()> {
    // clap takes names that live as long as the program; there are as many as commands.
    let shown: &'static str = Box::leak(name.to_owned().into_boxed_str());
    // What `--help` has at its end are sections here.
    let own = command
        .clone()
        .name(shown)
        .after_help("")
        .after_long_help("");
    let page = Man::new(own)
        .section("1")
        .source(concat!("slotctl ", env!("CARGO_PKG_VERSION")))
        .manual("slot");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    text.extend_from_slice(ending(name).as_bytes());
    let file = folder.join(format!("{name}.1"));
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        pages(inner, folder, &format!("{name}-{}", inner.get_name()))?;
    }
    Ok(())
}

/// The sections that are not the command line's, in roff (man(7)).
fn ending(name: &str) -> String {
    let mut text = String::new();
    if name == "slotctl" {
        let (_, example) = EXAMPLE.split_once('\n').unwrap_or_default();
        let _ = writeln!(
            text,
            ".SH EXAMPLES\n.nf\n{}\n.fi",
            example.replace('-', "\\-")
        );
    } else {
        let command = name.trim_start_matches("slotctl-").replace('-', " ");
        text.push_str(".SH EXAMPLES\n");
        for (line, about) in examples::of(&command) {
            let line = line.replace('-', "\\-").replace('"', "\\(dq");
            let _ = writeln!(text, ".TP\n.B {line}\n{}", about.replace('-', "\\-"));
        }
    }
    text.push_str(".SH \"EXIT STATUS\"\n");
    for (exit, meaning) in exit::MEANINGS {
        let _ = writeln!(text, ".TP\n.B {}\n{meaning}", exit.status());
    }
    if name == "slotctl" {
        text.push_str(ENVIRONMENT_AND_FILES);
    }
    let parent = if name == "slotctl" {
        ""
    } else {
        ".BR slotctl (1),\n"
    };
    let _ = write!(
        text,
        ".SH \"SEE ALSO\"\n{parent}.BR slot.toml (5),\n.BR slotd (8),\n.BR slot\\-router (8),\n.BR journalctl (1)\n"
    );
    text
}

const ENVIRONMENT_AND_FILES: &str = "\
.SH ENVIRONMENT
.TP
.B SLOT_SOCKET
where slotd listens, unless \\-\\-socket says so
.TP
.B NO_COLOR
no colours on a terminal either (lines that move are left: see TERM)
.TP
.B TERM
with dumb, a terminal gets plain lines, as a file does: no colours, and nothing is written over
.SH FILES
.TP
.I slot.toml
an app, in its project
.TP
.I /etc/slot/apps/NAME.toml
an app of this machine, which slot\\-generator makes into units
.TP
.I /var/lib/slot/NAME/
its releases and its state
.TP
.I .slot/slotd.sock
in a project, where slotctl start listens; asked before the next one
.TP
.I /run/slot/slotd.sock
where slotd listens
";

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
        assert!(!has("slotctl-launch.1") && !has("slotctl-help.1") && !has("slotctl-app-help.1"));
        let text = fs::read_to_string(folder.path().join("slotctl.1")).unwrap();
        assert!(text.contains("slotd cannot be reached"), "{text}");
    }
}
