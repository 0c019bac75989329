//! A remote as git is given it: how ssh gets there, what its failures mean, where its submodules are.

use std::path::Path;

use super::GitError;

/// How ssh introduces itself, and whom it believes; where neither is given, as the user has configured it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys<'k> {
    /// A private key, in place of all others.
    pub deploy_key: Option<&'k Path>,
    /// The hosts that are known, in place of all others.
    pub known_hosts: Option<&'k Path>,
}

/// ssh(1) as git is to run it, by a shell.
pub(super) fn ssh(keys: Keys<'_>) -> Option<String> {
    if keys.deploy_key.is_none() && keys.known_hosts.is_none() {
        return None;
    }
    let mut line =
        "ssh -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=yes".to_owned();
    let quoted = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
    if let Some(key) = keys.deploy_key {
        line.push_str(" -o IdentitiesOnly=yes -o IdentityAgent=none -i ");
        line.push_str(&quoted(key));
    }
    if let Some(hosts) = keys.known_hosts {
        line.push_str(" -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile=");
        line.push_str(&quoted(hosts));
    }
    Some(line)
}

/// What git said of a remote that did not give what it was asked for, with what to do where that is known.
pub(super) fn failed(remote: &str, said: String) -> GitError {
    // What git adds to every failure of ssh says nothing.
    let said = said
        .replace(
            "; Please make sure you have the correct access rights; and the repository exists.",
            "",
        )
        .replace("\r", "");
    GitError::Remote {
        remote: remote.to_owned(),
        hint: hint(remote, &said),
        said,
    }
}

/// `; …`: what to do about what git or git-lfs said of a remote, where that is known.
pub(super) fn hint(remote: &str, said: &str) -> String {
    let has = |words: &str| said.contains(words);
    if has("HOST IDENTIFICATION HAS CHANGED") {
        "; the host has another key than the one that is known: ask its owner, then correct known_hosts".to_owned()
    } else if has("Host key verification failed") {
        format!(
            "; the key of the host is not known: `{}` prints it; compare it with what the host's owner says, and put the line into \
             the file that known_hosts names, or /etc/ssh/ssh_known_hosts",
            keyscan(remote)
        )
    } else if has("Permission denied (") {
        "; is the public half of the deploy_key (`ssh-keygen -y -f KEY`) among the deploy keys of the repository? A key with a \
         passphrase cannot be used"
            .to_owned()
    } else if has("No user exists for uid") {
        "; `apt install libnss-systemd`: ssh asks for the name of the unit's user".to_owned()
    } else if has("[404]") {
        format!("; it was not pushed there: `git lfs push --all {remote}` in a clone that has it")
    } else if has("Git credentials for") || has("could not read Username") || has("[401]") {
        "; slot has no user and no password for http: name the server by ssh, where there is a deploy_key, in the lfs.url of .lfsconfig"
            .to_owned()
    } else if has("git-lfs-authenticate") {
        "; that host has no server of Git LFS; if another one has the contents, name it in the repository: `git config -f .lfsconfig lfs.url URL`"
            .to_owned()
    } else if has("cannot run ssh") {
        "; `apt install openssh-client`".to_owned()
    } else if has("not our ref") || has("no branch and no tag") {
        "; was it removed by a force-push, or not pushed yet?".to_owned()
    } else if has("No space left on device") || has("no space left on device") {
        "; `df -h` shows which file system is full".to_owned()
    } else {
        String::new()
    }
}

/// What shows the key of a remote's host: `ssh-keyscan -p 2222 example.org`.
fn keyscan(remote: &str) -> String {
    let (host, port) = match remote.strip_prefix("ssh://") {
        Some(rest) => {
            let host = rest.split('/').next().unwrap_or(rest);
            let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
            match host
                .rsplit_once(':')
                .filter(|(_, port)| !port.contains(']'))
            {
                Some((host, port)) => (host, Some(port)),
                None => (host, None),
            }
        }
        None => {
            let host = remote.rsplit_once('@').map_or(remote, |(_, rest)| rest);
            let end = host
                .find("]:")
                .map_or_else(|| host.find(':'), |at| Some(at + 1));
            (&host[..end.unwrap_or(host.len())], None)
        }
    };
    let host = host.trim_matches(['[', ']']);
    match port {
        Some(port) => format!("ssh-keyscan -p {port} {host}"),
        None => format!("ssh-keyscan {host}"),
    }
}

/// The URL of a submodule; one that begins with `./` or `../` is beside that of its repository (gitmodules(5), `submodule.<name>.url`).
pub(super) fn beside(remote: &str, url: &str) -> String {
    if url.starts_with('/') {
        return format!("file://{url}");
    }
    if !url.starts_with("./") && !url.starts_with("../") {
        return url.to_owned();
    }
    let (mut base, mut rest, mut between) = (remote.trim_end_matches('/'), url, '/');
    loop {
        if let Some(inside) = rest.strip_prefix("./") {
            rest = inside;
        } else if let Some(outside) = rest.strip_prefix("../") {
            rest = outside;
            // The path of `host:path` ends at its colon; what goes further up is no URL any more.
            match (base.rfind('/'), base.rfind(':')) {
                (Some(slash), _) => base = &base[..slash],
                (None, Some(colon)) => (base, between) = (&base[..colon], ':'),
                (None, None) => base = "",
            }
        } else {
            return format!("{base}{between}{}", rest.trim_end_matches('/'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::url_problem;

    #[test]
    fn a_relative_url_is_beside_the_remotes() {
        for (remote, url, expected) in [
            (
                "https://h/me/shop.git",
                "../lib.git",
                "https://h/me/lib.git",
            ),
            (
                "https://h/me/shop.git/",
                "../../you/lib",
                "https://h/you/lib",
            ),
            (
                "https://h/me/shop.git",
                "./lib",
                "https://h/me/shop.git/lib",
            ),
            ("git@h:me/shop.git", "../lib.git", "git@h:me/lib.git"),
            ("git@h:shop.git", "../lib.git", "git@h:lib.git"),
            ("file:///srv/shop.git", "../lib.git", "file:///srv/lib.git"),
            ("git@h:shop", "https://x/y", "https://x/y"),
            ("file:///srv/shop", "/srv/lib", "file:///srv/lib"),
        ] {
            assert_eq!(beside(remote, url), expected, "{remote} {url}");
        }
        for (remote, url) in [
            ("https://h/shop", "../../../../../etc"),
            ("git@h:shop", "../../lib"),
            ("https://h/shop", "ext::sh -c x"),
            ("https://h/shop", "-x"),
        ] {
            let made = beside(remote, url);
            assert!(url_problem(&made).is_some(), "{made}");
        }
    }

    #[test]
    fn the_key_of_a_host_is_shown_by_its_name_and_port() {
        for (remote, expected) in [
            ("git@example.org:me/shop.git", "ssh-keyscan example.org"),
            ("ssh://git@example.org/shop", "ssh-keyscan example.org"),
            (
                "ssh://git@127.0.0.1:2222/shop",
                "ssh-keyscan -p 2222 127.0.0.1",
            ),
            ("ssh://[::1]:2222/shop", "ssh-keyscan -p 2222 ::1"),
            ("ssh://[::1]/shop", "ssh-keyscan ::1"),
            ("git@[::1]:shop", "ssh-keyscan ::1"),
        ] {
            assert_eq!(keyscan(remote), expected);
        }
    }
}
