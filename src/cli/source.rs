//! A path that is to be deployed, looked over whole before anything begins.
//!
//! **Invariant:** what an archive cannot hold faithfully is refused by name, never left out; only what `slotctl start` keeps at the top of a
//! project is no part of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::exit::Exit;
use crate::release::{is_kept, stays_inside};

/// What is to be deployed, as it was when it was looked over.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it.
    pub(super) path: PathBuf,
    pub(super) entries: Vec<Entry>,
    /// The files' bytes together.
    pub(super) size: u64,
    pub(super) whole: Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    File,
    Tree,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Relative to the release.
    pub(super) inside: PathBuf,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Directory,
    File { executable: bool, size: u64 },
    Link { to: PathBuf },
}

impl Source {
    /// Looks the path over.
    ///
    /// # Errors
    /// If it does not exist, cannot be read, has nothing in it, or holds what is neither file, directory nor symlink.
    pub fn look_over(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let about = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => refused(format!(
                "{shown} does not exist; name the binary or the directory that your build makes"
            )),
            _ => refused(format!(
                "cannot read {shown}: {error}; check its permissions"
            )),
        })?;
        let mut source = Self {
            path: path.to_owned(),
            entries: Vec::new(),
            size: 0,
            whole: if about.is_dir() {
                Whole::Tree
            } else {
                Whole::File
            },
        };
        if about.is_dir() {
            source.walk(Path::new(""))?;
            if !source
                .entries
                .iter()
                .any(|entry| matches!(entry.what, What::File { .. }))
            {
                return Err(refused(format!(
                    "{shown} has no file in it; build the app first, or name the directory that it is built into"
                )));
            }
            source.check_links()?;
            return Ok(source);
        }
        let Some(name) = path.canonicalize()?.file_name().map(PathBuf::from) else {
            return Err(refused(format!("{shown} has no file name")));
        };
        // A symlink to a binary is deployed under the name that the user gave, as `./server` in slot.toml names it.
        let name = path.file_name().map_or(name, PathBuf::from);
        source.add(&name, path, &about)?;
        if about.len() == 0 {
            return Err(refused(format!("{shown} is empty; did the build finish?")));
        }
        Ok(source)
    }

    fn walk(&mut self, inside: &Path) -> anyhow::Result<()> {
        let folder = self.path.join(inside);
        let unread = |error: io::Error| {
            refused(format!(
                "cannot read {}: {error}; check its permissions",
                folder.display()
            ))
        };
        let mut names = fs::read_dir(&folder)
            .map_err(unread)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(unread)?;
        names.sort();
        for name in names {
            let inside = inside.join(name);
            if is_kept(&inside) {
                continue;
            }
            let path = self.path.join(&inside);
            let about = fs::symlink_metadata(&path).map_err(unread)?;
            self.add(&inside, &path, &about)?;
            if about.is_dir() {
                self.walk(&inside)?;
            }
        }
        Ok(())
    }

    /// slotd would refuse such a symlink too, but only once it has the whole upload.
    fn check_links(&self) -> anyhow::Result<()> {
        let links: BTreeMap<&Path, &Path> = self
            .entries
            .iter()
            .filter_map(|entry| match &entry.what {
                What::Link { to } => Some((entry.inside.as_path(), to.as_path())),
                What::Directory | What::File { .. } => None,
            })
            .collect();
        for (link, to) in &links {
            if !stays_inside(|path| links.get(path).copied(), link, to) {
                return Err(refused(format!(
                    "{} is a symlink to {}, which leaves the release: on the server that would be another file, or none; \
                     put a copy in its place, or deploy a directory that has both",
                    self.path.join(link).display(),
                    to.display()
                )));
            }
        }
        Ok(())
    }

    fn add(&mut self, inside: &Path, path: &Path, about: &fs::Metadata) -> anyhow::Result<()> {
        let shown = path.display();
        let kind = about.file_type();
        let what = if kind.is_dir() {
            What::Directory
        } else if kind.is_symlink() {
            let to = fs::read_link(path)
                .map_err(|error| refused(format!("cannot read {shown}: {error}")))?;
            What::Link { to }
        } else if kind.is_file() {
            access(path, AccessFlags::R_OK).map_err(|error| {
                refused(format!(
                    "cannot read {shown}: {}; check its permissions",
                    error.desc()
                ))
            })?;
            self.size += about.len();
            What::File {
                executable: about.permissions().mode() & 0o111 != 0,
                size: about.len(),
            }
        } else {
            return Err(refused(format!(
                "{shown} is neither a file, a directory nor a symlink; remove it from what is deployed"
            )));
        };
        self.entries.push(Entry {
            inside: inside.to_owned(),
            what,
        });
        Ok(())
    }

    /// A program without `./` is the server's own. One that is not there, while the release has a file of that name, is a slip.
    fn check_other(&self, program: &str, file: &Path) -> anyhow::Result<()> {
        let is_ours = self.entries.iter().any(|entry| {
            entry.inside == Path::new(program) && matches!(entry.what, What::File { .. })
        });
        if !is_ours || Path::new(program).is_absolute() || in_path(program) {
            return Ok(());
        }
        Err(refused(format!(
            "{}: command runs {program}, which is looked for in PATH and is not there; {} has a file of that name: write \
             `command = \"./{program} …\"` for that one",
            file.display(),
            self.path.display()
        )))
    }

    /// That the app's command can be run from here. `file` names the app's file.
    ///
    /// # Errors
    /// If the first word of the command is to be in the release and is not, or is not executable; if it is meant to be and does not say so.
    pub fn check_command(&self, command: &[String], file: &Path) -> anyhow::Result<()> {
        let Some(first) = command.first() else {
            return Ok(());
        };
        let Some(program) = first.strip_prefix("./") else {
            return self.check_other(first, file);
        };
        let (shown, file) = (self.path.display(), file.display());
        let name = self
            .entries
            .first()
            .map(|entry| entry.inside.display().to_string());
        if self.whole == Whole::File && name.as_deref() != Some(program) {
            return Err(refused(format!(
                "{file}: command runs {first}, and {shown} will be ./{}; write `command = \"./{0}\"`, or deploy the file that it names",
                name.unwrap_or_default()
            )));
        }
        let path = match self.whole {
            Whole::File => self.path.clone(),
            Whole::Tree => self.path.join(program),
        };
        let about = fs::metadata(&path).map_err(|_| {
            refused(format!(
                "{file}: command runs {first}, and {shown} has no such file; correct `command`, or deploy the directory that has it"
            ))
        })?;
        if !about.is_file() || about.permissions().mode() & 0o111 == 0 {
            return Err(refused(format!(
                "{} is not executable, and `command` in {file} runs it; `chmod +x {0}`",
                path.display()
            )));
        }
        // The kernel runs it as a shell does: at once, without error, and without effect.
        if about.len() == 0 {
            return Err(refused(format!(
                "{} is empty, and `command` in {file} runs it; did the build finish?",
                path.display()
            )));
        }
        Ok(())
    }
}

/// Whether `PATH` of a unit (systemd.exec(5)), or this process's own, has the program.
fn in_path(program: &str) -> bool {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let units = OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    std::env::split_paths(&own)
        .chain(std::env::split_paths(units))
        .any(|folder| folder.is_absolute() && folder.join(program).is_file())
}

fn refused(text: String) -> anyhow::Error {
    Exit::Input.because(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_socket_among_the_files_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("x"), "x", 0o755);
        let _listener =
            std::os::unix::net::UnixListener::bind(folder.path().join("live.sock")).unwrap();
        let error = Source::look_over(folder.path()).unwrap_err().to_string();
        assert!(error.contains("live.sock is neither a file"), "{error}");
    }

    #[test]
    fn a_command_must_be_in_what_is_deployed() {
        let folder = tempfile::tempdir().unwrap();
        let (binary, file) = (folder.path().join("server"), Path::new("slot.toml"));
        write(&binary, "x", 0o644);
        let command = |words: &str| vec![words.to_owned()];
        let source = Source::look_over(&binary).unwrap();
        let said = |words: &str| {
            source
                .check_command(&command(words), file)
                .unwrap_err()
                .to_string()
        };
        assert!(
            said("./other").contains("command = \"./server\""),
            "{}",
            said("./other")
        );
        assert!(
            said("./server").contains("chmod +x"),
            "{}",
            said("./server")
        );
        source
            .check_command(&command("/usr/bin/node"), file)
            .unwrap();
        let tree = Source::look_over(folder.path()).unwrap();
        let error = tree
            .check_command(&command("./gone"), file)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such file"), "{error}");
    }
}
