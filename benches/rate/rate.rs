//! Requests at a fixed rate over keep-alive connections, and how long their answers took: the load of `benches/router latency`.
//!
//! `rate PORT PATH PER_SECOND SECONDS CONNECTIONS HOSTS` prints one object of JSON. With 0 hosts the requests are for `bench`, else
//! for `app0.bench`, `app1.bench` and so on, in no order.
//!
//! The loop is open: moments are drawn beforehand (a Poisson process, the same in every run), and a request's latency counts from
//! the moment at which it was meant to go, also when no connection was free then or this program was late.
//!
//! **Invariant:** no answer delays the moment of another request.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// How long after the last request answers may come; what has not come then has failed.
const GRACE: Duration = Duration::from_secs(5);

/// The moments at which requests are meant to go, since the start.
struct Moments {
    random: u64,
    mean: f64,
    at: f64,
    end: f64,
}

impl Moments {
    /// Evenly distributed over 0 to 2^53 (xorshift64*, Vigna 2014).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }
}

impl Iterator for Moments {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let part = (self.draw() + 1) as f64 / (1u64 << 53) as f64;
        self.at -= self.mean * part.ln();
        (self.at < self.end).then(|| Duration::from_secs_f64(self.at))
    }
}

/// A connection and the request that is under way on it.
struct Connection {
    stream: TcpStream,
    /// When the request was meant to go; `None` while the connection is free.
    meant: Option<Duration>,
    head: Vec<u8>,
    /// Bytes of the body that have not come, once the head has.
    rest: Option<usize>,
}

impl Connection {
    fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            meant: None,
            head: Vec::new(),
            rest: None,
        })
    }

    /// True once the answer is whole; `None` if it is none that was hoped for.
    fn take(&mut self, bytes: &[u8]) -> Option<bool> {
        let rest = match self.rest {
            Some(rest) => rest.checked_sub(bytes.len())?,
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = self.head.windows(4).position(|w| w == b"\r\n\r\n") else {
                    return Some(false);
                };
                length(&self.head[..end])?.checked_sub(self.head.len() - end - 4)?
            }
        };
        self.rest = Some(rest);
        Some(rest == 0)
    }
}

/// The length of the body, of a 200 that says it.
fn length(head: &[u8]) -> Option<usize> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    lines.next().filter(|l| l.starts_with("HTTP/1.1 200"))?;
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next()?.1.trim().parse().ok()
}

/// What came of a run.
#[derive(Default)]
struct Outcome {
    answered: usize,
    failed: usize,
    /// Nanoseconds from the moment that was meant to the last byte of the answer.
    latencies: Vec<u64>,
    /// Nanoseconds from the moment that was meant to the request's going.
    delays: Vec<u64>,
}

struct Run {
    port: u16,
    /// The first tenth is not timed: connections to the upstream are opened in it.
    timed: Duration,
    begun: Instant,
    epoll: std::os::fd::OwnedFd,
    connections: Vec<Connection>,
    free: VecDeque<usize>,
    outcome: Outcome,
}

impl Run {
    fn watch(&self, index: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(index as u64);
        let stream = &self.connections[index].stream;
        Ok(epoll::add(
            &self.epoll,
            stream,
            data,
            epoll::EventFlags::IN,
        )?)
    }

    fn send(&mut self, index: usize, meant: Duration, request: &[u8]) -> io::Result<()> {
        let connection = &mut self.connections[index];
        connection.meant = Some(meant);
        if meant >= self.timed {
            let delay = self.begun.elapsed() - meant;
            self.outcome.delays.push(delay.as_nanos() as u64);
        }
        // A request is far smaller than an empty socket's buffer, so it goes whole or not at all.
        match connection.stream.write(request) {
            Ok(written) if written == request.len() => Ok(()),
            _ => self.fail(index),
        }
    }

    fn receive(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let whole = match connection.stream.read(buffer) {
            Ok(0) => None,
            Ok(count) => connection.take(&buffer[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Some(false),
            Err(_) => None,
        };
        match (whole, connection.meant) {
            (Some(false), _) => Ok(()),
            (Some(true), Some(meant)) => {
                self.outcome.answered += 1;
                if meant >= self.timed {
                    let latency = self.begun.elapsed() - meant;
                    self.outcome.latencies.push(latency.as_nanos() as u64);
                }
                connection.meant = None;
                connection.rest = None;
                connection.head.clear();
                self.free.push_back(index);
                Ok(())
            }
            _ => self.fail(index),
        }
    }

    /// The connection is of no use any more; if a request was under way, that has failed.
    fn fail(&mut self, index: usize) -> io::Result<()> {
        let fresh = Connection::open(self.port)?;
        // The old stream is closed, and with it goes its place in the epoll set.
        let old = std::mem::replace(&mut self.connections[index], fresh);
        if old.meant.is_some() {
            self.outcome.failed += 1;
            self.free.push_back(index);
        }
        self.watch(index)
    }

    fn go(&mut self, mut moments: Moments, requests: &[Vec<u8>]) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let mut events = Vec::with_capacity(self.connections.len());
        let last = Duration::from_secs_f64(moments.end) + GRACE;
        let mut next = moments.next();
        loop {
            while let Some(meant) = next
                && self.begun.elapsed() >= meant
                && let Some(index) = self.free.pop_front()
            {
                let request = &requests[moments.draw() as usize % requests.len()];
                self.send(index, meant, request)?;
                next = moments.next();
            }
            let under_way = self.connections.len() - self.free.len();
            let now = self.begun.elapsed();
            if (next.is_none() && under_way == 0) || now >= last {
                break;
            }
            // While no connection is free, only an answer brings us further.
            let until = next.filter(|_| !self.free.is_empty()).unwrap_or(last);
            let wait = Timespec::try_from(until.saturating_sub(now)).map_err(io::Error::other)?;
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait)) {
                Err(rustix::io::Errno::INTR) => {}
                result => _ = result?,
            }
            for event in &events {
                let data = event.data;
                self.receive(data.u64() as usize, &mut buffer)?;
            }
        }
        self.outcome.failed += self.connections.len() - self.free.len();
        // Those whose moment came while all connections were taken to the end.
        self.outcome.failed += next.into_iter().chain(moments).count();
        Ok(())
    }
}

/// Microseconds that this part of the values does not exceed.
fn quantile(sorted: &[u64], part: f64) -> f64 {
    let index = (sorted.len() as f64 * part) as usize;
    let value = sorted.get(index.min(sorted.len().saturating_sub(1)));
    value.map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1000.0)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [port, path, per_second, seconds, connections, hosts] = arguments.as_slice() else {
        return Err("usage: rate PORT PATH PER_SECOND SECONDS CONNECTIONS HOSTS".into());
    };
    let port = port.parse()?;
    let end: f64 = seconds.parse()?;
    let hosts: Vec<_> = match hosts.parse()? {
        0 => vec!["bench".to_owned()],
        count => (0..count).map(|n| format!("app{n}.bench")).collect(),
    };
    let requests = hosts.iter().map(|host| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        request.into_bytes()
    });
    let requests: Vec<_> = requests.collect();
    // By default a process sleeps up to 50 microseconds longer than it asked for (PR_SET_TIMERSLACK(2const)). If this cannot be
    // changed, the delays that are printed say so.
    _ = std::fs::write("/proc/self/timerslack_ns", "1");
    let count = connections.parse()?;
    let opened = (0..count).map(|_| Connection::open(port));
    let mut run = Run {
        port,
        timed: Duration::from_secs_f64(end / 10.0),
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        connections: opened.collect::<Result<_, _>>()?,
        free: (0..count).collect(),
        outcome: Outcome::default(),
        begun: Instant::now(),
    };
    for index in 0..count {
        run.watch(index)?;
    }
    let moments = Moments {
        random: 0x9E37_79B9_7F4A_7C15,
        mean: 1.0 / per_second.parse::<f64>()?,
        at: 0.0,
        end,
    };
    run.begun = Instant::now();
    run.go(moments, &requests)?;
    let Outcome {
        answered,
        failed,
        mut latencies,
        mut delays,
    } = run.outcome;
    latencies.sort_unstable();
    delays.sort_unstable();
    println!(
        r#"{{"answered": {answered}, "failed": {failed}, "p50": {:.1}, "p99": {:.1}, "p999": {:.1}, "slowest": {:.1}, "delay_p99": {:.1}}}"#,
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        quantile(&latencies, 0.999),
        quantile(&latencies, 1.0),
        quantile(&delays, 0.99),
    );
    Ok(())
}
