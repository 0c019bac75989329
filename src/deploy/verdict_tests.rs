//! Verdicts, judged by counts that are easy to follow.

use super::*;

fn sample(requests: u64, errors: u64, p99: u64) -> Sample {
    let latencies = Quantile::ALL.map(|quantile| (quantile, Duration::from_millis(p99)));
    Sample {
        requests,
        errors,
        timed: requests - errors,
        latencies: latencies.into(),
        ..Sample::default()
    }
}

fn evidence(candidate: Sample, live: Sample) -> Evidence {
    let whole = Sides { candidate, live };
    Evidence {
        recent: whole.clone(),
        whole,
    }
}

fn failed(verdict: &Verdict) -> Option<Failed> {
    match verdict {
        Verdict::Fail(finding) => Some(finding.failed),
        Verdict::Pass | Verdict::Hold(_) => None,
    }
}

#[test]
fn silence_is_never_a_pass() {
    for has in 0..100 {
        let verdict = judge(
            &Checks::default(),
            &evidence(sample(has, 0, 1), sample(9_000, 0, 1)),
        );
        let needs = 100;
        let live = false;
        assert_eq!(verdict, Verdict::Hold(Lack::Requests { live, has, needs }));
    }
    let enough = evidence(sample(100, 0, 1), Sample::default());
    assert_eq!(judge(&Checks::default(), &enough), Verdict::Pass);
}

#[test]
fn a_candidate_whose_clients_give_up_does_not_pass_however_fast_its_probes_are() {
    let of = |candidate: (u64, u64), probes, live: (u64, u64)| {
        let one = |(answered, given_up), probes| Sample {
            given_up,
            probes,
            ..sample(answered + probes, 0, 1)
        };
        judge(
            &Checks::default(),
            &evidence(one(candidate, probes), one(live, 0)),
        )
    };
    let held = |given_up, of| Verdict::Hold(Lack::Patience { given_up, of });
    // All of it hangs, and the probes do not; half of it does; none does.
    assert_eq!(of((0, 10), 100, (900, 0)), held(10, 10));
    assert_eq!(of((50, 50), 60, (900, 9)), held(50, 100));
    assert_eq!(of((100, 0), 0, (900, 9)), Verdict::Pass);
    // One in ten, or four in all, is chance.
    assert_eq!(of((90, 10), 10, (900, 0)), Verdict::Pass);
    assert_eq!(of((89, 11), 11, (900, 0)), held(11, 100));
    assert_eq!(of((0, 4), 100, (900, 0)), Verdict::Pass);
    // As many leave the live slot: it is the clients, or what they ask for.
    assert_eq!(of((120, 80), 0, (800, 200)), Verdict::Pass);
    assert_eq!(of((119, 81), 0, (800, 200)), held(81, 200));
    // It is no silence, which the app's file may take for a pass.
    assert_eq!(of((0, 10), 0, (900, 0)), held(10, 10));
    assert_eq!(of((2, 10), 0, (900, 0)), held(10, 12));
}

#[test]
fn clients_who_began_to_give_up_just_now_are_not_hidden_by_those_who_waited() {
    let mut found = evidence(sample(100_000, 0, 1), sample(100_000, 0, 1));
    found.whole.candidate.given_up = 20;
    assert_eq!(judge(&Checks::default(), &found), Verdict::Pass);
    found.recent.candidate = Sample {
        given_up: 20,
        ..sample(40, 0, 1)
    };
    let (given_up, of) = (20, 60);
    let held = Verdict::Hold(Lack::Patience { given_up, of });
    assert_eq!(judge(&Checks::default(), &found), held);
}

#[test]
fn errors_fail_as_soon_as_the_fewest_that_count_would_not_allow_them() {
    let of = |requests, errors| {
        let found = evidence(sample(requests, errors, 1), Sample::default());
        failed(&judge(&Checks::default(), &found))
    };
    assert_eq!(of(5, 5), None);
    assert_eq!(of(6, 6), Some(Failed::ErrorRate));
    assert_eq!(of(1_000, 50), None);
    assert_eq!(of(1_000, 51), Some(Failed::ErrorRate));
}

#[test]
fn what_has_just_begun_to_fail_is_not_hidden_by_what_went_well() {
    let mut found = evidence(sample(100_000, 20, 1), sample(100_000, 0, 1));
    assert_eq!(judge(&Checks::default(), &found), Verdict::Pass);
    found.recent.candidate = sample(40, 20, 1);
    assert_eq!(
        failed(&judge(&Checks::default(), &found)),
        Some(Failed::ErrorRate)
    );
}

#[test]
fn a_ratio_of_errors_is_to_those_of_the_live_slot_in_the_same_time() {
    let checks = Checks {
        error_rate: None,
        error_ratio: Some(Ratio(200)),
        ..Checks::default()
    };
    let of = |candidate, live| judge(&checks, &evidence(candidate, live));
    assert_eq!(of(sample(100, 20, 1), sample(1_000, 100, 1)), Verdict::Pass);
    let more = of(sample(100, 21, 1), sample(1_000, 100, 1));
    assert_eq!(failed(&more), Some(Failed::ErrorRatio));
    // The live slot has none: one of the candidate's is chance, more are not.
    assert_eq!(of(sample(100, 1, 1), sample(1_000, 0, 1)), Verdict::Pass);
    let more = of(sample(100, 2, 1), sample(1_000, 0, 1));
    assert_eq!(failed(&more), Some(Failed::ErrorRatio));
    // Who is not asked says nothing.
    let quiet = of(sample(100, 2, 1), sample(99, 0, 1));
    assert!(matches!(
        quiet,
        Verdict::Hold(Lack::Requests { live: true, .. })
    ));
}

#[test]
fn a_quantile_needs_ten_latencies_above_it() {
    assert_eq!(Quantile::ALL.map(Quantile::needs), [20, 200, 1000]);
    let checks = Checks {
        latency: [(Quantile::P99, Duration::from_millis(100))].into(),
        ..Checks::default()
    };
    let of = |count, p99| judge(&checks, &evidence(sample(count, 0, p99), Sample::default()));
    let held = of(999, 5_000);
    assert!(matches!(
        held,
        Verdict::Hold(Lack::Latencies { needs: 1000, .. })
    ));
    assert_eq!(failed(&of(1_000, 101)), Some(Failed::Latency));
    assert_eq!(of(1_000, 100), Verdict::Pass);
}

#[test]
fn a_slow_candidate_is_told_by_its_ratio_to_the_live_slot_and_not_by_trifles() {
    let checks = Checks {
        latency_ratio: [(Quantile::P99, Ratio(200))].into(),
        ..Checks::default()
    };
    let of = |candidate, live| {
        judge(
            &checks,
            &evidence(sample(2_000, 0, candidate), sample(2_000, 0, live)),
        )
    };
    assert_eq!(failed(&of(100, 20)), Some(Failed::LatencyRatio));
    assert_eq!(of(40, 20), Verdict::Pass);
    assert_eq!(of(5, 1), Verdict::Pass);
    assert_eq!(failed(&of(7, 1)), Some(Failed::LatencyRatio));
    // As slow as the one that it replaces: not its doing.
    assert_eq!(of(3_000, 3_000), Verdict::Pass);
}

#[test]
fn a_new_slot_is_taken_back_for_errors_that_the_old_one_did_not_have() {
    let of = |new, old| worse(Rate(1_000), &evidence(new, old)).is_some();
    assert!(of(sample(200, 100, 1), sample(10_000, 10, 1)));
    assert!(of(sample(11, 11, 1), Sample::default()));
    assert!(!of(sample(10, 10, 1), Sample::default()));
    // The old one failed as often.
    assert!(!of(sample(200, 100, 1), sample(10_000, 5_001, 1)));
    assert!(of(sample(200, 100, 1), sample(10_000, 2_500, 1)));
}

#[test]
fn rates_and_ratios_are_written_as_people_do() {
    assert_eq!(Rate(500).to_string(), "5%");
    assert_eq!(Rate(50).to_string(), "0.5%");
    assert_eq!(Ratio(125).to_string(), "1.25");
    assert_eq!(millis(Duration::from_micros(1_540)), "1.5 ms");
    assert_eq!(millis(Duration::from_millis(1_540)), "1540 ms");
}
