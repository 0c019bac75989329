//! A whole router between a client and an upstream that send whatever the data says.
//!
//! What reaches the upstream, as another reader understands it, is exactly the requests that the parser accepts when it has all of the
//! client's bytes at once; what reaches the client is exactly their answers. `judge.rs` has the rules.

mod judge;
mod oracle;
mod plan;
mod play;

use std::net::{SocketAddr, TcpListener};

use slot::router::{Config, Server, Source};

use plan::Plan;
use play::{Barrier, NOBODY, Play};

/// A router, and the socket of the upstream behind it.
pub struct Forwarder {
    address: SocketAddr,
    upstream: TcpListener,
    barrier: Barrier,
    _server: Server,
}

impl Forwarder {
    /// Starts the router. It has one thread, so that all of a run is known to it in the same order each time.
    pub fn start() -> Self {
        let [public, upstream] =
            [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let behind = upstream.local_addr().expect("its address").to_string();
        let app = |name: &str, host: &str, weight: u8| {
            serde_json::json!({
                "name": name, "generation": 1, "hold_ms": 0, "routes": [{"host": host, "path": "/"}],
                "slots": [{"name": "blue", "weight": weight, "upstream": behind}],
            })
        };
        let table = serde_json::from_value(serde_json::json!({
            "revision": 1,
            "apps": [app("web", "*", 100), app("nobody", NOBODY, 0)],
        }));
        let config = Config {
            table: Source::Given(table.expect("a table")),
            threads: 1,
            ..Config::new(vec![("http".into(), public)])
        };
        let server = Server::start(config).expect("a router");
        let address = server.addresses()[0];
        Self {
            address,
            upstream,
            barrier: Barrier::new(address),
            _server: server,
        }
    }

    /// Plays what the data says, and judges it.
    pub fn run(&mut self, data: &[u8]) {
        let plan = Plan::of(data);
        let (whole, rest) = oracle::requests(plan.asked);
        let played = Play::run(
            &plan,
            &whole,
            self.address,
            &self.upstream,
            &mut self.barrier,
        );
        if let Err(why) = judge::judge(&plan, &whole, &rest, &played) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let seen: Vec<_> = played
                .sights
                .iter()
                .map(|s| (s.before, text(&s.bytes)))
                .collect();
            panic!(
                "{why}\nseen by the upstream: {seen:#?}\nsaid: {:?}\nby the client: {:?}, reset: {}",
                played
                    .sights
                    .iter()
                    .map(|s| s.said.map(|s| (text(s.bytes), s.then)))
                    .collect::<Vec<_>>(),
                text(&played.answer),
                played.is_reset
            );
        }
    }
}
