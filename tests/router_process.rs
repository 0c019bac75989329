//! `slot-router` as a process: what it says to the service manager, how it takes sockets, how it ends.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use router_support::{End, OK, PATIENCE, Raw, Upstream, slot, table};

const ROUTER: &str = env!("CARGO_BIN_EXE_slot-router");
const GET: &str = "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n";

/// A service manager's end of the notification socket. It takes every message, whoever waits for one: to a socket that is full
/// the router would wait, also with its end.
struct Notified {
    socket: UnixDatagram,
    messages: Receiver<String>,
    _directory: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Notified {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (tell, messages) = channel();
        let taking = socket.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Nothing comes of a socket that is shut.
            while let Ok(count @ 1..) = taking.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                if tell.send(text).is_err() {
                    return;
                }
            }
        });
        Self {
            socket,
            messages,
            _directory: directory,
            path,
        }
    }

    /// Waits for a message that has this line.
    fn wait_for(&self, line: impl Fn(&str) -> bool) {
        let late = Instant::now() + PATIENCE;
        loop {
            let left = late.saturating_duration_since(Instant::now());
            let text = self.messages.recv_timeout(left);
            if text.expect("the router does not say it").lines().any(&line) {
                return;
            }
        }
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Ended whatever becomes of its test.
struct Running(Child);

impl Deref for Running {
    type Target = Child;
    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn finish(mut child: Running) {
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Starts the router with `listener` as descriptor 3, as systemd does.
#[allow(
    unsafe_code,
    reason = "only between fork and exec can a process number its own descriptors"
)]
fn activated(listener: &TcpListener, command: &mut Command) -> Running {
    let fd = listener.as_raw_fd();
    command
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "public");
    // SAFETY: only dup2(2) is called, which is async-signal-safe; it clears close-on-exec in the copy. LISTEN_PID
    // is left out, which listenfd takes for "whoever reads this".
    unsafe {
        command.pre_exec(move || {
            nix::libc::dup2(fd, 3);
            Ok(())
        });
    }
    Running(command.spawn().unwrap())
}

/// A router on one slot, which serves, and where.
fn ready(upstream: SocketAddr) -> (Running, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    let blue = table(1, vec![slot("blue", 100, upstream)]);
    std::fs::write(&path, serde_json::to_vec(&blue).unwrap()).unwrap();
    let notified = Notified::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(ROUTER);
    command.arg("--table").arg(&path).stderr(Stdio::null());
    command.env("NOTIFY_SOCKET", &notified.path);
    let child = activated(&listener, &mut command);
    notified.wait_for(|l| l == "READY=1");
    (child, listener.local_addr().unwrap())
}

/// Waits until the threads that serve have nothing to do: whatever the router did last, all that belongs to it is done
/// (proc_pid_stat(5): state S, behind the name in parentheses).
fn waits(process: u32) {
    let late = Instant::now() + PATIENCE;
    let works = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat"));
        let stat = stat.unwrap();
        let (name, rest) = stat.rsplit_once(')').unwrap();
        name.contains("(router-") && !rest.starts_with(" S")
    };
    let tasks = || std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    while tasks().any(works) {
        assert!(Instant::now() < late, "it always has something to do");
        std::thread::yield_now();
    }
}

#[test]
fn it_takes_a_named_socket_says_when_it_is_ready_and_logs_requests() {
    let upstream = Upstream::answering(OK);
    let directory = tempfile::tempdir().unwrap();
    let mut routes = table(1, vec![slot("blue", 100, upstream.address)]);
    routes.apps[0].routes[0].listener = Some("public".into());
    let path = directory.path().join("table.json");
    std::fs::write(&path, serde_json::to_vec(&routes).unwrap()).unwrap();
    let notified = Notified::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(ROUTER);
    command
        .args(["--threads", "2", "--access-log", "--table"])
        .arg(&path);
    command
        .env("NOTIFY_SOCKET", &notified.path)
        .env("WATCHDOG_USEC", "200000")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = activated(&listener, &mut command);
    notified.wait_for(|l| l == "READY=1");
    let mut client = Raw::connect(listener.local_addr().unwrap());
    client.send(GET);
    assert_eq!(client.message().unwrap().text(), "ok");
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (
            &entry["status"],
            &entry["listener"],
            &entry["target"],
            &entry["slot"]
        ),
        (
            &200.into(),
            &"public".into(),
            &"/a?b".into(),
            &"blue".into()
        )
    );
    notified.wait_for(|l| l == "WATCHDOG=1");
    notified.wait_for(|l| l == "STATUS=Accepting, table 1, 1 connections, 0 held");
    let mut refused = Raw::connect(listener.local_addr().unwrap());
    refused.send("GET / HTTP/1.1\r\n\r\n");
    refused.end();
    line.clear();
    lines.read_line(&mut line).unwrap();
    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&entry["status"], &entry["client"], &entry["error"]),
        (&400.into(), &"127.0.0.1".into(), &"Host is missing".into())
    );
    drop((refused, client));
    finish(child);
}

#[test]
fn sigterm_lets_requests_end() {
    let (tell, told) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let both = std::sync::Mutex::new((tell, wait));
    let upstream = Upstream::start(move |raw, _| {
        let both = both.lock().unwrap();
        raw.message();
        both.0.send(()).unwrap();
        both.1.recv().unwrap();
        raw.send(OK);
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    std::fs::write(
        &path,
        serde_json::to_vec(&table(1, vec![slot("blue", 100, upstream.address)])).unwrap(),
    )
    .unwrap();
    let notified = Notified::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(ROUTER);
    command
        .arg("--table")
        .arg(&path)
        .env("NOTIFY_SOCKET", &notified.path)
        .env("WATCHDOG_USEC", "100000")
        .stderr(Stdio::null());
    let mut child = activated(&listener, &mut command);
    notified.wait_for(|l| l == "READY=1");
    let mut client = Raw::connect(listener.local_addr().unwrap());
    client.send(GET);
    told.recv_timeout(PATIENCE).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    notified.wait_for(|l| l.starts_with("STATUS=Draining"));
    go.send(()).unwrap();
    let answer = client.message().unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.field("connection")),
        ("ok", Some("close"))
    );
    // The router waits a moment for a client that may still send.
    drop(client);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_answer_that_is_under_way_is_reset_when_the_router_is_killed() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
    const TO_THE_END: &str = "HTTP/1.0 200 OK\r\n\r\nbegun";
    const OF_A_LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun";
    const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n";
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", OF_A_LENGTH),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", CHUNKED),
        // An old client gets no chunks, so their end is the connection's.
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", CHUNKED),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", TO_THE_END),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", EVENTS),
        // The upstream answers before it has all of the request.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
            TO_THE_END,
        ),
    ] {
        let upstream = Upstream::start(move |raw, _| {
            raw.head();
            raw.send(answer);
            raw.end();
        });
        let (mut child, address) = ready(upstream.address);
        let mut client = Raw::connect(address);
        client.send(request);
        client.until(b"begun").unwrap();
        waits(child.id());
        child.kill().unwrap();
        assert_eq!(client.end().1, End::Reset, "{request:?} {answer:?}");
    }
}

#[test]
fn a_request_that_is_under_way_is_reset_when_the_router_is_killed_and_a_whole_one_is_not() {
    for (request, end) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegun",
            End::Reset,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n",
            End::Reset,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nbegun",
            End::Fin,
        ),
    ] {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut child, address) = ready(upstream.local_addr().unwrap());
        let mut client = Raw::connect(address);
        let (most, last) = request.split_at(request.len() - 1);
        client.send(most);
        let mut app = Raw::new(upstream.accept().unwrap().0, None);
        app.until(b"begu").unwrap();
        // The whole one was not whole at some time, too.
        waits(child.id());
        client.send(last);
        app.until(b"n").unwrap();
        waits(child.id());
        child.kill().unwrap();
        assert_eq!(app.end().1, end, "{request:?}");
    }
}

#[test]
fn it_does_not_start_without_a_listener() {
    let output = Command::new(ROUTER).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--listen"));
}

#[test]
fn wrong_settings_stop_whoever_starts_it_by_hand_and_not_a_unit() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("machine.toml");
    std::fs::write(&file, "[router]\ndrian = \"5m\"\n").unwrap();
    let says = format!(
        "{}:2: unknown key `router.drian`; did you mean",
        file.display()
    );
    let mut command = Command::new(ROUTER);
    command
        .args(["--listen", "127.0.0.1:0", "--config"])
        .arg(&file);
    let by_hand = command.output().unwrap();
    assert!(!by_hand.status.success());
    assert!(String::from_utf8_lossy(&by_hand.stderr).contains(&says));
    let notified = Notified::new();
    let unit = command
        .env("NOTIFY_SOCKET", &notified.path)
        .env("STATE_DIRECTORY", directory.path().join("kept"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut unit = Running(unit);
    notified.wait_for(|l| l == "READY=1");
    let mut first = String::new();
    let said = unit.stderr.take().unwrap();
    BufReader::new(said).read_line(&mut first).unwrap();
    assert!(
        first.contains(&says) && first.contains("the defaults hold"),
        "{first}"
    );
    finish(unit);
}

#[test]
fn idle_it_needs_little_memory() {
    let notified = Notified::new();
    let mut command = Command::new(ROUTER);
    command
        .args(["--listen", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", &notified.path)
        .stderr(Stdio::null());
    let child = Running(command.spawn().unwrap());
    notified.wait_for(|l| l == "READY=1");
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", child.id())).unwrap();
    let anonymous = rollup
        .lines()
        .find_map(|l| l.strip_prefix("Pss_Anon:"))
        .unwrap();
    let kib: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    // Code is shared and, unoptimised, large; what a router allocates is this.
    assert!(kib < 8 * 1024, "{kib} KiB");
    finish(child);
}

/// The rest of a request's body, and with it an answer of the upstream's and its reset, reach the router in one turn of its event loop.
/// Most often its next write fails there, and only then it finds the answer; it may also find that first, and take the rest for what it is.
fn in_one_turn(rest: &str, answer: &[u8]) -> (Running, Raw, TcpListener) {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    let (child, public) = ready(address);
    let mut client = Raw::connect(public);
    let length = 5 + rest.len();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nbegun"
    ));
    let (mut slot, _) = upstream.accept().unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"begun") {
        let mut byte = [0];
        slot.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    let router = Pid::from_raw(child.id() as i32);
    kill(router, Signal::SIGSTOP).unwrap();
    let stopped = waitpid(router, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(router, Signal::SIGSTOP));
    slot.write_all(answer).unwrap();
    socket2::SockRef::from(&slot)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(slot);
    client.send(rest);
    kill(router, Signal::SIGCONT).unwrap();
    (child, client, upstream)
}

#[test]
fn an_answer_that_a_reset_ended_is_not_whole_where_the_rest_of_the_body_met_that_first() {
    let endless = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf";
    for _ in 0..5 {
        let (child, mut client, _upstream) = in_one_turn("the rest", endless);
        assert_eq!(client.end().1, End::Reset);
        finish(child);
    }
}

#[test]
fn the_rest_of_a_body_that_the_upstream_did_not_take_is_no_request() {
    const REST: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let (child, mut client, upstream) = in_one_turn(REST, OK);
    let answer = client.message().unwrap();
    assert_eq!(answer.text(), "ok");
    if answer.field("connection") == Some("close") {
        assert_eq!(client.end().0, b"");
    } else {
        client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        let (mut slot, _) = upstream.accept().unwrap();
        let mut asked = [0; 9];
        slot.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"GET /next");
    }
    drop(client);
    finish(child);
    upstream.set_nonblocking(true).unwrap();
    assert!(upstream.accept().is_err(), "nothing else was asked");
}

/// Waits until somebody is connecting to `port` and has no answer yet (proc_net(5): state 02 is SYN_SENT).
fn is_being_connected_to(port: u16) {
    let late = Instant::now() + PATIENCE;
    let waits = |line: &str| {
        let mut words = line.split_whitespace().skip(2);
        let remote = words.next().unwrap_or_default();
        remote.ends_with(&format!(":{port:04X}")) && words.next() == Some("02")
    };
    while !std::fs::read_to_string("/proc/net/tcp")
        .unwrap()
        .lines()
        .any(waits)
    {
        assert!(Instant::now() < late, "nobody connects");
        std::thread::yield_now();
    }
}

#[test]
fn item_10_what_an_upstream_says_on_a_fresh_connection_before_it_is_asked_is_no_answer() {
    for early in [OK, b"H"] {
        // With one connection in its queue it takes no second one.
        let upstream = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let upstream = upstream.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        upstream.bind(&any.into()).unwrap();
        upstream.listen(0).unwrap();
        let upstream = TcpListener::from(upstream);
        let address = upstream.local_addr().unwrap();
        let first = std::net::TcpStream::connect(address).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.json");
        let blue = table(1, vec![slot("blue", 100, address)]);
        std::fs::write(&path, serde_json::to_vec(&blue).unwrap()).unwrap();
        let notified = Notified::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = Command::new(ROUTER);
        command
            .arg("--table")
            .arg(&path)
            .env("NOTIFY_SOCKET", &notified.path)
            .stderr(Stdio::null());
        let child = activated(&listener, &mut command);
        notified.wait_for(|l| l == "READY=1");
        let mut client = Raw::connect(listener.local_addr().unwrap());
        client.send(GET);
        is_being_connected_to(address.port());
        // While the router cannot look, the connection comes about and the answer is on it.
        let router = Pid::from_raw(child.id() as i32);
        kill(router, Signal::SIGSTOP).unwrap();
        let stopped = waitpid(router, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(router, Signal::SIGSTOP));
        drop((upstream.accept().unwrap(), first));
        let (mut slot, _) = upstream.accept().unwrap();
        slot.write_all(early).unwrap();
        kill(router, Signal::SIGCONT).unwrap();
        let answer = client.message().unwrap();
        assert_eq!(answer.status(), 502, "{answer:?}");
        assert!(answer.text().contains("malformed"), "{answer:?}");
        slot.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut asked = Vec::new();
        // Closed with what was not read, it is reset.
        _ = slot.read_to_end(&mut asked);
        assert_eq!(String::from_utf8_lossy(&asked), "");
        drop(client);
        finish(child);
    }
}
