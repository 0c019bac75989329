//! A long run of one target, or of one input: see `README.md`.

mod coverage;
mod engine;
mod targets;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use engine::Engine;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, what] = &arguments[..] else {
        panic!("say fuzz TARGET SECONDS, or fuzz TARGET FILE");
    };
    let mut target = targets::named(name)
        .unwrap_or_else(|| panic!("no target {name:?}; there are {:?}", targets::NAMES));
    match what.parse() {
        Ok(seconds) => run(name, &mut target, Duration::from_secs(seconds)),
        Err(_) => target(&fs::read(what).expect("a file")),
    }
}

fn run(name: &str, target: &mut targets::Target, time: Duration) {
    let seed = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_nanos() as u64);
    let mut engine = Engine::new(&Path::new("fuzz/corpus").join(name), seed);
    let mut reached = coverage::Reached::default();
    for input in engine.corpus().to_vec() {
        attempt(name, target, &input);
    }
    reached.anything_new();
    let (start, mut said, mut inputs) = (Instant::now(), 0, 0_u64);
    while start.elapsed() < time {
        let input = engine.next();
        attempt(name, target, &input);
        inputs += 1;
        if reached.anything_new() {
            put("found", name, &input);
            engine.keep(input);
        }
        let minutes = start.elapsed().as_secs() / 60;
        if minutes > said {
            said = minutes;
            println!(
                "{name}: {minutes} min, {inputs} inputs, {} branches, {} kept",
                reached.branches(),
                engine.corpus().len()
            );
        }
    }
    println!(
        "{name}: {inputs} inputs in {} s, {} branches, {} kept, nothing failed",
        time.as_secs(),
        reached.branches(),
        engine.corpus().len()
    );
}

/// Runs one input; one that fails is written down and ends the run.
fn attempt(name: &str, target: &mut targets::Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        println!(
            "{name} failed: fuzz/run {name} {}",
            put("failed", name, input)
        );
        std::process::exit(1);
    }
}

fn put(folder: &str, name: &str, input: &[u8]) -> String {
    let mut hash = DefaultHasher::new();
    input.hash(&mut hash);
    let folder = format!("fuzz/{folder}/{name}");
    let file = format!("{folder}/{:016x}", hash.finish());
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, input))
        .expect("fuzz/ can be written");
    file
}
