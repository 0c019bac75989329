//! `[auto]` of an app's file: what is deployed by itself, and when.

use std::path::Path;
use std::time::Duration;

use super::app::user;
use super::env::roots_alone;
use super::error::ConfigError;
use super::section::Value;
use super::window::Window;

/// How often is looked, if the file does not say.
const EVERY: Duration = Duration::from_secs(60);
/// More often would be a burden to a remote.
const OFTEN: Duration = Duration::from_secs(5);

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// `watch = "path"`, `path = "/srv/drop/web"`: a binary or an archive, or the newest one of a directory.
    Path(String),
    /// `watch = "git"`: what the app's remote has on its branch.
    Git,
}

/// What is deployed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auto {
    /// Of what.
    pub watched: Watched,
    /// `every = "1m"`: how often is looked.
    pub every: Duration,
    /// `window = "Mon..Fri 09:00-17:00"`, or several: when it may be deployed; at any time, if there is none.
    pub windows: Vec<Window>,
    /// `user = "ci"`: who reads the path; a user of its own, if there is none.
    pub user: Option<String>,
}

/// `[auto]`, if the file has it; `remote` says whether it has `[git]`.
pub(super) fn auto(
    value: Option<Value<'_>>,
    remote: bool,
    allow_privileged: bool,
) -> Result<Option<Auto>, ConfigError> {
    let Some(value) = value else { return Ok(None) };
    let at = value.place();
    let mut keys = value.section("[auto]")?;
    let watch = keys.take("watch");
    let watch = watch.map(|value| value.word(&[("path", false), ("git", true)]));
    let path = keys.take("path");
    let every = keys.take("every");
    let every = every.map_or(Ok(EVERY), |value| match value.lasting("1m")? {
        every if every < OFTEN => {
            Err(value.error("that is too often", "write at least `every = \"5s\"`"))
        }
        every => Ok(every),
    })?;
    let windows = keys
        .take("window")
        .map(|value| windows(&value))
        .transpose()?;
    let user = keys
        .take("user")
        .map(|value| user(&value, allow_privileged));
    let user = user.transpose()?;
    keys.finish()?;
    if let Some(path) = path.as_ref().filter(|_| user.is_none()) {
        let within = path.text("\"/srv/drop/web\"")?;
        if ["/home", "/root"]
            .iter()
            .any(|it| Path::new(&within).starts_with(it))
        {
            return Err(path.error(
                "a user of its own sees no homes",
                "put it elsewhere, or write `user = \"alice\"`: who reads it",
            ));
        }
    }
    let watched = match (watch.transpose()?, path) {
        (None, _) => {
            return Err(at.error(
                "it does not say what is looked at",
                "write `watch = \"git\"`, or `watch = \"path\"` and `path = \"/srv/drop/web\"`",
            ));
        }
        (Some(false), Some(path)) => Watched::Path(self::path(&path)?),
        (Some(false), None) => {
            return Err(at.error(
                "it does not say which path",
                "write `path = \"/srv/drop/web\"`: a file, or a directory whose newest file it is",
            ));
        }
        (Some(true), None) if remote => Watched::Git,
        (Some(true), None) => {
            return Err(at.error(
                "there is no remote to look at",
                "write `[git]` and `remote = \"git@example.org:me/shop.git\"`",
            ));
        }
        (Some(true), Some(path)) => {
            return Err(path.error(
                "a remote has none",
                "remove it, or write `watch = \"path\"`",
            ));
        }
    };
    Ok(Some(Auto {
        watched,
        every,
        windows: windows.unwrap_or_default(),
        user,
    }))
}

fn windows(value: &Value<'_>) -> Result<Vec<Window>, ConfigError> {
    const EXAMPLE: &str = "\"Mon..Fri 09:00-17:00\"";
    let one = |value: &Value<'_>| {
        let text = value.text(EXAMPLE)?;
        let window = text.parse::<Window>();
        window.map_err(|no| value.error(format!("{text:?} is no span of a week"), no.to_string()))
    };
    if value.is_text() {
        return Ok(vec![one(value)?]);
    }
    let items = value.list(&format!("[{EXAMPLE}]"))?;
    if items.is_empty() {
        return Err(value.error(
            "it is empty",
            format!("write `window = {EXAMPLE}`, or remove the key"),
        ));
    }
    items.iter().map(one).collect()
}

/// It stands in units as it is, where spaces, quotes and `%` mean something.
fn path(value: &Value<'_>) -> Result<String, ConfigError> {
    const EXAMPLE: &str = "\"/srv/drop/web\"";
    let path = value.text(EXAMPLE)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if !path.starts_with('/') || path.len() < 2 || !path.chars().all(plain) {
        return Err(value.error(
            format!("{path:?} is not an absolute path with a plain name"),
            format!("write it without spaces and signs: `path = {EXAMPLE}`"),
        ));
    }
    if ["/tmp", "/var/tmp"]
        .iter()
        .any(|it| Path::new(&path).starts_with(it))
    {
        return Err(value.error(
            "whoever looks has a /tmp of its own",
            format!("put it elsewhere: `path = {EXAMPLE}`"),
        ));
    }
    if !roots_alone(Path::new(&path)) {
        return Err(value.error(
            format!("{path} is in one of slot's own directories, or has `..` in it"),
            format!("put it elsewhere: `path = {EXAMPLE}`"),
        ));
    }
    Ok(path.trim_end_matches('/').to_owned())
}
