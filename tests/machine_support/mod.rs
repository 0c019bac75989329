//! An app's state, driven by hand: the events that a deployer would report, one after the other.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeSet;
use std::time::Duration;

use slot::deploy::{
    After, BootId, ByClass, Condition, End, Event, Facts, Found, Notice, Phase, Probe, Refusal,
    ReleaseId, Request, Seen, Settings, SlotName, State, Time, UnitFailure, Weight, recover, step,
};

/// An app with what has been told of it.
#[derive(Clone, Debug)]
pub struct App {
    pub state: State,
    pub now: Time,
    pub told: Vec<Notice>,
    boots: u64,
}

pub fn slot(name: &str) -> SlotName {
    name.parse().expect("a slot name")
}

/// The release `r1`, `r2`, …
pub fn release(number: u32) -> ReleaseId {
    format!("{number:08x}").parse().expect("a release id")
}

pub fn percent(weight: u8) -> Weight {
    Weight::new(weight).expect("no more than all")
}

pub fn failure(text: &str) -> UnitFailure {
    UnitFailure {
        result: "exit-code".into(),
        text: text.to_owned(),
    }
}

pub fn probe(pass: bool) -> Probe {
    let text = if pass { "200" } else { "500 broken" };
    Probe {
        pass,
        text: text.to_owned(),
    }
}

/// Spans that tell each other apart: start 60 s, health 30 s, drain 120 s, soak 40 s.
pub fn settings() -> Settings {
    Settings {
        slots: vec![slot("blue"), slot("green")],
        start_timeout: Duration::from_secs(60),
        health_timeout: Duration::from_secs(30),
        drain: ByClass::all(Some(Duration::from_secs(120))),
        stop_timeout: Duration::from_secs(10),
        soak: Duration::from_secs(40),
        soak_error_rate: None,
        migrate: None,
        hooks: BTreeSet::new(),
        after: After::default(),
        canary: None,
    }
}

impl App {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        Self {
            state: State::new(settings),
            now: Time(1_000_000),
            told: Vec::new(),
            boots: 0,
        }
    }

    /// Something happens that is not refused.
    pub fn on(&mut self, event: Event) -> &mut Self {
        let next = step(&self.state, event.clone(), self.now)
            .unwrap_or_else(|refusal| panic!("{event:?} was refused: {refusal}"));
        self.state = next.state;
        self.told.extend(next.notices);
        self
    }

    pub fn refused(&self, event: Event) -> Refusal {
        step(&self.state, event, self.now).expect_err("this is refused")
    }

    pub fn begin(&self) -> Event {
        self.begin_at(None)
    }

    pub fn begin_at(&self, weight: Option<u8>) -> Event {
        Event::Begin(Request {
            weight: weight.map(percent),
            ..self.request()
        })
    }

    /// What a person asks for who says nothing more, and has no plan.
    pub fn request(&self) -> Request {
        Request {
            by: "root".to_owned(),
            settings: self.state.settings.clone(),
            queue: Duration::ZERO,
            weight: None,
            force: false,
            auto: false,
            planned: false,
        }
    }

    pub fn ask_rollback(&self) -> Event {
        self.ask_rollback_to(None)
    }

    pub fn ask_rollback_to(&self, to: Option<ReleaseId>) -> Event {
        Event::Rollback {
            to,
            by: "root".to_owned(),
            settings: self.state.settings.clone(),
        }
    }

    pub fn ask_promote(&self, name: &str) -> Event {
        Event::Promote {
            slot: slot(name),
            by: "root".to_owned(),
            settings: self.state.settings.clone(),
        }
    }

    pub fn ask_weight(&self, name: &str, weight: u8) -> Event {
        Event::Weigh {
            slot: slot(name),
            weight: percent(weight),
            by: "root".to_owned(),
            settings: self.state.settings.clone(),
        }
    }

    pub fn ask_swap(&self, from: &str, to: &str) -> Event {
        Event::Swap {
            from: slot(from),
            to: slot(to),
            by: "root".to_owned(),
            settings: self.state.settings.clone(),
        }
    }

    pub fn ask_abort(&self) -> Event {
        Event::Abort {
            by: "root".to_owned(),
        }
    }

    pub fn ask_stop(&self, name: &str, force: bool) -> Event {
        Event::Stop {
            slot: slot(name),
            force,
            by: "root".to_owned(),
        }
    }

    /// A deployment is asked for and its release is on disk.
    pub fn deploy(&mut self, number: u32) -> &mut Self {
        self.deploy_at(number, None)
    }

    /// The same, for a candidate that is to stay at a weight.
    pub fn deploy_at(&mut self, number: u32, weight: Option<u8>) -> &mut Self {
        self.on(self.begin_at(weight));
        let generation = self.state.generation;
        self.on(Event::Prepared {
            generation,
            release: release(number),
        })
    }

    pub fn rollback(&mut self) -> &mut Self {
        self.on(self.ask_rollback())
    }

    /// The slot that the deployment is about.
    pub fn candidate(&self) -> SlotName {
        let held = self.state.deployment.as_ref().expect("a deployment");
        held.phase.slot().expect("a candidate").clone()
    }

    /// The start job of a slot ends well.
    pub fn started(&mut self, name: &SlotName) -> &mut Self {
        let boot = self.next_boot();
        self.on(Event::Started {
            slot: name.clone(),
            generation: self.state.slots[name].generation,
            boot,
        })
    }

    pub fn next_boot(&mut self) -> BootId {
        self.boots += 1;
        format!("{:032x}", self.boots).parse().expect("a boot id")
    }

    pub fn boot(&self, name: &SlotName) -> BootId {
        let boot = self.state.slots[name].boot.clone();
        boot.unwrap_or_else(|| panic!("{name} runs"))
    }

    pub fn probed(&mut self, name: &SlotName, pass: bool) -> &mut Self {
        self.on(Event::Probed {
            slot: name.clone(),
            boot: self.boot(name),
            probe: probe(pass),
        })
    }

    /// Every router has the table that the state asks for.
    pub fn routed(&mut self) -> &mut Self {
        self.on(Event::Routed {
            table: self.state.table,
        })
    }

    pub fn drained(&mut self, name: &str) -> &mut Self {
        self.on(Event::Drained {
            slot: slot(name),
            boot: self.state.slots[&slot(name)].boot.clone(),
        })
    }

    pub fn stopped(&mut self, name: &str) -> &mut Self {
        self.on(Event::Stopped {
            slot: slot(name),
            killed: false,
        })
    }

    pub fn vanished(&mut self, name: &str, end: End) -> &mut Self {
        let boot = self.boot(&slot(name));
        self.on(Event::Vanished {
            slot: slot(name),
            boot,
            end,
        })
    }

    /// The candidate does not come up, and is gone.
    pub fn vanished_at_start(&mut self) -> &mut Self {
        let (name, generation) = (self.candidate(), self.state.generation);
        self.on(Event::StartFailed {
            slot: name.clone(),
            generation,
            failure: failure("exited with status 1"),
        });
        self.stopped(name.as_str())
    }

    /// What the deployment is to make active, once its slot is chosen.
    pub fn candidate_release(&self) -> Option<ReleaseId> {
        self.state.slots[&self.candidate()].release.clone()
    }

    /// A unit is up that no start of ours began.
    pub fn appeared(&mut self, name: &str, number: u32) -> &mut Self {
        let boot = self.next_boot();
        self.on(Event::Appeared {
            slot: slot(name),
            boot,
            release: Some(release(number)),
            settings: self.state.settings.clone(),
        })
    }

    /// Time passes.
    pub fn wait(&mut self, seconds: u64) -> &mut Self {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.on(Event::Tick)
    }

    /// A release goes all the way to the switch.
    pub fn serve(&mut self, number: u32) -> &mut Self {
        self.deploy(number).pass_gates()
    }

    /// The candidate starts, is healthy, and the routers get the table.
    pub fn pass_gates(&mut self) -> &mut Self {
        self.pass_gates_but_the_last().routed()
    }

    /// The candidate starts and is healthy; the routers are being told.
    pub fn pass_gates_but_the_last(&mut self) -> &mut Self {
        let candidate = self.candidate();
        self.started(&candidate).probed(&candidate, true)
    }

    /// The soak ends well, and what it kept is gone.
    pub fn settle(&mut self) -> &mut Self {
        self.wait(self.state.settings.soak.as_secs());
        let draining: Vec<SlotName> = self.state.slots.keys().cloned().collect();
        for name in draining {
            if matches!(self.condition(&name), Condition::Draining { .. }) {
                self.drained(name.as_str()).stopped(name.as_str());
            }
        }
        self
    }

    pub fn condition(&self, name: &SlotName) -> &Condition {
        &self.state.slots[name].condition
    }

    /// The name of a slot's condition.
    pub fn is(&self, name: &str) -> &'static str {
        self.condition(&slot(name)).name()
    }

    pub fn active(&self) -> &str {
        self.state.active.as_ref().map_or("-", SlotName::as_str)
    }

    /// What a slot has of new requests.
    pub fn weight(&self, name: &str) -> u8 {
        self.state.weight(&slot(name)).get()
    }

    pub fn phase(&self) -> Option<&'static str> {
        self.state.deployment.as_ref().map(|held| held.phase.name())
    }

    /// The code of the cause with which the last attempt ended.
    pub fn cause(&self) -> &'static str {
        let outcome = self.state.outcome.as_ref().expect("an attempt has ended");
        outcome.cause.code()
    }

    pub fn is_waiting(&self) -> bool {
        let held = self.state.deployment.as_ref();
        held.is_some_and(|held| matches!(held.phase, Phase::Waiting { .. }))
    }

    /// What a deployer finds that starts now: every unit as the state knows it.
    pub fn facts(&self) -> Facts {
        let found = |name: &SlotName| {
            let known = &self.state.slots[name];
            let seen = match (&known.boot, &known.condition) {
                (Some(boot), _) => Seen::Running(boot.clone()),
                (None, Condition::Starting) => Seen::Coming,
                (None, _) => Seen::Ended(End::Failed(failure("not found"))),
            };
            let release = known.release.clone();
            Found { seen, release }
        };
        let slots = self.state.slots.keys();
        let serving = self.state.active.as_ref();
        Facts {
            settings: self.state.settings.clone(),
            rebooted: false,
            slots: slots.map(|name| (name.clone(), found(name))).collect(),
            routed: serving.cloned(),
            shared: self.state.given().map(|(name, _)| name.clone()).collect(),
            serving: serving.and_then(|name| self.state.slots[name].boot.clone()),
            generation: self.state.generation,
            live: self.state.live().cloned(),
            prev: self.state.prev.clone(),
        }
    }

    /// What is found right after a reboot: nothing runs.
    pub fn facts_after_reboot(&self) -> Facts {
        let mut facts = self.facts();
        facts.rebooted = true;
        facts.serving = None;
        for found in facts.slots.values_mut() {
            found.seen = Seen::Ended(End::ByHand);
        }
        facts
    }

    pub fn recover(&mut self, facts: &Facts) -> &mut Self {
        let taken = recover(&self.state, facts, self.now);
        self.state = taken.state;
        self.told.extend(taken.notices);
        self
    }
}
