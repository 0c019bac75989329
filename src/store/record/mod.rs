//! The state as JSON, version 2. The types mirror those of [`deploy`](crate::deploy), which knows nothing of encodings.
//!
//! A later version that an older slotd can still read keeps `readable_from`; unknown keys are passed over for that reason.
//!
//! Version 2 has weights, and hooks and verdicts that end something. What has none of them is written as version 1, which an older slotd
//! can read.

mod after;
mod back;
mod causes;
mod convert;
mod hooks;
mod keyed;
mod plans;
mod tidings;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use tidings::TidingRecord;

/// The newest version that this slotd reads and writes.
pub(super) const VERSION: u32 = 2;

/// The version whose readers know of neither.
pub(super) const FIRST: u32 = 1;

/// A state file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    /// The oldest version of the format whose readers understand this file.
    pub(super) readable_from: u32,
    /// By what the start of the machine in which this was written is told from others (`machine_boot` of the daemon).
    pub(super) machine_boot: String,
    generation: u64,
    routed: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    table: u64,
    #[serde(default = "yes", skip_serializing_if = "is")]
    everywhere: bool,
    active: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lingering: Vec<String>,
    deployment: Option<DeploymentRecord>,
    watch: Option<WatchRecord>,
    slots: BTreeMap<String, SlotRecord>,
    prev: Option<String>,
    /// A version that does not know of it goes forward again with a second rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    went_back: Option<WentBackRecord>,
    soaked: bool,
    marked: BTreeSet<String>,
    /// Of those that are marked, how they were rolled back. A version that does not know of it knows that they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    marks: BTreeMap<String, RolledBackRecord>,
    outcome: Option<OutcomeRecord>,
    rolled_back: Option<RolledBackRecord>,
    settings: SettingsRecord,
    /// A version that does not know of them forgets them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<KeyRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    due: Vec<OccasionRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    topics: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    told: u64,
    /// A version that does not know of them tells nobody, and one that does not know the topic of one passes it over.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "tidings::known"
    )]
    untold: Vec<TidingRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    switched: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reached: Option<ProbeRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lookout: Option<LookoutRecord>,
    /// A version that does not know of it lets the slot go, which stops it, frozen or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<KeptRecord>,
    /// A version that does not know of it gives everything to the active slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migration: Option<MigrationRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MigrationRecord {
    slot: String,
    /// Per cent.
    weight: u8,
    since: u64,
    until: u64,
    streak: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct MigrateRecord {
    /// Per cent.
    keeps: u8,
    lasts_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptRecord {
    slot: String,
    until: u64,
    freezes: bool,
    frozen: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct LookoutRecord {
    streak: u8,
    failing: Option<CauseRecord>,
    left: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AfterRecord {
    failing: FailingRecord,
    keep_warm_ms: u64,
    frozen: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FailingRecord {
    Unseen,
    Told,
    Left,
}

#[derive(Debug, Serialize, Deserialize)]
struct OccasionRecord {
    hook: HookRecord,
    generation: u64,
    slot: Option<String>,
    release: Option<String>,
    previous: Option<String>,
    cause: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HookRecord {
    BeforeDeploy,
    BeforeSwitch,
    AfterSwitch,
    AfterRollback,
    Check,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StageRecord {
    #[default]
    Ahead,
    Runs,
    Passed,
}

impl StageRecord {
    fn is_ahead(&self) -> bool {
        *self == Self::Ahead
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyRecord {
    key: String,
    target: String,
    payload: Option<String>,
    generation: u64,
    at: u64,
    outcome: Option<OutcomeRecord>,
}

fn yes() -> bool {
    true
}

fn is(flag: &bool) -> bool {
    *flag
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

fn is_not(flag: &bool) -> bool {
    !flag
}

#[derive(Debug, Serialize, Deserialize)]
struct SettingsRecord {
    slots: Vec<String>,
    start_timeout_ms: u64,
    health_timeout_ms: u64,
    drain_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain_classes_ms: Option<ByClassRecord>,
    stop_timeout_ms: u64,
    soak_ms: u64,
    /// A version that does not know of it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    soak_error_rate: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hooks: Vec<HookRecord>,
    /// A version that does not know of it looks no more when the soak is over, and lets the old slot go then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<AfterRecord>,
    /// A version that does not know of it leaves nothing to the old slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migrate: Option<MigrateRecord>,
    /// A version that does not know of it switches at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    canary: Option<CanaryRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CanaryRecord {
    /// Per cent, and milliseconds.
    steps: Vec<(u8, u64)>,
    auto_promote: bool,
    min_requests: u64,
    error_rate: Option<u32>,
    error_ratio: Option<u32>,
    latency_us: BTreeMap<QuantileRecord, u64>,
    latency_ratio: BTreeMap<QuantileRecord, u32>,
    warm_up_ms: u64,
    quiet: QuietRecord,
    max_hold_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum QuantileRecord {
    P50,
    P95,
    P99,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum QuietRecord {
    Hold,
    Probe,
    Advance,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FailedRecord {
    ErrorRate,
    ErrorRatio,
    Latency,
    LatencyRatio,
    MaxHold,
}

/// What a verdict lacks: requests, or latencies for a quantile; or clients who wait for an answer, as all but `given_up` of `has` do. A
/// version that does not know of that takes it for a lack of requests.
#[derive(Debug, Serialize, Deserialize)]
struct LackRecord {
    live: bool,
    quantile: Option<QuantileRecord>,
    has: u64,
    needs: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_up: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PlanRecord {
    step: usize,
    since: u64,
    paused: Option<u64>,
    holds: bool,
    check: StageRecord,
    finished: bool,
}

/// Where the classes differ: a version that does not know of it goes by the last of them, which is there as well.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ByClassRecord {
    requests: Option<u64>,
    streams: Option<u64>,
    tunnels: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct DeploymentRecord {
    generation: u64,
    kind: KindRecord,
    by: String,
    began: u64,
    phase: PhaseRecord,
    #[serde(default)]
    entered: Vec<(String, u64)>,
    settings: SettingsRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u8>,
    #[serde(default, skip_serializing_if = "is_not")]
    planned: bool,
    /// A version that does not know of it finds the time for health passed, and ends the deployment, should it run.
    #[serde(default, skip_serializing_if = "StageRecord::is_ahead")]
    before_switch: StageRecord,
    /// A version that does not know of it deploys what is marked anyhow.
    #[serde(default, skip_serializing_if = "is_not")]
    force: bool,
    #[serde(default, skip_serializing_if = "is_not")]
    auto: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    because: Option<CauseRecord>,
    #[serde(default, skip_serializing_if = "is_not")]
    goes_back: bool,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum KindRecord {
    Deploy,
    Rollback,
    ByHand,
    Promote,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
enum PhaseRecord {
    Preparing {
        queue_ms: u64,
    },
    Waiting {
        release: String,
        until: u64,
    },
    Starting {
        slot: String,
        until: u64,
    },
    Ready {
        slot: String,
        until: u64,
        probe: Option<ProbeRecord>,
    },
    Trial {
        slot: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<PlanRecord>,
    },
    Shifting {
        slot: String,
        from: Option<String>,
        left: Option<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct WatchRecord {
    generation: u64,
    new: String,
    old: Option<String>,
    streak: u8,
    /// A version that does not know of them takes any end of a process for a failure.
    #[serde(default, skip_serializing_if = "is_zero")]
    restarts: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comes_by: Option<u64>,
    until: u64,
    prev: Option<String>,
    soaked: bool,
    rolling_back: Option<CauseRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SlotRecord {
    condition: ConditionRecord,
    release: Option<String>,
    boot: Option<String>,
    generation: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
enum ConditionRecord {
    Idle,
    Starting,
    Ready,
    Standby {
        #[serde(default)]
        gated: bool,
    },
    Trial {
        weight: u8,
        streak: u8,
    },
    Active {
        service: ServiceRecord,
    },
    Warm {
        drain: Option<u64>,
        gated: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classes: Option<ByClassRecord>,
    },
    Draining {
        until: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        classes: Option<ByClassRecord>,
        #[serde(default, skip_serializing_if = "is_not")]
        withdrawn: bool,
    },
    Stopping {
        forced: bool,
        failure: Option<FailureRecord>,
    },
    Failed {
        failure: FailureRecord,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "name")]
enum ServiceRecord {
    Up,
    Booting {
        until: u64,
    },
    Down {
        failure: FailureRecord,
        retry: Option<u64>,
    },
    ByHand,
}

#[derive(Debug, Serialize, Deserialize)]
struct FailureRecord {
    result: String,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ProbeRecord {
    pass: bool,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct OutcomeRecord {
    generation: u64,
    kind: KindRecord,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    by: String,
    release: Option<String>,
    slot: Option<String>,
    previous: Option<String>,
    phase: String,
    #[serde(default)]
    entered: Vec<(String, u64)>,
    cause: CauseRecord,
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reached: Option<ProbeRecord>,
    #[serde(default, skip_serializing_if = "is_not")]
    goes_back: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct RolledBackRecord {
    generation: u64,
    from: String,
    left: Option<String>,
    to: String,
    release: Option<String>,
    cause: CauseRecord,
    at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reached: Option<ProbeRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct WentBackRecord {
    left: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<String>,
    release: String,
    at: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct MarkRecord {
    back: Option<Box<RolledBackRecord>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UnneededRecord {
    Live(String),
    Left(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "code")]
enum CauseRecord {
    Switched,
    Standby,
    /// An older reader takes one that is marked, or unneeded, for one that could not be put on disk.
    Unprepared {
        why: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        marked: Option<MarkRecord>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unneeded: Option<UnneededRecord>,
    },
    Unbuilt {
        failure: FailureRecord,
    },
    Unhooked {
        hook: HookRecord,
        failure: FailureRecord,
    },
    Interrupted,
    /// An older reader takes it for a rollback's doing where it says by whom it was.
    Preempted {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    NoIdleSlot {
        holder: String,
        condition: String,
    },
    Unrouted {
        why: String,
    },
    StartFailed {
        failure: FailureRecord,
    },
    StartTimeout,
    HealthTimeout {
        probe: Option<ProbeRecord>,
    },
    Exited {
        failure: FailureRecord,
    },
    StoppedByHand,
    ProbesFailed {
        probe: ProbeRecord,
    },
    Judged {
        failed: FailedRecord,
        text: String,
    },
    Soaked,
    Superseded,
    OldSlotGone,
}
