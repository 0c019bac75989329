//! Hooks in the deploy state machine: what waits for them, what does not, and what a crash makes of them.

mod machine_support;

use std::collections::BTreeSet;
use std::time::Duration;

use machine_support::{App, failure, release, settings, slot};
use slot::deploy::{
    Effect, End, Event, Generation, Hook, Notice, Occasion, Settings, Stage, UnitResult, effects,
    step,
};

fn with(hooks: impl IntoIterator<Item = Hook>) -> Settings {
    Settings {
        hooks: BTreeSet::from_iter(hooks),
        ..settings()
    }
}

/// Blue serves r1 and has soaked, by settings that have these hooks.
fn served(hooks: &[Hook]) -> App {
    let mut app = App::new();
    app.serve(1).settle();
    app.state.settings = with(hooks.iter().copied());
    app
}

/// The hook that is to be running.
fn running(app: &App) -> Option<Occasion> {
    let mut hooks = effects(&app.state)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Hook(occasion) => Some(occasion),
            _ => None,
        });
    let first = hooks.next();
    assert_eq!(hooks.next(), None, "one at a time");
    first
}

fn ends(app: &mut App, failed: bool) {
    let occasion = running(app).expect("a hook runs");
    app.on(Event::Hooked {
        hook: occasion.hook,
        generation: occasion.generation,
        failure: failed.then(|| failure("exited with status 3")),
    });
}

/// Green is the candidate, with r2, and has passed its gates.
fn before_switch() -> App {
    let mut app = served(&[Hook::BeforeSwitch]);
    app.deploy(2);
    let green = slot("green");
    app.started(&green).probed(&green, true);
    app
}

#[test]
fn a_candidate_that_passed_its_gates_waits_for_the_hook_and_then_for_one_more_probe() {
    let mut app = before_switch();
    let occasion = running(&app).expect("it runs");
    assert_eq!(
        occasion,
        Occasion {
            hook: Hook::BeforeSwitch,
            generation: Generation(2),
            slot: Some(slot("green")),
            release: Some(release(2)),
            previous: Some(release(1)),
            cause: "deploy".to_owned(),
        }
    );
    // However long that takes, and whatever is found of its health meanwhile.
    let green = slot("green");
    app.probed(&green, true).wait(3600).probed(&green, false);
    assert_eq!(
        (app.active(), app.phase(), app.is("green")),
        ("blue", Some("ready"), "ready")
    );
    assert_eq!(running(&app), Some(occasion));
    ends(&mut app, false);
    assert_eq!((running(&app), app.active()), (None, "blue"));
    app.probed(&green, true).routed();
    assert_eq!((app.active(), app.cause()), ("green", "switched"));
}

#[test]
fn health_that_is_gone_after_the_hook_ends_the_deployment_in_its_own_time() {
    let mut app = before_switch();
    app.wait(3600);
    ends(&mut app, false);
    app.probed(&slot("green"), false).wait(29);
    assert_eq!(app.phase(), Some("ready"));
    app.wait(1);
    assert_eq!((app.active(), app.cause()), ("blue", "health-timeout"));
}

#[test]
fn a_hook_that_fails_before_the_switch_ends_the_deployment_and_the_live_release_is_untouched() {
    for late in [false, true] {
        let mut app = before_switch();
        let mut failure = failure("exited with status 3");
        if late {
            failure.result = UnitResult::Timeout;
        }
        app.on(Event::Hooked {
            hook: Hook::BeforeSwitch,
            generation: Generation(2),
            failure: Some(failure),
        });
        let code = if late { "hook-timeout" } else { "hook-failed" };
        assert_eq!(
            (app.active(), app.cause(), app.is("green")),
            ("blue", code, "stopping")
        );
        app.stopped("green");
        assert_eq!((app.is("green"), app.is("blue")), ("idle", "active"));
        assert_eq!(running(&app), None);
    }
}

#[test]
fn a_rollback_goes_ahead_of_a_hook_and_has_none_before_it() {
    let mut app = served(&Hook::AROUND);
    app.deploy(2);
    let green = slot("green");
    app.started(&green).probed(&green, true);
    ends(&mut app, false);
    app.probed(&green, true).routed();
    // after_switch of r2 runs, r3 waits for its before_switch.
    let switched = running(&app).expect("it runs");
    assert_eq!(
        (switched.hook, switched.cause.as_str()),
        (Hook::AfterSwitch, "deploy")
    );
    ends(&mut app, false);
    app.settle().deploy(3);
    let blue = slot("blue");
    app.started(&blue).probed(&blue, true);
    app.rollback();
    assert_eq!((app.cause(), app.is("blue")), ("preempted", "stopping"));
    app.stopped("blue");
    app.started(&blue).probed(&blue, true).routed();
    assert_eq!((app.active(), app.cause()), ("blue", "switched"));
    let back = running(&app).expect("it runs");
    assert_eq!(
        (back.hook, back.cause.as_str()),
        (Hook::AfterRollback, "rollback")
    );
    assert_eq!(
        (back.release, back.previous),
        (Some(release(1)), Some(release(2)))
    );
}

#[test]
fn a_slot_that_takes_the_place_of_one_that_was_stopped_waits_for_no_hook() {
    let mut app = served(&[Hook::BeforeSwitch, Hook::AfterSwitch]);
    app.vanished("blue", End::ByHand);
    let green = slot("green");
    app.appeared("green", 2).probed(&green, true).routed();
    assert_eq!(app.active(), "green");
    assert_eq!(running(&app).map(|it| it.cause), Some("by-hand".to_owned()));
}

#[test]
fn a_switch_that_is_taken_back_by_itself_has_its_hook_when_the_routers_have_it() {
    let mut app = served(&[Hook::AfterRollback]);
    app.serve(2);
    for _ in 0..3 {
        app.probed(&slot("green"), false);
    }
    assert_eq!((app.active(), running(&app)), ("blue", None));
    app.routed();
    let back = running(&app).expect("it runs");
    assert_eq!(
        (back.hook, back.cause.as_str()),
        (Hook::AfterRollback, "probes-failed")
    );
    assert_eq!(
        (back.generation, back.slot),
        (Generation(2), Some(slot("blue")))
    );
    assert_eq!(
        (back.release, back.previous),
        (Some(release(1)), Some(release(2)))
    );
    app.told.clear();
    ends(&mut app, true);
    assert!(
        matches!(
            &app.told[..],
            [Notice::Hooked {
                failure: Some(_),
                ..
            }]
        ),
        "it only warns"
    );
    assert_eq!((app.active(), running(&app)), ("blue", None));
}

#[test]
fn a_hook_after_a_switch_is_due_until_it_ended_over_restarts_and_reboots() {
    let mut app = served(&[Hook::AfterSwitch]);
    app.serve(2);
    let due = running(&app);
    assert!(due.is_some());
    app.recover(&app.facts());
    assert_eq!(running(&app), due);
    app.recover(&app.facts_after_reboot());
    assert_eq!(running(&app), due);
    ends(&mut app, false);
    // What is said again of one that has ended is nothing.
    let again = Event::Hooked {
        hook: Hook::AfterSwitch,
        generation: Generation(2),
        failure: None,
    };
    let next = step(&app.state, again, app.now).expect("it is not refused");
    assert_eq!((next.state, next.notices), (app.state, Vec::new()));
}

#[test]
fn a_deployer_that_was_killed_runs_the_hook_again_and_after_a_reboot_the_gates_come_first() {
    let mut app = before_switch();
    let due = running(&app);
    app.recover(&app.facts());
    assert_eq!(running(&app), due);
    app.recover(&app.facts_after_reboot());
    assert_eq!((app.phase(), running(&app)), (Some("starting"), None));
    let green = slot("green");
    app.started(&green).probed(&green, true);
    assert_eq!(running(&app), due);
    ends(&mut app, false);
    // One that has passed is not run again.
    app.recover(&app.facts_after_reboot());
    app.started(&green).probed(&green, true).routed();
    assert_eq!(app.active(), "green");
}

#[test]
fn a_candidate_that_ends_under_the_hook_ends_the_deployment() {
    let mut app = before_switch();
    app.vanished("green", End::Restarting(failure("killed by SIGSEGV")));
    assert_eq!((app.cause(), running(&app)), ("exited", None));
    assert_eq!(app.state.deployment, None);
}

#[test]
fn hooks_wait_for_each_other_and_those_that_wait_are_bounded() {
    let mut app = served(&[Hook::AfterSwitch]);
    app.state.settings.soak = Duration::ZERO;
    let first = app.state.generation.next();
    for number in 2..20 {
        app.serve(number);
        let old: Vec<_> = app.state.slots.keys().cloned().collect();
        for name in old
            .iter()
            .filter(|name| app.condition(name).name() == "draining")
            .cloned()
            .collect::<Vec<_>>()
        {
            app.drained(name.as_str()).stopped(name.as_str());
        }
    }
    assert_eq!(running(&app).map(|it| it.generation), Some(first));
    assert_eq!(app.state.due.len(), 8);
    assert_eq!(
        app.state.due.last().map(|it| it.generation),
        Some(app.state.generation)
    );
}

#[test]
fn a_hook_that_fails_before_a_deployment_ends_it_before_anything_is_started() {
    let mut app = served(&[]);
    app.on(app.begin());
    let generation = app.state.generation;
    let hooked = |generation| Event::Hooked {
        hook: Hook::BeforeDeploy,
        generation,
        failure: Some(failure("exited with status 3")),
    };
    app.on(hooked(Generation(1)));
    assert_eq!(app.phase(), Some("preparing"), "it is another's");
    app.on(hooked(generation));
    assert_eq!(
        (app.cause(), app.is("green"), app.active()),
        ("hook-failed", "idle", "blue")
    );
}

#[test]
fn a_deployment_keeps_the_hooks_that_it_began_with() {
    let mut app = served(&[Hook::BeforeSwitch]);
    app.deploy(2);
    app.state.settings = with([]);
    let green = slot("green");
    app.started(&green).probed(&green, true);
    let held = app.state.deployment.as_ref().expect("it goes on");
    assert_eq!(held.before_switch, Stage::Runs);
}
