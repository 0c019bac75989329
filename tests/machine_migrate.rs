//! What the old slot keeps for a while at a switch: `migrate = "99:1"`.
// A test may stop at the first surprise, its helpers too.
#![allow(clippy::unwrap_used)]

mod machine_support;

use std::time::Duration;

use machine_support::{App, failure, percent, release, settings, slot};
use slot::deploy::{
    ByClass, Cause, Condition, Effect, End, Event, Migrate, Notice, Pace, Refusal, Settings,
    effects,
};

/// r1 is in blue and r2 has just become active in green; blue keeps 5% for 30 seconds.
fn switched() -> App {
    switched_with(|_| {})
}

fn switched_with(change: impl Fn(&mut Settings)) -> App {
    let mut settings = settings();
    settings.migrate = Some(Migrate {
        keeps: percent(5),
        lasts: Duration::from_secs(30),
    });
    change(&mut settings);
    let mut app = App::with(settings);
    app.serve(1);
    assert_eq!(shares(&app), [("blue", 100)], "nothing was active before");
    app.settle().serve(2);
    app
}

/// What each slot has, by the state and by the table alike.
fn shares(app: &App) -> Vec<(&str, u8)> {
    let mut demanded = effects(&app.state).into_iter();
    let route = demanded.find_map(|effect| match effect {
        Effect::Route(route) => Some(route),
        _ => None,
    });
    let route = route.unwrap();
    let names = app.state.slots.keys();
    let shares = names.map(|name| {
        assert_eq!(route.weight(name), app.state.weight(name));
        (name.as_str(), route.weight(name).get())
    });
    assert_eq!(app.state.contradiction(), None);
    shares.filter(|(_, share)| *share > 0).collect()
}

/// What a state demands of a slot besides its part of the table.
fn drains(app: &App, name: &str) -> bool {
    let name = slot(name);
    effects(&app.state)
        .iter()
        .any(|it| matches!(it, Effect::Drain { slot, .. } if *slot == name))
}

#[test]
fn the_old_slot_keeps_its_share_for_its_time_and_drains_from_then_on() {
    let mut app = switched_with(|settings| settings.soak = Duration::ZERO);
    assert_eq!(shares(&app), [("blue", 5), ("green", 95)]);
    assert_eq!((app.active(), app.is("blue")), ("green", "warm"));
    assert_eq!(
        app.state.next_deadline(),
        Some(app.now.after(Duration::from_secs(30)))
    );
    app.wait(29);
    assert_eq!(shares(&app), [("blue", 5), ("green", 95)]);
    let table = app.state.table;
    app.wait(1);
    assert_eq!(shares(&app), [("green", 100)]);
    assert!(app.state.table > table, "the routers are told");
    assert_eq!(app.is("blue"), "warm", "the routers may still send to it");
    app.routed();
    assert_eq!(app.is("blue"), "draining");
    let Condition::Draining { until, .. } = app.condition(&slot("blue")) else {
        panic!("{:?}", app.condition(&slot("blue")));
    };
    assert_eq!(
        *until,
        ByClass::all(Some(app.now.after(Duration::from_secs(120))))
    );
    assert!(drains(&app, "blue"));
}

#[test]
fn a_soak_goes_on_beside_it_and_a_failure_gives_everything_back_at_once() {
    let mut app = switched();
    app.vanished("green", End::Restarting(failure("killed by SIGKILL")));
    assert_eq!(shares(&app), [("blue", 100)]);
    app.routed();
    assert_eq!((app.active(), shares(&app)), ("blue", vec![("blue", 100)]));
    app.wait(60);
    assert_eq!(shares(&app), [("blue", 100)]);
    // The soak outlasts it.
    let mut app = switched();
    app.wait(30);
    app.routed();
    assert_eq!((app.is("blue"), app.state.name()), ("warm", "switched"));
    app.wait(10);
    assert_eq!((app.is("blue"), app.state.name()), ("draining", "idle"));
}

#[test]
fn a_rollback_leaves_nothing_to_what_it_comes_from() {
    let mut app = switched();
    app.rollback();
    assert_eq!(shares(&app), [("blue", 100)]);
    app.routed();
    assert_eq!((app.active(), shares(&app)), ("blue", vec![("blue", 100)]));
}

#[test]
fn an_old_slot_that_ends_has_nothing_any_more_and_takes_nothing_until_the_routers_know() {
    let mut app = switched();
    app.vanished("blue", End::Failed(failure("killed by SIGKILL")));
    assert_eq!(
        (shares(&app), app.is("blue")),
        (vec![("green", 100)], "stopping")
    );
    app.stopped("blue").deploy(3);
    assert!(app.is_waiting(), "a router may still send to blue");
    app.routed();
    assert_eq!(app.phase(), Some("starting"));
}

#[test]
fn a_deployment_that_needs_the_slot_ends_it_watched_or_not() {
    needs_the_slot(switched());
    needs_the_slot(switched_with(|settings| settings.soak = Duration::ZERO));
}

fn needs_the_slot(mut app: App) {
    app.deploy(3);
    assert_eq!(shares(&app), [("green", 100)]);
    app.routed().drained("blue").stopped("blue");
    assert_eq!(
        (app.phase(), app.candidate().as_str()),
        (Some("starting"), "blue")
    );
}

#[test]
fn what_is_only_left_to_the_old_slot_is_there_to_be_had() {
    // In a soak the next deployment takes it from the old slot, whatever slot it starts in.
    let in_soak = |settings: &mut Settings| settings.slots.push(slot("red"));
    let mut app = switched_with(in_soak);
    assert_eq!(shares(&app), [("blue", 5), ("green", 95)]);
    app.deploy_at(3, Some(10));
    assert_eq!(shares(&app), [("green", 100)]);
    assert_eq!(app.routed().is("blue"), "draining");
    let three = |settings: &mut Settings| {
        in_soak(settings);
        settings.soak = Duration::ZERO;
    };
    let mut app = switched_with(three);
    app.deploy_at(3, Some(97));
    let red = app.candidate();
    app.started(&red).probed(&red, true);
    assert_eq!(shares(&app), [("green", 3), ("red", 97)]);
    // One that fits beside it does.
    let mut app = switched_with(three);
    app.deploy_at(3, Some(10));
    let red = app.candidate();
    app.started(&red).probed(&red, true).routed();
    assert_eq!(shares(&app), [("blue", 5), ("green", 85), ("red", 10)]);
    app.on(app.ask_weight("red", 96));
    assert_eq!(shares(&app), [("green", 4), ("red", 96)]);
    // A promotion leaves the share to the slot that it is made from alone.
    let mut app = switched_with(three);
    app.deploy_at(3, Some(10));
    let red = app.candidate();
    app.started(&red).probed(&red, true).routed();
    app.on(app.ask_promote("red")).routed();
    assert_eq!(shares(&app), [("green", 5), ("red", 95)]);
    assert_eq!(app.is("blue"), "draining");
}

#[test]
fn somebody_may_take_it_from_the_old_slot_but_give_it_nothing() {
    let mut app = switched();
    assert_eq!(
        app.refused(app.ask_weight("blue", 10)),
        Refusal::TakesNoWeight {
            slot: slot("blue"),
            condition: "warm"
        }
    );
    let before = app.state.clone();
    app.on(app.ask_weight("blue", 5));
    assert_eq!(app.state, before);
    app.on(app.ask_weight("green", 100));
    assert_eq!(app.state, before, "it has all but what is only left");
    app.on(app.ask_weight("blue", 0));
    assert_eq!(
        (shares(&app), app.is("blue")),
        (vec![("green", 100)], "warm")
    );
    let taken = app.state.clone();
    app.on(app.ask_weight("blue", 0));
    assert_eq!(app.state, taken);
    assert_eq!(
        app.refused(Event::DrainNow { slot: slot("blue") }),
        Refusal::NotDraining {
            slot: slot("blue"),
            condition: "warm"
        },
        "the routers may still send to it"
    );
    app.routed();
    assert_eq!(app.state.live(), Some(&release(2)));
}

#[test]
fn a_drain_now_takes_the_share_and_cuts_as_soon_as_the_routers_know() {
    let mut app = switched();
    app.on(Event::DrainNow { slot: slot("blue") });
    assert_eq!(
        (shares(&app), app.is("blue")),
        (vec![("green", 100)], "draining")
    );
    assert!(!drains(&app, "blue"), "the routers may still send to it");
    app.wait(5);
    assert_eq!(app.is("blue"), "draining");
    app.routed();
    assert!(drains(&app, "blue"));
    app.wait(1);
    assert_eq!(app.is("blue"), "stopping");
}

#[test]
fn an_old_slot_that_is_ill_has_nothing_any_more() {
    let mut app = switched();
    let blue = slot("blue");
    let probed = effects(&app.state).into_iter();
    let paces = probed.filter_map(|effect| match effect {
        Effect::Probe { slot, pace, .. } if slot == blue => Some(pace),
        _ => None,
    });
    assert_eq!(paces.collect::<Vec<_>>(), [Pace::Soak]);
    for pass in [false, false, true, false, false] {
        app.probed(&blue, pass);
    }
    assert_eq!(shares(&app), [("blue", 5), ("green", 95)]);
    app.probed(&blue, false);
    assert_eq!(
        (shares(&app), app.is("blue")),
        (vec![("green", 100)], "warm")
    );
    let ill = app.told.iter().any(|it| {
        matches!(it, Notice::Weighed { slot, cause: Some(Cause::ProbesFailed(_)), .. } if *slot == blue)
    });
    assert!(ill, "{:?}", app.told);
}

#[test]
fn its_drain_is_as_long_as_it_was_to_be_at_the_switch() {
    let mut app = switched();
    app.state.settings.drain = ByClass::all(None);
    app.wait(30);
    app.routed();
    app.wait(10);
    let Condition::Draining { until, .. } = app.condition(&slot("blue")) else {
        panic!("{:?}", app.condition(&slot("blue")));
    };
    let last = app.now.after(Duration::from_secs(120 - 10));
    assert_eq!(*until, ByClass::all(Some(last)));
}

#[test]
fn nothing_at_all_is_nothing_for_it_either() {
    let mut app = switched();
    app.on(app.ask_stop("green", true));
    assert_eq!(shares(&app), []);
}

#[test]
fn a_switch_that_is_taken_back_leaves_no_share_behind() {
    let mut app = switched();
    app.wait(30);
    app.routed().wait(10);
    app.drained("blue").stopped("blue").deploy(3);
    let blue = app.candidate();
    app.started(&blue).probed(&blue, true);
    assert_eq!(shares(&app), [("blue", 95), ("green", 5)]);
    app.on(Event::Unrouted {
        table: app.state.table,
        why: "a router hangs".to_owned(),
    });
    assert_eq!(
        (shares(&app), app.cause()),
        (vec![("green", 100)], Cause::Unrouted(String::new()).code())
    );
}

#[test]
fn it_is_not_frozen_before_its_time() {
    let mut app = switched_with(|settings| {
        settings.soak = Duration::ZERO;
        settings.after.keep_warm = Duration::from_secs(600);
        settings.after.frozen = true;
    });
    assert!(!drains(&app, "blue"));
    app.drained("blue");
    assert_eq!(shares(&app), [("blue", 5), ("green", 95)]);
    app.wait(30);
    app.routed();
    assert!(drains(&app, "blue"), "before it is frozen");
}

#[test]
fn a_deployer_that_starts_goes_on_with_it_and_a_machine_that_starts_does_not() {
    let mut app = switched();
    app.recover(&app.facts());
    assert_eq!(shares(&app), [("blue", 5), ("green", 95)]);
    app.recover(&app.facts_after_reboot());
    assert_eq!(shares(&app), [("green", 100)]);
    assert_eq!(app.state.lingering.len(), 0);
    app.started(&slot("blue")).probed(&slot("blue"), true);
    assert_eq!(shares(&app), [("green", 100)]);
}
