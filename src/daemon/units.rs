//! What a world needs of whatever runs the slots: units of systemd, or children of this process.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use super::errand::{Broken, Call};
use crate::deploy::{BootId, Limits, Occasion, ReleaseId, Seen, SlotName, UnitFailure};
use crate::git::Store;
use crate::probe::Internet;
use crate::release::Site;
use crate::staging::{Made, Promoted};

/// The slots of one app, as things that run.
///
/// **Invariant:** every call may be made again, and be given up (its future dropped) at any await; neither starts a second process nor
/// stops one that nobody asked to stop.
pub trait Units: Send + Sync + 'static {
    /// Starts a slot and returns when it is up: READY for `ready = "notify"`, exec'd for `ready = "health"`. A slot that is up
    /// already is a success.
    ///
    /// Children are held to `limits`. A unit is started and stopped by `TimeoutStartSec=` and `TimeoutStopSec=`, which are those of the
    /// app's file when systemd last read it and cannot be set for one run; there `limits` say how long slotd waits.
    ///
    /// # Errors
    /// The unit's own result; `port-in-use` when another process listens where the slot is to.
    fn start(
        &self,
        slot: &SlotName,
        release: &ReleaseId,
        limits: Limits,
    ) -> impl Future<Output = Result<BootId, UnitFailure>> + Send;

    /// Why no slot may be started beside those that run, or not this one, whatever its release, if that is so. For a refusal before
    /// anything is begun; [`Units::start`] fails with the same.
    fn objection(&self, next: Option<&SlotName>) -> impl Future<Output = Option<String>> + Send;

    /// That a slot which starts would go by the app's file as it was before, if that is so: in a sentence, with what mends it.
    fn apart(&self) -> impl Future<Output = Option<String>> + Send {
        std::future::ready(None)
    }

    /// What a slot uses of memory that a second copy of it would need anew, in bytes; `None` if that is not known.
    fn memory(&self, slot: &SlotName) -> impl Future<Output = Option<u64>> + Send;

    /// Stops a slot, its socket first if it has one, and returns when it is inactive; true if SIGTERM was not enough within the stop limit
    /// that its run was started with. Tries again by itself as long as it is not given up.
    fn stop(&self, slot: &SlotName) -> impl Future<Output = bool> + Send;

    /// What runs in a slot now.
    fn seen(&self, slot: &SlotName) -> impl Future<Output = Seen> + Send;

    /// Waits until something has changed for some slot of the app; level-triggered: look with [`Units::seen`] then.
    /// Returns the slot that changed.
    fn changed(&self) -> impl Future<Output = SlotName> + Send;

    /// How often a slot that runs was started again by itself since somebody started it; `None` if that is not known.
    fn restarts(&self, slot: &SlotName) -> impl Future<Output = Option<u32>> + Send;

    /// What runs a slot: `web@green.service`, or how an embedded child is called, `web@green`.
    fn unit(&self, slot: &SlotName) -> String;

    /// Where sockets come from to ask slots and the public listener with.
    fn internet(&self) -> &Internet;

    /// Where the router reaches a slot: `127.0.0.1:20001` or `unix:/run/slot/web/blue/http.sock`.
    fn upstream(&self, slot: &SlotName) -> String;

    /// Where the router reaches what the slot serves on `INTERNAL_PORT`.
    fn internal_upstream(&self, slot: &SlotName) -> String {
        self.upstream(slot)
    }

    /// One health request to a slot, counted only from its own processes.
    fn probe(
        &self,
        slot: &SlotName,
        limit: Duration,
    ) -> impl Future<Output = crate::deploy::Probe> + Send;

    /// Runs the app's `setup_command` for a release whose bits are at the site, and puts what that makes of them in their place: all
    /// of it when this succeeds, and anything when it does not. What a build of before has left running is ended first.
    ///
    /// An app without the key has nothing to do.
    ///
    /// # Errors
    /// How it ended instead.
    fn build(&self, site: &Site) -> impl Future<Output = Result<(), Unbuilt>> + Send;

    /// Runs the app's command for an occasion in the release of that, with the app's environment, and returns when it has ended. What a
    /// hook of before has left running is ended first; there is one at a time.
    ///
    /// An app without that hook has nothing to do.
    ///
    /// # Errors
    /// How it ended instead; the result is `timeout` where its limit has passed.
    fn hook(&self, _occasion: &Occasion) -> impl Future<Output = Result<(), Unbuilt>> + Send {
        std::future::ready(Ok(()))
    }

    /// Freezes what runs in a slot: it keeps its memory and is not run (freezer of cgroups(7)). One that is frozen is a success.
    ///
    /// # Errors
    /// Why it cannot be had, in a sentence.
    fn freeze(&self, _slot: &SlotName) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Err(
            "nothing here can freeze a process with all of its children".to_owned(),
        ))
    }

    /// Thaws what runs in a slot, if it is frozen; tries again by itself as long as it is not given up.
    fn thaw(&self, _slot: &SlotName) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Where the directories are that the app's releases share, as the app sees it.
    fn shared(&self) -> PathBuf;

    /// Where the work tree for the next deployment is, for people.
    fn staging(&self) -> PathBuf;

    /// Makes that of a release, whose commit the store has, unless there is work in it. Nobody's deployment waits for it, and at most one
    /// is made at a time.
    ///
    /// # Errors
    /// A sentence; it is as it was.
    fn stage(
        &self,
        promoted: Promoted,
        store: Store,
    ) -> impl Future<Output = Result<Made, String>> + Send;

    /// Ends what is left of a build that was given up; returns when nothing of it runs.
    fn end_build(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Runs the fetcher of the app's remote, and gives the connection to it to `exchange`, on a thread that may block; when this is given
    /// up, or its limit passes, the connection is closed. An app without a remote has nothing to run.
    ///
    /// # Errors
    /// How the exchange, or the fetcher, ended instead; the result is `timeout` where `fetch_timeout` has passed.
    fn fetch<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> impl Future<Output = Result<T, Unbuilt>> + Send;

    /// Ends what is left of a fetch that was given up; returns when nothing of it runs.
    fn end_fetch(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Runs what sends the app's notices, and gives the connection to it to `exchange`, on a thread that may block; when this is given up,
    /// the connection is closed, and what sends ends. An app without receivers has nothing to run.
    ///
    /// # Errors
    /// How the exchange, or what sends, ended instead.
    fn notify<T: Send + 'static>(
        &self,
        _exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> impl Future<Output = Result<T, Unbuilt>> + Send {
        std::future::ready(Err(Unbuilt::without("has nobody to tell")))
    }

    /// For the report of a failure: the unit's name, its `STATUS=` text, its `SERVICE_RESULT`, the last lines that this run logged, and
    /// where it listens.
    fn report(&self, slot: &SlotName, boot: Option<&BootId>)
    -> impl Future<Output = Report> + Send;
}

/// A build, the fetch before it, or a hook, that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbuilt {
    /// How; its result is `timeout` where its limit has passed.
    pub failure: UnitFailure,
    /// What it said.
    pub report: Report,
}

impl Unbuilt {
    /// There is nothing to run.
    pub(super) fn without(what: &str) -> Self {
        Self {
            failure: UnitFailure {
                result: "unit-missing".into(),
                text: what.to_owned(),
            },
            report: Report::default(),
        }
    }
}

/// What a slot's run says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `web@green.service`, or how an embedded child is called.
    pub unit: String,
    /// The unit's Result: `exit-code`, `timeout`, ….
    pub result: Option<String>,
    /// `exited with status 1`, `killed by SIGSEGV`.
    pub exit: Option<String>,
    /// Its last `STATUS=`.
    pub status_text: Option<String>,
    /// The last lines of this run's output, oldest first; at most 20.
    pub log: Vec<String>,
    /// `127.0.0.1:3000 (node)`, … : where its processes listen.
    pub listens: Vec<String>,
    /// The command that shows the rest: `journalctl -u web@green INVOCATION_ID=…`.
    pub journal: Option<String>,
}
