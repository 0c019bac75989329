//! A machine with units, routers and a deployer, all of them numbers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use slot::deploy::{
    After, BootId, ByClass, Canary, CanaryStep, Cause, Checks, Condition, Effect, End, Event,
    Evidence, Expected, Facts, Failing, Fingerprint, Found, Generation, Guard, Hook, Key, Kind,
    Migrate, Notice, Phase, Probe, Quiet, RESTARTS, Rate, Refusal, ReleaseId, Request, Route,
    Sample, Seen, Service, Settings, Sides, SlotName, Stage, State, Step, Time, Topic, UnitFailure,
    Verdict, Weight, effects, judge, plan, recover, rediscover, step, step_ends,
};

use crate::random::Random;

/// How long faults go on, and how long everything has to settle afterwards, in milliseconds of the simulation.
const FAULTS: u64 = 90_000;
const SETTLE: u64 = 200_000;

/// One thing that will happen.
#[derive(Clone, Debug)]
enum Coming {
    /// A result or an observation reaches the deployer, if it is the one that it was for.
    Event(u64, Event),
    /// An effect is performed once more, if it is still demanded of this deployer.
    Perform(u64, Effect),
    /// A unit that was starting is up, or one that crashed starts again.
    UnitUp(SlotName, u64),
    /// A unit's process ends by itself.
    UnitCrash(SlotName, u64),
    /// A stop job ends.
    UnitStopped(SlotName, u64, u64),
    /// A request or stream ends.
    Ends(SlotName, Option<BootId>, u64),
    /// A client sends a request.
    Arrives,
    /// Somebody does something.
    Person,
    /// Somebody asks for the rollback once more.
    Again,
    /// Something breaks.
    Fault,
}

#[derive(Clone, Debug)]
struct Unit {
    /// Grows with every run, so that what was planned for an earlier one does not happen to a later one.
    run: u64,
    phase: Run,
    healthy: u64,
    gated: bool,
    /// Its processes stand still.
    frozen: bool,
    /// The end of its last run was no failure.
    clean: bool,
    /// How often it is still to end like that soon.
    loops: u8,
    release: Option<ReleaseId>,
}

impl Unit {
    /// How its last run ended, after which it starts again.
    fn end(&self) -> End {
        End::Restarting(match self.clean {
            true => UnitFailure::restarted(),
            false => failure("signal"),
        })
    }
}

/// What is in the way of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
enum TableFault {
    None,
    /// It cannot be written, so no router gets it.
    Disk,
    /// A router that has it does not say so.
    Router,
}

#[derive(Clone, Debug, PartialEq)]
enum Run {
    Ended(End),
    Coming,
    Running(BootId),
    /// SIGTERM was sent; the process may still answer.
    Stopping(BootId),
}

pub struct Machine {
    random: Random,
    trace: bool,
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    planned: BTreeMap<u64, Coming>,
    faulty: bool,
    /// On disk.
    state: State,
    /// Of the deployer that runs; results for an earlier one are lost.
    deployer: u64,
    running: Vec<Effect>,
    units: BTreeMap<SlotName, Unit>,
    /// What the routers have.
    table: Option<Route>,
    /// What is on disk for routers that start.
    table_on_disk: Option<Route>,
    table_fault: TableFault,
    router_run: u64,
    in_flight: BTreeMap<(SlotName, Option<BootId>), u64>,
    boots: u64,
    rebooted: bool,
    switches: BTreeMap<Generation, u64>,
    rollbacks: BTreeMap<Generation, u64>,
    /// Runs of candidates whose deployment failed while they had a weight, and the table from which on they have none.
    withdrawn: BTreeMap<BootId, u64>,
    reached: BTreeMap<&'static str, u64>,
    uploads: Vec<Generation>,
    /// The number of the last notice that was posted.
    posted: u64,
    /// The rollbacks that somebody asked for.
    asked_back: BTreeSet<Generation>,
    /// What a rollback brought, while nothing else has switched.
    brought: Option<ReleaseId>,
}

fn slot(name: &str) -> SlotName {
    name.parse().expect("a slot name")
}

impl Machine {
    pub fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let names = if random.percent(30) {
            vec!["blue", "green", "red"]
        } else {
            vec!["blue", "green"]
        };
        let slots: Vec<SlotName> = names.iter().map(|name| slot(name)).collect();
        let settings = settings(&mut random, &slots);
        let idle = Unit {
            run: 0,
            phase: Run::Ended(End::ByHand),
            healthy: 100,
            gated: false,
            frozen: false,
            clean: false,
            loops: 0,
            release: None,
        };
        let mut machine = Self {
            random,
            trace,
            now: 1_000_000,
            sequence: 0,
            queue: BinaryHeap::new(),
            planned: BTreeMap::new(),
            faulty: true,
            state: State::new(settings),
            deployer: 1,
            running: Vec::new(),
            units: slots.into_iter().map(|name| (name, idle.clone())).collect(),
            table: None,
            table_on_disk: None,
            table_fault: TableFault::None,
            router_run: 0,
            in_flight: BTreeMap::new(),
            boots: 0,
            rebooted: false,
            switches: BTreeMap::new(),
            rollbacks: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            reached: BTreeMap::new(),
            uploads: Vec::new(),
            posted: 0,
            asked_back: BTreeSet::new(),
            brought: None,
        };
        if machine.random.percent(30) {
            machine.state.topics = Topic::ALL.map(|(_, topic)| topic).into();
        }
        machine.perform();
        machine.plan(10, Coming::Arrives);
        machine.plan(100, Coming::Person);
        machine.plan(2_000, Coming::Fault);
        machine
    }

    pub fn reached(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.reached.iter().map(|(what, count)| (*what, *count))
    }

    pub fn run_with_faults(&mut self) -> Result<(), String> {
        let end = self.now + FAULTS;
        self.run_until(end)
    }

    /// No more faults and people; everything that was begun must end, and the active slot must serve.
    pub fn settle(&mut self) -> Result<(), String> {
        self.faulty = false;
        self.table_fault = TableFault::None;
        for unit in self.units.values_mut() {
            unit.healthy = 100;
        }
        // Uploads end, one way or the other; their client is gone.
        for generation in std::mem::take(&mut self.uploads) {
            self.plan(
                10,
                Coming::Event(
                    self.deployer,
                    Event::Unprepared {
                        generation,
                        why: "gone".to_owned(),
                    },
                ),
            );
        }
        self.run_until(self.now + SETTLE)?;
        // A candidate at a weight waits for somebody to say how to go on, as long as that takes.
        if let Some(slot) = self.state.on_trial().cloned() {
            let held = self.state.deployment.as_ref().and_then(plan);
            if held.is_some_and(|(_, plan, _)| plan.paused.is_none() && !plan.finished) {
                return Err(format!("not settled: a plan goes on: {:?}", self.state));
            }
            if !self.state.everywhere {
                return Err(format!(
                    "not settled: nobody has the table: {:?}",
                    self.state
                ));
            }
            let (by, settings) = ("person".to_owned(), self.state.settings.clone());
            let told = match self.random.percent(50) {
                true => Event::Promote { slot, by, settings },
                false => Event::Abort { by },
            };
            self.deliver(told)?;
            self.run_until(self.now + SETTLE)?;
        }
        let state = &self.state;
        let check = |holds: bool, what: &str| {
            if holds {
                Ok(())
            } else {
                Err(format!("not settled: {what}: {state:?}"))
            }
        };
        check(state.deployment.is_none(), "a deployment goes on")?;
        check(state.watch.is_none(), "a watch goes on")?;
        check(state.due.is_empty(), "a hook is still due")?;
        check(state.untold.is_empty(), "a notice is not posted")?;
        for (name, slot) in &state.slots {
            let settled = match &slot.condition {
                Condition::Idle
                | Condition::Failed(_)
                | Condition::Standby { .. }
                | Condition::Trial { .. } => true,
                Condition::Active(service) => {
                    *service == Service::Up || *service == Service::ByHand
                }
                Condition::Draining { until, .. } => until.last().is_none() && self.held(name) > 0,
                Condition::Starting
                | Condition::Ready
                | Condition::Warm { .. }
                | Condition::Stopping { .. } => false,
            };
            check(settled, &format!("{name} is {}", slot.condition.name()))?;
        }
        if let Some(active) = &state.active {
            let table = self.table.as_ref().and_then(|table| table.active.as_ref());
            check(
                table == Some(active),
                "the routers have another active slot",
            )?;
        }
        Ok(())
    }

    fn run_until(&mut self, end: u64) -> Result<(), String> {
        loop {
            let event_at = self.queue.peek().map(|Reverse((at, _))| *at);
            let deadline = self.state.next_deadline().map(|at| at.0.max(self.now));
            let at = event_at.into_iter().chain(deadline).min().unwrap_or(end);
            if at >= end {
                self.now = end;
                return Ok(());
            }
            self.now = at.max(self.now);
            if event_at == Some(at) {
                let Some(Reverse((_, key))) = self.queue.pop() else {
                    continue;
                };
                let coming = self
                    .planned
                    .remove(&key)
                    .expect("what is queued is planned");
                self.happen(coming)?;
            } else {
                self.deliver(Event::Tick)?;
            }
        }
    }

    fn plan(&mut self, after: u64, coming: Coming) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + after, self.sequence)));
        self.planned.insert(self.sequence, coming);
    }

    fn note(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    fn happen(&mut self, coming: Coming) -> Result<(), String> {
        match coming {
            Coming::Event(deployer, event) => {
                if deployer == self.deployer {
                    self.deliver(event)?;
                }
            }
            Coming::Perform(deployer, effect) => {
                if deployer == self.deployer && self.running.contains(&effect) {
                    self.perform_one(effect)?;
                }
            }
            Coming::UnitUp(name, run) => self.unit_up(&name, run),
            Coming::UnitCrash(name, run) => self.unit_crash(&name, run),
            Coming::UnitStopped(name, run, deployer) => self.unit_stopped(&name, run, deployer),
            Coming::Ends(name, boot, router) => {
                if router == self.router_run
                    && let Some(count) = self.in_flight.get_mut(&(name, boot))
                {
                    *count = count.saturating_sub(1);
                }
            }
            Coming::Arrives => {
                self.request()?;
                if self.faulty {
                    let after = self.random.between(20, 400);
                    self.plan(after, Coming::Arrives);
                }
            }
            Coming::Person => {
                if self.faulty {
                    self.person()?;
                    let after = self.random.between(200, 9_000);
                    self.plan(after, Coming::Person);
                }
            }
            Coming::Again => {
                if self.faulty {
                    let settings = self.state.settings.clone();
                    self.rollback(None, settings)?;
                }
            }
            Coming::Fault => {
                if self.faulty {
                    self.fault()?;
                    let after = self.random.between(500, 20_000);
                    self.plan(after, Coming::Fault);
                }
            }
        }
        Ok(())
    }

    // The deployer.

    fn deliver(&mut self, event: Event) -> Result<(), String> {
        if self.trace {
            println!("{:>8} {event:?}", self.now);
        }
        let before = self.state.clone();
        let Ok(next) = step(&self.state, event.clone(), Time(self.now)) else {
            return Ok(());
        };
        self.commit(next)?;
        self.followed(&before, &event)?;
        self.ended_in_a_soak(&before, &event)?;
        let repeatable = !matches!(
            event,
            Event::Probed { .. }
                | Event::Measured { .. }
                | Event::Begin(_)
                | Event::Rollback { .. }
                | Event::Promote { .. }
                | Event::Guarded { .. }
        );
        if repeatable {
            // The same again changes nothing, whatever else does.
            let again = step(&self.state, event.clone(), Time(self.now)).map(|again| again.state);
            if again.as_ref().is_ok_and(|again| *again != self.state) {
                return Err(format!(
                    "{event:?} again made {again:?} of {:?} (before: {before:?})",
                    self.state
                ));
            }
        }
        if self.faulty && self.random.percent(2) {
            // Killed after the commit, before any effect of it.
            return self.crash();
        }
        self.perform();
        Ok(())
    }

    /// A plan goes on by one step, when that has had its time, and by nothing but a verdict that says so.
    fn followed(&mut self, before: &State, event: &Event) -> Result<(), String> {
        let Some((canary, was, slot)) = before.deployment.as_ref().and_then(plan) else {
            return Ok(());
        };
        let now = (self.state.deployment.as_ref()).filter(|held| {
            before.deployment.as_ref().map(|held| held.generation) == Some(held.generation)
        });
        let is = now.and_then(plan).map(|(_, is, _)| is.step);
        let switches = now.is_some_and(|held| matches!(held.phase, Phase::Shifting { .. }));
        if is == Some(was.step) || (is.is_none() && !switches) {
            return Ok(());
        }
        let by_plan = matches!(
            event,
            Event::Measured { .. } | Event::Hooked { .. } | Event::Pause { .. }
        );
        if switches && !by_plan {
            // Somebody gave it everything.
            self.note("promoted in a plan");
            return Ok(());
        }
        let checked = matches!(
            event,
            Event::Hooked {
                hook: Hook::Check,
                failure: None,
                ..
            }
        );
        // The check comes after the verdict, and may end while the plan stands still.
        if checked || (was.check == Stage::Passed && matches!(event, Event::Pause { .. })) {
            self.note("a check passed");
            return Ok(());
        }
        let Event::Measured { evidence, .. } = event else {
            return Err(format!("{event:?} took {slot} on"));
        };
        self.note("a step passed");
        let verdict = judge(&canary.checks, evidence);
        let good = verdict == Verdict::Pass
            || matches!(&verdict, Verdict::Hold(lack) if canary.advances(lack));
        let impatient = evidence.whole.candidate.given_up > 0;
        if good && impatient {
            return Err(format!(
                "{slot} went on, and its clients give up: {verdict:?}"
            ));
        }
        let last = was.step + 1 == canary.steps.len();
        let over = step_ends(canary, was).is_some_and(|ends| ends <= Time(self.now));
        let next = match is {
            Some(is) => is == was.step + 1,
            None => last && canary.auto_promote,
        };
        match good && over && next {
            true => Ok(()),
            false => Err(format!("{event:?} took {slot} on, at {was:?}")),
        }
    }

    /// Where there is a slot to go back to, the first end that is a failure is enough, and of the others the third since the switch, or the
    /// next one if there was none at that time.
    fn ended_in_a_soak(&mut self, before: &State, event: &Event) -> Result<(), String> {
        let Event::Vanished { slot, boot, end } = event else {
            return Ok(());
        };
        let watch = before.watch.as_ref().filter(|watch| {
            watch.rolling_back.is_none()
                && watch.new == *slot
                && before.active.as_ref() == Some(slot)
        });
        let run = (before.slots.get(slot)).and_then(|slot| slot.boot.as_ref());
        let Some(watch) = watch.filter(|_| run == Some(boot)) else {
            return Ok(());
        };
        let old = watch.old.as_ref().and_then(|old| before.slots.get(old));
        let runs = old.is_some_and(|old| {
            let keeps = matches!(
                old.condition,
                Condition::Warm { gated: true, .. }
                    | Condition::Draining {
                        withdrawn: false,
                        ..
                    }
            );
            keeps && old.boot.is_some()
        });
        if !runs {
            return Ok(());
        }
        let clean = matches!(end, End::Restarting(failure) if failure.is_clean());
        let goes_back = self.state.active == watch.old;
        self.note(match (clean, goes_back) {
            (true, true) => "restarted too often",
            (true, false) => "restarted in a soak",
            (false, _) => "failed in a soak",
        });
        match goes_back == (!clean || watch.restarts + 1 >= RESTARTS) {
            true => Ok(()),
            false => Err(format!(
                "{event:?}, with {watch:?}, and {:?} is active",
                self.state.active
            )),
        }
    }

    fn commit(&mut self, next: Step) -> Result<(), String> {
        let before = std::mem::replace(&mut self.state, next.state);
        for notice in next.notices {
            self.told(&before, &notice)?;
        }
        self.check().map_err(|violated| {
            format!("{violated} at {}: {before:?} -> {:?}", self.now, self.state)
        })
    }

    fn told(&mut self, before: &State, notice: &Notice) -> Result<(), String> {
        if self.trace {
            println!("{:>8}     {notice:?}", self.now);
        }
        match notice {
            Notice::Ended(outcome) => {
                self.note(match &outcome.cause {
                    Cause::Left(_) => "not brought back",
                    cause => cause.code(),
                });
                if outcome.cause == Cause::Switched {
                    let own = self.state.rolled_back.as_ref().is_some_and(|back| {
                        back.at == Time(self.now) && back.release.as_ref() == self.state.live()
                    });
                    let back = own || self.asked_back.contains(&outcome.generation);
                    // What was brought and is started anew is what was brought.
                    let back = back || self.brought.as_ref() == self.state.live();
                    self.brought = self.state.live().filter(|_| back).cloned();
                    let held = before.deployment.as_ref();
                    let resurrected = held.is_some_and(|held| {
                        let marked = outcome.release.as_ref();
                        let marked = marked.is_some_and(|id| before.marked.contains_key(id));
                        let forced = held.force || held.kind == Kind::ByHand;
                        marked && !forced && held.kind != Kind::Promote
                    });
                    if resurrected {
                        return Err(format!("{outcome:?} was rolled back before"));
                    }
                    // One that was given a weight when there was no hook yet has had requests: it is too late for what comes before.
                    let at_once = outcome.entered.first().map(|(phase, _)| *phase);
                    let held = held.filter(|_| at_once != Some("shifting"));
                    let unhooked = held.is_some_and(|held| {
                        matches!(held.kind, Kind::Deploy | Kind::Promote)
                            && held.settings.hooks.contains(&Hook::BeforeSwitch)
                            && held.before_switch != Stage::Passed
                    });
                    if unhooked {
                        return Err(format!("{outcome:?} without its hook"));
                    }
                    let back = before.went_back.iter();
                    let back = back.filter(|back| Some(&back.release) == outcome.previous.as_ref());
                    let left = back.flat_map(|back| back.before.iter().chain(&back.left));
                    let mut unwanted = left.chain(&outcome.previous);
                    let held = before.deployment.as_ref();
                    if held.is_some_and(|held| held.auto)
                        && unwanted.any(|id| outcome.release.as_ref() == Some(id))
                    {
                        return Err(format!(
                            "nobody asked for what was live or was left: {outcome:?}"
                        ));
                    }
                    let count = self.switches.entry(outcome.generation).or_default();
                    *count += 1;
                    if *count > 1 {
                        return Err(format!("generation {} switched twice", outcome.generation));
                    }
                } else if outcome.phase != "shifting" || before.on_trial().is_some() {
                    self.withdrawn(before);
                    let active = before.active.as_ref();
                    // A rollback, or a stop of everything, may be what ended it.
                    let untouched = active == self.state.active.as_ref()
                        || outcome.cause == Cause::Preempted
                        || matches!(outcome.cause, Cause::Marked(_))
                        || matches!(outcome.cause, Cause::Aborted(_));
                    if !untouched {
                        return Err(format!(
                            "a failed attempt changed the active slot: {outcome:?}"
                        ));
                    }
                }
            }
            Notice::Soak { cause, .. } => {
                self.note(cause.code());
                let old = before.watch.as_ref().and_then(|watch| watch.old.as_ref());
                let is_kept = old.is_some_and(|old| {
                    let known = self.state.slots.get(old);
                    let warm =
                        known.is_some_and(|it| matches!(it.condition, Condition::Warm { .. }));
                    warm && !self.state.lingering.contains(old)
                });
                if *cause == Cause::Superseded && is_kept {
                    return Err("a soak is superseded and its old slot does not drain".to_owned());
                }
            }
            Notice::RolledBack(back) => {
                self.note("rolled-back");
                self.note(back.cause.code());
                self.brought.clone_from(&back.release);
                let generation = back.generation;
                let count = self.rollbacks.entry(generation).or_default();
                *count += 1;
                if *count > 1 {
                    return Err(format!("generation {generation} was rolled back twice"));
                }
            }
            Notice::Failing { to, .. } => self.note(match to {
                None => "failing",
                Some(Ok(_)) => "left",
                Some(Err(_)) => "not left",
            }),
            Notice::Returned(_) => self.note("returned"),
            Notice::Forced { .. } => self.note("forced"),
            Notice::Down { .. } => self.note("down"),
            Notice::Up { .. } => self.note("up"),
            Notice::Weighed { cause: None, .. } => self.note("weighed"),
            Notice::Holds { .. } => self.note("held"),
            Notice::Weighed { cause: Some(_), .. } => self.note("weight lost"),
            Notice::Began { .. }
            | Notice::Phase { .. }
            | Notice::Draining { .. }
            | Notice::Stopped { .. }
            | Notice::StandsBy { .. } => {}
            Notice::Hooked { occasion, .. } => self.note(occasion.hook.name()),
        }
        Ok(())
    }

    /// A deployment failed whose candidate had a weight: that run of it is to get no request any more.
    fn withdrawn(&mut self, before: &State) {
        let candidate = before.on_trial().and_then(|name| before.slots.get(name));
        if let Some(boot) = candidate.and_then(|slot| slot.boot.clone()) {
            self.note("withdrawn");
            self.withdrawn.insert(boot, self.state.table);
        }
    }

    /// What is true of every state.
    fn check(&self) -> Result<(), String> {
        let state = &self.state;
        let check = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        if let Some(what) = state.contradiction() {
            return Err(what.to_owned());
        }
        let weights = state.slots.keys().map(|name| state.weight(name).get());
        let all: u32 = weights.map(u32::from).sum();
        let wanted = if state.active.is_some() { 100 } else { 0 };
        check(all == wanted, "the weights do not add up")?;
        for slot in state.slots.values() {
            match &slot.condition {
                Condition::Active(Service::Up) => {
                    check(slot.boot.is_some(), "the active slot is up without a run")?
                }
                Condition::Draining { .. } => check(slot.boot.is_some(), "nothing drains")?,
                Condition::Idle | Condition::Failed(_) => {
                    check(slot.boot.is_none(), "a slot is idle and runs")?
                }
                Condition::Starting
                | Condition::Ready
                | Condition::Standby { .. }
                | Condition::Trial { .. }
                | Condition::Active(_)
                | Condition::Warm { .. }
                | Condition::Stopping { .. } => {}
            }
        }
        if let Some(watch) = &state.watch {
            let left = state
                .deployment
                .as_ref()
                .and_then(|held| match &held.phase {
                    Phase::Shifting { from, .. } => from.as_ref(),
                    _ => None,
                });
            if watch.rolling_back.is_none() {
                check(
                    left.or(state.active.as_ref()) == Some(&watch.new),
                    "what is watched is neither active nor what a switch is made from",
                )?;
            }
            if let Some(old) = &watch.old {
                let kept = matches!(
                    state.slots[old].condition,
                    Condition::Warm { .. } | Condition::Draining { .. } | Condition::Active(_)
                );
                check(kept, "what is kept for the soak is gone")?;
            }
        }
        let held = state.deployment.as_ref();
        let soaks = (state.watch.as_ref()).filter(|watch| watch.rolling_back.is_none());
        if let (Some(held), Some(watch)) = (held, soaks)
            && held.kind == Kind::Deploy
        {
            let takes = match &held.phase {
                Phase::Preparing { .. } => false,
                Phase::Waiting { .. } => watch.old.is_some(),
                Phase::Starting { .. }
                | Phase::Ready { .. }
                | Phase::Trial { .. }
                | Phase::Shifting { .. } => true,
            };
            check(
                !takes,
                "a deployment has taken a slot, and the soak goes on",
            )?;
        }
        // Until the routers have the table, `prev` is still what it was before.
        check(
            state.name() == "shifting"
                || state.prev.is_none()
                || state.prev.as_ref() != state.live(),
            "prev is live",
        )
    }

    fn perform(&mut self) {
        let demanded = effects(&self.state);
        let new: Vec<Effect> = demanded
            .iter()
            .filter(|effect| !self.running.contains(effect))
            .cloned()
            .collect();
        self.running = demanded;
        for effect in new {
            let after = self.random.between(0, 3);
            self.plan(after, Coming::Perform(self.deployer, effect));
        }
    }

    fn crash(&mut self) -> Result<(), String> {
        self.note("crash");
        if self.trace {
            println!("{:>8} ---- crash, rebooted: {}", self.now, self.rebooted);
        }
        self.deployer += 1;
        self.running.clear();
        self.uploads.clear();
        let slots = self.units.iter().map(|(name, unit)| {
            let seen = match &unit.phase {
                Run::Ended(end) => Seen::Ended(end.clone()),
                Run::Coming => Seen::Coming,
                Run::Running(boot) => Seen::Running(boot.clone()),
                Run::Stopping(_) => Seen::Ended(End::ByHand),
            };
            (
                name.clone(),
                Found {
                    seen,
                    release: unit.release.clone(),
                },
            )
        });
        let facts = Facts {
            settings: self.state.settings.clone(),
            rebooted: std::mem::take(&mut self.rebooted),
            slots: slots.collect(),
            routed: self
                .table_on_disk
                .as_ref()
                .and_then(|table| table.active.clone()),
            serving: self
                .table_on_disk
                .as_ref()
                .filter(|table| table.ready)
                .and_then(|table| {
                    let (_, boot) = table
                        .boots
                        .iter()
                        .find(|(name, _)| Some(name) == table.active.as_ref())?;
                    Some(boot.clone())
                }),
            shared: self
                .table_on_disk
                .iter()
                .flat_map(|table| table.trials.iter().map(|(name, _)| name.clone()))
                .collect(),
            generation: self.state.generation,
            live: self.state.live().cloned(),
            prev: self.state.prev.clone(),
        };
        let mut before = self.state.clone();
        if self.random.percent(3) {
            before = rediscover(&facts, Time(self.now));
            // What was remembered is lost with the file; what serves is not.
            if let (Some(known), Some(found)) = (&self.state.active, &before.active) {
                let serves = matches!(self.units[known].phase, Run::Running(_))
                    && facts.routed.as_ref() == Some(known);
                if serves && known != found {
                    return Err(format!("rediscovered {found} while {known} serves"));
                }
            }
            self.state = before.clone();
            self.brought = None;
            // Tables are counted anew.
            self.withdrawn.clear();
        }
        let next = recover(&before, &facts, Time(self.now));
        self.commit(next)?;
        self.perform();
        Ok(())
    }

    // Effects.

    fn perform_one(&mut self, effect: Effect) -> Result<(), String> {
        match &effect {
            Effect::Start {
                slot,
                generation,
                release,
                ..
            } => self.start(&effect, slot, *generation, release)?,
            Effect::Probe { slot, boot, .. } => self.probe(slot, boot, &effect),
            Effect::Route(route) => {
                let route = route.clone();
                if self.table_fault != TableFault::Disk {
                    self.table_on_disk = Some(route.clone());
                    self.table = Some(route.clone());
                }
                if self.table_fault != TableFault::None {
                    self.plan(500, Coming::Perform(self.deployer, effect.clone()));
                    if self.random.percent(20) {
                        self.answer(Event::Unrouted {
                            table: route.table,
                            why: "no space left".to_owned(),
                        });
                    }
                    return Ok(());
                }
                if self.random.percent(50) {
                    let pass = self.random.percent(95);
                    let (table, text) = (route.table, "asked".to_owned());
                    let probe = Probe { pass, text };
                    self.answer(Event::Reached { table, probe });
                }
                self.answer(Event::Routed { table: route.table });
            }
            Effect::Drain { slot, boot, until } => {
                let held = self
                    .in_flight
                    .get(&(slot.clone(), boot.clone()))
                    .copied()
                    .unwrap_or(0);
                if held == 0 {
                    self.answer(Event::Drained {
                        slot: slot.clone(),
                        boot: boot.clone(),
                    });
                } else if until.tunnels.is_some_and(|at| at <= Time(self.now))
                    && self.random.percent(50)
                {
                    self.answer(Event::Overdue {
                        slot: slot.clone(),
                        boot: boot.clone(),
                    });
                } else {
                    let after = self.random.between(50, 200);
                    self.plan(after, Coming::Perform(self.deployer, effect.clone()));
                }
            }
            Effect::Freeze { slot, boot } => {
                let held = (slot.clone(), Some(boot.clone()));
                if self.in_flight.get(&held).is_some_and(|held| *held > 0) {
                    return Err(format!("{slot} is frozen with something in flight"));
                }
                let unit = self.units.get_mut(slot).expect("a known slot");
                if unit.phase == Run::Running(boot.clone()) {
                    unit.frozen = true;
                    // Whoever reaches it again has been probed since.
                    unit.gated = false;
                    self.note("frozen");
                }
            }
            Effect::Stop { slot } => self.stop(slot)?,
            Effect::Hook(occasion) => {
                let fails = self.random.percent(25);
                let after = self.random.between(0, 4_000);
                let event = Event::Hooked {
                    hook: occasion.hook,
                    generation: occasion.generation,
                    failure: fails.then(|| failure("exit-code")),
                };
                self.plan(after, Coming::Event(self.deployer, event));
            }
            Effect::Measure(what) => {
                let evidence = self.measured();
                self.answer(Event::Measured {
                    of: what.of,
                    generation: what.generation,
                    evidence,
                });
                self.plan(1_000, Coming::Perform(self.deployer, effect.clone()));
            }
            Effect::Post(tiding) => {
                if tiding.number < self.posted {
                    return Err("a notice is posted before an older one".to_owned());
                }
                self.posted = tiding.number;
                self.answer(Event::Posted {
                    number: tiding.number,
                });
            }
            Effect::Link { .. } | Effect::Retain { .. } => {}
        }
        Ok(())
    }

    /// What the routers count: mostly good, sometimes bad, sometimes next to nothing.
    fn measured(&mut self) -> Evidence {
        let (requests, errors) = match self.random.between(0, 100) {
            0..3 if self.faulty => (200, 100),
            3..60 => (2, 0),
            _ => (200, 1),
        };
        let given_up = match self.random.between(0, 100) {
            0..10 => 50,
            _ => 0,
        };
        let sample = |requests, errors, given_up| Sample {
            requests,
            errors,
            given_up,
            ..Sample::default()
        };
        let whole = Sides {
            candidate: sample(requests, errors, given_up),
            live: sample(1_000, 0, 0),
        };
        Evidence {
            recent: whole.clone(),
            whole,
        }
    }

    /// A result: late, or twice, or (until it is performed again) not at all.
    fn answer(&mut self, event: Event) {
        let after = self.random.between(0, 5);
        self.plan(after, Coming::Event(self.deployer, event.clone()));
        if self.faulty && self.random.percent(5) {
            let after = self.random.between(0, 8_000);
            self.plan(after, Coming::Event(self.deployer, event));
        }
    }

    fn start(
        &mut self,
        effect: &Effect,
        name: &SlotName,
        generation: Generation,
        release: &ReleaseId,
    ) -> Result<(), String> {
        let again = effect.clone();
        if self.state.active.as_ref() != Some(name) && self.sends_to(name) {
            return Err(format!("{name} is started while the routers send to it"));
        }
        let unit = self.units.get_mut(name).expect("a known slot");
        match &unit.phase {
            Run::Running(boot) => {
                let boot = boot.clone();
                self.answer(Event::Started {
                    slot: name.clone(),
                    generation,
                    boot,
                });
                return Ok(());
            }
            Run::Stopping(_) => {
                self.plan(100, Coming::Perform(self.deployer, again));
                return Ok(());
            }
            Run::Coming => {}
            Run::Ended(_) => {
                unit.run += 1;
                unit.phase = Run::Coming;
                unit.release = Some(release.clone());
                unit.gated = false;
                unit.frozen = false;
                let run = unit.run;
                unit.healthy = if !self.faulty || self.random.percent(75) {
                    100
                } else {
                    self.random.between(0, 100)
                };
                let takes = if self.faulty && self.random.percent(5) {
                    100_000
                } else {
                    self.random.between(20, 1_500)
                };
                if self.faulty && self.random.percent(8) {
                    let failure = failure("exit-code");
                    self.units.get_mut(name).expect("a known slot").phase =
                        Run::Ended(End::Failed(failure.clone()));
                    self.answer(Event::StartFailed {
                        slot: name.clone(),
                        generation,
                        failure,
                    });
                    return Ok(());
                }
                self.plan(takes, Coming::UnitUp(name.clone(), run));
            }
        }
        // Asked again until it is up: a start job that is waited for.
        self.plan(50, Coming::Perform(self.deployer, again));
        Ok(())
    }

    fn unit_up(&mut self, name: &SlotName, run: u64) {
        self.boots += 1;
        let boot: BootId = format!("{:032x}", self.boots).parse().expect("32 digits");
        let unit = self.units.get_mut(name).expect("a known slot");
        if unit.run != run || unit.phase != Run::Coming {
            return;
        }
        unit.phase = Run::Running(boot.clone());
        unit.gated = false;
        unit.frozen = false;
        let release = unit.release.clone();
        self.answer(Event::Appeared {
            slot: name.clone(),
            boot,
            release,
            settings: self.state.settings.clone(),
        });
        let unit = self.units.get_mut(name).expect("a known slot");
        unit.loops = unit.loops.saturating_sub(1);
        let loops = unit.loops > 0;
        if self.faulty && (loops || self.random.percent(12)) {
            let after = self.random.between(1, if loops { 1_000 } else { 40_000 });
            self.plan(after, Coming::UnitCrash(name.clone(), run));
        }
    }

    fn unit_crash(&mut self, name: &SlotName, run: u64) {
        let unit = self.units.get_mut(name).expect("a known slot");
        if unit.run != run || !self.faulty {
            return;
        }
        if let Run::Running(boot) = unit.phase.clone() {
            unit.phase = Run::Coming;
            unit.run += 1;
            unit.clean = unit.loops > 0 || self.random.percent(40);
            let (run, end) = (unit.run, unit.end());
            self.forget_in_flight(name, &boot);
            self.answer(Event::Vanished {
                slot: name.clone(),
                boot,
                end,
            });
            self.plan(1_000, Coming::UnitUp(name.clone(), run));
        }
    }

    fn probe(&mut self, name: &SlotName, boot: &BootId, effect: &Effect) {
        let unit = self.units.get_mut(name).expect("a known slot");
        let gate = matches!(
            effect,
            Effect::Probe {
                pace: slot::deploy::Pace::Gate,
                ..
            }
        );
        let runs = unit.phase == Run::Running(boot.clone());
        if gate && runs && std::mem::take(&mut unit.frozen) {
            self.note("thawed");
        }
        let unit = self.units.get_mut(name).expect("a known slot");
        if unit.phase == Run::Running(boot.clone()) {
            let pass = !unit.frozen && self.random.between(0, 100) < unit.healthy;
            unit.gated |= pass;
            let probe = Probe {
                pass,
                text: if pass { "200" } else { "503" }.to_owned(),
            };
            let event = Event::Probed {
                slot: name.clone(),
                boot: boot.clone(),
                probe,
            };
            self.plan(1, Coming::Event(self.deployer, event));
        } else {
            let end = match &unit.phase {
                Run::Ended(end) => end.clone(),
                Run::Coming | Run::Running(_) => unit.end(),
                Run::Stopping(_) => End::ByHand,
            };
            self.answer(Event::Vanished {
                slot: name.clone(),
                boot: boot.clone(),
                end,
            });
            if let Run::Running(other) = self.units[name].phase.clone() {
                let release = self.units[name].release.clone();
                self.answer(Event::Appeared {
                    slot: name.clone(),
                    boot: other,
                    release,
                    settings: self.state.settings.clone(),
                });
            }
        }
        let pause = match effect {
            Effect::Probe {
                pace: slot::deploy::Pace::Soak,
                ..
            } => 1_000,
            Effect::Probe {
                pace: slot::deploy::Pace::Lookout,
                ..
            } => 5_000,
            _ => 200,
        };
        self.plan(pause, Coming::Perform(self.deployer, effect.clone()));
    }

    fn stop(&mut self, name: &SlotName) -> Result<(), String> {
        let forced = matches!(
            self.state.slots[name].condition,
            Condition::Stopping { forced: true, .. }
        );
        let sends = self.sends_to(name);
        let unit = self.units.get_mut(name).expect("a known slot");
        let run = unit.run;
        match unit.phase.clone() {
            Run::Running(boot) => {
                unit.phase = Run::Stopping(boot.clone());
                let this = (name.clone(), boot.clone());
                let held = self
                    .in_flight
                    .get(&(name.clone(), Some(boot)))
                    .copied()
                    .unwrap_or(0);
                // Somebody may have started it by hand where the routers last knew another run.
                let known = self
                    .table
                    .as_ref()
                    .is_some_and(|table| table.boots.contains(&this));
                if sends && known {
                    return Err(format!("{name} is stopped while the routers send to it"));
                }
                if held > 0 && !forced {
                    return Err(format!("{name} is stopped with {held} in flight"));
                }
                let takes = self.random.between(1, 3_000);
                self.plan(takes, Coming::UnitStopped(name.clone(), run, self.deployer));
            }
            Run::Coming => {
                unit.run += 1;
                unit.phase = Run::Ended(End::ByHand);
                self.answer(Event::Stopped {
                    slot: name.clone(),
                    killed: false,
                });
            }
            Run::Ended(_) => self.answer(Event::Stopped {
                slot: name.clone(),
                killed: false,
            }),
            Run::Stopping(_) => {}
        }
        let again = Effect::Stop { slot: name.clone() };
        self.plan(500, Coming::Perform(self.deployer, again));
        Ok(())
    }

    fn unit_stopped(&mut self, name: &SlotName, run: u64, deployer: u64) {
        let unit = self.units.get_mut(name).expect("a known slot");
        if unit.run != run {
            return;
        }
        if let Run::Stopping(boot) = unit.phase.clone() {
            unit.phase = Run::Ended(End::ByHand);
            unit.run += 1;
            self.forget_in_flight(name, &boot);
            let vanished = Event::Vanished {
                slot: name.clone(),
                boot,
                end: End::ByHand,
            };
            self.answer(vanished);
            if deployer == self.deployer {
                self.answer(Event::Stopped {
                    slot: name.clone(),
                    killed: false,
                });
            }
        }
    }

    // The routers and their clients.

    fn request(&mut self) -> Result<(), String> {
        let Some(route) = self.table.clone() else {
            return Ok(());
        };
        let mut place = self.random.between(0, 100) as u8;
        let picked = self.units.keys().find(|name| {
            let weight = route.weight(name).get();
            let found = place < weight;
            place = place.saturating_sub(weight);
            found
        });
        let Some(active) = picked.cloned().filter(|name| self.sends_to(name)) else {
            return Ok(());
        };
        let unit = self.units[&active].clone();
        if let Run::Running(boot) = &unit.phase {
            let known = route
                .boots
                .iter()
                .find(|(name, _)| *name == active)
                .map(|(_, boot)| boot);
            if known != Some(boot) {
                // Another run than the table's: its end has not reached the deployer yet.
                return Ok(());
            }
            if unit.frozen {
                return Err(format!("a request reached {active}, which is frozen"));
            }
            if !unit.gated {
                return Err(format!(
                    "a request reached {active}, which passed no probe in this run"
                ));
            }
            if self
                .withdrawn
                .get(boot)
                .is_some_and(|table| *table <= route.table)
            {
                return Err(format!("a request reached {active} after it was withdrawn"));
            }
            // The active one may have given all away, which the routers are yet to know; it stays up for what comes next.
            let known = self.state.weight(&active) != Weight::NONE
                || self.state.lingering.contains(&active)
                || self.state.active.as_ref() == Some(&active);
            if !known {
                return Err(format!(
                    "a request reached {active}, which has no weight, and had none: {:?}",
                    self.state
                ));
            }
            match route.active.as_ref() == Some(&active) {
                true => self.note("served"),
                false if self.state.migrating().is_some_and(|it| it.slot == active) => {
                    self.note("served while it is left");
                }
                false => self.note("served on trial"),
            }
            let boot = Some(boot.clone());
            *self
                .in_flight
                .entry((active.clone(), boot.clone()))
                .or_default() += 1;
            let lasts = if self.random.percent(3) {
                self.random.between(1_000, 60_000)
            } else {
                self.random.between(1, 50)
            };
            self.plan(lasts, Coming::Ends(active, boot, self.router_run));
        }
        Ok(())
    }

    /// To the previous release or to any other: what is live and what is marked is refused.
    fn ask_rollback(&mut self, settings: Settings) -> Result<(), String> {
        let id = self.random.between(0, 6);
        let named: ReleaseId = format!("{id:08x}").parse().expect("8 digits");
        let to = self.random.percent(40).then_some(named);
        if self.random.percent(40) {
            let after = self.random.between(1, 6_000);
            self.plan(after, Coming::Again);
        }
        self.rollback(to, settings)
    }

    fn rollback(&mut self, to: Option<ReleaseId>, settings: Settings) -> Result<(), String> {
        let (before, left) = (self.state.generation, self.state.live().cloned());
        let marked = self.state.marked.clone();
        let brought = self.brought.clone().filter(|_| to.is_none());
        // A switch that the routers are being told of counts as made, and is gone back from.
        let shifts = self.state.name() == "shifting" && self.state.on_trial().is_none();
        let event = Event::Rollback {
            to: to.clone(),
            by: "person".to_owned(),
            settings,
        };
        self.asked_back.insert(before.next());
        let decided = step(&self.state, event.clone(), Time(self.now));
        self.deliver(event)?;
        let began = self.state.generation != before;
        if !began {
            self.asked_back.remove(&before.next());
        }
        match decided {
            Err(Refusal::AlreadyBack { .. }) => self.note("already back"),
            Err(Refusal::UnderWay { .. }) => self.note("joined"),
            Ok(decided)
                if (decided.state.deployment.as_ref())
                    .is_some_and(|held| held.generation == before) =>
            {
                self.note("took over");
            }
            Ok(decided) if decided.state.generation == before => {
                self.note("only ended");
                if decided.state.preempted().is_none() {
                    return Err("a rollback neither began nor ended anything".to_owned());
                }
            }
            Ok(_) | Err(_) => {}
        }
        if began && !shifts && brought.is_some() && brought == left {
            return Err("a second rollback went forward again".to_owned());
        }
        match to {
            Some(to)
                if self.state.generation != before
                    && (marked.contains_key(&to) || left == Some(to.clone())) =>
            {
                Err(format!("a rollback went to {to}"))
            }
            _ => Ok(()),
        }
    }

    /// Any weight to any slot, more often to the candidate that waits for one.
    fn ask_weight(&mut self, name: SlotName, settings: Settings) -> Result<(), String> {
        let trial = self.state.on_trial().cloned();
        let slot = trial.filter(|_| self.random.percent(60)).unwrap_or(name);
        let percent = match self.random.percent(20) {
            true => self.random.between(0, 2) * 100,
            false => self.random.between(0, 100),
        };
        self.deliver(Event::Weigh {
            slot,
            weight: Weight::new(percent as u8).expect("at most 100"),
            by: "person".to_owned(),
            settings,
        })
    }

    /// Whether the routers would send a request to a slot, whatever runs there.
    fn sends_to(&self, name: &SlotName) -> bool {
        let table = self.table.as_ref();
        table.is_some_and(|table| {
            let waits = table.active.as_ref() == Some(name) && !table.ready;
            table.weight(name) != Weight::NONE && !waits
        })
    }

    fn held(&self, name: &SlotName) -> u64 {
        self.in_flight
            .iter()
            .filter(|((slot, _), _)| slot == name)
            .map(|(_, count)| count)
            .sum()
    }

    fn forget_in_flight(&mut self, name: &SlotName, boot: &BootId) {
        self.in_flight.remove(&(name.clone(), Some(boot.clone())));
    }

    // People and faults.

    fn person(&mut self) -> Result<(), String> {
        let slots = self.state.settings.slots.clone();
        let settings = settings(&mut self.random, &slots);
        let names: Vec<SlotName> = self.units.keys().cloned().collect();
        let name = names[self.random.between(0, names.len() as u64) as usize].clone();
        match self.random.between(0, 100) {
            0..45 => {
                let queue = Duration::from_secs(self.random.between(0, 20));
                let weight = match self.random.percent(35) {
                    true => Weight::new(self.random.between(0, 101) as u8),
                    false => None,
                };
                let began = self.state.generation;
                let begin = Event::Begin(Request {
                    by: "person".to_owned(),
                    settings,
                    queue,
                    weight,
                    force: self.random.percent(30),
                    auto: self.random.percent(20),
                    planned: self.random.percent(70),
                });
                if self.random.percent(50) {
                    self.ask_if(begin)?;
                } else {
                    self.deliver(begin)?;
                }
                if self.state.generation != began && self.state.deployment.is_some() {
                    let generation = self.state.generation;
                    self.uploads.push(generation);
                    let id = self.random.between(0, 6);
                    let release: ReleaseId = format!("{id:08x}").parse().expect("8 digits");
                    let after = self.random.between(1, 2_000);
                    let event = if self.random.percent(95) {
                        Event::Prepared {
                            generation,
                            release,
                        }
                    } else if self.random.percent(50) {
                        Event::Unprepared {
                            generation,
                            why: "refused".to_owned(),
                        }
                    } else if self.random.percent(50) {
                        Event::Hooked {
                            hook: Hook::BeforeDeploy,
                            generation,
                            failure: Some(failure("exit-code")),
                        }
                    } else {
                        Event::Unbuilt {
                            generation,
                            failure: failure("exit-code"),
                        }
                    };
                    self.plan(after, Coming::Event(self.deployer, event));
                }
            }
            45..57 => self.ask_rollback(settings)?,
            57..72 => self.ask_weight(name, settings)?,
            72..75 => {
                let from = names[self.random.between(0, names.len() as u64) as usize].clone();
                self.deliver(Event::Swap {
                    from,
                    to: name,
                    by: "person".to_owned(),
                    settings,
                })?;
            }
            75..78 => self.deliver(Event::Abort {
                by: "person".to_owned(),
            })?,
            78..81 => {
                let force = self.random.percent(40);
                self.deliver(Event::Stop {
                    slot: name,
                    force,
                    by: "person".to_owned(),
                })?;
            }
            81..84 => self.deliver(Event::Promote {
                slot: name,
                by: "person".to_owned(),
                settings,
            })?,
            84..86 => self.deliver(Event::DrainNow { slot: name })?,
            86..88 => {
                let paused = self.random.percent(50);
                self.deliver(Event::Pause { paused })?;
            }
            88..94 => self.start_by_hand(&name),
            _ => self.stop_by_hand(&name),
        }
        Ok(())
    }

    /// Somebody asks for something on a condition, with one of few keys, and asks again.
    fn ask_if(&mut self, event: Event) -> Result<(), String> {
        let number = self.random.between(0, 8);
        let key: Key = format!("key-{number}").parse().expect("a key");
        let guard = Guard {
            expected: Expected {
                generation: (self.random.percent(50))
                    .then(|| Generation(self.state.generation.0 + self.random.between(0, 2))),
                active: None,
            },
            key: Some(Fingerprint {
                key: key.clone(),
                target: format!("target {}", self.random.between(0, 3)),
                payload: Some(String::new()),
            }),
        };
        let expected = guard.expected.generation;
        let before = self.state.generation;
        let event = Box::new(event);
        let known = guard.admits(&self.state, Time(self.now)).is_err();
        let asked = Event::Guarded { guard, event };
        self.deliver(asked.clone())?;
        let began = self.state.generation != before;
        if began && (known || expected.is_some_and(|expected| expected != before)) {
            return Err(format!("{asked:?} was admitted at generation {before}"));
        }
        if began {
            self.note("asked-with-a-key");
            // A state that was lost right after is found again without its keys, and one that was left before anything was started has not
            // carried it out.
            let keyed = self.state.keys.iter();
            let mut keyed = keyed.filter(|keyed| keyed.fingerprint.key == key);
            let lost = keyed.next().is_none_or(|keyed| {
                let outcome = keyed.outcome.as_ref();
                outcome.is_some_and(|outcome| outcome.cause == Cause::Interrupted)
            });
            if !lost && step(&self.state, asked.clone(), Time(self.now)).is_ok() {
                return Err(format!("{asked:?} was carried out twice"));
            }
        }
        Ok(())
    }

    fn start_by_hand(&mut self, name: &SlotName) {
        let unit = self.units.get_mut(name).expect("a known slot");
        if unit.release.is_some() && matches!(unit.phase, Run::Ended(_)) {
            unit.run += 1;
            unit.phase = Run::Coming;
            let run = unit.run;
            let takes = self.random.between(20, 500);
            self.plan(takes, Coming::UnitUp(name.clone(), run));
        }
    }

    fn stop_by_hand(&mut self, name: &SlotName) {
        let unit = self.units.get_mut(name).expect("a known slot");
        if let Run::Running(boot) = unit.phase.clone() {
            unit.phase = Run::Ended(End::ByHand);
            unit.run += 1;
            self.forget_in_flight(name, &boot);
            self.answer(Event::Vanished {
                slot: name.clone(),
                boot,
                end: End::ByHand,
            });
        }
    }

    fn fault(&mut self) -> Result<(), String> {
        match self.random.between(0, 100) {
            0..35 => self.crash()?,
            35..50 => {
                self.note("router restart");
                self.router_run += 1;
                self.in_flight.clear();
                self.table.clone_from(&self.table_on_disk);
            }
            50..60 => self.reboot()?,
            60..68 => {
                // The active release is restarted, and ends again without a failure.
                if let Some(active) = self.state.active.clone()
                    && let Some(unit) = self.units.get_mut(&active)
                {
                    unit.loops = 4;
                    let run = unit.run;
                    self.unit_crash(&active, run);
                }
            }
            68..75 => {
                // The active release gets ill.
                if let Some(active) = self.state.active.clone() {
                    let healthy = self.random.between(0, 100);
                    if let Some(unit) = self.units.get_mut(&active) {
                        unit.healthy = healthy;
                    }
                }
            }
            75..90 => {
                let names: Vec<SlotName> = self.units.keys().cloned().collect();
                let name = names[self.random.between(0, names.len() as u64) as usize].clone();
                let run = self.units[&name].run;
                self.unit_crash(&name, run);
            }
            90..95 => self.table_fault = TableFault::Disk,
            95..97 => self.table_fault = TableFault::Router,
            _ => {
                self.table_fault = TableFault::None;
                for unit in self.units.values_mut() {
                    unit.healthy = 100;
                }
            }
        }
        Ok(())
    }

    fn reboot(&mut self) -> Result<(), String> {
        self.note("reboot");
        for unit in self.units.values_mut() {
            unit.run += 1;
            unit.phase = Run::Ended(End::ByHand);
            unit.gated = false;
        }
        self.router_run += 1;
        self.in_flight.clear();
        self.table = None;
        self.table_on_disk = None;
        self.rebooted = true;
        self.crash()
    }
}

/// As most apps have it, one for all; else a class has one of its own.
fn drain(random: &mut Random) -> ByClass<Duration> {
    let mut span = || match random.percent(20) {
        true => None,
        false => Some(Duration::from_secs(random.between(1, 30))),
    };
    let all = ByClass::all(span());
    let tunnels = span();
    match random.percent(70) {
        true => all,
        false => ByClass { tunnels, ..all },
    }
}

fn settings(random: &mut Random, slots: &[SlotName]) -> Settings {
    Settings {
        slots: slots.to_vec(),
        start_timeout: Duration::from_secs(10),
        health_timeout: Duration::from_secs(random.between(2, 8)),
        drain: drain(random),
        stop_timeout: Duration::from_secs(5),
        soak: if random.percent(25) {
            Duration::ZERO
        } else {
            Duration::from_secs(random.between(1, 15))
        },
        migrate: random.percent(25).then(|| Migrate {
            keeps: Weight::new(random.between(1, 20) as u8).expect("at most a fifth"),
            lasts: Duration::from_secs(random.between(1, 12)),
        }),
        soak_error_rate: random.percent(50).then_some(Rate(1_000)),
        hooks: (Hook::AROUND.into_iter().chain([Hook::Check]))
            .filter(|_| random.percent(20))
            .collect(),
        after: After {
            failing: match random.between(0, 10) {
                0 => Failing::Unseen,
                1..6 => Failing::Told,
                _ => Failing::Left,
            },
            keep_warm: Duration::from_secs(random.between(0, 4) * 20),
            frozen: random.percent(50),
        },
        canary: random.percent(50).then(|| Box::new(canary(random))),
    }
}

fn canary(random: &mut Random) -> Canary {
    let count = random.between(1, 4) as usize;
    let step = |(at, weight): (usize, u8)| CanaryStep {
        weight: Weight::new(weight).expect("a part of a hundred"),
        lasts: Duration::from_secs(at as u64 + 1),
    };
    Canary {
        steps: [5, 20, 60]
            .into_iter()
            .enumerate()
            .take(count)
            .map(step)
            .collect(),
        auto_promote: random.percent(70),
        checks: Checks::default(),
        warm_up: Duration::ZERO,
        quiet: match random.between(0, 3) {
            0 => Quiet::Hold,
            1 => Quiet::Probe,
            _ => Quiet::Advance,
        },
        max_hold: Duration::from_secs(random.between(1, 6)),
    }
}

fn failure(result: &str) -> UnitFailure {
    UnitFailure {
        result: result.into(),
        text: "ended".to_owned(),
    }
}
