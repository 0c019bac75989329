//! A whole router between a client and an upstream that send whatever the data says.
//!
//! What reaches the upstream, as another reader understands it, is exactly the requests that the parser accepts when it has all of the
//! client's bytes at once: whole, in order, each once, nothing behind them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use slot::router::h1::body::{Body, Pieces};
use slot::router::h1::fields::Fields;
use slot::router::h1::framing::Framing;
use slot::router::h1::path;
use slot::router::h1::request::Request;
use slot::router::h1::scan::{Scan, Scanned};
use slot::router::{Config, Limits, Server, Source};

use super::reader::{self, Asked};

/// Nothing takes so long unless something hangs.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));
/// A connection with these bytes is no request: all that came before it have been dealt with.
const MARK: &[u8] = b"\xff\xffmark";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A router, and an upstream that is told what to say.
pub struct Forwarder {
    address: SocketAddr,
    upstream: SocketAddr,
    say: Sender<(Vec<u8>, usize)>,
    seen: Receiver<Vec<Vec<u8>>>,
    _server: Server,
}

impl Forwarder {
    /// Starts both.
    pub fn start() -> Self {
        let [public, behind] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let upstream = behind.local_addr().expect("its address");
        let table = serde_json::from_value(serde_json::json!({
            "revision": 1,
            "apps": [{
                "name": "web", "generation": 1, "hold_ms": 0, "routes": [{"host": "*", "path": "/"}],
                "slots": [{"name": "blue", "weight": 100, "upstream": upstream.to_string()}],
            }],
        }));
        let config = Config {
            table: Source::Given(table.expect("a table")),
            threads: 1,
            limits: Limits {
                // Each request has an upstream connection of its own, whose end is the end of what is judged.
                upstream_idle: Duration::ZERO,
                ..Limits::default()
            },
            ..Config::new(vec![("http".into(), public)])
        };
        let server = Server::start(config).expect("a router");
        let ((say, said), (tell, seen)) = (channel(), channel());
        std::thread::spawn(move || serve(&behind, &said, &tell));
        Self {
            address: server.addresses()[0],
            upstream,
            say,
            seen,
            _server: server,
        }
    }

    /// The first byte says how much of the rest the client sends, and where the streams are cut; what is left is the upstream's. If
    /// that is nothing, it answers each whole request as it should.
    pub fn run(&mut self, data: &[u8]) {
        let (choice, bytes) = super::split(data);
        let end = match choice % 4 {
            0 => bytes.len(),
            _ => bytes
                .windows(2)
                .position(|w| w == b"\xfe\xfe")
                .unwrap_or(bytes.len()),
        };
        let (asked, script) = (&bytes[..end], bytes.get(end + 2..).unwrap_or_default());
        self.say
            .send((script.to_vec(), choice))
            .expect("the upstream lives");
        let answer = self.exchange(asked, choice);
        mark(self.upstream);
        let seen = self.seen.recv().expect("the upstream lives");
        judge(asked, script, &seen, &answer);
    }

    /// Sends the client's bytes, says that it was all, and returns what comes back.
    fn exchange(&self, asked: &[u8], choice: usize) -> Vec<u8> {
        let mut client = TcpStream::connect(self.address).expect("the router listens");
        client.set_nodelay(true).expect("a socket");
        client.set_read_timeout(PATIENCE).expect("a socket");
        for part in cut(asked, choice) {
            // It may have been refused before all of it came.
            if client.write_all(part).is_err() {
                break;
            }
        }
        _ = client.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = client.read_to_end(&mut answer) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionReset,
                "it hangs"
            );
        }
        answer
    }
}

fn mark(upstream: SocketAddr) {
    let mut stream = TcpStream::connect(upstream).expect("the upstream listens");
    stream.write_all(MARK).expect("it takes a mark");
}

/// In two parts, or as it is.
fn cut(bytes: &[u8], choice: usize) -> [&[u8]; 2] {
    let at = (choice / 4).min(bytes.len());
    [&bytes[..at], &bytes[at..]]
}

/// The upstream: one connection after the other.
fn serve(listener: &TcpListener, said: &Receiver<(Vec<u8>, usize)>, tell: &Sender<Vec<Vec<u8>>>) {
    let mut seen = Vec::new();
    let mut say = None;
    while let Ok((mut stream, _)) = listener.accept() {
        _ = stream.set_read_timeout(PATIENCE);
        let mut record = Vec::new();
        let mut buffer = [0; 16 * 1024];
        let mut answered = false;
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            record.extend_from_slice(&buffer[..count]);
            if record == MARK {
                break;
            }
            let (script, choice): &(Vec<u8>, usize) =
                say.get_or_insert_with(|| said.recv().expect("it is told what to say"));
            let is_due = match script.is_empty() {
                true => !matches!(reader::request(&record), Ok(None)),
                false => true,
            };
            if is_due && !answered {
                answered = true;
                let script = if script.is_empty() { OK } else { script };
                _ = cut(script, *choice)
                    .into_iter()
                    .try_for_each(|part| stream.write_all(part));
                _ = stream.shutdown(Shutdown::Write);
            }
        }
        if record == MARK {
            // Nobody may have asked anything.
            if say.take().is_none() {
                _ = said.recv();
            }
            if tell.send(std::mem::take(&mut seen)).is_err() {
                return;
            }
        } else {
            seen.push(record);
        }
    }
}

/// What the parser accepts of a client's bytes.
#[derive(Default)]
struct Accepted {
    whole: Vec<Asked>,
    /// The last one, of which the body is not whole or not sound.
    begun: Option<Asked>,
    /// An upgrade: what is behind it is for whoever answers 101, and it cannot be known from here who that is.
    upgrades: bool,
    /// A path that no route can have: answered by the router, and whether it reads on depends on what came at once.
    vague: bool,
}

fn accepted(bytes: &[u8]) -> Accepted {
    let (mut accepted, mut fields, limits) = (
        Accepted::default(),
        Fields::default(),
        Limits::default().heads,
    );
    let mut used = 0;
    while let Ok(Scanned::Whole(head)) = Scan::default().advance(&bytes[used..], &limits, true) {
        let rest = &bytes[used..];
        let Ok(request) = Request::parse(rest, head, &mut fields, &limits) else {
            break;
        };
        let text =
            |span: slot::router::h1::Span| String::from_utf8_lossy(span.of(rest)).into_owned();
        let (method, origin) = (text(request.method), text(request.target.origin));
        let path = request.target.path.of(rest);
        if path != b"*" && path::normalise(path).is_err() {
            accepted.vague = true;
            break;
        }
        let prefix = match path.is_empty() {
            true if method == "OPTIONS" && origin.is_empty() => "*",
            true => "/",
            false => "",
        };
        let mut asked = Asked {
            target: format!("{prefix}{origin}"),
            method,
            host: request.authority.map_or("localhost".to_owned(), text),
            body: Vec::new(),
        };
        used += head.end as usize;
        let mut body = Body::new(request.framing, request.framing == Framing::Chunked);
        let mut sound = true;
        while !body.is_done() {
            let mut pieces = Pieces::default();
            let step = body.advance(&bytes[used..], used, &mut pieces);
            pieces
                .as_slice()
                .iter()
                .for_each(|p| asked.body.extend_from_slice(p.of(bytes)));
            match step {
                Ok(step @ 1..) => used += step,
                other => {
                    sound = other.is_ok();
                    break;
                }
            }
        }
        if !body.is_done() || !sound {
            accepted.begun = Some(asked);
            break;
        }
        accepted.whole.push(asked);
        accepted.upgrades |= request.upgrades;
        if !request.keeps_alive() {
            break;
        }
    }
    accepted
}

fn judge(asked: &[u8], script: &[u8], seen: &[Vec<u8>], answer: &[u8]) {
    let accepted = accepted(asked);
    let mut next = accepted.whole.iter();
    let mut whole = 0;
    for (number, record) in seen.iter().enumerate() {
        let text = String::from_utf8_lossy(record);
        match reader::request(record) {
            Ok(Some((request, used))) => {
                let expected = next.next();
                assert_eq!(Some(&request), expected, "whole at the upstream");
                whole += 1;
                let may_tunnel = accepted.upgrades && script.windows(4).any(|w| w == b" 101");
                assert!(
                    used == record.len() || may_tunnel,
                    "behind a request: {text:?}"
                );
            }
            Ok(None) => {
                // The one whose body was not to be had, or one that the upstream did not want to the end.
                let begun = next.next().or(accepted.begun.as_ref());
                let begun = begun.unwrap_or_else(|| panic!("nobody asked {text:?}"));
                let line = format!("{} {} HTTP/1.1\r\n", begun.method, begun.target);
                let common = line.len().min(record.len());
                assert_eq!(&record[..common], &line.as_bytes()[..common], "{text:?}");
                assert_eq!(
                    number + 1,
                    seen.len(),
                    "nothing comes behind an unfinished request"
                );
            }
            Err(why) => panic!("{why} in {text:?}"),
        }
    }
    let answers = String::from_utf8_lossy(answer);
    if script.is_empty() {
        // Every sound request has its answer, whole, unless a path stood in the way.
        assert!(
            accepted.vague || whole == accepted.whole.len(),
            "{whole} whole, {answers:?}"
        );
        assert_eq!(
            answers.matches("HTTP/1.1 200 OK\r\n").count(),
            whole,
            "{answers:?}"
        );
    }
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 "),
        "{answers:?}"
    );
}
