//! A short run of each fuzz target: its corpus, then mutations of it, the same ones each time (`SLOT_FUZZ=N` for more).

#[allow(dead_code, reason = "only a run with coverage knows what to keep")]
#[path = "../fuzz/engine.rs"]
mod engine;
#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::path::Path;

fn short_run(name: &str, inputs: usize) {
    let asked = std::env::var("SLOT_FUZZ").ok().and_then(|n| n.parse().ok());
    let mut target = targets::named(name).expect("one of the targets");
    let mut engine = engine::Engine::new(&Path::new("fuzz/corpus").join(name), 1);
    let corpus = engine.corpus().to_vec();
    assert!(corpus.len() > 5, "the corpus of {name} is there");
    let mutated = (0..asked.unwrap_or(inputs)).map(|_| engine.next());
    for input in corpus.into_iter().chain(mutated) {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&input)));
        assert!(
            failed.is_ok(),
            "{name} fails for {:?}",
            String::from_utf8_lossy(&input)
        );
    }
}

#[test]
fn heads_have_one_meaning_however_they_are_cut() {
    short_run(targets::NAMES[0], 300_000);
}

#[test]
fn chunks_have_one_meaning_however_they_are_cut() {
    short_run(targets::NAMES[1], 300_000);
}

#[test]
fn a_router_passes_on_exactly_the_requests_that_are_accepted() {
    short_run(targets::NAMES[2], 10_000);
}
