//! What notices say, in words: one sentence each, for the journal, the API's events, the history and the outcome of an attempt.

use std::fmt::Write as _;

use super::live::millis;
use crate::config::{App, Semantics};
use crate::deploy::{
    Cause, Kind, Notice, Occasion, Outcome, ReleaseId, RolledBack, SlotName, State, Time,
    UnitFailure, UnitResult,
};
use crate::wire::api;
use crate::wire::date::utc;

/// A kind of attempt, as the API names it.
#[must_use]
pub fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Deploy => "deploy",
        Kind::Rollback => "rollback",
        Kind::ByHand => "by-hand",
        Kind::Promote => "promote",
    }
}

/// `web@green`, as `systemctl` and `journalctl` take it too.
#[must_use]
pub fn unit(app: &App, slot: &impl std::fmt::Display) -> String {
    format!("{}@{slot}", app.name)
}

/// The sentence for a cause; `slot` is the candidate, or the slot that was watched.
#[must_use]
pub fn cause(app: &App, slot: Option<&str>, cause: &Cause) -> String {
    let unit = slot.map_or_else(|| "the candidate".to_owned(), |slot| unit(app, &slot));
    match cause {
        Cause::Switched => "serves".to_owned(),
        Cause::StandsBy => {
            format!(
                "{unit} passed its gates and stands by at weight 0; `slotctl promote` makes it active"
            )
        }
        Cause::Unprepared(why) => format!("the release could not be put on disk: {why}"),
        Cause::Marked(back) => marked(app, None, back.as_deref()),
        Cause::AlreadyLive(release) => {
            format!(
                "release {release} is live already, and what is deployed by itself is not started anew"
            )
        }
        Cause::Left(release) => format!(
            "release {release} was live, and a rollback left it: it does not come back by itself, but by a `slotctl deploy`"
        ),
        Cause::Unbuilt(failure) => {
            let command = app.setup_command.as_deref().unwrap_or_default();
            let line = shell_words::join(command);
            match failure.result {
                UnitResult::Timeout => format!(
                    "setup_command `{line}` did not end within setup_timeout ({})",
                    span(app.setup_timeout)
                ),
                UnitResult::Success | UnitResult::Other(_) => {
                    format!("setup_command `{line}` {}", failure.text)
                }
            }
        }
        Cause::Unhooked(hook, failure) => {
            let command = app.hooks.commands.get(hook).map(shell_words::join);
            let line = command.unwrap_or_default();
            match failure.result {
                UnitResult::Timeout => format!(
                    "{} `{line}` did not end within `timeout` of [hooks] ({})",
                    hook.name(),
                    span(app.hooks.timeout)
                ),
                UnitResult::Success | UnitResult::Other(_) => {
                    format!("{} `{line}` {}", hook.name(), failure.text)
                }
            }
        }
        Cause::Interrupted => {
            "slotd was restarted while the release was being prepared; deploy again".to_owned()
        }
        Cause::Preempted => "a rollback went ahead of it".to_owned(),
        Cause::Aborted(by) => format!("{by} took it back before its switch"),
        Cause::NoIdleSlot { holder, condition } => {
            format!("no slot became idle in time: {holder} is {condition}")
        }
        Cause::Unrouted(why) => format!(
            "the switch to {unit} was taken back, because the routers do not serve it: {why}"
        ),
        Cause::StartFailed(failure) => format!("{unit} did not start: {}", failure.text),
        Cause::StartTimeout => format!(
            "{unit} was not READY within start_timeout ({})",
            span(app.start_timeout)
        ),
        Cause::HealthTimeout(probe) => format!(
            "no probe of {unit} at {} passed within {} ({}){}{}",
            app.health,
            match app.semantics {
                Semantics::Slot => "health_timeout",
                Semantics::SlotMachine => "health_timeout_ms",
            },
            span(app.health_timeout),
            match (app.semantics, internal_port(app, slot)) {
                (Semantics::SlotMachine, Some(port)) => format!(
                    ": health is asked at INTERNAL_PORT, which was {port}, and has to be a 200"
                ),
                _ => String::new(),
            },
            probe
                .as_ref()
                .map(|probe| format!("; the last one found: {}", probe.text))
                .unwrap_or_default()
        ),
        Cause::Exited(failure) => format!("{unit} ended by itself: {}", failure.text),
        Cause::StoppedByHand => format!("an administrator stopped {unit}"),
        Cause::ProbesFailed(probe) => format!(
            "{} probes of {unit} failed in a row while it served; the last one found: {}",
            crate::deploy::FAILED_PROBES,
            probe.text
        ),
        Cause::Judged(finding) => format!(
            "{unit} did not pass {}: {}",
            finding.failed.key(),
            finding.text
        ),
        Cause::Soaked => format!("{unit} served through its soak ({})", span(app.soak)),
        Cause::Superseded => {
            "something newer ended the soak: another release was deployed, promoted or gone back to"
                .to_owned()
        }
        Cause::OldSlotGone => "the old slot ended during the soak; the new one is kept".to_owned(),
    }
}

fn internal_port(app: &App, slot: Option<&str>) -> Option<u16> {
    let ports = app.ports.get(&slot?.parse().ok()?)?;
    Some(ports.internal)
}

/// The sentence for an attempt's end.
#[must_use]
pub fn ended(app: &App, slot: Option<&str>, outcome: &Outcome) -> String {
    let release = outcome
        .release
        .as_ref()
        .map_or_else(|| "the release".to_owned(), |id| format!("release {id}"));
    match outcome.cause {
        Cause::Switched => {
            let slot = slot.unwrap_or("its slot");
            if !outcome.goes_back {
                return format!("{release} serves in {slot}");
            }
            match &outcome.reached {
                Some(probe) => {
                    let serves = match probe.pass {
                        true => "serves",
                        false => "has the traffic, but does not serve,",
                    };
                    format!("rolled back: {release} {serves} in {slot}: {}", probe.text)
                }
                None => format!(
                    "rolled back: {release} has the traffic in {slot}; it is not known what the public listener answers"
                ),
            }
        }
        Cause::Marked(ref back) => marked(app, outcome.release.as_ref(), back.as_deref()),
        _ => cause(app, slot, &outcome.cause),
    }
}

/// Why a release is not deployed that was rolled back by itself, and what to do.
#[must_use]
pub fn marked(app: &App, release: Option<&ReleaseId>, back: Option<&RolledBack>) -> String {
    let named = release.or_else(|| back?.left.as_ref());
    let what = named.map_or_else(|| "the release".to_owned(), |id| format!("release {id}"));
    let why = back.map_or_else(String::new, |back| {
        let why = cause(app, Some(back.from.as_str()), &back.cause);
        let (generation, at) = (back.generation, utc(back.at.0));
        format!(" at {at} (generation {generation}), because {why}")
    });
    let again = named.map_or_else(String::new, |id| format!(" --release {id}"));
    format!(
        "{what} was rolled back automatically{why}. Deploy what mends that, or the same bits all the same with `slotctl deploy{again} --force`; \
         `slotctl logs` has what the app said"
    )
}

/// An attempt's end, without the evidence of a failure.
#[must_use]
pub fn outcome(app: &App, outcome: &Outcome) -> api::Outcome {
    let slot = outcome.slot.as_ref().map(ToString::to_string);
    let ends = outcome.entered.iter().skip(1).map(|(_, began)| *began);
    let phases = outcome.entered.iter().zip(ends.chain([outcome.at]));
    api::Outcome {
        success: matches!(
            outcome.cause,
            Cause::Switched | Cause::StandsBy | Cause::AlreadyLive(_)
        ),
        generation: outcome.generation.0,
        kind: kind(outcome.kind).to_owned(),
        release: outcome.release.as_ref().map(ToString::to_string),
        previous: outcome.previous.as_ref().map(ToString::to_string),
        phase: outcome.phase.to_owned(),
        cause: outcome.cause.code().to_owned(),
        text: ended(app, slot.as_deref(), outcome),
        initiated_by: outcome.by.clone(),
        at_ms: outcome.at.0,
        reached: outcome.reached.as_ref().map(|probe| probe.text.clone()),
        phases_ms: phases
            .map(|((phase, began), end)| ((*phase).to_owned(), millis(end.since(*began))))
            .collect(),
        weight: None,
        report: None,
        slot,
    }
}

/// An attempt whose candidate stays at a weight, as if it had ended: for whoever began it there is nothing to wait for.
#[must_use]
pub fn trial(state: &State) -> Option<api::Outcome> {
    let held = state.deployment.as_ref()?;
    let slot = state.on_trial()?;
    let release = state.slots.get(slot)?.release.as_ref();
    let entered = held.entered.iter().zip(held.entered.iter().skip(1));
    Some(api::Outcome {
        success: true,
        generation: held.generation.0,
        kind: kind(held.kind).to_owned(),
        release: release.map(ToString::to_string),
        slot: Some(slot.to_string()),
        previous: state.live().map(ToString::to_string),
        phase: held.phase.name().to_owned(),
        cause: "trial".to_owned(),
        weight: Some(state.weight(slot).get()),
        text: share(state, slot),
        initiated_by: held.by.clone(),
        at_ms: 0,
        reached: None,
        phases_ms: entered
            .map(|((phase, began), (_, end))| ((*phase).to_owned(), millis(end.since(*began))))
            .collect(),
        report: None,
    })
}

/// What a slot has beside the active one, and what there is to do about it.
#[must_use]
pub fn share(state: &State, slot: &SlotName) -> String {
    let mut text = format!("{slot} has {} of new requests", state.weight(slot));
    if let Some(active) = state.active.as_ref().filter(|active| *active != slot) {
        let _ = write!(text, ", {active} {}", state.rest());
    }
    if state.on_trial() == Some(slot) {
        let _ = write!(
            text,
            "; it stays there: `slotctl weight {slot} 50` gives it another share, `slotctl promote` all, `slotctl abort` takes it back"
        );
    }
    text
}

/// A switch that was taken back by itself.
#[must_use]
pub fn rolled_back(app: &App, back: &RolledBack) -> api::RolledBack {
    let text = |release: &Option<ReleaseId>| release.as_ref().map(ToString::to_string);
    api::RolledBack {
        generation: back.generation.0,
        at_ms: back.at.0,
        from_slot: back.from.to_string(),
        from_release: text(&back.left),
        to_slot: back.to.to_string(),
        to_release: text(&back.release),
        cause: back.cause.code().to_owned(),
        text: cause(app, Some(back.from.as_str()), &back.cause),
        reached: back.reached.as_ref().map(|probe| probe.text.clone()),
    }
}

fn fails(app: &App, slot: &SlotName, why: &Cause) -> String {
    format!(
        "the live release fails, after its soak: {}",
        cause(app, Some(slot.as_str()), why)
    )
}

/// That the active slot fails when its soak is over, and what to do.
#[must_use]
pub fn failing(app: &App, slot: &SlotName, why: &Cause, state: &State) -> String {
    let fails = fails(app, slot, why);
    match state.way_back() {
        Some(prev) => format!("{fails}; `slotctl rollback` goes back to release {prev}"),
        None if state.gone_back().is_some() => format!(
            "{fails}; a rollback has brought it, and `slotctl rollback --to RELEASE` goes to an earlier one of `slotctl releases`"
        ),
        None => format!("{fails}; there is no release to go back to"),
    }
}

/// That the routers have the table of a rollback, and what they answer with it.
fn returned(back: &RolledBack, at: Time) -> String {
    let release = (back.release.as_ref())
        .map_or_else(|| "the release".to_owned(), |id| format!("release {id}"));
    let took = span(at.since(back.at));
    let (serves, found) = match &back.reached {
        Some(probe) if probe.pass => ("serves again", probe.text.as_str()),
        Some(probe) => (
            "has the traffic again, but does not serve",
            probe.text.as_str(),
        ),
        None => (
            "has the traffic again",
            "nobody could be asked at a public listener",
        ),
    };
    format!("{release} {serves} in {} after {took}: {found}", back.to)
}

/// The sentence for a hook that ended after a switch or a rollback.
#[must_use]
pub fn hooked(occasion: &Occasion, failure: Option<&UnitFailure>) -> String {
    let (name, generation) = (occasion.hook.name(), occasion.generation);
    match failure {
        None => format!("the hook {name} of generation {generation} is done"),
        Some(failure) => format!(
            "the hook {name} of generation {generation} {}; that changes nothing of what serves",
            failure.text
        ),
    }
}

/// `2m 15s`, `10 s`, `250 ms`.
#[must_use]
pub fn span(span: std::time::Duration) -> String {
    let seconds = span.as_secs();
    match (seconds, span.subsec_millis()) {
        (0, millis) => format!("{millis} ms"),
        (seconds, _) if seconds < 120 => format!("{seconds} s"),
        (seconds, _) => format!("{}m {}s", seconds / 60, seconds % 60),
    }
}

/// A notice as an event of the API.
#[must_use]
pub fn event(app: &App, notice: &Notice, state: &State, at: Time) -> api::Event {
    let mut event = api::Event {
        at_ms: at.0,
        app: app.name.to_string(),
        generation: state.generation.0,
        ..api::Event::default()
    };
    let text = |name: &dyn std::fmt::Display| Some(name.to_string());
    let release_of = |slot| {
        state
            .slots
            .get(slot)?
            .release
            .as_ref()
            .map(ToString::to_string)
    };
    match notice {
        Notice::Began {
            generation,
            kind: what,
            by,
        } => {
            event.generation = generation.0;
            event.event = "began".to_owned();
            event.text = format!(
                "{} {generation} of {} was begun by {by}",
                kind(*what),
                app.name
            );
        }
        Notice::Phase {
            generation,
            phase,
            slot,
            release,
        } => {
            event.generation = generation.0;
            event.event = "phase".to_owned();
            event.phase = text(phase);
            event.slot = slot.as_ref().map(ToString::to_string);
            event.release = release.as_ref().map(ToString::to_string);
            event.text = match (slot, release) {
                (Some(slot), Some(release)) => {
                    format!("{phase}: release {release} in {}", unit(app, slot))
                }
                _ => (*phase).to_owned(),
            };
        }
        Notice::Ended(outcome) => {
            event.generation = outcome.generation.0;
            event.event = "ended".to_owned();
            event.phase = text(&outcome.phase);
            event.release = outcome.release.as_ref().map(ToString::to_string);
            event.cause = text(&outcome.cause.code());
            event.slot = outcome.slot.as_ref().map(ToString::to_string);
            event.text = ended(app, event.slot.as_deref(), outcome);
        }
        Notice::Soak {
            generation,
            slot,
            cause: why,
        } => {
            event.generation = generation.0;
            event.event = "soak".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.cause = text(&why.code());
            event.text = cause(app, Some(slot.as_str()), why);
        }
        Notice::RolledBack(back) => {
            event.generation = back.generation.0;
            event.event = "rolled-back".to_owned();
            event.slot = text(&back.to);
            event.release = back.release.as_ref().map(ToString::to_string);
            event.cause = text(&back.cause.code());
            event.text = format!(
                "rolled back to {}: {}",
                back.to,
                cause(app, Some(back.from.as_str()), &back.cause)
            );
        }
        Notice::Failing {
            generation,
            slot,
            cause: why,
            to,
        } => {
            event.generation = generation.0;
            event.event = "failing".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.cause = text(&why.code());
            event.text = match to {
                None => failing(app, slot, why, state),
                Some(Ok(id)) => format!(
                    "{}; release {id} takes its place (after_soak)",
                    fails(app, slot, why)
                ),
                Some(Err(refusal)) => format!(
                    "{}; nothing takes its place, though after_soak says so: {refusal}",
                    fails(app, slot, why)
                ),
            };
        }
        Notice::Returned(back) => {
            event.generation = back.generation.0;
            event.event = "returned".to_owned();
            event.slot = text(&back.to);
            event.release = back.release.as_ref().map(ToString::to_string);
            event.cause = text(&back.cause.code());
            event.text = returned(back, at);
        }
        Notice::Weighed {
            slot,
            weight,
            rest,
            cause: why,
        } => {
            event.event = "weighed".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.cause = why.as_ref().map(|why| why.code().to_owned());
            let because = why.as_ref().map_or_else(String::new, |why| {
                format!(": {}", cause(app, Some(slot.as_str()), why))
            });
            event.text = format!(
                "{} has {weight} of new requests, the active slot {rest}{because}",
                unit(app, slot)
            );
        }
        Notice::Holds {
            generation,
            step,
            lack,
        } => {
            event.generation = generation.0;
            event.event = "holds".to_owned();
            event.text = format!("step {} has had its time, and waits for {lack}", step + 1);
        }
        Notice::Draining { slot, until } => {
            event.event = "draining".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.text = match until {
                Some(until) => {
                    format!(
                        "{} finishes what is in flight, for {} at most",
                        unit(app, slot),
                        span(until.since(at))
                    )
                }
                None => format!(
                    "{} finishes what is in flight, however long that takes",
                    unit(app, slot)
                ),
            };
        }
        Notice::Forced { slot } => {
            event.event = "forced".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.cause = text(&"drain-deadline");
            event.text = format!(
                "what {} had not finished by its drain deadline is cut",
                unit(app, slot)
            );
        }
        Notice::Stopped { slot, killed } => {
            event.event = "stopped".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.cause = killed.then(|| "stop-timeout".to_owned());
            event.text = if *killed {
                format!(
                    "{} did not end within stop_timeout ({}) and was killed",
                    unit(app, slot),
                    span(app.stop_timeout)
                )
            } else {
                format!("{} is stopped", unit(app, slot))
            };
        }
        Notice::Down { slot, failure } => {
            event.event = "down".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.cause = text(
                &failure
                    .as_ref()
                    .map_or("stopped-by-hand", |failure| failure.result.as_str()),
            );
            event.text = match failure {
                Some(failure) => {
                    format!(
                        "the active slot is down, its requests are held: {} {}",
                        unit(app, slot),
                        failure.text
                    )
                }
                None => format!(
                    "an administrator stopped {}, the active slot: its requests are held, then refused; `systemctl start {}` brings it back",
                    unit(app, slot),
                    unit(app, slot)
                ),
            };
        }
        Notice::Up { slot } => {
            event.event = "up".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.text = format!("{} is up and serves", unit(app, slot));
        }
        Notice::Hooked { occasion, failure } => {
            event.generation = occasion.generation.0;
            event.event = "hook".to_owned();
            event.phase = text(&occasion.hook.name());
            event.slot = occasion.slot.as_ref().map(ToString::to_string);
            event.release = occasion.release.as_ref().map(ToString::to_string);
            event.cause = failure.as_ref().map(|it| it.result.as_str().to_owned());
            event.text = hooked(occasion, failure.as_ref());
        }
        Notice::StandsBy { slot } => {
            event.event = "standby".to_owned();
            event.slot = text(slot);
            event.release = release_of(slot);
            event.text = format!(
                "{} was started by hand and stands by; `slotctl promote {slot}` makes it active",
                unit(app, slot)
            );
        }
    }
    event
}
