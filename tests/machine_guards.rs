//! Requests on a condition: what an app is expected to be like, and keys by which a request is known again. And what is done twice, or
//! comes late: it changes nothing.

mod machine_support;

use std::time::Duration;

use machine_support::{App, failure, probe, release, slot};
use slot::deploy::{
    Cause, End, Event, Expected, Fingerprint, Generation, Guard, KEY_AGE, KEYS, Refusal, State,
    step,
};

fn at(generation: u64) -> Guard {
    Guard {
        expected: Expected {
            generation: Some(Generation(generation)),
            active: None,
        },
        key: None,
    }
}

fn while_active(name: &str) -> Guard {
    Guard {
        expected: Expected {
            generation: None,
            active: Some(name.parse().expect("a slot or a release")),
        },
        key: None,
    }
}

/// `payload`: empty if nothing comes with the request, `None` as long as it comes.
fn keyed(key: &str, target: &str, payload: Option<&str>) -> Guard {
    Guard {
        expected: Expected::default(),
        key: Some(Fingerprint {
            key: key.parse().expect("a key"),
            target: target.to_owned(),
            payload: payload.map(str::to_owned),
        }),
    }
}

fn only_if(guard: Guard, event: Event) -> Event {
    Event::Guarded {
        guard,
        event: Box::new(event),
    }
}

/// Blue serves r1 and has soaked: generation 1.
fn served() -> App {
    let mut app = App::new();
    app.serve(1).settle();
    app
}

/// Green serves r2, in its soak, and blue is kept warm with r1: generation 2.
fn in_soak() -> App {
    let mut app = served();
    app.serve(2);
    app
}

/// An event of which nothing comes.
fn no_op(app: &App, event: Event) {
    let next = step(&app.state, event.clone(), app.now).expect("it is not refused");
    assert_eq!(next.state, app.state, "{event:?}");
    assert_eq!(next.notices, Vec::new(), "{event:?}");
}

#[test]
fn what_is_asked_for_on_a_condition_is_done_where_it_holds_and_only_there() {
    let app = in_soak();
    let asks = [
        app.begin(),
        app.ask_rollback(),
        Event::DrainNow { slot: slot("blue") },
    ];
    for ask in asks {
        for guard in [at(2), while_active("green"), while_active("00000002")] {
            let mut app = app.clone();
            app.on(only_if(guard, ask.clone()));
        }
        for guard in [
            at(1),
            at(3),
            while_active("blue"),
            while_active("00000001"),
            while_active("red"),
        ] {
            let refused = app.refused(only_if(guard.clone(), ask.clone()));
            let Refusal::Unexpected(found) = refused else {
                panic!("{refused}");
            };
            assert_eq!(found.expected, guard.expected);
            assert_eq!(found.generation, Generation(2));
            assert_eq!(
                (found.active, found.live),
                (Some(slot("green")), Some(release(2)))
            );
        }
    }
    let both = Guard {
        expected: Expected {
            active: while_active("blue").expected.active,
            ..at(2).expected
        },
        key: None,
    };
    let refused = app.refused(only_if(both, app.begin()));
    assert_eq!(
        refused.to_string(),
        "nothing was done: expected generation 2 and blue to be active; it is at generation 2, and green is active with release 00000002; look again with `slotctl status`"
    );
}

#[test]
fn nothing_is_active_at_first_and_an_app_that_was_never_deployed_is_at_generation_0() {
    let mut app = App::new();
    let refused = app.refused(only_if(while_active("blue"), app.begin()));
    assert!(
        refused
            .to_string()
            .contains("at generation 0, and no slot is active"),
        "{refused}"
    );
    app.on(only_if(at(0), app.begin()));
    assert_eq!(app.phase(), Some("preparing"));
}

#[test]
fn of_two_who_have_seen_the_same_one_is_first_and_the_other_hears_of_it() {
    let mut app = served();
    let both = only_if(at(1), app.begin());
    app.on(both.clone());
    // Not that it is busy: it would not be any more when that has ended.
    assert!(matches!(app.refused(both), Refusal::Unexpected(_)));
}

#[test]
fn a_rollback_on_a_condition_is_not_done_twice_and_the_old_slot_keeps_its_run() {
    let mut app = in_soak();
    let old = app.boot(&slot("blue"));
    let back = only_if(while_active("green"), app.ask_rollback());
    app.on(back.clone());
    for late in [false, true] {
        if late {
            app.routed();
        }
        assert!(matches!(app.refused(back.clone()), Refusal::Unexpected(_)));
        assert_eq!(
            (app.active(), app.boot(&slot("blue"))),
            ("blue", old.clone())
        );
    }
}

/// What has happened, once more: the routers have the table, the gates are passed, the slot is up.
#[test]
fn the_same_switch_again_is_none_and_the_old_slot_keeps_its_run() {
    let app = in_soak();
    let (green, blue) = (slot("green"), slot("blue"));
    let old = app.boot(&blue);
    let again = [
        Event::Routed {
            table: app.state.table,
        },
        Event::Started {
            slot: green.clone(),
            generation: Generation(2),
            boot: app.boot(&green),
        },
        Event::Prepared {
            generation: Generation(2),
            release: release(2),
        },
        Event::Probed {
            slot: green.clone(),
            boot: app.boot(&green),
            probe: probe(true),
        },
    ];
    for event in again {
        no_op(&app, event);
    }
    assert_eq!(app.boot(&blue), old);
    let live = app.refused(app.ask_rollback_to(Some(release(2))));
    assert!(live.already().is_some(), "{live}");
    let active = app.refused(app.ask_promote("green"));
    assert!(active.already().is_some(), "{active}");
}

/// Generation 1 has been over for long when these of it come.
#[test]
fn what_comes_late_of_an_earlier_generation_changes_nothing() {
    let app = in_soak();
    let (blue, generation) = (slot("blue"), Generation(1));
    let late = [
        Event::Prepared {
            generation,
            release: release(9),
        },
        Event::Unprepared {
            generation,
            why: "gone".to_owned(),
        },
        Event::Unbuilt {
            generation,
            failure: failure("exited with status 1"),
        },
        Event::Routed {
            table: app.state.table - 1,
        },
        Event::Unrouted {
            table: app.state.table - 1,
            why: "no router".to_owned(),
        },
        Event::StartFailed {
            slot: blue.clone(),
            generation,
            failure: failure("exited with status 1"),
        },
        Event::Drained {
            slot: blue.clone(),
            boot: Some("f".repeat(32).parse().expect("a boot id")),
        },
        Event::Vanished {
            slot: blue,
            boot: "f".repeat(32).parse().expect("a boot id"),
            end: End::ByHand,
        },
        Event::Whole {
            generation,
            payload: "00".to_owned(),
        },
        Event::Tick,
    ];
    for event in late {
        no_op(&app, event);
    }
}

#[test]
fn a_request_with_a_key_is_carried_out_once_and_is_known_again_to_its_end_and_after() {
    let mut app = served();
    let ask = only_if(keyed("k", "commit 1", Some("")), app.begin());
    app.on(ask.clone());
    let known = |app: &App| match app.refused(ask.clone()) {
        Refusal::Repeated { generation, .. } => generation,
        other => panic!("{other}"),
    };
    let generation = app.state.generation;
    assert_eq!(known(&app), generation, "while it is being prepared");
    assert_eq!(app.state.kept_outcome(generation), None);
    app.on(Event::Prepared {
        generation,
        release: release(2),
    });
    app.pass_gates();
    assert_eq!(known(&app), generation, "in its soak");
    // Others come and end meanwhile.
    app.settle().serve(3).settle();
    assert_eq!(known(&app), generation, "long after");
    let kept = app.state.kept_outcome(generation).expect("it has ended");
    assert_eq!(
        (&kept.cause, kept.release.as_ref()),
        (&Cause::Switched, Some(&release(2)))
    );
}

#[test]
fn a_key_goes_before_what_its_request_expected() {
    let mut app = served();
    let guard = Guard {
        key: keyed("k", "commit 1", Some("")).key,
        ..at(1)
    };
    let ask = only_if(guard, app.begin());
    app.on(ask.clone());
    assert!(matches!(app.refused(ask), Refusal::Repeated { .. }));
}

#[test]
fn a_key_of_another_request_is_refused() {
    let mut app = served();
    app.on(only_if(keyed("k", "commit 1", Some("")), app.begin()));
    let other = app.refused(only_if(keyed("k", "commit 2", Some("")), app.begin()));
    assert!(matches!(other, Refusal::KeyReused { .. }), "{other}");
    // Another key is another request, and finds this one under way.
    let other = app.refused(only_if(keyed("l", "commit 1", Some("")), app.begin()));
    assert!(matches!(other, Refusal::Busy { .. }), "{other}");
}

#[test]
fn a_request_that_was_refused_leaves_its_key_free() {
    let mut app = served();
    let first = app.begin();
    app.on(first);
    let ask = only_if(keyed("k", "commit 1", Some("")), app.begin());
    assert!(matches!(app.refused(ask.clone()), Refusal::Busy { .. }));
    app.on(Event::Unprepared {
        generation: app.state.generation,
        why: "gone".to_owned(),
    });
    app.on(ask);
    assert_eq!(app.phase(), Some("preparing"));
}

/// A request that comes with an archive, of which all has come or not.
fn asked_for(whole: bool) -> (App, Event) {
    let mut app = served();
    let ask = only_if(keyed("k", "archive", None), app.begin());
    app.on(ask.clone());
    let generation = app.state.generation;
    assert!(
        matches!(app.refused(ask.clone()), Refusal::Repeated { .. }),
        "it still comes"
    );
    if whole {
        let payload = "ab".to_owned();
        app.on(Event::Whole {
            generation,
            payload,
        });
    }
    (app, ask)
}

#[test]
fn a_request_that_slotd_lost_before_anything_was_started_is_none_also_if_it_had_come_whole() {
    for whole in [false, true] {
        let (mut app, ask) = asked_for(whole);
        let Generation(lost) = app.state.generation;
        // slotd was killed.
        app.recover(&app.facts());
        assert_eq!(app.cause(), "interrupted");
        // Also where it is compared and set: the attempt that was lost is the last one.
        let key = keyed("k", "archive", None).key;
        app.on(only_if(Guard { key, ..at(lost) }, app.begin()));
        assert_eq!(app.state.generation, Generation(lost + 1));
        assert_eq!(app.state.keys.len(), 1);
        assert!(matches!(app.refused(ask), Refusal::Repeated { .. }));
    }
}

#[test]
fn a_request_that_never_came_whole_is_none_and_one_that_did_is_one_though_it_failed() {
    for whole in [false, true] {
        let (mut app, ask) = asked_for(whole);
        app.on(Event::Unprepared {
            generation: app.state.generation,
            why: "the disk is full".to_owned(),
        });
        if whole {
            assert!(matches!(app.refused(ask), Refusal::Repeated { .. }));
            let other = app.refused(only_if(keyed("k", "archive", Some("cd")), app.begin()));
            assert!(matches!(other, Refusal::KeyReused { .. }), "{other}");
        } else {
            app.on(ask);
            assert_eq!(app.state.keys.len(), 1);
        }
    }
}

#[test]
fn what_is_sent_after_the_end_of_an_archive_changes_nothing_of_a_key() {
    let mut app = served();
    let ask = only_if(keyed("k", "archive", None), app.begin());
    app.on(ask.clone());
    app.on(Event::Prepared {
        generation: app.state.generation,
        release: release(2),
    });
    // The release was whole; the end of the request never came.
    app.pass_gates().settle();
    assert!(matches!(app.refused(ask), Refusal::Repeated { .. }));
}

#[test]
fn keys_are_bounded_in_number_and_in_age() {
    let mut app = served();
    let attempt = |app: &mut App, key: usize| {
        app.on(only_if(
            keyed(&format!("k{key}"), "commit", Some("")),
            app.begin(),
        ));
        app.on(Event::Unprepared {
            generation: app.state.generation,
            why: "gone".to_owned(),
        });
    };
    for key in 0..=KEYS {
        attempt(&mut app, key);
    }
    let knows = |state: &State, app: &App, key: &str| {
        state.keyed(&key.parse().expect("a key"), app.now).is_some()
    };
    assert_eq!(app.state.keys.len(), KEYS);
    assert!(!knows(&app.state, &app, "k0") && knows(&app.state, &app, "k1"));
    app.now = app.now.after(KEY_AGE - Duration::from_millis(1));
    assert!(knows(&app.state, &app, "k1"));
    app.now = app.now.after(Duration::from_millis(1));
    assert!(!knows(&app.state, &app, "k1"));
    // Those that are too old go with the next one that comes.
    attempt(&mut app, 1);
    assert_eq!(app.state.keys.len(), 1);
}

#[test]
fn a_deployment_and_its_promotion_each_have_a_key_and_both_have_its_outcome() {
    let mut app = served();
    let deploy = keyed("one", "deploy", Some(""));
    app.on(only_if(deploy, app.begin_at(Some(10))));
    let generation = app.state.generation;
    app.on(Event::Prepared {
        generation,
        release: release(2),
    });
    app.started(&slot("green"));
    app.probed(&slot("green"), true).routed();
    let promote = keyed("two", "promote", Some(""));
    app.on(only_if(promote, app.ask_promote("green"))).routed();
    for key in ["one", "two"] {
        let key = key.parse().expect("a key");
        let kept = app.state.keys.iter().find(|it| it.fingerprint.key == key);
        let outcome = kept.and_then(|it| it.outcome.as_ref());
        assert_eq!(outcome.map(|it| &it.cause), Some(&Cause::Switched));
    }
}
