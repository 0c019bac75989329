//! One app under a deployer: its owner, its world, and what can be asked of them.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::commits;
use super::live::{Live, blocking};
use super::owner::{AskError, Owner};
use super::prepare::{Preparation, Unready};
use super::tables::Tables;
use super::take_up::take_up;
use super::tell;
use super::units::Units;
use super::world::World;
use crate::config::App;
use crate::deploy::{
    AppName, Effect, Event, Generation, Guard, Refusal, ReleaseId, Request, Settings, SlotName,
    State, Weight, effects,
};
use crate::preflight::{self, Room};
use crate::release::{self, About, Layout, Links, Record, Root};
use crate::store::{FileError, StateFile};
use crate::telemetry::chain;
use crate::wire::release as api;

/// Why an app cannot be managed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its state cannot be read or written.
    #[error(transparent)]
    Store(#[from] FileError),
    /// Its directory cannot be made or tidied.
    #[error(transparent)]
    Release(#[from] release::ReleaseError),
    /// Its directory cannot be made.
    #[error("cannot make the directory {path:?}")]
    Directory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where a deployer keeps what it knows of its apps.
#[derive(Clone, Debug)]
pub struct Place {
    /// `/var/lib/slot`: a directory per app below it.
    pub data: std::path::PathBuf,
    /// The machine's boot id: when it changes, nothing that ran runs any more. An embedded deployer, whose children end with it,
    /// makes a new one each time.
    pub machine_boot: String,
    /// How an app's directory is laid out. slot-machine's is that of its one app, and `data` itself.
    pub layout: Layout,
}

impl Place {
    /// A directory of slot's own layout.
    #[must_use]
    pub fn new(data: PathBuf, machine_boot: String) -> Self {
        Self {
            data,
            machine_boot,
            layout: Layout::Slot,
        }
    }

    /// An app's directory.
    #[must_use]
    pub fn root(&self, app: &AppName) -> Root {
        let path = match self.layout {
            Layout::Slot => self.data.join(app.as_str()),
            Layout::SlotMachine => self.data.clone(),
        };
        Root::new(path, self.layout)
    }
}

/// What is asked for with a deployment, and by whom.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Who asks.
    pub by: String,
    /// In place of `drain` of the app's file, for the classes of which that says nothing else.
    pub drain: Option<Duration>,
    /// How long to wait for the lock, and then for an idle slot.
    pub queue: Duration,
    /// How long to wait for an idle slot at least, once it has the lock.
    pub patience: Duration,
    /// Where the candidate stays until it is told on, if it is not to be switched to.
    pub weight: Option<Weight>,
    /// All new requests at once, whatever plan the app's file has.
    pub at_once: bool,
    /// What the release will take on disk, in bytes, if that is known.
    pub size: Option<u64>,
    /// What is not to be looked at beforehand.
    pub unchecked: BTreeSet<Check>,
    /// What it depends on.
    pub guard: Guard,
    /// What it would make active, if that is known beforehand.
    pub release: Option<ReleaseId>,
    /// Also a release that was rolled back automatically.
    pub force: bool,
    /// Nobody asks: neither what is live nor what a rollback left is deployed.
    pub auto: bool,
}

/// What is looked at before a deployment begins, and can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// That the release has room on disk.
    Disk,
    /// That a second copy of the app has room in memory.
    Memory,
}

impl FromStr for Check {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "disk" => Ok(Self::Disk),
            "memory" => Ok(Self::Memory),
            _ => Err(()),
        }
    }
}

/// An app that is being managed.
#[derive(Debug)]
pub struct Managed<U> {
    owner: Owner,
    world: Arc<Live<U>>,
    tasks: [AbortHandle; 4],
}

impl<U> Drop for Managed<U> {
    fn drop(&mut self) {
        self.owner.end();
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What an app's file says about deployments.
#[must_use]
pub fn settings(app: &App) -> Settings {
    Settings {
        slots: app.slots.clone(),
        start_timeout: app.start_timeout,
        health_timeout: app.health_timeout,
        drain: app.drain.by_class(),
        stop_timeout: app.stop_timeout,
        soak: app.soak,
        migrate: app.migrate,
        soak_error_rate: app.soak_error_rate,
        hooks: app.hooks.commands.keys().copied().collect(),
        after: app.after,
        canary: (app.canary.as_ref()).map(|canary| Box::new(canary.plan.clone())),
    }
}

/// A deployment that was begun for somebody. It ends with whoever asked for it and has gone meanwhile: nobody would send its release.
struct Unclaimed(Option<(Generation, Owner)>);

impl Unclaimed {
    fn claim(mut self) -> Generation {
        let (generation, _) = self.0.take().expect("it is claimed once");
        generation
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some((generation, owner)) = self.0.take() {
            let why = "whoever asked for it was gone before it was begun".to_owned();
            tokio::spawn(async move { owner.report(Event::Unprepared { generation, why }).await });
        }
    }
}

impl<U: Units> Managed<U> {
    /// Takes an app up where its state file, or what is found of it, says that it is.
    ///
    /// # Errors
    /// Its state is left as it is.
    pub async fn open(
        app: App,
        units: U,
        place: &Place,
        tables: Arc<Tables>,
    ) -> Result<Self, OpenError> {
        let root = place.root(&app.name);
        let tidied = root.clone();
        blocking(move || {
            std::fs::create_dir_all(&*tidied).map_err(|source| OpenError::Directory {
                path: tidied.to_path_buf(),
                source,
            })?;
            commits::tidy(&tidied);
            release::tidy(&tidied).map_err(OpenError::from)
        })
        .await?;
        let state_file = StateFile::at(root.join("state.json"), place.machine_boot.clone());
        let loaded = state_file.load()?;
        let app = Arc::new(app);
        let world = Arc::new(Live::new(Arc::clone(&app), root, units, tables, state_file));
        let first = take_up(&world, loaded).await;
        for effect in effects(&first.state) {
            if let Effect::Route(route) = effect {
                for part in world.parts(&route).await {
                    world.tables.gather(part).await;
                }
            }
        }
        let owner = Owner::start(Arc::clone(&world), first).await?;
        let watcher = {
            let (world, owner) = (Arc::clone(&world), owner.clone());
            tokio::spawn(async move { world.watch_units(owner).await })
        };
        let stager = tokio::spawn(Arc::clone(&world).keep_staging(owner.clone()));
        let shower = tokio::spawn(Arc::clone(&world).keep_previews(owner.state()));
        let notifier = tokio::spawn(Arc::clone(&world).keep_notices());
        Ok(Self {
            owner,
            world,
            tasks: [watcher, stager, notifier, shower].map(|task| task.abort_handle()),
        })
    }

    /// The app's file as it was when it was taken up.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.world.app
    }

    /// The owner.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// The world, for what was told and how things ended.
    #[must_use]
    pub fn world(&self) -> &Live<U> {
        &self.world
    }

    /// Begins a deployment: it holds the lock from here on, and its release is to be uploaded. While another one holds it, waits for as
    /// long as the wish says.
    ///
    /// # Errors
    /// Refused, or the disk is full; nothing was begun.
    pub async fn begin(&self, wish: Wish) -> Result<Generation, AskError> {
        let until = Instant::now() + wish.queue;
        loop {
            match self.begin_now(&wish, until).await {
                Err(AskError::Refused(Refusal::Busy { .. })) if Instant::now() < until => {}
                begun => return begun,
            }
            let mut state = self.owner.state();
            let unlocked = state.wait_for(|state| state.deployment.is_none());
            // Whether it was or the time is over, the next try says what is so.
            let _ = tokio::time::timeout_at(until, unlocked).await;
        }
    }

    async fn begin_now(&self, wish: &Wish, until: Instant) -> Result<Generation, AskError> {
        let mut settings = settings(&self.world.app);
        if let Some(drain) = wish.drain {
            settings.drain = self.world.app.drain.with(drain).by_class();
        }
        // What is not admitted now is not worth a look; what is, is decided on by the owner.
        self.admits(&wish.guard)?;
        let state = Arc::clone(&self.owner.state().borrow());
        let known = wish.release.as_ref().filter(|_| !wish.force);
        if let Some((release, back)) = known.and_then(|id| state.marked.get_key_value(id)) {
            let why = tell::marked(&self.world.app, Some(release), back.as_ref());
            return Err(AskError::Harmful(why));
        }
        // Whoever holds the lock changes what would be found.
        if state.deployment.is_none()
            && let Some(why) = self.objection(wish, &state, &settings).await
        {
            return Err(AskError::Harmful(why));
        }
        self.world
            .set_reserve_aside()
            .map_err(|error| AskError::NotCommitted(chain(&error)))?;
        let begun = Event::Begin(Request {
            by: wish.by.clone(),
            settings,
            queue: wish
                .patience
                .max(until.saturating_duration_since(Instant::now())),
            weight: wish.weight,
            force: wish.force,
            auto: wish.auto,
            planned: !wish.at_once,
        });
        let (owner, guard) = (self.owner.clone(), wish.guard.clone());
        let asked = tokio::spawn(async move {
            let generation = owner.ask_if(guard, begun).await?.generation;
            Ok(Unclaimed(Some((generation, owner))))
        });
        let begun = asked.await.map_err(|_| AskError::Gone)?;
        begun
            .map(Unclaimed::claim)
            .map_err(|error| self.in_step(error))
    }

    /// A refusal because of a deployment that is being prepared says which step of that it is in.
    fn in_step(&self, mut error: AskError) -> AskError {
        if let AskError::Refused(Refusal::Busy { phase, .. }) = &mut error
            && let Some(held) = &self.owner.state().borrow().deployment
        {
            *phase = self.world.phase(held.generation, &held.phase);
        }
        error
    }

    /// Whether a request would be admitted as the app is now.
    ///
    /// # Errors
    /// It would not.
    pub fn admits(&self, guard: &Guard) -> Result<(), AskError> {
        Ok(guard.admits(&self.owner.state().borrow(), self.world.now())?)
    }

    /// What speaks against a deployment before anything is begun.
    async fn objection(&self, wish: &Wish, state: &State, settings: &Settings) -> Option<String> {
        let units = &self.world.units;
        let next = state.next_slot(&settings.slots);
        if let Some(why) = units.objection(next).await {
            return Some(why);
        }
        if let Some(why) = self.unheard().await {
            return Some(why);
        }
        if !wish.unchecked.contains(&Check::Disk) {
            let (root, needed) = (self.world.root.clone(), wish.size);
            if let Some(why) = blocking(move || preflight::short_of_disk(&root, needed)).await {
                return Some(why);
            }
        }
        let active = state.active.as_ref()?;
        if wish.unchecked.contains(&Check::Memory) {
            return None;
        }
        let room = Room {
            memory_needed: units.memory(active).await,
            memory_free: preflight::available_memory(Path::new("/proc")),
            ..Room::default()
        };
        room.memory_objection(&units.unit(active))
    }

    /// Why nobody would reach the app: the router that accepts has no listener of that name. Where none runs, that is not known.
    async fn unheard(&self) -> Option<String> {
        let listener = self.world.app.listener.as_deref()?;
        let told = self.world.tables.routers().stats().await.ok()?;
        let stats = told.into_iter().filter_map(|(_, stats)| stats.ok());
        let listeners = stats
            .filter(|stats| stats.accepting)
            .flat_map(|stats| stats.listeners);
        let known: BTreeSet<String> = listeners.map(|it| it.name).collect();
        (!known.is_empty() && !known.contains(listener)).then(|| {
            format!(
                "nobody would reach {}: its `listener` is {listener:?}, and the router has {known:?}; correct slot.toml and run \
                 `slotctl app add`, or, if that socket is new, `slotctl router upgrade`",
                self.world.app.name
            )
        })
    }

    /// Puts the uploaded release of a deployment on disk, and the deployment on its way. Goes on when its caller does not, but not
    /// when the deployment has ended or was taken over: a rollback needs no upload to finish. Returns the release's id when that is
    /// known.
    pub async fn upload(
        &self,
        generation: Generation,
        about: About,
        mut archive: impl Read + Send + 'static,
    ) -> Option<String> {
        let root = self.world.root.clone();
        let preparation = self.preparation(generation, about);
        let wanted = preparation.wanted();
        let task = tokio::spawn(async move {
            let work = move || {
                let laid_out = release::begin(&root).and_then(|incoming| {
                    let identity = incoming.unpack(&mut archive, Links::Inside, wanted)?;
                    Ok((incoming, identity))
                });
                let laid_out = laid_out.map_err(Unready::from);
                (laid_out, archive)
            };
            let (laid_out, mut rest) = blocking(work).await;
            let id = preparation.go_on(laid_out).await;
            // An archive may end, or be refused, before its upload does. Whoever still sends does not read: what he sends is taken,
            // so that he comes to the answer. Where the connection is gone there is nobody to answer.
            let _ = blocking(move || std::io::copy(&mut rest, &mut std::io::sink())).await;
            id
        });
        task.await.ok().flatten()
    }

    /// Where its releases are.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.world.root
    }

    /// Returns when the symlinks are those of the state, and what nobody needs is gone.
    pub async fn on_disk(&self) {
        let state = Arc::clone(&self.owner.state().borrow());
        let (report, _) = tokio::sync::mpsc::channel(1);
        for effect in effects(&state) {
            if let Effect::Link { .. } | Effect::Retain { .. } = effect {
                // They are under way already; to perform one again changes nothing.
                Arc::clone(&self.world)
                    .perform(effect, report.clone())
                    .await;
            }
        }
    }

    /// Puts a deployment on its way with a release that is on disk; what it says of the release is written down.
    pub async fn again(
        &self,
        generation: Generation,
        id: ReleaseId,
        about: About,
    ) -> Option<String> {
        let task = tokio::spawn(self.preparation(generation, about).again(id));
        task.await.ok().flatten()
    }

    /// What puts a release on disk for a deployment, and that on its way.
    pub(super) fn preparation(&self, generation: Generation, mut about: About) -> Preparation<U> {
        let app = self.app();
        about.made_with = Some(release::made_with(
            app.setup_command.as_deref(),
            &app.shared_dirs,
        ));
        Preparation {
            world: Arc::clone(&self.world),
            owner: self.owner.clone(),
            generation,
            about,
            held: None,
        }
    }

    /// The releases that are on disk, newest first.
    pub async fn releases(&self) -> api::Releases {
        let (root, state) = (self.world.root.clone(), self.owner.state());
        let listed = blocking(move || release::list(&root)).await;
        let state = state.borrow();
        let shown = |(id, record): (ReleaseId, Record)| api::Release {
            source: record.origin,
            label: record.label.as_ref().map(ToString::to_string),
            size: record.size,
            made_ms: record.made_ms,
            live: state.live() == Some(&id),
            prev: state.prev.as_ref() == Some(&id),
            marked: state.marked.contains_key(&id),
            slots: state
                .slots
                .iter()
                .filter(|(_, slot)| slot.release.as_ref() == Some(&id))
                .map(|(name, _)| name.to_string())
                .collect(),
            id: id.to_string(),
        };
        api::Releases {
            releases: listed.into_iter().map(shown).collect(),
        }
    }

    /// Goes back to the previous release, or to an earlier one that is on disk.
    ///
    /// # Errors
    /// Refused; nothing was begun.
    pub async fn rollback(
        &self,
        to: Option<ReleaseId>,
        by: String,
        guard: Guard,
    ) -> Result<Arc<State>, AskError> {
        self.admits(&guard)?;
        if let Some(id) = to.clone() {
            let root = self.world.root.clone();
            blocking(move || release::choose(&root, &id)).await?;
        }
        self.world
            .set_reserve_aside()
            .map_err(|error| AskError::NotCommitted(chain(&error)))?;
        let event = Event::Rollback {
            to,
            by,
            settings: settings(&self.world.app),
        };
        (self.owner.ask_if(guard, event).await).map_err(|error| self.in_step(error))
    }

    /// Makes a slot that stands by active.
    ///
    /// # Errors
    /// Refused; nothing was begun.
    pub async fn promote(
        &self,
        slot: SlotName,
        by: String,
        guard: Guard,
    ) -> Result<Arc<State>, AskError> {
        let event = Event::Promote {
            slot,
            by,
            settings: settings(&self.world.app),
        };
        self.owner.ask_if(guard, event).await
    }

    /// Cuts what a slot still drains.
    ///
    /// # Errors
    /// Refused; nothing is cut.
    pub async fn drain_now(&self, slot: SlotName, guard: Guard) -> Result<Arc<State>, AskError> {
        self.owner.ask_if(guard, Event::DrainNow { slot }).await
    }

    /// Takes the app out of the table and forgets it; its units are left to whoever removes them.
    ///
    /// # Errors
    /// It is still in some router's table.
    pub async fn withdraw(&self) -> Result<(), super::tables::PublishError> {
        self.owner.end();
        self.owner.ended().await;
        self.world
            .tables
            .withdraw(self.world.app.name.as_str())
            .await
    }
}

/// What is new after every start of the machine: the kernel's boot id and when PID 1 began, in clock ticks since the kernel did (proc(5)).
///
/// The boot id alone would not do. A container that is started again keeps its host's; and where its runtime hides that behind one of its
/// own, `ProtectKernelTunables=` brings the host's back for slotd.
///
/// A removal of the package ends every run as a reboot does, and writes a word of its own to `removed` in `run` (`/run/slot`, which a
/// reboot clears): that is a part of it, so that the next slotd starts again what served.
///
/// # Errors
/// `/proc` is not mounted.
pub fn machine_boot(proc: &Path, run: &Path) -> std::io::Result<String> {
    let id = std::fs::read_to_string(proc.join("sys/kernel/random/boot_id"))?;
    let stat = std::fs::read_to_string(proc.join("1/stat"))?;
    // The name of the process, the second field, may have anything in it, spaces and parentheses too.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let began = after_name.split(' ').nth(19).unwrap_or_default();
    let removed = std::fs::read_to_string(run.join("removed")).unwrap_or_default();
    let words = [id.trim(), began, removed.trim()];
    Ok(words.join(" ").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_told_by_the_kernel_by_when_pid_1_began_and_by_a_removal_of_the_package() {
        let proc = tempfile::tempdir().unwrap();
        let random = proc.path().join("sys/kernel/random");
        std::fs::create_dir_all(&random).unwrap();
        std::fs::create_dir(proc.path().join("1")).unwrap();
        std::fs::write(random.join("boot_id"), "5f3aaaa0-4f6a\n").unwrap();
        let stat = "1 (a ) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10\n";
        std::fs::write(proc.path().join("1/stat"), stat).unwrap();
        let run = tempfile::tempdir().unwrap();
        let boot = || machine_boot(proc.path(), run.path()).unwrap();
        assert_eq!(boot(), "5f3aaaa0-4f6a 4711");
        std::fs::write(run.path().join("removed"), "9c1e\n").unwrap();
        assert_eq!(boot(), "5f3aaaa0-4f6a 4711 9c1e");
        let here = machine_boot("/proc".as_ref(), "/absent".as_ref()).unwrap();
        assert!(here.split(' ').nth(1).unwrap().parse::<u64>().is_ok());
    }
}
