//! The deploy state machine as tables: in each situation, what every event makes of it. The tables are read and reviewed; they are
//! compared with what `step` does, never its source.
//!
//! `SLOT_BLESS=1 cargo test --test machine_tables` writes them anew; the difference is then to be read.

mod machine_support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use machine_support::{App, failure, probe, release, settings, slot};
use slot::deploy::{
    ByClass, Cause, Condition, Effect, End, Event, Generation, Notice, Phase, Service, Slot,
    SlotName, State, Time, UnitFailure, effects, step,
};

/// The deployment's phases: green serves r1, r0 was before it, r2 is deployed to blue.
#[test]
fn every_phase_of_a_deployment_under_every_event() {
    let app = || {
        let mut app = App::new();
        app.serve(0).settle().serve(1).settle();
        app
    };
    let mut text = String::new();
    table(
        &mut text,
        "none: green serves r1, blue is idle",
        &app(),
        "blue",
    );
    let mut preparing = app();
    preparing.on(preparing.begin());
    table(&mut text, "preparing", &preparing, "blue");
    let mut waiting = App::new();
    waiting.serve(0).settle().serve(1).deploy(2);
    table(
        &mut text,
        "waiting: blue was kept warm for the soak of r1",
        &waiting,
        "blue",
    );
    let mut starting = app();
    starting.deploy(2);
    table(&mut text, "starting", &starting, "blue");
    let mut ready = starting.clone();
    ready.started(&slot("blue"));
    table(&mut text, "ready", &ready, "blue");
    let mut shifting = ready.clone();
    shifting.probed(&slot("blue"), true);
    table(&mut text, "shifting", &shifting, "blue");
    let mut trial = app();
    trial.deploy_at(2, Some(10)).started(&slot("blue"));
    trial.probed(&slot("blue"), true);
    table(
        &mut text,
        "shifting, the candidate stays at 10%",
        &trial,
        "blue",
    );
    table(
        &mut text,
        "shifting, the candidate stays at 10%: events at the active slot",
        &trial,
        "green",
    );
    let mut back = app();
    back.rollback();
    table(&mut text, "starting, for a rollback to r0", &back, "blue");
    back.started(&slot("blue"));
    table(&mut text, "ready, for a rollback to r0", &back, "blue");
    back.probed(&slot("blue"), true).routed().drained("green");
    back.stopped("green");
    table(&mut text, "none: a rollback has brought r0", &back, "blue");
    compare("deployment", &text);
}

/// The watch, after the switch from green with r1 to blue with r2.
#[test]
fn every_state_of_a_watch_under_every_event() {
    let mut soak = App::new();
    soak.serve(0).settle().serve(1).settle().serve(2);
    let mut text = String::new();
    table(&mut text, "soak, events at the new slot", &soak, "blue");
    table(&mut text, "soak, events at the old slot", &soak, "green");
    let mut streak = soak.clone();
    streak
        .probed(&slot("blue"), false)
        .probed(&slot("blue"), false);
    table(&mut text, "soak, two probes have failed", &streak, "blue");
    let mut back = streak.clone();
    back.probed(&slot("blue"), false);
    table(
        &mut text,
        "rolling back, events at the slot that failed",
        &back,
        "blue",
    );
    table(
        &mut text,
        "rolling back, events at the slot that is active again",
        &back,
        "green",
    );
    let mut alone = soak.clone();
    alone.vanished("green", End::Failed(failure("exited with status 1")));
    alone.stopped("green");
    table(&mut text, "soak without an old slot", &alone, "blue");
    compare("watch", &text);
}

/// Each condition of a slot, with the events of that slot.
#[test]
fn every_condition_of_a_slot_under_every_event() {
    let mut text = String::new();
    let mut served = App::new();
    served.serve(0).settle().serve(1).settle();
    table(&mut text, "idle", &served, "blue");
    let mut app = served.clone();
    app.deploy(2);
    table(&mut text, "starting", &app, "blue");
    app.started(&slot("blue"));
    table(&mut text, "ready", &app, "blue");
    let mut app = served.clone();
    app.appeared("blue", 2).probed(&slot("blue"), true);
    table(&mut text, "standby", &app, "blue");
    app.on(app.ask_weight("blue", 30)).routed();
    table(&mut text, "on trial, started by hand", &app, "blue");
    app.on(app.ask_stop("blue", false));
    table(
        &mut text,
        "draining, withdrawn, the routers do not know it yet",
        &app,
        "blue",
    );
    let up = served.clone();
    table(&mut text, "active, up", &up, "green");
    let mut app = up.clone();
    app.vanished("green", End::Restarting(failure("killed by SIGSEGV")));
    table(
        &mut text,
        "active, down, its unit will start it again",
        &app,
        "green",
    );
    let mut again = app.clone();
    again.appeared("green", 1);
    table(&mut text, "active, booting again", &again, "green");
    app.wait(5);
    table(&mut text, "active, down, slotd starts it", &app, "green");
    let mut app = up.clone();
    app.vanished("green", End::ByHand);
    table(&mut text, "active, stopped by hand", &app, "green");
    let mut soak = served.clone();
    soak.serve(2);
    table(&mut text, "warm", &soak, "green");
    let mut app = soak.clone();
    app.recover(&app.facts_after_reboot());
    table(&mut text, "warm, not gated since the reboot", &app, "green");
    let mut app = soak.clone();
    app.wait(40);
    table(&mut text, "draining", &app, "green");
    app.drained("green");
    table(&mut text, "stopping", &app, "green");
    let mut forever = settings();
    forever.drain = ByClass::all(None);
    let mut app = App::with(forever);
    app.serve(1).settle().serve(2).wait(40);
    table(&mut text, "draining, for ever", &app, "blue");
    let mut app = served.clone();
    app.deploy(2);
    let generation = app.state.generation;
    app.on(Event::StartFailed {
        slot: slot("blue"),
        generation,
        failure: failure("exited with status 1"),
    });
    table(&mut text, "stopping, after a failure", &app, "blue");
    app.stopped("blue");
    table(&mut text, "failed", &app, "blue");
    compare("slots", &text);
}

/// Every event there is, aimed at a slot, with stale ones beside those that fit.
fn events(app: &App, name: &str) -> Vec<(&'static str, Event)> {
    let at = slot(name);
    let known = app.state.slots[&at].clone();
    let mut fresh = app.clone();
    let other = format!("{:032x}", 0xdead_u32).parse().expect("a boot id");
    let boot = known.boot.clone().unwrap_or_else(|| fresh.next_boot());
    let generation = app.state.generation;
    let stale = Generation(generation.0.saturating_sub(1));
    let started = |generation| Event::Started {
        slot: at.clone(),
        generation,
        boot: boot.clone(),
    };
    let not_started = |result: &str| Event::StartFailed {
        slot: at.clone(),
        generation: known.generation,
        failure: UnitFailure {
            result: result.into(),
            text: "did not start".to_owned(),
        },
    };
    let probed = |boot: &slot::deploy::BootId, pass| Event::Probed {
        slot: at.clone(),
        boot: boot.clone(),
        probe: probe(pass),
    };
    let vanished = |end| Event::Vanished {
        slot: at.clone(),
        boot: boot.clone(),
        end,
    };
    let stopped = |killed| Event::Stopped {
        slot: at.clone(),
        killed,
    };
    vec![
        ("begin", app.begin()),
        (
            "prepared",
            Event::Prepared {
                generation,
                release: release(2),
            },
        ),
        (
            "prepared, stale",
            Event::Prepared {
                generation: stale,
                release: release(2),
            },
        ),
        (
            "unprepared",
            Event::Unprepared {
                generation,
                why: "too big".to_owned(),
            },
        ),
        (
            "unbuilt",
            Event::Unbuilt {
                generation,
                failure: UnitFailure {
                    result: "exit-code".into(),
                    text: "exited with status 1".to_owned(),
                },
            },
        ),
        (
            "barred",
            Event::Barred {
                generation,
                release: release(2),
            },
        ),
        (
            "unbuilt, stale",
            Event::Unbuilt {
                generation: stale,
                failure: UnitFailure {
                    result: "timeout".into(),
                    text: "did not end in time".to_owned(),
                },
            },
        ),
        ("rollback", app.ask_rollback()),
        ("rollback to r9", app.ask_rollback_to(Some(release(9)))),
        (
            "rollback to what is live",
            app.ask_rollback_to(app.state.live().cloned()),
        ),
        ("promote", app.ask_promote(name)),
        ("weight 20", app.ask_weight(name, 20)),
        ("weight 0", app.ask_weight(name, 0)),
        ("weight 100", app.ask_weight(name, 100)),
        ("swap it for the active one", {
            let active = app.state.active.as_ref().unwrap_or(&at);
            app.ask_swap(active.as_str(), name)
        }),
        ("abort", app.ask_abort()),
        ("stop", app.ask_stop(name, false)),
        ("stop, forced", app.ask_stop(name, true)),
        ("drain now", Event::DrainNow { slot: at.clone() }),
        ("started", started(known.generation)),
        (
            "started, stale",
            started(Generation(known.generation.0 + 100)),
        ),
        ("start failed", not_started("exit-code")),
        ("start timed out", not_started("timeout")),
        (
            "routed",
            Event::Routed {
                table: app.state.table,
            },
        ),
        (
            "routed, stale",
            Event::Routed {
                table: app.state.table - 1,
            },
        ),
        (
            "reached",
            Event::Reached {
                table: app.state.table,
                probe: probe(true),
            },
        ),
        (
            "not routed",
            Event::Unrouted {
                table: app.state.table,
                why: "no space left on device".to_owned(),
            },
        ),
        (
            "not routed, stale",
            Event::Unrouted {
                table: app.state.table - 1,
                why: "no space left on device".to_owned(),
            },
        ),
        (
            "drained",
            Event::Drained {
                slot: at.clone(),
                boot: known.boot.clone(),
            },
        ),
        (
            "drained, stale",
            Event::Drained {
                slot: at.clone(),
                boot: Some(other),
            },
        ),
        (
            "overdue",
            Event::Overdue {
                slot: at.clone(),
                boot: known.boot.clone(),
            },
        ),
        ("stopped", stopped(false)),
        ("killed", stopped(true)),
        ("probe passed", probed(&boot, true)),
        ("probe failed", probed(&boot, false)),
        (
            "probe passed, stale",
            probed(
                &format!("{:032x}", 0xdead_u32).parse().expect("a boot id"),
                true,
            ),
        ),
        (
            "appeared",
            Event::Appeared {
                slot: at.clone(),
                boot: fresh.next_boot(),
                release: known.release.clone(),
                settings: settings(),
            },
        ),
        ("stopped by hand", vanished(End::ByHand)),
        (
            "ended, restarts",
            vanished(End::Restarting(failure("exited with status 1"))),
        ),
        (
            "ended without a failure, restarts",
            vanished(End::Restarting(UnitFailure::restarted())),
        ),
        (
            "ended, stays down",
            vanished(End::Failed(failure("exited with status 1"))),
        ),
        ("tick", Event::Tick),
    ]
}

/// One situation: the state, then a paragraph per event that changes it, then the events that do not.
fn table(text: &mut String, title: &str, app: &App, name: &str) {
    let put = |text: &mut String, line: String| writeln!(text, "{line}").expect("a string grows");
    put(text, format!("## {title}\n"));
    for (key, value) in describe(&app.state, app.now) {
        put(text, format!("    {key:<12}{value}"));
    }
    put(text, format!("\nEvents at {name}:\n"));
    let mut nothing = Vec::new();
    let deadline = app.state.next_deadline();
    let mut all: Vec<(&str, Event, Time)> = events(app, name)
        .into_iter()
        .map(|(event, what)| (event, what, app.now))
        .collect();
    if let Some(deadline) = deadline {
        all.push(("tick at the deadline", Event::Tick, deadline));
    }
    for (event, what, now) in all {
        match step(&app.state, what, now) {
            Err(refusal) => put(text, format!("{event}\n    refused: {refusal}")),
            Ok(next) if next.state == app.state && next.notices.is_empty() => nothing.push(event),
            Ok(next) => {
                put(text, event.to_owned());
                let before = describe(&app.state, app.now);
                let after = describe(&next.state, app.now);
                let keys: BTreeSet<&String> =
                    before.iter().chain(&after).map(|(key, _)| key).collect();
                for key in keys {
                    let value = |of: &[(String, String)]| {
                        let found = of.iter().find(|(name, _)| name == key);
                        found.map_or_else(|| "none".to_owned(), |(_, value)| value.clone())
                    };
                    let (was, is) = (value(&before), value(&after));
                    if was != is {
                        put(text, format!("    {key:<12}{was} → {is}"));
                    }
                }
                let (was, is) = (effects(&app.state), effects(&next.state));
                for effect in is.iter().filter(|effect| !was.contains(effect)) {
                    if let Some(effect) = act(effect) {
                        put(text, format!("    {:<12}{effect}", "do"));
                    }
                }
                for notice in &next.notices {
                    put(text, format!("    {:<12}{}", "tell", tell(notice, app.now)));
                }
            }
        }
    }
    put(
        text,
        format!("nothing changes\n    {}\n", wrapped(&nothing)),
    );
}

fn wrapped(words: &[&str]) -> String {
    let mut lines = vec![String::new()];
    for word in words {
        let last = lines.last_mut().expect("one line at least");
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + word.len() < 100 {
            write!(last, "; {word}").expect("a string grows");
        } else {
            last.push(';');
            lines.push((*word).to_owned());
        }
    }
    lines.join("\n    ")
}

fn compare(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("SLOT_BLESS").is_some() {
        std::fs::write(&path, text).expect("the table can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (is, was)) in text.lines().zip(golden.lines()).enumerate() {
        let line = number + 1;
        assert_eq!(
            is, was,
            "{path}:{line}; SLOT_BLESS=1 writes the tables anew"
        );
    }
    assert_eq!(
        text.lines().count(),
        golden.lines().count(),
        "{path}; SLOT_BLESS=1 writes the tables anew"
    );
}

fn describe(state: &State, now: Time) -> Vec<(String, String)> {
    let mut lines = vec![("state".to_owned(), state.name().to_owned())];
    let mut put = |key: &str, value: String| lines.push((key.to_owned(), value));
    put(
        "generation",
        format!("{}, routed {}", state.generation, state.routed),
    );
    put("active", or_dash(state.active.as_ref()));
    put(
        "deployment",
        state.deployment.as_ref().map_or_else(
            || "none".to_owned(),
            |held| {
                format!(
                    "{:?} {} {}",
                    held.kind,
                    held.generation,
                    phase(&held.phase, now)
                )
                .to_lowercase()
            },
        ),
    );
    put(
        "watch",
        state.watch.as_ref().map_or_else(
            || "none".to_owned(),
            |watch| {
                let mut text = format!(
                    "of {} over {}",
                    watch.generation,
                    watch.old.as_ref().map_or("nothing", SlotName::as_str)
                );
                match &watch.rolling_back {
                    Some(cause) => write!(text, ", rolling back: {}", cause.code()),
                    None => write!(
                        text,
                        ", {} failed, until {}",
                        watch.streak,
                        from_now(watch.until, now)
                    ),
                }
                .expect("a string grows");
                if watch.restarts > 0 {
                    write!(text, ", {} restarts", watch.restarts).expect("a string grows");
                }
                text
            },
        ),
    );
    for (name, slot) in &state.slots {
        put(name.as_str(), condition(slot, now));
    }
    put(
        "prev",
        format!(
            "{}{}",
            or_release(state.prev.as_ref()),
            if state.soaked {
                ", live has soaked"
            } else {
                ""
            }
        ),
    );
    if !state.marked.is_empty() {
        let marked: Vec<String> = state.marked.keys().map(|id| or_release(Some(id))).collect();
        put("marked", marked.join(" "));
    }
    if let Some(back) = &state.went_back {
        put(
            "went back",
            format!("from {}", or_release(back.left.as_ref())),
        );
    }
    if let Some(back) = &state.rolled_back {
        put(
            "rolled back",
            format!("{} from {} to {}", back.generation, back.from, back.to),
        );
    }
    if let Some(outcome) = &state.outcome {
        put(
            "outcome",
            format!(
                "{} {} in {}",
                outcome.generation,
                outcome.cause.code(),
                outcome.phase
            ),
        );
    }
    lines
}

fn or_dash(name: Option<&SlotName>) -> String {
    name.map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn or_release(id: Option<&slot::deploy::ReleaseId>) -> String {
    id.map_or_else(
        || "-".to_owned(),
        |id| {
            format!(
                "r{}",
                id.as_str().trim_start_matches('0').parse().unwrap_or(0)
            )
        },
    )
}

/// Deadlines as distances, so that the tables do not depend on when a situation began.
fn from_now(until: Time, now: Time) -> String {
    format!("{:?} from now", until.since(now).max(Duration::ZERO))
}

fn phase(phase: &Phase, now: Time) -> String {
    let name = phase.name();
    match phase {
        Phase::Preparing { .. } => name.to_owned(),
        Phase::Waiting { release, until } => format!(
            "{name} with {}, until {}",
            or_release(Some(release)),
            from_now(*until, now)
        ),
        Phase::Starting { slot, until } => {
            format!("{name} {slot}, until {}", from_now(*until, now))
        }
        Phase::Ready { slot, until, probe } => {
            let probe = probe
                .as_ref()
                .map_or_else(String::new, |probe| format!(", last probe {}", probe.text));
            format!("{name} {slot}, until {}{probe}", from_now(*until, now))
        }
        Phase::Trial { slot, plan } => {
            let at = plan
                .as_ref()
                .map(|plan| format!(", step {}", plan.step + 1));
            format!("{name}, {slot} on trial{}", at.unwrap_or_default())
        }
        Phase::Shifting { slot, from, .. } => {
            format!("{name} from {} to {slot}", or_dash(from.as_ref()))
        }
    }
}

fn condition(slot: &Slot, now: Time) -> String {
    let mut text = slot.condition.name().to_owned();
    let until = |until: Option<Time>| {
        until.map_or_else(
            || "for ever".to_owned(),
            |until| format!("until {}", from_now(until, now)),
        )
    };
    let more = match &slot.condition {
        Condition::Idle | Condition::Starting | Condition::Ready => String::new(),
        Condition::Standby { gated } => if *gated { "" } else { ", not gated" }.to_owned(),
        Condition::Trial { weight, streak } => format!(" at {weight}, {streak} failed"),
        Condition::Active(Service::Up) => ", up".to_owned(),
        Condition::Active(Service::Booting { until }) => {
            format!(", booting until {}", from_now(*until, now))
        }
        Condition::Active(Service::Down { retry, .. }) => match retry {
            Some(retry) => format!(", down, slotd starts it {}", from_now(*retry, now)),
            None => ", down, slotd starts it now".to_owned(),
        },
        Condition::Active(Service::ByHand) => ", stopped by hand".to_owned(),
        Condition::Warm { drain, gated } => {
            let gated = if *gated { "" } else { ", not gated" };
            format!("{gated}, drain {}", until(drain.last()))
        }
        Condition::Draining {
            until: end,
            withdrawn,
        } => {
            let withdrawn = if *withdrawn { ", withdrawn" } else { "" };
            format!(" {}{withdrawn}", until(end.last()))
        }
        Condition::Stopping { forced, failure } => {
            let forced = if *forced { ", forced" } else { "" };
            let failure = failure.as_ref().map_or_else(String::new, |failure| {
                format!(", then failed: {}", failure.text)
            });
            format!("{forced}{failure}")
        }
        Condition::Failed(failure) => format!(": {}", failure.text),
    };
    text.push_str(&more);
    let run = if slot.boot.is_some() {
        "running"
    } else {
        "no run"
    };
    write!(
        text,
        " [{} of {}, {run}]",
        or_release(slot.release.as_ref()),
        slot.generation
    )
    .expect("a string grows");
    text
}

/// What is newly to be going on; what only mirrors the state is left out.
fn act(effect: &Effect) -> Option<String> {
    match effect {
        Effect::Start { slot, release, .. } => {
            Some(format!("start {slot} with {}", or_release(Some(release))))
        }
        Effect::Probe { slot, pace, .. } => Some(format!("probe {slot} ({pace:?})").to_lowercase()),
        Effect::Route(route) => Some(format!(
            "route to {}{}{}",
            or_dash(route.active.as_ref()),
            route
                .trials
                .iter()
                .map(|(name, weight)| format!(", {weight} to {name}"))
                .collect::<String>(),
            if route.ready {
                String::new()
            } else {
                format!(", hold {:?}", route.hold)
            }
        )),
        Effect::Drain { slot, .. } => Some(format!("drain {slot}")),
        Effect::Freeze { slot, .. } => Some(format!("freeze {slot}")),
        Effect::Stop { slot } => Some(format!("stop {slot}")),
        Effect::Hook(occasion) => Some(format!("run {}", occasion.hook.name())),
        Effect::Measure(what) => Some(format!("measure {}", what.slot)),
        Effect::Post(_) | Effect::Link { .. } | Effect::Retain { .. } => None,
    }
}

fn tell(notice: &Notice, now: Time) -> String {
    match notice {
        Notice::Began {
            generation, kind, ..
        } => format!("began {generation} ({kind:?})").to_lowercase(),
        Notice::Phase {
            phase,
            slot,
            release,
            ..
        } => {
            format!(
                "phase {phase}, {} with {}",
                or_dash(slot.as_ref()),
                or_release(release.as_ref())
            )
        }
        Notice::Ended(outcome) => {
            format!("ended {}: {}", outcome.generation, reason(&outcome.cause))
        }
        Notice::Soak { slot, cause, .. } => format!("soak of {slot}: {}", reason(cause)),
        Notice::Failing {
            slot, cause, to, ..
        } => {
            let to = match to {
                None => "told".to_owned(),
                Some(Ok(id)) => format!("left for {}", or_release(Some(id))),
                Some(Err(refusal)) => format!("not left: {refusal}"),
            };
            format!("{slot} fails: {}, {to}", reason(cause))
        }
        Notice::Returned(back) => format!("returned {} to {}", back.generation, back.to),
        Notice::RolledBack(back) => format!(
            "rolled back from {} to {}: {}",
            back.from,
            back.to,
            reason(&back.cause)
        ),
        Notice::Weighed {
            slot,
            weight,
            rest,
            cause,
        } => {
            let why = cause.as_ref().map(|cause| format!(": {}", reason(cause)));
            format!(
                "{slot} has {weight}, the active one {rest}{}",
                why.unwrap_or_default()
            )
        }
        Notice::Holds { step, lack, .. } => format!("step {} waits for {lack}", step + 1),
        Notice::Draining { slot, until } => match until {
            Some(until) => format!("{slot} drains until {}", from_now(*until, now)),
            None => format!("{slot} drains for ever"),
        },
        Notice::Forced { slot } => format!("{slot}: drain cut"),
        Notice::Stopped { slot, killed } => {
            format!("{slot} stopped{}", if *killed { ", killed" } else { "" })
        }
        Notice::Down { slot, failure } => match failure {
            Some(failure) => format!("{slot} down: {}", failure.text),
            None => format!("{slot} down: stopped by hand"),
        },
        Notice::Up { slot } => format!("{slot} up"),
        Notice::StandsBy { slot } => format!("{slot} stands by"),
        Notice::Hooked { occasion, failure } => match failure {
            None => format!("{} done", occasion.hook.name()),
            Some(failure) => format!("{}: {}", occasion.hook.name(), failure.text),
        },
    }
}

fn reason(cause: &Cause) -> String {
    match cause {
        Cause::NoIdleSlot { holder, condition } => {
            format!("{} ({holder} is {condition})", cause.code())
        }
        Cause::Unprepared(why) => format!("{} ({why})", cause.code()),
        _ => cause.code().to_owned(),
    }
}
