//! Message ids: by `MESSAGE_ID=` the journal finds what explains a line (`journalctl -x`, systemd.journal-fields(7)).
//!
//! An id is written into a line as the field `message_id`. What it explains is in `units/usr/lib/systemd/catalog/slot.catalog`, which the
//! package installs, and `tests/catalog.rs` holds both together. An id never changes its meaning: scripts match by it.
//!
//! **Invariant:** words for people; no line is needed for correctness, and a line without an id is as good.

/// What has an id. An event of the API is `EVENT/CAUSE` where the cause makes a difference to whoever reads it.
pub const TOPICS: &[(&str, &str)] = &[
    // An attempt began.
    ("began", "031037884c9e45e69466c2745b840f80"),
    ("ended/switched", "963c12bf6adc465791f3514a9a244f7d"),
    ("ended/standby", "7f3ccae3c09d4c4082ff57fdb0c0a985"),
    ("ended/unprepared", "b383cc3989d6485aae5eae1c9ef90b7b"),
    ("ended/marked", "96431a8d0e23428a96a7a3dba9fd154e"),
    ("ended/already-live", "4f6b77ddd9af47a386cc152be4d4fb00"),
    ("ended/left", "adba88f6e7764117939c1d9b0e0bcb4c"),
    ("ended/build-failed", "ed865c05fc144479a4f9666af1c2bea7"),
    ("ended/build-timeout", "9c4d4c6427ae4f96a0cd4fdc9d622a39"),
    ("ended/hook-failed", "232abef85c294939a232be1c7f14f6a8"),
    ("ended/hook-timeout", "3aff9983a8c14aa2a8a5802046ac4257"),
    ("ended/interrupted", "a6862bec525d4db6a105049a8c98fd62"),
    ("ended/preempted", "14fa0117623a49a4b1ec912479f855e6"),
    ("ended/aborted", "73b0aee105d8473687761f3027220ddd"),
    ("ended/no-idle-slot", "6e9a8ed66e8f4f7f871ca6e6c6bef3b8"),
    ("ended/unrouted", "45288da5828642a19cf7887de067b392"),
    ("ended/start-failed", "0399c9f45f834d4a9583a8c737d14094"),
    ("ended/start-timeout", "3b4f17ff13284a878967427c1a41471d"),
    ("ended/health-timeout", "4104733502e346f2a29c196be5d0f365"),
    ("ended/exited", "8c943f4d396c484ba3352f10055b58e5"),
    ("ended/rebooted", "574c8a860edb42c8983212f7e7182a2c"),
    ("ended/stopped-by-hand", "6d6264cda74240c4974ac7abebbdbdc7"),
    ("ended/probes-failed", "33de7648b134473c8b22a9b0913bb49e"),
    // A check of its plan was not passed: error-rate, latency, …
    ("ended/judged", "a3172b183e134b0da078044e5c17ae9e"),
    // An attempt ended in a way that has no id of its own.
    ("ended", "4a0a769a8bb345999a279b2740225713"),
    ("soak/soaked", "85a0ada65aba423a8e50b3655e307af5"),
    ("soak/superseded", "a94320e295e14c098681a36ef74aae65"),
    ("soak/old-slot-gone", "b9245d5018fa487aacee9e5cd3a5d7b9"),
    // A watch ended with a failure that it can do nothing about.
    ("soak", "bd958c104eda4a3dbb28e8463c455ad6"),
    ("rolled-back", "9a87303420604432870d4166cb5680ce"),
    ("returned", "07cbace6ed204c7a92f7f3f5f08f9fa1"),
    ("failing", "34c233e3c6be4d22bb43699bd496181d"),
    ("weighed", "afdc451645a4466abc943388bfa206d3"),
    // It lost what it had, though nobody said so.
    ("weighed/lost", "1df20a25958242a183f0433ba6f3cc8c"),
    ("holds", "bf54d65aee4a41e4a27c85d45ceb219b"),
    ("forced", "7d850be6ae61493e92c7b2639e7844be"),
    ("stopped/killed", "d8c7ab26daba4417a747e2433030368e"),
    ("down", "989e507aa0184a4f8700390bc96fd74c"),
    ("down/stopped-by-hand", "61b6e2885ea34213b62241e8d78432f7"),
    ("up", "b7108170dde649bbaf5c22e4d23b16b6"),
    ("hook/failed", "bbc0a47d147a4f109cba75ef0588972e"),
    ("standby", "90c3fc9cccdd4b63bcbdf52f70a0f01c"),
    ("state-corrupt", "a021eec417124b25999d6d230fb32b57"),
    ("state-missing", "6d93eec2852e474cbb60dc4acbaec83e"),
    ("held-up/state", "498c691e02c047c399273a3f7619e6e7"),
    ("held-up/table", "bf4a8a19e51d400e8109c9d29c74a53e"),
    // Something else cannot be done at present.
    ("held-up", "24836fb145c94a488d621ddf8ec29e80"),
    ("app-broken", "db073770312b4d278ea7581b5d6e1c2e"),
    ("app-mended", "183946f911f94dedb78a132e9cde8294"),
    // slotd has read an app's file, and systemd's units are made of it as it was before.
    ("units-apart", "c2105a2133894bd397d8a27bf2f24ccc"),
    ("held", "74b54a2c4f2b4899926fc8422199876e"),
    ("unheld", "ec3ef4c01d2a4799b8829bf537cd5edf"),
    ("notices-secret", "255dfd06aca7450f8d94ebf9266e1965"),
    ("router-upgraded", "b73385e6fb094557890b68d8913391e8"),
    ("router-not-upgraded", "3355bec314fe460399a9d0ed548d9686"),
    ("routers-mended", "ac2b74fa45df4c35a5ad6a70369782ce"),
    ("router-settings", "983d812887da403e98dd24b2162cadff"),
    // Somebody asks for something that may change what serves, or has an answer to it.
    ("audit", "e3a1ebc2c4ff4da9ba67254efc7e546e"),
];

/// The causes of an attempt's end that are checks of its plan ([`Failed::code`](crate::deploy::Failed::code)).
const CHECKS: [&str; 5] = [
    "error-rate",
    "error-ratio",
    "latency",
    "latency-ratio",
    "max-hold",
];

/// The id of a topic, if it has one: 32 hexadecimal digits.
#[must_use]
pub fn id(topic: &str) -> Option<&'static str> {
    let mut known = TOPICS.iter();
    known.find(|(name, _)| *name == topic).map(|(_, id)| *id)
}

/// The id of what is like a topic, and differs by some detail: that of the detail if it has one of its own.
#[must_use]
pub fn of(topic: &str, detail: &str) -> Option<&'static str> {
    id(&format!("{topic}/{detail}")).or_else(|| id(topic))
}

/// The id of an event ([`Event::event`](crate::wire::api::Event::event)) with its cause. Routine has none: a phase, a drain that
/// begins, a slot that stopped as it should.
#[must_use]
pub fn of_event(event: &str, cause: Option<&str>) -> Option<&'static str> {
    match (event, cause) {
        ("ended", Some(cause)) if CHECKS.contains(&cause) => id("ended/judged"),
        // These are news only where they did not go well.
        ("hook", Some(_)) => id("hook/failed"),
        ("stopped", Some(_)) => id("stopped/killed"),
        ("weighed", Some(_)) => id("weighed/lost"),
        (event, Some(cause)) => of(event, cause),
        (event, None) => id(event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_as_journald_takes_it_and_no_two_are_the_same() {
        let mut ids: Vec<&str> = TOPICS.iter().map(|(_, id)| *id).collect();
        let are_hex = |id: &&str| {
            id.len() == 32 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
        };
        assert!(ids.iter().all(are_hex));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), TOPICS.len());
    }

    #[test]
    fn an_events_cause_has_an_id_of_its_own_or_that_of_the_event() {
        assert_eq!(of_event("ended", Some("switched")), id("ended/switched"));
        assert_eq!(of_event("ended", Some("latency")), id("ended/judged"));
        assert_eq!(of_event("ended", Some("of-tomorrow")), id("ended"));
        assert_eq!(of_event("down", Some("exit-code")), id("down"));
        assert_ne!(of_event("down", Some("stopped-by-hand")), id("down"));
        assert_eq!(of_event("hook", None), None);
        assert_eq!(of_event("stopped", None), None);
        assert_eq!(of_event("phase", None), None);
    }
}
