//! The deploy state machine in a simulated machine: units that crash, routers that restart, people who interfere, results that are
//! repeated or late, a deployer that is killed between any two steps, machines that reboot.
//!
//! `SLOT_SEED=1234 cargo test --test simulation -- --nocapture` replays one seed and prints what happened; `SLOT_SEEDS=200000` runs so many.
//! Without either 2,000 seeds run; `tests/run` runs 20,000.

mod machine;
mod random;

use machine::Machine;

/// Runs one seed: faults for a while, then none, then everything must have settled.
fn run(seed: u64, trace: bool) -> Result<(), String> {
    let mut machine = Machine::new(seed, trace);
    machine.run_with_faults()?;
    machine.settle()
}

#[test]
fn every_seed_keeps_the_invariants_and_converges() {
    if let Ok(seed) = std::env::var("SLOT_SEED") {
        let seed = seed.parse().expect("SLOT_SEED is a number");
        run(seed, true).unwrap_or_else(|violated| panic!("seed {seed}: {violated}"));
        return;
    }
    let seeds: u64 = std::env::var("SLOT_SEEDS").map_or(
        if cfg!(debug_assertions) {
            2_000
        } else {
            20_000
        },
        |seeds| seeds.parse().expect("SLOT_SEEDS is a number"),
    );
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    (worker..seeds)
                        .step_by(threads as usize)
                        .filter_map(|seed| {
                            run(seed, false)
                                .err()
                                .map(|violated| format!("SLOT_SEED={seed}: {violated}"))
                        })
                        .take(5)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker does not panic"))
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_simulation_reaches_what_it_is_for() {
    let mut seen = std::collections::BTreeMap::<&str, u64>::new();
    for seed in 0..500 {
        let mut machine = Machine::new(seed, false);
        machine
            .run_with_faults()
            .and_then(|()| machine.settle())
            .unwrap_or_else(|violated| panic!("seed {seed}: {violated}"));
        for (what, count) in machine.reached() {
            *seen.entry(what).or_default() += count;
        }
    }
    for what in [
        "switched",
        "standby",
        "preempted",
        "joined",
        "already-live",
        "not brought back",
        "aborted",
        "weighed",
        "weight lost",
        "withdrawn",
        "served on trial",
        "served while it is left",
        "no-idle-slot",
        "start-failed",
        "start-timeout",
        "health-timeout",
        "exited",
        "stopped-by-hand",
        "probes-failed",
        "soaked",
        "superseded",
        "old-slot-gone",
        "restarted in a soak",
        "restarted too often",
        "failed in a soak",
        "already back",
        "unrouted",
        "rolled-back",
        "marked",
        "failing",
        "frozen",
        "thawed",
        "left",
        "not left",
        "returned",
        "forced",
        "down",
        "up",
        "interrupted",
        "crash",
        "reboot",
        "router restart",
        "served",
        "asked-with-a-key",
        "hook-failed",
        "after_switch",
        "a step passed",
        "a check passed",
        "promoted in a plan",
        "held",
        "error-rate",
        "max-hold",
        "after_rollback",
    ] {
        assert!(
            seen.get(what).copied().unwrap_or(0) > 0,
            "never reached: {what}; reached {seen:?}"
        );
    }
}
