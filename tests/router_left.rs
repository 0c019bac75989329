//! Streams that a killed router has left with the service manager: the next process goes on with them, or gives them up, and says which.
//! The service manager is played by the test.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod router_support;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::sys::stat::fstat;
use nix::unistd::pipe2;
use router_support::{End, OK, PATIENCE, Raw, Upstream, slot, table};
use slot::router::counts::{Class, RunName};
use slot::router::label::{Inodes, Label};
use slot::router::tries;
use slot::wire::control::Stats;

/// A service manager: what it is told, and with which descriptors.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

#[allow(
    unsafe_code,
    reason = "descriptors come as numbers: in messages, and between fork and exec"
)]
impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, directory }
    }

    /// The next message of which one line is this.
    fn told(&self, line: &str) -> Vec<OwnedFd> {
        let late = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < late, "{line} was not said");
            let message = self.hear();
            let (text, descriptors) =
                message.unwrap_or_else(|e| panic!("{line} was not said: {e}"));
            if text.lines().any(|own| own == line) {
                return descriptors;
            }
        }
    }

    /// The next message.
    fn hear(&self) -> nix::Result<(String, Vec<OwnedFd>)> {
        let mut buffer = [0; 4096];
        let mut control = nix::cmsg_space!([RawFd; 8]);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let (raw, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_CMSG_CLOEXEC);
        let message = recvmsg::<UnixAddr>(raw, &mut parts, Some(&mut control), flags)?;
        let rights = message.cmsgs()?.flat_map(|control| match control {
            ControlMessageOwned::ScmRights(descriptors) => descriptors,
            _ => Vec::new(),
        });
        // SAFETY: recvmsg(2) has made each of them for us.
        let descriptors = rights.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
        let (descriptors, count) = (descriptors.collect(), message.bytes);
        Ok((
            String::from_utf8_lossy(&buffer[..count]).into_owned(),
            descriptors,
        ))
    }

    /// Starts a router with what is kept, as systemd does.
    fn start(&self, kept: Vec<(String, OwnedFd)>, set: impl FnOnce(&mut Command)) -> Router {
        let (names, descriptors): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
        // Copies that are none of the numbers that they are to have.
        let copies = descriptors.iter().map(|fd| {
            let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(200)).unwrap();
            // SAFETY: fcntl(2) has made it for us.
            unsafe { OwnedFd::from_raw_fd(copy) }
        });
        let copies: Vec<OwnedFd> = copies.collect();
        let numbers: Vec<RawFd> = copies.iter().map(AsRawFd::as_raw_fd).collect();
        let control = self.directory.path().join("control");
        let mut command = Command::new(env!("CARGO_BIN_EXE_slot-router"));
        command
            .args(["--listen", "127.0.0.1:0", "--threads", "1", "--access-log"])
            .arg("--control")
            .arg(&control)
            .env("NOTIFY_SOCKET", self.directory.path().join("notify"))
            .env("LISTEN_FDS", numbers.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        set(&mut command);
        // SAFETY: only dup2(2) is called, which is async-signal-safe; it clears close-on-exec in the copy.
        unsafe {
            command.pre_exec(move || {
                for (at, number) in (3..).zip(&numbers) {
                    nix::libc::dup2(*number, at);
                }
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let (out, said) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Router {
            child,
            access: BufReader::new(out),
            said: BufReader::new(said),
            control,
        }
    }
}

struct Router {
    child: Child,
    access: BufReader<std::process::ChildStdout>,
    said: BufReader<std::process::ChildStderr>,
    control: std::path::PathBuf,
}

impl Router {
    /// The next line of its log that has these words.
    fn says(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            let count = self.said.read_line(&mut line).unwrap();
            assert!(count > 0, "it ended without a word of {words}");
            if line.contains(words) {
                return line;
            }
        }
    }

    fn address(&mut self) -> SocketAddr {
        let line = self.says("accepting on ");
        let (_, address) = line.trim().split_once("accepting on ").unwrap();
        address.parse().unwrap()
    }

    fn access_line(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.access.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn stats(&self) -> Stats {
        self.ask("GET /stats")
    }

    /// Asks again until the statistics are as wanted.
    fn eventually(&self, what: &str, wanted: impl Fn(&Stats) -> bool) {
        let late = Instant::now() + PATIENCE;
        while !wanted(&self.stats()) {
            assert!(Instant::now() < late, "never {what}: {:?}", self.stats());
            std::thread::yield_now();
        }
    }

    /// What its control socket answers.
    fn ask(&self, what: &str) -> Stats {
        let mut control = UnixStream::connect(&self.control).unwrap();
        let request = format!("{what} HTTP/1.1\r\nHost: slot-router\r\nConnection: close\r\n\r\n");
        control.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        control.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A stream that was under way when the router was killed: its far ends, and what the service manager has of it.
struct Left {
    client: Raw,
    upstream: TcpStream,
    name: String,
    inode: u64,
    kept: Vec<OwnedFd>,
}

impl Left {
    fn new(id: &str) -> Self {
        let pair = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let far = Raw::connect(listener.local_addr().unwrap());
            let (near, _) = listener.accept().unwrap();
            // So that a process that is killed does not end it as if it were whole.
            let socket = socket2::SockRef::from(&near);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            (far, OwnedFd::from(near))
        };
        let ((client, to_client), (upstream, to_upstream)) = (pair(), pair());
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
        let inodes = Inodes {
            client: inode(&to_client),
            upstream: inode(&to_upstream),
            down: inode(&read),
            up: 0,
        };
        let label = Label {
            id: id.to_owned(),
            class: Class::Stream,
            run: RunName {
                app: "web".to_owned(),
                slot: "blue".to_owned(),
                boot_id: None,
            },
            since_ms: 1_700_000_000_000,
            route: "example.org/events".to_owned(),
            method: "POST".to_owned(),
            status: 201,
            client: "192.0.2.7".to_owned(),
        };
        Self {
            client,
            upstream: upstream.stream,
            name: label.name(inodes).unwrap(),
            inode: inodes.client,
            kept: vec![to_client, to_upstream, read, write],
        }
    }

    /// What the service manager passes on of it.
    fn pass(&mut self) -> Vec<(String, OwnedFd)> {
        let kept = std::mem::take(&mut self.kept);
        kept.into_iter().map(|fd| (self.name.clone(), fd)).collect()
    }

    /// The upstream says a last word, and the client gets it whole.
    fn ends_well(&mut self) {
        self.upstream.write_all(b"data: last\n\n").unwrap();
        self.upstream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(self.client.end(), (b"data: last\n\n".to_vec(), End::Fin));
    }
}

/// What is written of how often each was tried.
fn written(file: &OwnedFd) -> String {
    let file = File::from(file.try_clone().unwrap());
    let mut text = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut text, 0).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_stream_that_was_left_goes_on_and_has_its_line_in_the_access_log_at_its_end() {
    let manager = Manager::new();
    let mut left = Left::new("abc");
    let mut router = manager.start(left.pass(), |_| {});
    left.ends_well();
    let line = router.access_line();
    for (field, expected) in [
        ("client", "192.0.2.7".into()),
        ("method", "POST".into()),
        ("host", "example.org".into()),
        ("target", "/events".into()),
        ("status", 201.into()),
        ("bytes", 12.into()),
        ("request_id", "abc".into()),
        ("app", "web".into()),
        ("slot", "blue".into()),
        ("picked_up", serde_json::Value::Bool(true)),
    ] {
        assert_eq!(line[field], expected, "{field}: {line}");
    }
    assert!(line["ms"].as_u64().unwrap() > 86_400_000, "{line}");
}

#[test]
fn a_stream_that_is_kept_under_a_number_is_told_by_the_book_and_gives_its_number_back() {
    let manager = Manager::new();
    let mut left = Left::new("abc");
    let book: OwnedFd = memfd_create("book", MFdFlags::MFD_CLOEXEC).unwrap();
    let mut line = left.name.clone().into_bytes();
    line.resize(256, 0);
    let writing = File::from(book.try_clone().unwrap());
    writing.write_all_at(&line, 0).unwrap();
    left.name = "~0".to_owned();
    let mut kept = left.pass();
    // Of this one the book knows nothing.
    kept.push(("~1".to_owned(), File::open("/dev/null").unwrap().into()));
    kept.push(("kept.book".to_owned(), book));
    let mut router = manager.start(kept, |_| {});
    router.says("has not kept all of a stream");
    left.ends_well();
    assert_eq!(router.access_line()["request_id"], "abc");
    assert!(manager.told("FDNAME=~0").is_empty());
}

#[test]
fn before_anything_that_was_left_is_touched_the_service_manager_has_it_that_it_is_tried() {
    let manager = Manager::new();
    let mut left = Left::new("abc");
    left.upstream.write_all(b"more").unwrap();
    let mut router = manager.start(left.pass(), |_| {});
    let tries = manager.told(&format!("FDNAME={}", tries::NAME));
    assert_eq!(written(&tries[0]), format!("0 {:020}\n", left.inode));
    let barrier = manager.told("BARRIER=1");
    left.client.stream.set_nonblocking(true).unwrap();
    assert!(left.client.stream.read(&mut [0; 8]).is_err(), "not yet");
    left.client.stream.set_nonblocking(false).unwrap();
    drop(barrier);
    assert_eq!(left.client.exactly(4).unwrap(), b"more");
    // Then nothing is left to be tried.
    manager.told(&format!("FDNAME={}", tries::NAME));
    assert_eq!(written(&tries[0]), format!("0 {:020}\n", left.inode));
    router.address();
    left.ends_well();
}

#[test]
fn what_two_processes_have_ended_on_is_cut_and_all_else_goes_on() {
    let manager = Manager::new();
    let (mut bad, mut good) = (Left::new("bad"), Left::new("good"));
    let file: OwnedFd = memfd_create("tries", MFdFlags::MFD_CLOEXEC).unwrap();
    let text = format!("2 {:020}\n1 {:020}\n", bad.inode, good.inode);
    let writing = File::from(file.try_clone().unwrap());
    writing.write_all_at(text.as_bytes(), 0).unwrap();
    let mut kept = bad.pass();
    kept.push((
        tries::NAME.to_owned(),
        file.as_fd().try_clone_to_owned().unwrap(),
    ));
    kept.extend(good.pass());
    let mut router = manager.start(kept, |_| {});
    manager.told(&format!("FDNAME={}", bad.name));
    let line = router.says("a stream was being picked up when the router crashed, 2 times");
    assert!(line.contains("request_id=\"bad\""), "{line}");
    assert_eq!(bad.client.end(), (Vec::new(), End::Reset));
    good.ends_well();
    assert_eq!(written(&file), format!("0 {:020}\n", good.inode));
}

#[test]
fn a_stream_of_which_not_everything_was_kept_is_cut_and_kept_no_more() {
    let manager = Manager::new();
    let mut left = Left::new("abc");
    let mut kept = left.pass();
    kept.pop();
    let mut router = manager.start(kept, |_| {});
    manager.told(&format!("FDNAME={}", left.name));
    assert_eq!(left.client.end(), (Vec::new(), End::Reset));
    router.says("has not kept all of a stream");
}

/// An app each of whose answers is a stream, a service manager, and the file with the table for them.
fn with_streams() -> (Upstream, Manager, PathBuf) {
    let upstream = Upstream::start(|raw, _| {
        raw.head();
        raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n");
        raw.end();
    });
    let manager = Manager::new();
    let path = manager.directory.path().join("table");
    let routes = table(1, vec![slot("blue", 100, upstream.address)]);
    std::fs::write(&path, serde_json::to_vec(&routes).unwrap()).unwrap();
    (upstream, manager, path)
}

#[test]
fn a_stream_that_finds_no_room_with_the_service_manager_is_served_and_said_once() {
    let (_upstream, manager, path) = with_streams();
    // Room for the notes, and for one connection.
    let mut router = manager.start(Vec::new(), |command| {
        command.env("FDSTORE", "22").arg("--table").arg(&path);
    });
    let address = router.address();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut client = Raw::connect(address);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
        if streams.is_empty() {
            drop(manager.told("FDPOLL=0"));
            drop(manager.told("BARRIER=1"));
        }
        assert!(client.until(b"data: 1\n\n").is_some());
        streams.push(client);
    }
    assert_eq!(router.stats().unkept, 2);
    let line = router.says("FileDescriptorStoreMax=");
    assert!(line.contains("others=0"), "{line}");
    for client in streams {
        client.reset();
    }
    while router.stats().connections > 0 {
        std::thread::yield_now();
    }
    assert_eq!(router.stats().unkept, 0);
    // All that it has said since.
    router.child.kill().unwrap();
    let mut rest = String::new();
    router.said.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("FileDescriptorStoreMax="), "{rest}");
}

#[test]
fn a_stream_that_was_left_counts_at_the_address_of_its_client() {
    let upstream = Upstream::answering(OK);
    let manager = Manager::new();
    let path = |name: &str| manager.directory.path().join(name);
    let routes = table(1, vec![slot("blue", 100, upstream.address)]);
    std::fs::write(path("table"), serde_json::to_vec(&routes).unwrap()).unwrap();
    let machine = "[limits]\nconnections_per_address = 1\n\
        [router]\ntrusted_peers = [\"127.0.0.0/8\"]\nproxy_protocol = [\"http\"]\n";
    std::fs::write(path("machine.toml"), machine).unwrap();
    let mut left = [Left::new("one"), Left::new("two")];
    let kept = left.iter_mut().flat_map(Left::pass).collect();
    let mut router = manager.start(kept, |command| {
        command.arg("--table").arg(path("table"));
        command.arg("--config").arg(path("machine.toml"));
    });
    let address = router.address();
    let ask = |client: &str| {
        let mut raw = Raw::connect(address);
        raw.send(format!(
            "PROXY TCP4 {client} 198.51.100.1 5 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ));
        raw.message().map(|answer| answer.status())
    };
    assert_eq!(ask("192.0.2.8"), Some(200));
    // Twice as many as may be, though nobody has refused them: a further one is not even told so.
    assert_eq!(ask("192.0.2.7"), None);
    let [one, two] = &mut left;
    one.ends_well();
    router.eventually("one that is left", |stats| stats.connections == 1);
    assert_eq!(ask("192.0.2.7"), Some(429));
    two.ends_well();
    router.eventually("over", |stats| stats.connections == 0);
    assert_eq!(ask("192.0.2.7"), Some(200));
}

#[test]
fn streams_that_the_service_manager_has_no_time_for_flow_and_are_kept_when_it_has() {
    let (_upstream, manager, path) = with_streams();
    let mut router = manager.start(Vec::new(), |command| {
        command.arg("--table").arg(&path);
    });
    let address = router.address();
    // More messages than any socket holds until somebody reads them.
    let most = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").unwrap();
    let count = most.trim().parse::<usize>().unwrap() / 2 + 8;
    let mut clients: Vec<_> = (0..count).map(|_| Raw::connect(address)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    }
    for client in &mut clients {
        assert!(client.until(b"data: 1\n\n").is_some());
    }
    // Now it looks at its messages again.
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = std::thread::spawn({
        let is_over = Arc::clone(&is_over);
        let moment = Some(Duration::from_millis(10));
        manager.socket.set_read_timeout(moment).unwrap();
        move || {
            let mut kept = HashSet::new();
            while !is_over.load(Ordering::SeqCst) {
                let heard = manager.hear();
                kept.extend(
                    heard
                        .ok()
                        .filter(|(_, all)| all.len() == 4)
                        .map(|(text, _)| text),
                );
            }
            kept.len()
        }
    });
    router.eventually("kept", |stats| stats.unkept == 0);
    is_over.store(true, Ordering::SeqCst);
    assert_eq!(reading.join().unwrap(), count);
    clients.into_iter().for_each(Raw::reset);
}

#[test]
fn a_stream_whose_first_bytes_are_more_than_its_pipe_holds_is_kept_once_they_have_gone() {
    let upstream = Upstream::start(|raw, _| {
        raw.head();
        let field = "x".repeat(900_000);
        raw.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nX: {field}\r\n\r\ndata: 1\n\n"
        ));
        raw.end();
    });
    let manager = Manager::new();
    let path = |name: &str| manager.directory.path().join(name);
    let routes = table(1, vec![slot("blue", 100, upstream.address)]);
    std::fs::write(path("table"), serde_json::to_vec(&routes).unwrap()).unwrap();
    std::fs::write(path("machine.toml"), "[limits]\nhead_bytes = \"1M\"\n").unwrap();
    let mut router = manager.start(Vec::new(), |command| {
        command.arg("--table").arg(path("table"));
        command.arg("--config").arg(path("machine.toml"));
    });
    // It has so little room that most has to wait in the router.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    // The router's socket has room for so many segments, which are large on loopback (tcp(7)).
    socket.set_tcp_mss(536).unwrap();
    socket.connect(&router.address().into()).unwrap();
    let mut client = Raw::new(socket.into(), None);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    router.eventually("not kept", |stats| stats.unkept == 1);
    assert!(client.until(b"data: 1\n\n").is_some());
    assert_eq!(manager.told("FDPOLL=0").len(), 1, "the book");
    assert_eq!(
        manager.told("FDPOLL=0").len(),
        4,
        "both sockets and the pipe"
    );
    drop(manager.told("BARRIER=1"));
    router.eventually("kept", |stats| stats.unkept == 0);
    client.reset();
}

#[test]
fn a_client_that_takes_nothing_of_a_stream_that_was_left_is_reset_in_time() {
    let manager = Manager::new();
    let mut left = Left::new("abc");
    // The client's socket is full, and the pipe holds what it does not take.
    let near = TcpStream::from(left.kept[0].try_clone().unwrap());
    near.set_nonblocking(true).unwrap();
    let chunk = [b'x'; 64 * 1024];
    while (&near).write(&chunk).is_ok() {}
    drop(near);
    let mut pipe = File::from(left.kept[3].try_clone().unwrap());
    pipe.write_all(b"more").unwrap();
    let file = manager.directory.path().join("machine.toml");
    std::fs::write(&file, "[limits]\nwrite_stall = \"100ms\"\n").unwrap();
    let mut router = manager.start(left.pass(), |command| {
        command.arg("--config").arg(&file);
    });
    // The upstream sees it at once, whatever the client still has to read.
    left.upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ended = left.upstream.read(&mut [0; 1]);
    let kind = ended.as_ref().map_err(std::io::Error::kind);
    assert_eq!(kind.err(), Some(std::io::ErrorKind::ConnectionReset));
    let line = router.says("it takes nothing of its stream");
    assert!(
        line.contains("192.0.2.7: ") && line.contains("(limit write_stall)"),
        "{line}"
    );
    assert_eq!(left.client.end().1, End::Reset);
}

#[test]
fn another_limit_of_a_drain_is_noted_in_place_of_the_one_before() {
    let manager = Manager::new();
    let mut router = manager.start(Vec::new(), |_| {});
    let mut client = Raw::connect(router.address());
    // One whose request has begun, so that the drain does not end meanwhile.
    client.send("GET /");
    while router.stats().connections == 0 {
        std::thread::yield_now();
    }
    router.ask("POST /stop-accepting");
    manager.told("FDNAME=kept.draining");
    let stats = router.ask("POST /stop-accepting?limit_ms=600000");
    let until = stats.drain_until_ms.unwrap();
    manager.told(&format!("FDNAME=kept.draining.{until}"));
    manager.told("FDSTOREREMOVE=1");
    client.reset();
}
