//! What happens in the demo, in order: everything is asked for over the API and counted from outside.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::client::{Client, empty};
use super::super::deployer::Deployer;
use super::super::pack::Upload;
use super::super::source::Source;
use super::super::term::span;
use super::figures::{Deploy, Figures};
use super::releases::Releases;
use super::screen::Screen;
use crate::load::{Ended, EventStream, Load, TICK, WebSocket};
use crate::wire::api::{Begun, Outcome, Status};

/// Keep-alive connections of the load.
const CONNECTIONS: usize = 32;

/// Between an answer and the next request of a connection. Without it the load would measure how much of the machine it can take from the
/// deployer.
const PAUSE: Duration = Duration::from_millis(2);

/// How long traffic goes on between two events of the story.
const BEAT: Duration = Duration::from_secs(1);

/// Events of the stream that ends by itself: it begins before the second release and ends after it has taken over.
const EVENTS: u64 = 50;

/// Between two drawings of the moving line.
const FRAME: Duration = Duration::from_millis(100);

/// Tells the whole story.
///
/// # Errors
/// If the deployer cannot be asked; a deployment that ends otherwise than it should is in the figures instead.
pub(super) async fn tell(
    deployer: &Deployer,
    releases: &Releases,
    screen: &mut Screen,
) -> anyhow::Result<Figures> {
    let mut teller = Teller {
        client: Client::new(&deployer.socket(), Some("demo")),
        address: deployer.address(),
        releases,
        screen,
        deploys: Vec::new(),
        streams: Vec::new(),
        ended: Vec::new(),
    };
    teller.serve("1").await?;

    let load = Load::start(teller.address, CONNECTIONS, PAUSE);
    load.allow(&["1"]);
    teller.screen.watch(load.pulse());
    let text = format!(
        "{CONNECTIONS} connections ask all the time; event streams and WebSockets stay open"
    );
    teller.screen.good(&text, "");
    teller.open(None).await;
    teller.open(Some(EVENTS)).await;
    teller.traffic().await;

    load.allow(&["1", "2"]);
    teller.serve("2").await?;
    load.allow(&["2"]);
    teller.open(None).await;
    teller.traffic().await;

    load.allow(&["1", "2"]);
    teller.roll_back("1").await?;
    load.allow(&["1"]);
    teller.traffic().await;

    teller.refuse("3").await?;
    teller.refuse("4").await?;
    teller.traffic().await;

    let streams = teller.close().await;
    let tally = load.end().await;
    let deploys = teller.deploys;
    Ok(Figures::new(&tally, &streams, deploys))
}

enum Stream {
    Endless(EventStream),
    Whole(EventStream),
    WebSocket(WebSocket),
}

struct Teller<'a> {
    client: Client,
    address: SocketAddr,
    releases: &'a Releases,
    screen: &'a mut Screen,
    deploys: Vec<Deploy>,
    streams: Vec<Stream>,
    ended: Vec<Ended>,
}

impl Teller<'_> {
    /// Deploys a release that is to serve, and waits for its soak.
    async fn serve(&mut self, name: &str) -> anyhow::Result<()> {
        let doing = format!("deploying release {name}");
        let (outcome, took) = self.deploy(name, &doing).await?;
        self.ended_as(
            name,
            &outcome,
            true,
            took,
            &format!("release {name} serves after {}", span(took)),
        );
        self.soaked(&outcome, &format!("watching release {name}"))
            .await
    }

    /// Deploys a release that is to be refused.
    async fn refuse(&mut self, name: &str) -> anyhow::Result<()> {
        let doing = format!("deploying release {name}");
        let (outcome, took) = self.deploy(name, &doing).await?;
        let text = format!(
            "release {name} refused after {}, traffic untouched",
            span(took)
        );
        self.ended_as(name, &outcome, false, took, &text);
        Ok(())
    }

    async fn roll_back(&mut self, name: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        let begun: Begun = self.client.post("/rollback", empty()).await?;
        let outcome = self
            .outcome(begun.generation, "switched", "rolling back")
            .await?;
        let took = began.elapsed();
        let text = format!("rolled back: release {name} serves after {}", span(took));
        self.ended_as(name, &outcome, true, took, &text);
        self.soaked(&outcome, &format!("watching release {name}"))
            .await
    }

    async fn deploy(&mut self, name: &str, doing: &str) -> anyhow::Result<(Outcome, Duration)> {
        let source = Source::look_over(&self.releases.path(name))?;
        let began = Instant::now();
        let (body, _) = Upload::Path(source).body()?;
        let begun: Begun = self.client.post("/deploy", body).await?;
        let outcome = self.outcome(begun.generation, "switched", doing).await?;
        Ok((outcome, began.elapsed()))
    }

    /// Waits for an attempt, and shows its phase meanwhile.
    async fn outcome(&self, generation: u64, wait: &str, doing: &str) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        let path = format!("/outcome?generation={generation}&wait={wait}");
        let asked = async {
            loop {
                // 202 is "not yet", with what is known so far.
                if let Ok(outcome) = self
                    .client
                    .poll::<Outcome, serde_json::Value>(&path)
                    .await?
                {
                    return anyhow::Ok(outcome);
                }
            }
        };
        tokio::select! {
            outcome = asked => outcome,
            never = self.show(doing, began) => match never {},
        }
    }

    /// Draws the moving line, with the phase of the attempt under way.
    async fn show(&self, doing: &str, began: Instant) -> Infallible {
        let mut frames = interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            frames.tick().await;
            let status = self.client.get::<Status>("/status").await;
            let phase = status.ok().and_then(|status| status.deployment);
            let phase = phase.map_or(String::new(), |held| format!(", {}", held.phase));
            self.screen
                .tick(&format!("{doing}{phase}"), began.elapsed());
        }
    }

    async fn soaked(&self, outcome: &Outcome, doing: &str) -> anyhow::Result<()> {
        if outcome.success {
            self.outcome(outcome.generation, "soaked", doing).await?;
        }
        Ok(())
    }

    fn ended_as(
        &mut self,
        name: &str,
        outcome: &Outcome,
        to_serve: bool,
        took: Duration,
        text: &str,
    ) {
        let deploy = Deploy::new(&format!("release {name}"), outcome, to_serve, took);
        if deploy.is_expected() {
            let detail = if to_serve {
                phases(outcome)
            } else {
                outcome.text.clone()
            };
            self.screen.good(text, &detail);
        } else {
            self.screen.bad(
                &format!("release {name}: not as it should be"),
                &outcome.text,
            );
        }
        self.deploys.push(deploy);
    }

    /// Opens streams to whatever serves now: an event stream and a WebSocket that stay, or an event stream that ends by itself.
    async fn open(&mut self, events: Option<u64>) {
        let opened = EventStream::open(self.address, events).await;
        self.keep(opened.map(|stream| match events {
            Some(_) => Stream::Whole(stream),
            None => Stream::Endless(stream),
        }));
        if events.is_none() {
            let opened = WebSocket::open(self.address).await;
            self.keep(opened.map(Stream::WebSocket));
        }
    }

    fn keep(&mut self, opened: Result<Stream, String>) {
        match opened {
            Ok(stream) => self.streams.push(stream),
            Err(cut) => {
                self.screen.bad("a stream could not be opened", &cut);
                self.ended.push(Ended {
                    messages: 0,
                    cut: Some(cut),
                    longest_pause: Duration::ZERO,
                });
            }
        }
        self.screen.streams(self.streams.len());
    }

    /// Lets traffic go on for a while.
    async fn traffic(&self) {
        let began = Instant::now();
        let mut frames = interval(FRAME);
        while began.elapsed() < BEAT {
            frames.tick().await;
            self.screen.tick("traffic goes on", began.elapsed());
        }
    }

    /// Ends every stream from this side, but for those that end by themselves.
    async fn close(&mut self) -> Vec<Ended> {
        let mut all = std::mem::take(&mut self.ended);
        for stream in self.streams.drain(..) {
            all.push(match stream {
                Stream::Endless(stream) => stream.leave().await,
                Stream::Whole(stream) => stream.whole().await,
                Stream::WebSocket(socket) => socket.close().await,
            });
        }
        // A last message may be on its way; its slot is drained when it has come.
        sleep(TICK).await;
        self.screen.streams(0);
        let open_longest = all
            .iter()
            .map(|ended| ended.messages)
            .max()
            .unwrap_or_default();
        let text = format!(
            "streams ended, {} of them cut",
            all.iter().filter(|ended| ended.cut.is_some()).count()
        );
        let detail = format!("the longest had {open_longest} messages");
        self.screen.good(&text, &detail);
        all
    }
}

/// `preparing 12 ms, starting 20 ms, …`
fn phases(outcome: &Outcome) -> String {
    let phases = outcome.phases_ms.iter();
    let phases: Vec<String> = phases
        .map(|(phase, ms)| format!("{phase} {ms} ms"))
        .collect();
    phases.join(", ")
}
