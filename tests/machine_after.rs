//! After the switch: what is marked, and what becomes of it.
// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod machine_support;

use std::time::Duration;

use machine_support::{App, failure, probe, release, settings, slot};
use slot::deploy::{Cause, End, Event, Notice, Refusal, Request};

/// r1 is warm in blue while r2 soaks in green.
fn in_soak() -> App {
    let mut app = App::new();
    app.serve(1).settle().serve(2);
    app
}

fn crashed() -> End {
    End::Restarting(failure("killed by SIGKILL"))
}

/// r2 was rolled back to r1.
fn rolled_back() -> App {
    let mut app = in_soak();
    app.vanished("green", crashed()).routed().stopped("green");
    assert_eq!(app.active(), "blue");
    app
}

fn forced(app: &App) -> Event {
    Event::Begin(Request {
        by: "root".to_owned(),
        settings: app.state.settings.clone(),
        queue: Duration::ZERO,
        weight: None,
        force: true,
    })
}

#[test]
fn a_release_that_was_rolled_back_is_not_deployed_again_and_it_is_told_how_it_was_rolled_back() {
    let mut app = rolled_back();
    let back = app.state.rolled_back.clone().unwrap();
    app.deploy(2);
    assert_eq!(app.state.deployment, None);
    let outcome = app.state.outcome.clone().unwrap();
    assert_eq!(outcome.cause, Cause::Marked(Some(Box::new(back))));
    assert_eq!(
        (outcome.phase, outcome.release),
        ("preparing", Some(release(2)))
    );
    assert_eq!((app.active(), app.is("green")), ("blue", "idle"));
    app.serve(3);
    assert_eq!(app.active(), "green", "another one is deployed");
}

#[test]
fn a_release_that_is_known_to_be_marked_before_it_is_on_disk_is_not_put_there() {
    let mut app = rolled_back();
    app.on(app.begin());
    let generation = app.state.generation;
    app.on(Event::Barred {
        generation,
        release: release(2),
    });
    assert_eq!((app.cause(), app.is("green")), ("marked", "idle"));
    let ended = app.state.clone();
    app.on(Event::Barred {
        generation,
        release: release(2),
    });
    assert_eq!(app.state, ended, "a late one is a no-op");
}

#[test]
fn a_release_that_was_rolled_back_is_deployed_by_force_and_a_soak_that_it_survives_unmarks_it() {
    let mut app = rolled_back();
    app.on(forced(&app));
    let generation = app.state.generation;
    app.on(Event::Prepared {
        generation,
        release: release(2),
    });
    app.pass_gates();
    assert_eq!(app.state.live(), Some(&release(2)));
    assert!(
        app.state.marked.contains_key(&release(2)),
        "not before it has soaked"
    );
    app.settle();
    assert!(app.state.marked.is_empty());
    app.serve(3).settle().serve(2);
    assert_eq!(app.state.live(), Some(&release(2)));
}

#[test]
fn a_deployment_of_the_same_bits_ends_when_they_are_rolled_back() {
    let mut three = settings();
    three.slots.push(slot("red"));
    let mut app = App::with(three);
    app.serve(1).settle().serve(2).deploy(2);
    let candidate = app.candidate();
    app.started(&candidate);
    app.vanished("green", crashed());
    assert_eq!((app.active(), app.cause()), ("blue", "marked"));
    assert_eq!(app.is(candidate.as_str()), "stopping");
    // Another one goes on.
    let mut app = App::with(app.state.settings.clone());
    app.serve(1).settle().serve(2).deploy(3);
    app.vanished("green", crashed());
    assert_eq!((app.active(), app.phase()), ("blue", Some("starting")));
}

#[test]
fn a_swap_does_not_bring_back_what_was_rolled_back() {
    let mut app = in_soak();
    app.vanished("green", crashed()).routed().stopped("green");
    app.on(forced(&app));
    let generation = app.state.generation;
    app.on(Event::Prepared {
        generation,
        release: release(2),
    });
    app.pass_gates();
    let green = slot("green");
    for _ in 0..3 {
        app.probed(&green, false);
    }
    app.routed();
    assert_eq!((app.active(), app.is("green")), ("blue", "draining"));
    assert_eq!(
        app.refused(app.ask_swap("blue", "green")),
        Refusal::Marked {
            release: release(2)
        }
    );
}

#[test]
fn failed_probes_are_counted_in_a_row() {
    let mut app = in_soak();
    let green = slot("green");
    for pass in [false, false, true, false, false] {
        app.probed(&green, pass);
    }
    assert_eq!(app.active(), "green");
    assert_eq!(app.state.watch.as_ref().unwrap().streak, 2);
    app.probed(&green, true).settle();
    assert!(app.state.soaked);
}

#[test]
fn a_rollback_is_verified_at_the_public_listener_and_says_so_once_it_is_everywhere() {
    let mut app = in_soak();
    app.vanished("green", crashed());
    let told = |app: &App| {
        app.told
            .iter()
            .filter(|it| matches!(it, Notice::Returned(_)))
            .count()
    };
    assert_eq!((told(&app), app.state.name()), (0, "rolling_back"));
    let reached = |app: &App, table| Event::Reached {
        table,
        probe: probe(app.active() == "blue"),
    };
    let (stale, table) = (app.state.table - 1, app.state.table);
    let before = app.state.clone();
    app.on(reached(&app, stale));
    assert_eq!(app.state, before, "of another table it says nothing");
    app.on(reached(&app, table)).routed().routed();
    let back = app.state.rolled_back.clone().unwrap();
    assert_eq!((back.reached, told(&app)), (Some(probe(true)), 1));
    assert_eq!(app.state.reached, None);
    // One that is asked for.
    app.stopped("green").serve(3).settle().rollback();
    let candidate = app.candidate();
    app.started(&candidate).probed(&candidate, true);
    let table = app.state.table;
    app.on(reached(&app, table));
    app.routed();
    let outcome = app.state.outcome.clone().unwrap();
    assert_eq!(
        (outcome.cause, outcome.by.as_str()),
        (Cause::Switched, "root")
    );
    assert!(outcome.reached.is_some());
    assert_eq!(app.state.switched, Some(outcome.at));
}

#[test]
fn runs_that_ended_before_the_switch_are_not_held_against_a_release() {
    let mut app = App::new();
    app.serve(1).settle().serve(2).settle().appeared("blue", 3);
    app.probed(&slot("blue"), true);
    for _ in 0..3 {
        app.vanished("blue", crashed()).appeared("blue", 3);
    }
    app.probed(&slot("blue"), true);
    app.on(app.ask_promote("blue"));
    app.probed(&slot("blue"), true).routed();
    assert_eq!((app.active(), app.state.name()), ("blue", "switched"));
    app.settle();
    assert!(app.state.soaked);
}
