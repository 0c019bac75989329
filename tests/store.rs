//! State files: what is written is read again, whatever it says, and what cannot be read is never taken for nothing.

// A test may stop at the first surprise, in the functions that it shares with others too.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slot::deploy::{
    After, BootId, ByClass, Canary, CanaryStep, Cause, Checks, Condition, Deployment, Failed,
    Failing, Finding, Fingerprint, Generation, Hook, Kept, Keyed, Kind, Lack, Lookout, Migrate,
    Migration, Notice, Occasion, Outcome, Phase, Plan, Probe, Quantile, Quiet, Rate, Ratio,
    ReleaseId, RolledBack, Service, Settings, Slot, SlotName, Stage, State, Tiding, Time, Topic,
    UnitFailure, Watch, Weight, WentBack,
};
use slot::store::{Entry, History, Loaded, StateFile, append, replace};
use tempfile::TempDir;

const MACHINE_BOOT: &str = "5d9c4f27-1b1e-4b53-9a0e-7d6a1e1f0c11";

fn slot(name: &str) -> SlotName {
    name.parse().unwrap()
}

fn release(id: &str) -> ReleaseId {
    id.parse().unwrap()
}

fn boot(digit: char) -> BootId {
    digit.to_string().repeat(32).parse().unwrap()
}

fn failure() -> UnitFailure {
    UnitFailure {
        result: "exit-code".into(),
        text: "exited with status 7 (\"quoted\", ünïcode, \u{1b}[31m)".to_owned(),
    }
}

fn probe(pass: bool) -> Probe {
    Probe {
        pass,
        text: "503 Service Unavailable: database is not there".to_owned(),
    }
}

fn settings() -> Settings {
    Settings {
        slots: vec![slot("green"), slot("blue"), slot("red-2")],
        start_timeout: Duration::from_secs(60),
        health_timeout: Duration::from_millis(30_500),
        drain: ByClass::all(Some(Duration::from_secs(120))),
        stop_timeout: Duration::from_secs(10),
        soak: Duration::ZERO,
        soak_error_rate: None,
        migrate: None,
        hooks: BTreeSet::new(),
        after: After::default(),
        canary: None,
    }
}

/// A state in which as much as possible is going on.
fn busy() -> State {
    let mut state = State::new(settings());
    state.generation = Generation(12);
    state.routed = Generation(11);
    state.active = Some(slot("green"));
    state.deployment = Some(Deployment {
        generation: Generation(12),
        kind: Kind::Deploy,
        by: "root (pid 4242)".to_owned(),
        began: Time(1_763_700_000_000),
        phase: Phase::Ready {
            slot: slot("red-2"),
            until: Time(1_763_700_030_500),
            probe: Some(probe(false)),
        },
        entered: vec![
            ("preparing", Time(1_763_700_000_000)),
            ("starting", Time(1_763_700_000_200)),
            ("ready", Time(1_763_700_000_500)),
        ],
        settings: Settings {
            drain: ByClass::all(None),
            ..settings()
        },
        weight: None,
        force: false,
        auto: false,
        because: None,
        goes_back: false,
        planned: false,
        before_switch: Stage::Ahead,
    });
    state.watch = Some(Watch {
        generation: Generation(11),
        new: slot("green"),
        old: Some(slot("blue")),
        streak: 2,
        restarts: 0,
        comes_by: None,
        until: Time(1_763_700_010_000),
        prev: Some(release("0badcafe")),
        soaked: true,
        rolling_back: None,
    });
    let mut place = |name: &str, condition, id: &str, run, generation| {
        let held = Slot {
            condition,
            release: Some(release(id)),
            boot: Some(boot(run)),
            generation: Generation(generation),
        };
        state.slots.insert(slot(name), held);
    };
    place("green", Condition::Active(Service::Up), "0123abcd", '1', 11);
    place(
        "blue",
        Condition::Warm {
            drain: ByClass::all(Some(Time(1_763_700_120_000))),
            gated: true,
        },
        "4567cdef",
        '2',
        10,
    );
    place("red-2", Condition::Ready, "89abcdef", '3', 12);
    state.prev = Some(release("4567cdef"));
    state.marked = BTreeMap::from([(release("deadbeef"), None), (release("badbad00"), None)]);
    state.outcome = Some(Outcome {
        generation: Generation(11),
        kind: Kind::Rollback,
        by: String::new(),
        release: Some(release("0123abcd")),
        slot: Some(slot("green")),
        previous: Some(release("4567cdef")),
        phase: "shifting",
        entered: vec![("shifting", Time(1_763_699_979_990))],
        cause: Cause::Switched,
        at: Time(1_763_699_980_000),
        reached: None,
        goes_back: true,
    });
    state.rolled_back = Some(rolled_back());
    state
}

fn rolled_back() -> RolledBack {
    RolledBack {
        generation: Generation(9),
        from: slot("blue"),
        left: Some(release("badbad00")),
        to: slot("green"),
        release: Some(release("4567cdef")),
        cause: Cause::StoppedByHand,
        at: Time(1_763_699_970_000),
        reached: None,
    }
}

/// One release is marked and it is known how; it is deployed all the same.
fn forced() -> State {
    let mut state = busy();
    (state.marked).insert(release("badbad00"), Some(rolled_back()));
    state.deployment.as_mut().unwrap().force = true;
    state
}

/// What the public listener answered is known of everything.
fn reached() -> State {
    let mut state = busy();
    state.switched = Some(Time(1_763_699_980_000));
    state.reached = Some(probe(true));
    let outcome = state.outcome.as_mut().unwrap();
    (outcome.by, outcome.reached) = ("alice (pid 7)".to_owned(), Some(probe(true)));
    state.rolled_back.as_mut().unwrap().reached = Some(probe(false));
    state
}

/// What is live was brought by a rollback, and another one is under way in a soak in which the process has ended twice.
fn back() -> State {
    let mut state = busy();
    state.went_back = Some(WentBack {
        left: Some(release("89abcdef")),
        before: [release("89abcdee")].into(),
        release: release("0123abcd"),
        at: Time(1_763_699_980_000),
    });
    let watch = state.watch.as_mut().unwrap();
    (watch.restarts, watch.comes_by) = (2, Some(Time(1_763_700_041_000)));
    state.deployment.as_mut().unwrap().goes_back = true;
    state
}

/// A release failed after its soak, and the one before it is to take its place.
fn failing() -> [State; 4] {
    let mut told = busy();
    told.lookout = Lookout {
        streak: 3,
        failing: Some(Cause::ProbesFailed(probe(false))),
        left: None,
    };
    told.settings.after.failing = Failing::Unseen;
    let mut left = told.clone();
    left.lookout.left = Some(Generation(11));
    left.settings.after.failing = Failing::Left;
    let held = left.deployment.as_mut().unwrap();
    held.because = Some(Cause::ProbesFailed(probe(false)));
    let mut kept = busy();
    kept.settings.after.keep_warm = Duration::from_secs(1800);
    kept.settings.after.frozen = true;
    kept.watch = None;
    kept.kept = Some(Kept {
        slot: slot("blue"),
        until: Time(1_763_701_800_000),
        freezes: true,
        frozen: true,
    });
    let mut migrating = busy();
    migrating.settings.migrate = Some(Migrate {
        keeps: "5".parse().unwrap(),
        lasts: Duration::from_secs(30),
    });
    migrating.migration = Some(Migration {
        slot: "blue".parse().unwrap(),
        weight: "5".parse().unwrap(),
        since: Time(1_000_000_000),
        until: Time(1_000_030_000),
        streak: 1,
    });
    [told, left, kept, migrating]
}

/// The candidate has a weight, and so has a slot that was started by hand.
fn on_trial() -> State {
    let mut state = busy();
    state.watch = None;
    (state.table, state.everywhere) = (31, false);
    state.lingering.insert(slot("blue"));
    let held = state.deployment.as_mut().unwrap();
    held.weight = Weight::new(10);
    held.phase = Phase::Trial {
        slot: slot("red-2"),
        plan: None,
    };
    for (name, weight, streak) in [("red-2", 10, 2), ("blue", 25, 0)] {
        state.slots.get_mut(&slot(name)).unwrap().condition = Condition::Trial {
            weight: Weight::new(weight).unwrap(),
            streak,
        };
    }
    state
}

fn phases() -> Vec<Phase> {
    vec![
        Phase::Preparing {
            queue: Duration::from_secs(600),
        },
        Phase::Waiting {
            release: release("0123abcd"),
            until: Time(5),
        },
        Phase::Starting {
            slot: slot("blue"),
            until: Time(6),
        },
        Phase::Ready {
            slot: slot("blue"),
            until: Time(7),
            probe: None,
        },
        Phase::Ready {
            slot: slot("blue"),
            until: Time(7),
            probe: Some(probe(true)),
        },
        Phase::Shifting {
            slot: slot("blue"),
            from: None,
            left: None,
        },
        Phase::Shifting {
            slot: slot("blue"),
            from: Some(slot("green")),
            left: Some(release("0123abcd")),
        },
    ]
}

fn conditions() -> Vec<Condition> {
    vec![
        Condition::Idle,
        Condition::Starting,
        Condition::Ready,
        Condition::Standby { gated: false },
        Condition::Standby { gated: true },
        Condition::Active(Service::Up),
        Condition::Active(Service::Booting { until: Time(8) }),
        Condition::Active(Service::Down {
            failure: failure(),
            retry: None,
        }),
        Condition::Active(Service::Down {
            failure: failure(),
            retry: Some(Time(9)),
        }),
        Condition::Active(Service::ByHand),
        Condition::Warm {
            drain: ByClass::all(None),
            gated: false,
        },
        Condition::Draining {
            until: ByClass::all(None),
            withdrawn: false,
        },
        Condition::Draining {
            withdrawn: true,
            until: ByClass {
                requests: Some(Time(7)),
                streams: None,
                tunnels: Some(Time(u64::MAX)),
            },
        },
        Condition::Stopping {
            forced: true,
            failure: Some(failure()),
        },
        Condition::Stopping {
            forced: false,
            failure: None,
        },
        Condition::Failed(failure()),
    ]
}

fn causes() -> Vec<Cause> {
    vec![
        Cause::Switched,
        Cause::StandsBy,
        Cause::Unprepared("the disk is full".to_owned()),
        Cause::Unbuilt(failure()),
        Cause::Unhooked(Hook::BeforeDeploy, failure()),
        Cause::Unhooked(Hook::BeforeSwitch, failure()),
        Cause::Interrupted,
        Cause::Preempted,
        Cause::Aborted("alice (pid 7)".to_owned()),
        Cause::NoIdleSlot {
            holder: slot("blue"),
            condition: "draining",
        },
        Cause::StartFailed(failure()),
        Cause::StartTimeout,
        Cause::HealthTimeout(None),
        Cause::HealthTimeout(Some(probe(false))),
        Cause::Exited(failure()),
        Cause::StoppedByHand,
        Cause::ProbesFailed(probe(false)),
        Cause::Soaked,
        Cause::Superseded,
        Cause::OldSlotGone,
        Cause::Unrouted("cannot write table.json".to_owned()),
        Cause::Marked(None),
        Cause::Marked(Some(Box::new(rolled_back()))),
        Cause::AlreadyLive("0123abcd".parse().unwrap()),
        Cause::Left("0123abcd".parse().unwrap()),
    ]
}

/// Requests with keys: under way, over, and one that has not come whole.
fn with_keys() -> State {
    let mut state = busy();
    let keyed = |key: &str, payload: Option<&str>, outcome| Keyed {
        fingerprint: Fingerprint {
            key: key.parse().unwrap(),
            target: "0f".repeat(32),
            payload: payload.map(str::to_owned),
        },
        generation: Generation(12),
        at: Time(1_763_700_000_000),
        outcome,
    };
    state.keys = vec![
        keyed(
            "8e03978e-40d5-43dd-bc93-6894a57f9324",
            Some(""),
            state.outcome.clone(),
        ),
        keyed("ci/4711", Some("ba7816bf"), None),
        keyed("~!#", None, None),
    ];
    state
}

/// Hooks before a switch and after others.
fn with_hooks() -> [State; 2] {
    let mut runs = busy();
    let held = runs.deployment.as_mut().unwrap();
    held.settings.hooks = BTreeSet::from(Hook::AROUND);
    held.before_switch = Stage::Runs;
    let mut passed = runs.clone();
    passed.deployment.as_mut().unwrap().before_switch = Stage::Passed;
    passed.settings.hooks = BTreeSet::from([Hook::AfterRollback]);
    let due = |hook, slot, release| Occasion {
        hook,
        generation: Generation(11),
        slot,
        release,
        previous: None,
        cause: "probes-failed".to_owned(),
    };
    passed.due = vec![
        due(
            Hook::AfterSwitch,
            Some(slot("blue")),
            Some(release("0badcafe")),
        ),
        due(Hook::AfterRollback, None, None),
    ];
    [runs, passed]
}

/// A plan at each of its stages, what it goes by, and verdicts that ended something.
fn with_plans() -> Vec<State> {
    let step = |percent, seconds| CanaryStep {
        weight: Weight::new(percent).unwrap(),
        lasts: Duration::from_secs(seconds),
    };
    let canary = |quiet| Canary {
        steps: vec![step(1, 120), step(50, 300)],
        auto_promote: false,
        checks: Checks {
            min_requests: 250,
            error_rate: Some(Rate(125)),
            error_ratio: Some(Ratio(150)),
            latency: Quantile::ALL
                .map(|which| (which, Duration::from_micros(1_500)))
                .into(),
            latency_ratio: Quantile::ALL.map(|which| (which, Ratio(300))).into(),
        },
        warm_up: Duration::from_millis(1_500),
        quiet,
        max_hold: Duration::from_secs(3_600),
    };
    let finding = |failed| {
        Cause::Judged(Finding {
            failed,
            text: "p99 of the candidate is 512 ms".to_owned(),
        })
    };
    let mut states = Vec::new();
    for (quiet, check) in [
        (Quiet::Hold, Stage::Ahead),
        (Quiet::Probe, Stage::Runs),
        (Quiet::Advance, Stage::Passed),
    ] {
        let mut state = busy();
        let held = state.deployment.as_mut().unwrap();
        held.planned = true;
        held.auto = true;
        held.settings.canary = Some(Box::new(canary(quiet)));
        held.settings.soak_error_rate = Some(Rate(1_000));
        held.settings.hooks = BTreeSet::from([Hook::Check]);
        held.phase = Phase::Trial {
            slot: slot("red-2"),
            plan: Some(Plan {
                step: 1,
                since: Time(1_763_700_000_000),
                paused: (check == Stage::Runs).then_some(Time(1_763_700_000_001)),
                holds: check == Stage::Passed,
                check,
                finished: check == Stage::Ahead,
            }),
        };
        let (weight, streak) = (Weight::new(50).unwrap(), 1);
        state.slots.get_mut(&slot("red-2")).unwrap().condition =
            Condition::Trial { weight, streak };
        states.push(state);
    }
    for failed in [
        Failed::ErrorRate,
        Failed::ErrorRatio,
        Failed::Latency,
        Failed::LatencyRatio,
        Failed::MaxHold,
    ] {
        let mut state = busy();
        state.outcome.as_mut().unwrap().cause = finding(failed);
        states.push(state);
    }
    states
}

/// Every kind of notice that is told elsewhere, on its way there.
fn with_tidings() -> State {
    let mut state = busy();
    let occasion = with_hooks()[1].due[0].clone();
    let notices = [
        Notice::Began {
            generation: Generation(12),
            kind: Kind::Deploy,
            by: "alice".to_owned(),
        },
        Notice::Ended(state.outcome.clone().unwrap()),
        Notice::Soak {
            generation: Generation(12),
            slot: slot("blue"),
            cause: Cause::Soaked,
        },
        Notice::RolledBack(state.rolled_back.clone().unwrap()),
        Notice::Returned(state.rolled_back.clone().unwrap()),
        Notice::Failing {
            generation: Generation(12),
            slot: slot("blue"),
            cause: Cause::OldSlotGone,
            to: Some(Ok(release("0badcafe"))),
        },
        Notice::Failing {
            generation: Generation(12),
            slot: slot("blue"),
            cause: Cause::OldSlotGone,
            to: Some(Err("nothing to roll back to".to_owned())),
        },
        Notice::Holds {
            generation: Generation(12),
            step: 1,
            lack: Lack::Requests {
                live: true,
                has: 4,
                needs: 100,
            },
        },
        Notice::Holds {
            generation: Generation(12),
            step: 0,
            lack: Lack::Latencies {
                live: false,
                quantile: Quantile::P99,
                has: 4,
                needs: 1_000,
            },
        },
        Notice::Holds {
            generation: Generation(12),
            step: 0,
            lack: Lack::Patience {
                given_up: 7,
                of: 19,
            },
        },
        Notice::Weighed {
            slot: slot("blue"),
            weight: Weight::new(10).unwrap(),
            rest: Weight::new(90).unwrap(),
            cause: Some(Cause::OldSlotGone),
        },
        Notice::Down {
            slot: slot("blue"),
            failure: Some(failure()),
        },
        Notice::Up { slot: slot("blue") },
        Notice::Hooked {
            occasion,
            failure: None,
        },
    ];
    state.topics = notices.iter().filter_map(Notice::topic).collect();
    assert_eq!(state.topics.len(), Topic::ALL.len());
    state.told = 1_763_700_000_007;
    let untold = notices.into_iter().zip(1_763_700_000_000..);
    state.untold = untold
        .map(|(notice, number)| Tiding {
            number,
            at: Time(1_763_700_000_000),
            generation: Generation(11),
            release: (number % 2 == 0).then(|| release("0badcafe")),
            notice,
        })
        .collect();
    state
}

#[test]
fn what_a_newer_version_tells_of_is_passed_over_and_the_rest_is_not() {
    let place = Place::new();
    let state = with_tidings();
    place.file.save(&state).unwrap();
    let text = fs::read_to_string(place.path()).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let untold = file["untold"].as_array_mut().unwrap();
    untold[1]["topic"] = "from-tomorrow".into();
    fs::write(place.path(), file.to_string()).unwrap();
    let mut expected = state;
    expected.untold.remove(1);
    assert_eq!(place.loaded().0, expected);
}

/// Every variant of every part at least once.
fn states() -> Vec<State> {
    let mut lingering = busy();
    lingering.lingering.insert(slot("blue"));
    let mut states = vec![
        State::new(settings()),
        busy(),
        lingering,
        with_keys(),
        forced(),
        reached(),
        back(),
    ];
    states.extend(with_hooks());
    states.extend(failing());
    states.extend(with_plans());
    states.push(with_tidings());
    let kinds = [Kind::Deploy, Kind::Rollback, Kind::ByHand, Kind::Promote];
    for phase in phases() {
        for kind in kinds {
            let mut state = busy();
            let held = state.deployment.as_mut().unwrap();
            (held.phase, held.kind) = (phase.clone(), kind);
            let mut set = |name: &str, condition| {
                state.slots.get_mut(&slot(name)).unwrap().condition = condition;
            };
            set("red-2", Condition::Idle);
            match &phase {
                Phase::Preparing { .. } | Phase::Waiting { .. } => {}
                Phase::Starting { .. } => set("blue", Condition::Starting),
                Phase::Ready { .. } => set("blue", Condition::Ready),
                Phase::Trial { .. } => unreachable!("it has a state of its own"),
                Phase::Shifting { .. } => {
                    set("blue", Condition::Active(Service::Up));
                    set(
                        "green",
                        Condition::Draining {
                            until: ByClass::all(None),
                            withdrawn: false,
                        },
                    );
                    state.active = Some(slot("blue"));
                }
            }
            states.push(state);
        }
    }
    for condition in conditions() {
        let mut state = busy();
        // The candidate takes the conditions that only a candidate has.
        let of_candidate = matches!(condition, Condition::Starting | Condition::Ready);
        let name = slot(if of_candidate { "red-2" } else { "blue" });
        if condition == Condition::Starting {
            state.deployment.as_mut().unwrap().phase = Phase::Starting {
                slot: name.clone(),
                until: Time(6),
            };
        }
        if matches!(condition, Condition::Active(_)) {
            state.active = Some(name.clone());
            let green = state.slots.get_mut(&slot("green")).unwrap();
            green.condition = Condition::Draining {
                until: ByClass::all(None),
                withdrawn: false,
            };
        }
        let held = state.slots.get_mut(&name).unwrap();
        (held.condition, held.release, held.boot) = (condition, None, None);
        states.push(state);
    }
    states.push(on_trial());
    let mut moving = busy();
    (moving.table, moving.everywhere) = (7, false);
    states.push(moving);
    for cause in causes() {
        let mut state = busy();
        state.watch.as_mut().unwrap().rolling_back = Some(cause.clone());
        let outcome = state.outcome.as_mut().unwrap();
        (outcome.cause, outcome.release) = (cause, None);
        states.push(state);
    }
    states
}

/// A directory with a state file in it.
struct Place {
    directory: TempDir,
    file: StateFile,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::at(directory.path().join("state.json"), MACHINE_BOOT.to_owned());
        Self { directory, file }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("state.json")
    }

    fn names(&self) -> BTreeSet<String> {
        names(self.directory.path())
    }

    fn loaded(&self) -> (State, bool) {
        match self.file.load().unwrap() {
            Loaded::State(state, rebooted) => (*state, rebooted),
            other => panic!("{other:?}"),
        }
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/state-1.json")
}

#[test]
fn every_state_is_read_as_it_was_written() {
    let place = Place::new();
    for state in states() {
        place.file.save(&state).unwrap();
        assert_eq!(place.loaded(), (state, false));
    }
    assert_eq!(place.names(), BTreeSet::from(["state.json".to_owned()]));
}

#[test]
fn a_file_holds_a_state_as_long_as_it_is_what_was_written_of_it() {
    let place = Place::new();
    let state = busy();
    assert!(!place.file.holds(&state).unwrap());
    place.file.save(&state).unwrap();
    assert!(place.file.holds(&state).unwrap() && !place.file.holds(&on_trial()).unwrap());
    let mut damaged = fs::read(place.path()).unwrap();
    damaged.truncate(damaged.len() / 2);
    fs::write(place.path(), damaged).unwrap();
    assert!(!place.file.holds(&state).unwrap());
    // What a newer slotd has written is nothing to write over.
    let newer = r#"{"version":4294967295,"readable_from":4294967295}"#;
    fs::write(place.path(), newer).unwrap();
    let refused = place.file.holds(&state).unwrap_err();
    assert!(slot::telemetry::chain(&refused).contains("install the newer package"));
}

/// `SLOT_BLESS=1` writes it anew; that is right only as long as no release has this version.
#[test]
fn a_file_of_version_1_is_read_and_written_as_it_was_when_it_was_new() {
    let place = Place::new();
    place.file.save(&busy()).unwrap();
    if std::env::var_os("SLOT_BLESS").is_some() {
        fs::copy(place.path(), golden()).unwrap();
    }
    let kept = fs::read_to_string(golden()).unwrap();
    assert_eq!(fs::read_to_string(place.path()).unwrap(), kept);
    fs::write(place.path(), kept).unwrap();
    assert_eq!(place.loaded(), (busy(), false));
}

/// As of version 1.
#[test]
fn a_file_of_version_2_is_read_and_written_as_it_was_when_it_was_new() {
    let place = Place::new();
    let golden = golden().with_file_name("state-2.json");
    place.file.save(&on_trial()).unwrap();
    if std::env::var_os("SLOT_BLESS").is_some() {
        fs::copy(place.path(), &golden).unwrap();
    }
    let kept = fs::read_to_string(golden).unwrap();
    assert_eq!(fs::read_to_string(place.path()).unwrap(), kept);
    fs::write(place.path(), kept).unwrap();
    assert_eq!(place.loaded(), (on_trial(), false));
}

/// What an older slotd would do with a weight or a cause that it does not know of is nothing good; so it is not to read such a file, and any other.
#[test]
fn only_a_file_with_a_weight_or_what_a_hook_ended_in_it_is_not_for_an_older_slotd() {
    let place = Place::new();
    let readable_from = |state: &State| {
        place.file.save(state).unwrap();
        let text = fs::read_to_string(place.path()).unwrap();
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        file["readable_from"].as_u64().unwrap()
    };
    assert_eq!(readable_from(&on_trial()), 2);
    let mut asked = busy();
    asked.deployment.as_mut().unwrap().weight = Some(Weight::NONE);
    assert_eq!(readable_from(&asked), 2);
    let mut aborted = busy();
    aborted.outcome.as_mut().unwrap().cause = Cause::Aborted("root".to_owned());
    assert_eq!(readable_from(&aborted), 1);
    aborted.outcome.as_mut().unwrap().cause = Cause::Marked(Some(Box::new(rolled_back())));
    assert_eq!(readable_from(&aborted), 1);
    aborted.outcome.as_mut().unwrap().cause = Cause::Unhooked(Hook::BeforeSwitch, failure());
    assert_eq!(readable_from(&aborted), 2);
}

#[test]
fn a_file_of_version_1_without_what_came_later_is_read_too() {
    let place = Place::new();
    let kept = fs::read_to_string(golden()).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&kept).unwrap();
    file.as_object_mut().unwrap().remove("rolled_back").unwrap();
    for (part, keys) in [
        ("deployment", &["entered"][..]),
        ("outcome", &["slot", "previous", "entered"]),
    ] {
        for key in keys {
            file[part].as_object_mut().unwrap().remove(*key).unwrap();
        }
    }
    fs::write(place.path(), file.to_string()).unwrap();
    let mut state = busy();
    state.rolled_back = None;
    state.deployment.as_mut().unwrap().entered.clear();
    let outcome = state.outcome.as_mut().unwrap();
    (outcome.slot, outcome.previous) = (None, None);
    outcome.entered.clear();
    assert_eq!(place.loaded(), (state, false));
}

#[test]
fn a_state_that_was_written_before_the_machine_was_started_again_says_so() {
    let place = Place::new();
    place.file.save(&busy()).unwrap();
    let later = StateFile::at(place.path(), "another boot".to_owned());
    match later.load().unwrap() {
        Loaded::State(state, true) => assert_eq!(*state, busy()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_not_there_is_absent_and_none_is_made() {
    let place = Place::new();
    assert!(matches!(place.file.load().unwrap(), Loaded::Absent));
    assert_eq!(place.names(), BTreeSet::new());
}

#[test]
fn a_file_cut_anywhere_is_kept_aside_whole_and_never_read_as_absent() {
    let whole = fs::read(golden()).unwrap();
    // The last byte is the end of a line.
    for length in 0..whole.len() - 1 {
        let place = Place::new();
        fs::write(place.path(), &whole[..length]).unwrap();
        let seen = place.file.look().unwrap().unwrap_err();
        assert!(place.path().exists(), "what is only looked at stays");
        match place.file.load().unwrap() {
            Loaded::Corrupt { aside, why } => {
                assert_eq!(why, seen);
                assert!(!why.is_empty());
                assert_eq!(aside, place.directory.path().join("state.json.corrupt-1"));
                assert_eq!(fs::read(&aside).unwrap(), &whole[..length]);
            }
            other => panic!("{length} bytes: {other:?}"),
        }
        assert!(!place.path().exists());
    }
}

#[test]
fn rubbish_is_kept_aside_under_a_name_of_its_own_each_time() {
    let place = Place::new();
    let kept = fs::read_to_string(golden()).unwrap();
    let rubbish = [
        String::new(),
        "\0".repeat(kept.len()),
        "[]".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        kept.replace("\"0123abcd\"", "\"../../etc\""),
        kept.replace("\"green\"", "\"Green!\""),
        kept.replace("\"ready\"", "\"sleeping\""),
        kept.replace("\"generation\": 12", "\"generation\": -1"),
        format!("{kept}{kept}"),
        // Well-formed, and never true.
        kept.replace("\"active\": \"green\"", "\"active\": \"blue\""),
        kept.replace("\"active\": \"green\"", "\"active\": null"),
        kept.replace("\"new\": \"green\"", "\"new\": \"gone\""),
        kept.replace("\"routed\": 11", "\"routed\": 13"),
    ];
    for text in &rubbish {
        assert_ne!(*text, kept);
    }
    for (number, text) in (1..).zip(&rubbish) {
        fs::write(place.path(), text).unwrap();
        match place.file.load().unwrap() {
            Loaded::Corrupt { aside, .. } => {
                let name = format!("state.json.corrupt-{number}");
                assert_eq!(aside, place.directory.path().join(name));
                assert_eq!(fs::read_to_string(aside).unwrap(), *text);
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    fs::write(place.path(), [0xff, 0xfe, b'{', b'}']).unwrap();
    assert!(matches!(place.file.load().unwrap(), Loaded::Corrupt { .. }));
}

#[test]
fn a_newer_file_that_says_it_can_be_read_is_read_without_what_is_new_in_it() {
    let place = Place::new();
    let newer = fs::read_to_string(golden())
        .unwrap()
        .replacen("\"version\": 1", "\"version\": 3", 1)
        .replacen(
            "\"generation\": 12",
            "\"weights\": {\"blue\": 5}, \"generation\": 12",
            1,
        );
    fs::write(place.path(), newer).unwrap();
    assert_eq!(place.loaded(), (busy(), false));
}

#[test]
fn a_newer_file_that_cannot_be_read_is_left_alone_and_the_remedy_is_named() {
    let place = Place::new();
    for newer in [
        fs::read_to_string(golden()).unwrap().replacen(
            "\"readable_from\": 1",
            "\"readable_from\": 3",
            1,
        ),
        r#"{"version": 9, "readable_from": 9, "all": "else"}"#.to_owned(),
    ] {
        fs::write(place.path(), &newer).unwrap();
        let error = place.file.load().unwrap_err();
        let said = slot::telemetry::chain(&error);
        assert!(said.contains("install the newer package again"), "{said}");
        assert!(said.contains("state.json"), "{said}");
        assert_eq!(fs::read_to_string(place.path()).unwrap(), newer);
        assert_eq!(place.names(), BTreeSet::from(["state.json".to_owned()]));
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_and_not_corrupt() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    assert!(place.file.load().is_err());
    assert!(place.path().is_dir());
}

#[test]
fn a_replacement_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.json");
    replace(&path, b"old", 0o644).unwrap();
    // Where the new file would be made there is something that is no file.
    fs::create_dir(directory.path().join("table.json.new")).unwrap();
    let error = replace(&path, b"new", 0o644).unwrap_err();
    assert_eq!(error.path, directory.path().join("table.json.new"));
    assert_eq!(fs::read(&path).unwrap(), b"old");

    let taken = directory.path().join("taken");
    fs::create_dir_all(taken.join("full")).unwrap();
    assert!(replace(&taken, b"new", 0o644).is_err());
    assert!(!directory.path().join("taken.new").exists());
    assert!(replace(&directory.path().join("gone/x"), b"new", 0o644).is_err());
}

#[test]
fn a_replacement_takes_the_place_of_what_a_crash_left_and_has_its_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(directory.path().join("x.new"), "half of a longer one").unwrap();
    replace(&path, b"whole", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"whole");
    assert_eq!(names(directory.path()), BTreeSet::from(["x".to_owned()]));
    let other = directory.path().join("y");
    replace(&other, b"", 0o600).unwrap();
    let mode = fs::metadata(&other).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// `/dev/full` takes no byte (full(4)).
#[test]
fn a_full_disk_is_said_to_be_full_and_what_to_do() {
    let error = append(Path::new("/dev/full"), "line\n").unwrap_err();
    let said = slot::telemetry::chain(&error);
    assert!(
        said.contains("the file system is full") && said.contains("df -h"),
        "{said}"
    );
}

#[test]
fn a_history_goes_on_after_a_line_that_was_cut() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.jsonl");
    let history = History::at(path.clone());
    assert_eq!(history.last_generation(), 0);
    let entry = |generation| Entry {
        at_ms: 1,
        generation,
        event: "ended".to_owned(),
        slot: None,
        release: Some("0123abcd".to_owned()),
        cause: Some("switched".to_owned()),
        text: "release 0123abcd serves in blue".to_owned(),
    };
    history.add(&entry(3)).unwrap();
    let mut cut = fs::read(&path).unwrap();
    cut.extend_from_slice(b"{\"at_ms\":1,\"gener\xff");
    fs::write(&path, cut).unwrap();
    history.add(&entry(4)).unwrap();
    assert_eq!(history.last_generation(), 4);
    let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
    assert_eq!(text.lines().count(), 3, "{text}");
}
