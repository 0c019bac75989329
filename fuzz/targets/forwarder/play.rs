//! One input played: a client and an upstream, both moved by one thread, so that they do the same each time.
//!
//! **Invariant:** nothing waits for time to pass. Parts that are to come separately have a [`Barrier`] between them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::reader::{self, Asked, End};
use super::oracle::{self, Accepted, Kind, Outcome};
use super::plan::{Plan, Said, Then};

/// Nothing takes so long, in seconds, unless something hangs.
const PATIENCE: u32 = 20;
/// An answer to nothing.
const STALE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale";

/// The host of an app that takes no requests.
pub const NOBODY: &str = "nobody.invalid";

/// A connection on which the router says at once that it serves nobody. It has one thread, which takes what has come in its order: once
/// that answer is there, it has seen what was sent before.
#[derive(Debug)]
pub struct Barrier(TcpStream);

impl Barrier {
    pub fn new(router: SocketAddr) -> Self {
        let stream = TcpStream::connect(router).expect("the router listens");
        let patience = std::time::Duration::from_secs(PATIENCE.into());
        stream
            .set_read_timeout(Some(patience))
            .expect("a socket can be told");
        Self(stream)
    }

    fn pass(&mut self) {
        let ask = format!("GET / HTTP/1.1\r\nHost: {NOBODY}\r\n\r\n");
        self.0.write_all(ask.as_bytes()).expect("the router lives");
        let (mut buffer, mut length) = ([0; 512], 0);
        while !buffer[..length].ends_with(b"}\n") {
            match self.0.read(&mut buffer[length..]) {
                Ok(count @ 1..) => length += count,
                other => panic!("the router hangs: {other:?}"),
            }
        }
    }
}

/// What the upstream saw of a request, and what it said to it.
#[derive(Clone, Debug)]
pub struct Sight<'a> {
    /// How many requests came before it on its connection.
    pub before: usize,
    /// The request, once it is whole.
    pub asked: Option<Asked>,
    /// What there is of it.
    pub bytes: Vec<u8>,
    /// What was said to it.
    pub said: Option<Said<'a>>,
    /// What that is to the parser.
    pub outcome: Outcome,
    /// What came behind it, in a tunnel.
    pub behind: Vec<u8>,
}

/// What came of it all.
#[derive(Clone, Debug, Default)]
pub struct Played<'a> {
    /// What the client got.
    pub answer: Vec<u8>,
    /// That ended by a reset.
    pub is_reset: bool,
    /// The client sent everything.
    pub sent_all: bool,
    /// In the order in which they came.
    pub sights: Vec<Sight<'a>>,
    /// What must not be, if it was seen on the way.
    pub fault: Option<String>,
}

/// A connection to the upstream.
#[derive(Debug)]
struct Side {
    stream: Option<TcpStream>,
    bytes: Vec<u8>,
    requests: usize,
    /// The request that has not come to its end.
    open: Option<usize>,
    /// It is of no more use to who keeps to HTTP, and why.
    spent: Option<&'static str>,
    /// The upstream has ended it, and how.
    ended: Option<Then>,
    tunnel: Option<usize>,
    /// Nothing more comes of the router.
    is_over: bool,
    /// The router has to end it.
    must_end: bool,
}

/// A run under way.
pub struct Play<'p> {
    plan: &'p Plan<'p>,
    accepted: &'p [Accepted],
    listener: &'p TcpListener,
    barrier: &'p mut Barrier,
    client: Option<TcpStream>,
    sides: Vec<Side>,
    /// How many answers of the plan were given.
    answers: usize,
    played: Played<'p>,
}

impl<'p> Play<'p> {
    /// Plays all of it.
    pub fn run(
        plan: &'p Plan<'p>,
        accepted: &'p [Accepted],
        router: SocketAddr,
        listener: &'p TcpListener,
        barrier: &'p mut Barrier,
    ) -> Played<'p> {
        let client = TcpStream::connect(router).expect("the router listens");
        client.set_nodelay(true).expect("a socket can be told");
        client.set_nonblocking(true).expect("a socket can be told");
        let mut play = Self {
            plan,
            accepted,
            listener,
            barrier,
            client: Some(client),
            sides: Vec::new(),
            answers: 0,
            played: Played::default(),
        };
        play.send();
        while play.client.is_some() {
            play.attend(true);
        }
        // What is unfinished behind the router has to end too.
        play.barrier.pass();
        play.attend(false);
        while play.sides.iter().any(|s| s.must_end && !s.is_over) {
            play.attend(true);
        }
        let played = std::mem::take(&mut play.played);
        drop(play.sides);
        // The next run begins when this one is known to be over.
        play.barrier.pass();
        played
    }

    fn send(&mut self) {
        let (plan, accepted) = (self.plan, self.accepted);
        let mut places = plan.client_cuts();
        if plan.in_turn {
            places.extend(accepted.iter().map(|request| request.end));
        }
        places.push(plan.asked.len());
        places.sort_unstable();
        places.dedup();
        let (mut sent, last) = (0, plan.asked.len());
        if places.len() > 1 {
            self.barrier.pass();
        }
        for place in places {
            if plan.in_turn {
                self.wait(accepted.iter().filter(|r| r.end <= sent).count());
            }
            let Some(client) = &mut self.client else {
                return;
            };
            if client.write_all(&plan.asked[sent..place]).is_err() {
                return;
            }
            sent = place;
            if sent < last {
                self.barrier.pass();
                self.attend(false);
            }
            // The router may close behind the last request that there will be. What came just then would make that close a reset
            // (RFC 9112 section 9.6): who says more all the same says it before or after.
            if sent < last && accepted.iter().any(|r| r.is_last && r.end == sent) {
                self.settle();
            }
        }
        self.played.sent_all = true;
        if !plan.half_closes {
            self.wait(accepted.len());
        }
        if let Some(client) = &self.client {
            _ = client.shutdown(Shutdown::Write);
        }
    }

    /// Until nothing happens before more is sent.
    fn settle(&mut self) {
        loop {
            self.barrier.pass();
            if !self.attend(false) {
                return;
            }
        }
    }

    /// Until the client has so many answers, or can get no more.
    fn wait(&mut self, answers: usize) {
        while self.client.is_some() && self.got() < answers {
            self.attend(true);
        }
    }

    /// How many whole answers the client has got; any number if one began a tunnel.
    fn got(&self) -> usize {
        let (mut at, mut count) = (0, 0);
        for request in self.accepted {
            let rest = &self.played.answer[at..];
            match reader::answer(rest, request.is_to_head(), request.is_old) {
                Ok(Ok(answer)) if answer.status == 101 => return usize::MAX,
                Ok(Ok(answer)) if answer.end == End::Whole => {
                    (at, count) = (at + answer.used, count + 1)
                }
                _ => break,
            }
        }
        count
    }

    /// Deals with everything that has come, if anything has; waits for something if `patient`.
    fn attend(&mut self, mut patient: bool) -> bool {
        let mut anything = false;
        loop {
            let sides: Vec<usize> = (0..self.sides.len())
                .filter(|s| self.sides[*s].stream.is_some() && !self.sides[*s].is_over)
                .collect();
            let streams = sides.iter().filter_map(|s| self.sides[*s].stream.as_ref());
            let client = self.client.iter();
            let mut fds: Vec<PollFd<'_>> = [self.listener.as_fd()]
                .into_iter()
                .chain(streams.map(AsFd::as_fd))
                .chain(client.map(AsFd::as_fd))
                .map(|fd: BorrowedFd<'_>| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            let time = Timespec {
                tv_sec: if patient { PATIENCE.into() } else { 0 },
                tv_nsec: 0,
            };
            let ready = poll(&mut fds, Some(&time)).expect("descriptors can be polled");
            let ready: Vec<bool> = match ready {
                0 if patient => panic!(
                    "it hangs: {:?}, {:?}",
                    String::from_utf8_lossy(&self.played.answer),
                    self.played.sights
                ),
                0 => return anything,
                _ => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
            };
            (patient, anything) = (false, true);
            if ready[0] {
                self.accept();
            }
            for (place, side) in sides.iter().enumerate() {
                if ready[1 + place] {
                    self.hear(*side);
                }
            }
            if self.client.is_some() && ready.get(1 + sides.len()) == Some(&true) {
                self.listen();
            }
        }
    }

    fn accept(&mut self) {
        let (stream, _) = self.listener.accept().expect("there is one");
        stream.set_nodelay(true).expect("a socket can be told");
        stream.set_nonblocking(true).expect("a socket can be told");
        self.sides.push(Side {
            stream: Some(stream),
            bytes: Vec::new(),
            requests: 0,
            open: None,
            spent: None,
            ended: None,
            tunnel: None,
            is_over: false,
            must_end: false,
        });
    }

    /// The client reads.
    fn listen(&mut self) {
        let Some(client) = &mut self.client else {
            return;
        };
        match read(client, &mut self.played.answer) {
            Some(Ok(())) => self.client = None,
            Some(Err(())) => {
                self.played.is_reset = true;
                self.client = None;
            }
            None => {}
        }
    }

    /// The upstream reads.
    fn hear(&mut self, number: usize) {
        let side = &mut self.sides[number];
        let Some(stream) = &mut side.stream else {
            return;
        };
        if read(stream, &mut side.bytes).is_some() {
            side.is_over = true;
        }
        self.understand(number);
        let side = &self.sides[number];
        if let Some(stream) = side.stream.as_ref().filter(|_| side.is_over) {
            _ = stream.shutdown(Shutdown::Write);
        }
    }

    /// Looks at what has come on a connection, and answers what is to be answered.
    fn understand(&mut self, number: usize) {
        loop {
            let side = &mut self.sides[number];
            let sights = &mut self.played.sights;
            if let Some(tunnel) = side.tunnel {
                sights[tunnel].behind.append(&mut side.bytes);
            }
            if side.bytes.is_empty() {
                return;
            }
            if let (None, Some(why)) = (side.open, side.spent) {
                let fault = format!("a request on a connection {why}");
                self.played.fault.get_or_insert(fault);
            }
            let open = *side.open.get_or_insert_with(|| {
                sights.push(Sight {
                    before: side.requests,
                    asked: None,
                    bytes: Vec::new(),
                    said: None,
                    outcome: Outcome::default(),
                    behind: Vec::new(),
                });
                side.requests += 1;
                sights.len() - 1
            });
            let sight = &mut sights[open];
            sight.bytes.clone_from(&side.bytes);
            match reader::request(&side.bytes) {
                Err(why) => {
                    self.played.fault.get_or_insert(why);
                    return side.bytes.clear();
                }
                Ok(Some((asked, used))) => {
                    side.bytes.drain(..used);
                    sight.bytes.truncate(used);
                    sight.asked = Some(asked);
                    side.open = None;
                    side.must_end = false;
                }
                Ok(None) => side.must_end = true,
            }
            let is_whole = sight.asked.is_some();
            if sight.said.is_none() {
                if is_whole && !side.bytes.is_empty() {
                    let fault = "something behind a request before it was answered";
                    self.played.fault.get_or_insert(fault.to_owned());
                }
                if let Some(then) = side.ended {
                    sight.said = Some(Said { bytes: b"", then });
                } else if is_whole || self.plan.is_eager {
                    self.say(number, open);
                }
            }
            if !is_whole {
                return;
            }
        }
    }

    /// The upstream answers.
    fn say(&mut self, number: usize, sight: usize) {
        let mut said = self.plan.answer(self.answers);
        self.answers += 1;
        let (side, seen) = (&mut self.sides[number], &mut self.played.sights[sight]);
        let head = String::from_utf8_lossy(&seen.bytes);
        let head = head.split_once("\r\n\r\n").map_or(&*head, |(head, _)| head);
        let upgrades = head.contains("\r\nUpgrade: websocket");
        let outcome = oracle::outcome(said.bytes, head.starts_with("HEAD "), upgrades);
        let is_last = head.contains("\r\nConnection: close") && outcome.kind != Kind::Tunnel;
        let is_sound = matches!(outcome.kind, Kind::Whole(_)) && outcome.keeps_alive;
        let stays = matches!(said.then, Then::Stay | Then::Speak);
        if stays && outcome.kind != Kind::Tunnel && (is_last || !is_sound) {
            said.then = Then::End;
        }
        side.spent = match outcome.kind {
            _ if is_last => Some("that it wanted to end itself"),
            Kind::Tunnel => None,
            _ if !is_sound => Some("whose last answer was no answer, or said that it was the last"),
            _ if outcome.end < said.bytes.len() => Some("with bytes of no answer"),
            _ => None,
        };
        side.must_end |= side.spent.is_some() || outcome.kind == Kind::Tunnel;
        if outcome.kind == Kind::Tunnel {
            side.tunnel = Some(sight);
        }
        // What belongs to no answer comes with the end of the last one: later it could pass for the next one.
        let mut cuts = self.plan.upstream_cuts(said.bytes.len());
        if !matches!(outcome.kind, Kind::Tunnel | Kind::AtEnd(_)) {
            cuts.retain(|cut| *cut < outcome.end);
        }
        seen.said = Some(said);
        seen.outcome = outcome;
        let mut from = 0;
        for cut in cuts.into_iter().chain([said.bytes.len()]) {
            if from > 0 {
                self.barrier.pass();
            }
            let stream = self.sides[number].stream.as_mut();
            if stream.is_none_or(|s| s.write_all(&said.bytes[from..cut]).is_err()) {
                break;
            }
            from = cut;
        }
        self.follow(number, said.then);
    }

    /// What the upstream does behind an answer.
    fn follow(&mut self, number: usize, then: Then) {
        if matches!(then, Then::Reset | Then::Speak) {
            self.barrier.pass();
            let side = &mut self.sides[number];
            if then == Then::Reset {
                side.ended = Some(then);
            }
            // The next request may be there already.
            let (requests, open) = (side.requests, side.open.is_some());
            self.hear(number);
            let side = &self.sides[number];
            if then == Then::Speak && (open || side.requests > requests || side.open.is_some()) {
                return;
            }
        }
        let side = &mut self.sides[number];
        let Some(stream) = &mut side.stream else {
            return;
        };
        match then {
            Then::Stay => {}
            Then::End => {
                side.ended = Some(then);
                _ = stream.shutdown(Shutdown::Write);
            }
            Then::Reset => {
                _ = rustix::net::sockopt::set_socket_linger(
                    &*stream,
                    Some(std::time::Duration::ZERO),
                );
                side.stream = None;
                side.is_over = true;
            }
            Then::Speak => {
                side.spent.get_or_insert("on which something came unasked");
                _ = stream.write_all(STALE);
                self.barrier.pass();
            }
        }
    }
}

/// Reads what there is; `Some` at the end: `Err` for a reset.
fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> Option<Result<(), ()>> {
    // What came before the end is appended too.
    match stream.read_to_end(into) {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it is lost");
            Some(Err(()))
        }
    }
}
