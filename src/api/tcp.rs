//! The API over TCP, for whoever has a token; only where somebody has enabled slotd-tcp.socket.
//!
//! **Invariant:** who has no token costs little: heads are bounded in size and time, connections in number, no body is read, and a connection
//! ends with its first request that is refused, or after [`STAY`] if none was let in.
//! **Invariant:** whoever holds connections without a token keeps nobody out who has one: where there is no room, the oldest of those makes it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::middleware;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::bearer::{Bearer, From, bear};
use super::door::{Full, Guests, Place, STAY};
use super::failures::network;

/// How many connections one address may have; one of this machine is often many clients behind a proxy.
const OF_ONE: usize = 64;

/// How many there are in all.
const OF_ALL: usize = 256;

/// How large a head may be, in bytes (431 beyond), and how many fields it may have.
const HEAD: usize = 16 << 10;
const FIELDS: usize = 64;

/// How long a head may take, and how long a connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// After an accept that failed: there are no descriptors left, say.
const AGAIN: Duration = Duration::from_millis(100);

/// The connections on which no right token has come yet, oldest first.
#[derive(Default)]
struct Strangers(VecDeque<Stranger>);

struct Stranger {
    network: IpAddr,
    is_known: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Strangers {
    fn add(&mut self, stranger: Stranger) {
        let is_one = |it: &Stranger| !it.is_known.load(Ordering::Relaxed) && !it.task.is_finished();
        self.0.retain(is_one);
        self.0.push_back(stranger);
    }

    /// Ends the oldest in whose place somebody of a network could have one; false if there is none.
    fn make_room(&mut self, network: IpAddr, full: Full) -> bool {
        let mut all = self.0.iter();
        let leaves = all.position(|it| {
            let is_in_the_way = full == Full::OfAll || it.network == network;
            is_in_the_way && !it.is_known.load(Ordering::Relaxed) && !it.task.is_finished()
        });
        let leaves = leaves.and_then(|at| self.0.remove(at));
        leaves.inspect(|stranger| stranger.task.abort()).is_some()
    }
}

/// Answers requests that have a token, until `ended`; then lets those under way end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bearer: Arc<Bearer>,
    mut ended: watch::Receiver<bool>,
) {
    let router = router.layer(middleware::from_fn_with_state(bearer, bear));
    let guests = Guests::new(OF_ONE, OF_ALL);
    let (mut open, mut strangers) = (JoinSet::new(), Strangers::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            // A sender that is gone says the same.
            _ = ended.wait_for(|ended| *ended) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let network = network(peer.ip());
                let place = loop {
                    match guests.place(network) {
                        Err(full) if strangers.make_room(network, full) => {
                            // Its place is free once it has ended.
                            open.join_next().await;
                        }
                        place => break place,
                    }
                };
                // Dropping the connection closes it, which is all the answer that there is room for.
                let Ok(place) = place else { continue };
                let is_known = Arc::new(AtomicBool::new(false));
                let from = From {
                    address: peer.ip().to_canonical(),
                    is_known: Arc::clone(&is_known),
                };
                let conversation = converse(stream, from, place, router.clone(), ended.clone());
                strangers.add(Stranger {
                    network,
                    is_known,
                    task: open.spawn(conversation),
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection over TCP: {error}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
    while open.join_next().await.is_some() {}
}

async fn converse(
    stream: TcpStream,
    from: From,
    _place: Place<IpAddr>,
    router: Router,
    mut ended: watch::Receiver<bool>,
) {
    let inner = TowerToHyperService::new(router);
    let is_known = Arc::clone(&from.is_known);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(from.clone());
        inner.call(request)
    });
    let stranger = async {
        tokio::time::sleep(STAY).await;
        if is_known.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    let mut conversation = std::pin::pin!(conversation);
    // What goes wrong on a connection is its client's to see.
    tokio::select! {
        _ = conversation.as_mut() => return,
        () = stranger => return,
        _ = ended.wait_for(|ended| *ended) => {}
    }
    conversation.as_mut().graceful_shutdown();
    let _ = conversation.await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::super::failures::{MOST, WINDOW};
    use super::super::peer::Peer;
    use super::*;
    use crate::wire::token::{Scope, Stored, digest, of_random};

    struct Bench {
        address: SocketAddr,
        token: String,
        end: watch::Sender<bool>,
        served: tokio::task::JoinHandle<()>,
    }

    async fn bench() -> Bench {
        let token = of_random(&[7; 32]);
        let stored = Stored {
            name: "ci".to_owned(),
            scope: Scope::Read,
            digest: digest(token.as_bytes()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(
            "/",
            get(
                async |ConnectInfo(peer): ConnectInfo<Peer>, request: axum::extract::Request| {
                    format!("{} {:?}", peer.name(), request.headers())
                },
            ),
        );
        let (end, ended) = watch::channel(false);
        let bearer = Arc::new(Bearer::with(vec![stored]));
        let served = tokio::spawn(serve(listener, router, bearer, ended));
        Bench {
            address,
            token,
            end,
            served,
        }
    }

    impl Bench {
        /// The answer to a head, on a connection of its own, with what comes before the other side ends that.
        async fn ask(&self, fields: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
            // A head that is too large is answered before all of it was taken.
            let _ = stream.write_all(head.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        }

        async fn with(&self, token: &str) -> String {
            self.ask(&format!("Authorization: Bearer {token}\r\n"))
                .await
        }

        /// A request with a right token, on a connection that stays.
        fn head(&self) -> String {
            let token = &self.token;
            format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
        }

        /// A connection on which one was let in.
        async fn known(&self) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            self.again(&mut stream).await;
            stream
        }

        /// Lets one in on a connection that is there, and takes its answer.
        async fn again(&self, stream: &mut TcpStream) {
            stream.write_all(self.head().as_bytes()).await.unwrap();
            let mut answer = String::new();
            while !answer.ends_with('}') {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "{answer}");
                answer.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
    }

    #[tokio::test]
    async fn who_has_a_token_is_let_in_and_the_token_goes_no_further() {
        let bench = bench().await;
        let answer = bench.with(&bench.token).await;
        assert!(answer.contains("token ci (127.0.0.1)"), "{answer}");
        assert!(!answer.contains(&bench.token[5..]), "{answer}");
        let none = bench.ask("").await;
        assert!(none.starts_with("HTTP/1.1 401 "), "{none}");
        assert!(
            none.contains("www-authenticate: Bearer realm=\"slot\"\r\n"),
            "{none}"
        );
        let wrong = bench.with("slot_guess").await;
        assert!(wrong.starts_with("HTTP/1.1 401 "), "{wrong}");
        assert!(wrong.contains("error=\"invalid_token\""), "{wrong}");
        assert!(!wrong.contains("guess"), "{wrong}");
        for _ in 1..MOST {
            bench.with("slot_guess").await;
        }
        let often = bench.with("slot_guess").await;
        assert!(often.starts_with("HTTP/1.1 429 "), "{often}");
        let after = format!("retry-after: {}\r\n", WINDOW.as_secs());
        assert!(often.contains(&after), "{often}");
        let right = bench.with(&bench.token).await;
        assert!(right.starts_with("HTTP/1.1 200 "), "{right}");
    }

    #[tokio::test]
    async fn whoever_is_refused_has_his_connection_closed() {
        let bench = bench().await;
        let right = format!("Authorization: Bearer {}\r\n", bench.token);
        let wrong = "Authorization: Bearer slot_guess\r\n";
        // Of the last one's body nothing ever comes.
        for refused in ["", wrong, "Content-Length: 4096\r\n"] {
            let mut stream = TcpStream::connect(bench.address).await.unwrap();
            // Whoever was let in before is no exception.
            for fields in [right.as_str(), refused] {
                let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
            }
            let mut answers = Vec::new();
            let closed = timeout(HEAD_TIME / 2, stream.read_to_end(&mut answers)).await;
            let answers = String::from_utf8(answers).unwrap();
            assert!(closed.is_ok(), "{refused}: {answers}");
            let (first, second) = answers.split_once("HTTP/1.1 401 ").unwrap();
            assert!(first.starts_with("HTTP/1.1 200 "), "{answers}");
            assert!(!first.contains("connection: close"), "{answers}");
            assert!(second.contains("connection: close\r\n"), "{answers}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_has_shown_a_token_stays_and_a_stranger_does_not() {
        let bench = bench().await;
        let mut stranger = TcpStream::connect(bench.address).await.unwrap();
        let mut known = bench.known().await;
        let began = tokio::time::Instant::now();
        while began.elapsed() < 3 * STAY {
            tokio::time::advance(STAY / 2).await;
            bench.again(&mut known).await;
        }
        let mut answer = [0];
        assert_eq!(stranger.read(&mut answer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_head_is_bounded_in_size_and_in_fields() {
        let bench = bench().await;
        let large = format!("X: {}\r\n", "x".repeat(2 * HEAD));
        for fields in [large, "A: b\r\n".repeat(FIELDS + 1)] {
            let answer = bench.ask(&fields).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_and_an_idle_connection_are_closed() {
        let bench = bench().await;
        for part in ["", "GET / HTTP/1.1\r\nHost: "] {
            let mut stream = TcpStream::connect(bench.address).await.unwrap();
            stream.write_all(part.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            let closed = timeout(2 * HEAD_TIME, stream.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "{part:?}");
        }
    }

    #[tokio::test]
    async fn one_address_has_so_many_connections_and_no_more() {
        let bench = bench().await;
        let mut held = Vec::new();
        for _ in 0..OF_ONE {
            held.push(bench.known().await);
        }
        let mut surplus = TcpStream::connect(bench.address).await.unwrap();
        let mut rest = Vec::new();
        assert_eq!(surplus.read_to_end(&mut rest).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn the_oldest_connection_without_a_token_makes_room_for_a_new_one() {
        let bench = bench().await;
        let mut known = bench.known().await;
        let mut strangers = Vec::new();
        for _ in 1..OF_ONE {
            strangers.push(TcpStream::connect(bench.address).await.unwrap());
        }
        let _next = bench.known().await;
        let mut rest = [0];
        let left = timeout(HEAD_TIME / 2, strangers[0].read(&mut rest)).await;
        assert_eq!(left.expect("it is closed at once").unwrap(), 0);
        // One for each that comes, and none that has shown a token.
        let _last = bench.known().await;
        let left = timeout(HEAD_TIME / 2, strangers[1].read(&mut rest)).await;
        assert_eq!(left.expect("it is the next").unwrap(), 0);
        bench.again(&mut known).await;
    }

    #[tokio::test]
    async fn at_its_end_idle_connections_are_closed() {
        let bench = bench().await;
        let mut idle = bench.known().await;
        bench.end.send_replace(true);
        bench.served.await.unwrap();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
    }
}
