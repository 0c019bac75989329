//! `[staging]` of an app's file: the work tree for the next deployment.

use super::app::{PRIVILEGED, user};
use super::error::ConfigError;
use super::section::Value;

/// Whose work tree it is, and its branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staging {
    /// `user = "alice"`; where systemd runs it has to be said.
    pub user: Option<String>,
    /// `branch = "machine"`.
    pub branch: String,
}

impl Staging {
    /// The branch, unless the file says another.
    pub const BRANCH: &str = "machine";

    pub(super) fn parse(table: Value<'_>, allow_privileged: bool) -> Result<Self, ConfigError> {
        let mut keys = table.section("[staging]")?;
        let user = keys.take("user").map(|it| owner(&it, allow_privileged));
        let branch = keys.take("branch").map(|it| branch(&it));
        keys.finish()?;
        Ok(Self {
            user: user.transpose()?,
            branch: branch.unwrap_or_else(|| Ok(Self::BRANCH.to_owned()))?,
        })
    }
}

fn owner(value: &Value<'_>, allow_privileged: bool) -> Result<String, ConfigError> {
    // Its own words for who may be named only on purpose.
    let name = user(value, true)?;
    if PRIVILEGED.contains(&name.as_str()) && !allow_privileged {
        return Err(value.error(
            format!("a work tree is somebody's, and {name} is nobody in particular"),
            "name the user who works in it, or write `allow_privileged_user = true` above",
        ));
    }
    Ok(name)
}

/// A branch's name: what git-check-ref-format(1) takes, without what a shell or a pattern has another meaning for.
fn branch(value: &Value<'_>) -> Result<String, ConfigError> {
    let name = value.text("\"machine\"")?;
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && !part.ends_with('.')
            && !part.ends_with(".lock")
            && !part.contains("..")
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if name.len() <= 100 && name != "HEAD" && name.split('/').all(plain) {
        return Ok(name);
    }
    Err(value.error(
        format!("{name:?} cannot be the name of a branch"),
        "write letters, digits, `.`, `_`, `-` and `/`: \"machine\"",
    ))
}
