//! Every route, as those ask who may act, who may look and who may neither; and what the journal has of it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;

use axum::http::Method;
use futures_util::StreamExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::super::guard::Began;
use super::super::peer::Access;
use super::super::routes::{router, table};
use super::*;
use crate::config::App;
use crate::daemon::app::Place;
use crate::daemon::apps::{Apps, Source};
use crate::daemon::embedded::Embedded;
use crate::daemon::tables::Tables;
use crate::telemetry::message;
use crate::traffic::Routers;
use crate::wire::api;
use crate::wire::token::Scope;

type Line = BTreeMap<String, String>;

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<Line>>>);

struct Fields(Line);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl<S: tracing::Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields(Line::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }
}

impl Journal {
    fn begin() -> (Self, DefaultGuard) {
        let journal = Self::default();
        let lines = tracing_subscriber::registry().with(journal.clone());
        (journal, tracing::subscriber::set_default(lines))
    }

    /// What was logged since this was asked last.
    fn lines(&self) -> Vec<Line> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Of that, what tells who changed what.
    fn audited(&self) -> Vec<Line> {
        let mut lines = self.lines();
        lines.retain(|line| line.contains_key("slot_audit"));
        lines
    }
}

struct Bench {
    directory: tempfile::TempDir,
    api: Api<Embedded>,
    service: TowerToHyperService<axum::Router>,
}

impl Bench {
    async fn new(app: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let routers = Routers::in_directory(at("router"));
        let tables = Arc::new(Tables::open(at("table.json"), routers, None).await);
        let source = match app {
            Some(text) => Source::Only(Box::new(App::parse(text, "slot.toml").unwrap())),
            None => Source::Directory(at("apps")),
        };
        let place = Place::new(at("data"), "1".to_owned());
        let (data, run) = (at("data/web"), at("run"));
        let apps = Arc::new(Apps::new(source, place, tables, move |app| {
            let app = Arc::new(app.clone());
            Embedded::new(app, data.clone(), run.clone(), BTreeMap::new())
        }));
        apps.load().await;
        let access = Access::root_and_readers(200);
        Self {
            directory,
            api: Api {
                apps: Arc::clone(&apps),
                access: access.clone(),
                takes_up: false,
            },
            service: TowerToHyperService::new(router(apps, access)),
        }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// The status, and what a refusal says.
    async fn ask(&self, peer: &Peer, method: &Method, path: &str) -> (u16, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let headers = request.headers_mut();
        for name in ["authorization", "idempotency-key", "x-token", "cookie"] {
            headers.insert(name, SECRET.parse().unwrap());
        }
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let response = self.service.call(request).await.unwrap();
        let status = response.status().as_u16();
        let mut pieces = response.into_body().into_data_stream();
        let mut text = String::new();
        // An event stream has no end.
        if status != 200 {
            while let Some(Ok(piece)) = pieces.next().await {
                text.push_str(&String::from_utf8_lossy(&piece));
            }
        }
        (status, text)
    }
}

const SECRET: &str = "slot_5ec4e7";

fn token(scope: Scope) -> Peer {
    Peer::Token {
        name: "ci".to_owned(),
        scope,
        from: [10, 0, 0, 7].into(),
    }
}

fn process(groups: &[u32]) -> Peer {
    Peer::Process {
        uid: 1000,
        pid: std::process::id().cast_signed(),
        groups: groups.to_vec(),
        user: None,
        unit: Some("ci.service".to_owned()),
    }
}

fn root() -> Peer {
    Peer::Process {
        uid: 0,
        pid: std::process::id().cast_signed(),
        groups: vec![0],
        user: None,
        unit: None,
    }
}

/// One who may do what a route does.
fn peer_for(route: &Route<Embedded>) -> Peer {
    match route.needs {
        May::Root => root(),
        May::Act | May::Read | May::Nothing => token(Scope::Act),
    }
}

/// Paths with something in place of what varies.
fn path_of(route: &Route<Embedded>, app: &str) -> String {
    route.path.replace("{app}", app).replace("{oid}", SECRET)
}

#[tokio::test]
async fn every_route_that_may_change_something_is_written_down_and_no_secret_is() {
    let bench = Bench::new(None).await;
    let (journal, _guard) = Journal::begin();
    let mut acting = 0;
    for route in table::<Embedded>() {
        let is_reading = route.method == Method::GET && route.needs == May::Read;
        let path = format!("{}?access_token={SECRET}", path_of(&route, SECRET));
        bench.ask(&peer_for(&route), &route.method, &path).await;
        let lines = journal.lines();
        let all = format!("{lines:?}");
        assert!(!all.contains(SECRET), "{path}: {all}");
        let mut audited = lines;
        audited.retain(|line| line.contains_key("slot_audit"));
        if is_reading {
            assert_eq!(audited, [] as [Line; 0], "{}", route.path);
            continue;
        }
        acting += 1;
        let [asked, outcome] = &audited[..] else {
            panic!("{} {} has {audited:?}", route.method, route.path);
        };
        for line in [asked, outcome] {
            assert_eq!(Some(&*line["message_id"]), message::id("audit"));
            assert_eq!(line["slot_method"], route.method.as_str());
            assert_eq!(line["slot_route"], route.path);
            if route.needs == May::Root {
                assert_eq!(line["slot_uid"], "0");
                continue;
            }
            assert_eq!(line["slot_token"], "ci");
            assert_eq!(line["slot_peer_address"], "10.0.0.7");
            assert_eq!(line["slot_who"], "token ci (10.0.0.7)");
        }
        assert_eq!(asked["slot_audit"], "asked");
        let refusals = ["no-such-app", "bad-request", "refused"];
        assert!(
            refusals.contains(&outcome["slot_audit"].as_str()),
            "{outcome:?}"
        );
        assert!(outcome["slot_status"].starts_with('4'), "{outcome:?}");
    }
    assert!(acting > 30, "the table was walked");
}

#[tokio::test]
async fn a_query_that_slotd_does_not_know_is_refused_and_never_written_down() {
    let bench = Bench::new(Some("name = 'web'\ncommand = 'x'\n")).await;
    let (journal, _guard) = Journal::begin();
    for route in table::<Embedded>() {
        if route.needs == May::Read {
            continue;
        }
        let path = format!("{}?access_token={SECRET}", path_of(&route, "web"));
        let (status, said) = bench.ask(&peer_for(&route), &route.method, &path).await;
        assert_eq!(status, 400, "{} {path}: {said}", route.method);
    }
    let lines = format!("{:?}", journal.lines());
    assert!(
        lines.contains("bad-request") && !lines.contains(SECRET),
        "{lines}"
    );
}

#[tokio::test]
async fn who_may_look_looks_and_who_may_neither_learns_that_slotd_is_there() {
    let bench = Bench::new(None).await;
    let (journal, _guard) = Journal::begin();
    let readers = [token(Scope::Read), process(&[1000, 200])];
    let others = [process(&[1000]), Peer::Nobody];
    for route in table::<Embedded>() {
        let path = path_of(&route, "web");
        for peer in &readers {
            let (status, said) = bench.ask(peer, &route.method, &path).await;
            let is_forbidden = route.needs >= May::Act;
            assert_eq!(
                status == 403,
                is_forbidden,
                "{} {path}: {said}",
                route.method
            );
        }
        for peer in &others {
            let (status, _) = bench.ask(peer, &route.method, &path).await;
            assert_eq!(status, 403, "{} {path}", route.method);
        }
    }
    for peer in readers.iter().chain(&others) {
        assert_eq!(bench.ask(peer, &Method::GET, "/").await.0, 200);
        let (status, _) = bench.ask(peer, &Method::GET, "/no/such/route").await;
        assert_eq!(status, if others.contains(peer) { 403 } else { 404 });
    }
    assert_eq!(journal.audited(), [] as [Line; 0]);
}

#[tokio::test]
async fn who_may_only_look_has_no_app_taken_up() {
    let bench = Bench::new(None).await;
    let (apps, data) = (bench.at("apps"), bench.at("data"));
    std::fs::create_dir_all(&apps).unwrap();
    let text = "name = 'web'\ncommand = 'x'\n[ports]\nblue = 20001\ngreen = 20002\n";
    std::fs::write(apps.join("web.toml"), text).unwrap();
    let reader = token(Scope::Read);
    let (mut looked, remedy) = (0, "slotctl app reload web");
    for route in table::<Embedded>() {
        if route.needs != May::Read || !route.path.contains("{app}") {
            continue;
        }
        let path = format!("{}?generation=1", path_of(&route, "web"));
        let (status, said) = bench.ask(&reader, &route.method, &path).await;
        assert_eq!(status, 404, "{path}: {said}");
        let is_told = said.contains("\"not-taken-up\"") && said.contains(remedy);
        assert!(is_told, "{path}: {said}");
        assert!(!data.exists(), "{path} made something");
        looked += 1;
    }
    assert!(looked > 5, "the table was walked");
    let (managed, others) = bench.api.apps.all().await;
    assert!(managed.is_empty());
    assert!(others["web"].contains(remedy), "{others:?}");
    let reload = "/apps/web/reload";
    let (status, said) = bench.ask(&token(Scope::Act), &Method::POST, reload).await;
    assert_eq!(status, 200, "{said}");
    let status = bench.ask(&reader, &Method::GET, "/apps/web/status").await.0;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn what_was_done_is_written_down_with_its_app_its_generation_and_its_query() {
    let bench = Bench::new(Some("name = 'web'\ncommand = 'x'\n")).await;
    let (journal, _guard) = Journal::begin();
    let (status, _) = bench
        .ask(&process(&[200]), &Method::POST, "/apps/web/rollback?to=tea")
        .await;
    assert_eq!((status, journal.audited().len()), (403, 0));
    let ci = token(Scope::Act);
    let (status, _) = bench
        .ask(&ci, &Method::POST, "/apps/web/rollback?to=tea")
        .await;
    assert_eq!(status, 400);
    let (status, _) = bench.ask(&ci, &Method::POST, "/rollback").await;
    assert_eq!(status, 400);
    let (status, said) = bench.ask(&ci, &Method::POST, "/apps/web/reload").await;
    assert_eq!(status, 200, "{said}");
    let begun = Began(api::Begun {
        generation: 7,
        release: None,
        repeated: false,
        already: None,
    });
    let of = bench.api.of(Some("web")).await;
    let audit = Audit::asked(&ci, Method::POST, "/deploy", of);
    audit.answered(&begun.into_response(), Some("name=x"), None);
    let lines = journal.audited();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let of = |name: &str| line.get(name).cloned().unwrap_or_default();
            assert_eq!(of("slot_app"), "web");
            let words = ["slot_route", "slot_audit", "slot_query", "slot_generation"];
            words.map(of).join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "/apps/{app}/rollback asked  0",
            "/apps/{app}/rollback bad-request  0",
            "/rollback asked  0",
            "/rollback nothing-to-roll-back-to  0",
            "/apps/{app}/reload asked  0",
            "/apps/{app}/reload done  0",
            "/deploy asked  0",
            "/deploy done name=x 7",
        ]
    );
}

#[tokio::test]
async fn a_process_is_written_down_by_its_user_and_its_unit() {
    let (journal, _guard) = Journal::begin();
    drop(Audit::asked(&process(&[]), Method::POST, "/deploy", None));
    let lines = journal.audited();
    let own = std::process::id();
    for (line, word) in lines.iter().zip(["asked", "broken-off"]) {
        assert_eq!(line["slot_audit"], word);
        assert_eq!(line["slot_uid"], "1000");
        assert_eq!(line["slot_peer_pid"], own.to_string());
        // As it was when he connected.
        assert_eq!(line["slot_peer_unit"], "ci.service");
    }
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn what_root_has_done_root_alone_says_and_of_a_name_that_a_listener_can_have() {
    let bench = Bench::new(None).await;
    let (journal, _guard) = Journal::begin();
    for route in ["/listener/add", "/listener/remove"] {
        let path = format!("{route}?name=8443");
        for (peer, why) in [
            (token(Scope::Act), "only root may"),
            (process(&[200]), "may look, and not act"),
            (process(&[]), "may not use slotd"),
        ] {
            let (status, said) = bench.ask(&peer, &Method::POST, &path).await;
            assert_eq!(status, 403, "{peer:?}");
            assert!(said.contains(why), "{said}");
        }
        assert_eq!(journal.audited(), [] as [Line; 0]);
        for wrong in [
            "",
            "?name=",
            "?name=Web",
            "?name=-x",
            "?name=a%2Fb",
            "?name=8443&more=1",
        ] {
            let path = format!("{route}{wrong}");
            let (status, said) = bench.ask(&root(), &Method::POST, &path).await;
            assert_eq!(status, 400, "{path}: {said}");
        }
        // There is a router, and it is of this very process.
        let (status, said) = bench.ask(&root(), &Method::POST, &path).await;
        assert_eq!(status, 422, "{said}");
        let told = format!("{:?}", journal.audited());
        assert!(told.contains(route) && !told.contains("Web"), "{told}");
    }
}

#[tokio::test]
async fn what_comes_with_a_request_is_bounded() {
    let of = |length: u64| {
        let request = Request::builder().header(CONTENT_LENGTH, length);
        request.body(Body::empty()).unwrap()
    };
    let (ci, local) = (token(Scope::Act), process(&[]));
    assert!(bounded(of(LITTLE), Brings::Nothing, &local).is_ok());
    assert!(bounded(of(LITTLE + 1), Brings::Nothing, &local).is_err());
    assert!(bounded(of(RELEASE as u64 + 1), Brings::Release, &local).is_ok());
    assert!(bounded(of(RELEASE as u64 + 1), Brings::Release, &ci).is_err());
    let said = Problem::too_large(LITTLE).into_response();
    assert_eq!(said.status().as_u16(), 413);
}
