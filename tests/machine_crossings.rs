//! What crosses what: two things that happen to one app at once, each decided and named here.

mod machine_support;

use std::time::Duration;

use machine_support::{App, failure, probe, release, settings, slot};
use slot::deploy::{
    ByClass, Cause, Condition, Effect, End, Event, Generation, HOLD, Notice, Refusal, ReleaseId,
    Request, Seen, Service, UnitFailure, effects, rediscover, step,
};

/// Blue served r1 and had soaked; green serves r2, in its soak.
fn in_soak() -> App {
    let mut app = App::new();
    app.serve(1).settle().serve(2);
    app
}

/// As [`in_soak`], and the soak is over: blue drains.
fn in_drain() -> App {
    let mut app = in_soak();
    app.wait(40);
    assert_eq!(app.is("blue"), "draining");
    app
}

fn crashed() -> End {
    End::Restarting(failure("killed by SIGKILL"))
}

#[test]
fn the_active_slot_dies_while_a_candidate_starts_and_the_switch_is_made_as_soon_as_it_is_ready() {
    let mut app = App::new();
    app.serve(1).settle().deploy(2).vanished("blue", crashed());
    assert_eq!(
        (app.active(), app.phase()),
        ("blue", Some("starting")),
        "requests are held for blue"
    );
    let green = slot("green");
    app.started(&green).probed(&green, true).routed();
    assert_eq!(app.active(), "green");
    assert_eq!(
        app.is("blue"),
        "stopping",
        "its unit does not start it again"
    );
    app.stopped("blue");
    assert_eq!((app.is("blue"), app.is("green")), ("idle", "active"));
}

#[test]
fn an_active_slot_that_an_administrator_stopped_gives_way_to_the_candidate_too() {
    let mut app = App::new();
    app.serve(1)
        .settle()
        .deploy(2)
        .vanished("blue", End::ByHand)
        .pass_gates();
    assert_eq!(app.active(), "green");
}

#[test]
fn a_new_slot_that_dies_before_the_routers_know_it_gives_the_traffic_back() {
    let mut app = App::new();
    app.serve(1).settle().deploy(2);
    let green = slot("green");
    app.started(&green).probed(&green, true);
    assert_eq!((app.active(), app.phase()), ("green", Some("shifting")));
    app.vanished("green", crashed()).routed();
    assert_eq!((app.active(), app.cause()), ("blue", "exited"));
    assert_eq!(app.is("green"), "stopping");
}

/// Blue served r1, green serves r2 in its soak, in which `happened` did, and red with r3, which stood by, is promoted: the routers are being told.
fn shifting_in_soak_after(happened: impl FnOnce(&mut App)) -> App {
    let mut three = settings();
    three.slots.push(slot("red"));
    let mut app = App::with(three);
    let red = slot("red");
    app.serve(1).settle().serve(2);
    app.appeared("red", 3).probed(&red, true);
    happened(&mut app);
    app.on(app.ask_promote("red")).probed(&red, true);
    assert_eq!((app.active(), app.phase()), ("red", Some("shifting")));
    app
}

fn shifting_in_soak() -> App {
    shifting_in_soak_after(|_| {})
}

#[test]
fn a_slot_whose_soak_goes_badly_while_another_one_gets_the_traffic_takes_it_from_nobody() {
    let green = slot("green");
    let mut app = shifting_in_soak_after(|app| {
        app.probed(&green, false).probed(&green, false);
    });
    let boot = app.boot(&green);
    app.on(Event::Probed {
        slot: green.clone(),
        boot,
        probe: probe(false),
    });
    assert_eq!((app.active(), app.phase()), ("red", Some("shifting")));
    let mut app = shifting_in_soak_after(|app| {
        app.vanished("green", restarts());
    });
    app.wait(HOLD.as_secs() + 1);
    assert_eq!((app.active(), app.phase()), ("red", Some("shifting")));
    app.routed();
    assert_eq!((app.active(), app.cause()), ("red", "switched"));
}

fn unrouted(app: &App) -> Event {
    Event::Unrouted {
        table: app.state.table,
        why: "cannot write table.json: No space left on device".to_owned(),
    }
}

#[test]
fn a_switch_that_is_taken_back_leaves_the_soak_of_the_slot_that_gets_the_traffic_back() {
    for died in [true, false] {
        let mut app = shifting_in_soak();
        // Nobody probes it while the switch is made, and its time does not run out meanwhile.
        app.wait(100);
        if died {
            app.vanished("red", crashed());
        } else {
            app.on(unrouted(&app));
        }
        assert_eq!((app.active(), app.phase()), ("green", None));
        let rest = app.state.next_deadline().expect("the soak ends some time");
        assert!(rest > app.now, "not without another probe");
        app.routed();
        let green = slot("green");
        for _ in 0..3 {
            app.probed(&green, false);
        }
        assert_eq!((app.active(), app.state.name()), ("blue", "rolling_back"));
    }
}

#[test]
fn a_switch_whose_table_cannot_be_written_is_taken_back_and_says_why() {
    let mut app = App::new();
    app.serve(1).settle().deploy(2);
    let green = slot("green");
    app.started(&green).probed(&green, true);
    let table = unrouted(&app);
    app.on(table.clone());
    assert_eq!(
        (app.active(), app.cause(), app.phase()),
        ("blue", "unrouted", None)
    );
    assert_eq!(
        app.condition(&slot("blue")),
        &Condition::Active(Service::Up)
    );
    // A router may have the table of the switch: green stays up until all have the one without it, whatever time passes.
    assert_eq!(app.wait(3600).is("green"), "warm");
    assert!(matches!(
        app.refused(Event::DrainNow { slot: green }),
        Refusal::NotDraining { .. }
    ));
    let before = app.state.clone();
    app.on(table);
    assert_eq!(app.state, before, "once is enough");
    app.routed().drained("green").stopped("green");
    assert_eq!(app.is("green"), "idle");
}

#[test]
fn a_slot_to_which_the_routers_may_still_send_is_given_to_no_candidate() {
    let mut app = in_soak();
    // Rolled back and stopped, and no router has been told yet.
    app.vanished("green", crashed()).stopped("green").deploy(3);
    assert!(app.is_waiting());
    app.routed();
    assert_eq!(
        (app.phase(), app.is("green")),
        (Some("starting"), "starting")
    );
}

#[test]
fn a_first_switch_that_is_taken_back_leaves_nothing_active() {
    let mut app = App::new();
    app.deploy(1);
    let blue = slot("blue");
    app.started(&blue).probed(&blue, true);
    app.on(unrouted(&app)).routed();
    assert_eq!((app.active(), app.cause()), ("-", "unrouted"));
    assert_eq!(app.is("blue"), "draining");
}

#[test]
fn a_switch_from_a_slot_that_is_down_is_not_taken_back() {
    let mut app = App::new();
    app.serve(1).settle().deploy(2).vanished("blue", crashed());
    let green = slot("green");
    app.started(&green).probed(&green, true);
    app.on(unrouted(&app));
    assert_eq!((app.active(), app.phase()), ("green", Some("shifting")));
}

#[test]
fn the_old_slot_dies_during_the_soak_and_the_new_one_is_kept_whatever_its_probes_say() {
    let mut app = in_soak();
    app.vanished("blue", crashed()).stopped("blue");
    let green = slot("green");
    for _ in 0..5 {
        app.probed(&green, false);
    }
    assert_eq!((app.active(), app.is("green")), ("green", "active"));
    assert!(app.state.marked.is_empty());
    let reports = app
        .told
        .iter()
        .filter(|told| matches!(told, Notice::Soak { .. }));
    assert_eq!(
        reports.count(),
        3,
        "blue soaked, the old slot gone, and the failed streak once"
    );
}

/// How the soaks ended that have, in order.
fn soaks(app: &App) -> Vec<(Generation, &'static str)> {
    let ended = app.told.iter().filter_map(|told| match told {
        Notice::Soak {
            generation, cause, ..
        } => Some((*generation, cause.code())),
        _ => None,
    });
    ended.collect()
}

#[test]
fn a_deployment_that_takes_the_slot_of_a_soak_ends_it_as_superseded_and_drains_the_old_slot_in_one_step()
 {
    let mut app = in_soak();
    app.on(app.begin());
    assert_eq!(
        app.is("blue"),
        "warm",
        "it is put on disk, and needs no slot yet"
    );
    assert!(app.state.watch.is_some());
    let (before, generation) = (soaks(&app), app.state.generation);
    app.on(Event::Prepared {
        generation,
        release: release(3),
    });
    assert_eq!(soaks(&app)[before.len()..], [(Generation(2), "superseded")]);
    assert_eq!((app.is("blue"), &app.state.watch), ("draining", &None));
    assert!(app.is_waiting());
    assert!(app.state.is_on_lookout(&slot("green")), "as after a soak");
    app.drained("blue").stopped("blue");
    assert_eq!(app.phase(), Some("starting"));
    app.pass_gates();
    assert_eq!(soaks(&app).len(), before.len() + 1, "once");
    assert_eq!(
        (app.active(), app.state.live()),
        ("blue", Some(&release(3)))
    );
    assert_eq!(
        app.state.prev,
        Some(release(1)),
        "r2 never finished its soak"
    );
}

#[test]
fn a_deployment_that_took_the_slot_of_a_soak_and_fails_leaves_the_active_one_as_after_a_soak() {
    let mut app = in_soak();
    app.deploy(3).wait(10);
    assert_eq!((app.cause(), app.is("blue")), ("no-idle-slot", "draining"));
    assert_eq!((app.active(), &app.state.watch), ("green", &None));
    let green = slot("green");
    for _ in 0..3 {
        app.probed(&green, false);
    }
    let told = |told: &Notice| matches!(told, Notice::Failing { to: None, .. });
    assert!(app.told.iter().any(told), "{:?}", app.told);
    assert_eq!(app.active(), "green");
}

#[test]
fn a_release_whose_soak_was_superseded_is_gone_back_to_once_it_has_served_for_as_long() {
    for (seconds, prev) in [(29, 1), (30, 2)] {
        let mut app = in_soak();
        app.deploy(3).wait(10).drained("blue").stopped("blue");
        app.wait(seconds).serve(4);
        assert_eq!(app.state.prev, Some(release(prev)), "{seconds}");
    }
    // Unless it fails.
    let mut app = in_soak();
    app.deploy(3).wait(10).drained("blue").stopped("blue");
    for _ in 0..3 {
        app.probed(&slot("green"), false);
    }
    app.wait(100).serve(4);
    assert_eq!(app.state.prev, Some(release(1)));
}

#[test]
fn a_rollback_gives_the_traffic_to_the_slot_that_a_superseded_soak_let_go() {
    let mut app = in_soak();
    app.deploy(3).rollback();
    assert_eq!((app.active(), app.phase()), ("blue", Some("shifting")));
    app.routed();
    assert_eq!(app.state.live(), Some(&release(1)));
}

#[test]
fn a_deployment_during_a_soak_that_takes_a_third_slot_ends_it_too() {
    let mut three = settings();
    three.slots.push(slot("red"));
    let mut app = App::with(three);
    app.serve(1).settle().serve(2).deploy(3);
    assert_eq!((app.is("blue"), app.is("red")), ("draining", "starting"));
    assert_eq!(soaks(&app).last(), Some(&(Generation(2), "superseded")));
    app.pass_gates();
    assert_eq!(
        (app.active(), app.is("blue"), app.is("green")),
        ("red", "draining", "warm")
    );
}

#[test]
fn a_deployment_during_a_drain_waits_ten_seconds_and_names_what_holds_the_slot() {
    let mut app = in_drain();
    app.deploy(3).wait(9);
    assert!(app.is_waiting());
    app.wait(1);
    assert_eq!(
        (app.cause(), app.is("blue"), app.active()),
        ("no-idle-slot", "draining", "green")
    );
}

#[test]
fn a_deployment_during_a_drain_starts_when_the_drain_ends() {
    let mut app = in_drain();
    app.deploy(3).drained("blue");
    assert!(app.is_waiting());
    app.stopped("blue");
    assert_eq!(
        (app.phase(), app.is("blue")),
        (Some("starting"), "starting")
    );
}

#[test]
fn a_rollback_during_a_drain_takes_the_drain_back_and_is_a_switch() {
    let mut app = in_drain();
    app.rollback();
    assert_eq!(
        (app.active(), app.phase(), app.is("blue")),
        ("blue", Some("shifting"), "active")
    );
    app.routed();
    assert_eq!((app.is("green"), app.phase()), ("draining", None));
    let drained_late = Event::Drained {
        slot: slot("blue"),
        boot: app.state.slots[&slot("blue")].boot.clone(),
    };
    let before = app.state.clone();
    app.on(drained_late);
    assert_eq!(
        app.state, before,
        "the drain that was taken back ends nothing"
    );
}

#[test]
fn a_rollback_goes_ahead_of_whatever_has_not_switched() {
    for steps in 0..4 {
        let mut app = App::new();
        app.serve(1).settle().serve(2).settle();
        match steps {
            0 => app.on(app.begin()),
            1 => app.deploy(3),
            _ => {
                app.deploy(3);
                app.started(&slot("blue"))
            }
        };
        if steps == 3 {
            app.probed(&slot("blue"), true);
            assert_eq!(app.phase(), Some("shifting"));
        }
        let attempt = app.state.generation;
        app.rollback();
        let held = app.state.deployment.as_ref().expect("the rollback");
        assert_eq!(held.generation, attempt.next());
        let ended = app.state.outcome.as_ref().expect("the deployment ended");
        let expected = if steps == 3 { "switched" } else { "preempted" };
        assert_eq!((ended.generation, ended.cause.code()), (attempt, expected));
    }
}

#[test]
fn a_rollback_goes_ahead_of_a_deployment_that_waits_for_a_slot() {
    let mut app = in_drain();
    app.deploy(3).rollback().routed();
    assert_eq!(
        (app.active(), app.state.live()),
        ("blue", Some(&release(1)))
    );
}

#[test]
fn a_rollback_is_refused_while_another_one_switches_and_with_nothing_to_go_back_to() {
    let mut app = App::new();
    assert!(matches!(
        app.refused(app.ask_rollback()),
        Refusal::NothingToRollBackTo { .. }
    ));
    app.serve(1).settle();
    assert!(matches!(
        app.refused(app.ask_rollback()),
        Refusal::NothingToRollBackTo { .. }
    ));
    app.serve(2).settle().rollback().pass_gates_but_the_last();
    assert!(matches!(
        app.refused(app.ask_rollback_to(Some(release(9)))),
        Refusal::Busy { .. }
    ));
}

#[test]
fn a_rollback_that_is_under_way_is_the_one_that_is_asked_for_again() {
    let mut app = App::new();
    app.serve(1).settle().serve(2).settle().rollback();
    let generation = app.state.generation;
    for to in [None, Some(release(1))] {
        let joined = Refusal::UnderWay {
            generation,
            release: release(1),
        };
        assert_eq!(app.refused(app.ask_rollback_to(to)), joined);
    }
    // One that is being told to the routers, too.
    app.pass_gates_but_the_last();
    assert!(matches!(
        app.refused(app.ask_rollback()),
        Refusal::UnderWay { .. }
    ));
    app.routed();
    assert_eq!(
        (app.cause(), app.state.live()),
        ("switched", Some(&release(1)))
    );
    assert_eq!(app.state.generation, generation);
}

#[test]
fn a_rollback_to_another_release_goes_ahead_of_the_one_under_way() {
    let mut app = App::new();
    app.serve(0).settle().serve(1).settle().serve(2).settle();
    app.rollback();
    app.on(app.ask_rollback_to(Some(release(0))));
    assert_eq!((app.cause(), app.is_waiting()), ("preempted", true));
    app.stopped("green").pass_gates();
    assert_eq!(
        (app.cause(), app.state.live()),
        ("switched", Some(&release(0)))
    );
}

#[test]
fn a_swap_that_goes_where_a_rollback_does_is_that_rollback_from_then_on() {
    let mut app = in_soak();
    app.on(app.ask_swap("green", "blue"));
    let swap = app.state.generation;
    assert_eq!(app.phase(), Some("shifting"));
    app.rollback().routed();
    assert_eq!((app.state.generation, app.cause()), (swap, "switched"));
    assert_eq!(app.state.live(), Some(&release(1)));
    // There is no way forward by another one.
    assert_eq!(already(&app).0, release(1));
}

#[test]
fn a_rollback_beside_the_one_that_a_soak_has_made_ends_what_is_under_way_and_does_nothing_else() {
    let mut app = in_soak();
    app.on(app.begin()).vanished("green", crashed());
    let watch = app.state.watch.as_ref().unwrap();
    assert!(watch.rolling_back.is_some());
    assert_eq!(app.phase(), Some("preparing"));
    app.rollback();
    assert_eq!((app.phase(), app.cause()), (None, "preempted"));
    for to in [None, Some(release(1))] {
        let refused = app.refused(app.ask_rollback_to(to));
        assert!(refused.already().is_some(), "{refused}");
    }
    let another = app.refused(app.ask_rollback_to(Some(release(9))));
    assert!(matches!(another, Refusal::Busy { .. }), "{another}");
}

/// What a plain rollback is told where what is live was brought by one.
fn already(app: &App) -> (ReleaseId, Option<ReleaseId>, bool, u64) {
    let Refusal::AlreadyBack {
        live,
        left,
        marked,
        ago,
        ..
    } = app.refused(app.ask_rollback())
    else {
        panic!("{:?}", app.state);
    };
    (live, left, marked, ago.as_secs())
}

#[test]
fn a_second_rollback_changes_nothing_and_says_how_to_go_on() {
    let mut app = in_drain();
    app.rollback().routed().wait(130);
    assert_eq!(already(&app), (release(1), Some(release(2)), false, 130));
    let said = app.refused(app.ask_rollback()).to_string();
    assert!(said.contains("since a rollback 2 min ago"), "{said}");
    assert!(said.ends_with("`slotctl deploy --release 00000002` to the one that was left"));
    // A deployment that fails is no way back to where it was.
    app.drained("green").stopped("green").deploy(3);
    app.vanished_at_start();
    assert_eq!(already(&app).0, release(1));
    // By its name it is what somebody means.
    app.on(app.ask_rollback_to(Some(release(2))));
    let green = app.candidate();
    app.started(&green).probed(&green, true).routed();
    assert_eq!(app.state.live(), Some(&release(2)));
    assert_eq!(already(&app).1, Some(release(1)));
    // Once something else was switched to, there is something to go back from.
    app.drained("blue").stopped("blue").serve(4).settle();
    app.rollback();
    assert_eq!(app.candidate_release(), Some(release(2)));
}

#[test]
fn a_rollback_after_one_that_slot_made_by_itself_changes_nothing_either() {
    let mut app = in_soak();
    app.vanished("green", crashed()).routed().wait(3);
    assert_eq!(already(&app), (release(1), Some(release(2)), true, 3));
    let said = app.refused(app.ask_rollback()).to_string();
    assert!(
        said.contains("`slotctl deploy --release 00000002 --force`"),
        "{said}"
    );
}

#[test]
fn a_swap_is_no_rollback_and_a_rollback_goes_back_from_it() {
    let mut app = in_drain();
    app.on(app.ask_swap("green", "blue")).routed();
    assert_eq!(app.state.live(), Some(&release(1)));
    app.rollback().routed();
    assert_eq!(app.state.live(), Some(&release(2)));
    assert_eq!(already(&app).0, release(2));
    app.on(app.ask_swap("green", "blue")).routed();
    app.rollback().routed();
    assert_eq!(app.state.live(), Some(&release(2)));
}

#[test]
fn a_rollback_does_not_go_forward_ahead_of_a_deployment_either() {
    let mut app = in_drain();
    app.rollback().routed().drained("green").stopped("green");
    app.deploy_at(3, Some(10));
    let attempt = app.state.generation;
    app.rollback();
    assert_eq!(app.state.preempted(), Some(attempt), "it only ends that");
    assert_eq!(app.state.live(), Some(&release(1)));
    assert_eq!(app.is("green"), "stopping");
    app.stopped("green");
    assert_eq!(already(&app).0, release(1));
}

#[test]
fn a_rollback_to_what_is_live_ends_what_is_under_way_and_does_nothing_else() {
    let mut app = in_drain();
    app.settle().deploy_at(3, Some(10));
    let attempt = app.state.generation;
    app.on(app.ask_rollback_to(Some(release(2))));
    assert_eq!(app.state.preempted(), Some(attempt));
    assert_eq!(
        (app.active(), app.state.live()),
        ("green", Some(&release(2)))
    );
}

#[test]
fn a_rollback_ends_what_is_under_way_where_nothing_has_served_before_what_is_live() {
    let mut app = App::new();
    app.serve(1).settle().deploy_at(2, Some(10));
    let attempt = app.state.generation;
    app.rollback();
    assert_eq!(app.state.preempted(), Some(attempt));
    assert_eq!(app.state.live(), Some(&release(1)));
    // Where nothing serves, the candidate may be what is to.
    let mut app = App::new();
    app.deploy(1);
    assert!(matches!(
        app.refused(app.ask_rollback()),
        Refusal::NothingToRollBackTo { .. }
    ));
    assert!(app.state.deployment.is_some());
}

#[test]
fn a_second_rollback_is_no_success_where_what_the_first_one_brought_fails() {
    let mut app = in_drain();
    app.rollback().routed().drained("green").stopped("green");
    app.vanished("blue", crashed());
    for attempt in [None, Some(3)] {
        if let Some(number) = attempt {
            app.deploy_at(number, Some(10));
        }
        let refused = app.refused(app.ask_rollback());
        assert!(
            matches!(refused, Refusal::NothingToRollBackTo { why } if why.contains("--to RELEASE")),
            "{refused}"
        );
    }
}

#[test]
fn a_rollback_does_not_go_forward_either_once_what_the_first_one_brought_was_stopped() {
    let mut app = in_drain();
    app.rollback().routed().drained("green").stopped("green");
    app.on(app.ask_stop("blue", true)).routed();
    app.drained("blue").stopped("blue");
    assert_eq!((app.state.live(), app.state.way_back()), (None, None));
    let refused = app.refused(app.ask_rollback());
    assert!(
        matches!(refused, Refusal::NothingToRollBackTo { why } if why.contains("--to RELEASE")),
        "{refused}"
    );
    app.on(app.ask_rollback_to(Some(release(1))));
    assert_eq!(app.phase(), Some("starting"));
}

#[test]
fn what_a_rollback_brought_and_is_started_anew_is_no_way_forward_either() {
    let mut app = in_drain();
    app.rollback().routed().drained("green").stopped("green");
    app.wait(60).serve(1).settle();
    let (live, left, _, ago) = already(&app);
    assert_eq!((live, left), (release(1), Some(release(2))));
    assert!(
        ago >= 60,
        "{ago} s since the rollback, not since the new start"
    );
    // So it is where slot went back by itself.
    let mut app = in_soak();
    app.vanished("green", crashed()).routed().stopped("green");
    app.serve(1).settle();
    let (live, left, marked, _) = already(&app);
    assert_eq!((live, left, marked), (release(1), Some(release(2)), true));
}

#[test]
fn a_rollback_to_a_release_by_name_starts_it_or_gives_it_the_traffic_if_it_still_runs() {
    let mut app = App::new();
    app.serve(1).settle().serve(2).settle().serve(3).settle();
    app.on(app.ask_rollback_to(Some(release(1))));
    assert_eq!(app.phase(), Some("starting"));
    let candidate = app.candidate();
    assert_eq!(app.state.slots[&candidate].release, Some(release(1)));
    app.started(&candidate).probed(&candidate, true).routed();
    assert_eq!(
        (app.state.live(), app.state.prev.as_ref()),
        (Some(&release(1)), Some(&release(3)))
    );
    // What was left is what the next one goes to; and it still runs.
    app.on(app.ask_rollback_to(Some(release(3))));
    assert_eq!(app.phase(), Some("shifting"));
    app.routed();
    assert_eq!(app.state.live(), Some(&release(3)));
}

#[test]
fn a_rollback_to_a_release_that_is_marked_is_refused_and_to_what_is_live_changes_nothing() {
    let mut app = in_soak();
    let live = app.ask_rollback_to(app.state.live().cloned());
    let refused = app.refused(live);
    assert!(refused.already().is_some(), "{refused}");
    assert_eq!(
        refused,
        Refusal::AlreadyLive {
            generation: app.state.generation,
            release: release(2),
            well: true,
        }
    );
    app.vanished("green", crashed()).routed().stopped("green");
    assert_eq!(
        app.refused(app.ask_rollback_to(Some(release(2)))),
        Refusal::Marked {
            release: release(2)
        }
    );
    // Where nothing is to go back to, one that is named is.
    assert_eq!(app.state.prev, None);
    app.on(app.ask_rollback_to(Some(release(9))));
    assert_eq!(app.phase(), Some("starting"));
}

#[test]
fn three_failed_probes_in_a_row_roll_back_once_and_mark_the_release() {
    let mut app = in_soak();
    let green = slot("green");
    app.probed(&green, false)
        .probed(&green, false)
        .probed(&green, true);
    app.probed(&green, false).probed(&green, false);
    assert_eq!(app.active(), "green", "one that passes ends the row");
    app.probed(&green, false);
    assert_eq!((app.active(), app.state.name()), ("blue", "rolling_back"));
    let boot = app.boot(&green);
    app.on(Event::Probed {
        slot: green,
        boot,
        probe: probe(false),
    });
    app.routed();
    let times = app
        .told
        .iter()
        .filter(|told| matches!(told, Notice::RolledBack(_)));
    assert_eq!((times.count(), app.is("green")), (1, "draining"));
    assert!(app.state.marked.contains_key(&release(2)));
    let back = app.state.rolled_back.clone().unwrap();
    assert_eq!(
        (back.left, back.release),
        (Some(release(2)), Some(release(1)))
    );
    app.settle().serve(3);
    assert_eq!(
        app.state.rolled_back, None,
        "another switch is the last word"
    );
}

/// An end that is no failure, after which its unit starts it again.
fn restarts() -> End {
    End::Restarting(UnitFailure::restarted())
}

#[test]
fn an_end_that_is_no_failure_holds_the_requests_in_a_soak_and_the_third_one_rolls_back() {
    let mut app = in_soak();
    let green = slot("green");
    for times in 1..=2 {
        app.vanished("green", restarts());
        assert_eq!((app.active(), app.is("blue")), ("green", "warm"), "{times}");
        assert!(!ready(&app), "its requests are held");
        app.appeared("green", 2).probed(&green, true);
        assert!(ready(&app));
    }
    app.vanished("green", restarts());
    assert_eq!((app.active(), app.state.name()), ("blue", "rolling_back"));
    let back = app.state.rolled_back.clone().unwrap();
    let Cause::Exited(failure) = back.cause else {
        panic!("{back:?}");
    };
    assert_eq!(failure.result.as_str(), "restarts");
    assert_eq!(
        failure.text,
        "ended 3 times since the switch; last it was restarted by somebody"
    );
}

/// The active slot can be sent requests.
fn ready(app: &App) -> bool {
    let mut all = effects(&app.state).into_iter();
    all.any(|effect| matches!(effect, Effect::Route(route) if route.ready))
}

#[test]
fn ends_before_the_switch_and_after_the_soak_do_not_count() {
    let mut app = App::new();
    app.serve(1).settle();
    for _ in 0..5 {
        app.vanished("blue", restarts());
        app.appeared("blue", 1).probed(&slot("blue"), true);
    }
    app.serve(2);
    let watch = app.state.watch.clone().expect("it is watched");
    assert_eq!(watch.restarts, 0);
    let green = slot("green");
    for _ in 0..2 {
        app.vanished("green", restarts());
        app.appeared("green", 2).probed(&green, true);
    }
    // It is another soak after a restart of the machine, and another one after the next switch.
    app.recover(&app.facts_after_reboot());
    assert_eq!(app.state.watch.as_ref().map(|it| it.restarts), Some(0));
}

#[test]
fn the_first_end_that_is_a_failure_rolls_back_in_a_soak() {
    for end in [
        crashed(),
        End::Failed(failure("start-limit-hit")),
        End::Failed(UnitFailure::restarted()),
        End::ByHand,
    ] {
        let mut app = in_soak();
        app.vanished("green", restarts());
        app.appeared("green", 2).probed(&slot("green"), true);
        app.vanished("green", end.clone());
        assert_eq!(app.active(), "blue", "{end:?}");
    }
}

#[test]
fn a_watched_slot_that_is_started_again_and_does_not_come_up_is_rolled_back() {
    let green = slot("green");
    let mut app = in_soak();
    app.vanished("green", restarts()).appeared("green", 2);
    for _ in 0..20 {
        app.probed(&green, false);
    }
    assert_eq!(app.wait(9).active(), "green", "its requests are held");
    assert_eq!(app.wait(1).active(), "blue");
    // It is not even started again.
    let mut app = in_soak();
    app.vanished("green", restarts());
    assert_eq!(app.wait(9).active(), "green");
    assert_eq!(app.wait(1).active(), "blue");
    let mut app = in_soak();
    app.vanished("green", restarts()).appeared("green", 2);
    app.probed(&green, true).wait(20);
    assert_eq!(app.active(), "green", "it was up in time");
    let mut app = in_soak();
    app.vanished("green", restarts()).wait(5);
    let generation = app.state.slots[&green].generation;
    app.on(Event::StartFailed {
        slot: green,
        generation,
        failure: failure("exited with status 1"),
    });
    assert_eq!((app.active(), app.state.name()), ("blue", "rolling_back"));
}

#[test]
fn a_soak_does_not_end_while_the_process_is_being_started_again() {
    let mut app = in_soak();
    app.wait(38)
        .vanished("green", restarts())
        .appeared("green", 2);
    app.wait(9);
    assert_eq!((app.is("blue"), app.state.soaked), ("warm", false));
    app.probed(&slot("green"), true).wait(5);
    assert_eq!((app.is("blue"), app.state.soaked), ("draining", true));
}

#[test]
fn rollback_never_goes_to_a_marked_release() {
    let mut app = in_soak();
    app.vanished("green", crashed()).routed().stopped("green");
    assert!(app.state.marked.contains_key(&release(2)));
    assert_eq!(app.state.prev, None, "r1 had no release before it");
    app.serve(3).settle();
    assert_eq!(app.state.prev, Some(release(1)));
    app.state.prev = Some(release(2));
    assert!(matches!(
        app.refused(app.ask_rollback()),
        Refusal::NothingToRollBackTo { .. }
    ));
}

#[test]
fn a_slot_started_by_hand_passes_the_gates_and_stands_by_until_it_is_promoted() {
    let mut app = App::new();
    app.serve(1).settle().serve(2).settle().appeared("blue", 1);
    assert_eq!(app.phase(), Some("ready"));
    app.probed(&slot("blue"), true);
    assert_eq!(
        (app.cause(), app.is("blue"), app.active()),
        ("standby", "standby", "green")
    );
    app.on(app.ask_promote("blue"))
        .probed(&slot("blue"), true)
        .routed();
    assert_eq!((app.active(), app.is("green")), ("blue", "warm"));
}

#[test]
fn a_slot_started_by_hand_is_gated_by_the_settings_now_in_force() {
    let mut app = App::new();
    app.serve(1).settle();
    let mut today = settings();
    today.health_timeout = Duration::from_secs(7);
    let boot = app.next_boot();
    app.on(Event::Appeared {
        slot: slot("green"),
        boot,
        release: Some(release(1)),
        settings: today.clone(),
    });
    let held = app.state.deployment.as_ref().expect("it is gated");
    assert_eq!(held.settings, today);
    assert_eq!(app.wait(7).cause(), "health-timeout");
}

#[test]
fn a_run_is_started_with_the_limits_of_the_attempt_that_it_is_for() {
    let limits = |app: &App, name: &str| {
        let mut found = effects(&app.state).into_iter();
        found.find_map(|effect| match effect {
            Effect::Start {
                slot: at, limits, ..
            } if at == slot(name) => Some((limits.start.as_secs(), limits.stop.as_secs())),
            _ => None,
        })
    };
    let mut app = App::new();
    app.serve(1).settle();
    let mut today = settings();
    (today.start_timeout, today.stop_timeout) = (Duration::from_secs(5), Duration::from_secs(3));
    app.on(Event::Begin(Request {
        settings: today,
        ..app.request()
    }));
    let generation = app.state.generation;
    app.on(Event::Prepared {
        generation,
        release: release(2),
    });
    app.recover(&app.facts_after_reboot());
    assert_eq!(limits(&app, "green"), Some((5, 3)), "the candidate");
    assert_eq!(limits(&app, "blue"), Some((60, 10)), "what served before");
}

#[test]
fn a_slot_started_by_hand_becomes_active_where_none_is() {
    let mut app = App::new();
    app.appeared("blue", 1).probed(&slot("blue"), true).routed();
    assert_eq!(app.active(), "blue");
    app.settle().vanished("blue", End::ByHand);
    app.appeared("green", 2)
        .probed(&slot("green"), true)
        .routed();
    assert_eq!(
        app.active(),
        "green",
        "an active slot that was stopped by hand serves nobody"
    );
}

#[test]
fn an_active_slot_that_an_administrator_stops_stays_stopped_and_its_requests_are_held() {
    let mut app = App::new();
    app.serve(1)
        .settle()
        .vanished("blue", End::ByHand)
        .wait(3600);
    assert_eq!(
        app.condition(&slot("blue")),
        &Condition::Active(Service::ByHand)
    );
    let starts = effects(&app.state);
    assert!(
        !starts
            .iter()
            .any(|effect| matches!(effect, Effect::Start { .. }))
    );
    app.appeared("blue", 1).probed(&slot("blue"), true);
    assert_eq!(
        app.condition(&slot("blue")),
        &Condition::Active(Service::Up)
    );
}

#[test]
fn an_active_slot_that_crashes_is_gated_again_before_it_gets_a_request() {
    let mut app = App::new();
    app.serve(1)
        .settle()
        .vanished("blue", crashed())
        .appeared("blue", 1);
    let ready = |app: &App| {
        effects(&app.state)
            .iter()
            .any(|effect| matches!(effect, Effect::Route(route) if route.ready))
    };
    assert!(!ready(&app));
    app.probed(&slot("blue"), true);
    assert!(ready(&app));
}

#[test]
fn two_apps_know_nothing_of_each_other() {
    let (mut web, mut api) = (App::new(), App::new());
    web.serve(1).settle().deploy(2);
    let before = web.state.clone();
    api.serve(1).settle().deploy(2).pass_gates();
    assert_eq!(web.state, before);
    web.pass_gates();
    assert_eq!((web.active(), api.active()), ("green", "green"));
}

#[test]
fn a_drain_of_zero_is_never_cut_by_time() {
    let mut forever = settings();
    forever.drain = ByClass::all(None);
    let mut app = App::with(forever);
    app.serve(1)
        .settle()
        .serve(2)
        .wait(40)
        .wait(365 * 24 * 3600);
    assert_eq!(app.is("blue"), "draining");
    app.drained("blue");
    assert_eq!(
        app.condition(&slot("blue")),
        &Condition::Stopping {
            forced: false,
            failure: None
        }
    );
}

#[test]
fn a_drain_that_is_cut_is_recorded_as_cut() {
    let mut app = in_drain();
    app.wait(79);
    assert_eq!(
        app.is("blue"),
        "draining",
        "the drain counts from the switch, 119 s ago"
    );
    app.wait(1);
    assert_eq!(
        app.condition(&slot("blue")),
        &Condition::Stopping {
            forced: true,
            failure: None
        }
    );
    assert!(app.told.contains(&Notice::Forced { slot: slot("blue") }));
    let mut now = in_drain();
    now.on(Event::DrainNow { slot: slot("blue") });
    assert!(now.told.contains(&Notice::Forced { slot: slot("blue") }));
}

#[test]
fn a_drain_is_over_when_nothing_is_left_but_what_is_overdue() {
    let mut classes = settings();
    classes.drain = ByClass {
        streams: None,
        ..classes.drain
    };
    let mut app = App::with(classes);
    app.serve(1).settle().serve(2).wait(40).wait(3600);
    assert_eq!(app.is("blue"), "draining", "streams may go on for ever");
    let boot = app.state.slots[&slot("blue")].boot.clone();
    let overdue = |boot| Event::Overdue {
        slot: slot("blue"),
        boot,
    };
    app.on(overdue(None));
    assert_eq!(app.is("blue"), "draining", "that was another run");
    app.on(overdue(boot));
    assert_eq!(
        app.condition(&slot("blue")),
        &Condition::Stopping {
            forced: true,
            failure: None
        }
    );
    assert!(app.told.contains(&Notice::Forced { slot: slot("blue") }));
}

#[test]
fn a_candidate_that_fails_at_any_gate_leaves_the_active_slot_untouched() {
    type Fail = fn(&mut App);
    let fail: [(&str, Fail); 5] = [
        ("start-failed", |app| {
            let generation = app.state.generation;
            let failure = failure("exited with status 1");
            app.on(Event::StartFailed {
                slot: slot("green"),
                generation,
                failure,
            });
        }),
        ("start-timeout", |app| {
            app.wait(65);
        }),
        ("exited", |app| {
            app.started(&slot("green")).vanished("green", crashed());
        }),
        ("health-timeout", |app| {
            app.started(&slot("green"))
                .probed(&slot("green"), false)
                .wait(30);
        }),
        ("stopped-by-hand", |app| {
            app.started(&slot("green")).vanished("green", End::ByHand);
        }),
    ];
    for (cause, fail) in fail {
        let mut app = App::new();
        app.serve(1).settle().deploy(2);
        let before = app.state.slots[&slot("blue")].clone();
        fail(&mut app);
        assert_eq!(
            (app.cause(), app.active(), app.phase()),
            (cause, "blue", None)
        );
        assert_eq!(app.state.slots[&slot("blue")], before);
        app.stopped("green");
        assert!(app.condition(&slot("green")).is_free());
    }
}

/// The app in each phase of its second deployment.
fn phases() -> Vec<(&'static str, App)> {
    let mut app = App::new();
    app.serve(1).settle();
    let mut preparing = app.clone();
    preparing.on(preparing.begin());
    let mut starting = app.clone();
    starting.deploy(2);
    let mut ready = starting.clone();
    ready.started(&slot("green"));
    let mut shifting = ready.clone();
    shifting.probed(&slot("green"), true);
    let mut soak = shifting.clone();
    soak.routed();
    let mut waiting = soak.clone();
    waiting.deploy(3);
    let mut drain = soak.clone();
    drain.wait(40);
    let mut stopping = drain.clone();
    stopping.drained("blue");
    vec![
        ("preparing", preparing),
        ("starting", starting),
        ("ready", ready),
        ("shifting", shifting),
        ("soak", soak),
        ("waiting", waiting),
        ("drain", drain),
        ("stopping", stopping),
    ]
}

#[test]
fn a_slot_that_stands_by_is_not_promoted_between_two_of_its_runs_and_says_so() {
    let mut app = App::new();
    app.serve(1).settle().serve(2).settle();
    app.appeared("blue", 1).probed(&slot("blue"), true);
    app.vanished("blue", crashed());
    assert_eq!(app.is("blue"), "standby");
    let refusal = app.refused(app.ask_promote("blue"));
    assert_eq!(refusal, Refusal::BetweenRuns { slot: slot("blue") });
    app.appeared("blue", 1);
    app.on(app.ask_promote("blue"));
}

#[test]
fn when_every_slot_was_stopped_during_the_soak_the_traffic_does_not_go_to_one_that_has_ended() {
    let mut app = in_soak();
    app.settle().serve(3);
    assert_eq!((app.active(), app.is("green")), ("blue", "warm"));
    let mut facts = app.facts();
    for found in facts.slots.values_mut() {
        found.seen = Seen::Ended(End::ByHand);
    }
    app.recover(&facts);
    assert_eq!(app.active(), "blue");
    assert_eq!(
        *app.condition(&slot("blue")),
        Condition::Active(Service::ByHand)
    );
    assert_eq!(app.state.rolled_back, None);
}

#[test]
fn how_long_a_deployment_was_in_each_phase_is_known_although_the_deployer_crashed_in_between() {
    let mut app = App::new();
    app.serve(1).settle().deploy(2).wait(3);
    app.recover(&app.facts()).pass_gates();
    let outcome = app.state.outcome.clone().unwrap();
    let names: Vec<_> = outcome.entered.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(names, ["preparing", "starting", "ready", "shifting"]);
    let (starting, ready) = (outcome.entered[1].1, outcome.entered[2].1);
    assert_eq!(ready.since(starting), Duration::from_secs(3));
    assert_eq!(
        (outcome.slot, outcome.previous),
        (Some(slot("green")), Some(release(1)))
    );
}

#[test]
fn a_deployer_that_crashes_in_any_phase_goes_on_from_there() {
    for (phase, mut app) in phases() {
        let before = app.clone();
        app.recover(&app.facts());
        assert_eq!(app.active(), before.active(), "{phase}");
        if phase == "preparing" {
            assert_eq!(
                (app.cause(), app.phase()),
                ("interrupted", None),
                "its upload is gone"
            );
        } else {
            assert_eq!(app.phase(), before.phase(), "{phase}");
        }
        assert_eq!(
            effects(&app.state).len(),
            effects(&before.state).len(),
            "{phase}: all is demanded again"
        );
        let once = app.state.clone();
        app.recover(&app.facts());
        assert_eq!(app.state, once, "{phase}: recovery is idempotent");
    }
}

#[test]
fn after_a_reboot_in_any_phase_what_served_is_started_and_nothing_is_active_twice() {
    for (phase, mut app) in phases() {
        let active = app.active().to_owned();
        app.recover(&app.facts_after_reboot());
        assert_eq!(app.active(), active, "{phase}");
        let booting = app.condition(&slot(&active));
        assert!(
            matches!(booting, Condition::Active(Service::Booting { .. })),
            "{phase}: {booting:?}"
        );
        let mut starts = Vec::new();
        for effect in effects(&app.state) {
            match effect {
                Effect::Start { slot, .. } => starts.push(slot),
                Effect::Route(route) => assert!(!route.ready, "{phase}: its requests are held"),
                Effect::Probe { .. }
                | Effect::Drain { .. }
                | Effect::Stop { .. }
                | Effect::Freeze { .. }
                | Effect::Measure(_) => {
                    panic!("{phase}: {effect:?}")
                }
                Effect::Hook(_) | Effect::Post(_) | Effect::Link { .. } | Effect::Retain { .. } => {
                }
            }
        }
        assert!(starts.contains(&slot(&active)), "{phase}: {starts:?}");
        app.started(&slot(&active)).probed(&slot(&active), true);
        assert_eq!(
            app.condition(&slot(&active)),
            &Condition::Active(Service::Up),
            "{phase}"
        );
    }
}

#[test]
fn a_soak_starts_over_after_a_reboot_with_its_old_slot_started_beside() {
    let mut app = in_soak();
    app.now = app.now.after(Duration::from_secs(30));
    app.recover(&app.facts_after_reboot());
    let watch = app.state.watch.as_ref().expect("the soak goes on");
    assert_eq!(watch.until, app.now.after(Duration::from_secs(40)));
    let (blue, green) = (slot("blue"), slot("green"));
    app.started(&green).started(&blue).probed(&green, true);
    app.vanished("green", crashed());
    assert_eq!(app.active(), "green", "blue is not gated in this run yet");
}

#[test]
fn without_a_state_the_active_slot_is_the_one_that_the_table_names() {
    for (phase, app) in phases() {
        let found = rediscover(&app.facts(), app.now);
        assert_eq!(found.active, app.state.active, "{phase}");
        let active = |slot: &&slot::deploy::Slot| slot.condition.name() == "active";
        assert_eq!(found.slots.values().filter(active).count(), 1, "{phase}");
        assert_eq!(found.generation, app.state.generation, "{phase}");
    }
}

#[test]
fn without_a_state_and_a_table_it_is_the_one_that_runs_what_is_live() {
    let mut app = in_drain();
    let mut facts = app.facts();
    (facts.routed, facts.serving) = (None, None);
    let found = rediscover(&facts, app.now);
    assert_eq!(found.active, Some(slot("green")));
    assert_eq!(found.slots[&slot("blue")].condition.name(), "draining");
    facts.live = None;
    if let Some(blue) = facts.slots.get_mut(&slot("blue")) {
        blue.seen = Seen::Ended(End::ByHand);
    }
    app.state = rediscover(&facts, app.now);
    assert_eq!(app.active(), "green", "the only one that runs");
    assert!(
        matches!(
            app.condition(&slot("green")),
            Condition::Active(Service::Booting { .. })
        ),
        "gated before it gets a request"
    );
}

#[test]
fn a_repeated_or_stale_result_leaves_the_state_as_it_is() {
    for (phase, app) in phases() {
        for (name, known) in &app.state.slots {
            let old = "f".repeat(32).parse().expect("a boot id");
            let stale = [
                Event::Drained {
                    slot: name.clone(),
                    boot: Some(old),
                },
                Event::Started {
                    slot: name.clone(),
                    generation: known.generation.next().next(),
                    boot: "e".repeat(32).parse().expect("a boot id"),
                },
                Event::Vanished {
                    slot: name.clone(),
                    boot: "f".repeat(32).parse().expect("a boot id"),
                    end: crashed(),
                },
            ];
            for event in stale {
                let next =
                    step(&app.state, event.clone(), app.now).expect("results are never refused");
                assert_eq!(next.state, app.state, "{phase}: {event:?}");
                assert!(next.notices.is_empty(), "{phase}: {event:?}");
            }
        }
    }
}
