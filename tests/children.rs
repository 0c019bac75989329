//! Real children: every way in which an app can end, and what is left of it.
//!
//! Where a shell does not do, the test binary executes itself: see [`role`].

// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slot::children::{Changes, Child, Listener, Phase, Program};
use slot::deploy::{BootId, SlotName, UnitFailure, UnitResult};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Long enough for the slowest machine; nothing waits for it unless something is wrong.
const LONG: Duration = Duration::from_secs(20);

struct Bench {
    directory: tempfile::TempDir,
    changes: Arc<Changes>,
    child: Child,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let changes = Arc::new(Changes::default());
    let child = Child::new(
        "web".parse().unwrap(),
        "blue".parse().unwrap(),
        directory.path().to_owned(),
        Arc::clone(&changes),
    );
    Bench {
        directory,
        changes,
        child,
    }
}

impl Bench {
    /// Waits for a phase, as the deployer does: told of changes, it looks.
    async fn until(&self, mut wanted: impl FnMut(&Phase) -> bool) -> Phase {
        let wait = async {
            loop {
                let phase = self.child.phase();
                if wanted(&phase) {
                    return phase;
                }
                let slot: SlotName = self.changes.next().await;
                assert_eq!(slot.as_str(), "blue");
            }
        };
        tokio::time::timeout(LONG, wait)
            .await
            .expect("the phase comes")
    }

    async fn next_run(&self, before: &BootId) -> BootId {
        match self
            .until(|phase| matches!(phase, Phase::Up(boot) if boot != before))
            .await
        {
            Phase::Up(boot) => boot,
            phase => panic!("not up: {phase:?}"),
        }
    }

    /// The process ids that the child wrote into a file, once it did.
    async fn pids(&self, name: &str) -> Vec<Pid> {
        pids(&self.directory.path().join(name)).await
    }

    fn sh(&self, script: &str) -> Program {
        program(self.directory.path(), &["/bin/sh", "-c", script])
    }
}

fn program(cwd: &Path, argv: &[&str]) -> Program {
    Program {
        argv: argv.iter().map(OsString::from).collect(),
        env: std::env::vars_os().collect(),
        cwd: cwd.to_owned(),
        notify: false,
        leaves: None,
        listener: None,
        start_limit: LONG,
        stop_limit: LONG,
        restart: true,
        whole: false,
    }
}

/// This test binary, in a role.
fn in_role(cwd: &Path, role: &str) -> Program {
    let exe = std::env::current_exe().unwrap();
    let mut program = program(
        cwd,
        &[exe.to_str().unwrap(), "--exact", "role", "--nocapture"],
    );
    program.env.insert("SLOT_TEST_ROLE".into(), role.into());
    program
}

async fn pids(path: &Path) -> Vec<Pid> {
    let wait = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.ends_with(".\n") {
                return text
                    .split_whitespace()
                    .filter_map(|word| word.parse().ok().map(Pid::from_raw))
                    .collect();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .expect("the file is written")
}

/// Gone, or waiting to be reaped by whoever adopted it.
fn is_gone(pid: Pid) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

async fn assert_gone(pids: &[Pid]) {
    assert!(!pids.is_empty());
    let wait = async {
        while !pids.iter().all(|pid| is_gone(*pid)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .unwrap_or_else(|_| panic!("some of {pids:?} are still there"));
}

/// What this binary does when a test executes it; nothing in an ordinary run.
#[test]
fn role() {
    match std::env::var("SLOT_TEST_ROLE").as_deref() {
        Ok("ready") => {
            notify("STATUS=warming up");
            notify("STATUS=serving\nREADY=1");
            loop {
                std::thread::park();
            }
        }
        Ok("never ready") => {
            notify("STATUS=waiting for the database");
            loop {
                std::thread::park();
            }
        }
        Ok("listening") => {
            use std::os::fd::FromRawFd as _;
            assert_eq!(std::env::var("LISTEN_FDS").as_deref(), Ok("1"));
            assert_eq!(
                std::env::var("LISTEN_PID").unwrap(),
                std::process::id().to_string()
            );
            #[allow(unsafe_code)]
            // Safety: the descriptor was passed to this process for itself alone (sd_listen_fds(3)).
            let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(3) });
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"hello from the child").unwrap();
            drop(stream);
            loop {
                std::thread::park();
            }
        }
        Ok("parent") => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let directory = std::env::current_dir().unwrap();
                let child = Child::new(
                    "web".parse().unwrap(),
                    "blue".parse().unwrap(),
                    directory.clone(),
                    Arc::default(),
                );
                let script = "trap '' TERM HUP; sleep 1000 & echo $$ $! . >pids; wait";
                child
                    .start(program(&directory, &["/bin/sh", "-c", script]))
                    .await
                    .unwrap();
                std::future::pending::<()>().await;
            });
        }
        Ok("leak") => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let bench = bench();
                let round = async || {
                    bench.child.start(bench.sh("sleep 1000")).await.unwrap();
                    bench.child.stop().await;
                };
                round().await;
                let before = open_files();
                for _ in 0..20 {
                    round().await;
                }
                assert_eq!(open_files(), before);
                let left = std::fs::read_dir(bench.directory.path()).unwrap().count();
                assert_eq!(left, 0, "files are left in the runtime directory");
                println!("nothing leaked");
            });
        }
        _ => {}
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn notify(state: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    let path = std::env::var("NOTIFY_SOCKET").unwrap();
    socket.send_to(state.as_bytes(), path).unwrap();
}

fn failure(phase: &Phase) -> UnitFailure {
    match phase {
        Phase::Ended(failure) => failure.clone(),
        phase => panic!("did not end: {phase:?}"),
    }
}

#[tokio::test]
async fn a_child_is_up_when_it_says_ready_and_what_it_says_is_kept() {
    let bench = bench();
    let mut program = in_role(bench.directory.path(), "ready");
    program.notify = true;
    let boot = bench.child.start(program.clone()).await.unwrap();
    assert_eq!(bench.child.phase(), Phase::Up(boot.clone()));
    let record = bench.child.record(Some(&boot)).unwrap();
    assert_eq!(record.status.as_deref(), Some("serving"));
    assert_eq!(
        bench.child.start(program).await,
        Ok(boot),
        "it is up already"
    );
    assert!(!bench.child.stop().await);
    assert_eq!(bench.child.phase(), Phase::Stopped);
    assert!(!bench.child.stop().await, "it is stopped already");
}

#[tokio::test]
async fn a_child_that_exits_at_once_has_failed_with_its_status_and_last_words() {
    let bench = bench();
    let program = bench.sh("echo booting; echo 'no such table: users' >&2; exit 3");
    let boot = bench.child.start(program).await.unwrap();
    let ended = bench.until(|phase| matches!(phase, Phase::Ended(_))).await;
    assert_eq!(
        failure(&ended),
        UnitFailure {
            result: "exit-code".into(),
            text: "exited with status 3".to_owned()
        }
    );
    let record = bench.child.record(Some(&boot)).unwrap();
    assert_eq!(record.failure, Some(failure(&ended)));
    assert!(record.log.contains(&"booting".to_owned()), "{record:?}");
    assert!(
        record.log.contains(&"no such table: users".to_owned()),
        "{record:?}"
    );
    bench.child.stop().await;
    assert_eq!(bench.child.phase(), Phase::Stopped);
}

#[tokio::test]
async fn a_child_that_exits_before_it_is_ready_fails_its_start() {
    let bench = bench();
    for (script, result) in [
        ("exit 4", "exit-code"),
        ("exit 0", "protocol"),
        ("kill -SEGV $$", "signal"),
    ] {
        let mut program = bench.sh(script);
        program.notify = true;
        let failed = bench.child.start(program).await.unwrap_err();
        // With core dumps on, systemd names that instead, and so do we.
        assert!(
            [result, "core-dump"].contains(&failed.result.as_str()),
            "{failed:?}"
        );
        bench.child.stop().await;
    }
}

#[tokio::test]
async fn a_child_that_never_says_ready_is_stopped_when_its_time_has_passed() {
    let bench = bench();
    let mut program = in_role(bench.directory.path(), "never ready");
    program.notify = true;
    program.start_limit = Duration::from_millis(500);
    let failed = bench.child.start(program).await.unwrap_err();
    assert_eq!(failed.result, UnitResult::Timeout);
    let record = bench.child.record(None).unwrap();
    assert_eq!(record.failure.unwrap().result, UnitResult::Timeout);
    bench.child.stop().await;
    assert_eq!(bench.child.group(), None);
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_named() {
    let bench = bench();
    let program = program(bench.directory.path(), &["./server"]);
    let failed = bench.child.start(program).await.unwrap_err();
    assert!(
        failed.text.contains("server: No such file or directory"),
        "{failed:?}"
    );
    bench.child.stop().await;
}

#[tokio::test]
async fn a_child_that_is_killed_is_started_again_in_a_new_run() {
    let bench = bench();
    let program = bench.sh("echo $$ . >pids; sleep 1000");
    let first = bench.child.start(program).await.unwrap();
    let main = bench.pids("pids").await;
    kill(main[0], Signal::SIGKILL).unwrap();
    let ended = bench.until(|phase| matches!(phase, Phase::Ended(_))).await;
    assert_eq!(failure(&ended).text, "killed by SIGKILL");
    let second = bench.next_run(&first).await;
    let record = bench.child.record(Some(&first)).unwrap();
    assert_eq!(record.failure.unwrap().result.as_str(), "signal");
    assert_eq!(bench.child.record(None).unwrap().boot, second);
    bench.child.stop().await;
}

#[tokio::test]
async fn sigterm_is_for_the_main_process_and_sigkill_for_what_it_leaves_behind() {
    let bench = bench();
    // The grandchild would tell if it got SIGTERM.
    let program = bench.sh(
        "(trap 'echo term >told' TERM; sleep 1000 & echo $! . >pids; wait; wait) & \
         trap 'exit 0' TERM; wait",
    );
    bench.child.start(program).await.unwrap();
    let grandchildren = bench.pids("pids").await;
    assert!(!bench.child.stop().await);
    assert_gone(&grandchildren).await;
    assert!(!bench.directory.path().join("told").exists());
}

#[tokio::test]
async fn a_child_that_ignores_sigterm_is_killed_with_all_of_its_own() {
    let bench = bench();
    let mut program = bench.sh("trap '' TERM; sleep 1000 & echo $$ $! . >pids; wait; sleep 1000");
    program.stop_limit = Duration::from_millis(200);
    bench.child.start(program).await.unwrap();
    let all = bench.pids("pids").await;
    assert!(bench.child.stop().await);
    assert_gone(&all).await;
}

#[tokio::test]
async fn a_child_that_signals_its_whole_group_stays_guarded() {
    let bench = bench();
    let program =
        bench.sh("trap : TERM; kill -TERM 0; sleep 1000 & echo $$ $! . >pids; wait; wait");
    bench.child.start(program).await.unwrap();
    let all = bench.pids("pids").await;
    let keeper = bench.child.group().unwrap();
    assert!(!is_gone(keeper));
    drop(bench.child);
    assert_gone(&all).await;
}

#[tokio::test]
async fn a_parent_killed_by_sigkill_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let parent = in_role(directory.path(), "parent");
    let mut parent = Command::new(&parent.argv[0])
        .args(&parent.argv[1..])
        .envs(parent.env)
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let all = pids(&directory.path().join("pids")).await;
    assert_eq!(all.len(), 2);
    assert!(!all.iter().any(|pid| is_gone(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert_gone(&all).await;
}

#[tokio::test]
async fn twenty_runs_leave_no_file_open() {
    let directory = tempfile::tempdir().unwrap();
    let role = in_role(directory.path(), "leak");
    let done = Command::new(&role.argv[0])
        .args(&role.argv[1..])
        .envs(role.env)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains("nothing leaked"), "{text}");
}

#[tokio::test]
async fn a_listening_socket_is_passed_and_its_queue_outlives_a_run() {
    let bench = bench();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut program = in_role(bench.directory.path(), "listening");
    program.listener = Some(Listener(Arc::new(OwnedFd::from(listener))));
    bench.child.start(program).await.unwrap();
    for _ in 0..2 {
        // The second is made while nobody accepts, or by the time that the second run does.
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut said = String::new();
        let read = BufReader::new(stream).read_line(&mut said).await;
        assert_eq!((read.unwrap(), said.as_str()), (20, "hello from the child"));
        let Phase::Up(boot) = bench.child.phase() else {
            panic!("not up")
        };
        nix::sys::signal::killpg(bench.child.group().unwrap(), Signal::SIGKILL).unwrap();
        bench.next_run(&boot).await;
    }
    bench.child.stop().await;
}

#[tokio::test]
async fn the_environment_is_what_was_given_and_the_run_is_named_in_it() {
    let bench = bench();
    let mut program = bench.sh("env; echo .; sleep 1000");
    program.env = BTreeMap::from([
        ("PATH".into(), "/bin:/usr/bin".into()),
        ("A".into(), "1".into()),
    ]);
    let boot = bench.child.start(program).await.unwrap();
    let wait = async {
        loop {
            let log = bench.child.record(None).unwrap().log;
            if log.back().is_some_and(|line| line == ".") {
                return log;
            }
            tokio::task::yield_now().await;
        }
    };
    let log = tokio::time::timeout(LONG, wait).await.unwrap();
    assert!(log.contains(&format!("INVOCATION_ID={boot}")), "{log:?}");
    assert!(log.contains(&"A=1".to_owned()), "{log:?}");
    assert!(!log.iter().any(|line| line.starts_with("CARGO")), "{log:?}");
    bench.child.stop().await;
}
