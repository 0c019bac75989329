//! The task that owns a state, in a world that is written down here and whose disk can be full. Time is paused: waits cost nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slot::daemon::owner::{AskError, Owner};
use slot::daemon::world::World;
use slot::deploy::{
    After, ByClass, Condition, Effect, Event, Notice, Request, Settings, State, Step, Time,
    UnitFailure,
};
use tokio::sync::mpsc;

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
struct Full;

/// What happened, in order.
#[derive(Clone, Debug, PartialEq)]
enum Line {
    Committed(Box<State>),
    Told(Notice),
    Began(Effect),
    GaveUp(Effect),
    Warned,
}

#[derive(Default)]
struct Written {
    full: AtomicBool,
    lines: Mutex<Vec<Line>>,
}

impl Written {
    fn write(&self, line: Line) {
        self.lines.lock().expect("nobody panics").push(line);
    }

    fn lines(&self) -> Vec<Line> {
        self.lines.lock().expect("nobody panics").clone()
    }
}

/// Writes down that an effect was given up, when it is.
struct Performing {
    world: Arc<Written>,
    effect: Effect,
}

impl Drop for Performing {
    fn drop(&mut self) {
        self.world.write(Line::GaveUp(self.effect.clone()));
    }
}

impl World for Written {
    type Error = Full;

    fn now(&self) -> Time {
        Time(1_000)
    }

    async fn commit(&self, state: &State) -> Result<(), Full> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Full);
        }
        self.write(Line::Committed(Box::new(state.clone())));
        Ok(())
    }

    async fn perform(self: Arc<Self>, effect: Effect, _report: mpsc::Sender<Event>) {
        self.write(Line::Began(effect.clone()));
        let _performing = Performing {
            world: self,
            effect,
        };
        std::future::pending().await
    }

    async fn tell(&self, notices: Vec<Notice>, _state: &State) {
        for notice in notices {
            self.write(Line::Told(notice));
        }
    }

    fn warn(&self, _error: &Full) {
        self.write(Line::Warned);
    }
}

fn settings() -> Settings {
    Settings {
        slots: ["blue", "green"]
            .map(|name| name.parse().expect("a slot name"))
            .to_vec(),
        start_timeout: Duration::from_secs(60),
        health_timeout: Duration::from_secs(30),
        drain: ByClass::all(None),
        stop_timeout: Duration::from_secs(10),
        soak: Duration::ZERO,
        soak_error_rate: None,
        migrate: None,
        hooks: BTreeSet::new(),
        after: After::default(),
        canary: None,
    }
}

fn begin() -> Event {
    Event::Begin(Request {
        by: "root".to_owned(),
        settings: settings(),
        queue: Duration::ZERO,
        weight: None,
        force: false,
        auto: false,
        planned: false,
    })
}

async fn owner() -> (Arc<Written>, Owner) {
    let world = Arc::new(Written::default());
    let first = Step {
        state: State::new(settings()),
        notices: Vec::new(),
    };
    let owner = Owner::start(Arc::clone(&world), first)
        .await
        .expect("the disk is not full yet");
    (world, owner)
}

/// An owner whose deployment starts its candidate in blue.
async fn starting() -> (Arc<Written>, Owner) {
    let (world, owner) = owner().await;
    let generation = owner.ask(begin()).await.expect("idle").generation;
    let release = "0123abcd".parse().expect("a release id");
    let mut state = owner.state();
    owner
        .report(Event::Prepared {
            generation,
            release,
        })
        .await;
    state
        .wait_for(|state| state.name() == "starting")
        .await
        .expect("the owner goes on");
    tokio::task::yield_now().await;
    (world, owner)
}

fn is_start(effect: &Effect) -> bool {
    matches!(effect, Effect::Start { .. })
}

#[tokio::test(start_paused = true)]
async fn a_state_is_on_disk_before_it_is_told_and_before_its_effects_begin() {
    let (world, _owner) = starting().await;
    let lines = world.lines();
    let position =
        |wanted: &dyn Fn(&Line) -> bool| lines.iter().position(wanted).expect("it has happened");
    let committed =
        position(&|line| matches!(line, Line::Committed(state) if state.name() == "starting"));
    let told = position(&|line| {
        matches!(
            line,
            Line::Told(Notice::Phase {
                phase: "starting",
                ..
            })
        )
    });
    let began = position(&|line| matches!(line, Line::Began(effect) if is_start(effect)));
    assert!(committed < told && told < began, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_refused_and_changes_nothing() {
    let (world, owner) = owner().await;
    world.full.store(true, Ordering::Relaxed);
    let refused = owner.ask(begin()).await;
    assert!(
        matches!(&refused, Err(AskError::NotCommitted(why)) if why.contains("the disk is full")),
        "{refused:?}"
    );
    assert_eq!(owner.state().borrow().name(), "idle");
    world.full.store(false, Ordering::Relaxed);
    assert!(owner.ask(begin()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_was_written_is_written_once_more_and_nothing_comes_of_it() {
    let (world, owner) = starting().await;
    let before = world.lines();
    owner.rewrite().await.expect("the disk is not full");
    let state = Box::new((**owner.state().borrow()).clone());
    let lines = world.lines();
    assert_eq!(lines[before.len()..], [Line::Committed(state)]);
    world.full.store(true, Ordering::Relaxed);
    let refused = owner.rewrite().await;
    assert!(
        matches!(refused, Err(AskError::NotCommitted(_))),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_written_waits_and_questions_are_answered_meanwhile() {
    let (world, owner) = starting().await;
    world.full.store(true, Ordering::Relaxed);
    let mut state = owner.state();
    let failed = Event::StartFailed {
        slot: "blue".parse().expect("a slot name"),
        generation: state.borrow().generation,
        failure: UnitFailure {
            result: "exit-code".into(),
            text: "exited with status 1".to_owned(),
        },
    };
    owner.report(failed).await;
    // Three tries later nothing has changed, and nothing of the deployment was given up.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(state.borrow().name(), "starting");
    let warned = world
        .lines()
        .iter()
        .filter(|line| **line == Line::Warned)
        .count();
    assert_eq!(warned, 4);
    assert!(matches!(
        owner.ask(begin()).await,
        Err(AskError::Refused(_))
    ));
    world.full.store(false, Ordering::Relaxed);
    state
        .wait_for(|state| state.name() == "idle")
        .await
        .expect("the owner goes on");
    let blue = state.borrow().slots.values().next().cloned().expect("blue");
    assert!(matches!(blue.condition, Condition::Stopping { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_no_state_demands_any_more_is_given_up() {
    let (world, owner) = starting().await;
    let generation = owner.state().borrow().generation;
    let failure = UnitFailure {
        result: "exit-code".into(),
        text: "exited with status 1".to_owned(),
    };
    let slot = "blue".parse().expect("a slot name");
    let mut state = owner.state();
    owner
        .report(Event::StartFailed {
            slot,
            generation,
            failure,
        })
        .await;
    state
        .wait_for(|state| state.name() == "idle")
        .await
        .expect("the owner goes on");
    tokio::task::yield_now().await;
    let lines = world.lines();
    assert!(
        lines
            .iter()
            .any(|line| matches!(line, Line::GaveUp(effect) if is_start(effect)))
    );
    assert!(
        lines
            .iter()
            .any(|line| matches!(line, Line::Began(Effect::Stop { .. })))
    );
    assert!(
        !lines
            .iter()
            .any(|line| matches!(line, Line::GaveUp(Effect::Route(_))))
    );
}
