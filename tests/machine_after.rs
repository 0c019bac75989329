//! After the switch: what is marked, and what becomes of it.
// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod machine_support;

use std::time::Duration;

use machine_support::{App, failure, probe, release, settings, slot};
use slot::deploy::{
    After, Cause, Effect, End, Event, Failing, Kind, Lookout, Notice, Pace, Refusal, Request,
    Settings, effects,
};

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
        force: true,
        ..app.request()
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

/// Release 2 is deployed although it was rolled back, all the way to the switch.
fn serve_by_force(app: &mut App) {
    app.on(forced(app));
    let generation = app.state.generation;
    app.on(Event::Prepared {
        generation,
        release: release(2),
    });
    app.pass_gates();
}

#[test]
fn a_release_that_was_rolled_back_is_deployed_by_force_and_a_soak_that_it_survives_unmarks_it() {
    let mut app = rolled_back();
    serve_by_force(&mut app);
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
fn a_deployment_of_the_same_bits_ends_that_is_prepared_while_they_are_rolled_back() {
    for (number, ends) in [(2, true), (3, false)] {
        let mut app = in_soak();
        app.on(app.begin()).vanished("green", crashed());
        assert_eq!((app.active(), app.phase()), ("blue", Some("preparing")));
        let generation = app.state.generation;
        app.on(Event::Prepared {
            generation,
            release: release(number),
        });
        assert_eq!(app.phase().is_none(), ends, "{number}");
        if ends {
            assert_eq!(app.cause(), "marked");
        }
    }
}

/// A deployment that nobody asks for, of a release.
fn by_itself(app: &mut App, number: u32) {
    app.on(Event::Begin(Request {
        by: "slot-watch".to_owned(),
        auto: true,
        ..app.request()
    }));
    let generation = app.state.generation;
    app.on(Event::Prepared {
        generation,
        release: release(number),
    });
}

#[test]
fn nobodys_deployment_of_what_is_live_starts_nothing_and_ends_no_soak() {
    let mut app = in_soak();
    by_itself(&mut app, 2);
    assert_eq!((app.phase(), app.cause()), (None, "already-live"));
    let outcome = app.state.outcome.clone().unwrap();
    assert_eq!(
        (outcome.phase, outcome.release, outcome.previous),
        ("preparing", Some(release(2)), Some(release(2)))
    );
    assert_eq!((app.is("blue"), app.is("green")), ("warm", "active"));
    // Somebody's starts it anew.
    app.deploy(2);
    assert_eq!(app.phase(), Some("waiting"));
}

#[test]
fn nobodys_deployment_does_not_bring_back_what_a_rollback_left() {
    let mut app = App::new();
    app.serve(1).settle().serve(2).settle();
    app.rollback().pass_gates().settle();
    by_itself(&mut app, 2);
    assert_eq!((app.phase(), app.cause()), (None, "left"));
    assert_eq!(app.state.outcome.clone().unwrap().release, Some(release(2)));
    // Nor what was left before that.
    let mut further = App::new();
    further
        .serve(0)
        .settle()
        .serve(1)
        .settle()
        .serve(2)
        .settle();
    further.rollback().pass_gates().settle();
    further.on(further.ask_rollback_to(Some(release(0))));
    further.pass_gates().settle();
    for number in [1, 2] {
        by_itself(&mut further, number);
        assert_eq!(
            (further.phase(), further.cause()),
            (None, "left"),
            "{number}"
        );
    }
    // Something else is what it is for, and then what was left may come again.
    by_itself(&mut app, 3);
    app.pass_gates().settle();
    assert_eq!(app.state.live(), Some(&release(3)));
    by_itself(&mut app, 2);
    assert_eq!(app.phase(), Some("starting"));
}

#[test]
fn nobodys_deployment_does_not_bring_back_what_slot_itself_left() {
    let mut app = rolled_back();
    by_itself(&mut app, 2);
    assert_eq!((app.phase(), app.cause()), (None, "marked"));
}

#[test]
fn a_swap_does_not_bring_back_what_was_rolled_back() {
    let mut app = in_soak();
    app.vanished("green", crashed()).routed().stopped("green");
    serve_by_force(&mut app);
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

fn failing_after(failing: Failing) -> App {
    let mut app = App::with(Settings {
        after: After {
            failing,
            ..After::default()
        },
        ..settings()
    });
    app.serve(1).settle().serve(2).settle();
    assert_eq!((app.active(), app.state.watch.as_ref()), ("green", None));
    app.told.clear();
    app
}

fn pace(app: &App, name: &str) -> Option<Pace> {
    effects(&app.state).into_iter().find_map(|it| match it {
        Effect::Probe { slot: at, pace, .. } if at == slot(name) => Some(pace),
        _ => None,
    })
}

fn times_failing(app: &App) -> usize {
    let told = app.told.iter();
    told.filter(|it| matches!(it, Notice::Failing { .. }))
        .count()
}

#[test]
fn a_release_that_fails_after_its_soak_is_told_once_per_streak_and_stays() {
    let mut app = failing_after(Failing::Told);
    assert_eq!(pace(&app, "green"), Some(Pace::Lookout));
    let green = slot("green");
    app.probed(&green, false).probed(&green, false);
    app.probed(&green, true);
    app.probed(&green, false).probed(&green, false);
    assert_eq!(times_failing(&app), 0, "one that passes ends the row");
    app.probed(&green, false).probed(&green, false);
    assert_eq!((times_failing(&app), app.active()), (1, "green"));
    assert_eq!(app.state.deployment, None);
    app.probed(&green, true);
    assert_eq!(app.state.lookout, Lookout::default());
    assert!(matches!(app.told.last(), Some(Notice::Up { .. })));
    for _ in 0..3 {
        app.probed(&green, false);
    }
    assert_eq!(times_failing(&app), 2, "the next streak is another");
}

#[test]
fn a_run_that_ends_counts_as_a_failed_probe_and_one_that_stays_ended_as_all_of_them() {
    let mut app = failing_after(Failing::Told);
    for times in [0, 0, 1, 1] {
        app.vanished("green", crashed());
        assert_eq!(times_failing(&app), times);
        app.appeared("green", 2);
        app.probed(&slot("green"), true);
        assert!(app.state.is_on_lookout(&slot("green")));
    }
    let mut app = failing_after(Failing::Told);
    app.vanished("green", End::Failed(failure("start-limit-hit")));
    assert_eq!(times_failing(&app), 1);
    // An administrator's stop is no failure.
    let mut app = failing_after(Failing::Left);
    app.vanished("green", End::ByHand);
    assert_eq!(
        (times_failing(&app), app.state.deployment.as_ref()),
        (0, None)
    );
}

#[test]
fn a_release_that_fails_after_its_soak_is_left_for_the_one_before_once_and_marked() {
    let mut app = failing_after(Failing::Left);
    let (generation, green) = (app.state.routed, slot("green"));
    for _ in 0..3 {
        app.probed(&green, false);
    }
    assert!(matches!(
        app.told[0],
        Notice::Failing {
            to: Some(Ok(_)),
            ..
        }
    ));
    assert_eq!((app.phase(), app.active()), (Some("starting"), "green"));
    let held = app.state.deployment.clone().unwrap();
    assert_eq!(
        (held.kind, held.by.as_str()),
        (Kind::Rollback, "slotd (after_soak)")
    );
    assert!(app.state.marked.is_empty(), "it still serves");
    app.pass_gates();
    assert_eq!(
        (app.active(), app.state.live()),
        ("blue", Some(&release(1)))
    );
    let back = app.state.rolled_back.clone().unwrap();
    assert_eq!(
        (back.generation, back.cause),
        (generation, Cause::ProbesFailed(probe(false)))
    );
    assert!(app.state.marked.contains_key(&release(2)));
    assert_eq!(
        app.state.prev, None,
        "what was left is nothing to go back to"
    );
    // What is live now fails too: there is nothing left to go to, and it stays.
    app.told.clear();
    let blue = slot("blue");
    for _ in 0..3 {
        app.probed(&blue, false);
    }
    assert!(matches!(
        app.told[0],
        Notice::Failing {
            to: Some(Err(_)),
            ..
        }
    ));
    assert_eq!(app.active(), "blue");
}

#[test]
fn what_a_persons_rollback_brought_and_fails_is_told_and_stays() {
    let mut app = failing_after(Failing::Left);
    app.rollback().pass_gates();
    app.drained("green").stopped("green");
    assert_eq!(app.state.live(), Some(&release(1)));
    app.told.clear();
    for _ in 0..3 {
        app.probed(&slot("blue"), false);
    }
    let Notice::Failing {
        to: Some(Err(why)), ..
    } = &app.told[0]
    else {
        panic!("{:?}", app.told);
    };
    assert!(
        why.contains("a rollback brought what was live last"),
        "{why}"
    );
    assert_eq!(
        (app.active(), app.state.deployment.as_ref()),
        ("blue", None)
    );
}

#[test]
fn a_release_is_left_once_even_if_what_was_to_take_its_place_does_not_start() {
    let mut app = failing_after(Failing::Left);
    let green = slot("green");
    for _ in 0..3 {
        app.probed(&green, false);
    }
    let candidate = app.candidate();
    app.on(Event::StartFailed {
        slot: candidate.clone(),
        generation: app.state.generation,
        failure: failure("exited with status 1"),
    });
    app.stopped(candidate.as_str());
    assert_eq!((app.active(), app.cause()), ("green", "start-failed"));
    assert!(app.state.marked.is_empty());
    app.probed(&green, true);
    app.told.clear();
    for _ in 0..3 {
        app.probed(&green, false);
    }
    assert!(matches!(app.told[..], [Notice::Failing { to: None, .. }]));
    assert_eq!(app.state.deployment, None);
}

#[test]
fn leaving_a_release_that_fails_goes_ahead_of_a_candidate_at_a_weight() {
    let mut app = failing_after(Failing::Left);
    app.deploy_at(3, Some(10));
    let candidate = app.candidate();
    app.started(&candidate).probed(&candidate, true).routed();
    assert_eq!(app.weight("blue"), 10);
    app.vanished("green", End::Failed(failure("start-limit-hit")));
    assert_eq!(app.cause(), "preempted");
    let held = app.state.deployment.as_ref().unwrap();
    assert_eq!(held.kind, Kind::Rollback);
}

#[test]
fn nobody_looks_after_a_soak_where_that_is_turned_off_or_the_slot_is_being_left() {
    let app = failing_after(Failing::Unseen);
    assert_eq!(pace(&app, "green"), None);
    let mut app = failing_after(Failing::Told);
    app.deploy(3);
    let candidate = app.candidate();
    app.started(&candidate).probed(&candidate, true);
    assert_eq!(app.phase(), Some("shifting"));
    assert_eq!((pace(&app, "green"), pace(&app, "blue")), (None, None));
    app.routed();
    assert_eq!(pace(&app, "blue"), Some(Pace::Soak));
}

/// r1 is in blue, r2 has soaked in green, and the old slot is kept for 30 minutes from the switch.
fn kept(frozen: bool) -> App {
    let mut app = App::with(Settings {
        after: After {
            keep_warm: Duration::from_secs(1800),
            frozen,
            ..After::default()
        },
        ..settings()
    });
    app.serve(1).settle().serve(2).settle();
    assert_eq!((app.state.name(), app.is("blue")), ("idle", "warm"));
    app
}

fn demands(app: &App, wanted: impl Fn(&Effect) -> bool) -> bool {
    effects(&app.state).iter().any(wanted)
}

fn freezes(app: &App) -> bool {
    demands(app, |it| matches!(it, Effect::Freeze { .. }))
}

#[test]
fn the_old_slot_is_kept_beyond_the_soak_and_takes_the_traffic_back_at_once() {
    let mut app = kept(false);
    app.drained("blue");
    assert!(!freezes(&app));
    // 40 s of it was the soak.
    app.wait(1800 - 40 - 1);
    assert_eq!((app.is("blue"), app.weight("blue")), ("warm", 0));
    let mut back = app.clone();
    back.rollback().routed();
    assert_eq!((back.active(), back.state.kept.as_ref()), ("blue", None));
    assert!(back.told.iter().all(
        |it| !matches!(it, Notice::Phase { phase: "starting", generation, .. } if generation.0 == 3)
    ));
    app.wait(1);
    assert_eq!(
        (app.is("blue"), app.state.kept.as_ref()),
        ("draining", None)
    );
}

#[test]
fn without_a_soak_the_old_slot_is_kept_from_the_switch_and_a_shorter_time_than_the_soak_keeps_nothing()
 {
    let with = |soak, keep_warm| {
        let mut app = App::with(Settings {
            soak: Duration::from_secs(soak),
            after: After {
                keep_warm: Duration::from_secs(keep_warm),
                ..After::default()
            },
            ..settings()
        });
        app.serve(1).settle().serve(2);
        app
    };
    let mut app = with(0, 60);
    assert_eq!(app.is("blue"), "warm");
    app.wait(60);
    assert_eq!(app.is("blue"), "draining");
    let mut app = with(40, 30);
    app.wait(40);
    assert_eq!(app.is("blue"), "draining");
}

#[test]
fn a_deployment_takes_the_slot_that_is_kept_and_gives_it_back_when_it_ends_before_that() {
    let mut app = kept(false);
    app.deploy(3);
    assert_eq!((app.is_waiting(), app.is("blue")), (true, "draining"));
    let mut aborted = app.clone();
    aborted.on(aborted.ask_abort());
    assert_eq!(aborted.is("blue"), "warm");
    assert!(aborted.state.kept.is_some());
    app.drained("blue").stopped("blue");
    assert_eq!(
        (app.is("blue"), app.state.kept.as_ref()),
        ("starting", None)
    );
    // What is frozen has nothing to drain.
    let mut app = kept(true);
    app.drained("blue").deploy(3);
    assert_eq!((app.is_waiting(), app.is("blue")), (true, "stopping"));
    app.stopped("blue");
    assert_eq!(app.is("blue"), "starting");
}

#[test]
fn what_is_kept_frozen_drains_first_and_is_thawed_and_probed_before_it_serves_again() {
    let mut app = kept(true);
    let blue = slot("blue");
    assert!(demands(
        &app,
        |it| matches!(it, Effect::Drain { slot, .. } if *slot == blue)
    ));
    assert!(!freezes(&app));
    app.drained("blue");
    assert!(freezes(&app));
    assert_eq!(pace(&app, "blue"), None, "a probe would thaw it");
    let boot = app.boot(&blue);
    // A late answer of before changes nothing.
    let frozen = app.state.clone();
    app.probed(&blue, true).drained("blue");
    assert_eq!(app.state, frozen);
    for ask in [app.ask_rollback(), app.ask_swap("green", "blue")] {
        let mut app = app.clone();
        app.on(ask);
        assert_eq!((app.active(), app.phase()), ("green", Some("ready")));
        assert_eq!(
            (freezes(&app), pace(&app, "blue")),
            (false, Some(Pace::Gate))
        );
        app.probed(&blue, false);
        assert_eq!(app.active(), "green");
        app.probed(&blue, true).routed();
        assert_eq!((app.active(), app.boot(&blue)), ("blue", boot.clone()));
        assert_eq!(app.state.live(), Some(&release(1)));
    }
}

#[test]
fn a_slot_that_is_kept_may_end_or_be_stopped_and_is_not_started_again_after_a_reboot() {
    let mut app = kept(true);
    app.drained("blue");
    let mut ended = app.clone();
    ended.vanished("blue", crashed()).stopped("blue");
    assert_eq!(
        (ended.is("blue"), ended.state.kept.as_ref()),
        ("idle", None)
    );
    let mut stopped = app.clone();
    stopped.on(stopped.ask_stop("blue", false));
    assert_eq!(
        (stopped.is("blue"), stopped.state.kept.as_ref()),
        ("stopping", None)
    );
    let mut found = app.clone();
    found.recover(&app.facts());
    assert_eq!(found.state, app.state, "a restart of slotd changes nothing");
    app.recover(&app.facts_after_reboot());
    assert_eq!((app.is("blue"), app.state.kept.as_ref()), ("idle", None));
}
