//! The world of an app as it is, disks and tables, with slots that are written down here: what was decided first and comes last, tables
//! that cannot be had, apps whose files change.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{ConnectInfo, RawQuery, State as Given};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use slot::config::App;
use slot::daemon::app::{Check, Managed, Place, Wish};
use slot::daemon::apps::{AppError, Apps, Source};
use slot::daemon::errand::{Broken, Call};
use slot::daemon::live::Live;
use slot::daemon::status::Wait;
use slot::daemon::tables::Tables;
use slot::daemon::units::{Report, Unbuilt, Units};
use slot::daemon::world::World;
use slot::deploy::{
    BootId, ByClass, Cause, Effect, End, Event, Generation, Kind, Limits, Notice, Outcome, Probe,
    ReleaseId, Route, Seen, SlotName, State, Time, UnitFailure, Weight,
};
use slot::git::Store;
use slot::probe::Internet;
use slot::release::Site;
use slot::release::named;
use slot::staging::{Made, Promoted};
use slot::store::StateFile;
use slot::traffic::Routers;
use slot::wire::control::{Applied, InFlight, Listener, Stats};
use slot::wire::table::{self, Table};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

const LONG: Duration = Duration::from_secs(20);

/// What runs, whoever asks: it outlives the deployer.
#[derive(Clone, Debug)]
struct Slots {
    app: Arc<App>,
    running: Arc<Mutex<BTreeMap<SlotName, BootId>>>,
    /// While it is false, nobody gets to know what runs.
    answers: watch::Receiver<bool>,
    /// Told when somebody wants to know that and does not get to.
    asked: Arc<Notify>,
    /// What staging was made of, each before it was let to be.
    staged: mpsc::UnboundedSender<ReleaseId>,
    /// Lets staging be made.
    stages: Arc<Semaphore>,
}

impl Units for Slots {
    async fn start(
        &self,
        slot: &SlotName,
        _: &ReleaseId,
        _: Limits,
    ) -> Result<BootId, UnitFailure> {
        let mut running = self.running.lock().unwrap();
        let next = format!("{:032x}", running.len() + 1).parse().unwrap();
        Ok(running.entry(slot.clone()).or_insert(next).clone())
    }

    async fn build(&self, _: &Site) -> Result<(), Unbuilt> {
        Ok(())
    }

    async fn fetch<T: Send + 'static>(
        &self,
        _: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        // No app here has a remote.
        std::future::pending().await
    }

    fn shared(&self) -> PathBuf {
        PathBuf::from("/nowhere")
    }

    fn staging(&self) -> PathBuf {
        PathBuf::from("/nowhere/staging")
    }

    async fn stage(&self, promoted: Promoted, _: Store) -> Result<Made, String> {
        self.staged.send(promoted.release.clone()).unwrap();
        self.stages.acquire().await.unwrap().forget();
        Ok(Made::Of(promoted.release))
    }

    fn internet(&self) -> &Internet {
        &Internet::Own
    }

    async fn objection(&self, _: Option<&SlotName>) -> Option<String> {
        None
    }

    async fn apart(&self) -> Option<String> {
        let is_apart = self.app.name.as_str() == "apart";
        is_apart.then(|| "systemd goes by the file as it was".to_owned())
    }

    async fn memory(&self, _: &SlotName) -> Option<u64> {
        (self.app.name.as_str() == "vast").then_some(1 << 60)
    }

    async fn stop(&self, slot: &SlotName) -> bool {
        // An app that takes its time.
        let mut answers = self.answers.clone();
        answers.wait_for(|answers| *answers).await.unwrap();
        self.running.lock().unwrap().remove(slot);
        false
    }

    async fn seen(&self, slot: &SlotName) -> Seen {
        if !*self.answers.borrow() {
            self.asked.notify_one();
        }
        self.answers
            .clone()
            .wait_for(|answers| *answers)
            .await
            .unwrap();
        match self.running.lock().unwrap().get(slot) {
            Some(boot) => Seen::Running(boot.clone()),
            None => Seen::Ended(End::ByHand),
        }
    }

    async fn changed(&self) -> SlotName {
        std::future::pending().await
    }

    async fn restarts(&self, _: &SlotName) -> Option<u32> {
        None
    }

    fn unit(&self, slot: &SlotName) -> String {
        format!("{}@{slot}", self.app.name)
    }

    fn upstream(&self, slot: &SlotName) -> String {
        format!("127.0.0.1:{}", self.app.ports[slot].port)
    }

    async fn probe(&self, _: &SlotName, _: Duration) -> Probe {
        Probe {
            pass: true,
            text: "200 OK".to_owned(),
        }
    }

    async fn report(&self, _: &SlotName, _: Option<&BootId>) -> Report {
        Report::default()
    }
}

/// A machine's directories and a deployer in them.
struct Bench {
    directory: tempfile::TempDir,
    running: Arc<Mutex<BTreeMap<String, Slots>>>,
    /// Lets the app `slow` answer.
    answers: watch::Sender<bool>,
    /// It was asked while it did not.
    asked: Arc<Notify>,
    staged: (
        mpsc::UnboundedSender<ReleaseId>,
        tokio::sync::Mutex<mpsc::UnboundedReceiver<ReleaseId>>,
    ),
    stages: Arc<Semaphore>,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    for name in ["apps", "data", "run/router/1"] {
        std::fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    let staged = mpsc::unbounded_channel();
    Bench {
        directory,
        running: Arc::default(),
        answers: watch::Sender::new(true),
        asked: Arc::default(),
        staged: (staged.0, tokio::sync::Mutex::new(staged.1)),
        stages: Arc::new(Semaphore::new(0)),
    }
}

fn file(name: &str, first_port: u16) -> String {
    let second = first_port + 1;
    format!(
        "name = '{name}'\ncommand = './server'\nsoak = '0s'\nhosts = ['{name}.test']\n[ports]\nblue = {first_port}\ngreen = {second}\n"
    )
}

impl Bench {
    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, first_port: u16) {
        let path = self.at("apps").join(format!("{name}.toml"));
        std::fs::write(path, file(name, first_port)).unwrap();
    }

    async fn tables(&self, path: PathBuf) -> Arc<Tables> {
        let routers = Routers::in_directory(self.at("run/router"));
        Arc::new(Tables::open(path, routers, None).await)
    }

    /// A deployer that starts.
    async fn apps(&self) -> Arc<Apps<Slots>> {
        let place = Place {
            data: self.at("data"),
            machine_boot: "this boot".to_owned(),
            layout: slot::release::Layout::Slot,
        };
        let tables = self.tables(self.at("run/table.json")).await;
        let (known, answers) = (Arc::clone(&self.running), self.answers.clone());
        let asked = Arc::clone(&self.asked);
        let (staged, stages) = (self.staged.0.clone(), Arc::clone(&self.stages));
        Arc::new(Apps::new(
            Source::Directory(self.at("apps")),
            place,
            tables,
            move |app| {
                let mut known = known.lock().unwrap();
                let running = known.get(app.name.as_str());
                let running = running.map(|slots| Arc::clone(&slots.running));
                let always = watch::Sender::new(true);
                let slow = app.name.as_str() == "slow";
                let slots = Slots {
                    app: Arc::new(app.clone()),
                    running: running.unwrap_or_default(),
                    answers: if slow { &answers } else { &always }.subscribe(),
                    asked: Arc::clone(&asked),
                    staged: staged.clone(),
                    stages: Arc::clone(&stages),
                };
                if !slow {
                    // Its answers do not end with it.
                    std::mem::forget(always);
                }
                known.insert(app.name.to_string(), slots.clone());
                slots
            },
        ))
    }

    /// A router that takes every table.
    fn router(&self) -> Arc<Mutex<Vec<Table>>> {
        async fn take(
            Given(taken): Given<Arc<Mutex<Vec<Table>>>>,
            Json(table): Json<Table>,
        ) -> Json<Applied> {
            let revision = table.revision;
            taken.lock().unwrap().push(table);
            Json(Applied { revision })
        }
        let taken = Arc::default();
        let routes = Router::new().route("/table", put(take));
        let routes = routes.with_state(Arc::clone(&taken));
        let socket = self.at("run/router/1/control.sock");
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        taken
    }

    /// The world of the app `web` alone.
    async fn world(&self, table: PathBuf) -> Arc<Live<Slots>> {
        let app = Arc::new(App::parse(&file("web", 20_001), "web.toml").unwrap());
        let root = self.at("data/web");
        std::fs::create_dir_all(&root).unwrap();
        let slots = Slots {
            app: Arc::clone(&app),
            running: Arc::default(),
            answers: self.answers.subscribe(),
            asked: Arc::clone(&self.asked),
            staged: self.staged.0.clone(),
            stages: Arc::clone(&self.stages),
        };
        let state = StateFile::at(root.join("state.json"), "this boot".to_owned());
        let tables = self.tables(table).await;
        // It cannot be written where the test is of that.
        let _ = tables.is_whole().await;
        Arc::new(Live::new(app, root, slots, tables, state))
    }

    fn release(&self, app: &str, id: &str) -> ReleaseId {
        let directory = self.at("data").join(app).join("releases").join(id);
        std::fs::create_dir_all(directory).unwrap();
        id.parse().unwrap()
    }
}

fn by_root(drain: Option<Duration>) -> Wish {
    Wish {
        by: "root".to_owned(),
        drain,
        ..Wish::default()
    }
}

/// Deploys a release of an app and returns when it serves.
async fn serve(bench: &Bench, apps: &Apps<Slots>, name: &str, id: &str) {
    let app = apps.get(Some(name)).await.unwrap();
    let release = bench.release(name, id);
    let generation = app.begin(by_root(None)).await;
    let generation = generation.unwrap();
    let mut state = app.owner().state();
    app.owner()
        .report(Event::Prepared {
            generation,
            release: release.clone(),
        })
        .await;
    let serves = |state: &Arc<State>| {
        state.deployment.is_none()
            && state.live() == Some(&release)
            && state
                .outcome
                .as_ref()
                .is_some_and(|it| it.generation == generation)
    };
    let served = tokio::time::timeout(LONG, state.wait_for(serves)).await;
    served.unwrap().unwrap();
}

/// The table on disk, once it is as wanted.
async fn table(path: &Path, wanted: impl Fn(&Table) -> bool) -> Table {
    let read = async {
        loop {
            let bytes = std::fs::read(path).unwrap_or_default();
            match serde_json::from_slice::<Table>(&bytes) {
                Ok(table) if wanted(&table) => return table,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(LONG, read).await.unwrap()
}

fn slot_of<'a>(table: &'a Table, slot: &str) -> &'a table::Slot {
    let mut slots = table.apps[0].slots.iter();
    slots.find(|found| found.name == slot).unwrap()
}

#[tokio::test]
async fn a_symlink_that_was_decided_on_earlier_is_not_set_later() {
    let bench = bench();
    let world = bench.world(bench.at("run/table.json")).await;
    let link = |release: &ReleaseId| Effect::Link {
        live: Some(release.clone()),
        prev: None,
    };
    let (one, two) = (
        bench.release("web", "00000001"),
        bench.release("web", "00000002"),
    );
    let (report, _) = mpsc::channel(1);
    // Given up when the second was decided on, it may be under way all the same: on a thread that waits for the disk.
    let first = Arc::clone(&world).perform(link(&one), report.clone());
    let second = Arc::clone(&world).perform(link(&two), report);
    second.await;
    first.await;
    assert_eq!(named(bench.at("data/web"), "live"), Some(two));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_be_written_is_reported_with_its_path_and_tried_on() {
    let bench = bench();
    let path = bench.at("run/full/table.json");
    let world = bench.world(path.clone()).await;
    let (report, mut reports) = mpsc::channel(1);
    let began = tokio::time::Instant::now();
    let route = Effect::Route(Route {
        table: 8,
        generation: Generation(3),
        active: Some("blue".parse().unwrap()),
        trials: Vec::new(),
        left: Weight::NONE,
        tried: None,
        ready: true,
        boots: Vec::new(),
        hold: Duration::from_secs(10),
    });
    let publishing = tokio::spawn(Arc::clone(&world).perform(route, report));
    let Some(Event::Unrouted { table, why }) = reports.recv().await else {
        panic!("it is to be told that the table is nowhere");
    };
    assert_eq!((table, began.elapsed().as_secs()), (8, 30));
    assert!(
        why.contains(path.to_str().unwrap()) && why.contains("No such file or directory"),
        "{why}"
    );
    std::fs::create_dir(bench.at("run/full")).unwrap();
    let routed = reports.recv().await;
    assert!(
        matches!(&routed, Some(Event::Routed { table: 8 })),
        "{routed:?}"
    );
    publishing.await.unwrap();
}

#[tokio::test]
async fn a_run_keeps_its_address_after_a_change_of_port() {
    let bench = bench();
    bench.write("web", 20_001);
    let apps = bench.apps().await;
    apps.load().await;
    serve(&bench, &apps, "web", "00000001").await;
    let path = bench.at("run/table.json");
    let before = table(&path, |table| slot_of(table, "blue").weight == 100).await;
    assert_eq!(slot_of(&before, "blue").upstream, "127.0.0.1:20001");
    bench.write("web", 20_011);
    apps.reload("web").await.unwrap();
    let after = table(&path, |table| table.revision > before.revision).await;
    let (blue, green) = (slot_of(&after, "blue"), slot_of(&after, "green"));
    assert_eq!(green.upstream, "127.0.0.1:20012", "nothing runs there yet");
    assert_eq!(blue, slot_of(&before, "blue"));
    // The next run is where the file says.
    serve(&bench, &apps, "web", "00000002").await;
    let last = table(&path, |table| slot_of(table, "green").weight == 100).await;
    assert_eq!(slot_of(&last, "green").upstream, "127.0.0.1:20012");
}

#[tokio::test]
async fn a_state_that_the_disk_has_lost_is_written_anew_by_a_reload_and_nothing_is_forgotten() {
    let bench = bench();
    bench.write("web", 20_001);
    let apps = bench.apps().await;
    apps.load().await;
    serve(&bench, &apps, "web", "00000001").await;
    let (root, path) = (bench.at("data/web"), bench.at("data/web/state.json"));
    let damaged = || std::fs::write(&path, "garbage").unwrap();
    let gone = || std::fs::remove_file(&path).unwrap();
    // The last has its file changed as well, and so is taken up by what is on disk.
    for (lose, first_port) in [
        (&damaged as &dyn Fn(), 20_001),
        (&gone, 20_001),
        (&damaged, 20_011),
    ] {
        lose();
        bench.write("web", first_port);
        let app = apps.reload("web").await.unwrap();
        let state = Arc::clone(&app.owner().state().borrow());
        let by = state.outcome.as_ref().map(|outcome| outcome.by.as_str());
        assert_eq!((state.generation, by), (Generation(1), Some("root")));
        let file = StateFile::at(path.clone(), "this boot".to_owned());
        let (written, _) = file.look().unwrap().unwrap().expect("a state");
        assert_eq!(written.generation, Generation(1));
        let names = std::fs::read_dir(&root).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name());
        assert!(names.all(|name| !name.to_string_lossy().contains("corrupt")));
    }
}

#[tokio::test]
async fn an_app_that_could_not_be_managed_is_in_order_again_once_it_is_reloaded() {
    let bench = bench();
    let file = bench.at("apps/web.toml");
    std::fs::write(&file, "name = 'web'\ncomand = './server'\n").unwrap();
    let apps = bench.apps().await;
    apps.load().await;
    let known = apps.known(Some("web")).await;
    assert!(
        matches!(known, Err(AppError::WrongFile { .. })),
        "{known:?}"
    );
    bench.write("web", 20_001);
    // Whoever looks changes nothing, also where something could be done.
    assert!(apps.known(Some("web")).await.is_err());
    apps.reload("web").await.unwrap();
    let (managed, broken) = apps.all().await;
    assert_eq!(managed.len(), 1);
    assert!(broken.is_empty(), "{broken:?}");
    assert!(apps.known(None).await.is_ok(), "it is the only one");
}

#[tokio::test]
async fn a_reload_that_leaves_an_app_unmanaged_is_remembered_and_is_tried_again() {
    let bench = bench();
    bench.write("web", 20_001);
    let apps = bench.apps().await;
    apps.load().await;
    let state = bench.at("data/web/state.json");
    // One of a slot that is newer is not written over, and the app goes on as it is.
    let newer = r#"{"version":4294967295,"readable_from":4294967295}"#;
    std::fs::write(&state, newer).unwrap();
    bench.write("web", 20_011);
    let refused = apps.reload("web").await.unwrap_err().to_string();
    assert!(refused.contains("install the newer package"), "{refused}");
    assert_eq!(std::fs::read_to_string(&state).unwrap(), newer);
    assert_eq!(apps.all().await.0.len(), 1);
    std::fs::remove_file(&state).unwrap();
    // What no tidying can remove.
    let doomed = bench.at("data/web/incoming.removed");
    std::fs::write(&doomed, "").unwrap();
    let refused = apps.reload("web").await.unwrap_err().to_string();
    let (managed, broken) = apps.all().await;
    assert!(managed.is_empty());
    assert_eq!(broken["web"], refused);
    let known = apps.known(Some("web")).await.unwrap_err().to_string();
    assert_eq!(known, refused);
    std::fs::remove_file(&doomed).unwrap();
    apps.get(Some("web")).await.unwrap();
    assert!(apps.all().await.1.is_empty());
}

#[tokio::test]
async fn a_status_says_that_systemd_does_not_go_by_the_file_as_it_is() {
    let bench = bench();
    bench.write("web", 20_001);
    bench.write("apart", 20_011);
    let apps = bench.apps().await;
    apps.load().await;
    let warns = async |name: &str| {
        let status = apps.known(Some(name)).await.unwrap().status().await;
        let mut warnings = status.warnings.into_iter();
        warnings.any(|it| it == "systemd goes by the file as it was")
    };
    assert!(warns("apart").await && !warns("web").await);
}

#[tokio::test]
async fn the_first_table_has_every_app_however_long_one_takes_to_be_taken_up() {
    let bench = bench();
    let names = ["fast", "slow", "web"];
    for (number, name) in (0_u16..).zip(names) {
        bench.write(name, 20_001 + 10 * number);
    }
    let apps = bench.apps().await;
    apps.load().await;
    for name in names {
        serve(&bench, &apps, name, "00000001").await;
    }
    apps.end().await;
    drop(apps);
    // A machine starts: nothing is left of /run.
    std::fs::remove_file(bench.at("run/table.json")).unwrap();
    bench.answers.send_replace(false);
    let taken = bench.router();
    let apps = bench.apps().await;
    let loading = tokio::spawn({
        let apps = Arc::clone(&apps);
        async move { apps.load().await }
    });
    // They are taken up one after the other: the first has been, and wants its part in the table.
    tokio::time::timeout(LONG, bench.asked.notified())
        .await
        .unwrap();
    bench.answers.send_replace(true);
    tokio::time::timeout(LONG, loading).await.unwrap().unwrap();
    let taken = taken.lock().unwrap().clone();
    assert!(!taken.is_empty());
    for table in taken {
        let apps: Vec<&str> = table.apps.iter().map(|app| app.name.as_str()).collect();
        assert_eq!(apps, names, "at revision {}", table.revision);
    }
}

#[tokio::test]
async fn another_drain_for_one_deployment_is_not_for_a_class_with_its_own_in_the_file() {
    let bench = bench();
    let text = format!(
        "drain = '1m'\ndrain_streams = '10m'\n{}",
        file("web", 20_001)
    );
    std::fs::write(bench.at("apps/web.toml"), text).unwrap();
    let apps = bench.apps().await;
    apps.load().await;
    let app = apps.get(Some("web")).await.unwrap();
    let drain = Some(Duration::from_secs(5));
    let begun = app.begin(by_root(drain)).await;
    begun.unwrap();
    let state = Arc::clone(&app.owner().state().borrow());
    let drain = state.deployment.as_ref().unwrap().settings.drain;
    let seconds = drain.map(|span| span.as_secs());
    let own = ByClass {
        streams: Some(600),
        ..ByClass::all(Some(5))
    };
    assert_eq!(seconds, own);
}

#[tokio::test]
async fn an_app_for_a_listener_that_the_router_does_not_have_is_not_deployed() {
    let bench = bench();
    let listener = |name: &str| format!("listener = '{name}'\n{}", file("web", 20_001));
    std::fs::write(bench.at("apps/web.toml"), listener("htpp")).unwrap();
    let apps = bench.apps().await;
    apps.load().await;
    let app = apps.get(Some("web")).await.unwrap();
    let begin = async |app: &Managed<Slots>| {
        let begun = app.begin(by_root(None)).await;
        begun.map_err(|error| error.to_string())
    };
    let stats = Stats {
        accepting: true,
        listeners: vec![Listener {
            name: "http".to_owned(),
            address: "[::]:80".to_owned(),
            proxied: false,
        }],
        ..Stats::default()
    };
    let routes = Router::new().route("/stats", get(async || Json(stats)));
    let socket = tokio::net::UnixListener::bind(bench.at("run/router/1/control.sock")).unwrap();
    tokio::spawn(async move { axum::serve(socket, routes).await });
    let why = begin(&app).await.unwrap_err();
    let what = "nothing was done, in pre-flight: nobody would reach web: its `listener` is \"htpp\", and the router has {\"http\"}; correct";
    assert!(why.starts_with(what), "{why}");
    std::fs::write(bench.at("apps/web.toml"), listener("http")).unwrap();
    let app = apps.reload("web").await.unwrap();
    begin(&app).await.unwrap();
}

#[tokio::test]
async fn a_second_deployment_is_refused_at_once_or_waits_as_long_as_it_was_told() {
    let bench = bench();
    bench.write("web", 20_001);
    let apps = bench.apps().await;
    apps.load().await;
    let app = apps.get(Some("web")).await.unwrap();
    let first = app.begin(by_root(None)).await.unwrap();
    let refused = app.begin(by_root(None)).await.unwrap_err().to_string();
    let holder = "generation 1, begun by root 0 s ago, phase preparing;";
    assert!(refused.contains(holder), "{refused}");
    let short = Wish {
        queue: Duration::from_millis(20),
        ..by_root(None)
    };
    let refused = app.begin(short).await.unwrap_err().to_string();
    assert!(refused.contains("generation 1"), "{refused}");
    let patient = Wish {
        by: "the second".to_owned(),
        queue: LONG,
        ..Wish::default()
    };
    let waiting = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.begin(patient).await }
    });
    // It waits until the first one's upload is gone.
    let gone = Event::Unprepared {
        generation: first,
        why: "the upload ended".to_owned(),
    };
    app.owner().report(gone).await;
    let second = tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
    assert_eq!(second.unwrap(), first.next());
    let state = Arc::clone(&app.owner().state().borrow());
    assert_eq!(state.deployment.as_ref().unwrap().by, "the second");
}

#[tokio::test]
async fn an_end_that_is_told_before_its_state_is_published_settles_nothing() {
    let bench = bench();
    bench.write("web", 20_001);
    let apps = bench.apps().await;
    apps.load().await;
    let app = apps.get(Some("web")).await.unwrap();
    let generation = app.begin(by_root(None)).await.unwrap();
    let state = Arc::clone(&app.owner().state().borrow());
    let switched = Outcome {
        generation,
        kind: Kind::Deploy,
        by: "root".to_owned(),
        release: None,
        slot: None,
        previous: None,
        phase: "shifting",
        entered: Vec::new(),
        cause: Cause::Switched,
        at: Time(0),
        reached: None,
        goes_back: false,
    };
    app.world()
        .tell(vec![Notice::Ended(switched)], &state)
        .await;
    assert!(app.world().outcome(generation.0).is_some());
    // It may be watched from now on, which is to be seen in the next state.
    for wait in [Wait::Switched, Wait::Soaked, Wait::Stopped] {
        assert_eq!(app.settled(generation.0, wait), None, "{wait:?}");
    }
}

#[tokio::test]
async fn a_release_that_has_no_room_on_disk_is_refused_before_anything_begins() {
    let bench = bench();
    bench.write("web", 20_001);
    let apps = bench.apps().await;
    apps.load().await;
    let app = apps.get(Some("web")).await.unwrap();
    let vast = Wish {
        size: Some(u64::MAX),
        ..by_root(None)
    };
    let refused = app.begin(vast.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("--skip-check disk"), "{refused}");
    assert_eq!(app.owner().state().borrow().generation, Generation(0));
    let unchecked = Wish {
        unchecked: [Check::Disk].into(),
        ..vast
    };
    app.begin(unchecked).await.unwrap();
}

#[tokio::test]
async fn a_second_copy_that_has_no_room_in_memory_is_refused_before_anything_begins() {
    let bench = bench();
    bench.write("vast", 20_001);
    let _taken = bench.router();
    let apps = bench.apps().await;
    apps.load().await;
    // Nothing runs yet: there is no copy that a second one would be beside.
    serve(&bench, &apps, "vast", "00000001").await;
    let app = apps.get(Some("vast")).await.unwrap();
    let refused = app.begin(by_root(None)).await.unwrap_err().to_string();
    assert!(
        refused.contains("vast@blue uses") && refused.contains("--skip-check memory"),
        "{refused}"
    );
    let unchecked = Wish {
        unchecked: [Check::Memory].into(),
        ..by_root(None)
    };
    app.begin(unchecked).await.unwrap();
}

/// What became of deployments, one after another, behind a router that listens at an address: the active slot then, and the last one's cause.
async fn deployed_behind(
    at: std::net::SocketAddr,
    lines: &str,
    releases: &[&str],
) -> (Option<SlotName>, String) {
    let bench = bench();
    let text = format!("{lines}\n{}", file("web", 20_001));
    std::fs::write(bench.at("apps/web.toml"), text).unwrap();
    let apps = bench.apps().await;
    apps.load().await;
    let stats = Stats {
        accepting: true,
        listeners: vec![Listener {
            name: "http".to_owned(),
            address: at.to_string(),
            proxied: false,
        }],
        ..Stats::default()
    };
    async fn take(Json(table): Json<Table>) -> Json<Applied> {
        Json(Applied {
            revision: table.revision,
        })
    }
    let routes = Router::new()
        .route("/stats", get(async || Json(stats)))
        .route("/table", put(take));
    let socket = tokio::net::UnixListener::bind(bench.at("run/router/1/control.sock")).unwrap();
    tokio::spawn(async move { axum::serve(socket, routes).await });
    let app = apps.get(Some("web")).await.unwrap();
    let mut state = app.owner().state();
    for release in releases {
        let release = bench.release("web", release);
        let generation = app.begin(by_root(None)).await.unwrap();
        let prepared = Event::Prepared {
            generation,
            release,
        };
        app.owner().report(prepared).await;
        let ended = state.wait_for(|state| {
            let outcome = state.outcome.as_ref();
            outcome.is_some_and(|outcome| outcome.generation == generation)
        });
        tokio::time::timeout(LONG, ended).await.unwrap().unwrap();
    }
    let state = Arc::clone(&state.borrow());
    let cause = state.outcome.as_ref().unwrap().cause.code().to_owned();
    (state.active.clone(), cause)
}

#[tokio::test]
async fn a_switch_is_one_once_the_public_listener_has_answered_for_it() {
    let public = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = public.local_addr().unwrap();
    let answers = Router::new().route("/", get(async || "hello"));
    tokio::spawn(async move { axum::serve(public, answers).await });
    let (active, cause) = deployed_behind(at, "", &["00000001"]).await;
    assert_eq!(active.unwrap().as_str(), "blue");
    assert_eq!(cause, "switched");
}

#[tokio::test]
async fn a_switch_is_taken_back_where_the_public_listener_does_not_answer() {
    let public = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = public.local_addr().unwrap();
    let refuses = Router::new().fallback(async || (StatusCode::SERVICE_UNAVAILABLE, "no"));
    tokio::spawn(async move { axum::serve(public, refuses).await });
    let (active, cause) = deployed_behind(at, "", &["00000001"]).await;
    assert_eq!((active, cause.as_str()), (None, "unrouted"));
}

#[tokio::test]
async fn the_new_slot_is_found_out_where_clients_keep_to_the_old_one_by_their_addresses() {
    let public = tokio::net::TcpListener::bind("[::]:0").await.unwrap();
    let at = public.local_addr().unwrap();
    // The machine's own addresses have their place at the old slot, all others at the new one, which does not serve.
    let own = ["127.0.0.1", "::1"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    let answers = async move |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| match own
        .contains(&peer.ip().to_canonical())
    {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let routes = Router::new().fallback(answers);
    let service = routes.into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(public, service).await });
    let lines = "sticky = 'address'\nmigrate = '95:5'";
    let (active, cause) = deployed_behind(at, lines, &["00000001", "00000002"]).await;
    assert_eq!(
        (active.unwrap().as_str(), cause.as_str()),
        ("blue", "unrouted")
    );
}

/// What a router that is asked about a drain says and was told.
#[derive(Debug, Default)]
struct Drain {
    held: InFlight,
    /// The queries of cuts, in their order.
    cuts: watch::Sender<Vec<String>>,
    /// So many cuts are refused first.
    refused: usize,
    /// So many cuts end all that is held.
    enough: usize,
}

impl Bench {
    /// A router that has something in flight until it was cut often enough.
    fn holds(&self, drain: Drain) -> watch::Receiver<Vec<String>> {
        let told = drain.cuts.subscribe();
        let drain = Arc::new(drain);
        let held = async |Given(drain): Given<Arc<Drain>>| match drain.cuts.borrow().len() {
            count if count < drain.enough => Json(drain.held),
            _ => Json(InFlight::default()),
        };
        let cut = async |Given(drain): Given<Arc<Drain>>, RawQuery(query): RawQuery| {
            drain.cuts.send_modify(|cuts| cuts.extend(query));
            match drain.cuts.borrow().len() > drain.refused {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            }
        };
        let routes = Router::new().route("/drained", get(held));
        let routes = routes.route("/cut", post(cut)).with_state(drain);
        let socket = self.at("run/router/1/control.sock");
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        told
    }
}

#[tokio::test]
async fn a_class_whose_deadline_has_passed_is_cut_again_until_nothing_of_it_is_left() {
    let bench = bench();
    let world = bench.world(bench.at("run/table.json")).await;
    let cuts = bench.holds(Drain {
        held: InFlight {
            streams: 2,
            ..InFlight::default()
        },
        refused: 1,
        enough: 3,
        ..Drain::default()
    });
    let (report, mut reports) = mpsc::channel(1);
    let (past, future) = (Some(Time(1)), Some(Time(u64::MAX)));
    let drain = Effect::Drain {
        slot: "blue".parse().unwrap(),
        boot: None,
        until: ByClass {
            requests: past,
            streams: past,
            tunnels: future,
        },
    };
    let draining = tokio::spawn(world.perform(drain, report));
    let ended = tokio::time::timeout(LONG, reports.recv()).await.unwrap();
    assert!(matches!(ended, Some(Event::Overdue { .. })), "{ended:?}");
    // Of requests there was none to be cut.
    let cut = "app=web&slot=blue&class=streams&after_ms=0&spread_ms=5000";
    assert_eq!(*cuts.borrow(), [cut; 3]);
    draining.await.unwrap();
}

#[tokio::test]
async fn the_app_is_told_at_the_deadline_of_tunnels_although_what_is_overdue_too_has_not_ended_yet()
{
    let bench = bench();
    let world = bench.world(bench.at("run/table.json")).await;
    let cuts = bench.holds(Drain {
        held: InFlight {
            requests: 0,
            streams: 1,
            tunnels: 1,
        },
        enough: usize::MAX,
        ..Drain::default()
    });
    let (report, mut reports) = mpsc::channel(1);
    let past = Some(Time(1));
    let drain = Effect::Drain {
        slot: "blue".parse().unwrap(),
        boot: None,
        until: ByClass {
            requests: None,
            streams: past,
            tunnels: past,
        },
    };
    let draining = tokio::spawn(world.perform(drain, report));
    let ended = tokio::time::timeout(LONG, reports.recv()).await.unwrap();
    assert!(matches!(ended, Some(Event::Overdue { .. })), "{ended:?}");
    assert!(cuts.borrow()[0].contains("class=streams"));
    draining.await.unwrap();
}

#[tokio::test]
async fn a_slot_is_not_overdue_while_a_router_does_not_say_what_it_has() {
    let bench = bench();
    let world = bench.world(bench.at("run/table.json")).await;
    let cuts = bench.holds(Drain {
        held: InFlight {
            tunnels: 1,
            ..InFlight::default()
        },
        enough: usize::MAX,
        ..Drain::default()
    });
    // Another one, that ends whoever asks.
    std::fs::create_dir(bench.at("run/router/2")).unwrap();
    let silent = tokio::net::UnixListener::bind(bench.at("run/router/2/control.sock")).unwrap();
    let (report, mut reports) = mpsc::channel(1);
    let past = Some(Time(1));
    let drain = Effect::Drain {
        slot: "blue".parse().unwrap(),
        boot: None,
        until: ByClass {
            requests: Some(Time(u64::MAX)),
            streams: past,
            tunnels: past,
        },
    };
    let draining = tokio::spawn(world.perform(drain, report));
    for _ in 0..3 {
        let asked = tokio::time::timeout(LONG, silent.accept()).await.unwrap();
        drop(asked.unwrap());
    }
    assert!(reports.try_recv().is_err(), "it may have some");
    assert!(!cuts.borrow().is_empty(), "and is told to cut it");
    drop(silent);
    let ended = tokio::time::timeout(LONG, reports.recv()).await.unwrap();
    assert!(matches!(ended, Some(Event::Overdue { .. })), "{ended:?}");
    draining.await.unwrap();
}

#[tokio::test]
async fn a_router_that_did_not_hear_what_is_to_be_cut_after_a_stop_is_told_while_the_slot_stops() {
    let bench = bench();
    let world = bench.world(bench.at("run/table.json")).await;
    let mut cuts = bench.holds(Drain {
        held: InFlight {
            tunnels: 1,
            ..InFlight::default()
        },
        refused: 2,
        enough: usize::MAX,
        ..Drain::default()
    });
    bench.answers.send_replace(false);
    let (report, mut reports) = mpsc::channel(1);
    let slot: SlotName = "blue".parse().unwrap();
    let stopping = tokio::spawn(world.perform(Effect::Stop { slot }, report));
    let told = tokio::time::timeout(LONG, cuts.wait_for(|cuts| cuts.len() > 3)).await;
    let after = |cut: &String| -> u64 {
        let (_, after) = cut.split_once("after_ms=").unwrap();
        after.split('&').next().unwrap().parse().unwrap()
    };
    let told: Vec<u64> = told.unwrap().unwrap().iter().map(after).collect();
    assert!(
        told.is_sorted_by(|one, next| one > next),
        "what is left: {told:?}"
    );
    bench.answers.send_replace(true);
    let ended = tokio::time::timeout(LONG, reports.recv()).await.unwrap();
    assert!(matches!(ended, Some(Event::Stopped { .. })), "{ended:?}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_promotion_that_comes_while_staging_is_made_waits_for_nothing_and_has_its_own_made_after()
{
    let bench = bench();
    let text = format!("{}[staging]\nuser = 'alice'\n", file("web", 20_001));
    std::fs::write(bench.at("apps/web.toml"), text).unwrap();
    let _router = bench.router();
    let apps = bench.apps().await;
    apps.load().await;
    let commit = |id: &str| {
        bench.release("web", id);
        let record = serde_json::json!({
            "version": 1, "size": 1, "made_ms": 1,
            "source": { "kind": "git", "commit": format!("{id}{}", "0".repeat(32)) },
        });
        let path = bench.at("data/web/releases").join(format!("{id}.json"));
        std::fs::write(path, record.to_string()).unwrap();
    };
    for id in ["00000001", "00000002"] {
        commit(id);
    }
    let next = || async {
        let mut staged = bench.staged.1.lock().await;
        tokio::time::timeout(LONG, staged.recv())
            .await
            .unwrap()
            .unwrap()
    };
    serve(&bench, &apps, "web", "00000001").await;
    assert_eq!(next().await.as_str(), "00000001");
    // It takes its time, and another deployment goes all the way.
    serve(&bench, &apps, "web", "00000002").await;
    let app = apps.get(Some("web")).await.unwrap();
    let staging = app.status().await.staging.unwrap();
    assert_eq!(staging.coming.as_deref(), Some("00000001"));
    bench.stages.add_permits(1);
    assert_eq!(next().await.as_str(), "00000002");
    bench.stages.add_permits(1);
    let made = async {
        while app.status().await.staging.unwrap().release.as_deref() != Some("00000002") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, made).await.unwrap();
}
