//! A router between raw sockets: an upstream that follows a script and remembers every byte it got,
//! and a client that sees how its connection ended.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use slot::router::{Config, Control, Limits, Server, Source};
use slot::wire::control::Stats;
use slot::wire::table::{App, Route, Slot, Table};

/// Nothing here takes longer unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The shortest whole answer.
pub const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A good request, so that what comes behind it is on a connection in use.
pub const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";

/// Everything that came on a connection.
type Record = Arc<Mutex<Vec<u8>>>;

/// One end of a connection.
pub struct Raw {
    pub stream: TcpStream,
    /// What was read and not yet asked for.
    pub rest: Vec<u8>,
    /// Everything that was ever read.
    seen: Option<Record>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum End {
    Fin,
    Reset,
}

/// A message as a naive reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> u16 {
        self.head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| panic!("no status in {:?}", self.head))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|l| l.split_once(':'));
        lines
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
            .next()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        Self::new(stream, None)
    }

    pub fn new(stream: TcpStream, seen: Option<Record>) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            rest: Vec::new(),
            seen,
        }
    }

    /// Writes; false if the other side does not want it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads once; how it ended if it did.
    pub fn more(&mut self) -> Result<(), End> {
        let mut buffer = vec![0; 256 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(End::Fin),
            Ok(n) => {
                self.rest.extend_from_slice(&buffer[..n]);
                if let Some(seen) = &self.seen {
                    seen.lock().unwrap().extend_from_slice(&buffer[..n]);
                }
                Ok(())
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!(
                "nothing came, having {:?}",
                String::from_utf8_lossy(&self.rest)
            ),
            Err(_) => Err(End::Reset),
        }
    }

    /// Takes what comes up to and with `mark`; `None` if the connection ends before.
    pub fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.rest.windows(mark.len()).position(|w| w == mark) {
                return Some(self.rest.drain(..at + mark.len()).collect());
            }
            self.more().ok()?;
        }
    }

    pub fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.rest.len() < count {
            self.more().ok()?;
        }
        Some(self.rest.drain(..count).collect())
    }

    /// A head alone.
    pub fn head(&mut self) -> Option<Message> {
        let head = String::from_utf8_lossy(&self.until(b"\r\n\r\n")?).into_owned();
        Some(Message {
            head,
            body: Vec::new(),
        })
    }

    /// A message whose end is told by its length or its chunks; without either it has no body.
    pub fn message(&mut self) -> Option<Message> {
        let mut message = self.head()?;
        if let Some(length) = message.field("content-length") {
            let length = length.parse().unwrap();
            message.body = self.exactly(length)?;
        } else if message.field("transfer-encoding").is_some() {
            loop {
                let line = String::from_utf8(self.until(b"\r\n")?).unwrap();
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                if size == 0 {
                    while self.until(b"\r\n")? != b"\r\n" {}
                    break;
                }
                message.body.extend(self.exactly(size)?);
                assert_eq!(self.exactly(2)?, b"\r\n");
            }
        }
        Some(message)
    }

    /// Everything up to the end, and which end it was.
    pub fn end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.more() {
                return (std::mem::take(&mut self.rest), end);
            }
        }
    }

    pub fn shut(&mut self) {
        _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

/// A server that does what its script says on each connection, which it is told the number of.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Record>>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    pub fn start(script: impl Fn(&mut Raw, usize) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    pub fn on(
        listener: TcpListener,
        script: impl Fn(&mut Raw, usize) + Send + Sync + 'static,
    ) -> Self {
        let (seen, closing) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicBool::new(false)),
        );
        let (script, address) = (Arc::new(script), listener.local_addr().unwrap());
        let thread = std::thread::spawn({
            let (seen, closing) = (Arc::clone(&seen), Arc::clone(&closing));
            move || {
                let mut connections = Vec::new();
                while let Ok((stream, _)) = listener.accept() {
                    if closing.load(Ordering::SeqCst) {
                        break;
                    }
                    let record = Arc::new(Mutex::new(Vec::new()));
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(Arc::clone(&record));
                        seen.len() - 1
                    };
                    let script = Arc::clone(&script);
                    connections.push(std::thread::spawn(move || {
                        let mut raw = Raw::new(stream, Some(record));
                        script(&mut raw, number);
                    }));
                }
                drop(listener);
                connections.into_iter().for_each(|c| c.join().unwrap());
            }
        });
        Self {
            address,
            seen,
            closing,
            thread: Some(thread),
        }
    }

    /// Answers every request alike, for as long as there are any.
    pub fn answering(answer: &'static [u8]) -> Self {
        Self::start(move |raw, _| while raw.message().is_some() && raw.send(answer) {})
    }

    /// What came on each connection so far.
    pub fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|s| String::from_utf8_lossy(&s.lock().unwrap()).into_owned())
            .collect()
    }

    /// Ends it when all its connections have ended, and tells what came on each that said anything.
    pub fn finish(mut self) -> Vec<String> {
        self.stop();
        self.seen().into_iter().filter(|s| !s.is_empty()).collect()
    }

    /// Stops listening and waits for its connections.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.closing.store(true, Ordering::SeqCst);
            _ = TcpStream::connect(self.address);
            thread.join().unwrap();
        }
    }
}

/// A table with one app on all requests.
pub fn table(revision: u64, slots: Vec<Slot>) -> Table {
    Table {
        revision,
        apps: vec![app("web", "*", "/", slots)],
    }
}

pub fn app(name: &str, host: &str, path: &str, slots: Vec<Slot>) -> App {
    let route = Route {
        listener: None,
        host: host.into(),
        path: path.into(),
    };
    App {
        name: name.into(),
        generation: 1,
        routes: vec![route],
        slots,
        hold_ms: None,
        limits: slot::wire::table::Limits::default(),
        sticky: None,
        preview: None,
    }
}

pub fn slot(name: &str, weight: u8, upstream: impl ToString) -> Slot {
    Slot {
        name: name.into(),
        weight,
        upstream: upstream.to_string(),
        boot_id: None,
        ready: true,
    }
}

/// An upstream that answers with `text`.
pub fn named(text: &'static str) -> Upstream {
    Upstream::start(move |raw, _| {
        while raw.message().is_some()
            && raw.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            ))
        {}
    })
}

/// A router with one thread and small limits, on a table.
pub struct Rig {
    pub address: SocketAddr,
    pub server: Option<Server>,
}

/// Limits that a test can wait for.
pub fn quick() -> Limits {
    Limits {
        idle: Duration::from_secs(15),
        linger: Duration::from_millis(500),
        linger_most: Duration::from_secs(5),
        ..Limits::default()
    }
}

impl Rig {
    pub fn with(source: Source, limits: Limits) -> Self {
        Self::set(source, limits, |_| {})
    }

    /// One whose other settings are changed before it starts.
    pub fn set(source: Source, limits: Limits, change: impl FnOnce(&mut Config)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config {
            table: source,
            threads: 1,
            limits,
            ..Config::new(vec![("http".into(), listener)])
        };
        change(&mut config);
        let server = Server::start(config).unwrap();
        Self {
            address: server.addresses()[0],
            server: Some(server),
        }
    }

    pub fn to(upstream: &Upstream) -> Self {
        Self::with(
            Source::Given(table(1, vec![slot("blue", 100, upstream.address)])),
            quick(),
        )
    }

    pub fn limited(upstream: &Upstream, limits: Limits) -> Self {
        Self::with(
            Source::Given(table(1, vec![slot("blue", 100, upstream.address)])),
            limits,
        )
    }

    /// One that believes whoever connects from this machine, and has a PROXY header begin each connection if it is `proxied`.
    pub fn trusting(upstream: &Upstream, limits: Limits, proxied: bool) -> Self {
        let source = Source::Given(table(1, vec![slot("blue", 100, upstream.address)]));
        Self::set(source, limits, |config| {
            config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
            config.proxy_protocol = proxied.then(|| "http".to_owned()).into_iter().collect();
        })
    }

    pub fn client(&self) -> Raw {
        Raw::connect(self.address)
    }

    pub fn control(&self) -> Control {
        self.server.as_ref().unwrap().control()
    }

    /// Puts a table and waits until it is in force.
    pub fn put(&self, table: Table) {
        block_on(self.control().put(table)).unwrap();
    }

    /// Asks again until the statistics are as wanted.
    pub fn eventually(&self, what: &str, wanted: impl Fn(&Stats) -> bool) {
        eventually(&self.control(), what, wanted);
    }

    /// Sends `bytes` in every way, each on a connection of its own: at once, in two parts cut at every place, byte by byte, and behind
    /// [`GOOD`], which the upstream answers with [`OK`]. `check` sees how each goes on from there.
    pub fn in_every_way(&self, bytes: impl AsRef<[u8]>, mut check: impl FnMut(Raw, &str)) {
        let bytes = bytes.as_ref();
        for cut in 0..bytes.len() {
            let mut client = self.client();
            // The router may have refused it before it got all of it.
            _ = client.send(&bytes[..cut]) && client.send(&bytes[cut..]);
            check(client, &format!("cut at {cut}"));
        }
        let mut client = self.client();
        _ = bytes.iter().all(|byte| client.send([*byte]));
        check(client, "byte by byte");
        let mut client = self.client();
        client.send([GOOD.as_bytes(), bytes].concat());
        assert_eq!(client.message().unwrap().text(), "ok");
        check(client, "behind a good one");
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        let mut client = self.client();
        client.send(request);
        client.message().unwrap()
    }
}

/// Whatever a test did to its router, nothing is left: no connection, no request, no descriptor and no memory in use. It is asked twice, of the
/// router while it runs and of what its threads have left behind. The router itself counts what it owns (`router::owned`), since the
/// other tests of the process open and close descriptors at the same time, and allocate.
impl Drop for Rig {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else {
            return;
        };
        let control = server.control();
        if std::thread::panicking() {
            server.drain();
            return;
        }
        let nothing = |left: &Stats| {
            let under_way: u64 = left.slots.iter().map(|s| s.in_flight.total()).sum();
            let owned = (left.descriptors, left.buffer_bytes);
            (left.connections, left.held, under_way, owned) == (0, 0, 0, (0, 0))
        };
        let stats = block_on(control.stats());
        if stats.accepting {
            // What it keeps for the next request of a slot goes with the slot.
            let empty = Table {
                revision: stats.revision.unwrap_or_default() + 1,
                apps: Vec::new(),
            };
            block_on(control.put(empty)).unwrap();
            eventually(&control, "nothing left", nothing);
        }
        server.drain();
        server.wait();
        let left = block_on(control.stats());
        assert!(nothing(&left), "{left:?}");
    }
}

/// Asks again until the statistics are as wanted.
fn eventually(control: &Control, what: &str, wanted: impl Fn(&Stats) -> bool) {
    block_on(async {
        let waiting = async {
            while !wanted(&control.stats().await) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("never {what}: {:?}", control.stats().await);
        }
    });
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
