//! Whatever clients and upstreams do, descriptors, memory and counts return to where they were.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use router_support::{PATIENCE, Raw, Upstream, slot, table};
use slot::wire::control::Stats;

/// A router in a process of its own, so that what it has open is countable.
struct Process {
    child: Child,
    address: SocketAddr,
    control: PathBuf,
    _directory: tempfile::TempDir,
}

impl Process {
    fn start(upstream: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, control) = (
            directory.path().join("table"),
            directory.path().join("control"),
        );
        let routes = table(1, vec![slot("blue", 100, upstream)]);
        std::fs::write(&path, serde_json::to_vec(&routes).unwrap()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_slot-router"))
            .args(["--listen", "127.0.0.1:0", "--threads", "1", "--table"])
            .arg(&path)
            .arg("--control")
            .arg(&control)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some((_, address)) = line.trim().split_once("accepting on ") {
                break address.parse().unwrap();
            }
        };
        // What it says further is for nobody, but must not stop it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Self {
            child,
            address,
            control,
            _directory: directory,
        }
    }

    fn stats(&self) -> Stats {
        let mut control = UnixStream::connect(&self.control).unwrap();
        control
            .write_all(b"GET /stats HTTP/1.1\r\nHost: slot-router\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        control.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn open(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(Path::new(&path)).unwrap().count()
    }

    /// Resident memory, in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How long its threads have been on a processor (`schedstat`: Documentation/scheduler/sched-stats.rst of the kernel).
    fn busy(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let spent = tasks.map(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            stat.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(spent.sum())
    }

    /// That it waits. A loop that does not takes what the machine has left; who waits takes nothing, however busy the machine is.
    fn waits(&self, with: &str) {
        const MUCH: Duration = Duration::from_millis(100);
        let (before, end) = (self.busy(), Instant::now() + 4 * MUCH);
        while Instant::now() < end {
            let spent = self.busy() - before;
            assert!(spent < MUCH, "{with}: {spent:?} on a processor");
            std::thread::sleep(MUCH / 10);
        }
    }

    /// Waits until nothing is under way and no more is open than `most`.
    fn is_quiet(&self, most: usize) {
        let late = Instant::now() + PATIENCE;
        loop {
            let (stats, open) = (self.stats(), self.open());
            let under_way = stats
                .slots
                .iter()
                .map(|slot| slot.in_flight.total())
                .sum::<u64>();
            // The question itself is one.
            let memory = stats.buffer_bytes;
            if (stats.connections, stats.held, under_way, memory) == (0, 0, 0, 0)
                && open <= most + 1
            {
                return;
            }
            assert!(
                Instant::now() < late,
                "{open} open, {most} before; {stats:?}"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What an upstream does is named by the path.
fn misbehave(raw: &mut Raw, _: usize) {
    let Some(request) = raw.head() else { return };
    let path = request
        .head
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let upgrade =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let stream = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let (kind, fault) = path[1..].split_once('/').unwrap_or_default();
    let whole = match kind {
        "ws" => format!("{upgrade}hello"),
        "sse" => format!("{stream}data: 1\n\n"),
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhello".to_owned(),
    };
    match fault {
        "silent" => {}
        "slowly" => {
            for byte in whole.bytes() {
                raw.send([byte]);
            }
        }
        "ends" => {
            raw.send(&whole);
            return;
        }
        "half-closes" => {
            raw.send(&whole);
            raw.shut();
        }
        "resets" => {
            raw.send(&whole);
            let socket = socket2::SockRef::from(&raw.stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            return;
        }
        _ => {
            raw.send(&whole);
        }
    }
    // Until the router has had enough.
    raw.end();
}

/// A client that asks for each kind and leaves in each way.
fn round(address: SocketAddr) {
    for kind in ["plain", "sse", "ws"] {
        for fault in ["silent", "slowly", "ends", "half-closes", "resets", "lasts"] {
            for leaves in ["closes", "resets", "half-closes", "in the head"] {
                let mut client = Raw::connect(address);
                let fields = match kind {
                    "ws" => {
                        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
                    }
                    "sse" => "Accept: text/event-stream\r\n",
                    _ => "",
                };
                let request = format!("GET /{kind}/{fault} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
                if leaves == "in the head" {
                    client.send(&request[..request.len() - 5]);
                    continue;
                }
                for byte in request.bytes() {
                    client.send([byte]);
                }
                if fault != "silent" {
                    _ = client.head();
                }
                // Who waits for an answer may be half-closed; the router then waits with him, as long as its limits say.
                let waits = kind == "plain" || fault == "silent";
                match leaves {
                    "half-closes" if !waits => client.shut(),
                    "closes" if !waits => continue,
                    _ => {}
                }
                client.reset();
            }
        }
    }
}

/// What comes on a connection, up to the end of a head.
fn head(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}

#[test]
fn who_waits_until_the_app_takes_a_connection_owns_no_buffer() {
    // With one that nobody takes, its queue is full, and the kernel drops what would be another (listen(2)).
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let router = Process::start(address);
    let mut client = Raw::connect(router.address);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let late = Instant::now() + PATIENCE;
    loop {
        let stats = router.stats();
        let under_way: u64 = stats.slots.iter().map(|slot| slot.in_flight.total()).sum();
        if (under_way, stats.buffer_bytes) == (1, 0) {
            return;
        }
        assert!(Instant::now() < late, "{stats:?}");
        std::thread::yield_now();
    }
}

#[test]
fn who_is_half_closed_and_waited_for_keeps_no_processor_busy() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    const SWITCH: &str =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let router = Process::start(upstream.local_addr().unwrap());
    let open = router.open();
    // Who asks for what, what is answered, and who says that nothing more comes.
    for (with, request, answer, shuts) in [
        (
            "a tunnel whose client has ended",
            UPGRADE.to_owned(),
            SWITCH,
            "client",
        ),
        (
            "a tunnel whose app has ended",
            UPGRADE.to_owned(),
            SWITCH,
            "app",
        ),
        (
            "a client that has ended and waits",
            GET.to_owned(),
            "",
            "client",
        ),
        (
            "a client that has ended behind its next request",
            GET.repeat(2),
            "",
            "client",
        ),
        (
            "a client that has ended inside the head of its answer",
            GET.to_owned(),
            "HTTP/1.1 200 OK\r\n",
            "client",
        ),
        (
            "an app that has answered and ended inside the upload",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello".to_owned(),
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "app",
        ),
    ] {
        let mut client = Raw::connect(router.address);
        client.send(&request);
        let (mut app, _) = upstream.accept().unwrap();
        app.set_read_timeout(Some(PATIENCE)).unwrap();
        head(&mut app);
        app.write_all(answer.as_bytes()).unwrap();
        if answer.ends_with("\r\n\r\n") {
            client.head().unwrap();
        }
        match shuts {
            "client" => client.shut(),
            // An app that answered before it had all is let go by then, perhaps.
            _ => _ = app.shutdown(Shutdown::Write),
        }
        router.waits(with);
        client.reset();
        drop(app);
        router.is_quiet(open);
    }
}

#[test]
fn nothing_is_left_of_clients_and_upstreams_that_stall_half_close_reset_or_dribble() {
    let upstream = Upstream::start(misbehave);
    let router = Process::start(upstream.address);
    for _ in 0..2 {
        round(router.address);
    }
    router.is_quiet(usize::MAX - 1);
    let (open, memory) = (router.open(), router.memory());
    for _ in 0..20 {
        round(router.address);
    }
    router.is_quiet(open);
    let grown = router.memory().saturating_sub(memory);
    assert!(grown < 2048, "{grown} KiB more than after the first rounds");
}
