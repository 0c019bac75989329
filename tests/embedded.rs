//! Slots as children: what the deployer is told of real processes, and whose answers count.

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use slot::config::App;
use slot::daemon::app::Place;
use slot::daemon::apps::{Apps, Source};
use slot::daemon::embedded::Embedded;
use slot::daemon::tables::Tables;
use slot::daemon::units::Units;
use slot::deploy::{End, Limits, Probe, ReleaseId, Seen, SlotName};
use slot::traffic::Routers;

const LONG: Duration = Duration::from_secs(20);

const LIMITS: Limits = Limits {
    start: LONG,
    stop: LONG,
};

struct Bench {
    directory: tempfile::TempDir,
    units: Embedded,
    slot: SlotName,
    release: ReleaseId,
}

/// An app of this test binary in a role, with more lines in its file.
fn bench(role: &str, lines: &str) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let text = format!(
        "name = 'web'\nhealth = '/healthz'\ncommand = ['{}', '--exact', 'role', '--nocapture']\n{lines}",
        exe.display()
    );
    let app = App::parse(&text, "slot.toml").unwrap();
    let release: ReleaseId = "0123abcd".parse().unwrap();
    let root = directory.path().join("data/web");
    std::fs::create_dir_all(root.join("releases/0123abcd")).unwrap();
    let mut inherited: BTreeMap<_, _> = std::env::vars_os().collect();
    inherited.insert("TEST_ROLE".into(), role.into());
    let units = Embedded::new(Arc::new(app), root, directory.path().join("run"), inherited);
    Bench {
        directory,
        units,
        slot: "blue".parse().unwrap(),
        release,
    }
}

impl Bench {
    /// Probes until one has the text, as a gate would.
    async fn until(&self, wanted: impl Fn(&Probe) -> bool) -> Probe {
        let wait = async {
            loop {
                let probe = self.units.probe(&self.slot, LONG).await;
                if wanted(&probe) {
                    return probe;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap()
    }

    async fn serves(&self) {
        let boot = self
            .units
            .start(&self.slot, &self.release, LIMITS)
            .await
            .unwrap();
        assert_eq!(self.units.seen(&self.slot).await, Seen::Running(boot));
        let probe = self.until(|probe| probe.pass).await;
        assert_eq!(probe.text, "200 OK: \"fine, says web blue of 0123abcd\"");
        assert!(!self.units.stop(&self.slot).await);
        assert_eq!(self.units.seen(&self.slot).await, Seen::Ended(End::ByHand));
        let left = self.directory.path().join("run/web/blue");
        assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
    }
}

/// A port that nobody else is given: bound, and not listened on, which an app's own bind does not mind (`SO_REUSEADDR`, socket(7)).
fn free_port() -> u16 {
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = reserved.local_addr().unwrap().port();
    // For as long as the tests run.
    std::mem::forget(reserved);
    port
}

fn ports(port: u16) -> String {
    format!("[ports]\nblue = {port}\ngreen = {}", free_port())
}

/// What this binary does when it is the app; nothing in an ordinary run.
#[test]
fn role() {
    let port = || std::env::var("PORT").unwrap().parse::<u16>().unwrap();
    match std::env::var("TEST_ROLE").as_deref() {
        Ok("port") => {
            let listener = TcpListener::bind(("127.0.0.1", port())).unwrap();
            listener.incoming().flatten().for_each(answer);
        }
        Ok("unix") => {
            let listener = UnixListener::bind(std::env::var("SOCKET").unwrap()).unwrap();
            listener.incoming().flatten().for_each(answer);
        }
        Ok("fd") => {
            let mut passed = listenfd::ListenFd::from_env();
            let listener = passed.take_unix_listener(0).unwrap().unwrap();
            listener.incoming().flatten().for_each(answer);
        }
        Ok("elsewhere") => {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            println!("listening on {}", listener.local_addr().unwrap());
            listener.incoming().flatten().for_each(answer);
        }
        Ok("ends") => std::process::exit(7),
        Ok("deaf") => loop {
            std::thread::park();
        },
        _ => {}
    }
}

fn answer(stream: impl Read + Write) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
        line.clear();
    }
    let own = |name: &str| std::env::var(name).unwrap_or_default();
    let text = format!(
        "fine, says {} {} of {}",
        own("SLOT_APP"),
        own("SLOT_NAME"),
        own("SLOT_RELEASE")
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    // A probe that was given up is no matter here.
    let _ = stream.get_mut().write_all(head.as_bytes());
}

#[tokio::test]
async fn a_slot_on_a_port_is_started_probed_and_stopped() {
    bench("port", &ports(free_port())).serves().await;
}

#[tokio::test]
async fn a_slot_on_a_unix_socket_is_started_probed_and_stopped() {
    bench("unix", "bind = 'unix'").serves().await;
}

#[tokio::test]
async fn a_slot_with_a_socket_passed_is_started_probed_and_stopped() {
    bench("fd", "bind = 'fd'").serves().await;
}

#[tokio::test]
async fn a_port_that_somebody_has_refuses_the_start_and_names_them() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = bench("port", &ports(stranger.local_addr().unwrap().port()));
    let refused = bench
        .units
        .start(&bench.slot, &bench.release, LIMITS)
        .await
        .unwrap_err();
    assert_eq!(refused.result.as_str(), "port-in-use");
    let pid = format!("pid {}", std::process::id());
    assert!(refused.text.contains(&pid), "{}", refused.text);
    assert_eq!(
        bench.units.seen(&bench.slot).await,
        Seen::Ended(End::ByHand)
    );
}

#[tokio::test]
async fn an_answer_from_a_stranger_does_not_count() {
    let port = free_port();
    let bench = bench("deaf", &ports(port));
    bench
        .units
        .start(&bench.slot, &bench.release, LIMITS)
        .await
        .unwrap();
    let stranger = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || stranger.incoming().flatten().for_each(answer));
    let probe = bench.units.probe(&bench.slot, LONG).await;
    assert!(!probe.pass);
    assert!(
        probe.text.contains("does not belong to the app"),
        "{}",
        probe.text
    );
    assert!(!bench.units.stop(&bench.slot).await);
}

#[tokio::test]
async fn an_app_that_listens_elsewhere_is_told_where() {
    let bench = bench("elsewhere", &ports(free_port()));
    let boot = bench
        .units
        .start(&bench.slot, &bench.release, LIMITS)
        .await
        .unwrap();
    let wait = async {
        loop {
            let report = bench.units.report(&bench.slot, Some(&boot)).await;
            let line = report.log.iter().find(|line| line.contains("listening on"));
            if let Some(line) = line.filter(|_| !report.listens.is_empty()) {
                let address = line.rsplit(' ').next().unwrap().to_owned();
                return (report, address);
            }
            tokio::task::yield_now().await;
        }
    };
    let (report, address) = tokio::time::timeout(LONG, wait).await.unwrap();
    assert!(report.listens[0].starts_with(&address), "{report:?}");
    assert_eq!(report.unit, "web@blue");
    let probe = bench.units.probe(&bench.slot, LONG).await;
    assert!(probe.text.contains("connection refused"), "{}", probe.text);
    bench.units.stop_all().await;
}

#[tokio::test]
async fn a_start_that_was_given_up_goes_on_and_is_not_made_twice() {
    let bench = bench("port", &ports(free_port()));
    let start = bench.units.start(&bench.slot, &bench.release, LIMITS);
    // Polled once and dropped, as when the deployer gives an effect up.
    let _ = tokio::time::timeout(Duration::ZERO, start).await;
    let one = bench.units.start(&bench.slot, &bench.release, LIMITS).await;
    let two = bench.units.start(&bench.slot, &bench.release, LIMITS).await;
    assert_eq!(one, two);
    bench.until(|probe| probe.pass).await;
    bench.units.stop_all().await;
}

#[tokio::test]
async fn what_apps_there_are_is_answered_once_they_are_known() {
    let bench = bench("deaf", &ports(free_port()));
    let data = bench.directory.path().join("data");
    let routers = Routers::in_directory(bench.directory.path().join("router"));
    let tables = Arc::new(Tables::open(data.join("table.json"), routers, None).await);
    let place = Place {
        data,
        machine_boot: "1".to_owned(),
        layout: slot::release::Layout::Slot,
    };
    let app = App::parse("name = 'web'\ncommand = 'x'\n", "slot.toml").unwrap();
    let units = bench.units.clone();
    let apps = Apps::new(
        Source::Only(Box::new(app)),
        place,
        tables,
        move |_: &App| units.clone(),
    );
    assert!(apps.all().now_or_never().is_none(), "nobody knows yet");
    apps.load().await;
    let (known, broken) = apps.all().await;
    assert_eq!((known.len(), broken.len()), (1, 0));
}

#[tokio::test]
async fn a_run_that_ended_by_itself_is_seen_with_its_exit_status() {
    let bench = bench("ends", &ports(free_port()));
    let start = bench.units.start(&bench.slot, &bench.release, LIMITS);
    start.await.unwrap();
    let ended = async {
        loop {
            if let Seen::Ended(End::Restarting(failure)) = bench.units.seen(&bench.slot).await {
                return failure;
            }
            bench.units.changed().await;
        }
    };
    let failure = tokio::time::timeout(LONG, ended).await.unwrap();
    assert_eq!(failure.text, "exited with status 7");
    bench.units.stop_all().await;
}

#[tokio::test]
async fn an_env_file_that_is_not_there_is_named() {
    let lines = format!("env_file = './production.env'\n{}", ports(free_port()));
    let bench = bench("port", &lines);
    let refused = bench
        .units
        .start(&bench.slot, &bench.release, LIMITS)
        .await
        .unwrap_err();
    assert!(
        refused.text.contains("releases/0123abcd/./production.env"),
        "{}",
        refused.text
    );
}
