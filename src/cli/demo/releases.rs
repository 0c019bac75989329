//! What is deployed: four releases of the sample app, and the app's file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::app::{Behaviour, FILE, Release};
use crate::config::App;

/// The releases, by name.
const RELEASES: [(&str, Behaviour); 4] = [
    ("1", Behaviour::Serves),
    ("2", Behaviour::Serves),
    ("3", Behaviour::NeverHealthy),
    ("4", Behaviour::CrashesAtBoot),
];

/// The app's file but for its command. Three slots: streams stay on the first two, so that candidates need a third. Times are short, for
/// people who watch; `drain` is without end, since nothing is to be cut.
const SETTINGS: &str = "\
name = \"demo\"
slots = [\"blue\", \"green\", \"red\"]
bind = \"unix\"
ready = \"notify\"
health = \"/healthz\"
start_timeout = \"10s\"
health_timeout = \"2s\"
soak = \"1s\"
drain = \"0s\"
stop_timeout = \"5s\"
";

/// A directory with a build of each release.
#[derive(Debug)]
pub(super) struct Releases {
    directory: PathBuf,
}

impl Releases {
    /// Writes them below a directory.
    pub(super) fn write(directory: &Path) -> anyhow::Result<Self> {
        let releases = Self {
            directory: directory.to_owned(),
        };
        for (name, behaviour) in RELEASES {
            let path = releases.path(name);
            let name = name.to_owned();
            let text = serde_json::to_string(&Release { name, behaviour })?;
            fs::create_dir_all(&path)
                .and_then(|()| fs::write(path.join(FILE), text))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(releases)
    }

    /// A build.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("release-{name}"))
    }

    /// The app's settings: this very program, in another role.
    pub(super) fn app(&self) -> anyhow::Result<App> {
        let exe = std::env::current_exe().context("cannot find out what this program's file is")?;
        let exe = exe
            .to_str()
            .context("the path of this program is not UTF-8; copy it elsewhere")?;
        // A dollar would be taken for a variable's.
        let command = [exe.replace('$', "$$"), "demo-app".to_owned()];
        let command = serde_json::to_string(&command)?;
        // An array of strings is the same in JSON and in TOML.
        let text = format!("{SETTINGS}command = {command}\n");
        Ok(App::parse(&text, "the demo's slot.toml")?)
    }
}
