//! The API over TCP, for whoever has a token; only where somebody has enabled slotd-tcp.socket.
//!
//! **Invariant:** who has no token costs little: heads are bounded in size and time, connections in number, and no body is read.

use std::net::IpAddr;
use std::sync::Arc;
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
use tokio::task::JoinSet;

use super::bearer::{Bearer, From, bear};
use super::door::{Guests, Place};
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

/// Answers requests that have a token, until `ended`; then lets those under way end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bearer: Arc<Bearer>,
    mut ended: watch::Receiver<bool>,
) {
    let router = router.layer(middleware::from_fn_with_state(bearer, bear));
    let guests = Guests::new(OF_ONE, OF_ALL);
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
            // A sender that is gone says the same.
            _ = ended.wait_for(|ended| *ended) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Dropping the connection closes it, which is all the answer that there is room for.
                if let Some(place) = guests.place(network(peer.ip())) {
                    let from = peer.ip().to_canonical();
                    open.spawn(converse(stream, from, place, router.clone(), ended.clone()));
                }
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
    from: IpAddr,
    _place: Place<IpAddr>,
    router: Router,
    mut ended: watch::Receiver<bool>,
) {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(From(from));
        inner.call(request)
    });
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
        let often = bench.with(&bench.token).await;
        assert!(often.starts_with("HTTP/1.1 429 "), "{often}");
        let after = format!("retry-after: {}\r\n", WINDOW.as_secs());
        assert!(often.contains(&after), "{often}");
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
            held.push(TcpStream::connect(bench.address).await.unwrap());
        }
        let mut surplus = TcpStream::connect(bench.address).await.unwrap();
        let mut rest = Vec::new();
        assert_eq!(surplus.read_to_end(&mut rest).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn at_its_end_idle_connections_are_closed() {
        let bench = bench().await;
        let mut idle = TcpStream::connect(bench.address).await.unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
            bench.token
        );
        idle.write_all(head.as_bytes()).await.unwrap();
        let mut begun = [0; 15];
        idle.read_exact(&mut begun).await.unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200 OK");
        bench.end.send_replace(true);
        bench.served.await.unwrap();
        let mut rest = Vec::new();
        idle.read_to_end(&mut rest).await.unwrap();
    }
}
