//! Notices that are told elsewhere, in the deploy state machine: what is kept of them, and for how long.

mod machine_support;

use machine_support::{App, failure, settings, slot};
use slot::deploy::{Effect, End, Event, Generation, Notice, Tiding, Topic, effects};

fn telling(topics: impl IntoIterator<Item = Topic>) -> App {
    let mut app = App::with(settings());
    app.state.topics = topics.into_iter().collect();
    app
}

/// What is to be posted now.
fn posting(app: &App) -> Option<Tiding> {
    let mut posts = effects(&app.state)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Post(tiding) => Some(tiding),
            _ => None,
        });
    let first = posts.next();
    assert_eq!(posts.next(), None, "one at a time");
    first
}

/// Posts all that there is, in order.
fn post_all(app: &mut App) -> Vec<Tiding> {
    let mut posted = Vec::new();
    while let Some(tiding) = posting(app) {
        let number = tiding.number;
        app.on(Event::Posted { number });
        posted.push(tiding);
    }
    posted
}

#[test]
fn what_nobody_is_told_of_is_not_kept() {
    let mut app = telling([]);
    app.serve(1).settle();
    assert_eq!((app.state.told, posting(&app)), (0, None));
}

#[test]
fn each_notice_of_a_topic_is_posted_once_and_in_order() {
    let mut app = telling([Topic::Began, Topic::Ended, Topic::Soak]);
    app.serve(1).settle();
    post_all(&mut app);
    app.serve(2).settle();
    app.serve(3).settle();
    let posted = post_all(&mut app);
    let told: Vec<(&str, Generation)> = posted
        .iter()
        .map(|it| (it.notice.topic().expect("a topic").name(), it.generation))
        .collect();
    let [two, three] = [Generation(2), Generation(3)];
    assert_eq!(
        told,
        [
            ("began", two),
            ("ended", two),
            ("soak", two),
            ("began", three),
            ("ended", three),
            ("soak", three)
        ]
    );
    assert!(posted.is_sorted_by(|a, b| a.number < b.number));
    // Under its slot there may be another release when it is read.
    assert_eq!(posted[5].release, app.state.live().cloned());
    let before = app.state.clone();
    app.on(Event::Posted {
        number: posted[0].number,
    });
    assert_eq!(app.state, before, "a late answer changes nothing");
}

#[test]
fn one_that_was_not_posted_is_posted_after_a_crash_with_the_same_number() {
    let mut app = telling([Topic::Ended]);
    app.serve(1).settle();
    let posting_then = posting(&app).expect("its end");
    app.recover(&app.facts());
    assert_eq!(posting(&app), Some(posting_then));
}

#[test]
fn what_a_crash_interrupted_is_told_too() {
    let mut app = telling([Topic::Ended]);
    app.serve(1).settle();
    post_all(&mut app);
    let begin = app.begin();
    app.on(begin);
    app.recover(&app.facts());
    let told = posting(&app).expect("it has ended");
    assert!(matches!(told.notice, Notice::Ended(outcome) if outcome.cause.code() == "interrupted"));
}

#[test]
fn while_nothing_can_be_posted_the_oldest_are_dropped_and_no_number_comes_twice() {
    let mut app = telling([Topic::Down, Topic::Up]);
    app.serve(1).settle();
    let blue = slot("blue");
    for _ in 0..100 {
        app.vanished("blue", End::Restarting(failure("exited")));
        app.appeared("blue", 1).probed(&blue, true);
    }
    assert_eq!(app.state.untold.len(), 64);
    let posted = post_all(&mut app);
    assert!(posted.is_sorted_by(|a, b| a.number < b.number));
    assert_eq!(posted.last().map(|it| it.number), Some(app.state.told));
}
