//! slotd's API, as slotctl and scripts see it: HTTP/1.1 with JSON on a unix socket.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /` | | `{"status":"ok"}` |
//! | `GET /apps` | | [`Apps`] |
//! | `GET /router` | | [`Routers`] |
//! | `POST /router/upgrade?limit=30m` | | [`Upgraded`], when the new instance accepts and the old one does not; a limit is also for those that drain already; without one the old one drains for as long as `machine.toml` says, which is for ever if it does not, as with `limit=0`; 422 if that file is wrong |
//! | `POST /listener/add?name=443`, `POST /listener/remove?name=443` | | [`Upgraded`]: the same, because root has added a socket unit for the router, or is about to close one: `slotctl listener` asks for it, and who did it is written down; root's alone (403), and 400 for a name that no listener can have |
//! | `GET /apps/<app>/remote` | | [`AtRemote`]: what the remote has on the app's branch now |
//! | `POST /apps/<app>/hold?reason=…`, `POST /apps/<app>/unhold` | | [`Status`]; while it holds, a deploy with `auto=true` is refused with 422 (`held`); one such ends as `already-live` (a success) or `left` where its release is live, or was left by the rollback that brought what is |
//! | `GET /apps/<app>/status` | | [`Status`] |
//! | `POST /apps/<app>/deploy?drain=30s&queue=10m&size=N&skip=disk,memory&label=v1.2&origin=path&name=build` | a tar archive, streamed | [`Begun`], then see `events`; `drain` is in place of the key of that name in the app's file, `queue` is how long to wait for another deployment and for an idle slot, `size` what the release takes on disk, in bytes, and `skip` what of it is not to be looked at beforehand; `label`, `origin` (`path` or `archive`, which it is if nothing is said) and `name` are noted with the release; `weight=10`, here and below, is what the candidate gets of new requests, in per cent: it stays there, and the attempt with it in phase `shifting`, until it is told on; `at_once=true`: all of them, whatever plan the app's file has in `[canary]`; `force=true`, here and below, deploys also what was rolled back by itself: without it a release that is named is refused (422), and what is sent ends with the cause `marked` before anything is started |
//! | `POST /apps/<app>/deploy?release=1a2b3c4d` | | [`Begun`]: a release that is on disk is deployed again; 404 with what there is if it is not |
//! | `POST /apps/<app>/deploy?commit=…&ref=main` | a pack (git-pack-objects(1)) of what slotd lacks of the commit, without its history; nothing, if it lacks nothing | [`Begun`]: a commit is deployed, by all of its 40 digits; `ref` is how it was named, and is noted with the release |
//! | `GET /apps/<app>/repository` | | [`Repository`](super::release::Repository): the commits that nothing need be sent of |
//! | `POST /apps/<app>/repository?commit=…` | a pack | [`Repository`](super::release::Repository): a commit of a submodule, which is to come before the commit that has it; 400 if it is not good |
//! | `GET /apps/<app>/releases` | | [`Releases`](super::release::Releases) |
//! | `POST /apps/<app>/rollback?to=1a2b3c4d` | | [`Begun`]; without `to` it goes to the previous release; `already` where it has gone back before, or `to` is live: a deployment under way is ended then, and no attempt is begun, nor is a key of the request kept; `repeated`, with the number of the one under way, where that is the same rollback; 404 with what there is if that one is not on disk |
//! | `POST /apps/<app>/weight?slot=green&weight=50` | | [`Shares`]: a slot that stands by, or has a weight, has another one; the active slot gives it or gets it; 100 is a promotion; 422 if the active one has not so much, or for anything but 0 to 100 |
//! | `POST /apps/<app>/route?from=blue&to=green` | | [`Shares`]: a slot takes the place of the active one, which is `from`, or nothing is changed (422); 200 too if `to` is active already |
//! | `POST /apps/<app>/promote?slot=green` | | [`Begun`]; without `slot` it is the candidate at a weight, or the only slot that stands by; `already` if it is active |
//! | `POST /apps/<app>/abort` | | [`Shares`]: the attempt under way ends, if it has not switched; its candidate gets nothing more, drains and stops |
//! | `POST /apps/<app>/pause`, `/resume` | | [`Shares`]: the plan under way stands still, or goes on; 422 if there is none |
//! | `POST /apps/<app>/stop?slot=green&force=false` | | [`Shares`]: a slot drains and stops; the active one with `force=true` alone (422), and then every request is answered 503 |
//! | `GET /apps/<app>/connections` | | [`Connections`]: what is under way at slots that get no new requests |
//! | `POST /apps/<app>/drain?slot=blue` | | [`Status`]: what the slot drains is cut now |
//! | `GET /apps/<app>/outcome?generation=7&wait=switched\|soaked\|stopped` | | [`Outcome`], when it is there (long poll: 202 with [`Progress`] each second or so otherwise) |
//! | `GET /apps/<app>/events` | | SSE, each an [`Event`] |
//! | `POST /apps/<app>/reload` | | [`Status`]: the app's file is read again |
//! | `DELETE /apps/<app>` | | `{"status":"ok"}`: takes it out of the table and forgets it; its units are left to whoever asks (`slotctl app remove` stops them) |
//!
//! A slot is named by its name, by its release's id, or by that one's label; 404 with what there is if there is none, 400 if it could be
//! another too.
//!
//! Each of `deploy`, `rollback`, `promote`, `weight`, `route`, `abort`, `pause`, `resume`, `stop` and `drain` takes `expected_generation=7` and `expected_active=blue` (a slot, or the release that is
//! live): compare, and set. Where the app is not so, nothing is changed, and the answer is 409 with [`Problem::expected`] and
//! [`Problem::found`]. Both are compared when the request would take effect: with `queue`, after the wait too.
//!
//! `deploy`, `rollback` and `promote` take an `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), of 1 to 128 characters. A request
//! with a key that is known is not carried out: its answer is the [`Begun`] of the first, whose outcome is there as that of any other,
//! whether it is still under way or slotd was restarted since. 422 if the key was another request's: of the query all counts but
//! `queue`, `size`, `skip` and what is expected, and of what is sent every byte, where it is an archive. A key is kept for 24 hours, and of
//! each app the last 32. A request that was refused, never came whole, or ended as `interrupted`, leaves its key free.
//!
//! Without `/apps/<app>` a path means the only app, or the app `slot`. Anything refused is a [`Problem`] with the status of its code.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::auto::{AtRemote, Hold};

use super::control::{Connection, InFlight};
use super::release::Origin;
pub use super::standing::{Run, Standing};

/// Every app that slotd knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apps {
    /// By name.
    pub apps: Vec<Status>,
    /// Apps whose file or state is wrong: name and why. One whose file became so while it was managed is in `apps` as well.
    #[serde(default)]
    pub broken: BTreeMap<String, String>,
}

/// One app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub app: String,
    /// `idle`, `preparing`, `waiting`, `starting`, `ready`, `shifting`, `switched`, `rolling_back`.
    pub state: String,
    /// The last attempt's number.
    pub generation: u64,
    /// The active slot.
    pub active: Option<String>,
    /// The active slot's release.
    pub live: Option<String>,
    /// The release before, which the symlink `prev` names.
    pub prev: Option<String>,
    /// Where `rollback` goes if it names no release: `prev`, unless that is marked, or what is live was brought by a rollback itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<String>,
    /// When a rollback brought what is live, while nothing else has switched since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_back_ms: Option<u64>,
    /// The active slot, the candidate and the old one with their runs, when it switched, who asked, which commits they are of.
    #[serde(default)]
    pub standing: Standing,
    /// Whether the active slot is sent requests.
    pub serving: bool,
    /// Where the app is reached: `http://127.0.0.1:80/`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The hosts at which one slot is reached whatever its weight, where the app's file lets them: `green.web.example.org`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previews: Vec<String>,
    /// Each slot.
    pub slots: Vec<SlotStatus>,
    /// The attempt that holds the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Progress>,
    /// The end of the soak, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_until_ms: Option<u64>,
    /// Failed probes in a row, during the soak and after it.
    #[serde(default)]
    pub health_fail_streak: u8,
    /// How the last attempt ended; where it was rolled back by itself since, that is its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Outcome>,
    /// The router's instances: one accepts, others drain.
    #[serde(default)]
    pub routers: Vec<RouterStatus>,
    /// The last switch that was taken back by itself, while nothing else has switched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// The work tree for the next deployment, where the app's file asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staging: Option<Staging>,
    /// What an administrator should know: a corrupt state file that was kept aside, a router that does not answer, …
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What each of those is about, in their order, in a word that never changes: `state-corrupt`, `router`, `table`, `hook`, `notices`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// Where commits are fetched from that nobody sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Who holds automatic deployments, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

impl Status {
    /// Adds a warning about something.
    pub fn warn(&mut self, topic: &str, text: String) {
        self.topics.resize(self.warnings.len(), String::new());
        self.topics.push(topic.to_owned());
        self.warnings.push(text);
    }

    /// Each warning with what it is about; nothing where slotd does not say so.
    pub fn warned(&self) -> impl Iterator<Item = (&str, &str)> {
        let topics = self.topics.iter().map(String::as_str);
        let topics = topics.chain(std::iter::repeat(""));
        topics.zip(self.warnings.iter().map(String::as_str))
    }
}

/// The work tree for the next deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staging {
    /// Where it is: `/var/lib/slot-staging/web/staging`.
    pub path: String,
    /// The release that it was made of, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The release that it is being made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<String>,
    /// Why it was not made of what was promoted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
}

/// What is under way at the slots of an app that get no new requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// By slot, oldest first.
    pub slots: BTreeMap<String, Vec<Connection>>,
    /// By slot, how many there are besides: each thread of a router lists 1,000.
    #[serde(default)]
    pub left_out: BTreeMap<String, u64>,
    /// Why an instance of the router did not say what it has.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The instances of the router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routers {
    /// Each that answers.
    pub instances: Vec<RouterStatus>,
    /// Of those that do not, why.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// One instance of the router.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// `2` of `slot-router@2.service`.
    pub instance: String,
    /// False while it drains.
    pub accepting: bool,
    /// Its table's revision.
    pub revision: Option<u64>,
    /// When its process began, milliseconds since the epoch.
    pub since_ms: u64,
    /// Open client connections.
    pub connections: u64,
    /// What is under way on them.
    pub in_flight: InFlight,
    /// Those whose request waits for its slot.
    pub held: u64,
    /// Those that wait for their next request.
    pub idle: u64,
    /// Streams and tunnels that would not outlive its process.
    #[serde(default)]
    pub unkept: u64,
    /// When its drain is cut, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until_ms: Option<u64>,
    /// Why its settings are not those of the machine's file: what is wrong there, and what holds instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The router was exchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The instance that accepts now; absent when none ran, and the next connection starts one.
    pub accepting: Option<u8>,
    /// Those that drain since.
    pub draining: Vec<u8>,
}

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its name.
    pub slot: String,
    /// `web@green.service`; in an embedded deployer `web@green`.
    pub unit: String,
    /// `idle`, `starting`, `ready`, `standby`, `trial` (up, and given what it was told to be), `active`, `warm`, `draining`, `stopping`, `failed`.
    pub condition: String,
    /// For `active`: `up`, `booting`, `down: ` and why, `stopped-by-hand`; for `failed`: how; for `standby`: `between two runs`; for `warm`, beyond its soak: `kept until …`, `frozen until …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What its symlink names.
    pub release: Option<String>,
    /// That release's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where that release came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Origin>,
    /// Its run.
    pub boot_id: Option<String>,
    /// Where it listens, for the router.
    pub upstream: String,
    /// Share of new requests, per cent.
    pub weight: u8,
    /// While it runs: `healthy`, `failing` (its last probe has failed), `unproven` (none has passed in this run), `down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// How often its unit has started it again by itself since it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// Under way, over all router instances; absent when no router answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// When its drain is cut, milliseconds since the epoch: the last of its classes. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_until_ms: Option<u64>,
    /// When each class is cut, where they differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_classes: Option<Deadlines>,
}

/// When each class of what is in flight is cut, milliseconds since the epoch. Absent: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// Ordinary requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_ms: Option<u64>,
    /// Event streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams_ms: Option<u64>,
    /// WebSockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels_ms: Option<u64>,
}

/// Who has how many of the new requests, after somebody changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shares {
    /// Always true.
    pub success: bool,
    /// The app.
    pub app: String,
    /// The attempt under way, or the last one.
    pub generation: u64,
    /// The slot that it was about.
    pub slot: Option<String>,
    /// Its release.
    pub release: Option<String>,
    /// Of each slot, per cent: together 100, or 0 where none is active.
    pub weights: BTreeMap<String, u8>,
    /// It is a switch: the attempt's outcome tells how it ends.
    pub switches: bool,
    /// Every router has the table.
    pub everywhere: bool,
    /// One sentence for people: what was done, and what to do next.
    pub text: String,
}

/// An attempt was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Its number.
    pub generation: u64,
    /// What it deploys, once that is known.
    pub release: Option<String>,
    /// By a request that came first, with the same `Idempotency-Key` or, while that is under way, for the same rollback; this one began
    /// nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
    /// Nothing was begun, since what was asked for is so already: since when, and how to go on. The number is that of the last attempt then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub already: Option<String>,
}

/// Whether what was deployed last serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// It does, no probe of it has just failed, and nothing is being taken back.
    pub healthy: bool,
    /// The app.
    pub app: String,
    /// The number of its last attempt.
    pub generation: u64,
    /// How it stands.
    pub standing: Standing,
}

/// An attempt under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its number.
    pub generation: u64,
    /// `deploy`, `rollback`, `by-hand`, `promote`.
    pub kind: String,
    /// Who began it.
    pub by: String,
    /// When, milliseconds since the epoch.
    pub began_ms: u64,
    /// `preparing`, …
    pub phase: String,
    /// The candidate.
    pub slot: Option<String>,
    /// Its release.
    pub release: Option<String>,
    /// What it waits for, in words: the last probe, the slot that still drains and what it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// What the slot that is being let go of still has in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<InFlight>,
    /// The plan that it goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
}

/// Where a deployment is in its plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// From 1.
    pub step: usize,
    /// How many there are.
    pub steps: usize,
    /// What the candidate has of new requests, per cent.
    pub weight: u8,
    /// Since when it is at this step, milliseconds since the epoch; later by as much as it stood still.
    pub since_ms: u64,
    /// When the step has had its time; absent for a plan that does not go on by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// It stands still, because somebody said so.
    #[serde(default)]
    pub paused: bool,
    /// Every step has passed, and the candidate stays where it is.
    #[serde(default)]
    pub finished: bool,
    /// `pass`, `hold` or `fail`, by what is known so far; absent until something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What the candidate answered since the step began.
    pub candidate: Figures,
    /// What the live slot answered in the same time.
    pub live: Figures,
    /// What the verdict waits for.
    pub text: String,
}

/// What a slot answered in some time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests that were answered, or failed.
    pub requests: u64,
    /// Those with a 5xx answer, or none: connect errors, resets, time-outs.
    pub errors: u64,
    /// Requests beside those whose clients left before the head of an answer came.
    #[serde(default)]
    pub given_up: u64,
    /// From the request to the head of its answer, in microseconds: half of them took no longer. Streams and upgrades are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<u64>,
    /// 95 in 100 took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_us: Option<u64>,
    /// 99 in 100 took no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
}

/// How an attempt ended. Answered with status 200 whether or not it succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The release serves (or, for `by-hand`, stands by; or has the weight that was asked for, and stays there).
    pub success: bool,
    /// Its number.
    pub generation: u64,
    /// `deploy`, `rollback`, `by-hand`, `promote`.
    pub kind: String,
    /// What it was to make active.
    pub release: Option<String>,
    /// The slot that has it.
    pub slot: Option<String>,
    /// The release that was live before.
    pub previous: Option<String>,
    /// The phase in which it ended; `switched` once its soak has.
    pub phase: String,
    /// `switched`, `start-timeout`, … (`Cause::code`), `trial` for one that stays at a weight and has not ended, and once the watch has ended `soaked`, `probes-failed`, ….
    pub cause: String,
    /// What the candidate has, for `trial`, per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
    /// One sentence for people.
    pub text: String,
    /// Who began it.
    #[serde(default)]
    pub initiated_by: String,
    /// When it ended, milliseconds since the epoch.
    #[serde(default)]
    pub at_ms: u64,
    /// What the public listener answered once the routers had its table; absent where nobody could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// Milliseconds per phase, in order.
    #[serde(default)]
    pub phases_ms: Vec<(String, u64)>,
    /// What the failed candidate said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
}

/// A switch that slot took back by itself: its new slot failed during the soak, and the old one has the traffic again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The attempt that had switched.
    pub generation: u64,
    /// When the traffic went back, milliseconds since the epoch.
    pub at_ms: u64,
    /// The slot that failed.
    pub from_slot: String,
    /// Its release.
    pub from_release: Option<String>,
    /// The slot that has the traffic again.
    pub to_slot: String,
    /// Its release.
    pub to_release: Option<String>,
    /// `probes-failed`, `exited`, `stopped-by-hand`.
    pub cause: String,
    /// One sentence for people.
    pub text: String,
    /// What the public listener answered once the routers had the table again; absent until then, and where nobody could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
}

/// The evidence of a failed candidate (all that one screen shows).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `web@green.service`.
    pub unit: String,
    /// The unit's Result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// `exited with status 1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
    /// The unit's `STATUS=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_text: Option<String>,
    /// The last probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// The last lines of that run, oldest first.
    #[serde(default)]
    pub log: Vec<String>,
    /// Where its processes listen.
    #[serde(default)]
    pub listens: Vec<String>,
    /// Where it was told to listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The command that shows the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
}

/// One thing that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The app.
    pub app: String,
    /// The attempt.
    pub generation: u64,
    /// `began`, `phase`, `weighed`, `holds` (a step of a plan has had its time, and there is no verdict), `ended`, `soak`, `failing`, `rolled-back`, `returned`, `draining`, `forced`, `stopped`, `down`, `up`, `standby`, `hook`.
    pub event: String,
    /// The phase, for `phase` and `ended`; the hook, for `hook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// The release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The cause's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// One sentence for people.
    pub text: String,
    /// How the app stands with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Box<Standing>>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Always false.
    pub success: bool,
    /// `bad-request`, `nothing-to-roll-back-to` (400), `forbidden` (403), `no-such-app`, `not-taken-up`, `not-found` (404), `busy`,
    /// `unexpected` (409), `refused`, `held`, `key-reused` (422), `failed` (500).
    pub code: String,
    /// What failed, on what, why, and what to do next.
    pub error: String,
    /// For `unexpected`: what the request expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Box<Expected>>,
    /// For `unexpected`: what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Box<Found>>,
}

/// What a request expected of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The last attempt's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The active slot, or its release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
}

/// What is there instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The last attempt's number.
    pub generation: u64,
    /// The active slot.
    pub active: Option<String>,
    /// Its release.
    pub live: Option<String>,
}
