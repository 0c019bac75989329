//! Plans, in the state machine: by which steps a candidate comes to its requests, what it is taken back for, and that nothing but a verdict
//! takes it on.

mod machine_support;

use std::time::Duration;

use machine_support::{App, failure, percent, release, settings, slot};
use slot::deploy::{
    Canary, CanaryStep, Checks, Effect, Event, Evidence, Generation, Hook, Measured, Measurement,
    Notice, Quantile, Quiet, Rate, Ratio, Refusal, Request, Sample, Sides, effects,
};

fn canary(steps: &[(u8, u64)]) -> Canary {
    let step = |(weight, seconds): &(u8, u64)| CanaryStep {
        weight: percent(*weight),
        lasts: Duration::from_secs(*seconds),
    };
    Canary {
        steps: steps.iter().map(step).collect(),
        auto_promote: true,
        checks: Checks::default(),
        warm_up: Duration::ZERO,
        quiet: Quiet::Hold,
        max_hold: Duration::from_secs(600),
    }
}

/// Blue serves r1, and r2 is to come in three steps of a minute.
fn app() -> App {
    with(canary(&[(1, 60), (10, 60), (50, 60)]))
}

fn with(canary: Canary) -> App {
    let mut settings = settings();
    settings.canary = Some(Box::new(canary));
    let mut app = App::with(settings);
    app.serve(1).settle();
    app
}

/// A deployment that goes by the plan, up to its first step.
fn deployed(mut app: App) -> App {
    app.on(Event::Begin(Request {
        planned: true,
        ..app.request()
    }));
    app.on(Event::Prepared {
        generation: app.state.generation,
        release: release(2),
    });
    app.pass_gates();
    app
}

/// So many requests of the candidate, and of them so many that failed.
fn counted(requests: u64, errors: u64) -> Evidence {
    let sample = |requests, errors| Sample {
        requests,
        errors,
        timed: requests,
        ..Sample::default()
    };
    let whole = Sides {
        candidate: sample(requests, errors),
        live: sample(10_000, 0),
    };
    Evidence {
        recent: whole.clone(),
        whole,
    }
}

fn measured(app: &mut App, step: usize, requests: u64, errors: u64) {
    app.on(Event::Measured {
        of: Measured::Step(step),
        generation: app.state.generation,
        evidence: counted(requests, errors),
    });
}

/// The first step passes after so many seconds, and not a second before.
fn passes_after(app: &mut App, seconds: u64, why: &str) {
    app.wait(seconds - 1);
    measured(app, 0, 5_000, 0);
    assert_eq!(app.weight("green"), 1, "{why}");
    app.wait(1);
    measured(app, 0, 5_000, 0);
    assert_eq!(app.weight("green"), 10);
}

#[test]
fn a_candidate_goes_from_step_to_step_by_time_and_verdict_and_then_has_everything() {
    let mut app = deployed(app());
    for (step, weight) in [(0, 1), (1, 10), (2, 50)] {
        assert_eq!(
            (app.weight("green"), app.phase()),
            (weight, Some("shifting"))
        );
        measured(&mut app, step, 5_000, 0);
        assert_eq!(app.weight("green"), weight, "its time is not over");
        app.wait(60);
        assert_eq!(app.weight("green"), weight, "time alone is no verdict");
        measured(&mut app, step, 5_000, 10);
        app.routed();
    }
    assert_eq!((app.active(), app.cause()), ("green", "switched"));
    assert_eq!(app.state.name(), "switched", "and the soak comes after it");
}

#[test]
fn one_that_fails_is_taken_back_at_once_whatever_its_step_still_lasts() {
    let mut app = deployed(app());
    app.wait(60);
    measured(&mut app, 0, 200, 0);
    app.routed();
    measured(&mut app, 1, 3, 3);
    assert_eq!(app.weight("green"), 10, "three are chance");
    measured(&mut app, 1, 6, 6);
    assert_eq!((app.weight("green"), app.phase()), (0, None));
    assert_eq!((app.cause(), app.active()), ("error-rate", "blue"));
    assert_eq!(app.is("green"), "draining");
}

#[test]
fn silence_is_held_and_in_the_end_taken_back() {
    let mut app = deployed(app());
    app.wait(60);
    measured(&mut app, 0, 1, 0);
    measured(&mut app, 0, 2, 0);
    let holds = |app: &App| {
        let holds = |it: &&Notice| matches!(it, Notice::Holds { step: 0, .. });
        app.told.iter().filter(holds).count()
    };
    assert_eq!(
        (holds(&app), app.weight("green")),
        (1, 1),
        "it is said once"
    );
    app.wait(599);
    assert_eq!(app.weight("green"), 1);
    app.wait(1);
    assert_eq!((app.cause(), app.weight("green")), ("max-hold", 0));
}

#[test]
fn where_the_file_says_so_too_few_requests_take_it_on() {
    let mut canary = canary(&[(10, 60)]);
    canary.quiet = Quiet::Advance;
    let mut app = deployed(with(canary));
    measured(&mut app, 0, 1, 0);
    assert_eq!(app.weight("green"), 10, "not before its time");
    app.wait(60);
    measured(&mut app, 0, 1, 0);
    app.routed();
    assert_eq!((app.active(), app.cause()), ("green", "switched"));
}

#[test]
fn without_auto_promote_it_stays_at_its_last_weight_and_is_still_taken_back_for_harm() {
    let mut canary = canary(&[(10, 60)]);
    canary.auto_promote = false;
    for harms in [true, false] {
        let mut app = deployed(with(canary.clone()));
        app.wait(60);
        measured(&mut app, 0, 100, 0);
        app.wait(86_400);
        assert_eq!((app.weight("green"), app.phase()), (10, Some("shifting")));
        let refused = app.refused(Event::Pause { paused: true });
        assert!(matches!(refused, Refusal::PlanFinished { .. }));
        if harms {
            measured(&mut app, 0, 100, 100);
            assert_eq!((app.cause(), app.weight("green")), ("error-rate", 0));
        } else {
            app.on(app.ask_promote("green")).routed();
            assert_eq!((app.active(), app.cause()), ("green", "switched"));
        }
    }
}

#[test]
fn a_pause_stops_the_clock_and_not_the_look_at_it() {
    for harms in [true, false] {
        let mut app = deployed(app());
        app.wait(50);
        app.on(Event::Pause { paused: true });
        app.on(Event::Pause { paused: true });
        app.wait(86_400);
        measured(&mut app, 0, 5_000, 0);
        assert_eq!(app.weight("green"), 1);
        if harms {
            measured(&mut app, 0, 5_000, 500);
            assert_eq!((app.cause(), app.weight("green")), ("error-rate", 0));
            continue;
        }
        app.on(Event::Pause { paused: false });
        passes_after(&mut app, 10, "ten seconds were left of it");
    }
}

#[test]
fn a_weight_that_somebody_gives_pauses_the_plan_which_goes_on_with_its_own() {
    let mut app = deployed(app());
    app.on(app.ask_weight("green", 30)).routed();
    app.wait(60);
    measured(&mut app, 0, 5_000, 0);
    assert_eq!(app.weight("green"), 30);
    app.on(Event::Pause { paused: false });
    assert_eq!(app.weight("green"), 1);
    passes_after(&mut app, 60, "the step began anew");
}

#[test]
fn the_apps_own_check_has_the_last_word_on_each_step() {
    for passes in [true, false] {
        let mut checked = app();
        checked.state.settings.hooks = [Hook::Check].into();
        let mut app = deployed(checked);
        let runs = |app: &App| {
            let demanded = effects(&app.state).into_iter();
            let hooks = demanded.filter(|it| matches!(it, Effect::Hook(_)));
            hooks.count()
        };
        app.wait(60);
        assert_eq!(runs(&app), 0);
        measured(&mut app, 0, 5_000, 0);
        assert_eq!((runs(&app), app.weight("green")), (1, 1));
        measured(&mut app, 0, 5_000, 0);
        app.wait(86_400);
        assert_eq!(app.weight("green"), 1, "its own limit is that of [hooks]");
        app.on(Event::Hooked {
            hook: Hook::Check,
            generation: app.state.generation,
            failure: (!passes).then(|| failure("exited with status 1")),
        });
        if !passes {
            assert_eq!((app.cause(), app.weight("green")), ("hook-failed", 0));
            continue;
        }
        assert_eq!((runs(&app), app.weight("green")), (0, 10), "at once");
    }
}

#[test]
fn a_check_that_passes_while_the_plan_stands_still_is_good_when_that_goes_on() {
    let mut checked = app();
    checked.state.settings.hooks = [Hook::Check].into();
    let mut app = deployed(checked);
    app.wait(60);
    measured(&mut app, 0, 5_000, 0);
    app.on(Event::Pause { paused: true });
    app.wait(86_400);
    app.on(Event::Hooked {
        hook: Hook::Check,
        generation: app.state.generation,
        failure: None,
    });
    app.wait(86_400);
    assert_eq!(app.weight("green"), 1);
    app.on(Event::Pause { paused: false });
    assert_eq!(app.weight("green"), 10);
}

#[test]
fn a_deployer_that_was_away_for_longer_than_a_verdict_may_take_waits_for_it_anew() {
    let mut app = deployed(app());
    app.now = app.now.after(Duration::from_secs(86_400));
    let facts = app.facts();
    app.recover(&facts);
    app.wait(599);
    assert_eq!(app.weight("green"), 1);
    measured(&mut app, 0, 100, 0);
    assert_eq!(app.weight("green"), 10);
}

/// How a first step ends whose candidate and live slot have these latencies.
fn ends_with(checks: Checks, candidate: [u64; 3], live: [u64; 3]) -> &'static str {
    let mut app = deployed(with(Canary {
        checks,
        ..canary(&[(1, 60), (10, 60)])
    }));
    let latencies = |millis: [u64; 3]| {
        let spans = millis.map(Duration::from_millis);
        Quantile::ALL.into_iter().zip(spans).collect()
    };
    let mut evidence = counted(1_000, 0);
    evidence.whole.candidate.latencies = latencies(candidate);
    evidence.whole.live.latencies = latencies(live);
    let generation = app.state.generation;
    app.wait(60).on(Event::Measured {
        of: Measured::Step(0),
        generation,
        evidence,
    });
    match app.weight("green") {
        10 => "passed",
        _ => app.cause(),
    }
}

#[test]
fn each_quantile_has_a_limit_and_a_ratio_of_its_own() {
    for (place, quantile) in Quantile::ALL.into_iter().enumerate() {
        let limit = || Checks {
            latency: [(quantile, Duration::from_millis(100))].into(),
            ..Checks::default()
        };
        let ratio = || Checks {
            latency_ratio: [(quantile, Ratio(200))].into(),
            ..Checks::default()
        };
        // One of the three is slow: the check of that one alone does not pass.
        for slow in 0..3 {
            let mut candidate = [40; 3];
            candidate[slow] = 101;
            let own = slow == place;
            let (limited, compared) = match own {
                true => ("latency", "latency-ratio"),
                false => ("passed", "passed"),
            };
            assert_eq!(
                ends_with(limit(), candidate, [40; 3]),
                limited,
                "{quantile:?}"
            );
            assert_eq!(
                ends_with(ratio(), candidate, [40; 3]),
                compared,
                "{quantile:?}"
            );
        }
        assert_eq!(ends_with(limit(), [100; 3], [40; 3]), "passed");
        assert_eq!(ends_with(ratio(), [80; 3], [40; 3]), "passed");
        assert_eq!(ends_with(ratio(), [300; 3], [150; 3]), "passed");
    }
}

#[test]
fn a_step_whose_clients_give_up_waits_whatever_follows_from_silence_until_max_hold() {
    for quiet in [Quiet::Hold, Quiet::Probe, Quiet::Advance] {
        let mut app = deployed(with(Canary {
            quiet,
            ..canary(&[(1, 60), (10, 60)])
        }));
        let mut evidence = counted(100, 0);
        evidence.whole.candidate.probes = 100;
        evidence.whole.candidate.given_up = 20;
        let seen = Event::Measured {
            of: Measured::Step(0),
            generation: app.state.generation,
            evidence,
        };
        app.wait(60).on(seen.clone());
        assert_eq!(app.weight("green"), 1, "{quiet:?}");
        let waits = app.told.iter().rev().find_map(|told| match told {
            Notice::Holds { lack, .. } => Some(lack.to_string()),
            _ => None,
        });
        assert_eq!(
            waits.as_deref(),
            Some("the candidate to answer before its clients give up, as 20 of 20 did")
        );
        app.wait(599).on(seen.clone());
        assert_eq!(app.weight("green"), 1);
        app.wait(1);
        assert_eq!((app.cause(), app.weight("green")), ("max-hold", 0));
    }
}

#[test]
fn errors_in_a_soak_count_while_the_next_deployment_is_prepared() {
    let mut counting = app();
    counting.state.settings.soak_error_rate = Some(Rate(1_000));
    let mut app = deployed(counting);
    app.on(app.ask_promote("green")).routed();
    let generation = app.state.generation;
    app.on(app.begin());
    app.on(Event::Measured {
        of: Measured::Soak,
        generation,
        evidence: counted(200, 100),
    });
    assert_eq!(app.active(), "blue");
}

#[test]
fn both_slots_are_measured_for_each_step_and_for_a_soak_that_counts() {
    let asked = |app: &App| -> Vec<Measurement> {
        let demanded = effects(&app.state).into_iter();
        let measured = demanded.filter_map(|it| match it {
            Effect::Measure(what) => Some(what),
            _ => None,
        });
        measured.collect()
    };
    let mut counting = app();
    counting.state.settings.soak_error_rate = Some(Rate(1_000));
    assert_eq!(asked(&counting), []);
    let mut app = deployed(counting);
    let [first] = &asked(&app)[..] else {
        panic!("one at a time");
    };
    assert_eq!((first.of, &first.slot), (Measured::Step(0), &slot("green")));
    assert_eq!(
        (&first.beside, &first.boot),
        (&slot("blue"), &app.boot(&slot("green")))
    );
    app.on(app.ask_promote("green")).routed();
    let [soak] = &asked(&app)[..] else {
        panic!("one at a time");
    };
    assert_eq!((soak.of, soak.generation), (Measured::Soak, Generation(2)));
}

#[test]
fn errors_in_a_soak_bring_the_old_slot_back_once() {
    let mut counting = app();
    counting.state.settings.soak_error_rate = Some(Rate(1_000));
    let mut app = deployed(counting);
    app.on(app.ask_promote("green")).routed();
    let soak = |app: &App, requests, errors| Event::Measured {
        of: Measured::Soak,
        generation: app.state.generation,
        evidence: counted(requests, errors),
    };
    app.on(soak(&app, 200, 20));
    assert_eq!(app.active(), "green");
    app.on(soak(&app, 200, 21));
    assert_eq!((app.active(), app.weight("blue")), ("blue", 100));
    let back = app.state.rolled_back.as_ref().expect("it was rolled back");
    assert_eq!(back.cause.code(), "error-rate");
    let before = app.state.clone();
    app.on(soak(&app, 400, 400));
    assert_eq!(app.state, before);
}

#[test]
fn where_nothing_serves_or_nobody_wants_a_plan_the_switch_is_at_once() {
    let mut settings = settings();
    settings.canary = Some(Box::new(canary(&[(10, 60)])));
    let mut app = App::with(settings);
    app.on(Event::Begin(Request {
        planned: true,
        ..app.request()
    }));
    let generation = app.state.generation;
    app.on(Event::Prepared {
        generation,
        release: release(1),
    });
    app.pass_gates();
    assert_eq!(app.active(), "blue", "there was nothing to compare it with");
    app.settle().deploy(2).pass_gates();
    assert_eq!(app.active(), "green", "at once, as it was asked for");
}

#[test]
fn what_was_measured_for_another_step_or_attempt_says_nothing() {
    let mut app = deployed(app());
    app.wait(60);
    let before = app.state.clone();
    measured(&mut app, 1, 100, 100);
    app.on(Event::Measured {
        of: Measured::Step(0),
        generation: Generation(1),
        evidence: counted(100, 100),
    });
    app.on(Event::Measured {
        of: Measured::Soak,
        generation: app.state.generation,
        evidence: counted(100, 100),
    });
    assert_eq!(app.state, before);
}

#[test]
fn a_rollback_goes_ahead_of_a_plan_and_a_plan_outlives_its_deployer_but_not_the_machine() {
    let mut app = deployed(app());
    app.state.prev = Some(release(9));
    app.wait(30);
    let facts = app.facts();
    app.recover(&facts);
    assert_eq!((app.weight("green"), app.phase()), (1, Some("shifting")));
    app.wait(30);
    measured(&mut app, 0, 100, 0);
    assert_eq!(app.weight("green"), 10);
    let mut rebooted = deployed(self::app());
    let facts = rebooted.facts_after_reboot();
    rebooted.recover(&facts);
    assert_eq!((rebooted.phase(), rebooted.cause()), (None, "rebooted"));
    assert_eq!(rebooted.active(), "blue");
    app.rollback();
    assert_eq!(app.weight("green"), 0);
    let ended = app
        .told
        .iter()
        .any(|it| matches!(it, Notice::Ended(outcome) if outcome.cause.code() == "preempted"));
    assert!(ended, "{:?}", app.told);
}
