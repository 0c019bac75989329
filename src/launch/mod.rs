//! What a slot's process is given: its words, its environment, its directory. Computed here, for units and for children alike.
//!
//! **Invariant:** no file is read and no process made; who calls does that.

mod env_file;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::config::{is_env_name, is_reserved};

/// An environment, or a layer of one.
pub type Env = BTreeMap<OsString, OsString>;

/// What a process is made of.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// [`App::command`](crate::config::App::command): the first word may begin with `./`, any may have `$NAME` or
    /// `${NAME}` in it (`$$` is a dollar).
    pub command: &'a [String],
    /// The release's own directory, absolute and without symlinks: the process keeps it while the slot's symlink moves on.
    pub release: &'a Path,
    /// The environment that the process would have by itself. Reserved names in it are another process's, and dropped.
    pub inherited: &'a Env,
    /// `[env]` of the app's file.
    pub env: &'a BTreeMap<String, String>,
    /// `env_file` of the app's file, read.
    pub env_file: Option<EnvFile<'a>>,
    /// What slot (and systemd) tell this run of the slot; wins over everything. `SLOT_RELEASE` is added to it.
    pub injected: &'a Env,
}

/// An environment file's path, for errors, and its text.
#[derive(Clone, Copy, Debug)]
pub struct EnvFile<'a> {
    /// Where it was read from.
    pub path: &'a Path,
    /// What stood in it.
    pub text: &'a str,
}

/// A process to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program and its arguments; the program is absolute, or to be looked for in `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Env,
    /// Where it starts.
    pub cwd: PathBuf,
}

/// Why there is no process to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// A line of the environment file.
    #[error("{path}:{line}: {problem}; write NAME=value, or # before a comment", path = path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A word of the command names a variable that is not there.
    #[error(
        "the command's {word:?} uses ${name}, which nothing sets; set it under [env] or in env_file, or write $$ for a dollar"
    )]
    Unset {
        /// The word, as the app's file has it.
        word: String,
        /// The variable.
        name: String,
    },
    /// There are no words.
    #[error("the command is empty")]
    Empty,
}

/// Puts a process together. What slot injects wins over `env_file`, which wins over `[env]`, which wins over what is inherited.
///
/// # Errors
/// [`LaunchError`], each naming what to change.
pub fn launch(order: &Order<'_>) -> Result<Launch, LaunchError> {
    let mut env: Env = order
        .inherited
        .iter()
        .filter(|(name, _)| !name.to_str().is_some_and(is_reserved))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, value) in order.env {
        env.insert(name.into(), value.into());
    }
    if let Some(file) = order.env_file {
        let pairs = env_file::parse(file.text).map_err(|bad| LaunchError::EnvFile {
            path: file.path.to_owned(),
            line: bad.line,
            problem: bad.problem,
        })?;
        // A project's .env often says PORT=3000; that is for the author's own machine.
        let own = pairs.into_iter().filter(|(name, _)| !is_reserved(name));
        env.extend(own.map(|(name, value)| (name.into(), value.into())));
    }
    env.extend(order.injected.clone());
    if let Some(id) = order.release.file_name() {
        env.insert("SLOT_RELEASE".into(), id.to_owned());
    }
    let mut argv = Vec::with_capacity(order.command.len());
    for word in order.command {
        argv.push(filled_in(word, &env)?);
    }
    let program = argv.first_mut().ok_or(LaunchError::Empty)?;
    if let Some(own) = program.as_bytes().strip_prefix(b"./") {
        *program = order.release.join(OsStr::from_bytes(own)).into_os_string();
    }
    Ok(Launch {
        argv,
        env,
        cwd: order.release.to_owned(),
    })
}

/// A word with its variables replaced. A value is never split or looked at again, so quotes and dollars in it are safe.
fn filled_in(word: &str, env: &Env) -> Result<OsString, LaunchError> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('$') {
        out.extend_from_slice(before.as_bytes());
        if let Some(after) = after.strip_prefix('$') {
            out.push(b'$');
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{').and_then(|r| r.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        rest = if is_env_name(name) {
            let value = env
                .get(OsStr::new(name))
                .ok_or_else(|| LaunchError::Unset {
                    word: word.to_owned(),
                    name: name.to_owned(),
                })?;
            out.extend_from_slice(value.as_bytes());
            after
        } else {
            // `^a$`, `$1`, `${x:-y}`: a dollar that names no variable is one.
            out.push(b'$');
            &rest[before.len() + 1..]
        };
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(n, v)| (n.into(), v.into())).collect()
    }

    fn launched(command: &[&str], file: Option<&str>) -> Result<Launch, LaunchError> {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        launch(&Order {
            command: &command,
            release: Path::new("/var/lib/slot/web/releases/0123abcd"),
            inherited: &env(&[
                ("A", "inherited"),
                ("HOME", "/"),
                ("NOTIFY_SOCKET", "ours"),
                ("PORT", "1"),
            ]),
            env: &BTreeMap::from([
                ("A".into(), "settings".into()),
                ("B".into(), "settings".into()),
            ]),
            env_file: file.map(|text| EnvFile {
                path: Path::new("/etc/web.env"),
                text,
            }),
            injected: &env(&[("PORT", "20001")]),
        })
    }

    #[test]
    fn what_slot_injects_wins_over_the_file_over_settings_over_what_is_inherited() {
        let launch = launched(&["./server"], Some("B=file\nPORT=3000\nLISTEN_FDS=9\n")).unwrap();
        let expected = [
            ("A", "settings"),
            ("B", "file"),
            ("HOME", "/"),
            ("PORT", "20001"),
            ("SLOT_RELEASE", "0123abcd"),
        ];
        assert_eq!(launch.env, env(&expected));
    }

    #[test]
    fn the_program_of_a_release_is_that_of_its_own_directory() {
        let launch = launched(&["./bin/server", "./conf"], None).unwrap();
        assert_eq!(
            launch.argv,
            ["/var/lib/slot/web/releases/0123abcd/bin/server", "./conf"]
        );
        assert_eq!(launch.cwd, Path::new("/var/lib/slot/web/releases/0123abcd"));
        assert_eq!(launched(&["nginx"], None).unwrap().argv, ["nginx"]);
    }

    #[test]
    fn variables_are_replaced_within_words_and_never_split() {
        for (word, becomes) in [
            ("--bind=127.0.0.1:$PORT", "--bind=127.0.0.1:20001"),
            ("${PORT}0", "200010"),
            ("$A$B", "settingstwo words $PORT"),
            ("$$PORT", "$PORT"),
            ("^a$", "^a$"),
            ("$1 ${x:-y} $", "$1 ${x:-y} $"),
        ] {
            let launch = launched(&["x", word], Some("B='two words $PORT'")).unwrap();
            assert_eq!(launch.argv[1], becomes, "{word}");
        }
    }

    #[test]
    fn a_variable_that_nothing_sets_is_named() {
        let error = launched(&["x", "--db=$DATABASE_URL"], None).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("uses $DATABASE_URL, which nothing sets"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_line_of_the_file_is_named() {
        let error = launched(&["x"], Some("A=1\nB 2\n")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("/etc/web.env:2: there is no ="),
            "{error}"
        );
    }
}
