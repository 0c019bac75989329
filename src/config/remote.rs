//! `[git]` of an app's file: the remote that its commits are fetched from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::env::roots_alone;
use super::error::ConfigError;
use super::section::{Section, Value};

/// How long a fetch may take if the file does not say.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// A remote, as it is shown to whoever wrote none.
const EXAMPLE: &str = "\"git@example.org:me/shop.git\"";

/// Where a commit is fetched from, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// `remote = "git@example.org:me/shop.git"`: what [`url_problem`] has nothing against.
    pub url: String,
    /// `branch = "main"`; absent: what the remote's HEAD names.
    pub branch: Option<String>,
    /// `deploy_key = "/etc/slot/keys/shop"`: a private key of root's, which PID 1 reads for the fetch.
    pub deploy_key: Option<String>,
    /// `known_hosts = "/etc/slot/keys/known_hosts"`, likewise; absent: `/etc/ssh/ssh_known_hosts`.
    pub known_hosts: Option<String>,
    /// `fetch_timeout = "5m"`.
    pub timeout: Duration,
}

impl Remote {
    /// Why its deploy key should not be used, if that can be seen: it is not there, or others than its owner may read it.
    #[must_use]
    pub fn key_problem(&self) -> Option<String> {
        let key = self.deploy_key.as_deref()?;
        match fs::metadata(key) {
            Ok(about) if !about.is_file() => Some(format!("{key} is no file")),
            Ok(about) if about.permissions().mode() & 0o077 != 0 => Some(format!(
                "others than its owner may read {key}, a private key; `chmod 0600 {key}`, and if it may have been read, make another"
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(format!(
                "there is no file {key}; make one that is root's (`sudo ssh-keygen -t ed25519 -N '' -f {key}`), and add {key}.pub to \
                 the deploy keys of the repository"
            )),
            // Whoever reads it for the fetch will tell.
            Ok(_) | Err(_) => None,
        }
    }
}

/// `[git]`, if the file has it.
pub(super) fn remote(value: Option<Value<'_>>) -> Result<Option<Remote>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let at = value.place();
    let mut keys: Section<'_> = value.section("[git]")?;
    let url = keys.take("remote").map(|value| url(&value)).transpose()?;
    let branch = keys.take("branch").map(|value| branch(&value));
    let mut file = |key, example| {
        let value = keys.take(key);
        value.map(|value| file(&value, example)).transpose()
    };
    let deploy_key = file("deploy_key", "\"/etc/slot/keys/shop\"")?;
    let known_hosts = file("known_hosts", "\"/etc/slot/keys/known_hosts\"")?;
    let timeout = keys.take("fetch_timeout");
    let timeout = timeout.map_or(Ok(TIMEOUT), |value| value.lasting("5m"))?;
    keys.finish()?;
    let Some(url) = url else {
        return Err(at.error(
            "it does not say where commits are fetched from",
            format!("write `remote = {EXAMPLE}` in it"),
        ));
    };
    Ok(Some(Remote {
        url,
        branch: branch.transpose()?,
        deploy_key,
        known_hosts,
        timeout,
    }))
}

fn url(value: &Value<'_>) -> Result<String, ConfigError> {
    let url = value.text(EXAMPLE)?;
    match url_problem(&url) {
        None => Ok(url),
        Some(problem) => Err(value.error(
            problem,
            format!("write a URL (ssh, https, http, git, file) or `user@host:path`: `remote = {EXAMPLE}`"),
        )),
    }
}

/// Why git is not to be given a URL, if it is not: what is no URL of the usual kinds could be an option, a command (`ext::`), or a path of
/// whoever reads it. Nor may a password be in it: it would be read in errors, by `ps`, and by whoever may read the file.
#[must_use]
pub fn url_problem(url: &str) -> Option<String> {
    // What may have a password in it is not repeated.
    let shown = |what: &str| {
        Some(match url.contains('@') {
            true => format!("it {what}"),
            false => format!("{url:?} {what}"),
        })
    };
    if url.is_empty() || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return shown("is no URL");
    }
    let (host, path) = match url.split_once("://") {
        Some(("file", path)) => {
            return match path.starts_with('/') {
                true => None,
                false => shown("is no file of this machine: three slashes follow `file:`"),
            };
        }
        Some(("https" | "http", rest))
            if rest
                .split('/')
                .next()
                .is_some_and(|host| host.contains('@')) =>
        {
            return Some(
                "it has a user in it, which for http is a password or a token that others would read; use ssh with a deploy_key"
                    .to_owned(),
            );
        }
        Some(("ssh" | "https" | "http" | "git", rest)) => {
            rest.split_once('/').unwrap_or((rest, ""))
        }
        Some(_) => return shown("is of a kind that slot does not let git fetch from"),
        // As git reads it: what has a slash before its first colon is a path (git-fetch(1), "GIT URLS").
        None => {
            let colon = match url.find("]:") {
                Some(bracket) => Some(bracket + 1),
                None => url.find(':'),
            };
            let Some(colon) = colon.filter(|at| !url[..*at].contains('/')) else {
                return shown("is no URL");
            };
            (&url[..colon], &url[colon + 1..])
        }
    };
    let (user, machine) = host.rsplit_once('@').unwrap_or(("", host));
    if user.contains(':') {
        return Some(
            "it has a password in it, which others would read; use ssh with a deploy_key"
                .to_owned(),
        );
    }
    if machine.is_empty() || machine.starts_with(['-', ':']) || host.starts_with('-') {
        return shown("names no host");
    }
    // `host::path` would be a program of git's, git-remote-host.
    if path.is_empty() || path.starts_with(['-', ':']) {
        return shown("names no repository");
    }
    None
}

fn branch(value: &Value<'_>) -> Result<String, ConfigError> {
    let name = value.text("\"main\"")?;
    if is_ref_name(&name) {
        return Ok(name);
    }
    Err(value.error(
        format!("{name:?} is not a branch's name"),
        "write the name of a branch or a tag of the remote: `branch = \"main\"`",
    ))
}

/// Whether a branch or a tag may be called so (git-check-ref-format(1)); nothing of that is an option or a pattern.
#[must_use]
pub fn is_ref_name(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let odd = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    name.len() <= 1000
        && name.split('/').all(part)
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
        && !name.contains(odd)
}

/// An absolute path of a file that root reads. It stands in a unit and in an option of ssh as it is, where spaces, quotes and `%` mean
/// something.
pub(super) fn file(value: &Value<'_>, example: &str) -> Result<String, ConfigError> {
    let path = value.text(example)?;
    let plain = |c: char| c.is_alphanumeric() || "/._-+@".contains(c);
    if !path.starts_with('/') || !path.chars().all(plain) {
        return Err(value.error(
            format!("{path:?} is not an absolute path with a plain name"),
            format!("write it without spaces and signs: `{example}`"),
        ));
    }
    match roots_alone(Path::new(&path)) {
        true => Ok(path),
        false => Err(value.error(
            format!("root reads {path} for the app, and not only root writes there"),
            format!("put it where only root writes, and write its path without `..`: `{example}`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_the_usual_kinds_are_taken() {
        for url in [
            "git@example.org:me/shop.git",
            "example.org:shop",
            "git@[::1]:shop.git",
            "ssh://git@example.org:2222/me/shop.git",
            "ssh://git@[::1]:2222/me/shop.git",
            "https://example.org/me/shop.git",
            "https://example.org/me/shop",
            "http://127.0.0.1:3000/me/shop",
            "git://127.0.0.1:9418/shop.git",
            "file:///srv/git/shop.git",
        ] {
            assert_eq!(url_problem(url), None, "{url}");
        }
    }

    #[test]
    fn what_could_be_an_option_a_command_or_a_secret_is_no_url() {
        for url in [
            "",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x:y",
            "ssh://-oProxyCommand=x/y",
            "git@-oProxyCommand=x:y",
            "ext::sh -c x",
            "ext::sh",
            "fd::17/foo",
            "ftp://example.org/shop",
            "ssh://example.org",
            "ssh://git@example.org:2222",
            "/srv/git/shop.git",
            "./shop.git",
            "shop.git",
            "file://srv/shop.git",
            "https://me:secret@example.org/shop",
            "https://example.org/two words",
            "git@example.org:",
        ] {
            assert!(url_problem(url).is_some(), "{url}");
        }
    }

    #[test]
    fn a_name_that_git_would_read_as_more_than_a_name_is_none() {
        for name in ["main", "feature/x", "v1.2", "refs/heads/main", "ä"] {
            assert!(is_ref_name(name), "{name}");
        }
        for name in [
            "", "-x", "a b", "a..b", "main~1", "main^", "a:b", "a*", "a?", "[a", "a\\b", "/a",
            "a/", "a//b", ".a", "a/.b", "a.lock", "a.", "@", "a@{1}", "a\n",
        ] {
            assert!(!is_ref_name(name), "{name}");
        }
    }
}
