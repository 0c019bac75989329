//! The program of a command: whether it is there, and whether whoever is to run it can.
//!
//! Paths are followed here and not by the kernel, since the deployer's own view may differ from the app's: neither sees home directories,
//! and a symlink into one says so by its target alone.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

/// Where home directories are, which a unit with `ProtectHome=yes` does not see (systemd.exec(5)).
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Symlinks that one path may pass through, as the kernel counts (path_resolution(7)).
const MOST_LINKS: usize = 40;
/// `PATH` of a unit that sets none (systemd.exec(5)).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who runs a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    /// For people: `slot-app-web`, `deploy`.
    pub name: String,
    /// Its user id; `None` for a dynamic user, who is nobody's owner and in nobody's group.
    pub user: Option<u32>,
    /// Its groups.
    pub groups: Vec<u32>,
    /// Whether it sees home directories.
    pub sees_homes: bool,
    /// Its `PATH`; `None` for a unit's own.
    pub path: Option<OsString>,
}

impl Runner {
    fn may_execute(&self, about: &fs::Metadata) -> bool {
        let bit = match self.user {
            Some(0) => 0o111,
            Some(user) if user == about.uid() => 0o100,
            _ if self.groups.contains(&about.gid()) => 0o010,
            _ => 0o001,
        };
        about.mode() & bit != 0
    }
}

/// How a path was followed.
#[derive(Debug, PartialEq, Eq)]
enum Followed {
    /// To here, a regular file that can be executed.
    Runs,
    /// Nothing is there.
    Absent,
    /// Into a home directory, at this path.
    Home(PathBuf),
    /// To here, and no further: no permission to enter or to execute.
    Barred(PathBuf),
    /// To a place that this process cannot look at.
    Unknown,
}

/// Why a program that is not one of the release cannot be run, if that is so. `word` is the command's first.
#[must_use]
pub fn objection(word: &str, runner: &Runner) -> Option<String> {
    if is_of_release(word) {
        return None;
    }
    let unset = OsString::from(PATH);
    let path = runner.path.as_ref().unwrap_or(&unset);
    let places: Vec<PathBuf> = if Path::new(word).is_absolute() {
        vec![PathBuf::from(word)]
    } else {
        std::env::split_paths(path)
            .map(|place| place.join(word))
            .collect()
    };
    let mut first: Option<(PathBuf, Followed)> = None;
    for place in places {
        match follow(&place, runner) {
            // As execvp(3) goes on to the next.
            Followed::Absent => {}
            Followed::Runs | Followed::Unknown => return None,
            found @ (Followed::Home(_) | Followed::Barred(_)) => {
                first.get_or_insert((place, found));
            }
        }
    }
    let Runner { name, .. } = runner;
    Some(match first {
        Some((place, Followed::Home(home))) => format!(
            "the command runs {}, which is {}, and {name}, as whom it runs, does not see home directories; install it for everybody \
             (in /usr/local, for instance), or write `user = \"…\"`, whose home that is, into slot.toml",
            place.display(),
            home.display()
        ),
        Some((place, Followed::Barred(at))) => format!(
            "the command runs {}, and {name}, as whom it runs, may not {} {at} (`ls -ld {at}`); change its permissions, or name another \
             program in slot.toml",
            place.display(),
            if at.is_dir() { "enter" } else { "execute" },
            at = at.display(),
        ),
        _ if Path::new(word).is_absolute() => format!(
            "the command runs {word}, which is not there; install it, or correct `command` in slot.toml"
        ),
        _ => format!(
            "the command runs {word}, which is nowhere in {}; install it, write its whole path into slot.toml, or ./{word} for a file of \
             the release",
            path.display()
        ),
    })
}

/// Why a program of the release cannot be run, if that is so. `release` is its directory.
#[must_use]
pub fn lacking(word: &str, release: &Path) -> Option<String> {
    if !is_of_release(word) {
        return None;
    }
    let shown = word.trim_start_matches("./");
    match fs::metadata(release.join(word)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some(format!(
            "the command runs {word}, and the release has no {shown}; correct `command` in slot.toml, or deploy what has it"
        )),
        Ok(about) if !about.is_file() || about.mode() & 0o111 == 0 => Some(format!(
            "the command runs {word}, and that is not executable in the release; `chmod +x {shown}` where it comes from"
        )),
        Ok(_) | Err(_) => None,
    }
}

/// A word with a slash that is not absolute is looked for where the process starts, which is the release.
fn is_of_release(word: &str) -> bool {
    word.contains('/') && !Path::new(word).is_absolute()
}

fn follow(path: &Path, runner: &Runner) -> Followed {
    let mut at = PathBuf::from("/");
    let mut ahead: VecDeque<OsString> = parts(path).collect();
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == OsStr::new("..") {
            at.pop();
            continue;
        }
        at.push(name);
        let in_home = HOMES.iter().any(|home| at.starts_with(home));
        if in_home && !runner.sees_homes {
            return Followed::Home(ahead.iter().fold(at, |at, name| at.join(name)));
        }
        let about = match fs::symlink_metadata(&at) {
            Ok(about) => about,
            Err(error) => {
                return match error.kind() {
                    ErrorKind::NotFound | ErrorKind::NotADirectory => Followed::Absent,
                    _ => Followed::Unknown,
                };
            }
        };
        if about.is_symlink() {
            links += 1;
            let target = match fs::read_link(&at) {
                Ok(target) if links <= MOST_LINKS => target,
                _ => return Followed::Absent,
            };
            at.pop();
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                ahead.push_front(name);
            }
            continue;
        }
        let is_last = ahead.is_empty();
        if is_last && !about.is_file() {
            return Followed::Absent;
        }
        if !runner.may_execute(&about) {
            // What a deployer without a view of homes sees there is a cover.
            let is_own_view = !in_home || runner.user == Some(geteuid().as_raw());
            return if is_own_view {
                Followed::Barred(at)
            } else {
                Followed::Unknown
            };
        }
    }
    Followed::Runs
}

fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn dynamic(path: Option<&Path>) -> Runner {
        Runner {
            name: "slot-app-web".to_owned(),
            user: None,
            groups: Vec::new(),
            sees_homes: false,
            path: path.map(|path| path.as_os_str().to_owned()),
        }
    }

    /// A directory that everybody may enter, with programs of these modes.
    fn folder(programs: &[(&str, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, mode) in programs {
            let path = folder.path().join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        folder
    }

    #[test]
    fn a_program_in_the_path_or_by_its_whole_path_is_found() {
        let folder = folder(&[("node", 0o755)]);
        let runner = dynamic(Some(folder.path()));
        assert_eq!(objection("node", &runner), None);
        let whole = folder.path().join("node");
        assert_eq!(objection(whole.to_str().unwrap(), &dynamic(None)), None);
        assert_eq!(objection("sh", &dynamic(None)), None);
    }

    #[test]
    fn a_program_that_is_nowhere_is_named_with_the_path() {
        let folder = folder(&[]);
        let text = objection("node", &dynamic(Some(folder.path()))).unwrap();
        assert!(text.contains("runs node, which is nowhere in /"), "{text}");
        let text = objection("/opt/none/node", &dynamic(None)).unwrap();
        assert!(text.contains("/opt/none/node, which is not there"));
    }

    #[test]
    fn a_program_in_a_home_is_refused_also_behind_a_symlink_that_cannot_be_followed() {
        let folder = folder(&[]);
        let target = "/home/me/.nvm/versions/node/v20/bin/node";
        symlink(target, folder.path().join("node")).unwrap();
        let mut runner = dynamic(Some(folder.path()));
        let text = objection("node", &runner).unwrap();
        assert!(text.contains(target) && text.contains("does not see home directories"));
        // Whoever sees homes finds that nothing is there.
        runner.sees_homes = true;
        assert!(objection("node", &runner).unwrap().contains("nowhere"));
    }

    #[test]
    fn a_program_that_only_its_owner_may_run_is_refused_for_others() {
        let folder = folder(&[("node", 0o700)]);
        let mut runner = dynamic(Some(folder.path()));
        let text = objection("node", &runner).unwrap();
        assert!(text.contains("may not execute") && text.contains("slot-app-web"));
        runner.user = Some(nix::unistd::geteuid().as_raw());
        assert_eq!(objection("node", &runner), None);
    }

    #[test]
    fn a_directory_on_the_way_that_bars_is_named() {
        let folder = folder(&[("node", 0o755)]);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let text = objection("node", &dynamic(Some(folder.path()))).unwrap();
        assert!(
            text.contains(&format!("enter {}", folder.path().display())),
            "{text}"
        );
    }

    #[test]
    fn symlinks_that_lead_round_are_no_program() {
        let folder = folder(&[]);
        symlink("b", folder.path().join("a")).unwrap();
        symlink("a", folder.path().join("b")).unwrap();
        let text = objection("a", &dynamic(Some(folder.path()))).unwrap();
        assert!(text.contains("nowhere"));
    }

    #[test]
    fn a_program_of_the_release_has_to_be_in_it_and_executable() {
        let release = folder(&[("server", 0o755), ("notes", 0o644)]);
        assert_eq!(lacking("./server", release.path()), None);
        assert_eq!(lacking("node", release.path()), None);
        let text = lacking("./notes", release.path()).unwrap();
        assert!(text.contains("`chmod +x notes`"), "{text}");
        let text = lacking("bin/server", release.path()).unwrap();
        assert!(text.contains("no bin/server"), "{text}");
        assert_eq!(objection("./server", &dynamic(None)), None);
    }
}
