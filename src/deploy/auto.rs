//! Whether an automatic deployment is to be made: what is wanted, against what is so.
//!
//! **Invariant:** what was tried is not tried again until something else is wanted, unless how it ended says nothing of it.
//! **Invariant:** what people have done stays: a release that they went back from, or away from, does not come back by itself.

/// How often something is tried whose end says nothing of it.
const MOST_TRIES: u32 = 3;

/// What was tried last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// What was wanted then: a commit, or a digest of a file.
    pub wanted: String,
    /// How often.
    pub tries: u32,
    /// How it ended; `None`, if that is not known, or says nothing of it.
    pub ended: Option<Ended>,
}

/// An end that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It became live, as this release.
    Served(String),
    /// It did not: the cause's code.
    Failed(String),
}

/// What is so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The release that is live.
    pub live: Option<String>,
    /// What was left for it, if a rollback brought it, somebody's or slot's own.
    pub left: Option<String>,
    /// Something is being deployed, or an attempt's candidate has a weight.
    pub busy: bool,
    /// Why nothing is to be deployed by itself, if somebody said so.
    pub hold: Option<String>,
    /// The time is one of those at which it may be, if there are such.
    pub window: bool,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Deploy it.
    Deploy,
    /// It is live.
    Live,
    /// It was tried, and failed: the cause's code, or that it ended without one too often.
    NotAgain(String),
    /// It was live, and somebody, or slot itself, has gone to another release since.
    Left,
    /// Somebody holds automatic deployments: why.
    Held(String),
    /// The time is not one of those.
    Closed,
    /// Something else is under way.
    Busy,
}

/// Decides. `release` is what the release of what is wanted is called, where that is known before it is deployed.
#[must_use]
pub fn decide(
    wanted: &str,
    release: Option<&str>,
    tried: Option<&Tried>,
    now: &Circumstances,
) -> Decision {
    let live = now.live.as_deref();
    if release.is_some() && release == live {
        return Decision::Live;
    }
    if let Some(tried) = tried.filter(|tried| tried.wanted == wanted) {
        match &tried.ended {
            Some(Ended::Served(release)) if live == Some(release) => return Decision::Live,
            Some(Ended::Served(_)) => return Decision::Left,
            Some(Ended::Failed(cause)) => return Decision::NotAgain(cause.clone()),
            None if tried.tries >= MOST_TRIES => {
                return Decision::NotAgain(format!("no end in {MOST_TRIES} tries"));
            }
            None => {}
        }
    }
    if release.is_some() && release == now.left.as_deref() {
        return Decision::Left;
    }
    match &now.hold {
        Some(why) => Decision::Held(why.clone()),
        None if !now.window => Decision::Closed,
        None if now.busy => Decision::Busy,
        None => Decision::Deploy,
    }
}

/// Whether an end says something of what was deployed, by its cause's code: what was cut short by something else is tried again.
#[must_use]
pub fn is_its_own(cause: &str) -> bool {
    !matches!(
        cause,
        "interrupted" | "no-idle-slot" | "rebooted" | "unrouted" | "unprepared"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(live: &str) -> Circumstances {
        Circumstances {
            live: Some(live.to_owned()),
            window: true,
            ..Circumstances::default()
        }
    }

    fn tried(wanted: &str, tries: u32, ended: Option<Ended>) -> Tried {
        Tried {
            wanted: wanted.to_owned(),
            tries,
            ended,
        }
    }

    fn served(release: &str) -> Option<Ended> {
        Some(Ended::Served(release.to_owned()))
    }

    fn failed(cause: &str) -> Option<Ended> {
        Some(Ended::Failed(cause.to_owned()))
    }

    #[test]
    fn what_is_not_live_and_was_not_tried_is_deployed() {
        let nothing = Circumstances {
            live: None,
            ..now("")
        };
        assert_eq!(decide("b", None, None, &nothing), Decision::Deploy);
        assert_eq!(decide("b", Some("rb"), None, &now("ra")), Decision::Deploy);
        let before = tried("a", 1, served("ra"));
        assert_eq!(
            decide("b", None, Some(&before), &now("ra")),
            Decision::Deploy
        );
        let before = tried("a", 1, failed("start-failed"));
        assert_eq!(
            decide("b", None, Some(&before), &now("r0")),
            Decision::Deploy
        );
    }

    #[test]
    fn what_is_live_is_left_alone_whoever_deployed_it() {
        assert_eq!(decide("a", Some("ra"), None, &now("ra")), Decision::Live);
        let once = tried("a", 1, served("ra"));
        assert_eq!(decide("a", None, Some(&once), &now("ra")), Decision::Live);
        let failed = tried("a", 1, failed("health-timeout"));
        assert_eq!(
            decide("a", Some("ra"), Some(&failed), &now("ra")),
            Decision::Live
        );
    }

    #[test]
    fn what_failed_is_not_tried_again_until_it_changes() {
        let once = tried("a", 1, failed("health-timeout"));
        let decided = decide("a", Some("ra"), Some(&once), &now("r0"));
        assert_eq!(decided, Decision::NotAgain("health-timeout".to_owned()));
        assert_eq!(
            decide("b", Some("rb"), Some(&once), &now("r0")),
            Decision::Deploy
        );
    }

    #[test]
    fn what_was_gone_back_from_does_not_come_back_by_itself() {
        let once = tried("a", 1, served("ra"));
        assert_eq!(
            decide("a", Some("ra"), Some(&once), &now("r0")),
            Decision::Left
        );
        assert_eq!(decide("a", None, Some(&once), &now("r0")), Decision::Left);
        // Nor if a person had deployed it, and it was never seen to be live.
        let now = Circumstances {
            left: Some("ra".to_owned()),
            ..now("r0")
        };
        assert_eq!(decide("a", Some("ra"), None, &now), Decision::Left);
        assert_eq!(decide("b", Some("rb"), None, &now), Decision::Deploy);
    }

    #[test]
    fn an_end_that_says_nothing_is_tried_again_a_few_times() {
        for tries in 1..MOST_TRIES {
            let again = tried("a", tries, None);
            assert_eq!(
                decide("a", None, Some(&again), &now("r0")),
                Decision::Deploy
            );
        }
        let often = tried("a", MOST_TRIES, None);
        let decided = decide("a", None, Some(&often), &now("r0"));
        assert!(matches!(decided, Decision::NotAgain(_)), "{decided:?}");
        assert!(!is_its_own("rebooted") && !is_its_own("interrupted") && !is_its_own("unprepared"));
        assert!(is_its_own("start-failed") && is_its_own("aborted") && is_its_own("preempted"));
    }

    #[test]
    fn a_hold_the_window_and_another_deployment_are_respected_in_this_order() {
        let mut now = Circumstances {
            busy: true,
            window: false,
            hold: Some("audit".to_owned()),
            ..now("r0")
        };
        assert_eq!(
            decide("a", None, None, &now),
            Decision::Held("audit".to_owned())
        );
        now.hold = None;
        assert_eq!(decide("a", None, None, &now), Decision::Closed);
        now.window = true;
        assert_eq!(decide("a", None, None, &now), Decision::Busy);
        now.busy = false;
        assert_eq!(decide("a", None, None, &now), Decision::Deploy);
        now.hold = Some("audit".to_owned());
        assert_eq!(decide("a", Some("r0"), None, &now), Decision::Live);
    }
}
