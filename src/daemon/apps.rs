//! Every app of a deployer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::RwLock;

use super::app::{Managed, OpenError, Place};
use super::route::at_rest;
use super::tables::Tables;
use super::units::Units;
use crate::config::App;
use crate::deploy::{AppName, Phase};
use crate::telemetry::{chain, message};

/// How often it is looked whether an app that could not be taken up can be.
const MEND: Duration = Duration::from_secs(2);

/// Makes the units of an app.
type MakeUnits<U> = Box<dyn Fn(&App) -> U + Send + Sync>;

/// Where the apps' files are.
#[derive(Clone, Debug)]
pub enum Source {
    /// `/etc/slot/apps`: `<app>.toml` each.
    Directory(PathBuf),
    /// The one app of an embedded deployer.
    Only(Box<App>),
}

impl Source {
    /// The apps that have a file.
    fn names(&self) -> Vec<String> {
        match self {
            Self::Only(app) => vec![app.name.to_string()],
            Self::Directory(directory) => files(directory),
        }
    }
}

/// Why an app was not found or not taken up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppError {
    /// There is no such app.
    #[error("there is no app {name}; `slotctl app list` lists them, `slotctl app add` adds one")]
    NoSuchApp {
        /// As asked.
        name: String,
    },
    /// It has a file that has come since slotd started, and nobody has told slotd.
    #[error(
        "app {name} has a file, which slotd has not read yet; `sudo slotctl app reload {name}` has it read, and changes nothing that runs"
    )]
    NotTakenUp {
        /// The app.
        name: String,
    },
    /// No app was named and it is not clear which is meant.
    #[error("name the app with --app: {}", if names.is_empty() { "there is none yet (`slotctl app add` adds one)".to_owned() } else { format!("there are {}", names.join(", ")) })]
    Unnamed {
        /// What there is.
        names: Vec<String>,
    },
    /// Its file or its state cannot be used.
    #[error("app {name} cannot be managed: {why}")]
    Broken {
        /// The app.
        name: String,
        /// Why.
        why: String,
    },
    /// Its file is gone, or cannot be made into units.
    #[error(
        "the file of app {name} is wrong: {why}. Until it is right, and `slotctl app reload` or `systemctl daemon-reload` has read it, no \
         slot is started; what runs goes on"
    )]
    WrongFile {
        /// The app.
        name: String,
        /// Where, why, and what to write instead.
        why: String,
    },
    /// What its file says now cannot be had while things are as they are.
    #[error("app {name} cannot be changed now: {why}")]
    InUse {
        /// The app.
        name: String,
        /// What is in the way, and what to do.
        why: String,
    },
}

/// All apps.
pub struct Apps<U> {
    source: Source,
    place: Place,
    tables: Arc<Tables>,
    make_units: MakeUnits<U>,
    managed: RwLock<BTreeMap<AppName, Arc<Managed<U>>>>,
    broken: RwLock<BTreeMap<String, AppError>>,
    removed: RwLock<BTreeSet<String>>,
}

impl<U: Units> Apps<U> {
    /// No apps yet; [`Apps::load`] finds them.
    pub fn new(
        source: Source,
        place: Place,
        tables: Arc<Tables>,
        make_units: impl Fn(&App) -> U + Send + Sync + 'static,
    ) -> Self {
        Self {
            source,
            place,
            tables,
            make_units: Box::new(make_units),
            managed: RwLock::default(),
            broken: RwLock::default(),
            removed: RwLock::default(),
        }
    }

    /// The table of the machine.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Takes up every app that is not managed yet; one that cannot be is remembered as broken, and the others go on.
    pub async fn load(&self) {
        for name in self.source.names() {
            if let Err(error) = self.take_up(&name).await {
                tracing::error!(
                    message_id = message::id("app-broken"),
                    slot_app = name.as_str(),
                    "{}",
                    chain(&error)
                );
            }
        }
        if let Err(error) = self.tables.is_whole().await {
            tracing::warn!("the table is not everywhere yet: {}", chain(&error));
        }
    }

    /// Takes up apps whose file or state is right again; never returns.
    pub async fn mend(&self) {
        loop {
            tokio::time::sleep(MEND).await;
            let broken: Vec<String> = self.broken.read().await.keys().cloned().collect();
            for name in broken {
                match self.take_up(&name).await {
                    Ok(_) => tracing::info!(
                        message_id = message::id("app-mended"),
                        slot_app = name.as_str(),
                        "can be managed again"
                    ),
                    Err(AppError::NoSuchApp { .. }) => {
                        self.broken.write().await.remove(&name);
                    }
                    Err(error) => tracing::debug!("{}", chain(&error)),
                }
            }
        }
    }

    /// What is wrong with the file of an app that is managed: somebody changed or removed it. It goes on as it was taken up.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check_file(&self, name: &str) -> Result<(), AppError> {
        self.read(name).map(|_| ()).map_err(|error| match error {
            AppError::NoSuchApp { name } => AppError::WrongFile {
                why: format!(
                    "it does not exist any more; write it again with `slotctl app add`, or remove what is left of the app with \
                     `slotctl app remove {name}`"
                ),
                name,
            },
            error => error,
        })
    }

    /// Ends the ownership of every app, for a deployer that ends: nothing is decided any more, and nothing is stopped.
    pub async fn end(&self) {
        for app in self.managed.read().await.values() {
            app.owner().end();
            app.owner().ended().await;
        }
    }

    /// An app that is managed, as [`Apps::known`] finds it; one that is not yet, because its file is new or was wrong, is taken up.
    ///
    /// # Errors
    /// There is none, or it cannot be managed.
    pub async fn get(&self, name: Option<&str>) -> Result<Arc<Managed<U>>, AppError> {
        match (self.known(name).await, name) {
            (Err(_), Some(name)) => self.take_up(name).await,
            (known, _) => known,
        }
    }

    /// An app by name; without one, the only app, or the app `slot`. None is taken up, and nothing else is changed: this is for whoever
    /// may only look.
    ///
    /// # Errors
    /// There is none, or it is not managed.
    pub async fn known(&self, name: Option<&str>) -> Result<Arc<Managed<U>>, AppError> {
        self.tables.gathered().await;
        let managed = self.managed.read().await;
        let Some(name) = name else {
            let slot = managed
                .iter()
                .find(|(name, _)| name.as_str() == "slot")
                .map(|(_, app)| app);
            let broken = self.broken.read().await;
            let alone = managed.len() == 1 && broken.is_empty();
            let only = managed.values().next().filter(|_| alone);
            let names = || {
                let managed = managed.keys().map(ToString::to_string);
                managed.chain(broken.keys().cloned()).collect()
            };
            return only
                .or(slot)
                .cloned()
                .ok_or_else(|| AppError::Unnamed { names: names() });
        };
        let known = managed
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map(|(_, app)| Arc::clone(app));
        drop(managed);
        match known {
            Some(app) => Ok(app),
            None => Err(self.unmanaged(name).await),
        }
    }

    /// Why an app is not managed.
    async fn unmanaged(&self, name: &str) -> AppError {
        if let Some(why) = self.broken.read().await.get(name) {
            return why.clone();
        }
        let name = name.to_owned();
        if self.removed.read().await.contains(&name) {
            return AppError::NoSuchApp { name };
        }
        match self.read(&name) {
            Ok(_) => AppError::NotTakenUp { name },
            Err(error) => error,
        }
    }

    /// Every app that is managed, and what is wrong with those that are not, or whose file is; of a deployer that has just started,
    /// once it knows them.
    pub async fn all(&self) -> (Vec<Arc<Managed<U>>>, BTreeMap<String, String>) {
        self.tables.gathered().await;
        let managed: Vec<Arc<Managed<U>>> = self.managed.read().await.values().cloned().collect();
        let known = self.broken.read().await.clone();
        let known = known.iter().map(|(name, why)| (name.clone(), chain(why)));
        let mut broken: BTreeMap<String, String> = known.collect();
        for app in &managed {
            let name = app.app().name.as_str();
            if let Err(error) = self.check_file(name) {
                broken.insert(name.to_owned(), chain(&error));
            }
        }
        let is_managed = |name: &String| managed.iter().any(|app| app.app().name.as_str() == name);
        for name in self.source.names() {
            if is_managed(&name) || broken.contains_key(&name) {
                continue;
            }
            match self.unmanaged(&name).await {
                AppError::NoSuchApp { .. } => {}
                why => {
                    broken.insert(name, chain(&why));
                }
            }
        }
        (managed, broken)
    }

    /// Reads an app's file again. What runs is not touched: the app is given up and taken up again, as in a restart of slotd. Before that
    /// its state is written once more where the disk has lost it, so that nothing is forgotten by that.
    ///
    /// # Errors
    /// A file that cannot be used, and a state that cannot be written, leave the app as it is; a state that cannot be used leaves it
    /// unmanaged, and running.
    pub async fn reload(&self, name: &str) -> Result<Arc<Managed<U>>, AppError> {
        self.tables.gathered().await;
        let app = self.read(name)?;
        self.removed.write().await.remove(name);
        let mut managed = self.managed.write().await;
        if let Some(known) = managed.get(&app.name) {
            let kept = known.keep_written().await;
            kept.map_err(|error| broken(name, &error))?;
            if *known.app() == app {
                let known = Arc::clone(known);
                drop(managed);
                tell_apart(&known).await;
                return Ok(known);
            }
            self.fits(&app).await?;
            can_change(known, &app)?;
            known.owner().end();
            known.owner().ended().await;
        }
        // Should it fail, the app is not managed rather than managed by an owner that has ended, until it can be.
        managed.remove(&app.name);
        let opened = self.open(app).await;
        self.settle(name, &mut managed, opened).await
    }

    /// Forgets an app: it is taken out of the table, and nothing of it is stopped.
    ///
    /// # Errors
    /// There is none, or a router did not take the table.
    pub async fn remove(&self, name: &str) -> Result<(), AppError> {
        let mut managed = self.managed.write().await;
        self.broken.write().await.remove(name);
        let found = managed.iter().find(|(known, _)| known.as_str() == name);
        let Some((key, app)) = found.map(|(key, app)| (key.clone(), Arc::clone(app))) else {
            // Of an app whose file was wrong, or gone, when slotd started, the table of before is still served.
            if self.tables.part(name).await.is_none() {
                return Err(AppError::NoSuchApp {
                    name: name.to_owned(),
                });
            }
            self.removed.write().await.insert(name.to_owned());
            return self
                .tables
                .withdraw(name)
                .await
                .map_err(|error| broken(name, &error));
        };
        // Its file is still there, and is not to bring it back: not before somebody says that it is to be read again.
        self.removed.write().await.insert(name.to_owned());
        app.withdraw().await.map_err(|error| broken(name, &error))?;
        managed.remove(&key);
        Ok(())
    }

    async fn take_up(&self, name: &str) -> Result<Arc<Managed<U>>, AppError> {
        let mut managed = self.managed.write().await;
        if let Some((_, known)) = managed.iter().find(|(known, _)| known.as_str() == name) {
            return Ok(Arc::clone(known));
        }
        if self.removed.read().await.contains(name) {
            return Err(AppError::NoSuchApp {
                name: name.to_owned(),
            });
        }
        let opened = match self.read(name) {
            Ok(app) => self.open(app).await,
            Err(error) => Err(error),
        };
        self.settle(name, &mut managed, opened).await
    }

    /// An app that was opened is managed; one that could not be is remembered as broken, for [`Apps::mend`] and for whoever looks.
    async fn settle(
        &self,
        name: &str,
        managed: &mut BTreeMap<AppName, Arc<Managed<U>>>,
        opened: Result<Arc<Managed<U>>, AppError>,
    ) -> Result<Arc<Managed<U>>, AppError> {
        match &opened {
            Ok(opened) => {
                managed.insert(opened.app().name.clone(), Arc::clone(opened));
                self.broken.write().await.remove(name);
                tell_apart(opened).await;
            }
            Err(error @ (AppError::Broken { .. } | AppError::WrongFile { .. })) => {
                let why = error.clone();
                self.broken.write().await.insert(name.to_owned(), why);
            }
            Err(_) => {}
        }
        opened
    }

    /// Whether the routers could have the app beside the others.
    async fn fits(&self, app: &App) -> Result<(), AppError> {
        let accepted = self.tables.accepts(at_rest(app)).await;
        accepted.map_err(|error| AppError::Broken {
            name: app.name.to_string(),
            why: format!("{}; change its hosts, paths or listener", chain(&error)),
        })
    }

    async fn open(&self, app: App) -> Result<Arc<Managed<U>>, AppError> {
        self.fits(&app).await?;
        let (name, units) = (app.name.to_string(), (self.make_units)(&app));
        let opened = Managed::open(app, units, &self.place, Arc::clone(&self.tables)).await;
        opened
            .map(Arc::new)
            .map_err(|error: OpenError| AppError::Broken {
                name,
                why: chain(&error),
            })
    }

    fn read(&self, name: &str) -> Result<App, AppError> {
        let no_such = || AppError::NoSuchApp {
            name: name.to_owned(),
        };
        let wrong = |why: String| AppError::WrongFile {
            name: name.to_owned(),
            why,
        };
        let directory = match &self.source {
            Source::Only(app) if app.name.as_str() == name => return Ok((**app).clone()),
            Source::Only(_) => return Err(no_such()),
            Source::Directory(directory) => directory,
        };
        let name: AppName = name.parse().map_err(|_| no_such())?;
        let path = directory.join(format!("{name}.toml"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_such()),
            Err(error) => return Err(wrong(format!("cannot read {}: {error}", path.display()))),
        };
        let file = path.display().to_string();
        let app = App::parse(&text, &file).and_then(|app| app.check_installed(&file).map(|()| app));
        app.map_err(|error| wrong(chain(&error)))
    }
}

/// Says that what starts next would not go by an app's file as it was just read, if that is so.
async fn tell_apart<U: Units>(app: &Managed<U>) {
    if let Some(why) = app.world().units.apart().await {
        tracing::warn!(
            message_id = message::id("units-apart"),
            slot_app = app.app().name.as_str(),
            "{why}"
        );
    }
}

fn broken(name: &str, error: &dyn std::error::Error) -> AppError {
    AppError::Broken {
        name: name.to_owned(),
        why: chain(error),
    }
}

/// Whether an app that is managed can become what its file says now, without losing what is under way or what serves.
fn can_change<U: Units>(known: &Managed<U>, new: &App) -> Result<(), AppError> {
    let in_use = |why: String| {
        Err(AppError::InUse {
            name: new.name.to_string(),
            why,
        })
    };
    let state = Arc::clone(&known.owner().state().borrow());
    if let Some(Phase::Preparing { .. }) = state.deployment.as_ref().map(|held| &held.phase) {
        return in_use("a release is being prepared; wait for that".to_owned());
    }
    for (name, slot) in &state.slots {
        if !slot.condition.is_free() && !new.slots.contains(name) {
            return in_use(format!(
                "slot {name} is {}, and its file does not name it any more; keep it in `slots` until it is idle",
                slot.condition.name()
            ));
        }
    }
    let old = known.app();
    let moved = (old.bind, &old.ports, &old.health) != (new.bind, &new.ports, &new.health);
    if moved && (state.deployment.is_some() || state.watch.is_some()) {
        return in_use(format!(
            "it is {}, and the file says that its slots are elsewhere; wait until that has ended",
            state.name()
        ));
    }
    Ok(())
}

/// The apps that have a file.
fn files(directory: &std::path::Path) -> Vec<String> {
    let Ok(listed) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut names: Vec<String> = listed
        .filter_map(Result::ok)
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".toml")
                .map(ToOwned::to_owned)
        })
        .collect();
    names.sort();
    names
}
