//! Shares of new requests, in the state machine: who may have how much, what becomes of it when something goes wrong, and that no
//! combination of people and faults leaves more or less than all of it.

mod machine_support;

use machine_support::{App, failure, percent, release, settings, slot};
use slot::deploy::{
    ByClass, Condition, Effect, End, Event, Hook, Notice, Refusal, SLOT_WAIT, State, Weight,
    effects, rediscover,
};

/// Blue serves r1, and green has passed its gates with r2, at a weight.
fn at(weight: u8) -> App {
    let mut app = App::new();
    app.serve(1).settle().deploy_at(2, Some(weight));
    app.started(&slot("green"));
    app.probed(&slot("green"), true).routed();
    app
}

/// Blue serves r1, green has r2 at 10%, and canary was started by hand and has passed its gates.
fn three() -> App {
    let mut slots = settings();
    slots.slots.push(slot("canary"));
    let mut app = App::with(slots);
    app.serve(1).settle().deploy_at(2, Some(10));
    app.started(&slot("green")).probed(&slot("green"), true);
    app.appeared("canary", 3).probed(&slot("canary"), true);
    app.routed();
    app
}

fn weights(app: &App) -> Vec<(&str, u8)> {
    let names = app.state.slots.keys();
    let weights = names.map(|name| (name.as_str(), app.state.weight(name).get()));
    weights.filter(|(_, weight)| *weight > 0).collect()
}

/// What the routers are to have.
fn routed(state: &State) -> Vec<(String, u8)> {
    let Some(Effect::Route(route)) = effects(state).into_iter().next() else {
        panic!("a state always demands its table");
    };
    let names = state.slots.keys();
    let weights = names.map(|name| (name.to_string(), route.weight(name).get()));
    weights.filter(|(_, weight)| *weight > 0).collect()
}

fn crashed() -> End {
    End::Restarting(failure("killed by SIGSEGV"))
}

#[test]
fn a_candidate_stays_at_its_weight_with_the_lock_held_until_it_is_told_on() {
    let mut app = at(10);
    app.wait(3_600);
    assert_eq!((app.active(), app.phase()), ("blue", Some("shifting")));
    assert_eq!(weights(&app), [("blue", 90), ("green", 10)]);
    assert_eq!(
        routed(&app.state),
        [("blue".to_owned(), 90), ("green".to_owned(), 10)]
    );
    let refused = app.refused(app.begin()).to_string();
    for said in [
        "generation 2",
        "phase shifting",
        "green at 10%",
        "slotctl promote",
        "slotctl weight green 50",
        "slotctl abort",
    ] {
        assert!(refused.contains(said), "{said}: {refused}");
    }
}

#[test]
fn a_weight_of_0_is_up_and_healthy_and_gets_nothing() {
    let mut app = at(0);
    assert_eq!((app.is("green"), app.phase()), ("trial", Some("shifting")));
    assert_eq!(weights(&app), [("blue", 100)]);
    app.on(app.ask_weight("green", 40));
    assert_eq!(weights(&app), [("blue", 60), ("green", 40)]);
    app.on(app.ask_weight("green", 0)).routed();
    assert_eq!((app.is("green"), app.phase()), ("trial", Some("shifting")));
    assert_eq!(weights(&app), [("blue", 100)]);
}

#[test]
fn a_weight_of_100_and_a_promotion_are_the_switch_of_the_deployment() {
    for promotes in [true, false] {
        let mut app = at(10);
        let told = match promotes {
            true => app.ask_promote("green"),
            false => app.ask_weight("green", 100),
        };
        app.on(told);
        assert_eq!(weights(&app), [("green", 100)]);
        app.routed();
        assert_eq!((app.active(), app.cause()), ("green", "switched"));
        assert_eq!((app.is("blue"), app.state.name()), ("warm", "switched"));
        assert_eq!(app.state.generation.0, 2, "it is the same attempt");
    }
}

#[test]
fn a_candidate_that_is_aborted_loses_its_weight_in_one_table_and_then_drains_and_stops() {
    let mut app = at(10);
    app.on(app.ask_abort());
    assert_eq!(weights(&app), [("blue", 100)]);
    assert_eq!((app.phase(), app.cause()), (None, "aborted"));
    assert_eq!((app.active(), app.is("green")), ("blue", "draining"));
    let drains = |app: &App| {
        let demanded = effects(&app.state);
        demanded.iter().any(|it| matches!(it, Effect::Drain { .. }))
    };
    assert!(!drains(&app), "the routers may still send to it");
    app.wait(500);
    assert_eq!(
        app.is("green"),
        "draining",
        "nor is it stopped by time before"
    );
    app.routed();
    assert!(drains(&app));
    app.drained("green").stopped("green");
    assert_eq!(app.is("green"), "idle");
    assert_eq!(app.refused(app.ask_abort()), Refusal::NothingToAbort);
}

#[test]
fn what_was_aborted_is_not_given_the_traffic_again_while_it_drains() {
    let mut app = at(10);
    app.on(app.ask_abort()).routed();
    app.on(app.ask_rollback_to(app.state.slots[&slot("green")].release.clone()));
    assert_eq!((app.active(), app.is_waiting()), ("blue", true));
    assert_eq!(app.is("green"), "draining");
}

#[test]
fn an_attempt_can_be_aborted_in_every_phase_before_its_switch_and_not_after() {
    for phases in 0..3 {
        let mut app = App::new();
        app.serve(1).settle();
        match phases {
            0 => app.on(app.begin()),
            1 => app.deploy(2),
            _ => app.deploy(2).started(&slot("green")),
        };
        app.on(app.ask_abort());
        assert_eq!((app.phase(), app.cause()), (None, "aborted"));
        assert_eq!(weights(&app), [("blue", 100)]);
    }
    let mut app = at(10);
    app.on(app.ask_promote("green"));
    assert!(matches!(
        app.refused(app.ask_abort()),
        Refusal::Switching { .. }
    ));
}

#[test]
fn a_rollback_goes_ahead_of_a_candidate_at_a_weight() {
    let mut app = App::new();
    app.serve(0).settle().serve(1).settle();
    app.deploy_at(2, Some(10)).started(&slot("blue"));
    app.probed(&slot("blue"), true).routed().rollback();
    assert_eq!(app.cause(), "preempted");
    assert_eq!(weights(&app), [("green", 100)]);
    app.routed().drained("blue").stopped("blue").pass_gates();
    assert_eq!(app.active(), "blue");
    assert_eq!(
        app.state.live().map(ToString::to_string).as_deref(),
        Some("00000000")
    );
}

/// Green serves r1 after r0, and what r2 had in flight in blue at a weight never ends.
fn with_a_candidate_that_never_drains() -> App {
    let mut app = App::new();
    app.state.settings.drain = ByClass::all(None);
    app.serve(0).settle().serve(1).settle();
    app.deploy_at(2, Some(10)).started(&slot("blue"));
    app.probed(&slot("blue"), true).routed();
    app
}

/// A rollback that waits for blue has it after a while.
fn has_blue_after_a_while(app: &mut App) {
    app.routed().wait(SLOT_WAIT.as_secs() - 1);
    assert_eq!((app.is("blue"), app.is_waiting()), ("draining", true));
    app.wait(1);
    assert_eq!((app.is("blue"), app.is_waiting()), ("stopping", true));
    let cut = |told: &Notice| matches!(told, Notice::Forced { slot } if slot.as_str() == "blue");
    assert!(app.told.iter().any(cut), "{:?}", app.told);
    // It has stop_timeout for its end.
    app.wait(app.state.settings.stop_timeout.as_secs());
    app.stopped("blue").pass_gates();
    assert_eq!((app.active(), app.cause()), ("blue", "switched"));
}

#[test]
fn a_rollback_that_needs_the_slot_of_a_candidate_cuts_what_that_has_in_flight_after_a_while() {
    let mut app = with_a_candidate_that_never_drains();
    app.rollback();
    assert_eq!(app.cause(), "preempted");
    has_blue_after_a_while(&mut app);
}

#[test]
fn so_does_one_whose_candidate_somebody_has_taken_back_before() {
    let mut app = with_a_candidate_that_never_drains();
    app.on(app.ask_abort()).routed().wait(600).rollback();
    has_blue_after_a_while(&mut app);
}

#[test]
fn a_deployer_that_was_away_while_a_rollback_waited_gives_it_its_time() {
    let mut app = with_a_candidate_that_never_drains();
    app.rollback().routed().wait(SLOT_WAIT.as_secs());
    assert_eq!(app.is("blue"), "stopping");
    let facts = app.facts();
    app.now = app.now.after(std::time::Duration::from_secs(3600));
    app.recover(&facts).wait(0);
    assert!(app.is_waiting());
    app.stopped("blue").pass_gates();
    assert_eq!((app.active(), app.cause()), ("blue", "switched"));
}

#[test]
fn a_rollback_waits_for_a_stop_that_begins_while_it_waits() {
    // What is in flight ends by itself, by its deadline, at the end of the wait itself, or is cut by somebody.
    for (seconds, how) in [
        (1, "drained"),
        (5, "deadline"),
        (SLOT_WAIT.as_secs(), "deadline"),
        (9, "now"),
    ] {
        let mut app = App::new();
        let drain = (how == "deadline").then(|| std::time::Duration::from_secs(seconds));
        app.state.settings.drain = ByClass::all(drain);
        app.serve(0).settle().serve(1).settle();
        app.deploy_at(2, Some(10)).started(&slot("blue"));
        app.probed(&slot("blue"), true).routed().rollback().routed();
        app.wait(seconds);
        match how {
            "drained" => app.drained("blue"),
            "now" => app.on(Event::DrainNow { slot: slot("blue") }),
            _ => &mut app,
        };
        assert_eq!(
            (app.is("blue"), app.is_waiting()),
            ("stopping", true),
            "{how}"
        );
        app.wait(app.state.settings.stop_timeout.as_secs());
        assert!(app.is_waiting(), "{how}, after {seconds} s");
        app.stopped("blue").pass_gates();
        assert_eq!((app.active(), app.cause()), ("blue", "switched"), "{how}");
    }
}

#[test]
fn a_rollback_that_waits_for_a_stop_without_end_comes_to_its_own() {
    let mut app = with_a_candidate_that_never_drains();
    app.rollback().routed();
    for _ in 0..100 {
        app.wait(1);
    }
    assert_eq!((app.phase(), app.cause()), (None, "no-idle-slot"));
}

#[test]
fn a_deployer_that_was_away_past_the_drain_of_a_candidate_waits_for_its_stop() {
    let mut app = App::new();
    app.serve(0).settle().serve(1).settle();
    app.deploy_at(2, Some(10)).started(&slot("blue"));
    app.probed(&slot("blue"), true).routed().rollback().routed();
    let facts = app.facts();
    app.now = app.now.after(std::time::Duration::from_secs(3600));
    app.recover(&facts).wait(0);
    assert_eq!((app.is("blue"), app.is_waiting()), ("stopping", true));
    app.wait(app.state.settings.stop_timeout.as_secs())
        .stopped("blue")
        .pass_gates();
    assert_eq!((app.active(), app.cause()), ("blue", "switched"));
}

#[test]
fn a_rollback_does_not_cut_what_was_live() {
    let mut app = App::new();
    app.state.settings.drain = ByClass::all(None);
    app.serve(0).settle().serve(1).settle().serve(2);
    app.wait(app.state.settings.soak.as_secs());
    assert_eq!(app.is("green"), "draining");
    app.on(app.ask_rollback_to(Some(release(0))));
    assert!(app.is_waiting());
    app.wait(SLOT_WAIT.as_secs());
    assert_eq!((app.is("green"), app.cause()), ("draining", "no-idle-slot"));
}

#[test]
fn a_rollback_that_has_another_slot_leaves_a_candidate_its_time() {
    let mut settings = settings();
    settings.slots.push(slot("canary"));
    settings.drain = ByClass::all(None);
    let mut app = App::with(settings);
    app.serve(0).settle().serve(1).settle();
    app.deploy_at(2, Some(10)).pass_gates();
    let candidate = app.candidate();
    app.rollback().routed().pass_gates();
    assert_eq!(app.cause(), "switched");
    app.wait(SLOT_WAIT.as_secs());
    assert_eq!(app.is(candidate.as_str()), "draining");
}

#[test]
fn a_candidate_at_a_weight_that_ends_has_nothing_at_once_and_its_deployment_failed() {
    for end in [
        crashed(),
        End::Failed(failure("exited with status 1")),
        End::ByHand,
    ] {
        let mut app = at(50);
        app.vanished("green", end.clone());
        assert_eq!(weights(&app), [("blue", 100)]);
        let cause = match end {
            End::ByHand => "stopped-by-hand",
            End::Restarting(_) | End::Failed(_) => "exited",
        };
        assert_eq!((app.phase(), app.cause()), (None, cause));
        assert_eq!((app.active(), app.is("green")), ("blue", "stopping"));
    }
}

#[test]
fn three_failed_probes_in_a_row_end_a_candidate_at_a_weight_and_two_do_not() {
    for weight in [0, 10] {
        let mut app = at(weight);
        let green = slot("green");
        for pass in [false, false, true, false, false] {
            app.probed(&green, pass);
        }
        assert_eq!((app.is("green"), app.phase()), ("trial", Some("shifting")));
        app.probed(&green, false);
        assert_eq!((app.phase(), app.cause()), (None, "probes-failed"));
        assert_eq!(
            (weights(&app), app.is("green")),
            (vec![("blue", 100)], "draining")
        );
    }
}

#[test]
fn a_table_that_no_router_gets_ends_a_candidate_that_was_to_have_a_weight() {
    let mut app = at(10);
    let unrouted = |app: &App| Event::Unrouted {
        table: app.state.table,
        why: "cannot write table.json".to_owned(),
    };
    // Said again of a table that was everywhere, it changes nothing.
    app.on(unrouted(&app));
    assert_eq!(app.phase(), Some("shifting"));
    app.on(app.ask_weight("green", 50));
    app.on(unrouted(&app));
    assert_eq!((app.phase(), app.cause()), (None, "unrouted"));
    assert_eq!(weights(&app), [("blue", 100)]);
}

#[test]
fn a_table_that_was_overtaken_confirms_nothing() {
    let mut app = at(10);
    let before = app.state.table;
    app.on(app.ask_abort());
    let withdrawn = app.state.clone();
    app.on(Event::Routed { table: before });
    assert_eq!(app.state, withdrawn);
}

#[test]
fn three_versions_have_a_share_each_and_the_active_slot_gives_and_gets() {
    let mut app = three();
    assert_eq!(app.is("canary"), "standby");
    app.on(app.ask_weight("canary", 20));
    assert_eq!(weights(&app), [("blue", 70), ("canary", 20), ("green", 10)]);
    app.on(app.ask_weight("green", 60));
    assert_eq!(weights(&app), [("blue", 20), ("canary", 20), ("green", 60)]);
    let more = app.refused(app.ask_weight("canary", 41));
    let has = Refusal::TooMuch {
        slot: slot("canary"),
        weight: percent(41),
        own: percent(20),
        active: Some(slot("blue")),
        rest: percent(20),
    };
    assert_eq!(more, has);
    assert!(more.to_string().contains("blue, which has 20%"), "{more}");
    // All that there is may be given away; the active slot is still the one that has the rest.
    app.on(app.ask_weight("canary", 40));
    assert_eq!(weights(&app), [("canary", 40), ("green", 60)]);
    assert_eq!(app.active(), "blue");
    // 100 is more than blue has; a promotion takes it from all.
    assert!(matches!(
        app.refused(app.ask_weight("green", 100)),
        Refusal::TooMuch { .. }
    ));
    app.on(app.ask_promote("green")).routed();
    assert_eq!(weights(&app), [("green", 100)]);
    assert_eq!((app.is("canary"), app.is("blue")), ("standby", "warm"));
}

#[test]
fn a_slot_that_was_started_by_hand_loses_its_weight_when_it_is_ill_and_no_deployment_fails() {
    for dies in [true, false] {
        let mut app = three();
        app.on(app.ask_weight("canary", 20)).routed();
        if dies {
            app.vanished("canary", crashed()).appeared("canary", 3);
        } else {
            for _ in 0..3 {
                app.probed(&slot("canary"), false);
            }
        }
        assert_eq!(weights(&app), [("blue", 90), ("green", 10)]);
        assert_eq!(
            (app.is("canary"), app.phase()),
            ("standby", Some("shifting"))
        );
        assert!(matches!(
            app.refused(app.ask_weight("canary", 20)),
            Refusal::NotHealthy { .. }
        ));
        app.probed(&slot("canary"), true);
        app.on(app.ask_weight("canary", 5));
        assert_eq!(weights(&app), [("blue", 85), ("canary", 5), ("green", 10)]);
    }
}

#[test]
fn only_what_is_up_and_healthy_beside_the_active_slot_takes_a_weight() {
    let app = at(10);
    assert!(matches!(
        app.refused(app.ask_weight("blue", 50)),
        Refusal::IsActive { weight, .. } if weight == percent(90)
    ));
    let mut idle = App::new();
    idle.serve(1).settle();
    assert!(matches!(
        idle.refused(idle.ask_weight("green", 10)),
        Refusal::TakesNoWeight { .. }
    ));
    assert!(matches!(
        idle.refused(idle.ask_weight("red", 10)),
        Refusal::NoSuchSlot { .. }
    ));
}

#[test]
fn a_first_release_shares_with_nobody() {
    let mut app = App::new();
    let refused = app.refused(app.begin_at(Some(10)));
    assert!(
        refused.to_string().contains("no slot is active"),
        "{refused}"
    );
    app.deploy_at(1, Some(0)).started(&slot("blue"));
    app.probed(&slot("blue"), true).routed();
    assert_eq!((weights(&app), app.active()), (vec![], "-"));
    app.on(app.ask_promote("blue")).routed();
    assert_eq!((app.active(), app.cause()), ("blue", "switched"));
}

#[test]
fn a_deployment_at_100_is_one_without_a_weight() {
    let mut app = App::new();
    app.deploy_at(1, Some(100)).pass_gates();
    assert_eq!((app.active(), app.cause()), ("blue", "switched"));
}

#[test]
fn a_swap_takes_the_place_of_the_slot_that_is_named_and_of_no_other() {
    let mut app = at(10);
    app.on(app.ask_swap("blue", "green")).routed();
    assert_eq!((app.active(), app.is("blue")), ("green", "warm"));
    // Asked again, it is done already.
    let done = app.state.clone();
    app.on(app.ask_swap("blue", "green"));
    assert_eq!(app.state, done);
    // Back, to what is still warm.
    app.on(app.ask_swap("green", "blue"));
    assert_eq!(weights(&app), [("blue", 100)]);
    app.routed();
    assert_eq!((app.active(), app.cause()), ("blue", "switched"));
    let mut wrong = three();
    wrong.on(wrong.ask_promote("green")).routed();
    assert!(matches!(
        wrong.refused(wrong.ask_swap("blue", "canary")),
        Refusal::NotActive { active: Some(active), .. } if active == slot("green")
    ));
}

#[test]
fn the_only_live_slot_is_stopped_by_force_alone_and_then_nothing_has_a_weight() {
    let mut app = three();
    app.on(app.ask_weight("canary", 20)).routed();
    assert!(matches!(
        app.refused(app.ask_stop("blue", false)),
        Refusal::OnlyLive { .. }
    ));
    app.on(app.ask_stop("blue", true));
    assert_eq!((weights(&app), app.active()), (vec![], "-"));
    assert_eq!(routed(&app.state), []);
    assert_eq!((app.phase(), app.cause()), (None, "aborted"));
    assert_eq!(
        (app.is("blue"), app.is("canary"), app.is("green")),
        ("draining", "standby", "draining")
    );
    app.routed().drained("blue").stopped("blue");
    app.drained("green").stopped("green");
    assert_eq!((app.is("blue"), app.is("green")), ("idle", "idle"));
    // After a restart of the machine nothing is started again.
    app.recover(&app.facts_after_reboot());
    assert_eq!(app.active(), "-");
    app.serve(4);
    assert_eq!(weights(&app), [("blue", 100)]);
}

#[test]
fn a_stop_by_force_during_a_soak_lets_go_of_the_old_slot_too() {
    let mut app = App::new();
    app.serve(1).settle().serve(2);
    app.on(app.ask_stop("green", true)).routed();
    assert_eq!((weights(&app), app.active()), (vec![], "-"));
    assert_eq!((app.is("blue"), app.is("green")), ("draining", "draining"));
    assert_eq!(app.state.watch, None);
}

#[test]
fn a_stop_of_a_candidate_is_an_abort_and_of_another_slot_a_drain() {
    let mut app = three();
    app.on(app.ask_weight("canary", 20)).routed();
    app.on(app.ask_stop("canary", false));
    assert_eq!(weights(&app), [("blue", 90), ("green", 10)]);
    assert_eq!(
        (app.is("canary"), app.phase()),
        ("draining", Some("shifting"))
    );
    app.on(app.ask_stop("green", false));
    assert_eq!(
        (weights(&app), app.cause()),
        (vec![("blue", 100)], "aborted")
    );
    let stopped = app.state.clone();
    app.on(app.ask_stop("green", false));
    assert_eq!(app.state, stopped, "once more changes nothing");
}

#[test]
fn a_deployer_that_was_killed_finds_a_candidate_at_its_weight_or_ends_the_deployment() {
    let mut app = at(10);
    let before = app.state.clone();
    app.recover(&app.facts());
    assert_eq!(app.state, before);
    let mut facts = app.facts();
    if let Some(green) = facts.slots.get_mut(&slot("green")) {
        green.seen = slot::deploy::Seen::Ended(End::Failed(failure("exited with status 1")));
    }
    app.recover(&facts);
    assert_eq!(
        (weights(&app), app.cause()),
        (vec![("blue", 100)], "exited")
    );
}

#[test]
fn after_a_reboot_a_candidate_that_had_a_weight_is_gone_and_the_active_slot_has_everything() {
    let mut app = at(10);
    app.recover(&app.facts_after_reboot());
    assert_eq!((app.phase(), app.cause()), (None, "rebooted"));
    assert_eq!(
        (weights(&app), app.is("green")),
        (vec![("blue", 100)], "idle")
    );
    assert!(matches!(app.condition(&slot("blue")), Condition::Active(_)));
}

#[test]
fn without_a_state_a_slot_that_had_a_share_drains_once_the_routers_know() {
    let app = at(10);
    let mut facts = app.facts();
    facts.live = app.state.live().cloned();
    let mut found = app.clone();
    found.state = rediscover(&facts, app.now);
    assert_eq!(
        (found.active(), weights(&found)),
        ("blue", vec![("blue", 100)])
    );
    assert_eq!(found.is("green"), "draining");
    let drains = |app: &App| {
        let demanded = effects(&app.state);
        demanded.iter().any(|it| matches!(it, Effect::Drain { .. }))
    };
    assert!(!drains(&found));
    found.routed();
    assert!(drains(&found));
}

#[test]
fn a_soak_goes_on_beside_a_slot_that_was_started_by_hand_and_its_rollback_leaves_that_its_weight() {
    let mut slots = settings();
    slots.slots.push(slot("red"));
    let mut app = App::with(slots);
    app.serve(1).settle().serve(2).appeared("red", 3);
    app.probed(&slot("red"), true);
    app.on(app.ask_weight("red", 10)).routed();
    assert_eq!(weights(&app), [("green", 90), ("red", 10)]);
    for _ in 0..3 {
        app.probed(&slot("green"), false);
    }
    assert_eq!(weights(&app), [("blue", 90), ("red", 10)]);
    app.routed();
    assert_eq!((app.active(), app.phase()), ("blue", None));
    assert_eq!(app.state.weight(&slot("green")), Weight::NONE);
}

#[test]
fn a_slot_that_was_started_by_hand_has_no_request_before_its_hook_has_run() {
    let mut app = three();
    app.on(app.ask_weight("canary", 20)).routed();
    app.on(app.ask_weight("canary", 0)).routed();
    let mut ask = app.ask_weight("canary", 5);
    if let Event::Weigh { settings, .. } = &mut ask {
        settings.hooks.insert(Hook::BeforeSwitch);
    }
    assert!(matches!(app.refused(ask), Refusal::HookFirst { .. }));
}
