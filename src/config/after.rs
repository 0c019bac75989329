//! What goes on after a switch and when a soak is over: `migrate`, `after_soak`, `keep_warm`, `keep_warm_frozen`.

use std::time::Duration;

use super::error::ConfigError;
use super::section::{Section, Value};
use super::span;
use crate::deploy::{After, Failing, Migrate, Weight};

pub(super) fn after(keys: &mut Section<'_>) -> Result<After, ConfigError> {
    let words = [
        ("report", Failing::Told),
        ("rollback", Failing::Left),
        ("off", Failing::Unseen),
    ];
    let failing = keys.take("after_soak");
    let failing = failing.map_or(Ok(Failing::default()), |value| value.word(&words))?;
    let keep_warm = keys.take("keep_warm");
    let keep_warm = keep_warm.map_or(Ok(Duration::ZERO), |value| value.span("\"30m\""))?;
    let frozen = keys.take("keep_warm_frozen");
    let frozen = frozen.map_or(Ok(false), |value| value.flag())?;
    Ok(After {
        failing,
        keep_warm,
        frozen,
    })
}

/// `"99:1"` or `"95:5 30s"`: what the new slot has and what the old one keeps, and for how long if not for ten seconds. `"off"` is none.
pub(super) fn migrate(value: Option<Value<'_>>) -> Result<Option<Migrate>, ConfigError> {
    let Some(value) = value else {
        return Ok(None);
    };
    let written = value.text("\"99:1\"")?;
    if written == "off" {
        return Ok(None);
    }
    shares(&written).map(Some).ok_or_else(|| {
        value.error(
            format!("{written:?} is no share for the new slot and the old one"),
            "write two parts that add up to 100, the new slot's first and at least 80, and how long that lasts if not ten seconds: \
             `migrate = \"99:1\"`, `migrate = \"95:5 30s\"`",
        )
    })
}

/// More than a small share would leave a switch unproven: whether the new slot is what answers could not be told soon.
const MOST_KEPT: u8 = 20;

fn shares(written: &str) -> Option<Migrate> {
    let (parts, lasts) = written.split_once(' ').unwrap_or((written, "10s"));
    let (new, old) = parts.split_once(':')?;
    let (new, keeps): (Weight, Weight) = (new.parse().ok()?, old.parse().ok()?);
    let lasts = span::parse(lasts).filter(|lasts| !lasts.is_zero())?;
    let fits =
        keeps != Weight::NONE && keeps.get() <= MOST_KEPT && Weight::ALL.without(keeps) == new;
    fits.then_some(Migrate { keeps, lasts })
}
